/* The ways of sending to subscribers out of the region (loops.h): what the socket takes of a piece when it
 * can take any, as the broker does; a send at a time of each connection through io_uring; the same
 * with IORING_OP_SEND_ZC, which tells later when the memory is free again, and whether it was copied. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tests/bench/loops.h"

/* Also newer than Debian 12's headers: what a notification's result says (Linux 6.2). */
#define ZC_COPIED (1u << 31)

static uint32_t next_piece(const struct loops_load *load, const struct loops_one *o)
{
    uint64_t n = load->piece < o->left ? load->piece : o->left;
    return LOOPS_SLICE - o->at < n ? (uint32_t)(LOOPS_SLICE - o->at) : (uint32_t)n;
}

/* True: that was all of it. */
static bool sent(struct loops_one *o, uint32_t n)
{
    o->left -= n;
    o->at = o->at + n == LOOPS_SLICE ? 0 : o->at + n;
    if (o->left > 0)
        return false;
    (void)shutdown(o->fd, SHUT_WR);
    return true;
}

static int answer(const struct loops_load *load, struct loops_server *s, struct loops_one *o)
{
    (void)s;
    ssize_t k = send(o->fd, o->base + o->at, next_piece(load, o), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (k < 0)
        return -errno;
    return sent(o, (uint32_t)k) ? 0 : 1;
}

static void put_send(const struct loops_load *load, struct loops_server *s, struct uring *u,
                     unsigned i)
{
    struct loops_one *o = &s->one[i];
    bool zc = load->way == SEND_ZC;
    struct io_uring_sqe *sqe =
        uring_put(u, zc ? IORING_OP_SEND_ZC : IORING_OP_SEND, o->fd, o->base + o->at,
                  next_piece(load, o), MSG_NOSIGNAL | MSG_WAITALL, i);
    if (zc)
        sqe->ioprio = IORING_SEND_ZC_REPORT_USAGE;
}

static int completed(const struct loops_load *load, struct loops_server *s, struct uring *u,
                     const struct io_uring_cqe *cqe)
{
    struct loops_one *o = &s->one[cqe->user_data];
    if (cqe->flags & IORING_CQE_F_NOTIF) {
        s->held--;
        if ((uint32_t)cqe->res & ZC_COPIED)
            load->shared->copied++;
        else
            load->shared->zeroed++;
        return 0;
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        s->held++;
    if (cqe->res <= 0)
        return cqe->res ? cqe->res : -EPIPE;
    if (sent(o, (uint32_t)cqe->res))
        s->open--;
    else
        put_send(load, s, u, (unsigned)cqe->user_data);
    return 0;
}

static int answer_uring(const struct loops_load *load, struct loops_server *s)
{
    struct uring u;
    int rc = uring_open(&u, 4 * LOOPS_MOST);
    if (rc)
        return rc;
    for (unsigned i = 0; i < load->connections; i++)
        put_send(load, s, &u, i);
    rc = loops_complete(load, s, &u, completed);
    uring_close(&u);
    return rc;
}

int loops_answer(const struct loops_load *load, struct loops_server *s)
{
    for (unsigned i = 0; i < load->connections; i++)
        s->one[i].left = load->each;
    return load->way == SEND_EPOLL ? loops_poll(load, s, EPOLLOUT, answer) : answer_uring(load, s);
}
