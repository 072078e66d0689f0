/* Side records: written once by the broker that received the batch, checked at every read. */
#include "core/side.h"

#include <string.h>

#include "core/crc.h"
#include "core/extent.h"
#include "core/guard.h"

#define AFTER_LOW 16u /* bits of `after` beside the session */

uint32_t side_crc(const struct pool *pool, const struct media_side *m, const le32 *lengths)
{
    struct media_side head = *m;
    head.crc = le32_of(0);
    uint32_t crc = crc32c(pool->side_seed, &head, sizeof head);
    return lengths ? crc32c(crc, lengths, ((size_t)le64_high16(m->run0) + 1) * 4) : crc;
}

static uint64_t lengths_sum(const le32 *lengths, uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += le32_get(lengths[i]);
    return sum;
}

struct store {
    const struct pool *pool;
    struct batch *b;
};

static int side_store(void *arg)
{
    const struct pool *pool = ((struct store *)arg)->pool;
    struct batch *b = ((struct store *)arg)->b;
    struct media_side *at = pool_at(pool, b->side);
    uint64_t below = side_size(b->count, b->equal) - MEDIA_LINE;
    const le32 *lengths = b->equal ? NULL : pool_at(pool, b->side - below);
    if (b->equal ? b->length % b->count != 0 : lengths_sum(lengths, b->count) != b->length)
        return -EMBAR_EINVALID;

    uint8_t order1 = b->extent1 ? b->extent1->order : 0;
    struct media_side m = {
        .magic = le32_of(pool->side_magic),
        .time = le64_of(b->time),
        .topic = le32_of(topic_id(b->topic)),
        .payload_crc = le32_of(b->payload_crc),
        .session = le64_pack(b->session, (uint16_t)b->after),
        .sequence =
            le64_pack(b->session ? b->sequence : b->producer,
                      (uint16_t)((b->equal ? MEDIA_F_EQUAL : 0u) | (b->fifo ? MEDIA_F_FIFO : 0u) |
                                 (b->after >> AFTER_LOW & 0xff) << 8)),
        .run0 = le64_pack(b->run0, (uint16_t)(b->count - 1)),
        .run1 = le64_pack(b->run1, (uint16_t)(b->extent0->order | order1 << 8)),
        .run0_length = le32_of(b->run0_length),
        .length = le32_of(b->length),
    };
    b->check = side_crc(pool, &m, lengths);
    m.crc = le32_of(b->check);
    *at = m;
    flush_writeback(pool->flush, pool_at(pool, b->side - below), below + MEDIA_LINE);
    return 0;
}

int side_write(const struct pool *pool, struct batch *b)
{
    return guard_run(pool->region, side_store, &(struct store){pool, b});
}

struct load {
    const struct pool *pool;
    uint64_t at;
    struct side *side;
};

static int side_load(void *arg)
{
    const struct pool *pool = ((struct load *)arg)->pool;
    uint64_t at = ((struct load *)arg)->at;
    struct side *s = ((struct load *)arg)->side;
    if (at % MEDIA_LINE != 0 || !pool_in_data(pool, at, MEDIA_LINE))
        return -EMBAR_ECORRUPT;
    struct media_side m;
    flush_invalidate(pool->flush, pool_at(pool, at), sizeof m);
    memcpy(&m, pool_at(pool, at), sizeof m);
    if (le32_get(m.magic) != pool->side_magic)
        return -EMBAR_ECORRUPT;

    s->count = (uint32_t)(le64_get(m.run0) >> 48) + 1;
    s->equal = le64_high16(m.sequence) & MEDIA_F_EQUAL;
    uint64_t below = side_size(s->count, s->equal) - MEDIA_LINE;
    if (at < pool->data_base + below)
        return -EMBAR_ECORRUPT;
    s->lengths = s->equal ? NULL : pool_at(pool, at - below);
    flush_invalidate(pool->flush, s->lengths, below);
    if (side_crc(pool, &m, s->lengths) != le32_get(m.crc))
        return -EMBAR_ECORRUPT;

    s->time = le64_get(m.time);
    s->topic = le32_get(m.topic);
    s->fifo = le64_high16(m.sequence) & MEDIA_F_FIFO;
    s->session = le64_low48(m.session);
    s->sequence = s->session ? le64_low48(m.sequence) : 0;
    s->producer = s->session ? 0 : (uint32_t)le64_low48(m.sequence);
    s->after = le64_high16(m.session) | (uint32_t)(le64_high16(m.sequence) >> 8) << AFTER_LOW;
    s->payload_crc = le32_get(m.payload_crc);
    s->run0 = le64_low48(m.run0);
    s->run1 = le64_low48(m.run1);
    s->order0 = (uint8_t)(le64_high16(m.run1) & 0xff);
    s->order1 = (uint8_t)(le64_high16(m.run1) >> 8);
    s->crc = le32_get(m.crc);
    s->run0_length = le32_get(m.run0_length);
    s->length = le32_get(m.length);

    if (s->length == 0 || s->run0_length > s->length ||
        !pool_in_data(pool, s->run0, s->run0_length))
        return -EMBAR_ECORRUPT;
    if ((s->run1 == 0) != (s->run0_length == s->length))
        return -EMBAR_ECORRUPT;
    if (s->run1 && !pool_in_data(pool, s->run1, s->length - s->run0_length))
        return -EMBAR_ECORRUPT;
    if (s->order0 > pool->geo.max_order || s->order1 > pool->geo.max_order)
        return -EMBAR_ECORRUPT;
    if (s->equal ? s->length % s->count != 0 : lengths_sum(s->lengths, s->count) != s->length)
        return -EMBAR_ECORRUPT;
    return 0;
}

bool side_begins(const struct pool *pool, uint64_t at)
{
    return le32_get(((const struct media_side *)pool_at(pool, at))->magic) == pool->side_magic;
}

int side_read(const struct pool *pool, uint64_t at, struct side *s)
{
    return guard_run(pool->region, side_load, &(struct load){pool, at, s});
}

void side_move(const struct pool *pool, uint64_t from, uint64_t to, const struct side *s)
{
    struct media_side m = *(const struct media_side *)pool_at(pool, from);
    uint64_t below = side_size(s->count, s->equal) - MEDIA_LINE;
    const le32 *lengths = s->equal ? NULL : pool_at(pool, to - below);
    m.run0 = le64_pack(s->run0, (uint16_t)(s->count - 1));
    m.run1 = le64_pack(s->run1, (uint16_t)(s->order0 | s->order1 << 8));
    if (lengths)
        memcpy(pool_at(pool, to - below), s->lengths, below);
    m.crc = le32_of(side_crc(pool, &m, lengths));
    *(struct media_side *)pool_at(pool, to) = m;
    flush_writeback(pool->flush, pool_at(pool, to - below), below + MEDIA_LINE);
}

struct payload {
    const struct pool *pool;
    const struct side *side;
    uint32_t crc;
};

static int payload_sum(void *arg)
{
    struct payload *p = arg;
    const struct side *s = p->side;
    const char *run0 = pool_at(p->pool, s->run0);
    flush_invalidate(p->pool->flush, run0, s->run0_length);
    p->crc = crc32c_cold(0, run0, s->run0_length);
    if (s->run1) {
        const char *run1 = pool_at(p->pool, s->run1);
        flush_invalidate(p->pool->flush, run1, s->length - s->run0_length);
        p->crc = crc32c_cold(p->crc, run1, s->length - s->run0_length);
    }
    return 0;
}

bool side_payload_whole(const struct pool *pool, const struct side *s)
{
    struct payload p = {.pool = pool, .side = s};
    return guard_run(pool->region, payload_sum, &p) == 0 && p.crc == s->payload_crc;
}
