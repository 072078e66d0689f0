/* Damage and its bounds: see hostile.h. */
#include "tests/unit/core/hostile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/crc.h"
#include "core/log_state.h"

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t next(uint64_t *d)
{
    *d ^= *d << 13;
    *d ^= *d >> 7;
    *d ^= *d << 17;
    return *d * 2685821657736338717u >> 16;
}

static void *memory_new(void)
{
    void *p = mmap(NULL, HOSTILE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

static int log_make(struct log **log, struct region *r, char *memory, bool readonly)
{
    struct log_options o = {.region = r, .manual = true, .readonly = readonly};
    o.geo.index_entries = 128;
    o.geo.descriptors = 4;
    o.geo.max_order = 5;
    struct embar_error err = {0};
    region_wrap(r, memory, HOSTILE_SIZE, NULL);
    r->readonly = readonly;
    int rc = log_open(log, &o, &err);
    /* Who is refused is told why. */
    CHECK(rc == 0 || (rc < 0 && strlen(err.text) > 10));
    return rc;
}

static uint64_t control(struct log *log, struct control c)
{
    struct commit commit;
    CHECK(log_control_wait(log, &c, &commit) == 0);
    return c.kind == MEDIA_C_OPEN ? commit.session : commit.id;
}

struct told {
    struct completion completion;
    struct commit commit;
    bool done;
};

static void told(struct completion *self, const struct commit *commit)
{
    ((struct told *)self)->commit = *commit;
    ((struct told *)self)->done = true;
}

/* One batch of n bytes in `count` messages of any lengths. */
static int publish(struct log *log, struct topic *t, uint64_t session, uint64_t sequence,
                   uint32_t n, uint32_t count, uint64_t *d)
{
    struct told done = {.completion.done = told};
    struct batch b = {.topic = t,
                      .length = n,
                      .count = count,
                      .equal = count == 1,
                      .session = session,
                      .sequence = sequence,
                      .epoch = 1,
                      .completion = &done.completion};
    int rc = log_reserve(log, &b);
    if (rc)
        return rc;
    uint32_t here;
    for (uint32_t at = 0; at < n; at += here) {
        char *p = log_span(log, &b, at, &here);
        for (uint32_t i = 0; i < here; i++)
            p[i] = (char)next(d);
        b.payload_crc = crc32c(b.payload_crc, p, here);
        log_writeback(log, &b, at, here);
    }
    le32 *lengths = log_lengths(log, &b);
    for (uint32_t i = 0; lengths && i < count; i++)
        lengths[i] = le32_of(i + 1 == count ? n - (n / count) * (count - 1) : n / count);
    rc = log_announce(log_producer(log, 0), &b);
    if (rc) {
        log_abandon(log, &b);
        return rc;
    }
    log_commit(log);
    CHECK(done.done);
    return done.commit.status;
}

/* ---- The pristine pool -------------------------------------------------------------------- */

static void area_add(struct hostile *h, const char *name, uint64_t at, uint64_t size)
{
    if (h->areas < HOSTILE_AREAS)
        h->area[h->areas++] = (struct hostile_area){name, at, size};
}

static uint64_t offset_of(const struct pool *p, const void *at)
{
    return (uint64_t)((const char *)at - p->base);
}

static void areas_find(struct hostile *h, struct log *log)
{
    const struct pool *p = log_pool(log);
    area_add(h, "superblock", MEDIA_SUPER_AT, sizeof(struct media_super));
    area_add(h, "second superblock", MEDIA_SUPER_ALT, sizeof(struct media_super));
    area_add(h, "slot lines", offset_of(p, pool_claim(p, 0)), 4 * MEDIA_LINE);
    area_add(h, "watermark", offset_of(p, pool_watermark(p, 0, 0)), MEDIA_LINE);
    area_add(h, "second watermark", offset_of(p, pool_watermark(p, 0, 1)), MEDIA_LINE);
    area_add(h, "root A", offset_of(p, pool_root(p, 0, 0)), sizeof(struct media_root));
    area_add(h, "root B", offset_of(p, pool_root(p, 0, 1)), sizeof(struct media_root));
    area_add(h, "descriptors", offset_of(p, pool_descriptor(p, 0, 0, 0)), 4 * MEDIA_LINE);
    area_add(h, "index", offset_of(p, pool_entry(p, 0, 0)),
             p->geo.index_entries * sizeof(struct media_entry));
    uint64_t first = atomic_load(&log->checkpoint) + 1;
    area_add(h, "live entries", offset_of(p, pool_entry(p, 0, first)), 8 * MEDIA_LINE);
    area_add(h, "other slot", p->slot_base + p->slot_stride, p->slot_stride);
    for (size_t i = 0; i < log->manifest.count; i++)
        area_add(h, "manifest", log->manifest.piece[i].extent->base, 2048);
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next) {
        if (t->table.count)
            area_add(h, "run table", t->table.piece[t->table.count - 1].extent->base, 512);
        if (t->run_count) {
            const struct run *r = topic_run(t, 0);
            area_add(h, "payload", r->payload, 4096);
            area_add(h, "side records", r->side - 1024, 1024 + MEDIA_LINE);
            r = topic_run(t, t->run_count - 1);
            area_add(h, "last side records", r->side - 1024, 1024 + MEDIA_LINE);
        }
    }
    if (log->control->run_count) {
        const struct run *r = topic_run(log->control, 0);
        area_add(h, "control records", r->payload, 512);
        area_add(h, "control side records", r->side - 512, 512 + MEDIA_LINE);
    }
    area_add(h, "data", p->data_base, p->data_size);
    area_add(h, "pool", 0, HOSTILE_SIZE);
}

static void topic_remember(struct hostile *h, struct log *log, unsigned k)
{
    struct topic *t = log_topic(log, h->topic[k].id);
    CHECK(t);
    uint64_t at = h->topic[k].base = topic_base(t), n = 0;
    h->topic[k].end = topic_end(t);
    h->topic[k].bytes = malloc(h->topic[k].end - at + 1);
    while (at < h->topic[k].end) {
        struct read_view v;
        CHECK(topic_read(t, at, 1 << 16, &v) == 0 && v.bytes > 0);
        for (int i = 0; i < v.pieces; i++) {
            memcpy(h->topic[k].bytes + n, v.iov[i].iov_base, v.iov[i].iov_len);
            n += v.iov[i].iov_len;
        }
        at += v.bytes;
        read_release(&v);
    }
    topic_put(t);
}

void hostile_build(struct hostile *h, uint64_t seed)
{
    struct region r;
    struct log *log;
    uint64_t d = seed | 1, session[HOSTILE_TOPICS], sequence = 0;
    memset(h, 0, sizeof *h);
    h->pristine = memory_new();
    h->image = memory_new();
    CHECK(log_make(&log, &r, h->pristine, false) == 0);
    struct control dir = {
        .kind = MEDIA_C_MKDIR, .parent = LOG_ROOT_ID, .mode = 0755, .name = "dir"};
    uint32_t parent = (uint32_t)control(log, dir);
    for (unsigned k = 0; k < HOSTILE_TOPICS; k++) {
        struct control c = {.kind = MEDIA_C_CREATE, .mode = 0644, .order = 5, .ack = 1};
        c.parent = k % 2 ? parent : LOG_ROOT_ID;
        snprintf(c.name, sizeof c.name, "topic%u", k);
        h->topic[k].id = (uint32_t)control(log, c);
        session[k] = control(log, (struct control){.kind = MEDIA_C_OPEN, .id = h->topic[k].id});
    }
    /* Enough names for a manifest of more than one piece. */
    uint32_t extra[40];
    for (unsigned k = 0; k < 40; k++) {
        dir.parent = parent;
        snprintf(dir.name, sizeof dir.name, "extra%u", k);
        extra[k] = (uint32_t)control(log, dir);
    }
    for (unsigned i = 0; i < 400; i++) {
        unsigned k = (unsigned)(next(&d) % (HOSTILE_TOPICS - 1)); /* the last stays empty */
        struct topic *t = log_topic(log, h->topic[k].id);
        uint32_t n = 20 + (uint32_t)(next(&d) % (i % 9 ? 300 : 12000));
        if (i % 10 == 3 && k == 0)
            CHECK(publish(log, t, session[0], ++sequence, n, 1 + n % 7, &d) == 0);
        else
            CHECK(publish(log, t, 0, 0, n, 1 + n % 11, &d) == 0);
        if (i == 200)
            control(log, (struct control){
                             .kind = MEDIA_C_TRIM, .id = topic_id(t), .value = topic_end(t) / 2});
        topic_put(t);
        if (i == 300 || i == 350 || i == 365 || i == 370)
            CHECK(log_checkpoint(log) == 0);
        if (i == 340 || i == 368) /* gone, which the newer piece must say */
            control(log, (struct control){.kind = MEDIA_C_REMOVE, .id = extra[i % 40]});
        if (i == 368)
            control(log, (struct control){.kind = MEDIA_C_CLOSE, .value = session[1]});
        if (i == 380)
            control(log, (struct control){.kind = MEDIA_C_ATTR,
                                          .id = h->topic[1].id,
                                          .flags = MEDIA_A_MODE,
                                          .mode = 0600});
    }
    for (unsigned k = 0; k < HOSTILE_TOPICS; k++)
        topic_remember(h, log, k);
    areas_find(h, log);
    char *copy = memory_new();
    memcpy(copy, h->pristine, HOSTILE_SIZE);
    log_close(log);
    munmap(h->pristine, HOSTILE_SIZE);
    h->pristine = copy;
    hostile_reset(h);
}

void hostile_free(struct hostile *h)
{
    munmap(h->pristine, HOSTILE_SIZE);
    munmap(h->image, HOSTILE_SIZE);
    for (unsigned k = 0; k < HOSTILE_TOPICS; k++)
        free(h->topic[k].bytes);
}

void hostile_reset(struct hostile *h)
{
    memcpy(h->image, h->pristine, HOSTILE_SIZE);
}

/* ---- Damage ------------------------------------------------------------------------------- */

const struct hostile_area *hostile_mutate(struct hostile *h, const uint8_t how[12])
{
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      7,
                                      63,
                                      64,
                                      255,
                                      4096,
                                      65535,
                                      1u << 20,
                                      UINT32_MAX,
                                      1ull << 32,
                                      (1ull << 48) - 1,
                                      1ull << 63,
                                      UINT64_MAX - 63,
                                      UINT64_MAX};
    uint32_t where, from;
    uint16_t length;
    memcpy(&where, how + 2, 4);
    memcpy(&from, how + 6, 4);
    memcpy(&length, how + 10, 2);
    const struct hostile_area *a = &h->area[how[1] % h->areas];
    uint64_t at = a->at + where % a->size, rest = a->at + a->size - at;
    uint64_t n = 1 + length % 256, other = a->at + from % a->size;
    if (how[0] & 0x80)
        n = 1 + length % 8192;
    n = n < rest ? n : rest;
    n = n < a->at + a->size - other ? n : a->at + a->size - other;
    char *p = h->image + at, *q = h->image + other;
    uint64_t d = from | 1;
    switch (how[0] & 7) {
    case 0: *p ^= (char)(1u << from % 8); break;
    case 1: memset(p, 0, n); break;
    case 2:
        for (uint64_t i = 0; i < n; i++)
            p[i] = (char)next(&d);
        break;
    case 3: /* lines change places */
        p = h->image + at / 64 * 64;
        q = h->image + other / 64 * 64;
        for (unsigned i = 0; i < 64; i++) {
            char swap = p[i];
            p[i] = q[i];
            q[i] = swap;
        }
        break;
    case 4: memmove(p, q, n); break;
    case 5: /* a field */
        at = at / 4 * 4;
        memcpy(h->image + at, &values[from % 16], length % 2 && at + 8 <= HOSTILE_SIZE ? 8 : 4);
        break;
    case 6: {
        uint32_t v;
        at = at / 4 * 4;
        memcpy(&v, h->image + at, 4);
        v += length;
        v -= 32768;
        memcpy(h->image + at, &v, 4);
        break;
    }
    default: *p = (char)from; break;
    }
    return a;
}

static bool inside(uint64_t at, uint64_t n)
{
    return at <= HOSTILE_SIZE && n <= HOSTILE_SIZE - at;
}

static void seal_super(struct hostile *h, uint64_t at)
{
    struct media_super s;
    memcpy(&s, h->image + at, sizeof s);
    s.crc = le32_of(0);
    s.crc = le32_of(crc32c(0, &s, sizeof s));
    memcpy(h->image + at, &s, sizeof s);
}

static void seal_line(void *line, size_t crc_at)
{
    le32 crc = le32_of(0);
    memcpy((char *)line + crc_at, &crc, 4);
    crc = le32_of(crc32c(0, line, MEDIA_LINE));
    memcpy((char *)line + crc_at, &crc, 4);
}

/* The pieces before `at`, then this one. The crc of the header there. */
static le32 seal_table(struct hostile *h, uint64_t at, unsigned depth)
{
    struct media_table m;
    if (depth > 8 || !inside(at, sizeof m))
        return le32_of(0);
    memcpy(&m, h->image + at, sizeof m);
    uint64_t n = (uint64_t)le32_get(m.count) * sizeof(struct media_run);
    /* The extent of an old node's table may be something else by now. */
    if (le32_get(m.magic) != MEDIA_TABLE_MAGIC || !inside(at + sizeof m, n))
        return m.crc;
    if (le64_low48(m.before))
        m.before_crc = seal_table(h, le64_low48(m.before), depth + 1);
    m.crc = le32_of(0);
    m.crc = le32_of(crc32c(crc32c(0, &m, sizeof m), h->image + at + sizeof m, n));
    memcpy(h->image + at, &m, sizeof m);
    return m.crc;
}

/* The nodes of a piece of a manifest, which begin at `node`. */
static void seal_nodes(struct hostile *h, uint64_t node, uint64_t end, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct media_node m;
        if (node > end || end - node < sizeof m)
            break;
        memcpy(&m, h->image + node, sizeof m);
        if (le64_low48(m.table))
            m.table_crc = seal_table(h, le64_low48(m.table), 0);
        memcpy(h->image + node, &m, sizeof m);
        node += sizeof m + (le16_get(m.name_length) + 7u) / 8 * 8;
    }
}

/* The pieces of a manifest before `at`, then this one. */
static le32 seal_manifest(struct hostile *h, uint64_t at, unsigned depth)
{
    struct media_manifest m;
    if (depth > 8 || !inside(at, sizeof m))
        return le32_of(0);
    memcpy(&m, h->image + at, sizeof m);
    uint64_t n = le32_get(m.size), from = at + sizeof m;
    if (le32_get(m.magic) != MEDIA_MANIFEST_MAGIC || !inside(from, n))
        return m.crc;
    if (le64_low48(m.before))
        m.before_crc = seal_manifest(h, le64_low48(m.before), depth + 1);
    uint64_t nodes = (uint64_t)le32_get(m.grants) * sizeof(struct media_grant) +
                     ((uint64_t)le32_get(m.gone_nodes) + le32_get(m.gone_sessions)) * sizeof(le64) +
                     (uint64_t)le32_get(m.sessions) * sizeof(struct media_session) +
                     (uint64_t)le32_get(m.ahead) * sizeof(struct media_ahead);
    seal_nodes(h, from + nodes, from + n, le32_get(m.nodes));
    m.crc = le32_of(0);
    m.crc = le32_of(crc32c(crc32c(0, &m, sizeof m), h->image + from, n));
    memcpy(h->image + at, &m, sizeof m);
    return m.crc;
}

/* What only the older root names may have been given away. */
static void seal_root(struct hostile *h, char *at, bool newest)
{
    struct media_root r;
    memcpy(&r, at, sizeof r);
    if (newest)
        r.manifest_crc = seal_manifest(h, le64_low48(r.manifest), 0);
    r.crc = le32_of(0);
    r.crc = le32_of(crc32c(0, &r, sizeof r));
    memcpy(at, &r, sizeof r);
}

static void seal_side(struct hostile *h, const struct pool *p, uint64_t at)
{
    struct media_side m;
    if (at % MEDIA_LINE || !inside(at, sizeof m))
        return;
    memcpy(&m, h->image + at, sizeof m);
    uint32_t count = le64_high16(m.run0) + 1u;
    bool equal = le64_high16(m.sequence) & MEDIA_F_EQUAL;
    uint64_t below = side_size(count, equal) - MEDIA_LINE;
    uint64_t run0 = le64_low48(m.run0), n = le32_get(m.run0_length);
    if (below > at)
        return;
    if (inside(run0, n) && le64_low48(m.run1) == 0)
        m.payload_crc = le32_of(crc32c(0, h->image + run0, n));
    m.crc = le32_of(side_crc(p, &m, equal ? NULL : (const le32 *)(h->image + at - below)));
    memcpy(h->image + at, &m, sizeof m);
}

void hostile_seal(struct hostile *h)
{
    struct region r;
    struct pool p;
    struct embar_error err;
    seal_super(h, MEDIA_SUPER_AT);
    seal_super(h, MEDIA_SUPER_ALT);
    region_wrap(&r, h->image, HOSTILE_SIZE, NULL);
    if (pool_attach(&p, &r, &err))
        return;
    seal_line(pool_claim(&p, 0), offsetof(struct media_claim, crc));
    for (unsigned which = 0; which < 2; which++) {
        seal_line(pool_watermark(&p, 0, which), offsetof(struct media_watermark, crc));
        seal_line(pool_synced(&p, 0, which), offsetof(struct media_watermark, crc));
    }
    for (uint64_t at = p.data_base / MEDIA_LINE * MEDIA_LINE; inside(at, MEDIA_LINE);
         at += MEDIA_LINE)
        if (side_begins(&p, at))
            seal_side(h, &p, at);
    struct media_root *newest = pool_root(&p, 0, 0), *other = pool_root(&p, 0, 1);
    if (le64_get(other->number) >= le64_get(newest->number)) {
        newest = other;
        other = pool_root(&p, 0, 0);
    }
    seal_root(h, (char *)other, false);
    seal_root(h, (char *)newest, true);
    uint32_t chain = le32_get(newest->chain);
    uint64_t number = le64_get(newest->number) + 1;
    for (unsigned i = 0; i < p.geo.index_entries && i < 1024; i++, number++) {
        struct media_entry *line = pool_entry(&p, 0, number);
        if (le64_get(line->number) != number)
            break;
        line->crc = le32_of(0);
        chain = crc32c(chain, line, sizeof *line);
        line->crc = le32_of(chain);
    }
}

/* ---- Use ---------------------------------------------------------------------------------- */

static unsigned known(const struct hostile *h, uint32_t id)
{
    unsigned k = 0;
    while (k < HOSTILE_TOPICS && h->topic[k].id != id)
        k++;
    return k;
}

/* Bytes as they were, or damaged where they stand. */
static void check_bytes(const struct hostile *h, unsigned k, uint64_t offset, const char *p,
                        size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t at = offset + i;
        if (at < h->topic[k].base)
            continue;
        CHECK(at < h->topic[k].end);
        if (p[i] == h->topic[k].bytes[at - h->topic[k].base])
            continue;
        uint64_t place = (uint64_t)(p + i - h->image);
        CHECK(place < HOSTILE_SIZE && h->image[place] != h->pristine[place]);
    }
}

static volatile char sink;

static void view_use(const struct hostile *h, unsigned k, bool exact, uint64_t offset,
                     struct read_view *v)
{
    for (int i = 0; i < v->pieces; i++) {
        const char *p = v->iov[i].iov_base;
        size_t n = v->iov[i].iov_len;
        CHECK(p >= h->image && n <= HOSTILE_SIZE && p + n <= h->image + HOSTILE_SIZE);
        if (exact)
            check_bytes(h, k, offset, p, n);
        for (size_t b = 0; b < n; b += 512)
            sink = p[b];
        offset += n;
    }
    read_release(v);
}

static bool told_so(int rc)
{
    return rc == -EMBAR_ECORRUPT || rc == -EMBAR_ETRIMMED || rc == -EMBAR_EINVALID;
}

static void topic_use(const struct hostile *h, struct topic *t, bool exact)
{
    unsigned k = known(h, topic_id(t));
    exact = exact && k < HOSTILE_TOPICS;
    uint64_t base = topic_base(t), end = topic_end(t), at = base, bytes = 0;
    struct read_view v;
    CHECK(base <= end);
    while (at < end && bytes < 8 * HOSTILE_SIZE) {
        int rc = topic_read(t, at, 1 + at % 70000, &v);
        CHECK(rc == 0 || told_so(rc));
        if (rc)
            break;
        CHECK(v.bytes > 0);
        at += v.bytes;
        bytes += v.bytes;
        view_use(h, k, exact, at - v.bytes, &v);
    }
    struct batch_cursor c = {.offset = base};
    struct batch_view b;
    for (unsigned i = 0; i < 5000; i++) {
        int rc = topic_next(t, &c, &b);
        CHECK(rc == 0 || rc == 1 || told_so(rc));
        if (rc != 1)
            break;
        uint64_t sum = 0;
        for (uint32_t m = 0; b.lengths && m < b.count; m++)
            sum += le32_get(b.lengths[m]);
        CHECK(!b.lengths || sum == b.length);
        CHECK(b.data.bytes == b.length);
        view_use(h, k, exact, b.offset, &b.data);
    }
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t offset = 0;
        int rc = topic_seek_message(t, i * 37, &offset);
        CHECK(rc == 0 || told_so(rc));
        CHECK(rc || offset <= end);
        rc = topic_seek_time(t, i << 58, &offset);
        CHECK(rc == 0 || told_so(rc));
    }
}

static void topic_change(struct log *log, struct topic *t, uint64_t *d)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < 3; i++)
        rc = publish(log, t, 0, 0, 10 + (uint32_t)(next(d) % 9000), 1 + (uint32_t)(next(d) % 9), d);
    struct control c = {.kind = MEDIA_C_TRIM,
                        .id = topic_id(t),
                        .value = topic_base(t) + (topic_end(t) - topic_base(t)) / 2};
    struct commit commit;
    rc = log_control_wait(log, &c, &commit);
    c = (struct control){.kind = MEDIA_C_OPEN, .id = topic_id(t)};
    rc = log_control_wait(log, &c, &commit);
    if (rc == 0)
        rc = publish(log, t, commit.session, 1, 100, 1, d);
    (void)rc;
}

static void directory_use(const struct hostile *h, struct log *log, uint32_t id, unsigned depth,
                          bool exact, bool change)
{
    struct node_stat st[8];
    uint32_t after = 0, last[8];
    uint64_t d = id | 1;
    int n;
    CHECK(depth < 600);
    for (unsigned i = 0; i < 20 && (n = log_list(log, id, after, st, 8)) > 0; i++) {
        for (int k = 0; k < n; k++)
            last[k] = st[k].id;
        for (int k = 0; k < n; k++) {
            char path[MEDIA_MAX_PATH + 1];
            struct node_stat one;
            CHECK(last[k] > after || k > 0);
            if (log_path(log, last[k], path, sizeof path) == 0)
                CHECK(log_resolve(log, path, &one) == 0 && one.id == last[k]);
            struct topic *t = log_topic(log, last[k]);
            if (t) {
                topic_use(h, t, exact);
                if (change)
                    topic_change(log, t, &d);
                topic_put(t);
            } else {
                directory_use(h, log, last[k], depth + 1, exact, change);
            }
        }
        after = last[n - 1];
    }
}

int hostile_serve(struct hostile *h, bool readonly, bool exact)
{
    struct region r;
    struct log *log;
    int rc = log_make(&log, &r, h->image, readonly);
    if (rc)
        return rc;
    struct log_stat st;
    log_stat_all(log, &st);
    directory_use(h, log, LOG_ROOT_ID, 0, exact, false);
    if (!readonly) {
        directory_use(h, log, LOG_ROOT_ID, 0, false, true);
        struct control c = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .name = "new"};
        struct commit commit;
        rc = log_control_wait(log, &c, &commit);
        (void)log_checkpoint(log);
        c = (struct control){.kind = MEDIA_C_REMOVE, .id = h->topic[0].id};
        rc = log_control_wait(log, &c, &commit);
        log_tick(log, now_monotonic());
    }
    log_close(log);
    return 0;
}
