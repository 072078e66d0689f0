/* Connections: their life, their turns, what goes out (steps 1 and 9).
 *
 * A turn writes what is due, reads and handles up to its share of bytes, and writes again; a connection
 * that could go on is put at the end of the bulk list, so that none starves the others. Sockets
 * are edge-triggered: `readable` and `writable` are true until a call says otherwise.
 *
 * Order on the wire: a DATA frame that is half sent comes first, then the out-buffer (whole frames),
 * then what channels owe, then a TEXT, then subscriptions in turn. A peer that does not read is not
 * read from once its out-buffer stands still.
 *
 * Closing. conn_fail queues the last ERROR; when it is out our side is shut and input is dropped
 * until the peer closes or 3 ticks passed, since closing with unread input would reset the
 * connection and could take the ERROR with it. conn_close ends it at once: the reservation of a
 * half-received batch is given back, what was announced stays under way.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/server/internal.h"

#define SHARED_STEP  512u  /* turns that one of somebody else between keeps short: some 10 ms */
#define SHARED_TURNS 4096u /* at most */
#define TICKS_HELLO  10u
#define TICKS_STAGED 30u
#define TICKS_SLOW   5u
#define TICKS_HURRY  2u /* the first may have begun before the batch */
#define TICKS_SILENT 300u
#define TICKS_ALONE  30u
#define TICKS_LINGER 3u
#define RATE_MIN     (64u << 10) /* bytes a tick for a batch that holds pool space */

struct conn *conn_new(struct server *s, int fd, bool local)
{
    struct conn *c = slab_take(&s->conns);
    if (!c)
        return NULL;
    memset(&c->fd, 0, offsetof(struct conn, out) - offsetof(struct conn, fd));
    c->fd = fd;
    c->local = local;
    c->uid = s->uid;
    c->gid = s->gid;
    TAILQ_INIT(&c->dirty);
    TAILQ_INIT(&c->active);
    return c;
}

#define OWN_SHARE                                                                                  \
    "one user has as many of the broker's connections as one may (the last eighth is for "         \
    "others); "                                                                                    \
    "close some of yours, or try again later"

bool conn_join(struct conn *c, struct server *s, uint32_t uid, const char **why)
{
    struct tenant *t = staging_tenant(s->staging, uid);
    enum share rc = share_take(&s->connections, &t->open, 1, s->max_connections);
    if (rc == SHARE_TAKEN) {
        c->tenant = t;
        return true;
    }
    staging_leave(s->staging, t);
    *why =
        rc == SHARE_ALL ? "the broker has as many connections as it may; try again later"
        : uid == STRANGER
            ? "too many have connected here and not shown the token yet; try again later, or use "
              "the broker's Unix socket"
            : OWN_SHARE;
    return false;
}

int conn_known(struct conn *c, const char **why)
{
    struct server *s = c->worker->server;
    struct tenant *t = staging_tenant(s->staging, c->uid), *was = c->tenant;
    bool moved = share_move(&was->open, &t->open, 1, s->max_connections);
    if (moved)
        c->tenant = t;
    else
        *why = OWN_SHARE;
    staging_leave(s->staging, moved ? was : t);
    return moved ? 0 : -EMBAR_ELIMIT;
}

void conn_free(struct server *s, struct conn *c)
{
    free(c->ask);
    free(c->channels);
    slab_give(&s->conns, c);
}

static void conn_timed(struct conn *c)
{
    bool need = !c->closed && (!c->hello || c->stage.head || c->linger || c->closing ||
                               c->state == CONN_POOL || c->state == CONN_MOVE);
    struct worker *w = c->worker;
    if (need == c->timed)
        return;
    c->timed = need;
    c->strikes = 0;
    c->ticked = c->received;
    if (need) {
        TAILQ_INSERT_TAIL(&w->timed, c, timed_link);
        worker_timer(w);
    } else {
        TAILQ_REMOVE(&w->timed, c, timed_link);
    }
}

void conn_adopt(struct worker *w, struct mail *m)
{
    struct conn *c = container_of(m, struct conn, mail);
    c->worker = w;
    TAILQ_INSERT_TAIL(&w->all, c, all_link);
    count_add(&w->count.connections, 1);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (w->stopping || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        conn_close(c);
        return;
    }
    /* The edge that is there already is told by the next epoll_wait. */
    conn_timed(c);
}

void conn_ready(struct conn *c)
{
    if (c->ready || c->closed)
        return;
    if (c->worker->shared > 0 && c->cycle >= c->worker->cycle && c->used >= TURN_SHARED) {
        conn_bulk(c); /* else those who are read soon are sent to soon, and get ever more turns */
        return;
    }
    conn_next(c);
}

void conn_next(struct conn *c)
{
    conn_unready(c);
    c->ready = true;
    TAILQ_INSERT_TAIL(&c->worker->ready, c, ready_link);
}

void conn_bulk(struct conn *c)
{
    if (c->bulk || c->closed)
        return;
    /* Its own answers made it ready within this turn: they are written at its end. */
    conn_unready(c);
    c->bulk = true;
    TAILQ_INSERT_TAIL(&c->worker->bulk, c, ready_link);
}

void conn_unready(struct conn *c)
{
    struct worker *w = c->worker;
    if (w && w->cycle_end == c)
        w->cycle_end = TAILQ_PREV(c, conn_list, ready_link);
    if (c->ready)
        TAILQ_REMOVE(&w->ready, c, ready_link);
    else if (c->bulk)
        TAILQ_REMOVE(&w->bulk, c, ready_link);
    c->ready = c->bulk = false;
}

uint32_t conn_share(const struct conn *c)
{
    const struct worker *w = c->worker;
    if (w->shared == 0)
        return TURN_IN;
    uint32_t used = c->cycle >= w->cycle ? c->used : 0;
    return used < TURN_SHARED - TURN_LEAST ? TURN_SHARED - used : TURN_LEAST;
}

void conn_brought(struct conn *c, uint64_t n)
{
    struct worker *w = c->worker;
    if (c->cycle < w->cycle) {
        c->used = 0;
        c->cycle = w->cycle;
    }
    c->used += n < TURN_IN ? (uint32_t)n : TURN_IN;
    if (c->used > TURN_IN)
        c->used = TURN_IN;
    /* Several connections that bring something keep each other's turns short for a while, and for the
     * longer the more often they do: one that says a word now and then costs a stream of another one
     * little. */
    if (w->last_in != c && w->last_in)
        w->shared += w->shared < SHARED_TURNS ? SHARED_STEP : 0;
    else if (w->shared > 0)
        w->shared--;
    w->last_in = c;
}

void conn_wait_end(struct conn *c)
{
    if (c->line)
        line_leave(c);
    space_end(c);
}

void conn_unref(struct conn *c)
{
    c->refs--;
    if (c->closed && c->refs == 0)
        TAILQ_INSERT_TAIL(&c->worker->dead, c, ready_link);
}

static void text_end(struct conn *c)
{
    share_give(&c->worker->server->text, &c->tenant->text, c->text_to);
    free(c->text);
    c->text = NULL;
}

void conn_close(struct conn *c)
{
    if (c->closed)
        return;
    struct worker *w = c->worker;
    c->closed = true;
    publish_drop(c);
    conn_wait_end(c);
    conn_timed(c);
    conn_unready(c);
    while (c->channel_count > 0)
        channel_drop(c->channels[c->channel_count - 1]);
    if (c->text)
        text_end(c);
    if (c->ask && !c->ask->pending)
        ask_end(c);
    close(c->fd); /* leaves the epoll set by itself: the descriptor is nowhere else */
    c->fd = -1;
    TAILQ_REMOVE(&w->all, c, all_link);
    count_sub(&w->count.connections, 1);
    atomic_fetch_sub_explicit(&w->placed, 1, memory_order_relaxed);
    share_give(&w->server->connections, &c->tenant->open, 1);
    staging_leave(w->server->staging, c->tenant);
    c->tenant = NULL;
    if (w->listeners_off && !w->stopping)
        listener_arm(w, true);
    if (c->refs == 0)
        TAILQ_INSERT_TAIL(&w->dead, c, ready_link); /* freed when this round of events is over */
}

/* ---- Out ----------------------------------------------------------------------------------- */

void conn_put(struct conn *c, enum wire_type type, uint16_t channel, uint64_t ref, const void *body,
              uint32_t length)
{
    struct wire_frame f = wire_frame_of(type, 0, channel, ref, length);
    if (c->out_from == c->out_to)
        c->out_from = c->out_to = 0;
    if (CONN_OUT - c->out_to < sizeof(f) + length) {
        memmove(c->out, c->out + c->out_from, c->out_to - c->out_from);
        c->out_to -= c->out_from;
        c->out_from = 0;
    }
    if (CONN_OUT - c->out_to < sizeof(f) + length)
        abort(); /* callers keep CONN_OUT_KEEP free: our own invariant */
    memcpy(c->out + c->out_to, &f, sizeof(f));
    memcpy(c->out + c->out_to + sizeof(f), body, length);
    c->out_to += (uint32_t)sizeof(f) + length;
    conn_ready(c);
}

static void put_error(struct conn *c, uint16_t channel, uint64_t ref, int code, const char *text)
{
    struct {
        struct wire_error e;
        char text[256];
    } body;
    if (!text)
        text = embar_strerror(code);
    size_t n = strnlen(text, sizeof(body.text));
    body.e = (struct wire_error){.code = le32_of((uint32_t)-code), .text = le16_of((uint16_t)n)};
    memcpy(body.text, text, n);
    conn_put(c, WIRE_ERROR, channel, ref, &body, (uint32_t)(sizeof(body.e) + n));
}

void conn_refuse(struct conn *c, const struct wire_frame *f, int code, const char *text)
{
    if (!text && code == -ENOENT)
        text = "there is no topic or directory of that name here";
    put_error(c, le16_get(f->channel), le64_get(f->ref), code, text);
}

void conn_ok(struct conn *c, const struct wire_frame *f, uint64_t value)
{
    conn_ok_two(c, f, value, 0);
}

void conn_ok_two(struct conn *c, const struct wire_frame *f, uint64_t value, uint64_t value2)
{
    struct wire_ok ok = {.value = le64_of(value), .value2 = le64_of(value2)};
    conn_put(c, WIRE_OK, le16_get(f->channel), le64_get(f->ref), &ok, sizeof(ok));
}

void conn_fail(struct conn *c, int code, const char *text)
{
    struct worker *w = c->worker;
    if (c->closed || c->closing)
        return;
    if (code != -EMBAR_ESHUTDOWN)
        count_add(c->hello ? &w->count.errors : &w->count.refused, 1);
    publish_drop(c);
    conn_wait_end(c);
    while (channel_collect(c) && c->writable) {
        struct iovec iov = {c->out + c->out_from, c->out_to - c->out_from};
        if (c->mid)
            break;
        ssize_t n = conn_send(c, &iov, 1);
        if (n < 0)
            return;
        c->out_from += (uint32_t)n;
    }
    if (c->mid || (c->text && c->text_from > 0) || CONN_OUT - (c->out_to - c->out_from) < 512) {
        conn_close(c); /* an ERROR cannot come in the middle of a frame */
        return;
    }
    put_error(c, 0, 0, code, text);
    c->closing = true;
    conn_timed(c);
    conn_ready(c);
}

int conn_text(struct conn *c, const struct wire_frame *f, char *buf, uint32_t length, bool more)
{
    struct server *s = c->worker->server;
    uint32_t all = length + (uint32_t)sizeof(struct wire_frame);
    if (share_take(&s->text, &c->tenant->text, all, SERVER_TEXT) != SHARE_TAKEN) {
        free(buf);
        return -EMBAR_ELIMIT;
    }
    struct wire_frame head = wire_frame_of(WIRE_TEXT, more ? WIRE_F_MORE : 0, le16_get(f->channel),
                                           le64_get(f->ref), length);
    memcpy(buf, &head, sizeof(head));
    c->text = buf;
    c->text_from = 0;
    c->text_to = all;
    conn_ready(c);
    return 0;
}

/* Pool memory that is gone does not raise a signal in the kernel: the call says so. */
static bool pool_is_gone(const struct conn *c, int error)
{
    if (error != EFAULT && error != EHWPOISON)
        return false;
    log_fault(c->worker->log, -EMBAR_EFAULTED);
    return true;
}

ssize_t conn_send(struct conn *c, struct iovec *iov, int pieces)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)pieces};
    for (;;) {
        ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            return n;
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN) {
            c->writable = false;
            return 0;
        }
        if (pool_is_gone(c, errno))
            return -EMBAR_EFAULTED;
        conn_close(c);
        return -1;
    }
}

/* 1: sent something or nothing is left, 0: full, -1: done for. */
static int write_out(struct conn *c)
{
    while (c->out_from < c->out_to) {
        struct iovec iov = {c->out + c->out_from, c->out_to - c->out_from};
        ssize_t n = conn_send(c, &iov, 1);
        if (n <= 0)
            return (int)n;
        c->out_from += (uint32_t)n;
    }
    return 1;
}

static int write_text(struct conn *c)
{
    while (c->text_from < c->text_to) {
        struct iovec iov = {c->text + c->text_from, c->text_to - c->text_from};
        ssize_t n = conn_send(c, &iov, 1);
        if (n <= 0)
            return (int)n;
        c->text_from += (uint32_t)n;
    }
    text_end(c);
    conn_ready(c); /* input waited for it */
    return 1;
}

/* What is due; of subscriptions, *budget bytes. */
static void conn_write(struct conn *c, size_t *budget)
{
    while (c->writable && !c->closed) {
        if (c->mid) {
            if (*budget == 0) {
                conn_ready(c);
                return;
            }
            if (subscribe_send(c->mid, budget) <= 0)
                return;
            continue;
        }
        if (c->text && c->text_from > 0) {
            if (write_text(c) <= 0)
                return;
            continue;
        }
        if (write_out(c) <= 0)
            return;
        if (c->closing)
            return;
        if (channel_collect(c))
            continue;
        if (c->text) {
            if (write_text(c) <= 0)
                return;
            continue;
        }
        struct channel *ch = TAILQ_FIRST(&c->active);
        if (!ch)
            return;
        if (*budget == 0) {
            conn_ready(c);
            return;
        }
        TAILQ_REMOVE(&c->active, ch, active_link); /* round robin */
        TAILQ_INSERT_TAIL(&c->active, ch, active_link);
        if (subscribe_send(ch, budget) < 0)
            return;
    }
}

/* ---- In ------------------------------------------------------------------------------------ */

/* What a receive says of the bytes behind it; one where only the stream's end is. */
static void hear_queued(struct conn *c, struct msghdr *m)
{
    int n = 0;
    const struct cmsghdr *h = CMSG_FIRSTHDR(m);
    bool told = h && h->cmsg_level == IPPROTO_TCP && h->cmsg_type == TCP_CM_INQ &&
                h->cmsg_len >= CMSG_LEN(sizeof(n));
    if (told)
        memcpy(&n, CMSG_DATA(h), sizeof(n));
    c->queued = n > 0 ? (uint32_t)n : 0;
    c->came = !told;
}

ssize_t conn_recv(struct conn *c, struct iovec *iov, int pieces)
{
    size_t want = 0;
    for (int i = 0; i < pieces; i++)
        want += iov[i].iov_len;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    for (;;) {
        struct msghdr m = {.msg_iov = iov,
                           .msg_iovlen = (size_t)pieces,
                           .msg_control = c->tells ? &control : NULL,
                           .msg_controllen = c->tells ? sizeof(control) : 0};
        ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT);
        if (n > 0) {
            hear_queued(c, &m);
            /* The next byte of an empty stream is a new edge. Where the kernel does not say how much
             * is left, a short count means that it is empty. The end of the stream is told once, so it
             * is read for until it comes. */
            if ((c->came ? (size_t)n < want : c->queued == 0) && !c->hup)
                c->readable = false;
            /* Descriptors, which nobody asked for: a receive ends behind them, however much follows. */
            if (c->local && (m.msg_flags & MSG_CTRUNC)) {
                conn_close(c);
                return -1;
            }
            c->received += (uint64_t)n;
            c->worker->brought += (uint64_t)n;
            return n;
        }
        if (n == 0) {
            conn_close(c);
            return -1;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN) {
            c->readable = c->came = false;
            c->queued = 0;
            return 0;
        }
        if (pool_is_gone(c, errno))
            conn_fail(c, -EMBAR_EFAULTED, NULL);
        else
            conn_close(c);
        return -1;
    }
}

static void drop_input(struct conn *c)
{
    size_t budget = TURN_IN;
    while (c->readable && !c->closed && budget > 0) {
        struct iovec iov = {c->worker->scratch, SCRATCH_SIZE};
        ssize_t n = conn_recv(c, &iov, 1);
        if (n <= 0)
            return;
        budget -= (size_t)n < budget ? (size_t)n : budget;
    }
    if (c->readable)
        conn_bulk(c);
}

void conn_turn(struct conn *c)
{
    size_t budget = TURN_OUT;
    conn_write(c, &budget);
    if (!c->closed && !c->closing && !c->worker->stopping)
        parse_input(c);
    if (!c->closed)
        conn_write(c, &budget);
    if (c->closed)
        return;
    if (c->out_full && CONN_OUT - (c->out_to - c->out_from) >= CONN_OUT_KEEP) {
        c->out_full = false;
        conn_ready(c);
    }
    if (c->closing && !c->linger && c->out_from == c->out_to) {
        c->linger = true;
        shutdown(c->fd, SHUT_WR);
    }
    if (c->linger) {
        if (c->worker->stopping) {
            conn_close(c);
            return;
        }
        drop_input(c);
        if (c->closed)
            return;
    }
    conn_timed(c);
}

void conn_parked_tick(struct conn *c)
{
    if (c->hup && ++c->alone >= TICKS_ALONE)
        conn_close(c);
}

void conn_tick(struct conn *c)
{
    int queued = 0;
    c->strikes++;
    if (c->closing) {
        if (c->strikes >= TICKS_LINGER)
            conn_close(c);
    } else if (!c->hello) {
        if (c->strikes >= TICKS_HELLO)
            conn_fail(c, -ETIMEDOUT, "no handshake came within 10 seconds");
    } else if (c->parked || c->state == CONN_MOVE) {
        c->strikes = 0; /* it waits for us */
    } else if (c->state == CONN_POOL) {
        /* What waits in the socket, or in staging, is our delay and not the peer's. */
        if (c->stage.head || c->received - c->ticked >= RATE_MIN ||
            (ioctl(c->fd, FIONREAD, &queued) == 0 && queued > 0))
            c->strikes = 0;
        else if (c->strikes >= (c->worker->hurry ? TICKS_HURRY : TICKS_SLOW))
            stage_slow(c);
    } else if (c->line) {
        /* Slow batches could wait for each other for ever: one gives up, and then others find some. */
        if (c->stage.slow && ++c->stage.waited >= TICKS_STAGED && !c->worker->one_gave_up) {
            c->worker->one_gave_up = true;
            conn_fail(c, -ETIMEDOUT,
                      "a slow batch found no staging memory for 30 seconds; send smaller batches, "
                      "or give the daemon more --staging");
        }
    } else if (c->stage.slow) {
        c->stage.late |= c->received - c->ticked < RATE_MIN;
        if (c->received != c->ticked)
            c->strikes = 0;
        else if (c->strikes >= TICKS_SILENT)
            conn_fail(c, -ETIMEDOUT, "nothing came of a batch that had begun for 5 minutes");
    } else if (c->strikes >= TICKS_STAGED) {
        stage_slow(c);
    }
    c->ticked = c->received;
}
