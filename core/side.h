/* Side records: a batch's own facts (time, message lengths, payload CRC), beside its payload in the
 * extent where that begins (steps 3, 6 and recovery). */
#ifndef CORE_SIDE_H
#define CORE_SIDE_H

#include "core/log.h"

/* Bytes a side record takes for `count` messages. */
static inline uint64_t side_size(uint32_t count, bool equal)
{
    uint64_t lengths = equal ? 0 : ((uint64_t)count * 4 + MEDIA_LINE - 1) / MEDIA_LINE * MEDIA_LINE;
    return lengths + MEDIA_LINE;
}

/* A side record as read back and checked. */
struct side {
    uint64_t time, session, sequence;
    uint32_t producer;   /* without a session; + 1, 0: the sequencer */
    uint32_t after;      /* low MEDIA_AFTER_BITS of the number of an entry committed before */
    uint64_t run0, run1; /* pool offsets; run1 0 when the payload is in one piece */
    uint32_t run0_length, length, count, payload_crc, topic;
    uint32_t crc; /* of the record itself */
    uint8_t order0, order1;
    bool equal, fifo;
    const le32 *lengths; /* NULL when equal */
};

/* Write the header for b (lengths stand already), checksum both and begin writing both back.
 * The CRC is left in b->check. -EMBAR_EINVALID when the lengths do not add up to the payload;
 * -EMBAR_EFAULTED. */
int side_write(const struct pool *pool, struct batch *b) __attribute__((warn_unused_result));

/* Read and check the record whose header is at `at` (I9: magic, CRC, every bound, the sum of the
 * lengths). -EMBAR_ECORRUPT, -EMBAR_EFAULTED. */
int side_read(const struct pool *pool, uint64_t at, struct side *s)
    __attribute__((warn_unused_result));

/* Does that which stands at `at`, a line of the pool, begin as a record does? */
bool side_begins(const struct pool *pool, uint64_t at);

/* The CRC that the record has to have: of its header, whatever stands in its field, and its lengths. */
uint32_t side_crc(const struct pool *pool, const struct media_side *m, const le32 *lengths);

/* The checked record at `from` once more at `to`, with the places that s says now. Begins writing it
 * back. Under the caller's guard. */
void side_move(const struct pool *pool, uint64_t from, uint64_t to, const struct side *s);

/* Has the payload of a checked side record the checksum that this says? */
bool side_payload_whole(const struct pool *pool, const struct side *s);

#endif
