/* Retention: what a topic's settings, or a full pool, say may go (beside steps 7 and 8).
 *
 * Design notes
 *   How       Each trim is a control entry like one by hand, at a message boundary, so that every
 *             reader, recovery and replica sees the same base. Decided with the sequencer's role by
 *             the background thread; a commit only notes that there is something to decide, at the
 *             cost of one test for topics without settings.
 *   Bytes     At least the newest `keep_bytes` stay. A trim comes when there is an eighth more than
 *             that, at least KEEP_SLACK, so that it costs one entry for many batches.
 *   Age       No batch goes before it is `keep_age` old; it goes at most an eighth of that later,
 *             within one second and one minute.
 *   Full      When a reservation finds no space although there would be enough in one piece, it is
 *             put together (move.c). Else the topics whose policy is "trim" give up their oldest
 *             data, the oldest of all of them first, until the reservation fits and a little more. Topics whose policy is "block" lose nothing, and without others all wait.
 *   Wanted    What a reservation did not find is kept in mind until it is there. Who waits is asked for
 *             it before data is moved for it once more in vain.
 *   Rounds    What is due together is hardened together: a round of trims, each of another topic, costs
 *             one drain, or one sync of a file. Nothing is free before that. A round is as long as a
 *             turn at most, a turn has one for what is due and one for who waits for space, and epochs
 *             run between turns, so that acks go on.
 *   Queues    Three heaps of the topics that hold data under such a setting: who is over its bytes,
 *             whose oldest batch is due when, whose data is oldest. A key is a lower bound: a topic
 *             at the head is looked at again and put back when its time has not come. So nothing
 *             scans all topics, and an idle log has one sleep until the earliest date.
 *   Failure   Without space for an entry, or with its ring full, all is tried again after a while.
 *
 * All of it is the sequencer's, but for what says so. Must never lose what a setting keeps.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/seq_state.h"

#define SECOND     1000000000ull
#define KEEP_SLACK (64ull << 10)
#define TURN       64u           /* trims before others get the role, some 2 us each; */
#define TURN_SYNC  1024u         /* where each round is a sync */
#define RETRY_NS   (SECOND / 10) /* after a trim that found no space */
#define DAMAGED_NS (60 * SECOND) /* a topic whose oldest batch cannot be read */

/* ---- Queues ------------------------------------------------------------------------------- */

static void put_at(struct retain_queue *q, enum retain_kind kind, size_t i, struct topic *t)
{
    q->topic[i] = t;
    t->queued[kind].place = (uint32_t)i + 1;
}

static void sift_up(struct retain_queue *q, enum retain_kind kind, size_t i)
{
    struct topic *t = q->topic[i];
    for (; i > 0; i = (i - 1) / 2) {
        struct topic *up = q->topic[(i - 1) / 2];
        if (up->queued[kind].key <= t->queued[kind].key)
            break;
        put_at(q, kind, i, up);
    }
    put_at(q, kind, i, t);
}

static void sift_down(struct retain_queue *q, enum retain_kind kind, size_t i)
{
    struct topic *t = q->topic[i];
    for (size_t below; (below = 2 * i + 1) < q->count; i = below) {
        if (below + 1 < q->count &&
            q->topic[below + 1]->queued[kind].key < q->topic[below]->queued[kind].key)
            below++;
        if (t->queued[kind].key <= q->topic[below]->queued[kind].key)
            break;
        put_at(q, kind, i, q->topic[below]);
    }
    put_at(q, kind, i, t);
}

/* Without memory the topic stays out: its next batch tries again. True: it is the first now. */
static bool queue_add(struct log *log, struct topic *t, enum retain_kind kind, uint64_t key)
{
    struct retain_queue *q = &log->retain.queue[kind];
    if (q->count == q->capacity) {
        size_t capacity = q->capacity ? q->capacity * 2 : 64;
        struct topic **grown = realloc(q->topic, capacity * sizeof(struct topic *));
        if (!grown)
            return false;
        q->topic = grown;
        q->capacity = capacity;
    }
    t->queued[kind].key = key;
    put_at(q, kind, q->count++, t);
    sift_up(q, kind, q->count - 1);
    return q->topic[0] == t;
}

static void queue_remove(struct log *log, struct topic *t, enum retain_kind kind)
{
    struct retain_queue *q = &log->retain.queue[kind];
    size_t i = t->queued[kind].place;
    if (i-- == 0)
        return;
    t->queued[kind].place = 0;
    struct topic *last = q->topic[--q->count];
    if (last == t)
        return;
    put_at(q, kind, i, last);
    sift_up(q, kind, i);
    sift_down(q, kind, last->queued[kind].place - 1u);
}

static struct topic *queue_first(struct log *log, enum retain_kind kind)
{
    struct retain_queue *q = &log->retain.queue[kind];
    return q->count > 0 ? q->topic[0] : NULL;
}

/* The first of a queue comes later, or not at all. */
static void queue_later(struct log *log, struct topic *t, enum retain_kind kind, uint64_t key)
{
    if (topic_base(t) == topic_end(t)) {
        queue_remove(log, t, kind);
        return;
    }
    t->queued[kind].key = key;
    sift_down(&log->retain.queue[kind], kind, t->queued[kind].place - 1u);
}

/* ---- What is due -------------------------------------------------------------------------- */

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t bytes_slack(uint64_t keep)
{
    return keep / 8 > KEEP_SLACK ? keep / 8 : KEEP_SLACK;
}

static uint64_t age_slack(uint64_t keep)
{
    uint64_t slack = keep / 8;
    return slack < SECOND ? SECOND : slack > 60 * SECOND ? 60 * SECOND : slack;
}

static bool over(const struct topic *t)
{
    return t->keep_bytes > 0 &&
           topic_end(t) - topic_base(t) > plus(t->keep_bytes, bytes_slack(t->keep_bytes));
}

/* Relaxed: ordered by the role's hand-over, and seen by the background thread through `handed`. */
static void note_due(struct log *log)
{
    atomic_store_explicit(&log->retain.due, true, memory_order_relaxed);
}

bool retain_due(const struct log *log)
{
    return atomic_load_explicit(&log->retain.due, memory_order_relaxed);
}

void retain_look(struct log *log, struct topic *t)
{
    if (over(t)) {
        if (t->queued[RETAIN_BYTES].place == 0)
            (void)queue_add(log, t, RETAIN_BYTES, 0);
        note_due(log);
    }
    if (topic_base(t) == topic_end(t))
        return;
    if (t->keep_age > 0 && t->queued[RETAIN_AGE].place == 0 &&
        queue_add(log, t, RETAIN_AGE, plus(plus(t->modified, t->keep_age), age_slack(t->keep_age))))
        note_due(log);
    if (t->policy && t->queued[RETAIN_FULL].place == 0)
        (void)queue_add(log, t, RETAIN_FULL, t->modified);
}

void retain_forget(struct log *log, struct topic *t)
{
    for (unsigned kind = 0; kind < RETAIN_KINDS; kind++)
        queue_remove(log, t, kind);
}

void retain_changed(struct log *log, uint32_t id)
{
    struct topic *t = names_id(&log->names, id);
    if (!t || topic_deleted(t))
        return;
    retain_forget(log, t);
    t->retained = t->keep_bytes > 0 || t->keep_age > 0 || t->policy;
    if (!t->retained)
        return;
    retain_look(log, t);
    /* Its oldest data may be older than what retain_look goes by. */
    for (unsigned kind = RETAIN_AGE; kind <= RETAIN_FULL; kind++)
        if (t->queued[kind].place > 0) {
            t->queued[kind].key = 0;
            sift_up(&log->retain.queue[kind], kind, t->queued[kind].place - 1u);
            note_due(log);
        }
}

void retain_resume(struct log *log)
{
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next)
        if (!names_is_dir(t))
            retain_changed(log, t->id);
}

void retain_destroy(struct log *log)
{
    for (unsigned kind = 0; kind < RETAIN_KINDS; kind++)
        free(log->retain.queue[kind].topic);
}

void retain_starve(struct log *log, uint64_t bytes, bool whole)
{
    atomic_uint_fast64_t *wanted = &log->retain.want[whole];
    uint64_t want = atomic_load_explicit(wanted, memory_order_relaxed);
    while (want < bytes && !atomic_compare_exchange_weak_explicit(
                               wanted, &want, bytes, memory_order_relaxed, memory_order_relaxed))
        ;
    atomic_store_explicit(&log->retain.said[whole], true, memory_order_relaxed);
    note_due(log);
    /* seq_cst, with the background thread's last look before it sleeps. */
    atomic_store_explicit(&log->seq.handed, true, memory_order_seq_cst);
    background_wake(log);
}

/* ---- Rounds ------------------------------------------------------------------------------- */

struct round {
    struct log *log;
    struct trim *trim;
    unsigned count, capacity;
};

/* Out of that queue until the round is over. False: no memory, and nothing was done. */
static bool round_add(struct round *r, struct topic *t, enum retain_kind kind, uint64_t to)
{
    struct trim one = {.topic = t};
    bool again = t->picked > 0 && t->picked <= r->count;
    if (!again && r->count == r->capacity) {
        unsigned capacity = r->capacity ? r->capacity * 2 : 16;
        struct trim *grown = realloc(r->trim, capacity * sizeof *grown);
        if (!grown)
            return false;
        r->trim = grown;
        r->capacity = capacity;
    }
    if (again)
        one = r->trim[t->picked - 1];
    else
        t->picked = ++r->count;
    one.to = to > one.to ? to : one.to;
    one.kinds |= 1u << kind;
    r->trim[t->picked - 1] = one;
    queue_remove(r->log, t, kind);
    return true;
}

/* Time of the batch that holds `offset`; *time stays as it is when none does. */
static int time_at(struct topic *t, uint64_t offset, uint64_t *time)
{
    struct batch_cursor c = {.offset = offset};
    struct batch_view v;
    int rc = topic_next(t, &c, &v);
    if (rc == 1) {
        *time = v.time;
        read_release(&v.data);
    }
    return rc < 0 ? rc : 0;
}

static int oldest_time(struct topic *t, uint64_t *time)
{
    return time_at(t, topic_base(t), time);
}

static uint64_t date_of(const struct topic *t, uint64_t oldest)
{
    return plus(plus(oldest, t->keep_age), age_slack(t->keep_age));
}

/* Back into its queues, where they have more to do with it. There is room: it was in them. */
static void round_put(struct log *log, const struct trim *trim, uint64_t now)
{
    struct topic *t = trim->topic;
    bool again = trim->status == -EMBAR_EFULL || trim->status == -EAGAIN;
    uint64_t oldest = now, full = t->queued[RETAIN_FULL].key;
    int rc = trim->status;
    t->picked = 0;
    if (rc == 0)
        rc = oldest_time(t, &oldest);
    /* Damaged: tried again at its next batch, */
    if (again && trim->kinds & 1u << RETAIN_BYTES)
        (void)queue_add(log, t, RETAIN_BYTES, 0);
    if (topic_base(t) == topic_end(t))
        return;
    /* or after a while. */
    uint64_t date = date_of(t, oldest), due = rc || date <= now ? plus(now, DAMAGED_NS) : date;
    if (trim->kinds & 1u << RETAIN_AGE)
        (void)queue_add(log, t, RETAIN_AGE, again ? 0 : due);
    if (trim->kinds & 1u << RETAIN_FULL && (again || rc == 0))
        (void)queue_add(log, t, RETAIN_FULL, again ? full : oldest);
}

/* 0: go on; else: no space for an entry now. */
static int round_run(struct round *r, uint64_t now)
{
    int rc = r->count > 0 ? seq_trims(r->log, r->trim, r->count) : 0;
    for (unsigned i = 0; i < r->count; i++)
        round_put(r->log, &r->trim[i], now);
    r->count = 0;
    return rc;
}

/* ---- Bytes and age ------------------------------------------------------------------------ */

static int pick_over(struct round *r, unsigned *left)
{
    struct topic *t;
    for (; *left > 0 && (t = queue_first(r->log, RETAIN_BYTES)); --*left) {
        uint64_t end = topic_end(t);
        if (!over(t))
            queue_remove(r->log, t, RETAIN_BYTES);
        else if (!round_add(r, t, RETAIN_BYTES, end - t->keep_bytes))
            return -EAGAIN;
    }
    return 0;
}

static int pick_aged(struct round *r, unsigned *left, uint64_t now)
{
    struct topic *t;
    for (; *left > 0 && (t = queue_first(r->log, RETAIN_AGE)) && t->queued[RETAIN_AGE].key <= now;
         --*left) {
        uint64_t oldest = now, to;
        int rc = oldest_time(t, &oldest);
        uint64_t date = date_of(t, oldest);
        bool due = rc == 0 && date <= now;
        if (due)
            rc = topic_seek_time(t, now - t->keep_age, &to);
        if (rc || !due)
            queue_later(r->log, t, RETAIN_AGE, rc ? plus(now, DAMAGED_NS) : date);
        else if (!round_add(r, t, RETAIN_AGE, to))
            return -EAGAIN;
    }
    return 0;
}

/* ---- A full pool -------------------------------------------------------------------------- */

/* Bytes that are missing for the reservation, and for some that come after it. */
static uint64_t lacking(struct log *log, uint64_t want)
{
    struct extents_stat st;
    extents_stat(log->extents, &st);
    uint64_t spare = log->pool.data_size / 64;
    uint64_t need = plus(st.reserve, want > spare ? want : spare);
    return need > st.free ? need - st.free : 0;
}

/* All that it needs is there, and in a place. */
static bool room(struct log *log, uint64_t want, bool whole)
{
    return extents_fit(log->extents, want, whole) && lacking(log, want) == 0;
}

/* How far to give up a topic's oldest data: so much that an extent comes free, and that it was worth an
 * entry. */
static uint64_t oldest_end(struct topic *t, uint64_t want)
{
    uint64_t live = topic_end(t) - topic_base(t);
    uint64_t least = live / 8 < want ? live / 8 : want;
    return topic_extent_end(t, topic_base(t) + least);
}

/* The oldest data of all: one topic's, or that of as many as certainly must give up some. Whoever comes
 * next has nothing older than what the others keep. */
static int pick_victims(struct round *r, uint64_t want, unsigned *left)
{
    struct topic *t;
    uint64_t lack = lacking(r->log, want), freed = 0, next = UINT64_MAX;
    while (*left > 0 && (t = queue_first(r->log, RETAIN_FULL)) &&
           (r->count == 0 || (freed < lack && t->queued[RETAIN_FULL].key <= next))) {
        uint64_t time = 0, behind = UINT64_MAX;
        int rc = oldest_time(t, &time);
        --*left; /* a look counts as well: it reads a record */
        if (rc == 0 && time > t->queued[RETAIN_FULL].key) {
            queue_later(r->log, t, RETAIN_FULL, time);
            continue;
        }
        if (rc) {
            queue_remove(r->log, t, RETAIN_FULL); /* damaged */
            continue;
        }
        uint64_t to = oldest_end(t, want);
        if (!round_add(r, t, RETAIN_FULL, to))
            return -EAGAIN;
        freed += topic_extents_below(t, to);
        (void)!time_at(t, to, &behind);
        next = behind < next ? behind : next;
    }
    return 0;
}

/* Half of what was given up did not come free: replies in flight or reservations hold it. */
static bool pinned(struct log *log, const struct retain_given *g)
{
    uint64_t freed = (extents_freed(log->extents) - g->freed) << log->pool.geo.block_shift;
    return g->bytes >= log->pool.data_size / 32 && freed < g->bytes / 2;
}

/* Extents that topics fill and that hold nothing: what is written next goes elsewhere. True: there are
 * more of them, so that nothing has to be given up yet. */
static bool squeeze(struct log *log, uint64_t now)
{
    struct retain *r = &log->retain;
    if (log->idle.left == 0 && now < r->squeezed + RETRY_NS && now >= r->squeezed)
        return false;
    r->squeezed = now;
    return idle_squeeze(log);
}

/* Is it to be moved for what is wanted? After an attempt that came to nothing only for who tried again
 * since. When nobody did they are asked, and it is wanted no more until somebody does: he who waited may
 * have found his place, or have left. */
static bool still_wanted(struct log *log, bool whole, uint64_t want)
{
    struct retain *r = &log->retain;
    if (atomic_exchange_explicit(&r->said[whole], false, memory_order_relaxed) ||
        !log->move[whole].failed)
        return true;
    atomic_compare_exchange_strong_explicit(&r->want[whole], &want, 0, memory_order_relaxed,
                                            memory_order_relaxed);
    watch_fire(&log->space);
    return false;
}

/* One round, if more has to go. */
static int round_victims(struct round *round, struct retain_given *g, uint64_t want, unsigned *left,
                         uint64_t now)
{
    struct log *log = round->log;
    uint64_t trimmed = atomic_load_explicit(&log->trimmed, memory_order_relaxed);
    int rc = pick_victims(round, want, left);
    if (rc == 0 || round->count > 0)
        rc = round_run(round, now);
    g->bytes += atomic_load_explicit(&log->trimmed, memory_order_relaxed) - trimmed;
    return rc;
}

/* A round for who waits, one a turn: each is a sync where others are acked by syncs. *more is set when
 * another may have to follow. */
static int trim_victims(struct round *round, bool whole, unsigned *left, uint64_t now, bool *more)
{
    struct log *log = round->log;
    struct retain *r = &log->retain;
    struct retain_given *g = &r->given[whole];
    uint64_t want = atomic_load_explicit(&r->want[whole], memory_order_relaxed);
    if (want == 0) {
        log->move[whole].spent = 0;
        return 0;
    }
    if (!room(log, want, whole) && squeeze(log, now)) {
        *more = true;
        return 0;
    }
    if (!room(log, want, whole)) {
        const struct topic *t = queue_first(log, RETAIN_FULL);
        if (*left == 0)
            return 0;
        /* What went already is free after a sync: more may not have to go. */
        if (extents_waiting(log->extents))
            return -EBUSY;
        if (pinned(log, g))
            return -EAGAIN;
        if (move_wanted(log, want, whole, t != NULL)) {
            r->moving = whole;
            return still_wanted(log, whole, want) ? -EXDEV : 0;
        }
        if (!t && move_awaited(log, want, whole))
            return -EAGAIN;
        if (t) {
            int rc = round_victims(round, g, want, left, now);
            *more = rc == 0;
            return rc;
        }
    }
    /* Who came meanwhile with a larger one says so again. */
    atomic_compare_exchange_strong_explicit(&r->want[whole], &want, 0, memory_order_relaxed,
                                            memory_order_relaxed);
    log->move[whole].spent = 0;
    log->move[whole].busy = false;
    return 0;
}

/* ---- Turns -------------------------------------------------------------------------------- */

static int turn(struct log *log, uint64_t now, unsigned left, bool *more)
{
    struct round round = {.log = log};
    bool again = false;
    int rc = pick_over(&round, &left);
    if (rc == 0)
        rc = pick_aged(&round, &left, now);
    int ran = round_run(&round, now);
    rc = ran ? ran : rc;
    bool go_on = rc == 0;
    for (int whole = 0; whole < 2 && go_on; whole++) {
        int other = trim_victims(&round, whole, &left, now, &again);
        go_on = other == 0 || other == -EAGAIN; /* neither waits for the other */
        rc = other ? other : rc;
    }
    free(round.trim);
    /* What has no room now has none in the next turn either: a checkpoint, or time, has to come between. */
    *more = again || (left == 0 && rc != -EMBAR_EFULL && rc != -EAGAIN);
    return rc;
}

void retain_move(struct log *log, bool aside)
{
    bool whole = log->retain.moving;
    (void)!move_run(log, atomic_load_explicit(&log->retain.want[whole], memory_order_relaxed),
                    whole, aside);
}

enum retain_next retain_run(struct log *log, uint64_t now)
{
    struct retain *r = &log->retain;
    bool more = false;
    /* Before the look at the queues: who adds to them afterwards sets it again. */
    atomic_store_explicit(&r->due, false, memory_order_relaxed);
    if (log->readonly || log_faulted(log))
        return RETAIN_DONE;
    for (int whole = 0; whole < 2 && !r->more; whole++)
        r->given[whole] = (struct retain_given){.freed = extents_freed(log->extents)};
    int rc = turn(log, now, background_only(log) ? TURN_SYNC : TURN, &more);
    const struct topic *t = queue_first(log, RETAIN_AGE);
    uint64_t date = t ? t->queued[RETAIN_AGE].key : UINT64_MAX;
    if (rc == -EMBAR_EFULL || rc == -EAGAIN)
        date = plus(now, RETRY_NS);
    atomic_store_explicit(&r->date, date, memory_order_relaxed);
    r->more = more;
    if (rc == -EBUSY)
        return RETAIN_SYNC;
    if (rc == -EXDEV)
        return RETAIN_MOVE;
    return more ? RETAIN_MORE : RETAIN_DONE;
}

uint64_t retain_wait(const struct log *log, uint64_t now)
{
    uint64_t date = atomic_load_explicit(&log->retain.date, memory_order_relaxed);
    return date == UINT64_MAX ? UINT64_MAX : date > now ? date - now : 0;
}
