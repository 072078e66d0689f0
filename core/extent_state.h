/* What extent.c and clear.c share, and nobody else: the allocator's state (step 3). */
#ifndef CORE_EXTENT_STATE_H
#define CORE_EXTENT_STATE_H

#include "core/bits.h"
#include "core/extent.h"

#define NIL          UINT32_MAX
#define MAX_ORDERS   32u
#define LARGE_ORDERS 5u /* so many of the largest are large */

struct extents {
    pthread_mutex_t lock; /* guards everything below; a leaf */
    const struct pool *pool;
    unsigned shift, max_order;
    uint32_t blocks;
    uint64_t region_blocks;
    int8_t *free_order;             /* order of the free chunk that begins at a block, or -1 */
    struct extent **table;          /* extent that begins at a block */
    bool *region;                   /* was it granted? */
    struct bits chunks[MAX_ORDERS]; /* free ones: their first block, in units of the order */
    uint32_t chunk_count[MAX_ORDERS];
    uint64_t granted, free, reserve; /* blocks */
    uint64_t freed_ever;             /* blocks */
    atomic_uint_fast64_t need;       /* blocks; a hint, ordered by nothing */
    uint64_t count;
    /* Freed and waiting for a sync: a queue by first block, with the order of each. */
    uint32_t *next, *prev;
    bool defer;
    uint32_t wait_first, wait_last;
    uint64_t wait_in, wait_out; /* ever queued, ever settled */
    void (*freed)(void *arg);
    void *arg;
    /* The block that is being cleared (clear.c): what comes free of it is kept together. Its free
     * chunks are in no set and not counted as free; free_order[] has HELD less their order. */
    bool holding;
    uint32_t held, held_end;
    unsigned held_order;
    uint64_t held_free; /* blocks */
};
#define HELD (-2)

/* Lock held, all of them. Blocks that the next checkpoint or a control action may need. */
uint64_t extents_reserve_blocks(const struct extents *x);
/* Give a chunk back. False: it belongs to a block that is being cleared and is not free yet. */
bool extents_chunk_free(struct extents *x, uint32_t b, unsigned order);
void extents_chunk_unlink(struct extents *x, uint32_t b);
/* A free chunk of this order or a larger one, as extent_new finds it. */
bool extents_chunk_there(const struct extents *x, unsigned order);

#endif
