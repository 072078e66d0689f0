/* The line of those who wait for pool space, or for a place in the pending ring (steps 3 and 6).
 *
 * Each worker has a line, in the order in which its connections came. When something comes free it calls
 * the first of them, as many as that has room for: what their batches need is counted together, and the
 * first of all looks in any case, for what it finds missing is what the log makes room for. Who was
 * called looks once; who found nothing is where it was before, and the rest were not called for it. So
 * a thousand who wait cost a look or two when an extent comes free.
 *
 * First come, first served: what those before need is left to them, by whoever comes new, too, so that
 * no large batch waits for ever because small ones have the little that comes free each time. Between workers, and
 * between them and the mount, it is the same, and core/places.c is where: each worker tells there what its
 * first and those whom it called need. The tick looks, too, whatever was told.
 *
 * The others have their batch in the pool already and find the ring full: as many are called as it
 * has places. Must never leave somebody on a line of whom the log does not know.
 */
#include "net/server/internal.h"

static void say(struct worker *w)
{
    const struct conn *first = TAILQ_FIRST(&w->parked);
    uint64_t since = w->called > 0 ? w->called_since : first ? first->place : SPACE_NOBODY;
    log_space_say(w->log, w->line, since, w->called + (first ? first->space : 0));
}

static uint64_t owed_elsewhere(const struct worker *w, uint64_t place)
{
    return log_space_owed(w->log, w->line, place);
}

/* ---- The line ------------------------------------------------------------------------------ */

void space_init(struct worker *w)
{
    TAILQ_INIT(&w->parked);
    TAILQ_INIT(&w->ringing);
}

bool space_waits(const struct worker *w)
{
    return !TAILQ_EMPTY(&w->parked) || !TAILQ_EMPTY(&w->ringing);
}

static void uncall(struct conn *c)
{
    if (!c->summoned)
        return;
    c->summoned = false;
    c->worker->called -= c->space;
}

static void take_off(struct conn *c)
{
    struct worker *w = c->worker;
    TAILQ_REMOVE(c->ringed ? &w->ringing : &w->parked, c, wait_link);
    c->parked = false;
    count_sub(&w->count.waiting, 1);
}

static void put_on(struct conn *c, bool ringed)
{
    struct worker *w = c->worker;
    c->parked = true;
    c->ringed = ringed;
    count_add(&w->count.waiting, 1);
    worker_timer(w); /* all is tried again every second whatever the log tells */
}

/* Bytes of pool space. */
static uint64_t needs(const struct conn *c)
{
    return log_space_need(c->worker->log, c->cur.payload, c->cur.count, c->cur.equal);
}

/* What is left to those before c. 0: nobody is, or it was called. */
static uint64_t owed_before(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->summoned) {
        uncall(c);
        return 0;
    }
    /* As a rule nobody waits: one look, at what is written rarely. */
    if (log_space_quiet(w->log))
        return 0;
    const struct conn *first = TAILQ_FIRST(&w->parked);
    uint64_t place = c->place ? c->place : SPACE_NOBODY;
    uint64_t owed = owed_elsewhere(w, place) + w->called;
    return owed + (first && first->place < place ? first->space : 0);
}

int space_reserve(struct conn *c, struct batch *b)
{
    return log_reserve_behind(c->worker->log, b, owed_before(c), &c->behind);
}

void space_join(struct conn *c)
{
    struct worker *w = c->worker;
    c->space = needs(c);
    if (!c->place)
        c->place = log_space_place(w->log);
    /* Who was called and comes back is one of the first, and who is new the last. */
    struct conn *at = TAILQ_LAST(&w->parked, conn_list);
    if (at && at->place > c->place)
        for (at = TAILQ_FIRST(&w->parked); at->place < c->place;)
            at = TAILQ_NEXT(at, wait_link);
    if (at && at->place > c->place)
        TAILQ_INSERT_BEFORE(at, c, wait_link);
    else
        TAILQ_INSERT_TAIL(&w->parked, c, wait_link);
    put_on(c, false);
    say(w);
    /* Those before may all have left since it looked, and have not seen that somebody waits here. */
    if (c->behind && TAILQ_FIRST(&w->parked) == c && owed_elsewhere(w, c->place) + w->called == 0)
        w->space.fire(&w->space);
}

void space_join_ring(struct conn *c)
{
    TAILQ_INSERT_TAIL(&c->worker->ringing, c, wait_link);
    put_on(c, true);
}

void space_end(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->parked)
        take_off(c);
    if (!c->place)
        return;
    uncall(c);
    c->place = 0;
    say(w);
    log_space_tell(w->log);
}

/* ---- Calling ------------------------------------------------------------------------------- */

static void call(struct conn *c)
{
    struct worker *w = c->worker;
    take_off(c);
    if (w->called == 0)
        w->called_since = c->place;
    w->called += c->space;
    c->summoned = true;
    conn_ready(c);
}

static void call_line(struct worker *w)
{
    struct conn *c = TAILQ_FIRST(&w->parked);
    if (!c)
        return;
    uint64_t owed = owed_elsewhere(w, c->place) + w->called, room = log_space_room(w->log);
    bool first = owed == 0;
    uint64_t left = room > owed ? room - owed : 0;
    for (; c && (first || c->space <= left); c = TAILQ_FIRST(&w->parked)) {
        left -= c->space < left ? c->space : left;
        first = false;
        call(c);
    }
    say(w);
}

void space_call(struct worker *w)
{
    unsigned places = TAILQ_EMPTY(&w->ringing) ? 0 : log_ring_room(w->producer);
    struct conn *c;
    for (; places > 0 && (c = TAILQ_FIRST(&w->ringing)); places--) {
        take_off(c);
        conn_ready(c);
    }
    call_line(w);
}

static void tick(struct conn_list *line)
{
    struct conn *c, *next;
    for (c = TAILQ_FIRST(line); c && (next = TAILQ_NEXT(c, wait_link), true); c = next)
        conn_parked_tick(c);
}

void space_tick(struct worker *w)
{
    tick(&w->parked);
    tick(&w->ringing);
    space_call(w);
}
