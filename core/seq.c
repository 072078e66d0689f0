/* The sequencer: one global order, epoch by epoch (steps 7 and 8).
 *
 * Design notes
 *   Role      Whoever swaps seq.running from false to true is the sequencer until it gives the role
 *             back. Any announcing thread may take it (the combiner); after ROUNDS epochs it hands
 *             over to the background thread so that no publisher serves the others for ever.
 *   No lost   An announcer stores its tail and then tries for the role; a sequencer gives the role
 *   wake-up   back and then looks at the tails. All four are seq_cst: one of them sees the other.
 *   Epoch     What is announced now: ordered (order.c), written as entries, hardened with one drain, folded,
 *             told. A control action is an epoch of its own, because what comes after it is
 *             validated against the state that it leaves.
 *   Removed   A topic lives until its last close, so what its open files write is ordered and folded as
 *             any batch; but no entry tells of it. The entry that removed the topic stands before it:
 *             after a crash the topic is gone, and with it all that only it referred to.
 *   Told      Completions are called last, with no lock held, in order.
 *   Stop      log_close takes the role and never gives it back.
 *
 * Ordering rule "commit" (I2, I3): payload and side record were drained by the announcer; entries
 * are stored, written back and drained here (index_harden); only then are they folded, which makes
 * them visible, and told. The watermark line follows without waiting.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/seq_state.h"

#define ROUNDS 64u

/* Entries kept back for control actions, so that a full ring can still trim. */
uint64_t seq_ring_margin(const struct log *log)
{
    return log->pool.geo.index_entries >= 64 ? 16 : 2;
}

bool seq_take(struct log *log)
{
    return !atomic_load_explicit(&log->seq.running, memory_order_relaxed) &&
           !atomic_exchange_explicit(&log->seq.running, true, memory_order_seq_cst);
}

void seq_take_wait(struct log *log)
{
    while (!seq_take(log))
        sched_yield();
}

void seq_give(struct log *log)
{
    struct seq *q = &log->seq;
    /* Ordered by the store that follows, which whoever looks for work has seen. */
    atomic_store_explicit(&q->queued, q->controls || q->ready, memory_order_relaxed);
    atomic_store_explicit(&log->seq.running, false, memory_order_seq_cst);
}

bool seq_pending(struct log *log)
{
    struct seq *q = &log->seq;
    if (atomic_load_explicit(&q->stack, memory_order_seq_cst) ||
        atomic_load_explicit(&q->queued, memory_order_relaxed))
        return true;
    for (unsigned i = 0; i < q->producers; i++) {
        struct producer *p = &q->producer[i];
        if (atomic_load_explicit(&p->tail, memory_order_seq_cst) !=
            atomic_load_explicit(&p->head, memory_order_relaxed))
            return true;
    }
    return false;
}

/* How many entries fit before the ring meets what the newest checkpoint needs. */
uint64_t seq_ring_room(const struct log *log)
{
    uint64_t used =
        log->seq.next - 1 - atomic_load_explicit(&log->checkpoint, memory_order_relaxed);
    uint64_t size = log->pool.geo.index_entries;
    return used >= size ? 0 : size - used;
}

int seq_room(struct log *log, uint64_t n)
{
    if (log_faulted(log))
        return -EMBAR_EFAULTED; /* there will never be another checkpoint */
    if (seq_ring_room(log) >= n)
        return 0;
    if (log->thread_started && log->region->needs_sync && !log->job.failed)
        return -EAGAIN;
    return checkpoint_write(log) == 0 && seq_ring_room(log) >= n ? 0 : -EMBAR_EFULL;
}

/* What was announced, as far as the epoch has room; with a status all of it is refused. */
static unsigned collect(struct log *log, unsigned limit, int status)
{
    struct seq *q = &log->seq;
    unsigned taken = order_ready(log, limit, status);
    unsigned start = q->turn++;
    for (unsigned i = 0; i < q->producers; i++) {
        struct producer *p = &q->producer[(start + i) % q->producers];
        uint64_t head = atomic_load_explicit(&p->head, memory_order_relaxed);
        /* Acquire: the batch and its ring place were written before the tail. */
        uint64_t tail = atomic_load_explicit(&p->tail, memory_order_acquire);
        q->taking = p;
        for (; head < tail && q->count < limit; head++, taken++) {
            struct batch *b = p->batch[head % p->limit];
            if (status)
                order_refuse(log, b, status);
            else
                order_batch(log, b, limit);
        }
        atomic_store_explicit(&p->head, head, memory_order_release);
    }
    return taken;
}

/* ---- Entries ------------------------------------------------------------------------------ */

void seq_entry_put(struct log *log, const struct entry *e)
{
    struct seq *q = &log->seq;
    struct media_entry *line = pool_entry(&log->pool, log->slot, e->number);
    q->chain = index_encode(line, e, q->chain);
    q->next = e->number + 1;
}

/* The entry, or two, of a batch at log offset `offset`. Returns the number of the first. Under a
 * guard: what it leaves half done nobody goes on with once the log is faulted. */
uint64_t seq_batch_entries(struct log *log, const struct batch *b, uint64_t offset, uint8_t kind,
                           bool late)
{
    struct entry e = {.number = log->seq.next,
                      .session = b->session,
                      .sequence = b->sequence,
                      .offset = offset,
                      .payload = b->run0,
                      .side = b->side,
                      .term = log->term,
                      .topic = b->topic->id,
                      .length = b->run0_length,
                      .count = b->count,
                      .check = b->check,
                      .kind = kind,
                      .flags =
                          (uint8_t)((b->equal ? MEDIA_F_EQUAL : 0u) |
                                    (b->run1 ? MEDIA_F_SPLIT : 0u) | (late ? MEDIA_F_LATE : 0u)),
                      .slot = (uint8_t)log->slot,
                      .order = b->extent0->order};
    uint64_t number = e.number;
    seq_entry_put(log, &e);
    if (b->run1) {
        e.number = log->seq.next;
        e.offset = offset + b->run0_length;
        e.payload = b->run1;
        e.length = b->length - b->run0_length;
        e.kind = MEDIA_PART;
        e.flags = 0;
        e.order = b->extent1->order;
        seq_entry_put(log, &e);
    }
    return number;
}

/* The pool failed, or what is committed cannot be folded: our state is not the index's. */
int seq_fail(struct log *log, int status)
{
    log_fault(log, status);
    return -EMBAR_EFAULTED;
}

static struct mark mark_of(const struct log *log)
{
    return (struct mark){log->seq.next - 1, log->seq.chain, log->term};
}

/* Make entries [first, next) durable in the sense of the pool. */
int seq_harden(struct log *log, uint64_t first)
{
    uint64_t n = log->seq.next - first;
    int rc = index_harden(&log->pool, log->slot, first, n);
    if (rc == 0 && background_only(log))
        rc = region_sync(log->region);
    if (rc == 0 && region_faulted(log->region)) /* whoever found it: no ack for what may be gone */
        rc = -EMBAR_EFAULTED;
    if (rc)
        return seq_fail(log, rc);
    if (background_only(log)) {
        const struct mark m = mark_of(log);
        if (index_synced(&log->pool, log->slot, &log->syncs, &m))
            return seq_fail(log, -EMBAR_EFAULTED);
        atomic_store_explicit(&log->synced, log->seq.next - 1, memory_order_release);
    }
    atomic_store_explicit(&log->committed, log->seq.next - 1, memory_order_release);
    atomic_store_explicit(&log->durable, log->seq.next - 1, memory_order_release);
    return 0;
}

/* Behind what was hardened. What was told by then stays told. */
void seq_watermark(struct log *log)
{
    const struct mark m = mark_of(log);
    if (!log_faulted(log) && index_watermark(&log->pool, log->slot, &log->marks, &m) != 0)
        log_fault(log, -EMBAR_EFAULTED);
}

struct placed seq_placed(const struct batch *b, uint64_t offset)
{
    return (struct placed){.offset = offset,
                           .run0 = b->run0,
                           .run1 = b->run1,
                           .side = b->side,
                           .time = b->time,
                           .run0_length = b->run0_length,
                           .length = b->length,
                           .count = b->count,
                           .equal = b->equal,
                           .order0 = b->extent0->order,
                           .order1 = b->extent1 ? b->extent1->order : 0,
                           .extent0 = b->extent0,
                           .extent1 = b->extent1};
}

static int fold_items(struct log *log)
{
    struct seq *q = &log->seq;
    struct topic *last = NULL;
    uint64_t bytes = 0, messages = 0;
    uint64_t latest = atomic_load_explicit(&log->clock, memory_order_relaxed);
    for (unsigned i = 0; i < q->count; i++) {
        struct item *it = &q->items[i];
        struct batch *b = it->batch;
        struct placed p = seq_placed(b, it->offset);
        p.late = it->late;
        unsigned tries = 0;
        int rc;
        do
            rc = fold_batch(log, b->topic, it->session, &p);
        while (rc == -ENOMEM && fold_patience(&tries));
        if (rc)
            return rc;
        atomic_fetch_sub_explicit(&log->reserved, b->length, memory_order_relaxed);
        bytes += b->length;
        messages += b->count;
        latest = b->time > latest ? b->time : latest;
        retain_batch(log, b->topic);
        if (last && last != b->topic)
            watch_fire(&last->watch);
        last = b->topic;
    }
    if (last)
        watch_fire(&last->watch);
    atomic_store_explicit(&log->clock, latest, memory_order_relaxed);
    fold_need(log);
    atomic_fetch_add_explicit(&log->epochs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->batches, q->count, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&log->messages, messages, memory_order_relaxed);
    return 0;
}

/* ---- Telling ------------------------------------------------------------------------------ */

static void commit_session(struct log *log, const struct batch *b, struct commit *c)
{
    const struct session *s = b->session ? session_find(log, b->session) : NULL;
    c->session = b->session;
    if (s) {
        c->sequence = s->sequence;
        c->messages = s->messages;
        c->epoch = s->epoch;
    }
}

/* Call the completions of the epoch's batches, then of what was refused. */
static void tell(struct log *log, int status)
{
    struct seq *q = &log->seq;
    for (unsigned i = 0; i < q->count; i++) {
        struct batch *b = q->items[i].batch;
        struct commit c = {
            .status = status, .number = q->items[i].number, .offset = q->items[i].offset};
        commit_session(log, b, &c);
        b->completion->done(b->completion, &c);
    }
    q->count = 0;
    struct batch *b = q->told;
    q->told = NULL;
    q->told_last = &q->told;
    for (struct batch *next; b; b = next) {
        next = b->next;
        struct commit c = {.status = status ? status : b->status, .duplicate = b->duplicate};
        if (b->duplicate)
            atomic_fetch_add_explicit(&log->duplicates, 1, memory_order_relaxed);
        commit_session(log, b, &c);
        b->completion->done(b->completion, &c);
    }
}

void seq_tell(struct log *log)
{
    tell(log, 0);
}

/* ---- Epochs ------------------------------------------------------------------------------- */

static struct control *control_next(struct seq *q)
{
    if (!q->controls) {
        /* Acquire: what the pushers wrote. The stack holds the newest first. */
        struct control *c = atomic_exchange_explicit(&q->stack, NULL, memory_order_acquire);
        for (struct control *next; c; c = next) {
            next = c->next;
            c->next = q->controls;
            q->controls = c;
        }
    }
    struct control *c = q->controls;
    if (c)
        q->controls = c->next;
    return c;
}

/* The entries of what was taken, in its arranged order. */
static int items_store(void *arg)
{
    struct log *log = arg;
    struct seq *q = &log->seq;
    for (unsigned i = 0; i < q->count; i++) {
        struct item *it = &q->items[i];
        struct topic *t = it->batch->topic;
        it->offset = t->ordered_end;
        t->ordered_end += it->batch->length;
        it->late = it->batch->time < t->ordered_time;
        if (!it->late)
            t->ordered_time = it->batch->time;
        it->number = topic_deleted(t)
                         ? 0
                         : seq_batch_entries(log, it->batch, it->offset, MEDIA_BATCH, it->late);
    }
    return 0;
}

/* Write, harden and fold what was taken. */
static int items_commit(struct log *log)
{
    uint64_t first = log->seq.next;
    seq_arrange(&log->seq);
    int rc = guard_run(log->region, items_store, log);
    if (rc)
        return seq_fail(log, rc);
    bool written = log->seq.next > first; /* of removed topics alone: nothing */
    if (written) {
        rc = seq_harden(log, first);
        if (rc)
            return rc;
    }
    rc = fold_items(log);
    if (rc)
        return seq_fail(log, rc);
    if (written)
        seq_watermark(log);
    return 0;
}

unsigned seq_epoch(struct log *log)
{
    struct seq *q = &log->seq;
    uint64_t margin = seq_ring_margin(log);
    if (!q->controls && !q->ready && !seq_pending(log))
        return 0;
    int room = log->readonly ? -EROFS : seq_room(log, margin + 2);
    atomic_store_explicit(&q->stalled, room == -EAGAIN, memory_order_relaxed);
    if (room == -EAGAIN) {
        background_wake(log);
        return 0;
    }
    struct control *c = control_next(q);
    if (c) {
        struct commit commit = {0};
        commit.status = seq_control(log, c, &commit);
        tell(log, 0); /* what the action refused */
        c->completion->done(c->completion, &commit);
        return 1;
    }
    /* A batch may take two entries. Without room all are refused, which bounds the wait. */
    uint64_t fit = room ? EPOCH_BATCHES : (seq_ring_room(log) - margin) / 2;
    int status = room;
    unsigned taken = collect(log, fit < EPOCH_BATCHES ? (unsigned)fit : EPOCH_BATCHES, status);
    if (q->count > 0)
        status = items_commit(log);
    tell(log, status);
    order_fence_spent(log);
    log_starved(log); /* the rings and the bound of reservations have room again */
    return taken;
}

void log_quiesce(struct log *log)
{
    seq_take_wait(log);
    seq_give(log);
    log_commit(log); /* who announced meanwhile found the role taken */
}

void log_commit(struct log *log)
{
    if (background_only(log)) {
        background_wake(log);
        return;
    }
    while (seq_take(log)) {
        unsigned rounds = 0;
        while (rounds < ROUNDS && seq_epoch(log) > 0)
            rounds++;
        bool due = seq_ring_room(log) < log->pool.geo.index_entries / 2 || retain_due(log);
        seq_give(log);
        if (rounds == ROUNDS || due) {
            atomic_store_explicit(&log->seq.handed, true, memory_order_seq_cst);
            background_wake(log);
        }
        if (rounds > 0)
            background_arm_sync(log);
        if (rounds == ROUNDS || !seq_pending(log) ||
            atomic_load_explicit(&log->seq.stalled, memory_order_relaxed))
            return;
    }
}

void log_control(struct log *log, struct control *c)
{
    struct control *top = atomic_load_explicit(&log->seq.stack, memory_order_relaxed);
    do {
        c->next = top;
        /* seq_cst: pairs with seq_pending after seq_give. */
    } while (!atomic_compare_exchange_weak_explicit(&log->seq.stack, &top, c, memory_order_seq_cst,
                                                    memory_order_relaxed));
}
