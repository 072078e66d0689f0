/* The index: entries as lines, their chain, and the named ordering rules that write them (step 8).
 *
 * Entry n stands at n % entries of its sequencer's ring. Each carries the CRC of itself seeded by
 * the CRC of entry n-1: a stale line, a torn line or a line of another history breaks the chain.
 */
#ifndef CORE_INDEX_H
#define CORE_INDEX_H

#include "core/pool.h"

/* An entry in host form. */
struct entry {
    uint64_t number, session, sequence, offset;
    uint64_t payload, side; /* pool offsets */
    uint32_t term, topic, length, count;
    uint32_t check; /* CRC of the side record; its low 16 bits when there is a session */
    uint8_t kind, flags, slot, order;
};

/* Chain value before the first entry of a pool. */
uint32_t index_seed(const struct pool *pool);

/* Encode e behind a chain that stands at `chain`; returns the chain behind it. */
uint32_t index_encode(struct media_entry *line, const struct entry *e, uint32_t chain);

/* Decode the line for entry `number` behind `chain`. 1: it is that entry (*next gets the chain
 * behind it); 0: it is not (stale, torn, never written). */
int index_decode(const struct media_entry *line, uint64_t number, uint32_t chain, struct entry *e,
                 uint32_t *next);

/* The chain that the line stands behind, were it undamaged: a CRC tells its own seed. */
uint32_t index_chain_before(const struct media_entry *line);

/* Every bound of a decoded entry (I9): 0 or -EMBAR_ECORRUPT. */
int index_check(const struct pool *pool, const struct entry *e) __attribute__((warn_unused_result));

/* Ordering rule "entries": lines [first, first + n) are stored; write them back and drain. Only
 * then may anybody be told that they are committed. 0 or -EMBAR_EFAULTED. */
int index_harden(const struct pool *pool, unsigned slot, uint64_t first, uint64_t n)
    __attribute__((warn_unused_result));

/* What a watermark says. */
struct mark {
    uint64_t number;
    uint32_t chain; /* behind entry `number`, or 0: not told */
    uint32_t term;
};

/* Ordering rule "watermark": all up to `number` is durable; say so without waiting. 0 or
 * -EMBAR_EFAULTED. In one of the two lines in turn, which *turn counts; from 0 on in both, so that
 * none from before stays. */
int index_watermark(const struct pool *pool, unsigned slot, unsigned *turn, const struct mark *m)
    __attribute__((warn_unused_result));
/* The same for a file's sync. */
int index_synced(const struct pool *pool, unsigned slot, unsigned *turn, const struct mark *m)
    __attribute__((warn_unused_result));
/* What a watermark line says; number 0 when it is not valid. *same_boot: written since this
 * machine booted. */
struct mark index_watermark_read(const struct pool *pool, const struct media_watermark *w,
                                 bool *same_boot);

/* What the watermarks of all slots vouch for. *booted: for a file pool, whether the machine has booted since it
 * was served. Returns how many. */
#define INDEX_MARKS (2u * MEDIA_MAX_SLOTS)
unsigned index_marks(const struct pool *pool, struct mark marks[INDEX_MARKS], bool *booted);

#endif
