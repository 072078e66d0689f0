/* Arranging an epoch: among the batches announced now, the order that keeps a topic's bytes where
 * they stand in the pool (step 7).
 *
 * Workers reserve in one order and announce in another. Batches of one epoch are concurrent, so any
 * order of them is an order by arrival, except within a session, whose sequence binds, and among
 * the batches without one that came through the same ring, whose sender may count on it. Adjacent
 * bytes merge into one run: fewer entries in memory, longer pieces for readers. Never waits for a
 * batch, and falls back to the order of arrival when one of these forbids the other.
 */
#include <stdlib.h>

#include "core/log_state.h"

static int by_place(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->batch->topic != y->batch->topic)
        return x->batch->topic->id < y->batch->topic->id ? -1 : 1;
    return x->batch->run0 < y->batch->run0 ? -1 : x->batch->run0 > y->batch->run0;
}

static int by_rank(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* Does the arrangement keep what was promised: each session's sequence, and for batches of a topic
 * without a session the order in which one producer announced them? */
static bool order_kept(const struct seq *q)
{
    for (unsigned i = 0; i < q->count; i++)
        if (q->items[i].session)
            q->items[i].session->arranged = 0;
    for (unsigned i = 0; i < q->count; i++) {
        const struct item *it = &q->items[i];
        bool first = i == 0 || it->batch->topic != q->items[i - 1].batch->topic;
        for (unsigned p = 0; first && p < q->producers; p++)
            q->producer[p].arranged = 0;
        if (it->session) {
            if (it->batch->sequence < it->session->arranged)
                return false;
            it->session->arranged = it->batch->sequence;
        } else {
            if (it->rank < it->producer->arranged)
                return false;
            it->producer->arranged = it->rank;
        }
    }
    return true;
}

void seq_arrange(struct seq *q)
{
    bool sorted = true;
    for (unsigned i = 1; sorted && i < q->count; i++)
        sorted = by_place(&q->items[i - 1], &q->items[i]) <= 0;
    if (sorted)
        return;
    qsort(q->items, q->count, sizeof q->items[0], by_place);
    if (!order_kept(q))
        qsort(q->items, q->count, sizeof q->items[0], by_rank);
}
