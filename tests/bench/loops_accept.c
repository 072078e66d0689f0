/* The ways of accepting many connections and of being told when one says something (loops.h). The process's
 * end closes them. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/loops.h"
#include "tests/bench/uring.h"

#define BATCH    64u /* as the broker */
#define LISTENER UINT64_MAX

/* Registers up to BATCH descriptors by one submission. */
static int register_together(struct uring *u, int ep, const int *fd, unsigned n)
{
    struct epoll_event ev[BATCH];
    for (unsigned i = 0; i < n; i++) {
        ev[i] = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                     .data.fd = fd[i]};
        struct io_uring_sqe *sqe =
            uring_put(u, IORING_OP_EPOLL_CTL, ep, &ev[i], EPOLL_CTL_ADD, 0, (uint64_t)fd[i]);
        sqe->off = (unsigned)fd[i];
    }
    int rc = 0;
    for (unsigned done = 0; done < n && rc == 0;) {
        const struct io_uring_cqe *cqe;
        rc = uring_ready(u) ? 0 : uring_wait(u);
        while (rc == 0 && (cqe = uring_next(u))) {
            rc = cqe->res;
            done++;
        }
    }
    return rc;
}

static int register_each(int ep, const int *fd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                 .data.fd = fd[i]};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, fd[i], &ev))
            return -errno;
    }
    return 0;
}

static int admit_epoll(const struct loops_load *load, uint64_t all)
{
    struct uring u;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = -1};
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, load->listener, &ev))
        return -errno;
    bool together = load->way == ACCEPT_BATCHED;
    int rc = together ? uring_open(&u, BATCH) : 0;
    for (uint64_t got = 0; got < all && rc == 0;) {
        int fd[BATCH];
        unsigned n = 0;
        if (epoll_wait(ep, &ev, 1, -1) < 0 && errno != EINTR)
            return -errno;
        while (n < BATCH &&
               (fd[n] = accept4(load->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
            n++;
        if (n < BATCH && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            rc = -errno;
        if (rc == 0)
            rc = together ? register_together(&u, ep, fd, n) : register_each(ep, fd, n);
        got += n;
    }
    return rc;
}

static void put_accept(const struct loops_load *load, struct uring *u)
{
    struct io_uring_sqe *sqe = uring_put(u, IORING_OP_ACCEPT, load->listener, NULL, 0,
                                         SOCK_NONBLOCK | SOCK_CLOEXEC, LISTENER);
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
}

static int admit_uring(const struct loops_load *load, uint64_t all)
{
    struct uring u;
    char *head = malloc(all * 64); /* where each one's first bytes would go */
    int rc = head ? uring_open(&u, 4 * BATCH) : -ENOMEM;
    if (rc == 0)
        put_accept(load, &u);
    for (uint64_t got = 0; got < all && rc == 0;) {
        rc = uring_wait(&u);
        for (unsigned k = 0; rc == 0 && k < BATCH; k++) {
            const struct io_uring_cqe *cqe = uring_next(&u);
            if (!cqe)
                break;
            if (cqe->user_data != LISTENER)
                continue;
            if (!(cqe->flags & IORING_CQE_F_MORE))
                put_accept(load, &u);
            if (cqe->res >= 0) {
                (void)uring_put(&u, IORING_OP_RECV, cqe->res, head + got * 64, 64, 0, got);
                got++;
            } else if (cqe->res != -EINTR && cqe->res != -ECONNABORTED) {
                rc = cqe->res;
            }
        }
    }
    if (rc == 0)
        rc = uring_submit(&u); /* the last registrations: nobody says anything */
    return rc;
}

int loops_admit(const struct loops_load *load)
{
    uint64_t all = load->connections * load->each;
    return load->way == ACCEPT_URING ? admit_uring(load, all) : admit_epoll(load, all);
}
