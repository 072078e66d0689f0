/* What all ways of receiving and sending have in common (loops.h): waiting for every connection, by epoll and a
 * call each, or by completions, and telling which have ended. What is done with one is the way's own. */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/bench/loops.h"
#include "tests/bench/uring.h"

static int turns(const struct loops_load *load, struct loops_server *s, int ep, loops_turn *turn)
{
    while (s->open > 0) {
        struct epoll_event ev[LOOPS_EVENTS];
        int n = epoll_wait(ep, ev, LOOPS_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct loops_one *o = &s->one[ev[i].data.u32];
            int rc = turn(load, s, o);
            if (rc == -EAGAIN || rc == -EINTR)
                continue;
            if (rc < 0)
                return rc;
            if (rc == 0) {
                (void)epoll_ctl(ep, EPOLL_CTL_DEL, o->fd, NULL);
                s->open--;
            }
        }
    }
    return 0;
}

int loops_poll(const struct loops_load *load, struct loops_server *s, uint32_t events,
               loops_turn *turn)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    int rc = ep < 0 ? -errno : 0;
    for (unsigned i = 0; i < load->connections && rc == 0; i++) {
        struct epoll_event ev = {.events = events, .data.u32 = i};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, s->one[i].fd, &ev))
            rc = -errno;
    }
    if (rc == 0)
        rc = turns(load, s, ep, turn);
    if (ep >= 0)
        (void)close(ep);
    return rc;
}

int loops_complete(const struct loops_load *load, struct loops_server *s, struct uring *u,
                   loops_completed *completed)
{
    int rc = 0;
    while ((s->open > 0 || s->held > 0) && rc == 0) {
        rc = uring_wait(u);
        /* As many as the ring holds answers for. */
        for (unsigned k = 0; rc == 0 && k < LOOPS_MOST; k++) {
            const struct io_uring_cqe *cqe = uring_next(u);
            if (!cqe)
                break;
            rc = completed(load, s, u, cqe);
        }
    }
    return rc;
}
