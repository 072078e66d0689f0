/* The ways of sending to subscribers out of the region (loops.h): what the socket takes of a piece when it
 * can take any, as the broker does; a send at a time of each connection through io_uring; the same
 * with IORING_OP_SEND_ZC, which tells later when the memory is free again, and whether it was copied. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/loops.h"
#include "tests/bench/uring.h"

/* Also newer than Debian 12's headers: what a notification's result says (Linux 6.2). */
#define ZC_COPIED (1u << 31)

static uint32_t next_piece(const struct loops_load *load, const struct loops_one *o)
{
    uint64_t n = load->piece < o->left ? load->piece : o->left;
    return LOOPS_SLICE - o->at < n ? (uint32_t)(LOOPS_SLICE - o->at) : (uint32_t)n;
}

static void sent(struct loops_server *s, struct loops_one *o, uint32_t n)
{
    o->left -= n;
    o->at = o->at + n == LOOPS_SLICE ? 0 : o->at + n;
    if (o->left == 0) {
        (void)shutdown(o->fd, SHUT_WR);
        s->open--;
    }
}

static int answer_epoll(const struct loops_load *load, struct loops_server *s)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0)
        return -errno;
    for (unsigned i = 0; i < load->connections; i++) {
        struct epoll_event ev = {.events = EPOLLOUT, .data.u32 = i};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, s->one[i].fd, &ev))
            return -errno;
    }
    while (s->open > 0) {
        struct epoll_event ev[LOOPS_EVENTS];
        int n = epoll_wait(ep, ev, LOOPS_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct loops_one *o = &s->one[ev[i].data.u32];
            ssize_t k =
                send(o->fd, o->base + o->at, next_piece(load, o), MSG_NOSIGNAL | MSG_DONTWAIT);
            if (k < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (k < 0)
                return -errno;
            sent(s, o, (uint32_t)k);
            if (o->left == 0)
                (void)epoll_ctl(ep, EPOLL_CTL_DEL, o->fd, NULL);
        }
    }
    (void)close(ep);
    return 0;
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

static int answer_uring(const struct loops_load *load, struct loops_server *s)
{
    struct uring u;
    unsigned held = 0; /* sends whose memory is not free yet */
    int rc = uring_open(&u, 4 * LOOPS_MOST);
    if (rc)
        return rc;
    for (unsigned i = 0; i < load->connections; i++)
        put_send(load, s, &u, i);
    while ((s->open > 0 || held > 0) && rc == 0) {
        rc = uring_wait(&u);
        for (unsigned k = 0; rc == 0 && k < LOOPS_MOST; k++) {
            const struct io_uring_cqe *cqe = uring_next(&u);
            if (!cqe)
                break;
            struct loops_one *o = &s->one[cqe->user_data];
            if (cqe->flags & IORING_CQE_F_NOTIF) {
                held--;
                if ((uint32_t)cqe->res & ZC_COPIED)
                    load->shared->copied++;
                else
                    load->shared->zeroed++;
                continue;
            }
            if (cqe->flags & IORING_CQE_F_MORE)
                held++;
            if (cqe->res <= 0) {
                rc = cqe->res ? cqe->res : -EPIPE;
                break;
            }
            sent(s, o, (uint32_t)cqe->res);
            if (o->left > 0)
                put_send(load, s, &u, (unsigned)cqe->user_data);
        }
    }
    uring_close(&u);
    return rc;
}

int loops_answer(const struct loops_load *load, struct loops_server *s)
{
    for (unsigned i = 0; i < load->connections; i++)
        s->one[i].left = load->each;
    return load->way == SEND_EPOLL ? answer_epoll(load, s) : answer_uring(load, s);
}
