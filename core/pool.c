/* The pool's superblock and places: planning a geometry, formatting, attaching. Before step 1; the
 * places serve steps 6 to 8. Must never trust a number from the media before it was checked here
 * (I9), nor write anything when attaching.
 *
 * Every rule about a geometry is in layout_of: what pool_plan proposes, what pool_format writes and
 * what pool_attach believes pass through the same function.
 */
#include "core/pool.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/region_kinds.h"

#define SLOT_BASE   (2ull * MEDIA_PAGE) /* behind both superblocks */
#define SLOT_FIXED  (3ull * MEDIA_PAGE) /* lines and roots, before the rings */
#define SLOT_COPIES (3ull * MEDIA_PAGE) /* of roots and watermarks, at the end */
#define MAX_SIZE    (1ull << 48)        /* pool offsets have 48 bits */
#define MIB         (1ull << 20)
#define MIN_BLOCK   12u
#define MAX_BLOCK   28u
#define MAX_EXTENT  (32 * MIB)
#define MIN_ORDER   2u /* the largest extent holds at least four blocks */
#define SMALL_POOL  (64 * MIB)
#define ALIGN_SMALL (64ull << 10)
#define ALIGN_LARGE (2 * MIB)
#define BLANK_EDGE  MIB

struct layout {
    uint64_t slot_base, slot_stride, data_base, data_size, max_batch;
};

static const char *name_of(const struct region *r)
{
    return r->spec ? r->spec : "memory";
}

static bool power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

static uint64_t floor_power(uint64_t v)
{
    return v == 0 ? 0 : 1ull << (63 - __builtin_clzll(v));
}

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) & ~(to - 1);
}

/* Bounds of every field by itself. NULL, or the name of the one that is outside of them. */
static const char *bad_field(uint64_t size, const struct pool_geometry *g)
{
    if (size < POOL_MIN_SIZE || size > MAX_SIZE || size % MEDIA_LINE != 0)
        return "size (at least 4 MiB, at most 256 TiB)";
    if (g->slots < 1 || g->slots > MEDIA_MAX_SLOTS)
        return "slots (1 to 64)";
    if (g->producers < 1 || g->producers > 1024)
        return "producers (1 to 1024)";
    if (g->descriptors < 2 || g->descriptors > (1u << 20) || !power_of_two(g->descriptors))
        return "descriptors (a power of two from 2 to 2^20)";
    if (g->index_entries < 8 || g->index_entries > (1ull << 32) || !power_of_two(g->index_entries))
        return "index entries (a power of two from 8 to 2^32)";
    if (g->block_shift < MIN_BLOCK || g->block_shift > MAX_BLOCK)
        return "block size (4 KiB to 256 MiB)";
    if (g->max_order < MIN_ORDER || g->max_order > 20)
        return "largest extent (4 to 2^20 blocks)";
    if (g->regions < 1 || g->regions > 65536)
        return "regions (1 to 65536)";
    if (g->brokers < 1 || g->brokers > g->slots)
        return "brokers (1 to the number of slots)";
    return NULL;
}

/* Bytes of one slot's area. All factors are bounded (bad_field): no overflow below 2^39. */
static uint64_t stride_of(const struct pool_geometry *g)
{
    uint64_t pending = (uint64_t)g->producers * g->descriptors * sizeof(struct media_entry);
    uint64_t index = g->index_entries * sizeof(struct media_entry);
    return round_up(SLOT_FIXED + pending + index, MEDIA_PAGE) + SLOT_COPIES;
}

static uint64_t max_batch_of(const struct pool_geometry *g)
{
    /* A batch spans at most two runs, and an extent also holds its side records: half of the
     * largest is what always fits beside them. */
    uint64_t half = (1ull << (g->block_shift + g->max_order)) / 2;
    return half < MEDIA_MAX_BATCH ? half : MEDIA_MAX_BATCH;
}

/* The data area that remains: `parts` equal regions of whole blocks, each a multiple of as large a
 * power of two as costs no more than a 64th of it, so that few extents meet a region's edge. */
static uint64_t data_size_of(uint64_t room, const struct pool_geometry *g)
{
    uint64_t block = 1ull << g->block_shift;
    uint64_t unit = floor_power(room / 64 / g->regions);
    uint64_t largest = block << g->max_order;
    if (unit > largest)
        unit = largest;
    if (unit < block)
        unit = block;
    return room / g->regions / unit * unit * g->regions;
}

/* Where everything stands for a checked geometry. False when the pool is too small for it. */
static bool layout_of(uint64_t size, const struct pool_geometry *g, struct layout *l)
{
    l->slot_base = SLOT_BASE;
    l->slot_stride = stride_of(g);
    uint64_t align = size >= SMALL_POOL ? ALIGN_LARGE : ALIGN_SMALL;
    l->data_base = round_up(SLOT_BASE + l->slot_stride * g->slots, align);
    if (l->data_base >= size)
        return false;
    l->data_size = data_size_of(size - l->data_base, g);
    l->max_batch = max_batch_of(g);
    /* Two extents of the largest kind: one being filled while another is freed. */
    return l->data_size >= 2ull << (g->block_shift + g->max_order);
}

static unsigned default_block_shift(uint64_t size)
{
    unsigned shift = MIN_BLOCK;
    while (size >> shift > MIB && shift < MAX_BLOCK)
        shift++;
    return shift;
}

static uint64_t clamp(uint64_t v, uint64_t low, uint64_t high)
{
    return v < low ? low : v > high ? high : v;
}

int pool_plan(uint64_t size, struct pool_geometry *g, struct embar_error *err)
{
    char text[32];
    if (size < POOL_MIN_SIZE)
        return embar_fail(err, -EMBAR_ETOOSMALL, "%s", size_text(size, text));
    bool small = size < SMALL_POOL;
    if (!g->slots)
        g->slots = small ? 2 : 8;
    if (!g->producers)
        g->producers = small ? 4 : 16;
    if (!g->descriptors)
        g->descriptors = small ? 64 : size < 4 * SMALL_POOL ? 256 : 1024;
    if (!g->index_entries) {
        uint64_t bytes = clamp(size / 256, 64 * sizeof(struct media_entry), 64 * MIB);
        g->index_entries = floor_power(bytes / sizeof(struct media_entry));
    }
    if (!g->block_shift)
        g->block_shift = default_block_shift(size);
    if (!g->regions)
        g->regions = small ? 16 : 64;
    if (!g->brokers)
        g->brokers = 1;
    bool choose = !g->max_order;
    if (choose)
        g->max_order = MIN_ORDER;
    const char *bad = bad_field(size, g);
    if (bad)
        return embar_fail(err, -EMBAR_EINVALID, "out of bounds for a pool of %s: %s.",
                          size_text(size, text), bad);
    struct layout l;
    if (choose && layout_of(size, g, &l)) {
        uint64_t most = l.data_size / 16 < MAX_EXTENT ? l.data_size / 16 : MAX_EXTENT;
        while (2ull << (g->block_shift + g->max_order) <= most)
            g->max_order++;
    }
    if (!layout_of(size, g, &l))
        return embar_fail(err, -EMBAR_ETOOSMALL,
                          "%s do not hold %u slots of %" PRIu64 " KiB and two extents of %" PRIu64
                          " KiB",
                          size_text(size, text), g->slots, stride_of(g) >> 10,
                          (uint64_t)1 << (g->block_shift + g->max_order) >> 10);
    return 0;
}

static uint32_t super_crc(const struct media_super *s)
{
    struct media_super copy = *s;
    copy.crc = le32_of(0);
    return crc32c(0, &copy, sizeof(copy));
}

static int fill_super(struct media_super *s, const struct region *r, const struct pool_geometry *g,
                      const struct layout *l)
{
    memset(s, 0, sizeof(*s));
    memcpy(s->magic, MEDIA_MAGIC, sizeof(s->magic));
    if (getrandom(s->uuid, sizeof(s->uuid), 0) != (ssize_t)sizeof(s->uuid))
        return -EMBAR_EFAULTED;
    if (getrandom(s->secret, sizeof(s->secret), 0) != (ssize_t)sizeof(s->secret))
        return -EMBAR_EFAULTED;
    s->uuid[6] = (uint8_t)((s->uuid[6] & 0x0f) | 0x40); /* RFC 4122: random */
    s->uuid[8] = (uint8_t)((s->uuid[8] & 0x3f) | 0x80);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    s->version = le32_of(MEDIA_VERSION);
    s->incarnation = le64_of(1);
    s->size = le64_of(r->size);
    s->line = le32_of(MEDIA_LINE);
    s->slots = le32_of(g->slots);
    s->producers = le32_of(g->producers);
    s->descriptors = le32_of(g->descriptors);
    s->index_entries = le64_of(g->index_entries);
    s->slot_base = le64_of(l->slot_base);
    s->slot_stride = le64_of(l->slot_stride);
    s->data_base = le64_of(l->data_base);
    s->data_size = le64_of(l->data_size);
    s->block_shift = le32_of(g->block_shift);
    s->max_order = le32_of(g->max_order);
    s->regions = le32_of(g->regions);
    s->brokers = le32_of(g->brokers);
    s->created = le64_of((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    host_boot_id(s->boot_id);
    s->durability = le32_of((uint32_t)r->durability);
    s->crc = le32_of(super_crc(s));
    return 0;
}

struct put {
    struct region *region;
    const struct media_super *super;
};

/* Both copies, the primary last. */
static int put_supers(void *arg)
{
    const struct put *p = arg;
    static const uint64_t places[] = {MEDIA_SUPER_ALT, MEDIA_SUPER_AT};
    for (unsigned i = 0; i < 2; i++) {
        char *at = p->region->base + places[i];
        memcpy(at, p->super, sizeof(*p->super));
        flush_writeback(&p->region->flush, at, sizeof(*p->super));
        flush_drain(&p->region->flush);
    }
    return 0;
}

int pool_format(struct region *r, const struct pool_geometry *geo, struct embar_error *err)
{
    struct pool_geometry g = geo ? *geo : (struct pool_geometry){0};
    struct layout l;
    struct media_super super;
    if (r->readonly)
        return embar_fail(err, -EMBAR_EINVALID,
                          "%s is open for reading only: it cannot be formatted.", name_of(r));
    int rc = pool_plan(r->size, &g, err);
    if (rc)
        return rc;
    if (!layout_of(r->size, &g, &l)) /* pool_plan has just checked it */
        __builtin_trap();
    rc = fill_super(&super, r, &g, &l);
    if (rc)
        return embar_fail(err, rc, "making an identity for %s", name_of(r));
    /* No superblock while the slots are being cleared: a crash in between leaves no pool, never
     * one with old records in it. */
    rc = region_zero(r, 0, SLOT_BASE);
    if (rc == 0 && !r->created) {
        rc = region_sync(r);
        if (rc == 0)
            rc = region_zero(r, l.slot_base, l.slot_stride * g.slots);
    }
    if (rc == 0)
        rc = region_sync(r);
    if (rc == 0)
        rc = guard_run(r, put_supers, &(struct put){r, &super});
    if (rc == 0)
        rc = region_sync(r);
    return rc ? embar_fail(err, rc, "formatting %s", name_of(r)) : 0;
}

enum verdict { FOREIGN, NEWER, DAMAGED, UNKNOWN_FEATURE, VALID, UNREADABLE };

static enum verdict judge_copy(const struct media_super *s)
{
    if (memcmp(s->magic, MEDIA_MAGIC, sizeof(s->magic)) != 0)
        return FOREIGN;
    /* Another version may keep its checksum elsewhere. */
    if (le32_get(s->version) != MEDIA_VERSION)
        return NEWER;
    if (le32_get(s->crc) != super_crc(s))
        return DAMAGED;
    if (le64_get(s->incompat) & ~MEDIA_INCOMPAT_KNOWN)
        return UNKNOWN_FEATURE;
    return VALID;
}

/* Judge one copy, working on a private one: the media may change under a hostile other host. */
static enum verdict judge(struct region *r, uint64_t at, struct media_super *s)
{
    if (guard_fetch(r, s, r->base + at, sizeof(*s)) != 0)
        return UNREADABLE;
    return judge_copy(s);
}

static int refuse(struct region *r, enum verdict verdict, const struct media_super *s,
                  struct embar_error *err)
{
    switch (verdict) {
    case NEWER:
        return embar_fail(err, -EMBAR_EVERSION,
                          "%s is a pool of format version %u, and this embarfs knows version %u: "
                          "open it with the embarfs release that made it.",
                          name_of(r), le32_get(s->version), MEDIA_VERSION);
    case UNKNOWN_FEATURE:
        return embar_fail(err, -EMBAR_EFEATURE,
                          "%s uses features this embarfs does not know (incompat %#" PRIx64
                          "): open it with a newer embarfs.",
                          name_of(r), (uint64_t)(le64_get(s->incompat) & ~MEDIA_INCOMPAT_KNOWN));
    case DAMAGED:
        return embar_fail(err, -EMBAR_ECORRUPT,
                          "both superblocks of %s fail their checksum: the pool is damaged; "
                          "restore it from a replica or a copy.",
                          name_of(r));
    case FOREIGN:
    case VALID:
    case UNREADABLE: /* the copy, where the first one is foreign */
    default:
        if (pool_is_blank(r))
            return embar_fail(err, -EMBAR_ENOTPOOL,
                              "%s holds no pool, it is empty: make one with `embar pool create`.",
                              name_of(r));
        if (region_faulted(r)) /* it may well be empty, or hold one */
            return embar_fail(err, -EMBAR_EFAULTED, "looking for a pool in %s", name_of(r));
        if (r->kind == REGION_DEVDAX)
            return embar_fail(err, -EMBAR_ENOTPOOL,
                              "%s is not an embarfs pool and is not empty; it was not changed: use "
                              "another device, or clear it with `embar pool erase %s` if nobody "
                              "needs what it holds.",
                              name_of(r), name_of(r));
        return embar_fail(err, -EMBAR_ENOTPOOL,
                          "%s is not an embarfs pool and is not empty; it was not changed: check "
                          "the path, or name a new file.",
                          name_of(r));
    }
}

/* The superblock's numbers against each other and the region. NULL, or what is wrong. */
static const char *bad_bounds(const struct media_super *s, const struct region *r, struct pool *p)
{
    p->size = le64_get(s->size);
    p->geo = (struct pool_geometry){
        .slots = le32_get(s->slots),
        .producers = le32_get(s->producers),
        .descriptors = le32_get(s->descriptors),
        .index_entries = le64_get(s->index_entries),
        .block_shift = le32_get(s->block_shift),
        .max_order = le32_get(s->max_order),
        .regions = le32_get(s->regions),
        .brokers = le32_get(s->brokers),
    };
    p->slot_base = le64_get(s->slot_base);
    p->slot_stride = le64_get(s->slot_stride);
    p->data_base = le64_get(s->data_base);
    p->data_size = le64_get(s->data_size);
    const char *bad = bad_field(p->size, &p->geo);
    if (bad)
        return bad;
    if (le32_get(s->line) != MEDIA_LINE)
        return "line size";
    if (le32_get(s->durability) > MEDIA_DURABLE_MACHINE)
        return "durability";
    if (p->size > r->size)
        return "size (the region is shorter: it was truncated or is another device)";
    if (p->slot_base < SLOT_BASE || p->slot_base % MEDIA_PAGE != 0 || p->slot_base > p->size)
        return "slot base";
    if (p->slot_stride < stride_of(&p->geo) || p->slot_stride % MEDIA_PAGE != 0)
        return "slot stride";
    uint64_t end;
    if (__builtin_mul_overflow(p->slot_stride, p->geo.slots, &end) ||
        __builtin_add_overflow(end, p->slot_base, &end) || end > p->size)
        return "slot area";
    if (p->data_base < end || p->data_base % MEDIA_PAGE != 0)
        return "data base";
    if (__builtin_add_overflow(p->data_base, p->data_size, &end) || end > p->size)
        return "data area";
    uint64_t block = 1ull << p->geo.block_shift;
    if (p->data_size == 0 || p->data_size % (block * p->geo.regions) != 0)
        return "data size";
    if (block << p->geo.max_order > p->data_size)
        return "largest extent";
    return NULL;
}

static int cut_short(const struct region *r, uint64_t is, uint64_t was, struct embar_error *err)
{
    if (r->kind != REGION_FILE)
        return embar_fail(err, -EMBAR_ECORRUPT,
                          "%s holds a pool of %" PRIu64 " bytes and has %" PRIu64
                          " itself: it is another device, or was made smaller; use a copy of the "
                          "pool.",
                          name_of(r), was, is);
    return embar_fail(err, -EMBAR_ECORRUPT,
                      "%s was truncated: %" PRIu64 " of its %" PRIu64
                      " bytes are left; `truncate -s %" PRIu64
                      "` restores its length, and `embar fsck` tells then what is lost, or use a "
                      "copy of it.",
                      name_of(r), is, was, was);
}

int pool_check_length(const struct region *r, uint64_t is, struct embar_error *err)
{
    static const off_t places[] = {MEDIA_SUPER_AT, MEDIA_SUPER_ALT};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct media_super s;
        if (pread(r->fd, &s, sizeof(s), places[i]) == (ssize_t)sizeof(s) &&
            judge_copy(&s) == VALID && le64_get(s.size) > is)
            return cut_short(r, is, le64_get(s.size), err);
    }
    return 0;
}

int pool_super(struct pool *p, struct region *r, unsigned which, const char **bad)
{
    struct media_super s;
    memset(p, 0, sizeof(*p));
    *bad = "checksum";
    switch (judge(r, which ? MEDIA_SUPER_ALT : MEDIA_SUPER_AT, &s)) {
    case UNREADABLE: return -EMBAR_EFAULTED;
    case FOREIGN: return -EMBAR_ENOTPOOL;
    case NEWER: return -EMBAR_EVERSION;
    case DAMAGED: return -EMBAR_ECORRUPT;
    case UNKNOWN_FEATURE: return -EMBAR_EFEATURE;
    case VALID: break;
    }
    *bad = bad_bounds(&s, r, p);
    return *bad ? -EMBAR_ECORRUPT : 0;
}

int pool_attach(struct pool *p, struct region *r, struct embar_error *err)
{
    memset(p, 0, sizeof(*p));
    if (r->size < POOL_MIN_SIZE) {
        char text[32];
        return embar_fail(err, -EMBAR_ETOOSMALL, "%s: %s", name_of(r), size_text(r->size, text));
    }
    struct media_super copies[2];
    enum verdict first = judge(r, MEDIA_SUPER_AT, &copies[0]);
    if (first == UNREADABLE)
        return embar_fail(err, -EMBAR_EFAULTED, "reading the superblock of %s", name_of(r));
    if (first == UNKNOWN_FEATURE) /* undamaged: the copy could only say less */
        return refuse(r, first, &copies[0], err);
    enum verdict second = first == VALID ? FOREIGN : judge(r, MEDIA_SUPER_ALT, &copies[1]);
    const struct media_super *s = first == VALID ? &copies[0] : &copies[1];
    if (first != VALID && second != VALID) {
        /* The copy that says more is the one to report. */
        enum verdict worst = first > second ? first : second;
        return refuse(r, worst, first >= second ? &copies[0] : &copies[1], err);
    }
    if (le64_get(s->size) > r->size)
        return cut_short(r, r->size, le64_get(s->size), err);
    const char *bad = bad_bounds(s, r, p);
    if (bad) {
        memset(p, 0, sizeof(*p));
        return embar_fail(err, -EMBAR_ECORRUPT,
                          "the superblock of %s makes no sense: %s; restore the pool from a "
                          "replica or a copy.",
                          name_of(r), bad);
    }
    uint64_t unknown = le64_get(s->ro_compat) & ~MEDIA_ROCOMPAT_KNOWN;
    if (unknown && !r->readonly)
        return embar_fail(err, -EMBAR_EFEATURE,
                          "%s uses features this embarfs does not know (ro_compat %#" PRIx64
                          "): open it for reading only, or with a newer embarfs.",
                          name_of(r), unknown);
    p->region = r;
    p->base = r->base;
    p->flush = &r->flush;
    host_boot_id(p->boot_id);
    memcpy(p->uuid, s->uuid, sizeof(p->uuid));
    p->incarnation = le64_get(s->incarnation);
    le32 secret[2];
    memcpy(secret, s->secret, sizeof(secret));
    p->side_seed = le32_get(secret[0]);
    p->side_magic = MEDIA_SIDE_MAGIC ^ le32_get(secret[1]);
    p->max_batch = max_batch_of(&p->geo);
    /* What the pool was made for, unless this opening asked otherwise or the memory it has come to
     * (a copy on tmpfs) cannot give it. */
    p->durability = (enum media_durability)le32_get(s->durability);
    if (r->durability_given || !r->can_machine)
        p->durability = r->durability;
    r->durability = p->durability; /* one answer, whomever one asks */
    return 0;
}

static bool all_zero(const char *p, uint64_t n)
{
    /* n is a multiple of 64: regions are whole pages. */
    for (uint64_t i = 0; i < n; i += MEDIA_LINE) {
        uint64_t words[MEDIA_LINE / 8];
        memcpy(words, p + i, sizeof(words));
        uint64_t any = 0;
        for (unsigned w = 0; w < MEDIA_LINE / 8; w++)
            any |= words[w];
        if (any)
            return false;
    }
    return true;
}

static bool is_blank(const struct region *r)
{
    if (r->size < 2 * BLANK_EDGE)
        return all_zero(r->base, r->size & ~(uint64_t)(MEDIA_LINE - 1));
    /* A disk image begins with zeros too: a file is looked at whole. A device's are at its edges,
     * where partition tables and filesystems put their marks. */
    if (!all_zero(r->base, BLANK_EDGE) || !all_zero(r->base + r->size - BLANK_EDGE, BLANK_EDGE))
        return false;
    if (r->kind != REGION_FILE || r->created)
        return true;
    return all_zero(r->base + BLANK_EDGE, r->size - 2 * BLANK_EDGE);
}

static int blank(void *arg)
{
    return is_blank(arg);
}

bool pool_is_blank(struct region *r)
{
    return guard_run(r, blank, r) == 1;
}

static char *slot_at(const struct pool *p, unsigned slot, uint64_t at)
{
    return p->base + p->slot_base + p->slot_stride * slot + at;
}

struct media_claim *pool_claim(const struct pool *p, unsigned slot)
{
    return (void *)slot_at(p, slot, 0);
}

struct media_heartbeat *pool_heartbeat(const struct pool *p, unsigned slot)
{
    return (void *)slot_at(p, slot, 1 * MEDIA_LINE);
}

/* Page `i` of the copies, as far from what they are copies of as the slot is long. */
static uint64_t copies_at(const struct pool *p, unsigned i)
{
    return p->slot_stride - SLOT_COPIES + (uint64_t)MEDIA_PAGE * i;
}

struct media_watermark *pool_watermark(const struct pool *p, unsigned slot, unsigned which)
{
    return (void *)slot_at(p, slot, (which & 1 ? copies_at(p, 2) : 0) + 2 * MEDIA_LINE);
}

struct media_watermark *pool_synced(const struct pool *p, unsigned slot, unsigned which)
{
    return (void *)slot_at(p, slot, (which & 1 ? copies_at(p, 2) : 0) + 3 * MEDIA_LINE);
}

struct media_root *pool_root(const struct pool *p, unsigned slot, unsigned which)
{
    return (void *)slot_at(p, slot, (uint64_t)MEDIA_PAGE * (1 + (which & 1)));
}

struct media_root *pool_root_copy(const struct pool *p, unsigned slot, unsigned which)
{
    return (void *)slot_at(p, slot, copies_at(p, which & 1));
}

struct media_entry *pool_descriptor(const struct pool *p, unsigned slot, unsigned producer,
                                    uint64_t number)
{
    uint64_t record = (uint64_t)producer * p->geo.descriptors + (number & (p->geo.descriptors - 1));
    return (void *)slot_at(p, slot, SLOT_FIXED + record * sizeof(struct media_entry));
}

struct media_entry *pool_entry(const struct pool *p, unsigned slot, uint64_t number)
{
    uint64_t record =
        (uint64_t)p->geo.producers * p->geo.descriptors + (number & (p->geo.index_entries - 1));
    return (void *)slot_at(p, slot, SLOT_FIXED + record * sizeof(struct media_entry));
}

bool pool_in_data(const struct pool *p, uint64_t at, uint64_t n)
{
    if (at < p->data_base)
        return false;
    at -= p->data_base;
    return at <= p->data_size && n <= p->data_size - at;
}

uint64_t pool_extent_base(const struct pool *p, uint64_t at, unsigned order)
{
    uint64_t extent = 1ull << (p->geo.block_shift + order);
    return p->data_base + ((at - p->data_base) & ~(extent - 1));
}
