/* Clearing: which aligned block is cheapest to empty, and keeping together what comes free of it
 * (step 3, when a batch finds no piece that holds it although enough is free).
 *
 * A block is chosen only when what stands in it fits the free pieces elsewhere, so that moving it makes
 * the piece that is wanted. Called by the background thread alone; must never free what is in use.
 */
#include <string.h>

#include "core/extent_state.h"

/* What would have to be done for a block. */
struct effort {
    uint64_t used, dest, free; /* blocks */
    uint32_t need[MAX_ORDERS]; /* pieces that what stands in it takes elsewhere */
    uint32_t have[MAX_ORDERS]; /* free pieces in it */
};

/* Pieces that what stands in e takes elsewhere: payload with its records, or the same once more. */
static unsigned order_elsewhere(const struct extents *x, const struct extent *e)
{
    uint64_t guess = e->live / 16 + (uint64_t)e->runs * MEDIA_LINE;
    uint64_t bytes = e->live + (e->records > 0 ? e->records : guess);
    unsigned order = extents_order(x, bytes);
    return e->rewritten || order > e->order ? e->order : order;
}

/* Nothing but what the survey knows refers to it: its runs, and the topic that fills it. */
static bool is_quiet(const struct extent *e)
{
    unsigned refs = atomic_load_explicit(&e->refs, memory_order_acquire);
    return e->rewritten || refs == e->runs || refs == e->runs + 1;
}

/* False: it cannot be cleared. Lock held. */
static bool effort_look(const struct extents *x, struct extents_choice *c, uint32_t b,
                        struct effort *w)
{
    uint32_t end = b + (1u << c->order);
    while (b < end) {
        const struct extent *e = x->table[b];
        unsigned order = e ? e->order : (unsigned)x->free_order[b];
        if ((!e && x->free_order[b] < 0) || order > c->order)
            return false;
        if (e) {
            bool known = e->survey == c->survey && is_quiet(e);
            c->busy = c->busy || !known;
            if (!known || e->stuck)
                return false;
            unsigned to = order_elsewhere(x, e);
            if (e->live > 0) {
                w->need[to]++;
                w->dest += 1ull << to;
            }
            w->used += 1ull << order;
        } else {
            w->have[order]++;
            w->free += 1ull << order;
        }
        b += 1u << order;
    }
    return true;
}

/* Is there a piece for each, largest first? Powers of two fill one another without a rest. None as large
 * as what is being made is cut for it: the batch may need two. */
static bool effort_fits(const struct extents *x, const struct effort *w, unsigned order)
{
    uint64_t there = 0;
    if (w->need[order] > 0)
        return false;
    for (unsigned o = order; o-- > 0;) {
        there = 2 * there + x->chunk_count[o] - w->have[o];
        if (there < w->need[o])
            return false;
        there -= w->need[o];
    }
    return true;
}

/* Lower is better; UINT64_MAX: not at all. Where what is free does not suffice yet, a block must give
 * at least as much as is copied, so that it ends. */
static uint64_t effort_cost(const struct extents *x, const struct extents_choice *c,
                            const struct effort *w)
{
    uint64_t keep = extents_reserve_blocks(x), gain = w->used - w->dest;
    bool enough = x->free >= keep + c->need;
    if (w->used == 0 || (c->halves && w->have[c->order - 1] == 0) ||
        x->free - w->free < keep - x->reserve / 2 + w->dest || !effort_fits(x, w, c->order))
        return UINT64_MAX;
    if (enough)
        return w->dest;
    return gain >= w->dest && gain > 0 ? (w->dest << 20) / gain : UINT64_MAX;
}

unsigned extents_choose(struct extents *x, struct extents_choice *c, uint64_t *at, unsigned n)
{
    uint64_t cost[16];
    unsigned found = 0;
    uint32_t size = 1u << c->order;
    if (n > sizeof cost / sizeof cost[0])
        n = sizeof cost / sizeof cost[0];
    for (uint32_t b = 0; n > 0 && size <= x->blocks && b <= x->blocks - size; b += size) {
        struct effort w = {0};
        pthread_mutex_lock(
            &x->lock); /* for each: who reserves meanwhile waits for none of the others */
        uint64_t this = effort_look(x, c, b, &w) ? effort_cost(x, c, &w) : UINT64_MAX;
        pthread_mutex_unlock(&x->lock);
        if (this == UINT64_MAX || (found == n && this >= cost[n - 1]))
            continue;
        found += found < n;
        unsigned i = found - 1;
        for (; i > 0 && cost[i - 1] > this; i--) {
            cost[i] = cost[i - 1];
            at[i] = at[i - 1];
        }
        cost[i] = this;
        at[i] = x->pool->data_base + ((uint64_t)b << x->shift);
    }
    return found;
}

unsigned extents_next_order(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    unsigned order = x->max_order;
    while (order > 0 && x->chunk_count[order - 1] < 2)
        order--;
    pthread_mutex_unlock(&x->lock);
    return order;
}

void extents_hold(struct extents *x, uint64_t at, unsigned order)
{
    pthread_mutex_lock(&x->lock);
    uint32_t b = (uint32_t)((at - x->pool->data_base) >> x->shift);
    x->holding = true;
    x->held = b;
    x->held_end = b + (1u << order);
    x->held_order = order;
    x->held_free = 0;
    for (; b < x->held_end; b++) {
        if (x->free_order[b] < 0)
            continue;
        unsigned free = (unsigned)x->free_order[b];
        extents_chunk_unlink(x, b);
        x->free_order[b] = (int8_t)(HELD - (int)free);
        x->free -= 1ull << free;
        x->held_free += 1ull << free;
    }
    pthread_mutex_unlock(&x->lock);
}

struct extent *extents_held_next(struct extents *x, uint64_t *at)
{
    struct extent *e = NULL;
    pthread_mutex_lock(&x->lock);
    uint32_t b = (uint32_t)((*at - x->pool->data_base) >> x->shift);
    while (x->holding && b < x->held_end && !e)
        e = x->table[b++];
    pthread_mutex_unlock(&x->lock);
    if (e)
        *at = e->base + e->size;
    return e;
}

bool extents_holding(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    bool holding = x->holding;
    pthread_mutex_unlock(&x->lock);
    return holding;
}

void extents_unhold(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    bool held = x->holding;
    x->holding = false;
    for (uint32_t b = x->held; held && b < x->held_end; b++) {
        unsigned order = (unsigned)(HELD - x->free_order[b]);
        if (x->free_order[b] > HELD)
            continue;
        x->free_order[b] = -1;
        (void)extents_chunk_free(x, b, order);
    }
    pthread_mutex_unlock(&x->lock);
    if (held && x->freed)
        x->freed(x->arg);
}
