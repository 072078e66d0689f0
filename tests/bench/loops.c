/* `embar bench loops`: the two ways in which a worker could wait for sockets and receive into the pool:
 * epoll with a receive each, as the broker does it, and io_uring with receives and sends that are
 * submitted in batches. One server thread in a process of its own and nothing of the broker but what it
 * does with each piece (CRC32C, write-back); the same clients. And the first with a software prefetch
 * of the lines that the next receive fills.
 *
 * bulk: connections send all the time; the server receives up to 256 KiB a go.
 * small: each connection sends 1 KiB, waits for 48 bytes, and sends again.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/crc.h"
#include "core/region.h"
#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/peer_wire.h"
#include "tests/bench/uring.h"

#define PIECE  (256u << 10)
#define SLICE  (64u << 20) /* of the region, a connection */
#define SMALL  1024u
#define REPLY  48u
#define MOST   64u
#define EVENTS 64

enum way { EPOLL, EPOLL_PREFETCH, URING, WAYS };

struct loops_shared {
    double cpu; /* seconds of the server's process within the run */
    struct hist rtt[MOST];
};

struct loops_load {
    enum way way;
    bool small;
    int listener;
    struct sockaddr_in address;
    uint64_t bytes; /* of a connection */
    unsigned connections, ways;
    struct region *region;
    struct loops_shared *shared;
};

struct one {
    int fd;
    char *base;
    size_t at;
    uint32_t part; /* small: bytes of the message at hand */
    uint32_t crc;
    bool end;
};

struct loop_server {
    struct one one[MOST];
    unsigned open;
    char reply[REPLY];
};

/* ---- The server ---------------------------------------------------------------------------- */

static uint32_t room(const struct loops_load *load, const struct one *o)
{
    if (load->small)
        return SMALL - o->part;
    return SLICE - o->at < PIECE ? (uint32_t)(SLICE - o->at) : PIECE;
}

/* What the broker does with each piece. True: a small message is whole. */
static bool landed(const struct loops_load *load, struct one *o, uint32_t n)
{
    o->crc = crc32c(o->crc, o->base + o->at, n);
    flush_writeback(&load->region->flush, o->base + o->at, n);
    o->at += n;
    o->part += n;
    bool whole = load->small && o->part == SMALL;
    if (whole)
        o->part = 0;
    if (o->at + SMALL > SLICE || (!load->small && o->at == SLICE))
        o->at = 0;
    return whole;
}

static void prefetch(const char *at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 64)
        __builtin_prefetch(at + i, 1, 2);
}

static int serve_epoll(const struct loops_load *load, struct loop_server *s, bool ahead)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0)
        return -errno;
    for (unsigned i = 0; i < load->connections; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, s->one[i].fd, &ev))
            return -errno;
    }
    while (s->open > 0) {
        struct epoll_event ev[EVENTS];
        int n = epoll_wait(ep, ev, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct one *o = &s->one[ev[i].data.u32];
            ssize_t got = recv(o->fd, o->base + o->at, room(load, o), MSG_DONTWAIT);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                continue;
            if (got < 0)
                return -errno;
            if (got == 0) {
                (void)epoll_ctl(ep, EPOLL_CTL_DEL, o->fd, NULL);
                s->open--;
                continue;
            }
            if (landed(load, o, (uint32_t)got) &&
                send(o->fd, s->reply, REPLY, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)REPLY)
                return -EPIPE;
            if (ahead)
                prefetch(o->base + o->at, room(load, o));
        }
    }
    (void)close(ep);
    return 0;
}

static void put_recv(const struct loops_load *load, struct loop_server *s, struct uring *u,
                     unsigned i)
{
    struct one *o = &s->one[i];
    uring_put(u, IORING_OP_RECV, o->fd, o->base + o->at, room(load, o), 0, i);
}

static int serve_uring(const struct loops_load *load, struct loop_server *s)
{
    struct uring u;
    int rc = uring_open(&u, 4 * MOST);
    if (rc)
        return rc;
    for (unsigned i = 0; i < load->connections; i++)
        put_recv(load, s, &u, i);
    while (s->open > 0 && rc == 0) {
        const struct io_uring_cqe *cqe;
        rc = uring_wait(&u);
        /* As many as the ring holds answers for: each queues two at most. */
        for (unsigned k = 0; rc == 0 && k < MOST && (cqe = uring_next(&u)); k++) {
            unsigned i = (unsigned)cqe->user_data;
            if (i >= MOST) { /* a reply went out */
                rc = cqe->res == (int)REPLY ? 0 : -EPIPE;
                continue;
            }
            if (cqe->res < 0)
                rc = cqe->res;
            else if (cqe->res == 0)
                s->open--;
            if (cqe->res <= 0)
                continue;
            if (landed(load, &s->one[i], (uint32_t)cqe->res))
                uring_put(&u, IORING_OP_SEND, s->one[i].fd, s->reply, REPLY, MSG_NOSIGNAL,
                          MOST + i);
            put_recv(load, s, &u, i);
        }
    }
    uring_close(&u);
    return rc;
}

static int server_open(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    struct loop_server *s = calloc(1, sizeof(*s));
    if (!s)
        return embar_fail(err, -ENOMEM, "a server");
    w->own = s;
    s->open = load->connections;
    for (unsigned i = 0; i < load->connections; i++) {
        s->one[i].fd = accept4(load->listener, NULL, NULL, SOCK_CLOEXEC);
        s->one[i].base = load->region->base + (size_t)i * SLICE;
        if (s->one[i].fd < 0)
            return embar_fail(err, -errno, "accepting");
        int one = 1;
        (void)setsockopt(s->one[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    return 0;
}

static int server_run(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    uint64_t before = clock_cpu(0);
    int rc = load->way == URING ? serve_uring(load, w->own)
                                : serve_epoll(load, w->own, load->way == EPOLL_PREFETCH);
    load->shared->cpu = (double)(clock_cpu(0) - before) / 1e9;
    return rc ? embar_fail(&w->report->error, rc, "the server's loop") : 0;
}

/* ---- Its clients --------------------------------------------------------------------------- */

struct loop_client {
    int fd;
    char source[PIECE];
};

static int client_open(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    struct loop_client *c = calloc(1, sizeof(*c));
    if (!c)
        return embar_fail(err, -ENOMEM, "a client");
    memset(c->source, 'x', PIECE);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    w->own = c;
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&load->address, sizeof(load->address)))
        return embar_fail(err, -errno, "connecting");
    int one = 1;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return 0;
}

static int client_run(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    struct loop_client *c = w->own;
    struct hist *rtt = &load->shared->rtt[w->index - 1];
    uint32_t each = load->small ? SMALL : PIECE;
    char reply[REPLY];
    int rc = 0;
    for (uint64_t sent = 0; sent < load->bytes && rc == 0; sent += each) {
        uint64_t from = clock_ns();
        rc = io_send(c->fd, c->source, each);
        if (rc == 0 && load->small)
            rc = io_recv(c->fd, reply, REPLY);
        if (rc == 0 && load->small)
            hist_add(rtt, clock_ns() - from);
        w->report->bytes += each;
        w->report->messages++;
    }
    (void)shutdown(c->fd, SHUT_WR);
    return rc ? embar_fail(&w->report->error, rc, "a client of the loop") : 0;
}

static int loops_open(struct load_worker *w)
{
    return w->index == 0 ? server_open(w) : client_open(w);
}

static int loops_run(struct load_worker *w)
{
    return w->index == 0 ? server_run(w) : client_run(w);
}

/* The processes end with the round: what they opened goes with them. */
static const struct load_ops loops_ops = {.open = loops_open, .run = loops_run};

/* ---- Rounds -------------------------------------------------------------------------------- */

struct loops_series {
    struct series *speed[WAYS], *cpu[WAYS], *p50[WAYS];
};

static int one_round(struct loops_load *load, const struct loops_series *s, bool counts,
                     struct embar_error *err)
{
    struct load l = {&loops_ops, load, load->connections + 1, load->connections + 1, 0, 120000};
    struct load_result result;
    memset(load->shared, 0, sizeof(*load->shared));
    int rc = load_run(&l, &result, err);
    if (rc || !counts)
        return rc;
    if (!load->small) {
        series_add(s->speed[load->way], (double)result.bytes / result.seconds / 1e9);
        series_add(s->cpu[load->way], load->shared->cpu / ((double)result.bytes / 1e9));
        return 0;
    }
    struct hist *all = &load->shared->rtt[0];
    for (unsigned i = 1; i < load->connections; i++)
        hist_merge(all, &load->shared->rtt[i]);
    series_add(s->speed[load->way], (double)result.messages / result.seconds);
    series_add(s->cpu[load->way], load->shared->cpu / (double)result.messages * 1e6);
    series_add(s->p50[load->way], (double)hist_percentile(all, 50) / 1e3);
    return 0;
}

static int all_rounds(const struct bench_options *o, struct report *r, struct loops_load *load,
                      struct embar_error *err)
{
    static const char *const names[WAYS] = {"epoll", "epoll, prefetch", "io_uring"};
    struct loops_series s = {0};
    const char *kind = load->small ? "small" : "bulk";
    char name[64];
    int rc = 0;
    for (unsigned k = 0; k < load->ways; k++) {
        (void)snprintf(name, sizeof(name), "%s, %s: %s", kind, names[k],
                       load->small ? "messages/s" : "GB/s");
        s.speed[k] = report_series(r, name, load->small ? "1/s" : "GB/s ", 0);
        (void)snprintf(name, sizeof(name), "%s, %s: server's time", kind, names[k]);
        s.cpu[k] = report_series(r, name, load->small ? "us/message" : "s/GB", 0);
        (void)snprintf(name, sizeof(name), "%s, %s: p50", kind, names[k]);
        if (load->small)
            s.p50[k] = report_series(r, name, "us", 0);
    }
    for (unsigned round = 0; round < o->rounds + o->warmup && rc == 0; round++)
        for (unsigned k = 0; k < load->ways && rc == 0; k++) {
            load->way = (enum way)((k + round) % load->ways);
            rc = one_round(load, &s, round >= o->warmup, err);
        }
    for (unsigned k = EPOLL_PREFETCH; k < load->ways && rc == 0; k++) {
        report_ratio(r, s.speed[k], s.speed[EPOLL]);
        report_ratio(r, s.cpu[k], s.cpu[EPOLL]);
        if (load->small)
            report_ratio(r, s.p50[k], s.p50[EPOLL]);
    }
    return rc;
}

static int listen_anywhere(struct loops_load *load, struct embar_error *err)
{
    socklen_t n = sizeof(load->address);
    load->address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    load->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (load->listener < 0 ||
        bind(load->listener, (struct sockaddr *)&load->address, sizeof(load->address)) ||
        listen(load->listener, (int)MOST) ||
        getsockname(load->listener, (struct sockaddr *)&load->address, &n))
        return embar_fail(err, -errno, "a listening socket");
    return 0;
}

int bench_loops(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct region region = {0};
    struct uring u;
    unsigned n = o->connections < MOST ? o->connections : MOST - 1;
    struct loops_load load = {.region = &region, .connections = n, .listener = -1};
    int rc = uring_open(&u, 8);
    load.ways = rc ? URING : WAYS;
    if (rc)
        report_caveat(r, "io_uring is left out: this kernel or container does not give it (%s).",
                      strerror(-rc));
    else
        uring_close(&u);
    struct region_options ro = {
        .spec = "mem:", .size = (uint64_t)n * SLICE, .flush = o->flush, .durability = -1};
    rc = region_open(&region, &ro, err);
    if (rc)
        return rc;
    region_prefault(&region, NULL, NULL);
    load.shared =
        mmap(NULL, sizeof(*load.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (load.shared == MAP_FAILED)
        rc = embar_fail(err, -ENOMEM, "histograms");
    if (rc == 0)
        rc = listen_anywhere(&load, err);
    report_machine(r);
    report_fact(r, "server", "one thread, %u connections over TCP on loopback", n);
    report_fact(r, "a piece", "up to 256 KiB: received in place, CRC32C, write-back %s",
                region.flush.ops->name);
    report_fact(r, "a round", "bulk: %llu bytes, small: %llu messages, of each connection",
                (unsigned long long)(o->bytes / n), (unsigned long long)(o->bytes / n / 65536));
    report_caveat(r, "Neither loop spins, and neither is the broker: what else it does with a "
                     "batch makes any difference smaller.");
    load.bytes = o->bytes / n / PIECE * PIECE;
    if (rc == 0)
        rc = all_rounds(o, r, &load, err);
    load.small = true;
    load.bytes = o->bytes / n / 65536 * SMALL;
    if (rc == 0)
        rc = all_rounds(o, r, &load, err);
    if (load.listener >= 0)
        (void)close(load.listener);
    region_close(&region);
    return rc;
}
