/* Run tables: a topic's DRAM index as it stands in a checkpoint (step 8, and recovery).
 *
 * A table is a chain of extents, so that a topic of many small batches needs no large one. It is
 * written from its last extent to its first, since each header carries the CRC of the next. Called
 * with the sequencer's role. Writes back, never drains: the root's rule does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"

#define TABLE_HEAD sizeof(struct media_table)

static size_t table_capacity(const struct extent *e)
{
    return (e->size - TABLE_HEAD) / sizeof(struct media_run);
}

static uint32_t table_crc(const struct media_table *h, const struct media_run *runs)
{
    struct media_table copy = *h;
    copy.crc = le32_of(0);
    return crc32c(crc32c(0, &copy, sizeof copy), runs, le32_get(h->count) * sizeof *runs);
}

static void table_drop(struct log *log, struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        extent_put(log->extents, table->extent[i]);
    free(table->extent);
    *table = (struct table){0};
}

static int table_push(struct table *table, struct extent *e)
{
    struct extent **grown = realloc(table->extent, (table->count + 1) * sizeof(struct extent *));
    if (!grown)
        return -ENOMEM;
    table->extent = grown;
    grown[table->count++] = e;
    return 0;
}

/* Extents for n runs: as few as there is space for. */
static int table_extents(struct log *log, struct table *table, size_t n)
{
    struct extents *x = log->extents;
    while (n > 0) {
        unsigned order = extents_order(x, TABLE_HEAD + n * sizeof(struct media_run));
        if (order > log->pool.geo.max_order)
            order = log->pool.geo.max_order;
        struct extent *e = extent_new(x, order, EXTENT_META);
        while (!e && order > 0)
            e = extent_new(x, --order, EXTENT_META);
        if (!e)
            return -EMBAR_EFULL;
        int rc = table_push(table, e);
        if (rc) {
            extent_put(x, e);
            return rc;
        }
        n -= table_capacity(e) < n ? table_capacity(e) : n;
    }
    return 0;
}

static void runs_put(struct media_run *to, const struct topic *t, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct run *r = topic_run(t, first + i);
        to[i] = (struct media_run){.offset = le64_of(r->offset),
                                   .message = le64_of(r->message),
                                   .payload =
                                       le64_pack(r->payload, (uint16_t)(r->order | r->flags << 8)),
                                   .side = le64_pack(r->side, r->batches)};
    }
}

static void table_fill(struct log *log, struct table *table, const struct topic *t)
{
    size_t left = t->run_count;
    le64 next = le64_of(0);
    for (size_t i = table->count; i-- > 0;) {
        struct extent *e = table->extent[i];
        size_t before = 0;
        for (size_t k = 0; k < i; k++)
            before += table_capacity(table->extent[k]);
        size_t n = left - before;
        struct media_table *h = pool_at(&log->pool, e->base);
        struct media_run *runs = (struct media_run *)(h + 1);
        runs_put(runs, t, before, n);
        struct media_table head = {.magic = le32_of(MEDIA_TABLE_MAGIC),
                                   .next = next,
                                   .next_crc = le32_of(table->crc),
                                   .count = le32_of((uint32_t)n)};
        table->crc = table_crc(&head, runs);
        head.crc = le32_of(table->crc);
        *h = head;
        flush_writeback(log->pool.flush, h, TABLE_HEAD + n * sizeof *runs);
        next = le64_pack(e->base, e->order);
        left = before;
    }
}

int table_write(struct log *log, struct topic *t)
{
    if (!t->dirty)
        return 0;
    struct table table = {0};
    pthread_mutex_lock(&t->lock);
    int rc = t->run_count > UINT32_MAX ? -EMBAR_ELIMIT : table_extents(log, &table, t->run_count);
    if (rc == 0) {
        table_fill(log, &table, t);
        table.runs = (uint32_t)t->run_count;
    }
    pthread_mutex_unlock(&t->lock);
    if (rc) {
        table_drop(log, &table);
        return rc;
    }
    table_retire(log, t);
    t->table = table;
    t->dirty = false;
    return 0;
}

void table_retire(struct log *log, struct topic *t)
{
    for (size_t i = 0; i < t->table.count; i++)
        checkpoint_retire(log, t->table.extent[i]);
    free(t->table.extent);
    t->table = (struct table){0};
}

/* ---- Loading ------------------------------------------------------------------------------ */

static int run_load(struct log *log, struct topic *t, const struct media_run *m)
{
    struct run r = {.offset = le64_get(m->offset),
                    .message = le64_get(m->message),
                    .payload = le64_low48(m->payload) & MASK48,
                    .order = (uint8_t)(le64_high16(m->payload) & 0xff),
                    .flags = (uint8_t)(le64_high16(m->payload) >> 8),
                    .side = le64_low48(m->side) & MASK48,
                    .batches = le64_high16(m->side)};
    struct extent *e = NULL;
    if (t->run_count > 0 && topic_run(t, t->run_count - 1)->offset >= r.offset)
        return -EMBAR_ECORRUPT;
    if (r.flags & ~MEDIA_RUN_FLAGS)
        return -EMBAR_ECORRUPT;
    if (r.flags & MEDIA_RUN_LOST)
        r.payload = 0, r.order = 0, r.side = 0;
    int rc = r.flags & MEDIA_RUN_LOST ? 0 : extent_claim(log->extents, r.payload, r.order, &e);
    if (rc)
        return rc;
    rc = topic_runs_grow(t);
    if (rc) {
        if (e)
            extent_put(log->extents, e);
        return rc;
    }
    t->run_count++;
    atomic_fetch_add_explicit(&log->runs, 1, memory_order_relaxed);
    *topic_run(t, t->run_count - 1) = r;
    return 0;
}

/* The bytes of a run must lie in its extent; known once its end is. */
static int runs_check(const struct log *log, const struct topic *t)
{
    if (t->run_count == 0)
        return topic_base(t) == topic_end(t) ? 0 : -EMBAR_ECORRUPT;
    if (topic_run(t, 0)->offset > topic_base(t) || topic_run(t, 0)->batches == 0)
        return -EMBAR_ECORRUPT;
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        uint64_t base = pool_extent_base(&log->pool, r->payload, r->order);
        uint64_t size = 1ull << (r->order + log->pool.geo.block_shift);
        uint64_t end = topic_run_end(t, i);
        bool lost = r->flags & MEDIA_RUN_LOST;
        if (end <= r->offset || (!lost && end - r->offset > base + size - r->payload))
            return -EMBAR_ECORRUPT;
    }
    return 0;
}

/* One extent of the chain: checked, claimed, its runs appended. */
static int table_load_one(struct log *log, struct topic *t, uint64_t at, unsigned order,
                          uint32_t crc, struct media_table *h)
{
    if (!checkpoint_extent(&log->pool, at, order, TABLE_HEAD))
        return -EMBAR_ECORRUPT;
    struct extent *e;
    int rc = extent_claim(log->extents, at, order, &e);
    if (rc)
        return rc;
    rc = table_push(&t->table, e);
    if (rc) {
        extent_put(log->extents, e);
        return rc;
    }
    const struct media_table *head = pool_at(&log->pool, at);
    const struct media_run *runs = (const struct media_run *)(head + 1);
    *h = *head;
    /* The link knows the checksum: the header's own word for it adds nothing. */
    if (le32_get(h->magic) != MEDIA_TABLE_MAGIC || le32_get(h->count) > table_capacity(e) ||
        table_crc(h, runs) != crc)
        return -EMBAR_ECORRUPT;
    for (uint32_t i = 0; rc == 0 && i < le32_get(h->count); i++)
        rc = run_load(log, t, &runs[i]);
    return rc;
}

int table_load(struct log *log, struct topic *t, const struct media_node *m)
{
    le64 next = m->runs;
    uint32_t crc = le32_get(m->run_crc);
    /* A chain that loops would claim its first extent twice; each holds at least one run. */
    while (le64_low48(next) != 0) {
        struct media_table h;
        if (t->run_count >= le32_get(m->run_count))
            return -EMBAR_ECORRUPT;
        int rc = table_load_one(log, t, le64_low48(next), le64_high16(next), crc, &h);
        if (rc)
            return rc;
        if (le32_get(h.count) == 0)
            return -EMBAR_ECORRUPT;
        next = h.next;
        crc = le32_get(h.next_crc);
    }
    t->table.runs = le32_get(m->run_count);
    t->table.crc = le32_get(m->run_crc);
    return t->run_count == t->table.runs ? runs_check(log, t) : -EMBAR_ECORRUPT;
}
