/* Batches of a publisher: making, sealing, the live list, the window. Everything here runs under
 * the publisher's lock (pub_foreign and pub_batch_free touch no publisher). Serves step 2 from the
 * client's side. Must never change a batch's bytes after it was sealed.
 */
#include "net/client/publisher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_LENGTHS 256u

void pub_wake(struct embar_publisher *p)
{
    if (!p->asleep)
        return;
    p->asleep = false;
    uint64_t one = 1;
    ssize_t n = write(p->wake, &one, sizeof(one));
    (void)n; /* a full counter is a wake-up too */
}

bool pub_has_room(const struct embar_publisher *p, size_t need)
{
    if (p->live >= PUB_MAX_LIVE)
        return false;
    /* One batch is let in however large, so that a small window cannot lock it out for good. */
    return p->charged == 0 || p->charged + need <= p->opt.window;
}

void pub_batch_free(struct pub_batch *b)
{
    if (!b)
        return;
    pub_buffer_free(b->buffer, b->capacity);
    free(b->lengths);
    free(b->told);
    if (b->iov != &b->one)
        free(b->iov);
    free(b);
}

struct pub_batch *pub_batch_get(struct embar_publisher *p, size_t length)
{
    size_t capacity = length > p->opt.batch_bytes ? length : p->opt.batch_bytes;
    struct pub_batch *b = p->free;
    if (b && capacity == p->opt.batch_bytes) {
        p->free = b->next;
        b->next = NULL;
    } else {
        b = calloc(1, sizeof(*b));
        if (!b)
            return NULL;
        b->buffer = pub_buffer_new(capacity);
        b->capacity = capacity;
        b->lengths = malloc(FIRST_LENGTHS * sizeof(*b->lengths));
        b->lengths_capacity = FIRST_LENGTHS;
        if (!b->buffer || !b->lengths) {
            pub_batch_free(b);
            return NULL;
        }
        b->iov = &b->one;
        b->pieces = 1;
    }
    b->equal = true;
    b->charge = b->capacity;
    p->charged += b->charge;
    return b;
}

static void live_add(struct embar_publisher *p, struct pub_batch *b)
{
    b->ticket = ++p->ticket;
    if (p->has_session)
        b->sequence = ++p->sequence;
    b->prev = p->tail;
    b->next = NULL;
    if (p->tail)
        p->tail->next = b;
    else
        p->head = b;
    p->tail = b;
    p->live++;
    if (!p->queued)
        p->queued = b;
    p->info.in_flight++;
    p->sealed = true;
}

void pub_batch_seal(struct embar_publisher *p, struct pub_batch *b)
{
    p->info.taken_messages += b->count;
    p->info.taken_bytes += b->length;
    live_add(p, b);
}

struct pub_batch *pub_foreign(const struct iovec *iov, int pieces, const uint32_t *lengths,
                              uint32_t count, uint32_t max_batch, struct embar_error *err)
{
    size_t total = 0;
    for (int i = 0; i < pieces; i++) {
        if (iov[i].iov_len > max_batch - total) {
            (void)embar_fail(err, -EMBAR_ETOOBIG, "A batch holds at most %u bytes.", max_batch);
            return NULL;
        }
        total += iov[i].iov_len;
    }
    struct pub_batch *b = calloc(1, sizeof(*b));
    if (b) {
        b->iov = pieces == 1 ? &b->one : calloc((size_t)pieces, sizeof(*b->iov));
        b->lengths = lengths ? malloc(count * sizeof(*b->lengths)) : NULL;
    }
    if (!b || !b->iov || (lengths && !b->lengths)) {
        pub_batch_free(b);
        (void)embar_fail(err, -ENOMEM, "No memory for a batch");
        return NULL;
    }
    b->count = count;
    b->length = (uint32_t)total;
    b->charge = total;
    b->equal = true;
    uint64_t sum = 0;
    bool empty = count == 0 || total < count;
    for (uint32_t i = 0; lengths && i < count; i++) {
        b->lengths[i] = le32_of(lengths[i]);
        b->equal &= lengths[i] == lengths[0];
        empty |= lengths[i] == 0;
        sum += lengths[i];
    }
    if (empty || (lengths ? sum != total : total % count != 0)) {
        pub_batch_free(b);
        (void)embar_fail(err, -EMBAR_EINVALID,
                         "The %u message lengths do not divide a payload of %zu bytes into "
                         "messages of at least one byte.",
                         count, total);
        return NULL;
    }
    memcpy(b->iov, iov, (size_t)pieces * sizeof(*iov));
    b->pieces = pieces;
    return b;
}

int pub_enqueue(struct embar_publisher *p, struct pub_batch *b)
{
    if (!pub_has_room(p, b->charge))
        return -EAGAIN;
    p->charged += b->charge;
    pub_batch_seal(p, b);
    return 0;
}

struct pub_batch *pub_take(struct embar_publisher *p, struct pub_conn *c)
{
    struct pub_batch *b = p->queued;
    while (b && b->taken)
        b = b->next;
    p->queued = b;
    if (!b)
        return NULL;
    if (p->has_session) {
        if (b->sequence - p->committed > p->peer.window)
            return NULL;
    } else {
        if (p->opt.ack > 0 && c->sequence - c->acked >= p->peer.window)
            return NULL;
        b->sequence = ++c->sequence;
    }
    b->taken = true;
    b->owner = c;
    b->writers++;
    p->queued = b->next;
    return b;
}

void pub_requeue(struct embar_publisher *p, struct pub_batch *b)
{
    b->taken = false;
    b->owner = NULL;
    if (!p->queued || p->queued->ticket > b->ticket)
        p->queued = b;
}

void pub_recycle(struct embar_publisher *p, struct pub_batch *b, bool ok)
{
    if (b->ticket > 0) { /* sealed */
        if (p->queued == b)
            p->queued = b->next;
        *(b->prev ? &b->prev->next : &p->head) = b->next;
        *(b->next ? &b->next->prev : &p->tail) = b->prev;
        p->live--;
        p->info.in_flight--;
    }
    if (ok) {
        p->info.done_messages += b->count;
        p->info.done_bytes += b->length;
    }
    p->charged -= b->charge;
    if (!b->buffer || b->capacity != p->opt.batch_bytes) {
        pub_batch_free(b);
        return;
    }
    b->ticket = 0;
    b->length = b->count = b->told_count = 0;
    b->summed = b->taken = b->acked = false;
    b->owner = NULL;
    b->prev = NULL;
    b->next = p->free;
    p->free = b;
}
