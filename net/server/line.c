/* The lines of those who wait for staging memory (step 3).
 *
 * Each worker has two lines for each principal: one of batches that are slow, one of beginnings. The
 * bounds of the staging pool refuse all of a line alike, so only its first looks, and when that one
 * finds nothing the line is shut: that a principal with thousands of waiting connections is at its half
 * costs one look, and keeps nobody else from theirs. Whatever is given back opens all lines.
 * At the end of a round open lines are called in turn, the longest shut one first, as many of those who wait
 * as will find something, but one at least; the rest are called at the end of the next round. So
 * principals share what comes free one by one, whatever the number of their connections.
 *
 * Who comes new joins the end of its line while somebody is in it, and while any line is open or about
 * to be: else who gives memory back would have it again before those who wait for it. Who holds memory already
 * may look at once, since others wait for it to get on. Who was called and found nothing is first again.
 * Between workers there is no order: who looks first has it. But who was called and found nothing a few
 * times has its worker look alone for what is given back next (staging_passed): in one round, so that nobody
 * waits for a worker with much to do, and nobody who was called stands behind all that in it (line_hurry).
 *
 * A line that is shut is opened again without fail: before it was shut its worker's bit was set, and its
 * first looked once more (staging.h). Must never leave an open line without a round that follows: those
 * who are called are on the ready list, or on the bulk list.
 */
#include <errno.h>
#include <stdlib.h>

#include "net/server/internal.h"

struct line {
    struct conn_list waits; /* ascending by ticket; not empty: the line is on one of the lists */
    TAILQ_ENTRY(line) link; /* worker.open or worker.shut */
    unsigned more;          /* pieces that it might have: line_call's own */
    bool open;
};

#define PASSED 4u /* times that others may be quicker */

int line_init(struct worker *w)
{
    TAILQ_INIT(&w->open);
    TAILQ_INIT(&w->shut);
    w->lines = calloc(2 * STAGING_TENANTS, sizeof(*w->lines));
    for (unsigned i = 0; w->lines && i < 2 * STAGING_TENANTS; i++)
        TAILQ_INIT(&w->lines[i].waits);
    return w->lines ? 0 : -ENOMEM;
}

static struct line *line_of(const struct conn *c)
{
    const struct worker *w = c->worker;
    unsigned i = staging_place(w->server->staging, c->tenant);
    return &w->lines[2 * i + c->stage.slow];
}

static void put(struct worker *w, struct line *l, bool open)
{
    l->open = open;
    TAILQ_INSERT_TAIL(open ? &w->open : &w->shut, l, link);
}

static void take(struct worker *w, struct line *l)
{
    TAILQ_REMOVE(l->open ? &w->open : &w->shut, l, link);
}

bool line_before(const struct conn *c)
{
    if (c->called || c->stage.head)
        return false;
    const struct worker *w = c->worker;
    bool any = !TAILQ_EMPTY(&w->open) || (w->gave && !TAILQ_EMPTY(&w->shut));
    return any || !TAILQ_EMPTY(&line_of(c)->waits);
}

void line_join(struct conn *c, bool looked)
{
    struct worker *w = c->worker;
    struct line *l = c->line = line_of(c);
    bool first = TAILQ_EMPTY(&l->waits);
    if (!c->called) {
        c->ticket = ++w->ticket;
        c->passed = 0;
    }
    /* Who comes new has the highest ticket, and who was called one of the lowest. */
    struct conn *at = c->called ? TAILQ_FIRST(&l->waits) : NULL;
    while (at && at->ticket < c->ticket)
        at = TAILQ_NEXT(at, wait_link);
    if (at)
        TAILQ_INSERT_BEFORE(at, c, wait_link);
    else
        TAILQ_INSERT_TAIL(&l->waits, c, wait_link);
    if (first) {
        put(w, l, !looked);
    } else if (c->called && l->open) {
        take(w, l);
        put(w, l, false);
    }
    if (c->called && c->passed < PASSED)
        c->passed++;
    /* Where it is somebody else's turn, this one asks again the next time. */
    if (c->called && c->passed == PASSED && staging_passed(w->server->staging, w->index))
        c->passed = 0;
    c->called = false;
    count_add(&w->count.waiting, 1);
    worker_timer(w);
}

void line_leave(struct conn *c)
{
    struct worker *w = c->worker;
    struct line *l = c->line;
    TAILQ_REMOVE(&l->waits, c, wait_link);
    c->line = NULL;
    if (TAILQ_EMPTY(&l->waits))
        take(w, l);
    count_sub(&w->count.waiting, 1);
}

bool line_waits(const struct worker *w)
{
    return !TAILQ_EMPTY(&w->open) || !TAILQ_EMPTY(&w->shut);
}

/* Before those that are open already: they have waited for longer. */
void line_open(struct worker *w)
{
    struct line *l;
    while ((l = TAILQ_LAST(&w->shut, line_list))) {
        take(w, l);
        l->open = true;
        TAILQ_INSERT_HEAD(&w->open, l, link);
    }
}

static void call_first(struct worker *w, struct line *l)
{
    struct conn *c = TAILQ_FIRST(&l->waits);
    take(w, l);
    put(w, l, true); /* the others first */
    line_leave(c);
    c->called = true;
    conn_ready(c);
}

void line_hurry(struct worker *w)
{
    struct conn *c, *next;
    for (c = TAILQ_FIRST(&w->bulk); c && (next = TAILQ_NEXT(c, ready_link), true); c = next)
        if (c->called)
            conn_next(c);
}

void line_call(struct worker *w)
{
    struct staging *s = w->server->staging;
    unsigned left = TAILQ_EMPTY(&w->open) ? 0 : staging_free_pieces(s);
    if (left == 0)
        left = 1; /* a smaller piece may be free */
    bool any = true;
    for (bool first = true; any; first = false) {
        struct line *l, *next, *last = TAILQ_LAST(&w->open, line_list);
        any = false;
        for (l = TAILQ_FIRST(&w->open); l; l = next) {
            const struct conn *c = TAILQ_FIRST(&l->waits);
            next = l == last ? NULL : TAILQ_NEXT(l, link);
            if (first)
                l->more = staging_could(s, c->tenant, c->stage.slow);
            else if (l->more == 0)
                continue;
            if (left == 0)
                return;
            left--;
            l->more -= l->more > 0;
            call_first(w, l);
            any = true;
        }
    }
}
