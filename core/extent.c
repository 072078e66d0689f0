/* The buddy allocator behind extent.h.
 *
 * Free chunks of each order are a set that knows its first and last; free_order[] tells for a block
 * whether a free chunk begins there. All of it is in DRAM and rebuilt from the index at open.
 *
 * Small extents are taken from the lowest place that there is, large ones from the highest: what
 * many slow topics hold for long gathers at the bottom and what is freed there is filled again,
 * while the top stays in large pieces. Wherever there is a choice, the smallest chunk is cut.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/extent_state.h"

static void chunk_push(struct extents *x, uint32_t b, unsigned order)
{
    x->free_order[b] = (int8_t)order;
    bits_add(&x->chunks[order], b >> order);
    x->chunk_count[order]++;
}

void extents_chunk_unlink(struct extents *x, uint32_t b)
{
    unsigned order = (unsigned)x->free_order[b];
    bits_remove(&x->chunks[order], b >> order);
    x->chunk_count[order]--;
    x->free_order[b] = -1;
}

/* Merging it with its buddy as long as that is free and whole. */
bool extents_chunk_free(struct extents *x, uint32_t b, unsigned order)
{
    if (x->holding && b >= x->held && b < x->held_end) {
        x->free_order[b] = (int8_t)(HELD - (int)order);
        x->held_free += 1ull << order;
        if (x->held_free < 1ull << x->held_order)
            return false;
        for (uint32_t i = x->held; i < x->held_end; i++)
            x->free_order[i] = -1;
        x->holding = false;
        b = x->held;
        order = x->held_order;
    }
    x->free += 1ull << order;
    x->freed_ever += 1ull << order;
    while (order < x->max_order) {
        uint32_t buddy = b ^ (1u << order);
        if (buddy >= x->blocks || x->free_order[buddy] != (int8_t)order)
            break;
        extents_chunk_unlink(x, buddy);
        b &= ~(1u << order);
        order++;
    }
    chunk_push(x, b, order);
    return true;
}

int extents_create(struct extents **out, const struct pool *pool, void (*freed)(void *arg),
                   void *arg)
{
    struct extents *x = calloc(1, sizeof *x);
    if (!x)
        return -ENOMEM;
    x->pool = pool;
    x->shift = pool->geo.block_shift;
    x->max_order = pool->geo.max_order;
    x->blocks = (uint32_t)(pool->data_size >> x->shift);
    x->region_blocks = x->blocks / pool->geo.regions;
    x->freed = freed;
    x->arg = arg;
    pthread_mutex_init(&x->lock, NULL);
    x->next = malloc(x->blocks * sizeof *x->next);
    x->prev = malloc(x->blocks * sizeof *x->prev);
    x->free_order = malloc(x->blocks);
    x->table = calloc(x->blocks, sizeof(struct extent *));
    x->region = calloc(pool->geo.regions, sizeof *x->region);
    bool sets = true;
    for (unsigned i = 0; i <= x->max_order && i < MAX_ORDERS; i++)
        sets = sets && bits_create(&x->chunks[i], (x->blocks >> i) + 1) == 0;
    if (!sets || !x->region || !x->next || !x->prev || !x->free_order || !x->table ||
        x->max_order >= MAX_ORDERS) {
        extents_destroy(x);
        return -ENOMEM;
    }
    memset(x->free_order, -1, x->blocks);
    *out = x;
    return 0;
}

void extents_destroy(struct extents *x)
{
    if (!x)
        return;
    if (x->table)
        for (uint32_t b = 0; b < x->blocks; b++)
            free(x->table[b]);
    for (unsigned i = 0; i < MAX_ORDERS; i++)
        bits_destroy(&x->chunks[i]);
    free(x->next);
    free(x->prev);
    free(x->free_order);
    free(x->table);
    free(x->region);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

int extents_grant(struct extents *x, uint64_t first, uint64_t count)
{
    uint64_t regions = x->pool->geo.regions;
    if (first >= regions || count > regions - first)
        return -EMBAR_ECORRUPT;
    uint64_t b = first * x->region_blocks;
    /* What the division leaves over belongs to the last region. */
    uint64_t end = first + count == regions ? x->blocks : (first + count) * x->region_blocks;
    pthread_mutex_lock(&x->lock);
    for (uint64_t r = first; r < first + count; r++)
        if (x->region[r]) {
            pthread_mutex_unlock(&x->lock);
            return -EMBAR_ECORRUPT;
        }
    memset(x->region + first, true, count);
    x->granted += end - b;
    while (b < end) {
        unsigned order = b ? (unsigned)__builtin_ctzll(b) : x->max_order;
        if (order > x->max_order)
            order = x->max_order;
        while (b + (1ull << order) > end)
            order--;
        (void)extents_chunk_free(x, (uint32_t)b, order);
        b += 1ull << order;
    }
    x->reserve = x->granted / 32 > 8 ? x->granted / 32 : 8;
    pthread_mutex_unlock(&x->lock);
    return 0;
}

/* Halve the free chunk at b until it has `want` order and begins at `keep`. Lock held; the chunk
 * is unlinked already. */
static void chunk_carve(struct extents *x, uint32_t b, unsigned order, uint32_t keep, unsigned want)
{
    while (order > want) {
        order--;
        uint32_t upper = b + (1u << order);
        if (keep >= upper) {
            chunk_push(x, b, order);
            b = upper;
        } else {
            chunk_push(x, upper, order);
        }
    }
    x->free -= 1ull << want;
}

static struct extent *extent_begin(struct extents *x, uint32_t b, unsigned order)
{
    struct extent *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->base = x->pool->data_base + ((uint64_t)b << x->shift);
    e->size = 1ull << (order + x->shift);
    e->order = (uint8_t)order;
    e->bottom = e->base;
    e->top = e->base + e->size;
    atomic_init(&e->refs, 1);
    x->table[b] = e;
    x->count++;
    return e;
}

uint64_t extents_reserve_blocks(const struct extents *x)
{
    return x->reserve + atomic_load_explicit(&x->need, memory_order_relaxed);
}

void extents_need(struct extents *x, uint64_t blocks)
{
    atomic_store_explicit(&x->need, blocks, memory_order_relaxed);
}

/* Lock held. */
static struct extent *extent_take(struct extents *x, unsigned order, enum extent_class c)
{
    uint64_t keep = c == EXTENT_META ? 0 : extents_reserve_blocks(x);
    if (c == EXTENT_MOVE)
        keep -= x->reserve / 2;
    unsigned from = order;
    while (from <= x->max_order && x->chunk_count[from] == 0)
        from++;
    if (from > x->max_order || x->free < keep + (1ull << order))
        return NULL;
    bool high = order + LARGE_ORDERS > x->max_order;
    const struct bits *set = &x->chunks[from];
    uint32_t b = (high ? bits_last(set) : bits_first(set)) << from;
    uint32_t at = high ? b + (1u << from) - (1u << order) : b;
    struct extent *e = extent_begin(x, at, order);
    if (e) {
        extents_chunk_unlink(x, b);
        chunk_carve(x, b, from, at, order);
        e->meta = c == EXTENT_META;
    }
    return e;
}

struct extent *extent_new(struct extents *x, unsigned order, enum extent_class c)
{
    if (order > x->max_order)
        return NULL;
    pthread_mutex_lock(&x->lock);
    struct extent *e = extent_take(x, order, c);
    pthread_mutex_unlock(&x->lock);
    return e;
}

bool extent_new_pair(struct extents *x, const unsigned order[2], enum extent_class c,
                     struct extent *pair[2])
{
    if (order[0] > x->max_order || order[1] > x->max_order)
        return false;
    pthread_mutex_lock(&x->lock);
    pair[0] = extent_take(x, order[0], c);
    pair[1] = pair[0] ? extent_take(x, order[1], c) : NULL;
    if (pair[0] && !pair[1]) {
        /* Nobody knew of it: no watcher is told. */
        uint32_t b = (uint32_t)((pair[0]->base - x->pool->data_base) >> x->shift);
        x->table[b] = NULL;
        x->count--;
        (void)extents_chunk_free(x, b, order[0]);
        free(pair[0]);
        pair[0] = NULL;
    }
    pthread_mutex_unlock(&x->lock);
    return pair[0];
}

static int claim(struct extents *x, uint64_t at, unsigned order, bool sole, struct extent **out)
{
    if (order > x->max_order || !pool_in_data(x->pool, at, 1))
        return -EMBAR_ECORRUPT;
    uint32_t block = (uint32_t)((at - x->pool->data_base) >> x->shift);
    uint32_t b = block & ~((1u << order) - 1);
    int rc = -EMBAR_ECORRUPT;
    pthread_mutex_lock(&x->lock);
    struct extent *e = x->table[b];
    if (e) {
        if (e->order == order && !sole && !e->sole) {
            extent_ref(e);
            *out = e;
            rc = 0;
        }
    } else {
        /* The free chunk around b, if one is there: its start is b rounded down to its order. */
        for (unsigned o = order; o <= x->max_order; o++) {
            uint32_t start = b & ~((1u << o) - 1);
            if (x->free_order[start] != (int8_t)o)
                continue;
            e = extent_begin(x, b, order);
            rc = e ? 0 : -ENOMEM;
            if (e) {
                extents_chunk_unlink(x, start);
                chunk_carve(x, start, o, b, order);
                e->sole = sole;
                *out = e;
            }
            break;
        }
    }
    pthread_mutex_unlock(&x->lock);
    return rc;
}

int extent_claim(struct extents *x, uint64_t at, unsigned order, struct extent **out)
{
    return claim(x, at, order, false, out);
}

int extent_claim_sole(struct extents *x, uint64_t at, unsigned order, struct extent **out)
{
    return claim(x, at, order, true, out);
}

struct extent *extent_find(struct extents *x, uint64_t at, unsigned order)
{
    uint32_t b = (uint32_t)((at - x->pool->data_base) >> x->shift) & ~((1u << order) - 1);
    pthread_mutex_lock(&x->lock);
    struct extent *e = x->table[b];
    pthread_mutex_unlock(&x->lock);
    return e;
}

/* Lock held. */
static void wait_push(struct extents *x, uint32_t b, unsigned order)
{
    x->next[b] = NIL;
    x->prev[b] = order;
    if (x->wait_in == x->wait_out)
        x->wait_first = b;
    else
        x->next[x->wait_last] = b;
    x->wait_last = b;
    x->wait_in++;
}

static void put(struct extents *x, struct extent *e, bool now)
{
    /* Release: our use of the bytes is before their reuse; pairs with the acquire of the last put,
     * which is this same operation rather than a fence: ThreadSanitizer sees no fences. */
    if (atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    uint32_t b = (uint32_t)((e->base - x->pool->data_base) >> x->shift);
    bool tell = true;
    pthread_mutex_lock(&x->lock);
    x->table[b] = NULL;
    x->count--;
    if (x->defer && !now)
        wait_push(x, b, e->order);
    else
        tell = extents_chunk_free(x, b, e->order);
    pthread_mutex_unlock(&x->lock);
    free(e);
    if (tell && x->freed)
        x->freed(x->arg);
}

void extent_put(struct extents *x, struct extent *e)
{
    put(x, e, false);
}

void extent_put_now(struct extents *x, struct extent *e)
{
    put(x, e, true);
}

void extents_defer(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    x->defer = true;
    pthread_mutex_unlock(&x->lock);
}

uint64_t extents_mark(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    uint64_t mark = x->wait_in;
    pthread_mutex_unlock(&x->lock);
    return mark;
}

void extents_settle(struct extents *x, uint64_t mark)
{
    pthread_mutex_lock(&x->lock);
    bool any = false;
    for (; x->wait_out < mark; x->wait_out++) {
        uint32_t b = x->wait_first;
        x->wait_first = x->next[b];
        any = extents_chunk_free(x, b, x->prev[b]) || any;
    }
    pthread_mutex_unlock(&x->lock);
    if (any && x->freed)
        x->freed(x->arg);
}

uint64_t extents_freed(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    uint64_t freed = x->freed_ever;
    pthread_mutex_unlock(&x->lock);
    return freed;
}

bool extents_waiting(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    bool any = x->wait_in != x->wait_out;
    pthread_mutex_unlock(&x->lock);
    return any;
}

/* A free chunk of this order or a larger one, as extent_new finds it. Lock held. */
bool extents_chunk_there(const struct extents *x, unsigned order)
{
    while (order <= x->max_order && x->chunk_count[order] == 0)
        order++;
    return order <= x->max_order;
}

/* How n bytes stand: in one chunk of `order`, or in two, the first the largest power of two below. */
struct shape {
    unsigned order, half, rest;
    bool one, two;
};

static struct shape shape_of(const struct extents *x, uint64_t n, bool whole)
{
    uint64_t blocks = (n + (1ull << x->shift) - 1) >> x->shift;
    struct shape s = {.order = extents_order(x, n)};
    s.one = s.order <= x->max_order;
    s.two = !whole && s.order > 0 && s.order <= x->max_order + 1;
    if (s.two) {
        s.half = s.order - 1;
        s.rest = extents_order(x, (blocks - (1ull << s.half)) << x->shift);
    }
    return s;
}

/* A chunk for the rest beside one for the larger part. Lock held. */
static bool rest_there(const struct extents *x, const struct shape *s)
{
    bool there = extents_chunk_there(x, s->half + 1) ||
                 x->chunk_count[s->half <= x->max_order ? s->half : 0] > 1;
    for (unsigned o = s->rest; o < s->half; o++)
        there = there || x->chunk_count[o] > 0;
    return there;
}

bool extents_fit(struct extents *x, uint64_t n, bool whole)
{
    struct shape s = shape_of(x, n, whole);
    pthread_mutex_lock(&x->lock);
    uint64_t keep = extents_reserve_blocks(x);
    bool fits = s.one && x->free >= keep + (1ull << s.order) && extents_chunk_there(x, s.order);
    if (!fits && s.two)
        fits = extents_chunk_there(x, s.half) && rest_there(x, &s) &&
               x->free >= keep + (1ull << s.half) + (1ull << s.rest);
    pthread_mutex_unlock(&x->lock);
    return fits;
}

unsigned extents_lack(struct extents *x, uint64_t n, bool whole, uint64_t *need)
{
    struct shape s = shape_of(x, n, whole);
    unsigned lack = s.order;
    *need = 1ull << s.order;
    if (s.two) {
        *need = (1ull << s.half) + (1ull << s.rest);
        pthread_mutex_lock(&x->lock);
        lack = extents_chunk_there(x, s.half) ? s.rest : s.half;
        pthread_mutex_unlock(&x->lock);
    }
    return lack;
}

bool extents_tight(struct extents *x)
{
    pthread_mutex_lock(&x->lock);
    bool tight = x->free < extents_reserve_blocks(x) + x->granted / 8;
    pthread_mutex_unlock(&x->lock);
    return tight;
}

unsigned extents_order(const struct extents *x, uint64_t n)
{
    uint64_t blocks = (n + (1ull << x->shift) - 1) >> x->shift;
    unsigned order = 0;
    while (order < MAX_ORDERS && (1ull << order) < blocks)
        order++;
    return order;
}

void extents_stat(struct extents *x, struct extents_stat *st)
{
    pthread_mutex_lock(&x->lock);
    st->granted = x->granted << x->shift;
    st->free = x->free << x->shift;
    st->used = st->granted - st->free;
    st->reserve = extents_reserve_blocks(x) << x->shift;
    st->count = x->count;
    pthread_mutex_unlock(&x->lock);
}
