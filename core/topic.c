/* A topic's committed part: its runs (the DRAM index), trim, message boundaries.
 *
 * Runs are kept in log-offset order. A batch joins the last run when payload and side record are
 * adjacent to it; so a topic filled by one publisher costs 32 bytes a few hundred batches.
 * Each run holds one reference to its extent. Nothing here writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log_state.h"

int topic_create(struct log *log, uint32_t id, struct topic **out)
{
    struct topic *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->log = log;
    t->id = id;
    atomic_init(&t->refs, 1);
    /* Held for some ten instructions, by every batch: worth a look or two before sleeping. */
    pthread_mutexattr_t brief;
    pthread_mutexattr_init(&brief);
    pthread_mutexattr_settype(&brief, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&t->fill_lock, &brief);
    pthread_mutexattr_destroy(&brief);
    pthread_mutex_init(&t->lock, NULL);
    watch_init(&t->watch);
    *out = t;
    return 0;
}

static void runs_release(struct topic *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct run *r = topic_run(t, i);
        struct extent *e =
            r->flags & MEDIA_RUN_LOST ? NULL : extent_find(t->log->extents, r->payload, r->order);
        if (e)
            extent_put(t->log->extents, e);
    }
    t->run_head += n;
    t->run_count -= n;
    t->run_dropped += n;
    atomic_fetch_sub_explicit(&t->log->runs, n, memory_order_relaxed);
}

void topic_destroy(struct topic *t)
{
    idle_forget(t);
    runs_release(t, t->run_count);
    if (t->fill)
        extent_put(t->log->extents, t->fill);
    free(t->runs);
    table_destroy(t);
    free(t->children);
    pthread_mutex_destroy(&t->fill_lock);
    pthread_mutex_destroy(&t->lock);
    pthread_mutex_destroy(&t->watch.lock);
    free(t);
}

uint64_t topic_run_end(const struct topic *t, size_t i)
{
    return i + 1 < t->run_count ? topic_run(t, i + 1)->offset
                                : atomic_load_explicit(&t->end, memory_order_relaxed);
}

size_t topic_run_find(const struct topic *t, uint64_t offset)
{
    size_t low = 0, high = t->run_count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (topic_run(t, mid)->offset <= offset)
            low = mid;
        else
            high = mid;
    }
    return low;
}

int topic_runs_grow(struct topic *t, size_t n)
{
    if (t->run_head + t->run_count + n <= t->run_capacity)
        return 0;
    if (t->run_head > t->run_capacity / 2 && t->run_count + n <= t->run_capacity) {
        memmove(t->runs, t->runs + t->run_head, t->run_count * sizeof *t->runs);
        t->run_head = 0;
        return 0;
    }
    /* Many are moved by remapping; then little is better than much. */
    size_t capacity = t->run_capacity;
    capacity += capacity < 4096 ? capacity + 2 * n : capacity / 4;
    struct run *runs = realloc(t->runs, capacity * sizeof *runs);
    if (!runs)
        return -ENOMEM;
    t->runs = runs;
    t->run_capacity = capacity;
    return 0;
}

/* Does b continue the last run? Then its bytes and its side record are found by walking on. */
static bool run_joins(const struct topic *t, const struct placed *b)
{
    if (t->run_count == 0 || b->run1)
        return false;
    const struct run *r = topic_run(t, t->run_count - 1);
    return !run_is_damaged(r) && r->batches > 0 && r->batches < RUN_BATCHES &&
           r->payload + (b->offset - r->offset) == b->run0 && r->order == b->order0 &&
           r->payload >= pool_extent_base(&t->log->pool, b->run0, b->order0) &&
           b->side + MEDIA_LINE == t->side_tail - t->side_tail_below;
}

/* The extents of a batch that recovery found. */
static int runs_claim(struct extents *x, const struct placed *b)
{
    struct extent *e0, *e1;
    if (b->extent0)
        return 0;
    int rc = extent_claim(x, b->run0, b->order0, &e0);
    if (rc || !b->run1)
        return rc;
    rc = extent_claim(x, b->run1, b->order1, &e1);
    if (rc)
        extent_put(x, e0);
    return rc;
}

/* A batch that joins no run: one, or two when it is split. Lock held. */
static int runs_add(struct topic *t, const struct placed *b)
{
    int rc = topic_runs_grow(t, b->run1 ? 2 : 1);
    if (rc == 0)
        rc = runs_claim(t->log->extents, b);
    if (rc)
        return rc;
    t->run_count++;
    *topic_run(t, t->run_count - 1) = (struct run){.offset = b->offset,
                                                   .message = t->last_message_end,
                                                   .payload = b->run0 & MASK48,
                                                   .order = b->order0,
                                                   .flags = b->late ? MEDIA_RUN_LATE : 0,
                                                   .side = b->side & MASK48,
                                                   .batches = 1};
    if (b->run1) {
        t->run_count++;
        *topic_run(t, t->run_count - 1) = (struct run){.offset = b->offset + b->run0_length,
                                                       .message = t->last_message_end,
                                                       .payload = b->run1 & MASK48,
                                                       .order = b->order1,
                                                       .side = b->side & MASK48,
                                                       .batches = 0};
    }
    atomic_fetch_add_explicit(&t->log->runs, b->run1 ? 2 : 1, memory_order_relaxed);
    return 0;
}

/* Lock held, unless nobody else has the topic yet. */
static int append(struct topic *t, const struct placed *b)
{
    if (run_joins(t, b)) {
        struct run *r = topic_run(t, t->run_count - 1);
        r->batches = (uint16_t)(r->batches + 1u);
        if (b->extent0)
            extent_put(t->log->extents, b->extent0);
    } else {
        int rc = runs_add(t, b);
        if (rc)
            return rc;
    }
    t->side_tail = b->side;
    t->side_tail_below = side_size(b->count, b->equal) - MEDIA_LINE;
    t->last_message_end += b->count;
    if (b->time > t->time)
        t->time = b->time;
    if (b->time > t->modified)
        t->modified = b->time;
    t->batches++;
    return 0;
}

int topic_append(struct topic *t, const struct placed *b)
{
    uint64_t end = b->offset + b->length;
    if (!b->extent0) { /* recovery: the log is not open yet */
        int rc = append(t, b);
        if (rc == 0)
            atomic_store_explicit(&t->end, end, memory_order_relaxed);
        return rc;
    }
    pthread_mutex_lock(&t->lock);
    int rc = append(t, b);
    if (rc == 0)
        atomic_store_explicit(&t->end, end, memory_order_seq_cst);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

void topic_trim(struct topic *t, uint64_t base, uint64_t first)
{
    pthread_mutex_lock(&t->lock);
    size_t n = 0;
    while (n < t->run_count && topic_run_end(t, n) <= base)
        n++;
    /* The first part of a split batch holds the side record that the second part needs. */
    while (n > 0 && n < t->run_count && topic_run(t, n)->batches == 0)
        n--;
    runs_release(t, n);
    atomic_store_explicit(&t->base, base, memory_order_release);
    t->first_message = first;
    atomic_fetch_add_explicit(&t->generation, 1, memory_order_relaxed);
    pthread_mutex_unlock(&t->lock);
}

void topic_run_move(struct topic *t, size_t i, uint64_t payload, uint64_t side, unsigned order)
{
    pthread_mutex_lock(&t->lock);
    struct run *r = topic_run(t, i), was = *r;
    bool has_part = i + 1 < t->run_count && topic_run(t, i + 1)->batches == 0;
    struct extent *from = extent_find(t->log->extents, was.payload, was.order);
    r->payload = payload & MASK48;
    r->order = (uint8_t)order;
    if (side == 0) {
        r->flags = (uint8_t)(r->flags | MEDIA_RUN_MOVED);
    } else {
        r->side = side & MASK48;
        if (has_part)
            topic_run(t, i + 1)->side = side & MASK48;
        if (i + (has_part ? 2u : 1u) == t->run_count && t->side_tail)
            t->side_tail += side - was.side;
    }
    pthread_mutex_unlock(&t->lock);
    if (from)
        extent_put(t->log->extents, from);
}

/* Begin of the run that holds `offset`, but not below the base. */
static void topic_run_begin(struct topic *t, uint64_t offset, uint64_t *at, uint64_t *message)
{
    pthread_mutex_lock(&t->lock);
    size_t i = topic_run_find(t, offset);
    while (i > 0 && topic_run(t, i)->batches == 0)
        i--;
    bool below = topic_run(t, i)->offset <= topic_base(t);
    *at = below ? topic_base(t) : topic_run(t, i)->offset;
    *message = below ? t->first_message : topic_run(t, i)->message;
    pthread_mutex_unlock(&t->lock);
}

/* Base of the extent that a run stands in; 0: in none. */
static uint64_t run_extent(const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    return r->flags & MEDIA_RUN_LOST ? 0 : pool_extent_base(&t->log->pool, r->payload, r->order);
}

uint64_t topic_extent_end(struct topic *t, uint64_t offset)
{
    pthread_mutex_lock(&t->lock);
    uint64_t end = atomic_load_explicit(&t->end, memory_order_relaxed);
    if (offset < end) {
        size_t i = topic_run_find(t, offset);
        uint64_t extent = run_extent(t, i);
        do
            i++;
        while (i < t->run_count && (topic_run(t, i)->batches == 0 || run_extent(t, i) == extent));
        end = topic_run_end(t, i - 1);
    }
    pthread_mutex_unlock(&t->lock);
    return end;
}

uint64_t topic_extents_below(struct topic *t, uint64_t to)
{
    uint64_t bytes = 0, last = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->run_count && topic_run_end(t, i) <= to; i++) {
        uint64_t extent = run_extent(t, i);
        if (extent != last)
            bytes += 1ull << (topic_run(t, i)->order + t->log->pool.geo.block_shift);
        last = extent;
    }
    pthread_mutex_unlock(&t->lock);
    return bytes;
}

int topic_boundary(struct topic *t, uint64_t offset, uint64_t *at, uint64_t *message)
{
    uint64_t end = topic_end(t), base = topic_base(t);
    if (offset >= end || offset <= base) {
        pthread_mutex_lock(&t->lock);
        *at = offset >= end ? end : base;
        *message = offset >= end ? t->last_message_end : t->first_message;
        pthread_mutex_unlock(&t->lock);
        return 0;
    }
    struct batch_cursor c = {.offset = offset};
    struct batch_view v;
    int rc = topic_next(t, &c, &v);
    if (rc == -EMBAR_ECORRUPT) {
        /* Damaged: the run says where it begins, which lets a trim go past it. */
        topic_run_begin(t, offset, at, message);
        return 0;
    }
    if (rc <= 0)
        return rc ? rc : -EMBAR_ECORRUPT;
    uint32_t index;
    rc = view_message(&v, offset, &index, at);
    *message = v.message + index;
    read_release(&v.data);
    return rc;
}

void topic_runs_fit(struct topic *t)
{
    if (t->run_count < 4096 || t->run_head > 0)
        return;
    struct run *runs = realloc(t->runs, t->run_count * sizeof *runs);
    if (runs) {
        t->runs = runs;
        t->run_capacity = t->run_count;
    }
}

/* The end of the side records of run i: of its last batch. 0: damaged, or not known. */
static uint64_t run_side_end(const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    if (i + 1 == t->run_count)
        return t->side_tail - t->side_tail_below;
    uint64_t at = r->side;
    for (unsigned b = 0;; b++) {
        struct side s;
        if (side_read(&t->log->pool, at, &s) != 0)
            return 0;
        at -= side_size(s.count, s.equal) - MEDIA_LINE;
        if (b + 1u >= r->batches)
            return at;
        at -= MEDIA_LINE;
    }
}

/* Payloads and side records of an extent are reserved together, from its two ends on: behind the
 * payload that stands highest and the side records that stand lowest, both of the batch that was
 * reserved last of those that are committed, all is free. */
int topic_refill(struct topic *t)
{
    if (t->run_count == 0)
        return 0;
    const struct run *last = topic_run(t, t->run_count - 1);
    if (last->flags & MEDIA_RUN_LOST)
        return 0;
    struct extent *e = extent_find(t->log->extents, last->payload, last->order);
    uint64_t bottom = e->base, top = e->base + e->size;
    /* What was reserved before a seal may commit after it, so that other extents' runs stand between:
     * each run in it holds a reference, and nothing else does yet. */
    unsigned left = atomic_load_explicit(&e->refs, memory_order_relaxed);
    size_t highest = t->run_count;
    uint64_t lowest = UINT64_MAX;
    for (size_t i = t->run_count; i-- > 0 && left > 0;) {
        const struct run *r = topic_run(t, i);
        if (r->flags & MEDIA_RUN_LOST || r->payload < e->base || r->payload >= e->base + e->size)
            continue;
        if (run_is_damaged(r))
            return 0;
        left--;
        uint64_t end = r->payload + (topic_run_end(t, i) - r->offset);
        bottom = end > bottom ? end : bottom;
        if (r->batches > 0 &&
            (highest == t->run_count || r->payload > topic_run(t, highest)->payload))
            highest = i;
        if (r->batches > 0 && r->side < lowest)
            lowest = r->side;
    }
    /* A repair leaves records that stood in each other's places where they are. */
    if (highest < t->run_count && topic_run(t, highest)->side != lowest)
        return 0;
    /* A repair may have found what others were given the extent of: their batches stand in it, too. */
    if (left > 0)
        return 0;
    if (highest < t->run_count)
        top = run_side_end(t, highest);
    /* Damaged: where its neighbours end is not known, so the extent stays as it is. Who reads there is
     * told; what comes now goes elsewhere. */
    if (top <= bottom || top > e->base + e->size || top % MEDIA_LINE != 0)
        return 0;
    extent_ref(e);
    e->bottom = bottom;
    e->top = top;
    t->fill = e;
    t->fill_order = e->order;
    return 0;
}

struct topic *topic_ref(struct topic *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

bool topic_ref_held(struct topic *t)
{
    unsigned refs = atomic_load_explicit(&t->refs, memory_order_relaxed);
    while (refs > 0 && !atomic_compare_exchange_weak_explicit(
                           &t->refs, &refs, refs + 1, memory_order_relaxed, memory_order_relaxed))
        ;
    return refs > 0;
}

void topic_put(struct topic *t)
{
    if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    /* Only a removed node gets here: the namespace's own reference is gone. */
    struct names *n = &t->log->names;
    pthread_rwlock_wrlock(&n->lock);
    if (is_hashed(t, by_id))
        HASH_DELETE(by_id, n->removed, t);
    pthread_rwlock_unlock(&n->lock);
    topic_destroy(t);
}

uint32_t topic_id(const struct topic *t)
{
    return t->id;
}

uint64_t topic_end(const struct topic *t)
{
    return atomic_load_explicit(&t->end, memory_order_seq_cst);
}

uint64_t topic_base(const struct topic *t)
{
    return atomic_load_explicit(&t->base, memory_order_acquire);
}

bool topic_deleted(const struct topic *t)
{
    return atomic_load_explicit(&t->deleted, memory_order_acquire);
}

bool topic_is_last(const struct topic *t)
{
    /* Acquire: pairs with the release of topic_put. */
    return topic_deleted(t) && atomic_load_explicit(&t->refs, memory_order_acquire) == 1;
}
