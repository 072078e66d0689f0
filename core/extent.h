/* Extents: power-of-two runs of blocks, handed out by a buddy allocator (step 3).
 *
 * An extent is aligned to its size relative to the data area, so that its bounds follow from any
 * location in it and its order: the media hold no extent map, the index implies it.
 *
 * Lifetime is one count: the topic that fills it, each reservation in flight, each run of committed
 * batches and each pinned reply hold one reference; at zero its blocks are free.
 *
 * What a batch needs to be placed: one free aligned piece that holds it, or two, of which the larger
 * is the largest power of two below it (16 MiB for the largest batch). One small live batch keeps its
 * extent, and with it the aligned pieces around it, from being one; when that is in the way although
 * enough is free in all, what stands in an aligned block is moved to where smaller pieces are free
 * (move.c), so that the block is in one piece. Nothing else moves anything.
 *
 * Threads: all functions may be called from any thread. One lock guards the free lists and the
 * table; it is a leaf: nothing is called with it held. A space watcher fires after it is dropped.
 */
#ifndef CORE_EXTENT_H
#define CORE_EXTENT_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/pool.h"

struct extent {
    uint64_t base; /* pool offset */
    uint64_t size; /* bytes */
    atomic_uint refs;
    uint8_t order;
    bool meta; /* allocated for checkpoints or topic 0 */
    bool sole; /* claimed by extent_claim_sole */
    /* While a topic fills it, under that topic's lock: free bytes are [bottom, top). */
    uint64_t bottom, top; /* pool offsets */
    /* The background thread's (survey.c): what it found in its survey number `survey`. */
    uint32_t survey, owner; /* topic id */
    uint32_t runs;          /* references that runs hold, */
    uint64_t first, last;   /* these among them: numbers, as run_dropped counts */
    bool stuck;             /* damaged: it stays where it is */
    bool rewritten;         /* a checkpoint's: the next one can do without it */
    uint64_t live;          /* payload bytes of its runs */
    uint64_t records;       /* bytes of their records, once they were looked at */
};

enum extent_class {
    EXTENT_PAYLOAD, /* leaves the reserve untouched */
    EXTENT_META, /* checkpoints, control records: may use it, so that a full pool can still trim */
    EXTENT_MOVE, /* what is moved: may use half of it; it frees more than it takes */
};

struct extents;

int extents_create(struct extents **out, const struct pool *pool, void (*freed)(void *arg),
                   void *arg) __attribute__((warn_unused_result));
void extents_destroy(struct extents *x);

/* Make regions [first, first + count) allocatable. Beyond the data area, or granted before:
 * -EMBAR_ECORRUPT. */
int extents_grant(struct extents *x, uint64_t first, uint64_t count)
    __attribute__((warn_unused_result));

/* A free extent of 2^order blocks with one reference; NULL when there is none. */
struct extent *extent_new(struct extents *x, unsigned order, enum extent_class c);
/* Two at once, or none. */
bool extent_new_pair(struct extents *x, const unsigned order[2], enum extent_class c,
                     struct extent *pair[2]);
/* Recovery: the extent around `at` with one more reference, carved out of free space when it is
 * new. -EMBAR_ECORRUPT when it overlaps another extent or lies outside what was granted. */
int extent_claim(struct extents *x, uint64_t at, unsigned order, struct extent **out)
    __attribute__((warn_unused_result));
/* The same for what shares its extent with nobody: one that exists is -EMBAR_ECORRUPT. */
int extent_claim_sole(struct extents *x, uint64_t at, unsigned order, struct extent **out)
    __attribute__((warn_unused_result));
/* The extent that exists around `at`; NULL when none does. No reference is taken. */
struct extent *extent_find(struct extents *x, uint64_t at, unsigned order);

static inline void extent_ref(struct extent *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
}
static inline void extent_ref_many(struct extent *e, unsigned n)
{
    atomic_fetch_add_explicit(&e->refs, n, memory_order_relaxed);
}
void extent_put(struct extents *x, struct extent *e);
/* The same for one that nothing durable names any more, whatever extents_defer says. */
void extent_put_now(struct extents *x, struct extent *e);

/* An ordinary file: the action that freed an extent (a trim, a removal) is in the page cache and may
 * be lost while what reuses the blocks is not. From now on freed blocks wait for a sync:
 *   mark = extents_mark(x); sync; extents_settle(x, mark): what was freed before the mark is free. */
void extents_defer(struct extents *x);
uint64_t extents_mark(struct extents *x);
void extents_settle(struct extents *x, uint64_t mark);
/* Blocks that came free so far, in all: tells whether any did since an earlier call. */
uint64_t extents_freed(struct extents *x);
/* Does anything wait? */
bool extents_waiting(struct extents *x);

/* Would n bytes of payload find space now, in one extent or in two? whole: not in two. */
bool extents_fit(struct extents *x, uint64_t n, bool whole);
/* Order of the piece that they lack, or lack first; *need: blocks that they take. */
unsigned extents_lack(struct extents *x, uint64_t n, bool whole, uint64_t *need);
/* Clearing a block, so that it comes free in one piece (clear.c; the background thread's). */
struct extents_choice {
    uint32_t survey; /* number of the survey that knows what stands in each extent */
    unsigned order;  /* of the block wanted */
    uint64_t need;   /* blocks that shall be free in the end */
    bool halves;     /* only one of which half is free: a step towards a larger one */
    bool busy;       /* out: one was passed over for what is on its way or being read */
};
/* The blocks that are cheapest to clear, cheapest first: pool offsets. How many, up to n. */
unsigned extents_choose(struct extents *x, struct extents_choice *c, uint64_t *at, unsigned n);
/* Of two free pieces as large as there are two of, one can take what stands beside the other: the order
 * that this makes. 0: there are no two. */
unsigned extents_next_order(struct extents *x);
/* From now on what is free or comes free in the block at `at` is kept together, and given out only
 * when all of it is. One block at a time. */
void extents_hold(struct extents *x, uint64_t at, unsigned order);
/* The extents in it; NULL when there is no more from `at` on. Moves `at` behind it. */
struct extent *extents_held_next(struct extents *x, uint64_t *at);
/* Is it still being held? */
bool extents_holding(struct extents *x);
/* Give up: what is free of it is free. */
void extents_unhold(struct extents *x);

/* Less than an eighth of the space is free for payload. */
bool extents_tight(struct extents *x);

/* Smallest order that holds n bytes; above the pool's largest when none does. */
unsigned extents_order(const struct extents *x, uint64_t n);

struct extents_stat {
    uint64_t granted, used, free; /* bytes */
    uint64_t reserve;             /* kept for EXTENT_META, with extents_need's */
    uint64_t count;               /* extents in use */
};
/* Blocks that the next checkpoint will take: payload leaves them free, beside the reserve. */
void extents_need(struct extents *x, uint64_t blocks);
void extents_stat(struct extents *x, struct extents_stat *st);

#endif
