/* Lanes: each user thread fills a batch of its own (step 2 from the client's side).
 *
 * A message costs its thread one exchange on a line that hardly anybody else touches, and no lock:
 * that is taken once a batch, to begin it and to seal it. Who seals a lane of another thread (a
 * flush, a close, the I/O thread when the linger is over) holds it as its own thread does while it
 * fills, so that a batch is never sealed half way through a message.
 *
 * A begun batch is never forgotten: it is begun under the lock, and whoever lets the live list become empty
 * (the I/O thread) looks at all lanes afterwards, under that lock. A batch that finds the list empty
 * when it is begun is sealed with its first message by its own thread.
 *
 * The I/O thread never waits for a lane: it tries, and looks again soon. Must never hold a lane while
 * waiting for room.
 */
#include "net/client/publisher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPINS    64u
#define NAP_NS   20000
#define RETRY_NS 20000u

/* The lane that this thread used last. Identities are never given twice, so what is left here of a
 * publisher that was closed is never taken for another's. */
static _Thread_local struct {
    uint64_t id;
    struct pub_lane *lane;
} last __attribute__((tls_model("initial-exec")));

static bool try_hold(struct pub_lane *l)
{
    return atomic_exchange_explicit(&l->held, 1, memory_order_acquire) == 0;
}

void pub_lane_hold(struct pub_lane *l)
{
    struct timespec nap = {.tv_nsec = NAP_NS};
    for (unsigned i = 0; !try_hold(l); i++)
        if (i >= SPINS)
            nanosleep(&nap, NULL);
}

void pub_lane_give(struct pub_lane *l)
{
    atomic_store_explicit(&l->held, 0, memory_order_release);
}

static struct pub_lane *first(const struct embar_publisher *p)
{
    return atomic_load_explicit(&p->lanes, memory_order_acquire);
}

static struct pub_lane *find_or_make(struct embar_publisher *p)
{
    pthread_t self = pthread_self();
    struct pub_lane *l = first(p);
    while (l && !pthread_equal(l->thread, self))
        l = l->next;
    if (l)
        return l;
    l = aligned_alloc(_Alignof(struct pub_lane), sizeof(*l));
    if (!l)
        return NULL;
    memset(l, 0, sizeof(*l));
    l->thread = self;
    pthread_mutex_lock(&p->lock);
    l->next = first(p);
    atomic_store_explicit(&p->lanes, l, memory_order_release);
    pthread_mutex_unlock(&p->lock);
    return l;
}

struct pub_lane *pub_lane_own(struct embar_publisher *p)
{
    if (last.id == p->id)
        return last.lane;
    struct pub_lane *l = find_or_make(p);
    if (l) {
        last.id = p->id;
        last.lane = l;
    }
    return l;
}

/* ---- Filling ------------------------------------------------------------------------------- */

/* Room for one more message's length, and for its callback. */
static int batch_grow(struct pub_batch *b, bool told)
{
    if (b->count == b->lengths_capacity) {
        uint32_t n = b->lengths_capacity * 2;
        le32 *more = realloc(b->lengths, n * sizeof(*more));
        if (!more)
            return -ENOMEM;
        b->lengths = more;
        b->lengths_capacity = n;
    }
    if (told && b->told_count == b->told_capacity) {
        uint32_t n = b->told_capacity ? b->told_capacity * 2 : 16;
        struct pub_told *more = realloc(b->told, n * sizeof(*more));
        if (!more)
            return -ENOMEM;
        b->told = more;
        b->told_capacity = n;
    }
    return 0;
}

/* One that has as many messages as it may is sealed with the last of them. */
static bool fits(const struct pub_lane *l, size_t length)
{
    const struct pub_batch *b = l->current;
    return b && length <= b->capacity - b->length;
}

/* Begin a batch for a message of that length, once there is room for it. Holds the lane when it
 * returns, though it was given away meanwhile. */
static int begin(struct embar_publisher *p, struct pub_lane *l, size_t length)
{
    int rc;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        pub_lane_seal(p, l);
        rc = length > p->peer.max_batch ? -EMBAR_ETOOBIG : p->failed.code;
        if (rc < 0)
            break;
        if (pub_has_room(p, length > p->opt.batch_bytes ? length : p->opt.batch_bytes)) {
            l->current = pub_batch_get(p, length);
            rc = l->current ? 0 : -ENOMEM;
            break;
        }
        rc = -EAGAIN;
        if (p->opt.nonblocking)
            break;
        p->hungry = true;
        pub_lane_give(l);
        pub_kick(p);
        pub_wake(p);
        pthread_cond_wait(&p->room, &p->lock);
        pthread_mutex_unlock(&p->lock);
        pub_lane_hold(l);
        pthread_mutex_lock(&p->lock);
    }
    if (rc == 0) {
        l->max_messages = p->peer.max_messages;
        l->alone = !p->head;
        l->due = clock_ns() + (uint64_t)p->opt.linger_us * 1000u;
        if (p->head)
            pub_wake(p); /* it sleeps until an ack: now until the linger's end */
    }
    pub_kick(p);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* The lock's part of a message: the batch is to go, or it could not even be begun. */
static void finish(struct embar_publisher *p, struct pub_lane *l)
{
    pthread_mutex_lock(&p->lock);
    if (l->current->count > 0) {
        pub_lane_seal(p, l);
    } else {
        pub_recycle(p, l->current, false);
        l->current = NULL;
    }
    pub_lane_give(l);
    pub_kick(p);
    pthread_mutex_unlock(&p->lock);
}

int pub_lane_append(struct embar_publisher *p, struct pub_lane *l, const void *data, size_t length,
                    embar_done done, void *arg)
{
    int rc = 0;
    pub_lane_hold(l);
    if (!fits(l, length))
        rc = begin(p, l, length);
    struct pub_batch *b = l->current;
    if (rc == 0)
        rc = batch_grow(b, done != NULL);
    if (rc == 0) {
        memcpy(b->buffer + b->length, data, length);
        if (b->count > 0 && le32_get(b->lengths[0]) != length)
            b->equal = false;
        b->lengths[b->count++] = le32_of((uint32_t)length);
        b->length += (uint32_t)length;
        if (done)
            b->told[b->told_count++] = (struct pub_told){done, arg};
    }
    if (b && (b->count == 0 ||
              (rc == 0 && (l->alone || b->length == b->capacity || b->count == l->max_messages))))
        finish(p, l);
    else
        pub_lane_give(l);
    return rc;
}

/* ---- Sealing ------------------------------------------------------------------------------- */

void pub_lane_seal(struct embar_publisher *p, struct pub_lane *l)
{
    struct pub_batch *b = l->current;
    if (!b || b->count == 0)
        return;
    l->current = NULL;
    b->one = (struct iovec){b->buffer, b->length};
    pub_batch_seal(p, b);
}

void pub_lanes_seal(struct embar_publisher *p)
{
    for (struct pub_lane *l = first(p); l; l = l->next) {
        pub_lane_hold(l);
        pthread_mutex_lock(&p->lock);
        pub_lane_seal(p, l);
        pthread_mutex_unlock(&p->lock);
        pub_lane_give(l);
    }
}

uint64_t pub_lanes_due(struct embar_publisher *p, uint64_t now)
{
    uint64_t until = UINT64_MAX;
    bool all = !p->head || p->hungry;
    p->hungry = false;
    for (struct pub_lane *l = first(p); l; l = l->next) {
        if (!l->current)
            continue;
        uint64_t at = l->due;
        if (all || now >= at) {
            at = now + RETRY_NS;
            if (try_hold(l)) {
                pub_lane_seal(p, l);
                pub_lane_give(l);
                if (!l->current)
                    continue;
            }
        }
        until = at < until ? at : until;
    }
    return until;
}

bool pub_lanes_begun(const struct embar_publisher *p)
{
    for (const struct pub_lane *l = first(p); l; l = l->next)
        if (l->current)
            return true;
    return false;
}

void pub_lanes_info(struct embar_publisher *p, struct embar_publisher_info *info)
{
    /* All at once, in the order of the list, so that two of these do not wait for each other; lanes made
     * meanwhile are newer than what is asked for. */
    struct pub_lane *all = first(p);
    for (struct pub_lane *l = all; l; l = l->next)
        pub_lane_hold(l);
    pthread_mutex_lock(&p->lock);
    *info = p->info;
    pthread_mutex_unlock(&p->lock);
    for (struct pub_lane *l = all; l; l = l->next) {
        info->taken_messages += l->current ? l->current->count : 0;
        info->taken_bytes += l->current ? l->current->length : 0;
    }
    for (struct pub_lane *l = all; l; l = l->next)
        pub_lane_give(l);
}

void pub_lanes_free(struct embar_publisher *p)
{
    for (struct pub_lane *l = first(p), *next; l; l = next) {
        next = l->next;
        pub_batch_free(l->current);
        free(l);
    }
}
