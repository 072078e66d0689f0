/* Ordering: which of the announced batches the epoch takes, and what becomes of the others (step 7).
 *
 * A batch without a session is taken as it comes. One of a session is taken once: at order 5 in the
 * sequence's order, where a gap holds what comes behind it; at orders 0 and 2 as it comes, where the
 * window above the session's mark knows what was taken (session.c). What is stale, refused or a
 * duplicate is told after the epoch, when its first copy is committed.
 *
 * A gap is bounded in time (hold_ms) and in space (a share of the reservation bound, so that what one
 * session holds never keeps others from reserving): beyond either its session, and nobody else, is
 * fenced. All of this is the sequencer's; nothing here waits.
 */
#include <errno.h>

#include "core/log_state.h"

/* What all sessions may hold together, and one of them, as parts of the reservation bound. */
#define HELD_PART     2u
#define HELD_ONE_PART 4u

static void tell_later(struct seq *q, struct batch *b, int status)
{
    b->status = status;
    b->next = NULL;
    *q->told_last = b;
    q->told_last = &b->next;
}

static void refuse(struct log *log, struct batch *b, int status)
{
    log_abandon(log, b);
    tell_later(&log->seq, b, status);
}

static void refuse_duplicate(struct log *log, struct batch *b)
{
    b->duplicate = true;
    refuse(log, b, 0);
}

static bool is_fifo(const struct batch *b)
{
    return atomic_load_explicit(&b->topic->topic_order, memory_order_relaxed) == 5;
}

static void accept(struct log *log, struct batch *b, struct session *s)
{
    struct seq *q = &log->seq;
    if (s && session_take(log, s, b->sequence, b->count) != 0) {
        refuse(log, b, -ENOMEM); /* not taken: it may come again */
        return;
    }
    struct item *it = &q->items[q->count++];
    it->batch = b;
    it->session = s;
    it->rank = q->count;
    it->producer = q->taking;
}

/* ---- Gaps --------------------------------------------------------------------------------- */

static void gap_begins(struct log *log, struct session *s)
{
    s->gap_since = now_monotonic();
    TAILQ_INSERT_TAIL(&log->seq.gaps, s, gap_link);
}

static void gap_ends(struct log *log, struct session *s)
{
    TAILQ_REMOVE(&log->seq.gaps, s, gap_link);
}

static void gap_renew(struct log *log, struct session *s)
{
    gap_ends(log, s);
    gap_begins(log, s);
}

/* The first held batch is held no longer. */
static struct batch *held_pop(struct log *log, struct session *s)
{
    struct batch *b = s->held;
    s->held = b->next;
    if (!s->held) {
        s->held_last = NULL;
        s->is_spent = false;
        gap_ends(log, s);
    }
    s->held_count--;
    s->held_bytes -= b->length;
    log->seq.held_bytes -= b->length;
    atomic_fetch_sub_explicit(&log->seq.holds, 1, memory_order_relaxed);
    return b;
}

static void ready(struct log *log, struct session *s)
{
    if (s->is_ready)
        return;
    s->is_ready = true;
    s->ready_next = log->seq.ready;
    log->seq.ready = s;
}

/* Held batches of s that are next in line, as far as the epoch has room. */
static void take_held(struct log *log, struct session *s, unsigned limit)
{
    struct seq *q = &log->seq;
    while (s->held && (s->held->sequence <= s->ordered + 1 || !is_fifo(s->held))) {
        bool taken = session_taken(s, s->held->sequence);
        if (!taken && q->count >= limit) {
            ready(log, s);
            return;
        }
        struct batch *b = held_pop(log, s);
        if (taken)
            refuse_duplicate(log, b);
        else if (session_is_far(s, b->sequence))
            refuse(log, b, -EMBAR_ELIMIT);
        else
            accept(log, b, s);
    }
}

static void hold(struct log *log, struct session *s, struct batch *b)
{
    struct seq *q = &log->seq;
    if (s->held_count >= HOLD_BATCHES) {
        refuse(log, b, -EMBAR_ELIMIT);
        return;
    }
    if (!s->held)
        gap_begins(log, s);
    struct batch **at = &s->held;
    if (s->held_last && s->held_last->sequence <= b->sequence)
        at = &s->held_last->next; /* the common case: no search */
    while (*at && (*at)->sequence <= b->sequence)
        at = &(*at)->next;
    b->next = *at;
    *at = b;
    if (!b->next)
        s->held_last = b;
    s->held_count++;
    s->held_bytes += b->length;
    q->held_bytes += b->length;
    uint64_t bound = reserve_bound(log);
    if (s->held_count > 1 &&
        (s->held_bytes > bound / HELD_ONE_PART || q->held_bytes > bound / HELD_PART)) {
        s->is_spent = true;
        q->spent = true;
    }
    atomic_fetch_add_explicit(&log->held, 1, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&q->holds, 1, memory_order_relaxed) == 0)
        background_wake(log); /* it times the hold */
}

/* ---- One batch ---------------------------------------------------------------------------- */

static void order_in_session(struct log *log, struct batch *b, struct session *s, unsigned limit)
{
    bool fifo = is_fifo(b);
    if (b->epoch != s->epoch) {
        refuse(log, b, log_fenced(b->epoch, s->epoch));
    } else if (session_taken(s, b->sequence)) {
        refuse_duplicate(log, b);
    } else if (fifo && b->sequence > s->ordered + 1) {
        hold(log, s, b);
    } else if (session_is_far(s, b->sequence)) {
        refuse(log, b, -EMBAR_ELIMIT);
    } else {
        accept(log, b, s);
        take_held(log, s, limit);
        if (s->held)
            gap_renew(log, s); /* another gap than before */
    }
}

void order_batch(struct log *log, struct batch *b, unsigned limit)
{
    if (topic_deleted(b->topic) && !b->past_removal) {
        refuse(log, b, -EMBAR_EGONE);
        return;
    }
    if (b->session == 0) {
        accept(log, b, NULL);
        return;
    }
    struct session *s = session_find(log, b->session);
    if (!s || s->topic != b->topic->id)
        refuse(log, b, -EMBAR_ESESSION);
    else
        order_in_session(log, b, s, limit);
}

void order_refuse(struct log *log, struct batch *b, int status)
{
    refuse(log, b, status);
}

unsigned order_ready(struct log *log, unsigned limit, int status)
{
    struct session *s = log->seq.ready;
    unsigned sessions = 0;
    log->seq.ready = NULL;
    for (struct session *next; s; s = next, sessions++) {
        next = s->ready_next;
        s->is_ready = false;
        if (status)
            order_release(log, s, status);
        else
            take_held(log, s, limit);
    }
    return sessions;
}

void order_changed(struct log *log, struct topic *t)
{
    for (struct session *s = TAILQ_FIRST(&log->seq.gaps); s; s = TAILQ_NEXT(s, gap_link)) {
        if (s->topic == t->id)
            ready(log, s); /* nothing keeps them waiting, if it is not 5 now */
    }
}

void order_release(struct log *log, struct session *s, int status)
{
    while (s->held)
        refuse(log, held_pop(log, s), status);
    s->is_spent = false;
    /* It may be about to go. */
    for (struct session **at = &log->seq.ready; *at; at = &(*at)->ready_next)
        if (*at == s) {
            *at = s->ready_next;
            break;
        }
    s->is_ready = false;
}

/* ---- Fences ------------------------------------------------------------------------------- */

static void fence(struct log *log, struct session *s)
{
    struct control c = {.kind = MEDIA_C_FENCE, .value = s->id};
    struct commit commit = {0};
    s->is_spent = false;
    int rc = seq_control(log, &c, &commit);
    if (rc == 0)
        atomic_fetch_add_explicit(&log->fenced, 1, memory_order_relaxed);
    else if (rc == -EMBAR_EFAULTED || rc == -EMBAR_ELIMIT)
        order_release(log, s, rc); /* nothing will ever fill the gap, or fence it */
    else
        gap_renew(log, s); /* no room for the entry: later again */
    seq_tell(log);
}

/* Fencing changes the list: look again from its head each time. */
void order_fence_spent(struct log *log)
{
    while (log->seq.spent) {
        struct session *s;
        for (s = TAILQ_FIRST(&log->seq.gaps); s; s = TAILQ_NEXT(s, gap_link)) {
            if (s->is_spent)
                break;
        }
        if (s)
            fence(log, s);
        else
            log->seq.spent = false;
    }
}

void order_expire(struct log *log, uint64_t now_ns)
{
    struct session *s = TAILQ_FIRST(&log->seq.gaps), *next;
    const struct session *last = TAILQ_LAST(&log->seq.gaps, gaps);
    for (; s && s->gap_since + log->hold_ns <= now_ns; s = next) {
        next = s == last ? NULL : TAILQ_NEXT(s, gap_link);
        if (!s->is_ready) /* ready: there is no gap, only no room yet */
            fence(log, s);
    }
}
