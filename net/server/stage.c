/* Body bytes in DRAM: how a batch begins, and where one goes that is too slow for the pool (step 3).
 *
 * A batch reserves pool space when its first 64 KiB (or all of it) are here. Mostly they wait in the
 * socket, of which the last receive said how much it left there, and nothing is copied; when the socket
 * alone may not hold them, they are collected in a piece of the staging pool. A batch that holds pool space and comes slower than its minimum rate loses it:
 * what is there moves to staging, the space goes back (CONN_MOVE), and the batch is collected there until
 * it is whole. Then it reserves, and is copied in once. The next batch of such a connection begins
 * there, until one came fast enough.
 *
 * Without staging memory the socket is not read. Who waits stands in a line (line.c). When some was given
 * back, all workers with such lines are told, once a round; a tick looks again, whatever was told.
 *
 * Must never hold pool space while it waits for staging, nor copy more than a turn's bytes a turn.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "net/server/internal.h"

#define MORE "send smaller batches, or give the daemon more --staging"

static bool give_head(struct conn *c)
{
    struct stage *s = &c->stage;
    struct piece *p = s->head;
    s->head = p->next;
    if (!s->head) {
        s->tail = NULL;
        s->tail_fill = 0;
    }
    staging_give(c->worker->server->staging, c->tenant, p, s->slow);
    c->worker->gave = true;
    return s->head;
}

void stage_drop(struct conn *c)
{
    while (c->stage.head)
        (void)give_head(c);
    memset(&c->stage, 0, sizeof(c->stage));
}

/* ---- Waiting for memory -------------------------------------------------------------------- */

static void deliver(struct worker *w, struct mail *m)
{
    (void)m;
    /* Cleared before anybody looks: what is given back from here on tells again. */
    atomic_store_explicit(&w->staging_queued, false, memory_order_seq_cst);
    w->first = staging_turn(w->server->staging, w->index);
    line_open(w);
    line_call(w);
    if (w->first)
        line_hurry(w); /* at the end of this round its turn is over */
}

void stage_init(struct worker *w)
{
    w->staging_mail.deliver = deliver;
}

void stage_tick(struct worker *w)
{
    w->one_gave_up = false;
    line_open(w);
}

void stage_tell(struct worker *w)
{
    struct server *s = w->server;
    if (w->first && staging_looked(s->staging, w->index))
        w->gave = true; /* what it left is for the others now */
    w->first = false;
    if (!w->gave)
        return;
    w->gave = false;
    uint64_t waiting = staging_waiters(s->staging);
    for (unsigned i = 0; waiting >> i; i++) {
        struct worker *to = &s->worker[i];
        if (to == w)
            line_open(w);
        if (to == w && !staging_turn(s->staging, w->index))
            continue; /* else a round follows in any case, at whose end its turn is over */
        /* One mail at a time: whoever clears the flag looks at all that was given before. */
        if (waiting >> i & 1 &&
            !atomic_exchange_explicit(&to->staging_queued, true, memory_order_seq_cst))
            mail_push(&to->box, &to->staging_mail);
    }
}

/* ---- Room ---------------------------------------------------------------------------------- */

/* What there is to be of the batch in staging before it asks for space. */
static uint32_t needed(const struct conn *c)
{
    uint32_t total = c->cur.total;
    return c->stage.slow || total < RESERVE_AT ? total : RESERVE_AT;
}

static struct piece *take(struct conn *c, uint32_t need)
{
    struct staging *s = c->worker->server->staging;
    if (need > STAGING_PIECE)
        need = STAGING_PIECE;
    return staging_take(s, c->tenant, need, c->stage.slow, &c->worker->gave);
}

static bool is_full(const struct stage *s)
{
    return !s->tail || s->tail_fill == s->tail->size;
}

/* Where the next staged bytes go; *n gets how many have room. NULL: there is no memory. */
static uint8_t *room(struct conn *c, uint32_t *n)
{
    struct stage *s = &c->stage;
    uint32_t left = needed(c) - s->fill;
    if (is_full(s)) {
        struct piece *p = take(c, left);
        if (!p)
            return NULL;
        if (s->tail)
            s->tail->next = p;
        else
            s->head = p;
        s->tail = p;
        s->tail_fill = 0;
        s->waited = 0;
    }
    *n = s->tail->size - s->tail_fill;
    if (*n > left)
        *n = left;
    return s->tail->memory + s->tail_fill;
}

static void filled(struct conn *c, uint32_t n)
{
    c->stage.fill += n;
    c->stage.tail_fill += n;
}

/* The same, but not what is given back for another worker to look at first. */
static uint8_t *room_in_turn(struct conn *c, uint32_t *n)
{
    const struct worker *w = c->worker;
    if (is_full(&c->stage) && staging_others(w->server->staging, w->index, c->called))
        return NULL;
    return room(c, n);
}

/* The same, or wait. What others gave back before the bit was set is not told: so look twice. */
static uint8_t *room_or_wait(struct conn *c, uint32_t *n)
{
    if (line_before(c)) {
        line_join(c, false);
        return NULL;
    }
    uint8_t *to = room_in_turn(c, n);
    if (!to) {
        staging_wait(c->worker->server->staging, c->worker->index);
        to = room_in_turn(c, n);
    }
    if (to)
        c->called = false;
    else
        line_join(c, true);
    return to;
}

/* May all of the batch be collected? */
static bool share_allows(const struct conn *c)
{
    return (c->cur.total + STAGING_PIECE - 1) / STAGING_PIECE * (uint64_t)STAGING_PIECE <=
           staging_share(c->worker->server->staging);
}

/* ---- Collecting ---------------------------------------------------------------------------- */

static void ask_queued(struct conn *c)
{
    int n = 0;
    if (ioctl(c->fd, FIONREAD, &n) == 0 && n > 0)
        c->queued = (uint32_t)n;
    c->came = false;
}

/* Nothing is staged yet: may all that is needed wait in the socket? TURN_NEXT: it is to be staged. */
static enum turn look(struct conn *c, bool *enough)
{
    uint32_t need = needed(c), have = c->in_to - c->in_from;
    *enough = true;
    if (have + (uint64_t)c->queued >= need)
        return TURN_NEXT;
    /* The last receive said less: that the socket is asked is the exception. */
    if (c->came)
        ask_queued(c);
    if (have + (uint64_t)c->queued >= need)
        return TURN_NEXT;
    *enough = false;
    if (have > 0 || c->queued > 0 || !c->readable)
        return c->readable ? TURN_NEXT : TURN_WAIT;
    /* Nothing to stage yet; at the end of the stream this receive says so. */
    struct iovec iov = {c->in, CONN_HEAD};
    ssize_t n = conn_recv(c, &iov, 1);
    if (n <= 0)
        return TURN_WAIT;
    c->in_from = 0;
    c->in_to = (uint32_t)n;
    return look(c, enough);
}

enum turn stage_collect(struct conn *c)
{
    struct stage *s = &c->stage;
    if (!s->head) {
        if (c->suspect && share_allows(c))
            s->slow = true;
        bool enough;
        enum turn t = look(c, &enough);
        if (t == TURN_WAIT)
            return t;
        if (enough) {
            c->called = false; /* it needs none any more: others are before it when it does */
            return publish_reserve(c);
        }
    }
    uint32_t n;
    while (s->fill < needed(c) && c->in_from < c->in_to) {
        uint8_t *to = room_or_wait(c, &n);
        if (!to)
            return TURN_WAIT;
        if (n > c->in_to - c->in_from)
            n = c->in_to - c->in_from;
        memcpy(to, c->in + c->in_from, n);
        c->in_from += n;
        filled(c, n);
    }
    if (s->fill == needed(c))
        return publish_reserve(c);
    if (!c->readable)
        return TURN_WAIT;
    uint8_t *to = room_or_wait(c, &n);
    if (!to)
        return TURN_WAIT;
    struct iovec iov = {to, n};
    ssize_t got = conn_recv(c, &iov, 1);
    if (got <= 0)
        return TURN_WAIT;
    filled(c, (uint32_t)got);
    return TURN_NEXT;
}

/* ---- Out of the pool, and back ------------------------------------------------------------- */

void stage_slow(struct conn *c)
{
    struct stage *s = &c->stage;
    struct staging *pool = c->worker->server->staging;
    bool allowed = share_allows(c);
    if (c->state == CONN_STAGE)
        allowed = allowed && staging_slow(pool, s->head); /* there is one: its beginning */
    if (!allowed) {
        conn_fail(c, -ETIMEDOUT,
                  c->state == CONN_STAGE
                      ? "the first 64 KiB of a batch took longer than 30 seconds; " MORE
                      : "a batch came slower than 64 KiB a second; " MORE);
        return;
    }
    s->slow = true;
    c->suspect = true;
    c->strikes = 0;
    if (c->state == CONN_POOL)
        c->state = CONN_MOVE;
    count_add(&c->worker->count.moved, 1);
    conn_ready(c);
}

enum turn stage_move(struct conn *c)
{
    struct incoming *in = &c->cur;
    struct log *log = c->worker->log;
    struct batch *b = &in->pub->b;
    for (uint32_t budget = TURN_SHARED; budget > 0 && c->stage.fill < in->got;) {
        uint32_t n, at = c->stage.fill;
        uint8_t *to = room(c, &n);
        if (!to) {
            conn_fail(c, -ETIMEDOUT, "a batch came slower than 64 KiB a second; " MORE);
            return TURN_WAIT;
        }
        if (n > in->got - at)
            n = in->got - at;
        uint32_t end = at < in->lengths ? in->lengths : at < in->body ? in->body : in->total;
        if (n > end - at)
            n = end - at;
        int rc = 0;
        if (at < in->lengths)
            rc = log_peek_lengths(log, b, at, to, n);
        else if (at < in->body)
            rc = log_peek(log, b, at - in->lengths, to, n);
        else
            memcpy(to, (const uint8_t *)&in->sum + (at - in->body), n);
        if (rc) {
            conn_fail(c, rc, NULL);
            return TURN_WAIT;
        }
        filled(c, n);
        budget -= n < budget ? n : budget;
    }
    if (c->stage.fill < in->got) {
        conn_bulk(c); /* others first */
        return TURN_WAIT;
    }
    publish_unreserve(c);
    c->state = CONN_STAGE;
    return TURN_NEXT;
}

enum turn stage_land(struct conn *c)
{
    struct stage *s = &c->stage;
    for (uint32_t done = 0; s->head;) {
        uint32_t n = s->head == s->tail ? s->tail_fill : s->head->size;
        if (!publish_put(c, s->head->memory, n))
            return TURN_WAIT;
        s->fill -= n;
        done += n;
        if (give_head(c) && done >= conn_share(c)) {
            conn_bulk(c);
            return TURN_WAIT;
        }
    }
    if (s->slow && !s->late)
        c->suspect = false;
    memset(s, 0, sizeof(*s));
    return TURN_NEXT;
}
