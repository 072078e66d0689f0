/* Announcing: a whole batch is handed to the sequencer (step 6).
 *
 * Ordering rule "announce" (I2): payload pieces were written back by the caller; the side record is
 * written and written back here; one drain covers both; only then the descriptor, whose number is
 * its commit word. The descriptor itself is not written back: on one host the sequencer reads it
 * coherently, and an unordered descriptor is void after a crash.
 *
 * A drain covers the calling thread's write-backs only, so the thread that received the payload
 * must be the one that announces.
 */
#include <errno.h>
#include <time.h>

#include "core/guard.h"
#include "core/log_state.h"

uint64_t now_realtime(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t now_monotonic(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct descriptor {
    const struct producer *producer;
    uint64_t number;
    const struct batch *batch;
};

static int descriptor_write(void *arg)
{
    const struct producer *p = ((struct descriptor *)arg)->producer;
    uint64_t number = ((struct descriptor *)arg)->number;
    const struct batch *b = ((struct descriptor *)arg)->batch;
    const struct log *log = p->log;
    struct entry e = {
        .number = number,
        .session = b->session,
        .sequence = b->sequence,
        .payload = b->run0,
        .side = b->side,
        .term = log->term,
        .topic = b->topic->id,
        .length = b->length,
        .count = b->count,
        .check = b->check,
        .kind = MEDIA_BATCH,
        .flags = (uint8_t)((b->equal ? MEDIA_F_EQUAL : 0u) | (b->run1 ? MEDIA_F_SPLIT : 0u)),
        .slot = (uint8_t)log->slot,
        .order = b->extent0->order};
    struct media_entry line;
    index_encode(&line, &e, 0);
    struct media_entry *at = pool_descriptor(&log->pool, log->slot, p->index, number - 1);
    le64 commit_word = line.number;
    line.number = le64_of(0);
    *at = line;
    /* Release: the commit word comes after the rest of the line. */
    __atomic_store_n(&at->number.raw, commit_word.raw, __ATOMIC_RELEASE);
    return 0;
}

unsigned log_ring_room(const struct producer *p)
{
    uint64_t used = atomic_load_explicit(&p->tail, memory_order_relaxed) -
                    atomic_load_explicit(&p->head, memory_order_acquire);
    return used < p->limit ? (unsigned)(p->limit - used) : 0;
}

static bool ring_is_full(const struct producer *p)
{
    return log_ring_room(p) == 0;
}

/* A full ring empties by an epoch, which this thread runs if nobody does. */
static bool ring_room(struct producer *p)
{
    struct log *log = p->log;
    if (!ring_is_full(p))
        return true;
    log_commit(log);
    if (!ring_is_full(p))
        return true;
    /* Say that we starve, then look again: what was taken in between fires nobody. */
    atomic_store_explicit(&log->starved, true, memory_order_seq_cst);
    return !ring_is_full(p);
}

int log_announce(struct producer *p, struct batch *b)
{
    struct log *log = p->log;
    if (log_faulted(log))
        return -EMBAR_EFAULTED;
    /* The clock may step back; what comes now is younger than what is committed, and than what its worker
     * announced: alike batches without a session are told apart by their times alone. What is announced at
     * once may still be ordered the other way round: then the later one is late. */
    uint64_t now = now_realtime(), last = atomic_load_explicit(&log->clock, memory_order_relaxed);
    last = p->time > last ? p->time : last;
    b->time = now > last ? now : last + (last < UINT64_MAX);
    b->status = 0;
    b->duplicate = false;
    b->producer = p->index + 1;
    b->fifo = atomic_load_explicit(&b->topic->topic_order, memory_order_relaxed) == 5;
    b->after = atomic_load_explicit(&log->committed, memory_order_relaxed); /* or an earlier one */
    if (!ring_room(p))
        return -EAGAIN;
    uint64_t tail = atomic_load_explicit(&p->tail, memory_order_relaxed);
    int rc = side_write(&log->pool, b);
    if (rc == 0) {
        flush_drain(log->pool.flush);
        rc = guard_run(log->region, descriptor_write, &(struct descriptor){p, tail + 1, b});
    }
    if (rc == -EMBAR_EFAULTED)
        log_fault(log, rc);
    if (rc)
        return rc;
    p->time = b->time;
    p->batch[tail % p->limit] = b;
    /* seq_cst: with the look at seq.running in log_commit; pairs with seq_give and seq_pending. */
    atomic_store_explicit(&p->tail, tail + 1, memory_order_seq_cst);
    return 0;
}
