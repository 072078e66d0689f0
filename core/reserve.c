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
#define SPLIT_MIN     4096u       /* do not split off less than this: seal the extent instead */
#define PAIR_MIN      (32u << 10) /* a smaller batch stands in one new extent if it can */

uint64_t reserve_bound(const struct log *log)
{
    return log->pool.data_size / 8;
}

/* How large the next extent of t should be: a quarter of what it holds at most, so that what it does
 * not fill wastes no more than that however quiet it goes, and no more than twice its last. A small
 * part of it when space is short. */
static unsigned order_wanted(const struct topic *t, enum extent_class c)
{
    const struct log *log = t->log;
    if (c == EXTENT_META)
        return t->fill && t->fill_order < CONTROL_ORDER ? t->fill_order + 1u : t->fill_order;
    uint64_t most = (topic_end(t) - topic_base(t)) / (extents_tight(log->extents) ? 32 : 4);
    unsigned want = t->fill ? t->fill_order + 1u : log->pool.geo.max_order;
    if (want > log->pool.geo.max_order)
        want = log->pool.geo.max_order;
    while (want > 0 && 1ull << (log->pool.geo.block_shift + want) > most)
        want--;
    return want;
}

/* The next extent of t, for `need` bytes at least. fill_lock held. */
static struct extent *extent_next(struct topic *t, uint64_t need, enum extent_class c)
{
    struct extents *x = t->log->extents;
    unsigned least = extents_order(x, need), want = order_wanted(t, c);
    for (unsigned order = want > least ? want : least;; order--) {
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

/* Two new extents for a batch that one would hold badly: most of it in the largest that it fills.
 * Nothing is placed when there is no space. */
static int place_pair(struct topic *t, struct batch *b, uint64_t side, enum extent_class c)
{
    struct extents *x = t->log->extents;
    uint64_t need = b->length + side;
    unsigned order = extents_order(x, need);
    uint64_t half = order > 0 ? 1ull << (order - 1 + t->log->pool.geo.block_shift) : 0;
    if (side >= half)
        return -EMBAR_EFULL;
    const unsigned orders[2] = {order - 1, extents_order(x, need - half)};
    struct extent *pair[2];
    if (!extent_new_pair(x, orders, c, pair))
        return -EMBAR_EFULL;
    place_split(b, pair[0], pair[1], side);
    extent_put(x, pair[0]); /* full: only the reservation keeps it */
    if (t->fill)
        extent_put(x, t->fill);
    t->fill = pair[1];
    t->fill_order = pair[1]->order;
    return 0;
}

/* Would one extent for so much stay empty for a quarter or more, and not be filled soon? */
static bool pair_better(const struct topic *t, uint64_t need, enum extent_class c)
{
    unsigned order = extents_order(t->log->extents, need);
    uint64_t size = 1ull << (order + t->log->pool.geo.block_shift);
    return need >= PAIR_MIN && need <= size - size / 4 && order_wanted(t, c) < order;
}

static int place(struct topic *t, struct batch *b, enum extent_class c, bool there)
{
    struct extents *x = t->log->extents;
    uint64_t side = side_size(b->count, b->equal);
    struct extent *a = t->fill;
    uint64_t room = a ? a->top - a->bottom : 0;
    if (a && b->length + side <= room) {
        place_whole(b, a, side);
        return 0;
    }
    if (there)
        return -EMBAR_EFULL;
    bool split = a && room >= side + SPLIT_MIN;
    uint64_t need = split ? b->length - (room - side) : b->length + side;
    if (!split && pair_better(t, need, c) && place_pair(t, b, side, c) == 0)
        return 0;
    struct extent *e = extent_next(t, need, c);
    if (!e)
        return place_pair(t, b, side, c);
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

/* there: only in what the topic fills already. */
static int reserve_with(struct log *log, struct batch *b, enum extent_class c, bool there)
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
    int rc = place(t, b, c, there);
    pthread_mutex_unlock(&t->fill_lock);
    return rc;
}

int reserve_in(struct log *log, struct batch *b, enum extent_class c)
{
    return reserve_with(log, b, c, false);
}

/* What t fills holds nothing: one reference, the topic's own, and nobody can take another without
 * fill_lock, which is held. */
static bool fills_nothing(const struct topic *t)
{
    return t->fill && atomic_load_explicit(&t->fill->refs, memory_order_acquire) == 1;
}

static bool is_idle(struct topic *t)
{
    pthread_mutex_lock(&t->fill_lock);
    bool idle = fills_nothing(t);
    pthread_mutex_unlock(&t->fill_lock);
    return idle;
}

void reserve_idle(struct topic *t)
{
    pthread_mutex_lock(&t->fill_lock);
    struct extent *e = fills_nothing(t) ? t->fill : NULL;
    if (e) {
        t->fill = NULL;
        t->fill_order = 0;
    }
    pthread_mutex_unlock(&t->fill_lock);
    if (e)
        extent_put(t->log->extents, e);
}

/* Into the bound, or not at all: who is refused never stands in another's way. */
static bool admit(struct log *log, uint32_t length, uint64_t bound)
{
    uint64_t now = atomic_load_explicit(&log->reserved, memory_order_seq_cst);
    do {
        if (now != 0 && now + length > bound)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&log->reserved, &now, now + length,
                                                    memory_order_seq_cst, memory_order_seq_cst));
    return true;
}

/* place_pair cannot part it when its record takes more than the larger half. */
static bool is_whole(const struct log *log, uint64_t need, uint64_t side)
{
    unsigned order = extents_order(log->extents, need);
    uint64_t half = order > 0 ? 1ull << (order - 1 + log->pool.geo.block_shift) : 0;
    return side >= half;
}

static void starve(struct log *log, const struct batch *b)
{
    uint64_t side = side_size(b->count, b->equal), need = b->length + side;
    retain_starve(log, need, is_whole(log, need, side));
}

uint64_t log_space_need(struct log *log, uint32_t length, uint32_t count, bool equal)
{
    uint64_t side = side_size(count, equal), need = length + side, blocks;
    (void)extents_lack(log->extents, need, is_whole(log, need, side), &blocks);
    return blocks << log->pool.geo.block_shift;
}

static int check_takes(struct log *log, const struct batch *b)
{
    if (log->readonly)
        return -EROFS;
    if (log_faulted(log))
        return -EMBAR_EFAULTED;
    return topic_deleted(b->topic) && !b->past_removal ? -EMBAR_EGONE : 0;
}

int log_reserve_there(struct log *log, struct batch *b, uint64_t owed)
{
    int rc = check_takes(log, b);
    if (rc)
        return rc;
    uint64_t bound = reserve_bound(log), least = bound / 8;
    bound = owed + least < bound ? bound - owed : least;
    if (!admit(log, b->length, bound))
        return -EMBAR_EFULL;
    rc = reserve_with(log, b, EXTENT_PAYLOAD, true);
    if (rc) {
        /* Somebody may have been refused for what was admitted meanwhile. */
        atomic_fetch_sub_explicit(&log->reserved, b->length, memory_order_seq_cst);
        log_starved(log);
    }
    return rc;
}

int log_reserve(struct log *log, struct batch *b)
{
    int rc = check_takes(log, b);
    if (rc)
        return rc;
    uint64_t bound = reserve_bound(log);
    bool admitted = admit(log, b->length, bound);
    rc = admitted ? reserve_in(log, b, EXTENT_PAYLOAD) : -EMBAR_EFULL;
    if (rc == -EMBAR_EFULL) {
        /* Say that we starve, then look again, at the bound as well: what was freed in between
         * fires nobody. Pairs with the exchange in log_starved. */
        atomic_store_explicit(&log->starved, true, memory_order_seq_cst);
        admitted = admitted || admit(log, b->length, bound);
        rc = admitted ? reserve_in(log, b, EXTENT_PAYLOAD) : -EMBAR_EFULL;
        if (rc == -EMBAR_EFULL && extents_waiting(log->extents))
            background_wake(log); /* to sync, so that what waits for that is free */
        if (rc == -EMBAR_EFULL && admitted)
            starve(log, b);
    }
    if (rc && admitted)
        atomic_fetch_sub_explicit(&log->reserved, b->length, memory_order_relaxed);
    return rc;
}

uint64_t log_space_room(struct log *log)
{
    struct extents_stat st;
    atomic_store_explicit(&log->starved, true, memory_order_seq_cst); /* as in log_reserve */
    extents_stat(log->extents, &st);
    uint64_t open = atomic_load_explicit(&log->reserved, memory_order_seq_cst);
    uint64_t bound = reserve_bound(log), room = st.free > st.reserve ? st.free - st.reserve : 0;
    uint64_t left = open == 0 ? UINT64_MAX : open < bound ? bound - open : 0;
    return left < room ? left : room;
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
    if (is_idle(t))
        idle_note(t);
    atomic_fetch_sub_explicit(&log->reserved, b->length, memory_order_relaxed);
    log_starved(log);
}
