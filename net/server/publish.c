/* PUBLISH: from its header to its ACK (steps 2 to 6 and 9).
 *
 *   publish_begin   step 2    header checked; duplicate, stale or far-early: into scratch
 *   publish_reserve step 3    when min(body, 64 KiB) is here (stage.c): space, or wait for it (space.c)
 *   publish_pool    steps 4,5 receive in place, at most 256 KiB a go, each written back while hot
 *   whole           step 6    checksums, announce, or wait for a place in the pending ring
 *   pub_deliver     step 9    the completion is back on this worker: the channel owes an ACK
 *
 * The log runs the epoch (steps 7 and 8) when the worker calls log_commit at the end of its round.
 * Must never keep a reservation of a connection that is gone, nor touch the pool for a batch that
 * its header already rules out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/server/internal.h"

/* ---- Batch objects ------------------------------------------------------------------------- */

#define PUBS_KEPT 4096u

static void pub_done(struct completion *self, const struct commit *commit)
{
    struct pub *p = container_of(self, struct pub, completion);
    p->result = *commit;
    mail_push(&p->channel->worker->box, &p->mail);
}

static void pub_deliver(struct worker *w, struct mail *m);

static struct pub *pub_take(struct worker *w)
{
    struct pub *p = TAILQ_FIRST(&w->pub_free);
    if (p) {
        TAILQ_REMOVE(&w->pub_free, p, link);
        w->pub_free_count--;
    } else {
        p = malloc(sizeof(*p));
    }
    if (p) {
        memset(p, 0, sizeof(*p));
        p->completion.done = pub_done;
        p->mail.deliver = pub_deliver;
        p->b.completion = &p->completion;
    }
    return p;
}

static void pub_give(struct worker *w, struct pub *p)
{
    if (w->pub_free_count >= PUBS_KEPT) {
        free(p);
        return;
    }
    w->pub_free_count++;
    TAILQ_INSERT_HEAD(&w->pub_free, p, link);
}

/* ---- Completion ---------------------------------------------------------------------------- */

static void mark_raise(struct channel *ch, uint64_t sequence, uint64_t messages)
{
    if (sequence > ch->mark)
        ahead_pass(ch, sequence);
    if (messages > ch->messages)
        ch->messages = messages;
}

static void mark_advance(struct channel *ch, uint64_t sequence, uint64_t messages)
{
    mark_raise(ch, sequence, messages);
    if (ch->ack > 0) {
        ch->ack_due = true;
        channel_dirty(ch);
    }
}

static void refused(struct channel *ch, const struct pub *p)
{
    const struct commit *r = &p->result;
    if (r->status == -EMBAR_EFENCED) {
        ch->error.epoch = r->epoch;
        ch->error.messages = r->messages;
        channel_error(ch, r->status, p->ref, r->sequence, NULL);
    } else {
        channel_error(ch, r->status, p->ref, p->b.sequence, NULL);
    }
}

static void offset_advance(struct channel *ch, const struct pub *p)
{
    if (!p->result.duplicate && p->result.offset + p->b.length > ch->offset)
        ch->offset = p->result.offset + p->b.length;
}

/* Without a session: acks go by the channel's own count, in its order. */
static void counted(struct channel *ch)
{
    struct pub *p;
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was given back is not on the list any more
    while ((p = TAILQ_FIRST(&ch->pubs)) && p->done) {
        TAILQ_REMOVE(&ch->pubs, p, link);
        if (p->result.status) {
            refused(ch, p);
        } else if (!ch->broken) {
            offset_advance(ch, p);
            mark_advance(ch, p->b.sequence, ch->messages + p->b.count);
        }
        pub_give(ch->worker, p);
    }
}

static void pub_deliver(struct worker *w, struct mail *m)
{
    struct pub *p = container_of(m, struct pub, mail);
    struct channel *ch = p->channel;
    struct conn *c = p->conn;
    w->outstanding--;
    ch->inflight--;
    if (ch->session == 0) {
        p->done = true;
        counted(ch);
    } else {
        if (p->result.status) {
            refused(ch, p);
        } else {
            offset_advance(ch, p);
            mark_advance(ch, p->result.sequence, p->result.messages);
            if (ch->ack > 0)
                ahead_set(ch, p->b.sequence); /* orders 0 and 2: a gap before it may be left */
        }
        pub_give(w, p);
    }
    if (ch->dead)
        channel_drop(ch);
    else if (ch->inflight == 0)
        conn_ready(c); /* a CLOSE may wait for it */
    conn_unref(c);
}

/* ---- Header -------------------------------------------------------------------------------- */

static void to_scratch(struct conn *c)
{
    c->state = CONN_SCRATCH;
}

/* Where does this batch stand in its session? True: it is to be stored. */
static bool session_asked(struct conn *c, struct channel *ch)
{
    struct incoming *in = &c->cur;
    struct session_stat st;
    int rc = log_session(c->worker->log, ch->session, &st);
    if (rc) {
        channel_error(ch, rc, in->ref, in->sequence, NULL);
        return false;
    }
    if (in->epoch != st.epoch && log_fenced(in->epoch, st.epoch) == -EMBAR_ETAKEN) {
        channel_error(ch, -EMBAR_ETAKEN, in->ref, in->sequence, NULL);
        return false;
    }
    if (in->epoch != st.epoch) {
        ch->error.epoch = st.epoch;
        ch->error.messages = st.messages;
        channel_error(ch, -EMBAR_EFENCED, in->ref, st.sequence, NULL);
        return false;
    }
    ch->epoch = st.epoch;
    if (in->sequence <= st.sequence) {
        in->duplicate = true;
        count_add(&c->worker->count.duplicates, 1);
        mark_raise(ch, st.sequence, st.messages);
        return false;
    }
    if (in->sequence > st.sequence + WIRE_WINDOW) {
        channel_error(ch, -EMBAR_ELIMIT, in->ref, in->sequence,
                      "a batch is further ahead of the last acked one than the window allows");
        return false;
    }
    return true;
}

/* The same without the sessions' lock where the channel's own knowledge is enough: of this epoch, new
 * on this channel, in the window. What it cannot know yet, the sequencer finds: a takeover, or that
 * the batch came by another connection too. */
static bool session_admits(struct conn *c, struct channel *ch)
{
    const struct incoming *in = &c->cur;
    bool next = in->epoch == ch->epoch && in->sequence > ch->seen && in->sequence > ch->mark &&
                in->sequence - ch->mark <= WIRE_WINDOW;
    if (!next && !session_asked(c, ch))
        return false;
    if (in->sequence > ch->seen)
        ch->seen = in->sequence;
    return true;
}

enum turn publish_begin(struct conn *c, const struct wire_frame *f, const struct wire_publish *p)
{
    const char *why;
    struct incoming *in = &c->cur;
    int rc = wire_publish_check(f, p, c->worker->server->max_batch, MEDIA_MAX_MESSAGES, &why);
    if (rc) {
        conn_fail(c, rc, why);
        return TURN_WAIT;
    }
    struct channel *ch = channel_find(c, le16_get(f->channel));
    if (!ch || ch->kind != CHANNEL_PUBLISH) {
        conn_fail(c, -EMBAR_EPROTO, "a batch on a channel that is not open for publishing");
        return TURN_WAIT;
    }
    *in = (struct incoming){.channel = ch,
                            .ref = le64_get(f->ref),
                            .sequence = le64_get(p->sequence),
                            .count = le32_get(p->count),
                            .payload = le32_get(p->payload),
                            .payload_crc = le32_get(p->payload_crc),
                            .lengths_crc = le32_get(p->lengths_crc),
                            .epoch = le32_get(p->epoch),
                            .equal = f->flags & WIRE_F_EQUAL};
    in->lengths = in->equal ? 0 : 4 * in->count;
    in->body = in->lengths + in->payload; /* wire_publish_check bounds both */
    in->total = in->body + (f->flags & WIRE_F_SUM ? (uint32_t)sizeof(in->sum) : 0);
    c->small = in->total <= CONN_SMALL;
    c->called = false; /* for the batch before */
    c->state = CONN_STAGE;
    if (ch->broken) {
        to_scratch(c);
    } else if (ch->session) {
        if (!session_admits(c, ch))
            to_scratch(c);
    } else if (in->sequence != ch->next) {
        conn_fail(c, -EMBAR_EPROTO, "batches without a session are numbered 1, 2, 3 and so on");
        return TURN_WAIT;
    } else {
        ch->next++;
        if (in->sequence > ch->mark + WIRE_WINDOW) {
            channel_error(ch, -EMBAR_ELIMIT, in->ref, in->sequence,
                          "more batches are unacked than the window allows");
            to_scratch(c);
        }
    }
    return TURN_NEXT;
}

/* ---- Space --------------------------------------------------------------------------------- */

void publish_unreserve(struct conn *c)
{
    struct pub *p = c->cur.pub;
    if (!p)
        return;
    log_abandon(c->worker->log, &p->b);
    pub_give(c->worker, p);
    c->cur.pub = NULL;
    c->cur.got = c->cur.crc = 0;
}

void publish_drop(struct conn *c)
{
    stage_drop(c);
    publish_unreserve(c);
    memset(&c->cur, 0, sizeof(c->cur));
    c->state = CONN_FRAME;
}

bool publish_put(struct conn *c, const uint8_t *p, uint32_t n)
{
    struct incoming *in = &c->cur;
    struct batch *b = &in->pub->b;
    struct log *log = c->worker->log;
    int rc = 0;
    if (in->got < in->lengths) {
        uint32_t k = in->lengths - in->got;
        if (k > n)
            k = n;
        rc = log_store_lengths(log, b, in->got, p, k);
        in->got += k;
        p += k;
        n -= k;
    }
    if (rc == 0 && n > 0 && in->got < in->body) {
        uint32_t k = in->body - in->got < n ? in->body - in->got : n;
        rc = log_store(log, b, in->got - in->lengths, p, k, &in->crc);
        in->got += k;
        p += k;
        n -= k;
    }
    if (rc == 0 && n > 0) {
        memcpy((uint8_t *)&in->sum + (in->got - in->body), p, n);
        in->got += n;
    }
    if (rc)
        conn_fail(c, rc, NULL);
    return rc == 0;
}

static uint32_t body_take_in(struct conn *c)
{
    uint32_t n = c->in_to - c->in_from;
    if (n > c->cur.total - c->cur.got)
        n = c->cur.total - c->cur.got;
    return n;
}

enum turn publish_reserve(struct conn *c)
{
    struct worker *w = c->worker;
    struct incoming *in = &c->cur;
    struct pub *p = pub_take(w);
    if (!p) {
        conn_fail(c, -ENOMEM, NULL);
        return TURN_WAIT;
    }
    p->conn = c;
    p->channel = in->channel;
    p->ref = in->ref;
    p->b.topic = in->channel->topic;
    p->b.length = in->payload;
    p->b.count = in->count;
    p->b.equal = in->equal;
    p->b.session = in->channel->session;
    p->b.sequence = in->sequence;
    p->b.epoch = in->epoch;
    int rc = space_reserve(c, &p->b);
    if (rc) {
        pub_give(w, p);
        /* One that is not to be stored does not wait for space. */
        bool vain = rc == -EMBAR_EFULL && in->channel->session && !session_asked(c, in->channel);
        if (rc == -EMBAR_EFULL && !vain) {
            space_join(c);
            return TURN_WAIT;
        }
        space_end(c);
        /* Not the connection's fault: the topic is gone, or the pool. */
        if (!vain)
            channel_error(in->channel, rc, in->ref, in->sequence, NULL);
        in->got = c->stage.fill;
        stage_drop(c);
        to_scratch(c);
        return TURN_NEXT;
    }
    space_end(c);
    in->pub = p;
    c->state = CONN_POOL;
    c->strikes = c->alone = 0;
    c->ticked = c->received;
    return TURN_NEXT;
}

/* ---- Body ---------------------------------------------------------------------------------- */

#define PLACES 5 /* iovecs: lengths, two spans, sum, input buffer */

static enum turn whole(struct conn *c)
{
    struct worker *w = c->worker;
    struct incoming *in = &c->cur;
    struct pub *p = in->pub;
    struct channel *ch = in->channel;
    if (in->total > in->body)
        in->payload_crc = le32_get(in->sum.payload_crc);
    if (in->crc != in->payload_crc) {
        conn_fail(c, -EMBAR_ECRC, "the payload of a batch does not match its checksum");
        return TURN_WAIT;
    }
    uint32_t lengths_crc = 0;
    int rc = in->equal ? 0 : log_lengths_crc(w->log, &p->b, &lengths_crc);
    if (rc) {
        conn_fail(c, rc, NULL);
        return TURN_WAIT;
    }
    if (!in->equal && lengths_crc != in->lengths_crc) {
        conn_fail(c, -EMBAR_ECRC, "the lengths of a batch do not match their checksum");
        return TURN_WAIT;
    }
    p->b.payload_crc = in->payload_crc;
    rc = log_announce(w->producer, &p->b);
    if (rc == -EMBAR_EINVALID) {
        conn_fail(c, -EMBAR_EPROTO, "the message lengths of a batch do not add up to its payload");
        return TURN_WAIT;
    }
    if (rc == -EAGAIN) {
        space_join_ring(c); /* the batch is whole: it comes here again */
        return TURN_WAIT;
    }
    if (rc) {
        channel_error(ch, rc, in->ref, in->sequence, NULL);
        publish_drop(c);
        return TURN_NEXT;
    }
    ch->inflight++;
    c->refs++;
    w->outstanding++;
    w->todo++;
    if (ch->session == 0)
        TAILQ_INSERT_TAIL(&ch->pubs, p, link);
    count_add(&w->count.batches, 1);
    count_add(&w->count.bytes_in, in->payload);
    memset(in, 0, sizeof(*in));
    c->state = CONN_FRAME;
    return TURN_NEXT;
}

/* Where the next bytes go: lengths, payload spans up to RECV_MAX, the sum, and when that is all of the
 * batch, the input buffer for what follows it. Returns pieces; *batch gets their bytes without it. */
static int body_places(struct conn *c, struct iovec iov[PLACES], uint32_t *batch)
{
    struct log *log = c->worker->log;
    struct incoming *in = &c->cur;
    struct batch *b = &in->pub->b;
    uint32_t at = in->got, room = conn_share(c) < RECV_MAX ? conn_share(c) : RECV_MAX;
    int n = 0;
    if (at < in->lengths) {
        iov[n++] = (struct iovec){(uint8_t *)log_lengths(log, b) + at, in->lengths - at};
        room -= in->lengths - at < room ? in->lengths - at : room;
        at = in->lengths;
    }
    while (at < in->body && room > 0 && n < 3) {
        uint32_t here;
        void *p = log_span(log, b, at - in->lengths, &here);
        if (here > room)
            here = room;
        iov[n++] = (struct iovec){p, here};
        at += here;
        room -= here;
    }
    if (at >= in->body && at < in->total) {
        iov[n++] = (struct iovec){(uint8_t *)&in->sum + (at - in->body), in->total - at};
        at = in->total;
    }
    *batch = at - in->got;
    if (at == in->total) {
        c->in_from = c->in_to = 0;
        iov[n++] = (struct iovec){c->in, conn_in_end(c)};
    }
    return n;
}

enum turn publish_pool(struct conn *c)
{
    struct incoming *in = &c->cur;
    if (c->stage.head && stage_land(c) == TURN_WAIT)
        return TURN_WAIT;
    uint32_t k = body_take_in(c);
    if (k > 0) {
        if (!publish_put(c, c->in + c->in_from, k))
            return TURN_WAIT;
        c->in_from += k;
    }
    if (in->got == in->total)
        return whole(c);
    if (!c->readable)
        return TURN_WAIT;
    struct iovec iov[PLACES];
    uint32_t batch;
    int pieces = body_places(c, iov, &batch);
    ssize_t got = conn_recv(c, iov, pieces);
    if (got <= 0)
        return TURN_WAIT;
    uint32_t n = (uint32_t)got;
    if (n > batch) {
        c->in_to = n - batch;
        n = batch;
    }
    if (in->got < in->lengths) {
        k = in->lengths - in->got < n ? in->lengths - in->got : n;
        in->got += k;
        n -= k;
    }
    k = in->got >= in->body ? 0 : in->body - in->got < n ? in->body - in->got : n;
    int rc =
        k > 0 ? log_landed(c->worker->log, &in->pub->b, in->got - in->lengths, k, &in->crc) : 0;
    if (rc) {
        conn_fail(c, rc, NULL);
        return TURN_WAIT;
    }
    in->got += n;
    return in->got == in->total ? whole(c) : TURN_NEXT;
}

enum turn publish_scratch(struct conn *c)
{
    struct incoming *in = &c->cur;
    uint32_t k = body_take_in(c);
    in->got += k;
    c->in_from += k;
    if (in->got < in->total) {
        if (!c->readable)
            return TURN_WAIT;
        uint32_t want = in->total - in->got;
        struct iovec iov = {c->worker->scratch, want < SCRATCH_SIZE ? want : SCRATCH_SIZE};
        ssize_t n = conn_recv(c, &iov, 1);
        if (n <= 0)
            return TURN_WAIT;
        in->got += (uint32_t)n;
        return TURN_NEXT;
    }
    if (in->duplicate && !in->channel->broken)
        mark_advance(in->channel, 0, 0); /* acked again */
    memset(in, 0, sizeof(*in));
    c->state = CONN_FRAME;
    return TURN_NEXT;
}
