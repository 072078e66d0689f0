/* Superblocks and slots' lines, each by itself (before recovery). Reads only. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/fsck_state.h"

static bool zero(const void *p, size_t n)
{
    const char *at = p;
    for (size_t i = 0; i < n; i++)
        if (at[i])
            return false;
    return true;
}

/* Is the CRC of the struct right, its own field as zero? */
static bool whole(const void *record, size_t size, size_t crc_at)
{
    char copy[sizeof(struct media_root)]; /* the largest looked at */
    le32 crc;
    memcpy(copy, record, size);
    memcpy(&crc, copy + crc_at, sizeof crc);
    memset(copy + crc_at, 0, sizeof crc);
    return crc32c(0, copy, size) == le32_get(crc);
}

static struct fsck_range place_of(const struct fsck *f, const void *at, uint64_t size)
{
    uint64_t from = (uint64_t)((const char *)at - f->region->base);
    return (struct fsck_range){from, from + size};
}

/* ---- Superblocks -------------------------------------------------------------------------- */

int fsck_supers(struct fsck *f, struct embar_error *err)
{
    /* What it is at all, and in the words that every other opening uses. */
    int rc = pool_attach(&f->pool, f->region, err);
    if (rc)
        return rc;
    if (f->opt->boot_id)
        memcpy(f->pool.boot_id, f->opt->boot_id, sizeof f->pool.boot_id);
    static const char *const names[2] = {"The superblock", "The superblock's copy"};
    static const uint64_t at[2] = {MEDIA_SUPER_AT, MEDIA_SUPER_ALT};
    const char *base = f->region->base;
    for (unsigned i = 0; i < 2; i++) {
        struct pool p;
        const char *bad;
        rc = pool_super(&p, f->region, i, &bad);
        bool differs = i == 1 && rc == 0 && !f->super_damaged[0] &&
                       memcmp(base + at[0], base + at[1], sizeof(struct media_super)) != 0;
        f->super_damaged[i] = rc != 0 || differs;
        if (rc || differs)
            fsck_say(f,
                     &(struct finding){.kind = FSCK_SUPERBLOCK,
                                       .severity = FSCK_WARNING,
                                       .action = FSCK_REWRITE,
                                       .place = {at[i], at[i] + sizeof(struct media_super)}},
                     "%s %s. The other one is whole, so nothing is lost.", names[i],
                     differs                   ? "is not the same as the superblock"
                     : rc == -EMBAR_ENOTPOOL   ? "is overwritten"
                     : rc == -EMBAR_EVERSION   ? "says another format version"
                     : strcmp(bad, "checksum") ? "makes no sense"
                                               : "fails its checksum");
    }
    return 0;
}

/* ---- Slots -------------------------------------------------------------------------------- */

#define MARK_MEANS                                                                                 \
    "It says in turn with another one how far the index was durable. Without it a lost end of "    \
    "the "                                                                                         \
    "index is perhaps not noticed."
#define SYNCED_MEANS                                                                               \
    "It says in turn with another one how far the pool was on the disk, which counts after a "     \
    "crash of the machine."

struct line_kind {
    enum fsck_kind kind;
    const char *name, *means;
    size_t crc_at;
};

enum { CLAIM, HEARTBEAT, MARK, SYNCED, MARK_2, SYNCED_2, LINES };

static const struct line_kind line_kinds[LINES] = {
    [CLAIM] = {FSCK_CLAIM, "claim",
               "It says who served the slot last, which the next opening writes anew.",
               offsetof(struct media_claim, crc)},
    [HEARTBEAT] = {FSCK_HEARTBEAT, "heartbeat", "It matters only while the slot is served.",
                   offsetof(struct media_heartbeat, crc)},
    [MARK] = {FSCK_WATERMARK, "watermark", MARK_MEANS, offsetof(struct media_watermark, crc)},
    [SYNCED] = {FSCK_WATERMARK, "synced watermark", SYNCED_MEANS,
                offsetof(struct media_watermark, crc)},
    [MARK_2] = {FSCK_WATERMARK, "second watermark", MARK_MEANS,
                offsetof(struct media_watermark, crc)},
    [SYNCED_2] = {FSCK_WATERMARK, "second synced watermark", SYNCED_MEANS,
                  offsetof(struct media_watermark, crc)},
};

static const void *line_at(const struct pool *p, unsigned slot, unsigned i)
{
    switch (i) {
    case CLAIM: return pool_claim(p, slot);
    case HEARTBEAT: return pool_heartbeat(p, slot);
    case MARK:
    case MARK_2: return pool_watermark(p, slot, i == MARK_2);
    default: return pool_synced(p, slot, i == SYNCED_2);
    }
}

/* Did anybody ever write into the slot's roots or index? */
static bool used(const struct fsck *f, unsigned slot)
{
    for (unsigned i = 0; i < 2; i++)
        if (checkpoint_root_valid(pool_root(&f->pool, slot, i)) ||
            checkpoint_root_valid(pool_root_copy(&f->pool, slot, i)))
            return true;
    for (uint64_t n = 0; n < f->pool.geo.index_entries; n++) {
        uint64_t number = le64_get(pool_entry(&f->pool, slot, n)->number);
        if (number != 0 && number % f->pool.geo.index_entries == n)
            return true;
    }
    return false;
}

/* Entries that stand in the slot's ring and are of this term. */
static uint64_t entries_of(const struct fsck *f, unsigned slot, uint32_t term)
{
    uint64_t count = 0;
    for (uint64_t n = 0; n < f->pool.geo.index_entries; n++) {
        const struct media_entry *line = pool_entry(&f->pool, slot, n);
        count += le32_get(line->term) == term &&
                 le64_get(line->number) % f->pool.geo.index_entries == n &&
                 le64_get(line->number) != 0;
    }
    return count;
}

#define MARKED 24u /* entries of a term by which its watermarks have left the caches */

/* A claim comes before anything else of a term. Its watermarks are stored with its first entry, and nobody
 * waits for them until it is closed; the page cache keeps them for as long as it likes. */
static bool missing(const struct fsck *f, unsigned slot, unsigned i)
{
    if (i == CLAIM)
        return used(f, slot);
    if ((i != MARK && i != MARK_2) || !used(f, slot))
        return false;
    struct media_claim c = *pool_claim(&f->pool, slot);
    uint32_t term = recover_claim_term(&f->pool, slot, NULL);
    bool booted = memcmp(c.boot_id, f->pool.boot_id, sizeof c.boot_id) != 0;
    if (term == 0 || le32_get(c.pid) == 0)
        return true;
    return !(booted && f->region->needs_sync) && entries_of(f, slot, term) > MARKED;
}

static void lines_of(struct fsck *f, unsigned slot)
{
    for (unsigned i = 0; i < LINES; i++) {
        const struct line_kind *k = &line_kinds[i];
        const void *at = line_at(&f->pool, slot, i);
        char line[MEDIA_LINE];
        memcpy(line, at, sizeof line);
        bool gone = zero(line, sizeof line);
        bool ok = gone ? !missing(f, slot, i) : whole(line, sizeof line, k->crc_at);
        if (ok && i == CLAIM && !gone)
            ok = le32_get(((const struct media_claim *)line)->magic) == MEDIA_CLAIM_MAGIC;
        if (ok)
            continue;
        f->lines_damaged |= 1ull << slot;
        f->state_damaged = true; /* a watermark may say only what is durable: a checkpoint is */
        f->watermark_damaged = f->watermark_damaged || k->kind == FSCK_WATERMARK;
        fsck_say(f,
                 &(struct finding){.kind = k->kind,
                                   .severity = FSCK_WARNING,
                                   .action = FSCK_REWRITE,
                                   .place = place_of(f, at, MEDIA_LINE)},
                 "The %s of slot %u %s. %s", k->name, slot,
                 gone ? "is gone: it is all zeros" : "fails its checksum", k->means);
    }
}

/* Put back to an earlier moment: the copy was written behind what stood there. */
static bool root_is_back(const struct media_root *r, const struct media_root *copy)
{
    return checkpoint_root_valid(r) && checkpoint_root_valid(copy) &&
           le64_get(copy->generation) > le64_get(r->generation);
}

/* Could line 0 be that of the root that comes behind `newest`? */
static bool head_begun(const struct fsck *f, const struct media_root *r,
                       const struct media_root *newest)
{
    uint64_t generation = newest ? le64_get(newest->generation) : 0;
    return le32_get(r->magic) == MEDIA_ROOT_MAGIC && le64_get(r->generation) == generation + 1 &&
           (!newest || (le64_get(r->number) >= le64_get(newest->number) &&
                        le32_get(r->term) >= le32_get(newest->term))) &&
           checkpoint_extent(&f->pool, le64_low48(r->manifest), le64_high16(r->manifest), 1);
}

/* Half of a root, whose writer died: one line is of the root that comes behind the newest, the other
 * still what stood there, as the copy says, or of a root that was cut short before. Lines are stored whole. */
static bool root_is_begun(const struct fsck *f, const struct media_root *r,
                          const struct media_root *copy, const struct media_root *other)
{
    bool first = zero(copy, sizeof *copy) && zero(other, sizeof *other);
    bool older =
        checkpoint_root_valid(other) && !first &&
        (zero(copy, sizeof *copy) ||
         (checkpoint_root_valid(copy) && le64_get(copy->generation) < le64_get(other->generation)));
    if ((!first && !older) || !zero(r->zero, sizeof r->zero))
        return false;
    return memcmp(r, copy, MEDIA_LINE) == 0 || head_begun(f, r, first ? NULL : other);
}

static void root_say(struct fsck *f, unsigned slot, unsigned i, const struct finding *what,
                     const char *is, const char *means)
{
    fsck_say(f, what, "Checkpoint root %c of slot %u %s. %s", i ? 'B' : 'A', slot, is, means);
}

static void roots_of(struct fsck *f, unsigned slot)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct media_root *at = pool_root(&f->pool, slot, i);
        struct media_root r = *at, copy = *pool_root_copy(&f->pool, slot, i);
        struct media_root other = *pool_root(&f->pool, slot, 1 - i);
        /* The copy follows the root: a root that was never written has none, and none is newer. */
        bool stands = checkpoint_root_valid(&copy), none = zero(&r, sizeof r);
        bool back = root_is_back(&r, &copy);
        struct finding what = {.kind = FSCK_ROOT,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .place = place_of(f, at, sizeof r)};
        if (!back && (checkpoint_root_valid(&r) || (none && !stands)))
            continue;
        if (!back && root_is_begun(f, &r, &copy, &other)) {
            what.severity = FSCK_REMARK;
            what.action = FSCK_NONE;
            root_say(f, slot, i, &what, "is half written",
                     "The power went while a checkpoint was being made, and the one before it "
                     "counts. The next one is written there.");
            continue;
        }
        f->state_damaged = true;
        f->root_damaged = true;
        f->roots_damaged |= 1ull << slot;
        root_say(f, slot, i, &what,
                 back   ? "is an older one again, which was overwritten since"
                 : none ? "is gone: it is all zeros"
                        : "fails its checksum",
                 stands ? "Its copy is whole." : "Its copy is damaged too.");
    }
}

void fsck_lines(struct fsck *f)
{
    for (unsigned slot = 0; slot < f->pool.geo.slots; slot++) {
        lines_of(f, slot);
        roots_of(f, slot);
    }
}

static int newest_first(const void *a, const void *b)
{
    const struct fsck_root *x = a, *y = b;
    uint64_t m = le64_get(x->root.number), n = le64_get(y->root.number);
    if (m != n)
        return m > n ? -1 : 1;
    m = le64_get(x->root.generation), n = le64_get(y->root.generation);
    return m > n ? -1 : m < n;
}

unsigned fsck_roots(struct fsck *f, struct fsck_root *r, unsigned n)
{
    unsigned found = 0;
    for (unsigned slot = 0; slot < f->pool.geo.slots; slot++)
        for (unsigned which = 0; which < 2 && found < n; which++) {
            struct media_root *at = pool_root(&f->pool, slot, which);
            r[found] = (struct fsck_root){.root = *at, .at = at};
            struct media_root copy = *pool_root_copy(&f->pool, slot, which);
            if (!checkpoint_root_valid(&r[found].root) || root_is_back(&r[found].root, &copy))
                r[found].root = copy;
            found += checkpoint_root_valid(&r[found].root);
        }
    qsort(r, found, sizeof *r, newest_first);
    return found;
}
