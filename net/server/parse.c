/* The frame parser: bytes into frames, frames to their handlers (step 2).
 *
 * Frames are collected in the connection's input buffer, which holds the largest ask; of a PUBLISH
 * only the 64 bytes of its headers must fit, its body is publish.c's. A handler that has to wait
 * leaves its frame where it is and is called again. Every length is compared with a bound before it
 * is used; what makes no sense ends the connection with a sentence.
 */
#include <string.h>

#include "net/server/internal.h"

/* Make room behind what is there and receive: 1 got some, 0 none now, -1 done for. */
static int fill(struct conn *c)
{
    if (c->in_from == c->in_to)
        c->in_from = c->in_to = 0;
    uint32_t end = conn_in_end(c);
    if (c->in_from > 0 && c->in_to + CONN_HEAD / 2 > end) {
        memmove(c->in, c->in + c->in_from, c->in_to - c->in_from);
        c->in_to -= c->in_from;
        c->in_from = 0;
    }
    if (!c->readable)
        return 0;
    /* What is there is less than a frame, so it ends before. */
    struct iovec iov = {c->in + c->in_to, end - c->in_to};
    ssize_t n = conn_recv(c, &iov, 1);
    if (n <= 0)
        return (int)n;
    c->in_to += (uint32_t)n;
    return 1;
}

static enum turn dispatch(struct conn *c, const struct wire_frame *f, const uint8_t *body)
{
    switch (f->type) {
    case WIRE_HELLO: return hello_frame(c, f, body);
    case WIRE_OPEN: return open_frame(c, f, body);
    case WIRE_CLOSE: return close_frame(c, f, body);
    case WIRE_SUBSCRIBE: return subscribe_frame(c, f, body);
    case WIRE_CANCEL: return cancel_frame(c, f);
    case WIRE_ADMIN: return admin_frame(c, f, body);
    case WIRE_PING:
        if (le32_get(f->length) == 0)
            conn_ok(c, f, 0);
        else
            conn_fail(c, -EMBAR_EPROTO, "a PING has no body");
        return TURN_NEXT;
    default: conn_fail(c, -EMBAR_EPROTO, "a frame of a type that clients do not send");
    }
    return TURN_WAIT;
}

/* One frame of the input buffer. TURN_WAIT with *more: it is not whole yet. */
static enum turn frame(struct conn *c, bool *more)
{
    uint32_t have = c->in_to - c->in_from;
    const uint8_t *at = c->in + c->in_from;
    struct wire_frame f;
    *more = true;
    /* A foreign protocol is told by its first bytes: it may never send more of them. */
    if (!c->hello && have >= 5 && at[4] != WIRE_HELLO) {
        conn_fail(c, -EMBAR_EPROTO, "this port speaks embarfs' protocol; the first frame is HELLO");
        return TURN_WAIT;
    }
    if (have < sizeof(f))
        return TURN_WAIT;
    memcpy(&f, at, sizeof(f));
    if (f.type == WIRE_PUBLISH) {
        struct wire_publish p;
        if (have < sizeof(f) + sizeof(p))
            return TURN_WAIT;
        memcpy(&p, at + sizeof(f), sizeof(p));
        c->in_from += (uint32_t)(sizeof(f) + sizeof(p));
        return publish_begin(c, &f, &p);
    }
    uint32_t length = le32_get(f.length);
    if (length > WIRE_MAX_ASK || f.flags != 0) {
        conn_fail(c, -EMBAR_EPROTO, "a frame longer than its type allows, or with unknown flags");
        return TURN_WAIT;
    }
    if (have < sizeof(f) + length)
        return TURN_WAIT;
    *more = false;
    enum turn t = dispatch(c, &f, at + sizeof(f));
    if (t == TURN_NEXT && !c->closed)
        c->in_from += (uint32_t)sizeof(f) + length;
    return t;
}

/* Frames, until the buffer holds no whole one; then receive. */
static enum turn frames(struct conn *c)
{
    for (;;) {
        /* The answer to an ask must find room. */
        if (c->text || (!c->writable && c->out_from < c->out_to))
            return TURN_WAIT; /* writing goes on when the peer reads, and then so do we */
        if (CONN_OUT - (c->out_to - c->out_from) < CONN_OUT_KEEP) {
            c->out_full = true;
            return TURN_WAIT;
        }
        if (c->ask && c->ask->pending)
            return TURN_WAIT;
        bool more;
        enum turn t = frame(c, &more);
        if (c->closed || c->closing)
            return TURN_WAIT;
        if (t == TURN_NEXT)
            return TURN_NEXT;
        if (!more || fill(c) <= 0)
            return TURN_WAIT;
    }
}

void parse_input(struct conn *c)
{
    uint64_t before = c->received;
    uint32_t share = conn_share(c);
    enum turn t = TURN_NEXT;
    while (t == TURN_NEXT) {
        if (c->closed || c->closing || c->parked || c->line)
            break;
        if (c->received - before >= share) {
            conn_bulk(c); /* others first */
            break;
        }
        switch (c->state) {
        case CONN_FRAME: t = frames(c); break;
        case CONN_STAGE: t = stage_collect(c); break;
        case CONN_MOVE: t = stage_move(c); break;
        case CONN_POOL: t = publish_pool(c); break;
        case CONN_SCRATCH: t = publish_scratch(c); break;
        }
    }
    if (c->received != before)
        conn_brought(c, c->received - before);
}
