/* Run tables: a topic's DRAM index as it stands in a checkpoint (step 8, and recovery).
 *
 * Runs are only ever added behind and trimmed in front, and all but the last never change. So a
 * table is a chain of pieces, each in an extent of its own and never written again, newest first:
 * a checkpoint adds a piece with the runs that came since and gives up those that were trimmed
 * whole. The last run, which may still grow, stands in the topic's node. A new piece takes in those
 * before it that are no larger, so that there are few and each run is rewritten a few times at most.
 *
 * Planned first (extents taken, nothing changed), then written, so that a checkpoint without space
 * leaves nothing behind. Called with the sequencer's role. Writes back, never drains: the root's
 * rule does. Must never write to an extent that a root names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "core/sane.h"

#define TABLE_HEAD    sizeof(struct media_table)
#define PIECE_LARGEST (2u << 20) /* bytes: an extent as large is not taken into another */

static size_t extent_capacity(const struct extent *e)
{
    return (checkpoint_room(e->size) - TABLE_HEAD) / sizeof(struct media_run);
}

static uint32_t table_crc(const struct media_table *h, const struct media_run *runs)
{
    struct media_table copy = *h;
    copy.crc = le32_of(0);
    return crc32c(crc32c(0, &copy, sizeof copy), runs, le32_get(h->count) * sizeof *runs);
}

/* Runs before this number are trimmed, or will not change: all but the last. */
static uint64_t runs_closed(const struct topic *t)
{
    return t->run_dropped + t->run_count - (t->run_count > 0);
}

static unsigned order_of(const struct log *log, uint64_t runs)
{
    return checkpoint_order(log, TABLE_HEAD + runs * sizeof(struct media_run));
}

/* ---- Planning ----------------------------------------------------------------------------- */

static int plan_push(struct table *table, struct extent *e, uint64_t first, uint64_t count)
{
    size_t at = table->count + table->planned;
    if (at == table->capacity) {
        size_t capacity = at ? at * 2 : 2;
        struct table_piece *grown = realloc(table->piece, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        table->piece = grown;
        table->capacity = capacity;
    }
    table->piece[at] = (struct table_piece){.extent = e, .first = first, .count = (uint32_t)count};
    table->planned++;
    return 0;
}

void table_unplan(struct log *log, struct topic *t)
{
    struct table *table = &t->table;
    while (table->planned > 0)
        extent_put_now(log->extents, table->piece[table->count + --table->planned].extent);
}

/* Runs [first, end) in as few extents as there is space for. */
static int plan_extents(struct log *log, struct table *table, uint64_t first, uint64_t end)
{
    while (first < end) {
        unsigned order = order_of(log, end - first);
        if (order > log->pool.geo.max_order)
            order = log->pool.geo.max_order;
        struct extent *e = extent_new(log->extents, order, EXTENT_META);
        while (!e && order > 0)
            e = extent_new(log->extents, --order, EXTENT_META);
        if (!e)
            return -EMBAR_EFULL;
        uint64_t n = extent_capacity(e) < end - first ? extent_capacity(e) : end - first;
        int rc = plan_push(table, e, first, n);
        if (rc) {
            extent_put_now(log->extents, e);
            return rc;
        }
        first += n;
    }
    return 0;
}

/* The oldest piece that one extent with all from there to `end` takes in; `from` moves there. */
static size_t plan_merge(const struct log *log, const struct topic *t, uint64_t *from, uint64_t end)
{
    const struct table *table = &t->table;
    size_t k = table->count;
    for (; k > table->drop; k--) {
        const struct table_piece *p = &table->piece[k - 1];
        uint64_t first = p->first > t->run_dropped ? p->first : t->run_dropped;
        uint64_t grown = 1ull << (order_of(log, end - *from) + log->pool.geo.block_shift);
        if (p->extent->size > grown || p->extent->size >= PIECE_LARGEST ||
            order_of(log, end - first) > log->pool.geo.max_order)
            break;
        *from = first;
    }
    return k;
}

/* Any topic may get a run, and each that does takes an extent of its own. */
uint64_t table_need(const struct log *log)
{
    uint64_t block = 1ull << log->pool.geo.block_shift;
    uint64_t most = (checkpoint_room(block) - TABLE_HEAD) / sizeof(struct media_run);
    return log->names.topics + log->manifest.runs / most;
}

int table_plan(struct log *log, struct topic *t, bool merge)
{
    struct table *table = &t->table;
    uint64_t end = runs_closed(t);
    uint64_t from = table->saved > t->run_dropped ? table->saved : t->run_dropped;
    table->drop = 0;
    while (table->drop < table->count &&
           table->piece[table->drop].first + table->piece[table->drop].count <= t->run_dropped)
        table->drop++;
    table->keep = table->count;
    table->planned = 0;
    if (end <= from)
        return 0;
    if (t->run_count > UINT32_MAX)
        return -EMBAR_ELIMIT;
    uint64_t first = from;
    if (merge)
        table->keep = plan_merge(log, t, &first, end);
    if (table->keep < table->count) {
        struct extent *e = extent_new(log->extents, order_of(log, end - first), EXTENT_META);
        int rc = e ? plan_push(table, e, first, end - first) : 0;
        if (e && rc == 0)
            return 0;
        if (e)
            extent_put_now(log->extents, e);
        table->keep = table->count;
    }
    int rc = plan_extents(log, table, from, end);
    if (rc)
        table_unplan(log, t);
    return rc;
}

/* ---- Writing ------------------------------------------------------------------------------ */

static void run_put(struct media_run *to, const struct run *r)
{
    *to = (struct media_run){.offset = le64_of(r->offset),
                             .message = le64_of(r->message),
                             .payload = le64_pack(r->payload, (uint16_t)(r->order | r->flags << 8)),
                             .side = le64_pack(r->side, r->batches)};
}

static void piece_write(struct log *log, const struct topic *t, struct table_piece *p,
                        const struct table_piece *before)
{
    struct media_table *h = pool_at(&log->pool, p->extent->base);
    struct media_run *runs = (struct media_run *)(h + 1);
    struct media_table head = {.magic = le32_of(MEDIA_TABLE_MAGIC),
                               .count = le32_of(p->count),
                               .first = le64_of(p->first)};
    if (before) {
        head.before = le64_pack(before->extent->base, before->extent->order);
        head.before_crc = le32_of(before->crc);
    }
    for (uint32_t i = 0; i < p->count; i++)
        run_put(&runs[i], topic_run(t, p->first - t->run_dropped + i));
    p->crc = table_crc(&head, runs);
    head.crc = le32_of(p->crc);
    *h = head;
    flush_writeback(log->pool.flush, h, TABLE_HEAD + p->count * sizeof *runs);
    checkpoint_copy(log, p->extent, TABLE_HEAD + p->count * sizeof *runs);
}

void table_write(struct log *log, struct topic *t)
{
    struct table *table = &t->table;
    struct table_piece *p = table->piece;
    uint64_t end = runs_closed(t);
    for (size_t i = 0; i < table->planned; i++) {
        size_t at = table->count + i, before = i > 0 ? at - 1 : table->keep - 1;
        piece_write(log, t, &p[at], i > 0 || table->keep > table->drop ? &p[before] : NULL);
    }
    for (size_t i = 0; i < table->count; i++)
        if (i < table->drop || i >= table->keep)
            checkpoint_retire(log, p[i].extent);
    size_t kept = table->keep - table->drop;
    if (table->drop > 0)
        memmove(p, p + table->drop, kept * sizeof *p);
    if (table->planned > 0)
        memmove(p + kept, p + table->count, table->planned * sizeof *p);
    table->count = kept + table->planned;
    table->planned = 0;
    table->saved = end > table->saved ? end : table->saved;
}

void table_node(const struct topic *t, struct media_node *m)
{
    const struct table *table = &t->table;
    m->run_first = le64_of(t->run_dropped);
    if (t->run_count > 0)
        run_put(&m->last, topic_run(t, t->run_count - 1));
    if (t->run_count > 1) {
        const struct table_piece *p = &table->piece[table->count - 1];
        m->table = le64_pack(p->extent->base, p->extent->order);
        m->table_crc = le32_of(p->crc);
    }
}

void table_retire(struct log *log, struct topic *t)
{
    for (size_t i = 0; i < t->table.count; i++)
        checkpoint_retire(log, t->table.piece[i].extent);
    free(t->table.piece);
    t->table = (struct table){0};
}

void table_rewrite(struct log *log, struct topic *t)
{
    table_retire(log, t);
    manifest_touch(log, t);
    log->manifest.runs += t->run_count;
}

void table_reopen(struct log *log, struct topic *t, uint64_t run)
{
    struct table *table = &t->table;
    manifest_touch(log, t);
    if (run >= table->saved)
        return;
    uint64_t first = table->saved;
    while (table->count > 0 && first > run) {
        const struct table_piece *p = &table->piece[--table->count];
        first = p->first;
        checkpoint_retire(log, p->extent);
    }
    first = first > t->run_dropped ? first : t->run_dropped;
    log->manifest.runs += table->saved - first;
    table->saved = first;
}

void table_destroy(struct topic *t)
{
    for (size_t i = 0; i < t->table.count; i++) {
        extent_put(t->log->extents, t->table.piece[i].extent);
        free(t->table.piece[i].copy);
    }
    free(t->table.piece);
}

/* ---- Loading ------------------------------------------------------------------------------ */

/* The runs behind a header. Another process may give their place away while we look: then header and
 * runs are copied, and the copy is what is checked. */
static int runs_fetch(struct log *log, const struct media_table *head, uint64_t count,
                      struct media_table **copy)
{
    size_t size = count * sizeof(struct media_run);
    flush_invalidate(log->pool.flush, head + 1, size);
    if (!log->readonly)
        return 0;
    log->copying = malloc(TABLE_HEAD + size);
    if (!log->copying)
        return -ENOMEM;
    memcpy(log->copying, head, TABLE_HEAD + size); /* may not return: guard.h */
    *copy = log->copying;
    log->copying = NULL;
    return 0;
}

/* What stands at `at`, one of the two places of the piece in e, whose runs end at `end`. */
static int piece_check(struct log *log, const struct extent *e, uint64_t at, uint32_t crc,
                       uint64_t end, struct media_table *h, struct media_table **copy)
{
    const struct media_table *head = pool_at(&log->pool, at);
    flush_invalidate(log->pool.flush, head, TABLE_HEAD);
    *h = *head;
    uint64_t first = le64_get(h->first), count = le32_get(h->count);
    /* The link knows the checksum: the header's own word for it adds nothing. */
    if (le32_get(h->magic) != MEDIA_TABLE_MAGIC || count == 0 || count > extent_capacity(e) ||
        first >= end || end - first != count)
        return -EMBAR_ECORRUPT;
    int rc = runs_fetch(log, head, count, copy);
    if (rc)
        return rc;
    if (*copy)
        head = *copy;
    if (table_crc(h, (const struct media_run *)(head + 1)) == crc)
        return 0;
    free(*copy);
    *copy = NULL;
    return -EMBAR_ECORRUPT;
}

/* The piece whose runs end at `end`: checked, claimed and noted. Its header is left in h. */
static int piece_load(struct log *log, struct topic *t, le64 where, uint32_t crc, uint64_t end,
                      struct media_table *h)
{
    uint64_t at = le64_low48(where);
    struct extent *e;
    if (!checkpoint_extent(&log->pool, at, le64_high16(where), TABLE_HEAD))
        return -EMBAR_ECORRUPT;
    int rc = extent_claim_sole(log->extents, at, le64_high16(where), &e);
    if (rc)
        return rc;
    struct media_table *copy = NULL;
    rc = piece_check(log, e, at, crc, end, h, &copy);
    bool by_copy = rc == -EMBAR_ECORRUPT && log->by_copy;
    if (by_copy)
        rc = piece_check(log, e, at + checkpoint_room(e->size), crc, end, h, &copy);
    if (rc == 0)
        rc = plan_push(&t->table, e, le64_get(h->first), le32_get(h->count));
    if (rc) {
        extent_put(log->extents, e);
        free(copy);
    } else {
        t->table.piece[t->table.count].crc = crc;
        t->table.piece[t->table.count].by_copy = by_copy;
        t->table.piece[t->table.count].copy = copy;
    }
    t->table.count += t->table.planned;
    t->table.planned = 0;
    return rc;
}

/* Where the runs of a topic are being put, with the extent that the last of them stand in. */
struct fill {
    struct log *log;
    struct topic *t;
    size_t count;
    struct extent *extent;
    unsigned claims; /* runs in it that hold no reference yet, but for the first */
};

static void fill_settle(struct fill *f)
{
    if (f->claims > 0)
        extent_ref_many(f->extent, f->claims);
    f->claims = 0;
}

static int run_load(struct fill *f, const struct media_run *m)
{
    struct topic *t = f->t;
    struct run r = {.offset = le64_get(m->offset),
                    .message = le64_get(m->message),
                    .payload = le64_low48(m->payload) & MASK48,
                    .order = (uint8_t)(le64_high16(m->payload) & 0xff),
                    .flags = (uint8_t)(le64_high16(m->payload) >> 8),
                    .side = le64_low48(m->side) & MASK48,
                    .batches = le64_high16(m->side)};
    const struct extent *e = f->extent;
    if (r.flags & ~(MEDIA_RUN_FLAGS | MEDIA_RUN_LATE | MEDIA_RUN_MOVED))
        return -EMBAR_ECORRUPT;
    if (r.flags & MEDIA_RUN_LOST) { /* it has no place */
        r.payload = r.side = 0;
        r.order = 0;
    } else if (e && r.order == e->order && r.payload >= e->base && r.payload - e->base < e->size) {
        f->claims++;
    } else {
        fill_settle(f);
        int rc = extent_claim(f->log->extents, r.payload, r.order, &f->extent);
        if (rc) {
            f->extent = NULL;
            return rc;
        }
    }
    t->runs[f->count++] = r;
    t->run_count++;
    return 0;
}

bool table_run_fits(const struct log *log, const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    uint64_t base = pool_extent_base(&log->pool, r->payload, r->order);
    uint64_t size = 1ull << (r->order + log->pool.geo.block_shift);
    uint64_t end = topic_run_end(t, i);
    bool lost = r->flags & MEDIA_RUN_LOST;
    return end > r->offset && (lost || end - r->offset <= base + size - r->payload);
}

int table_check(const struct log *log, const struct topic *t)
{
    if (t->run_count == 0)
        return topic_base(t) == topic_end(t) ? 0 : -EMBAR_ECORRUPT;
    if (topic_run(t, 0)->offset > topic_base(t) || topic_run(t, 0)->batches == 0)
        return -EMBAR_ECORRUPT;
    for (size_t i = 0; i < t->run_count; i++)
        if (!table_run_fits(log, t, i))
            return -EMBAR_ECORRUPT;
    return 0;
}

/* All pieces, oldest first: as many as the live runs before the last take. */
static int pieces_load(struct log *log, struct topic *t, const struct media_node *m)
{
    uint64_t end = t->run_dropped + le32_get(m->run_count) - 1;
    struct table *table = &t->table;
    struct media_table h = {.before = m->table, .before_crc = m->table_crc};
    table->saved = end;
    /* Each piece holds at least one run, and ends where the next begins: no chain loops. */
    while (end > t->run_dropped) {
        int rc = piece_load(log, t, h.before, le32_get(h.before_crc), end, &h);
        if (rc)
            return rc;
        end = le64_get(h.first);
    }
    for (size_t i = 0; i < table->count / 2; i++) {
        struct table_piece swap = table->piece[i];
        table->piece[i] = table->piece[table->count - 1 - i];
        table->piece[table->count - 1 - i] = swap;
    }
    return 0;
}

static int table_load_whole(struct log *log, struct topic *t, const struct media_node *m)
{
    uint64_t count = le32_get(m->run_count);
    t->run_dropped = t->table.saved = le64_get(m->run_first);
    if (t->run_dropped > INT64_MAX)
        return -EMBAR_ECORRUPT;
    if (count == 0)
        return table_check(log, t);
    int rc = pieces_load(log, t, m);
    if (rc)
        return rc;
    t->runs = calloc(count, sizeof *t->runs); /* bounded: the pieces are that long */
    if (!t->runs)
        return -ENOMEM;
    t->run_capacity = count;
    struct fill f = {.log = log, .t = t};
    for (size_t i = 0; rc == 0 && i < t->table.count; i++) {
        struct table_piece *p = &t->table.piece[i];
        const struct media_table *h = p->copy ? p->copy : pool_at(&log->pool, p->extent->base);
        const struct media_run *runs = (const struct media_run *)(h + 1);
        uint64_t skip = p->first < t->run_dropped ? t->run_dropped - p->first : 0;
        for (uint64_t k = skip; rc == 0 && k < p->count; k++)
            rc = run_load(&f, &runs[k]);
        free(p->copy);
        p->copy = NULL;
    }
    if (rc == 0)
        rc = run_load(&f, &m->last);
    fill_settle(&f);
    atomic_fetch_add_explicit(&log->runs, t->run_count, memory_order_relaxed);
    return rc ? rc : table_check(log, t);
}

/* The last run, which the node tells, unless it is the second part of a split batch. */
static int last_keep(struct log *log, struct topic *t, const struct media_node *m)
{
    struct fill f = {.log = log, .t = t, .count = t->run_count};
    uint64_t offset = le64_get(m->last.offset), message = le64_get(m->last.message);
    if (le64_high16(m->last.side) == 0 || offset >= topic_end(t) || offset <= topic_base(t) ||
        message > t->last_message_end || message < t->first_message)
        return -EMBAR_ECORRUPT;
    int rc = run_load(&f, &m->last);
    fill_settle(&f);
    if (rc == 0)
        atomic_fetch_add_explicit(&log->runs, 1, memory_order_relaxed);
    return rc;
}

/* One lost run in the place of all that the table should have told. */
static int table_lose(struct log *log, struct topic *t, const struct media_node *m)
{
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        struct extent *e =
            r->flags & MEDIA_RUN_LOST ? NULL : extent_find(log->extents, r->payload, r->order);
        if (e)
            extent_put(log->extents, e);
    }
    atomic_fetch_sub_explicit(&log->runs, t->run_count, memory_order_relaxed);
    t->run_head = t->run_count = 0;
    table_destroy(t);
    t->table = (struct table){0};
    t->lost_table = true;
    if (topic_base(t) == topic_end(t))
        return 0;
    int rc = topic_runs_grow(t, 2);
    if (rc)
        return rc;
    t->run_count = 1;
    *topic_run(t, 0) = (struct run){.offset = topic_base(t),
                                    .message = t->first_message,
                                    .flags = MEDIA_RUN_LOST,
                                    .batches = 1};
    atomic_fetch_add_explicit(&log->runs, 1, memory_order_relaxed);
    rc = last_keep(log, t, m);
    if (rc == 0 && table_check(log, t)) { /* it lies across its extent's end */
        const struct run *r = topic_run(t, --t->run_count);
        struct extent *e = extent_find(log->extents, r->payload, r->order);
        if (e && !(r->flags & MEDIA_RUN_LOST))
            extent_put(log->extents, e);
        atomic_fetch_sub_explicit(&log->runs, 1, memory_order_relaxed);
    }
    return rc == -EMBAR_ECORRUPT ? 0 : rc;
}

int table_load(struct log *log, struct topic *t, const struct media_node *m)
{
    int rc = table_load_whole(log, t, m);
    return rc == -EMBAR_ECORRUPT && log->lenient ? table_lose(log, t, m) : rc;
}
