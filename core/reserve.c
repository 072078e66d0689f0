/* Reservations: where a batch's bytes will stand (steps 3 to 5, and giving space back).
 *
 * A topic fills one extent at a time: payload from the bottom, side records from the top. The last
 * reservation of an extent is rolled back when it is abandoned; an inner one stays a hole, which
 * nobody's run refers to, so it is free with its extent. Must never touch bytes outside what was
 * reserved, nor wait.
 */
#include <errno.h>
#include <string.h>

#include "core/log_state.h"

/* Control records live until the next checkpoint only, and from what it needs itself. */
#define CONTROL_ORDER 2u
#define SPLIT_MIN     4096u /* do not split off less than this: seal the extent instead */

uint64_t reserve_bound(const struct log *log)
{
    return log->pool.data_size / 8;
}

/* The next extent of t: as large as its last one twice, or as `need` asks; smaller when space is
 * short. fill_lock held. */
static struct extent *extent_next(struct topic *t, uint64_t need, enum extent_class c)
{
    struct extents *x = t->log->extents;
    unsigned least = extents_order(x, need);
    unsigned want = t->fill ? t->fill_order + 1u : t->fill_order;
    if (want > t->log->pool.geo.max_order)
        want = t->log->pool.geo.max_order;
    if (c == EXTENT_META && want > CONTROL_ORDER)
        want = CONTROL_ORDER;
    if (want < least)
        want = least;
    for (unsigned order = want;; order--) {
        struct extent *e = extent_new(x, order, c);
        if (e || order <= least)
            return e;
    }
}

static void place_whole(struct batch *b, struct extent *e, uint64_t side)
{
    b->run0 = e->bottom;
    b->run0_length = b->length;
    b->run1 = 0;
    e->bottom += b->length;
    e->top -= side;
    b->side = e->top + side - MEDIA_LINE;
    b->extent0 = e;
    b->extent1 = NULL;
    extent_ref(e);
}

static void place_split(struct batch *b, struct extent *a, struct extent *e, uint64_t side)
{
    b->run0 = a->bottom;
    b->run0_length = (uint32_t)(a->top - side - a->bottom);
    b->run1 = e->bottom;
    a->bottom += b->run0_length;
    a->top -= side;
    b->side = a->top + side - MEDIA_LINE;
    e->bottom += b->length - b->run0_length;
    b->extent0 = a;
    b->extent1 = e;
    extent_ref(a);
    extent_ref(e);
}

static int place(struct topic *t, struct batch *b, enum extent_class c)
{
    struct extents *x = t->log->extents;
    uint64_t side = side_size(b->count, b->equal);
    struct extent *a = t->fill;
    uint64_t room = a ? a->top - a->bottom : 0;
    if (a && b->length + side <= room) {
        place_whole(b, a, side);
        return 0;
    }
    bool split = a && room >= side + SPLIT_MIN;
    uint64_t need = split ? b->length - (room - side) : b->length + side;
    struct extent *e = extent_next(t, need, c);
    if (!e)
        return -EMBAR_EFULL;
    if (split)
        place_split(b, a, e, side);
    else
        place_whole(b, e, side);
    if (a)
        extent_put(x, a); /* sealed: only its runs and reservations keep it */
    t->fill = e;
    t->fill_order = e->order;
    return 0;
}

int reserve_in(struct log *log, struct batch *b, enum extent_class c)
{
    struct topic *t = b->topic;
    if (b->length == 0 || b->count == 0 || b->count > MEDIA_MAX_MESSAGES || b->count > b->length ||
        (b->equal && b->length % b->count != 0))
        return -EMBAR_EINVALID;
    /* What no extent holds, however empty the pool, is too big rather than worth a wait. */
    uint64_t largest = 1ull << (log->pool.geo.block_shift + log->pool.geo.max_order);
    if (b->length > log->pool.max_batch || b->length + side_size(b->count, b->equal) > largest)
        return -EMBAR_ETOOBIG;
    /* Sequences begin at 1 and have 48 bits: anything else would be taken for a duplicate, or for
     * another one. */
    if (b->session && (b->sequence == 0 || b->sequence > MASK48))
        return -EMBAR_EINVALID;
    pthread_mutex_lock(&t->fill_lock);
    int rc = place(t, b, c);
    pthread_mutex_unlock(&t->fill_lock);
    return rc;
}

/* Into the bound, or not at all: who is refused never stands in another's way. */
static bool admit(struct log *log, uint32_t length)
{
    uint64_t now = atomic_load_explicit(&log->reserved, memory_order_seq_cst);
    do {
        if (now != 0 && now + length > reserve_bound(log))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&log->reserved, &now, now + length,
                                                    memory_order_seq_cst, memory_order_seq_cst));
    return true;
}

int log_reserve(struct log *log, struct batch *b)
{
    if (log->readonly)
        return -EROFS;
    if (atomic_load_explicit(&log->faulted, memory_order_relaxed))
        return -EMBAR_EFAULTED;
    if (topic_deleted(b->topic))
        return -EMBAR_EGONE;
    bool admitted = admit(log, b->length);
    int rc = admitted ? reserve_in(log, b, EXTENT_PAYLOAD) : -EMBAR_EFULL;
    if (rc == -EMBAR_EFULL) {
        /* Say that we starve, then look again, at the bound as well: what was freed in between
         * fires nobody. Pairs with the exchange in log_starved. */
        atomic_store_explicit(&log->starved, true, memory_order_seq_cst);
        admitted = admitted || admit(log, b->length);
        rc = admitted ? reserve_in(log, b, EXTENT_PAYLOAD) : -EMBAR_EFULL;
        if (rc == -EMBAR_EFULL && extents_waiting(log->extents))
            background_wake(log); /* to sync, so that what waits for that is free */
    }
    if (rc && admitted)
        atomic_fetch_sub_explicit(&log->reserved, b->length, memory_order_relaxed);
    return rc;
}

void log_starved(struct log *log)
{
    if (atomic_load_explicit(&log->starved, memory_order_seq_cst) &&
        atomic_exchange_explicit(&log->starved, false, memory_order_seq_cst))
        watch_fire(&log->space);
}

void *log_span(struct log *log, const struct batch *b, uint32_t at, uint32_t *n)
{
    if (at < b->run0_length) {
        *n = b->run0_length - at;
        return pool_at(&log->pool, b->run0 + at);
    }
    *n = b->length - at;
    return pool_at(&log->pool, b->run1 + (at - b->run0_length));
}

le32 *log_lengths(struct log *log, const struct batch *b)
{
    if (b->equal)
        return NULL;
    return pool_at(&log->pool, b->side + MEDIA_LINE - side_size(b->count, false));
}

void log_writeback(struct log *log, const struct batch *b, uint32_t at, uint32_t n)
{
    while (n > 0) {
        uint32_t here;
        const void *p = log_span(log, b, at, &here);
        if (here > n)
            here = n;
        flush_writeback(log->pool.flush, p, here);
        at += here;
        n -= here;
    }
}

/* Undo `e`'s part of a reservation when nothing was reserved after it. fill_lock held. */
static void roll_back(struct topic *t, struct extent *e, uint64_t run, uint64_t length,
                      uint64_t side_low, uint64_t side)
{
    if (e != t->fill || run + length != e->bottom || (side && side_low != e->top))
        return;
    e->bottom -= length;
    e->top += side;
}

void log_abandon(struct log *log, struct batch *b)
{
    struct topic *t = b->topic;
    uint64_t side = side_size(b->count, b->equal);
    pthread_mutex_lock(&t->fill_lock);
    if (b->extent1)
        roll_back(t, b->extent1, b->run1, b->length - b->run0_length, 0, 0);
    roll_back(t, b->extent0, b->run0, b->run0_length, b->side + MEDIA_LINE - side, side);
    pthread_mutex_unlock(&t->fill_lock);
    if (b->extent1)
        extent_put(log->extents, b->extent1);
    extent_put(log->extents, b->extent0);
    b->extent0 = b->extent1 = NULL;
    atomic_fetch_sub_explicit(&log->reserved, b->length, memory_order_relaxed);
    log_starved(log);
}
