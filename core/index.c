/* Entries as lines: see index.h. */
#include "core/index.h"

#include <string.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/side.h"

uint32_t index_seed(const struct pool *pool)
{
    uint8_t id[24];
    memcpy(id, pool->uuid, 16);
    le64 incarnation = le64_of(pool->incarnation);
    memcpy(id + 16, &incarnation, 8);
    return crc32c(0, id, sizeof id);
}

static uint32_t line_crc(const struct media_entry *line, uint32_t chain)
{
    le64 word[sizeof *line / sizeof(le64)];
    memcpy(word, line, sizeof word);
    /* The field is the upper half of word 1. Stored by the word, as it is read again at once: a
     * narrower store would hold that up. */
    word[1] = le64_of(le64_get(word[1]) & UINT32_MAX);
    return crc32c(chain, word, sizeof word);
}

/* Which entries have a side record: without a session its CRC takes the sequence's place. */
static bool has_side(uint8_t kind)
{
    return kind == MEDIA_BATCH || kind == MEDIA_CONTROL || kind == MEDIA_PART;
}

uint32_t index_encode(struct media_entry *line, const struct entry *e, uint32_t chain)
{
    struct media_entry m = {
        .number = le64_of(e->number),
        .term = le32_of(e->term),
        .session = le64_of(e->session),
        .offset = le64_of(e->offset),
        .payload = le64_pack(e->payload, (uint16_t)(e->sequence >> 32)),
        .side = le64_pack(e->side, (uint16_t)(e->count - 1)),
        .topic = le32_of(e->topic),
        .length = le32_of(e->length),
        .sequence = le32_of((uint32_t)e->sequence),
        .kind = e->kind,
        .flags = e->flags,
        .slot = e->slot,
        .order = e->order,
    };
    if (has_side(e->kind) && e->session)
        m.session = le64_pack(e->session, (uint16_t)e->check);
    else if (has_side(e->kind))
        m.sequence = le32_of(e->check);
    uint32_t next = line_crc(&m, chain);
    m.crc = le32_of(next);
    *line = m;
    return next;
}

int index_decode(const struct media_entry *line, uint64_t number, uint32_t chain, struct entry *e,
                 uint32_t *next)
{
    struct media_entry m = *line;
    if (le64_get(m.number) != number || line_crc(&m, chain) != le32_get(m.crc))
        return 0;
    e->number = number;
    e->term = le32_get(m.term);
    e->session = le64_get(m.session);
    e->offset = le64_get(m.offset);
    e->payload = le64_low48(m.payload);
    e->sequence = (uint64_t)le64_high16(m.payload) << 32 | le32_get(m.sequence);
    e->side = le64_low48(m.side);
    e->count = (uint32_t)le64_high16(m.side) + 1;
    e->topic = le32_get(m.topic);
    e->length = le32_get(m.length);
    e->kind = m.kind;
    e->flags = m.flags;
    e->slot = m.slot;
    e->order = m.order;
    e->check = 0;
    if (has_side(e->kind)) {
        e->session = le64_low48(m.session);
        e->check = e->session ? le64_high16(m.session) : le32_get(m.sequence);
        e->sequence = e->session ? e->sequence : 0;
    }
    *next = le32_get(m.crc);
    return 1;
}

uint32_t index_chain_before(const struct media_entry *line)
{
    struct media_entry copy = *line;
    copy.crc = le32_of(0);
    return crc32c_before(le32_get(line->crc), &copy, sizeof copy);
}

/* Payload, and then the first side record, lie in one extent. */
static int move_check(const struct pool *pool, const struct entry *e)
{
    if (e->slot >= pool->geo.slots || e->topic == 0 || e->order > pool->geo.max_order ||
        !pool_in_data(pool, e->payload, 1))
        return -EMBAR_ECORRUPT;
    uint64_t base = pool_extent_base(pool, e->payload, e->order);
    uint64_t size = 1ull << (e->order + pool->geo.block_shift);
    if (!pool_in_data(pool, base, size) || e->length == 0 || e->length > base + size - e->payload ||
        e->offset > UINT64_MAX - e->length)
        return -EMBAR_ECORRUPT;
    bool fits = e->side % MEDIA_LINE == 0 && e->side >= e->payload + e->length &&
                e->side - base <= size - MEDIA_LINE;
    return e->side == 0 || fits ? 0 : -EMBAR_ECORRUPT;
}

int index_check(const struct pool *pool, const struct entry *e)
{
    if (e->kind == MEDIA_TERM || e->kind == MEDIA_GRANT)
        return 0; /* no payload; the fold checks what it says */
    if (e->kind == MEDIA_MOVE)
        return move_check(pool, e);
    bool part = e->kind == MEDIA_PART;
    if ((e->kind != MEDIA_BATCH && e->kind != MEDIA_CONTROL && !part) || e->slot >= pool->geo.slots)
        return -EMBAR_ECORRUPT;
    if ((e->kind == MEDIA_CONTROL) != (e->topic == 0 && !part) || e->order > pool->geo.max_order)
        return -EMBAR_ECORRUPT;
    if (e->length == 0 || e->length > MEDIA_MAX_BATCH || e->count > MEDIA_MAX_MESSAGES)
        return -EMBAR_ECORRUPT;
    if (e->side % MEDIA_LINE != 0 || !pool_in_data(pool, e->side, MEDIA_LINE) ||
        !pool_in_data(pool, e->payload, 1))
        return -EMBAR_ECORRUPT;
    uint64_t base = pool_extent_base(pool, e->payload, e->order);
    uint64_t size = 1ull << (e->order + pool->geo.block_shift);
    if (!pool_in_data(pool, base, size) || e->length > base + size - e->payload)
        return -EMBAR_ECORRUPT;
    if (!part && (e->side < base || e->side >= base + size))
        return -EMBAR_ECORRUPT;
    if (e->offset > UINT64_MAX - e->length)
        return -EMBAR_ECORRUPT;
    return 0;
}

struct entries {
    const struct pool *pool;
    unsigned slot;
    uint64_t first, n;
};

static int entries_writeback(void *arg)
{
    const struct pool *pool = ((struct entries *)arg)->pool;
    unsigned slot = ((struct entries *)arg)->slot;
    uint64_t first = ((struct entries *)arg)->first, n = ((struct entries *)arg)->n;
    uint64_t entries = pool->geo.index_entries;
    uint64_t to_wrap = entries - first % entries;
    uint64_t a = n < to_wrap ? n : to_wrap;
    flush_writeback(pool->flush, pool_entry(pool, slot, first), a * sizeof(struct media_entry));
    if (n > a)
        flush_writeback(pool->flush, pool_entry(pool, slot, first + a),
                        (n - a) * sizeof(struct media_entry));
    return 0;
}

int index_harden(const struct pool *pool, unsigned slot, uint64_t first, uint64_t n)
{
    int rc = guard_run(pool->region, entries_writeback, &(struct entries){pool, slot, first, n});
    if (rc == 0)
        flush_drain(pool->flush);
    return rc;
}

static uint32_t watermark_crc(const struct media_watermark *w)
{
    struct media_watermark copy = *w;
    copy.crc = le32_of(0);
    return crc32c(0, &copy, sizeof copy);
}

static int watermark_put(void *arg)
{
    return pool_put(arg);
}

static int watermark_write(const struct pool *pool, struct media_watermark *at[2], unsigned *turn,
                           const struct mark *m)
{
    struct media_watermark w = {
        .number = le64_of(m->number), .term = le32_of(m->term), .chain = le32_of(m->chain)};
    memcpy(w.boot_id, pool->boot_id, sizeof w.boot_id);
    w.crc = le32_of(watermark_crc(&w));
    struct pool_record r = {pool, at[*turn & 1], &w, sizeof w};
    int rc = guard_run(pool->region, watermark_put, &r);
    if (rc == 0 && *turn == 0) {
        r.at = at[1];
        rc = guard_run(pool->region, watermark_put, &r);
    }
    ++*turn;
    return rc;
}

int index_watermark(const struct pool *pool, unsigned slot, unsigned *turn, const struct mark *m)
{
    struct media_watermark *at[] = {pool_watermark(pool, slot, 0), pool_watermark(pool, slot, 1)};
    return watermark_write(pool, at, turn, m);
}

int index_synced(const struct pool *pool, unsigned slot, unsigned *turn, const struct mark *m)
{
    struct media_watermark *at[] = {pool_synced(pool, slot, 0), pool_synced(pool, slot, 1)};
    return watermark_write(pool, at, turn, m);
}

struct mark index_watermark_read(const struct pool *pool, const struct media_watermark *w,
                                 bool *same_boot)
{
    struct media_watermark copy;
    if (guard_fetch(pool->region, &copy, w, sizeof copy) != 0 ||
        watermark_crc(&copy) != le32_get(copy.crc))
        return (struct mark){0};
    *same_boot = memcmp(pool->boot_id, copy.boot_id, sizeof copy.boot_id) == 0;
    return (struct mark){le64_get(copy.number), le32_get(copy.chain), le32_get(copy.term)};
}

unsigned index_marks(const struct pool *pool, struct mark marks[INDEX_MARKS], bool *booted)
{
    unsigned n = 0;
    *booted = pool->region->needs_sync;
    for (unsigned slot = 0; slot < pool->geo.slots; slot++) {
        for (unsigned which = 0; which < 2; which++) {
            bool same_boot = false, synced_boot = false;
            struct mark w =
                index_watermark_read(pool, pool_watermark(pool, slot, which), &same_boot);
            struct mark s =
                index_watermark_read(pool, pool_synced(pool, slot, which), &synced_boot);
            /* Over a reboot a page cache keeps only what was synced. */
            if (pool->region->needs_sync && !same_boot)
                w = s;
            if (same_boot)
                *booted = false;
            marks[n] = w;
            n += w.number > 0;
        }
    }
    return n;
}
