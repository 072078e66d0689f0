/* What a pool says of itself after a crash: that it was closed, and that damage is no cut. Takes
 * images of its own, since these are promises to whoever looks at the pool, not to publishers. Must
 * never change what the run goes on with.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck.h"
#include "core/log_state.h"
#include "tests/crash/verify.h"

/* An image of what a crash takes least from, or most: the memory's own promise decides which. */
static void image(struct trial *r, bool keeps, struct region *region)
{
    medium_image(&r->medium, draw(&r->shots), keeps ? SHADOW_ALL_NEW : SHADOW_ALL_OLD, region);
}

static bool same_line(const struct region *a, const struct region *b, const void *in_a)
{
    const char *at = in_a;
    return memcmp(at, b->base + (at - a->base), MEDIA_LINE) == 0;
}

/* Claim, watermarks and the roots' copies are on the media as they were written last, and the claim
 * says: closed. */
void witness_closed(struct trial *r)
{
    struct region seen, left;
    struct pool pool;
    medium_region(&r->medium, &seen);
    image(r, r->medium.variant == MEDIUM_PROCESS, &left);
    r->counts->closed++;
    if (pool_attach(&pool, &seen, NULL) != 0) {
        trial_fail(r, "closed, the pool is none");
        return;
    }
    const struct media_claim *claim = pool_claim(&pool, 0);
    if (le32_get(claim->pid) != 0 || !same_line(&seen, &left, claim))
        trial_fail(r, "closed, the pool does not say so");
    for (unsigned which = 0; which < 2; which++) {
        if (le64_get(pool_watermark(&pool, 0, which)->number) < r->now.number ||
            !same_line(&seen, &left, pool_watermark(&pool, 0, which)) ||
            !same_line(&seen, &left, pool_synced(&pool, 0, which)))
            trial_fail(r, "closed, the watermark does not stand at the end");
        const char *copy = (const char *)pool_root_copy(&pool, 0, which);
        for (size_t at = 0; at < sizeof(struct media_root); at += MEDIA_LINE)
            if (!same_line(&seen, &left, copy + at))
                trial_fail(r, "closed, a root's copy is not where fsck looks for it");
    }
}

static bool stands_twice(const struct pool *pool, const struct extent *e, uint64_t bytes)
{
    return memcmp(pool_at(pool, e->base), pool_at(pool, e->base + checkpoint_room(e->size)),
                  bytes) == 0;
}

bool witness_copies(const struct log *log)
{
    const struct pool *pool = &log->pool;
    const struct manifest *m = &log->manifest;
    bool stand = true;
    for (size_t i = 0; stand && i < m->count; i++) {
        const struct media_manifest *head = pool_at(pool, m->piece[i].extent->base);
        stand = stands_twice(pool, m->piece[i].extent, sizeof *head + le32_get(head->size));
    }
    for (const struct topic *t = log->names.by_id; stand && t; t = t->by_id.next)
        for (size_t i = 0; stand && i < t->table.count; i++) {
            const struct media_table *head = pool_at(pool, t->table.piece[i].extent->base);
            stand = stands_twice(pool, t->table.piece[i].extent,
                                 sizeof *head + le32_get(head->count) * sizeof(struct media_run));
        }
    return stand;
}

bool witness_root(const struct log *log, const struct region *media)
{
    const struct pool *pool = &log->pool;
    if (log->job.active || !log->job.place)
        return true;
    bool second = log->job.place == pool_root(pool, log->slot, 1);
    const char *copy = (const char *)pool_root_copy(pool, log->slot, second);
    struct media_root root, its;
    memcpy(&root, media->base + ((const char *)log->job.place - pool->base), sizeof root);
    memcpy(&its, media->base + (copy - pool->base), sizeof its);
    return le64_get(root.generation) != le64_get(log->job.root.generation) ||
           memcmp(&root, &its, sizeof root) == 0;
}

bool witness_unharmed(struct region *region, const uint8_t *boot, char *why, size_t size)
{
#ifdef __SANITIZE_THREAD__
    static atomic_uint
        asked; /* it multiplies the time of what one thread does: one in eight will do there */
    if (atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed) % 8)
        return true;
#endif
    struct fsck_report report;
    struct embar_error err = {0};
    bool writable = !region->readonly;
    region->readonly = true;
    struct fsck_options check = {.region = region, .threads = 1, .boot_id = boot};
    int rc = fsck_run(&check, &report, &err);
    region->readonly = !writable;
    bool unharmed = rc == 0 && report.errors + report.warnings == 0;
    if (rc)
        snprintf(why, size, "the check fails: %s", err.text);
    for (size_t i = 0; i < report.count && !unharmed; i++)
        if (report.finding[i].severity != FSCK_REMARK) {
            snprintf(why, size, "%s: %s", fsck_kind_name(report.finding[i].kind),
                     report.finding[i].text);
            break;
        }
    fsck_report_drop(&report);
    return unharmed;
}

/* An entry that was acked is damaged: whoever opens the pool is told, and it is not taken for the end of
 * the log. */
void witness_damage(struct trial *r, uint64_t number)
{
    const enum variant variant = r->medium.variant;
    bool keeps = variant == MEDIUM_PROCESS || variant == MEDIUM_FILE;
    if (atomic_load(&r->log->checkpoint) >= number)
        return; /* nobody needs the entry any more */
    struct region region;
    struct pool pool;
    struct embar_error err = {0};
    uint8_t boot[16];
    image(r, keeps, &region);
    if (pool_attach(&pool, &region, &err) != 0) {
        trial_fail(r, "attaching: %s", err.text);
        return;
    }
    uint64_t seed = draw(&r->shots);
    char *line = (char *)pool_entry(&pool, 0, number);
    line[below(&seed, MEDIA_LINE)] ^= (char)(1u << below(&seed, 8));
    memcpy(boot, r->boot, sizeof boot);
    boot[0] = (uint8_t)(boot[0] + !keeps);
    struct log_options options = trial_options(r, &region, boot);
    struct log *log = NULL;
    int rc = log_open(&log, &options, &err);
    r->counts->damaged++;
    if (rc != -EMBAR_ECORRUPT || !err.text[0])
        trial_fail(r, "entry %" PRIu64 " was acked and is damaged, and opening says %d", number,
                   rc);
    if (log)
        log_drop(log, &region);
}

/* ---- Flipped bits ------------------------------------------------------------------------- */

struct target {
    const char *name;
    void *at;
    size_t size;
    bool serves; /* what it says is said elsewhere, or not needed: opening must not fail */
};

static struct media_root *newest(const struct pool *pool)
{
    struct media_root *a = pool_root(pool, 0, 0), *b = pool_root(pool, 0, 1);
    return le64_get(a->generation) < le64_get(b->generation) ? b : a;
}

/* A batch's side record that readers come by: the first of a run. */
static struct target side_of(struct trial *r, const struct pool *pool)
{
    struct target t = {.name = "a side record", .serves = true};
    for (unsigned i = 0; i < r->visibles; i++) {
        const struct topic *topic = r->visible[i].topic;
        if (topic->run_count == 0 || (t.at && chance(&r->shots, 2)))
            continue;
        const struct run *run = topic_run(topic, below(&r->shots, (uint32_t)topic->run_count));
        if (run->batches == 0)
            continue;
        const struct media_side *s = pool_at(pool, run->side);
        uint64_t count = (le64_get(s->run0) >> 48) + 1;
        uint64_t lengths = le64_high16(s->sequence) & MEDIA_F_EQUAL ? 0 : count * 4;
        uint64_t under = chance(&r->shots, 2) ? (lengths + 63) / 64 * 64 : 0;
        t.at = pool_at(pool, run->side - under);
        t.size = under ? lengths : sizeof *s;
    }
    return t;
}

static struct target table_of(struct trial *r, const struct pool *pool)
{
    struct target t = {.name = "a run table"};
    for (unsigned i = 0; i < r->visibles; i++) {
        const struct table *table = &r->visible[i].topic->table;
        if (table->count == 0 || (t.at && chance(&r->shots, 2)))
            continue;
        uint32_t piece = below(&r->shots, (uint32_t)table->count);
        struct media_table *head = pool_at(pool, table->piece[piece].extent->base);
        t.at = head;
        t.size = sizeof *head + le32_get(head->count) * sizeof(struct media_run);
    }
    return t;
}

static struct target manifest_of(struct trial *r, const struct pool *pool)
{
    const struct manifest *m = &r->log->manifest;
    struct target t = {.name = "the manifest"};
    if (m->count > 0) {
        uint32_t piece = below(&r->shots, (uint32_t)m->count);
        struct media_manifest *head = pool_at(pool, m->piece[piece].extent->base);
        t.at = head;
        t.size = sizeof *head + le32_get(head->size);
    }
    return t;
}

static struct target choose(struct trial *r, const struct pool *pool)
{
    struct media_root *root = newest(pool);
    switch (below(&r->shots, 8)) {
    case 0: return (struct target){"the superblock", pool->base, sizeof(struct media_super), true};
    case 1: return (struct target){"the claim", pool_claim(pool, 0), MEDIA_LINE, true};
    case 2: return (struct target){"the watermark", pool_watermark(pool, 0, 0), MEDIA_LINE, true};
    case 3:
        return (struct target){"the synced watermark", pool_synced(pool, 0, 0), MEDIA_LINE, true};
    case 4: return (struct target){"a root", root, sizeof *root, false};
    case 5: return manifest_of(r, pool);
    case 6: return table_of(r, pool);
    default: return side_of(r, pool);
    }
}

/* Whoever opens the pool is refused, or served nothing but what is right. */
void witness_flip(struct trial *r)
{
    struct region region;
    struct pool pool;
    struct embar_error err = {0};
    image(r, true, &region);
    if (pool_attach(&pool, &region, &err) != 0) {
        trial_fail(r, "attaching: %s", err.text);
        return;
    }
    struct target t = choose(r, &pool);
    if (!t.at || t.size == 0)
        return;
    char *byte = (char *)t.at + draw(&r->shots) % t.size;
    *byte ^= (char)(1u << below(&r->shots, 8));
    struct log_options options = trial_options(r, &region, r->boot);
    struct log *log = NULL;
    int rc = log_open(&log, &options, &err);
    r->counts->damaged++;
    if (rc) {
        if (t.serves || !err.text[0])
            trial_fail(r, "a bit of %s, byte %td, is wrong, and opening fails: %s", t.name,
                       byte - (char *)t.at, err.text);
        return;
    }
    struct expect e = trial_expect(r, true, draw(&r->shots));
    e.damaged = true;
    struct outcome out;
    char why[512];
    if (!verify(log, &e, &out, why))
        trial_fail(r, "a bit of %s, byte %td, is wrong, and so is what is served: %s", t.name,
                   byte - (char *)t.at, why);
    else if (log->term != r->log->term + 1)
        trial_fail(r, "a bit of %s is wrong, and the term is %u, not %u", t.name, log->term,
                   r->log->term + 1);
    log_drop(log, &region);
}
