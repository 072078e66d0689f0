/* `embar bench loops`: the ways in which a worker could wait for sockets, receive into the pool, send out of
 * it and accept: epoll and a call each, as the broker does it, and io_uring. One server thread in a
 * process of its own and nothing of the broker but what it does with each piece (CRC32C, write-back); the
 * same clients, a process each. The ways: loops_recv.c, loops_send.c, loops_accept.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/loops.h"
#include "tests/bench/peer_wire.h"
#include "tests/bench/raw.h"
#include "tests/bench/uring.h"

#define WAYS 7u
#define CONNECTIONS_MOST                                                                           \
    4000u /* fewer than the backlog: a connection that finds it full waits a second */

/* Ways that are compared with the first of them. */
struct contest {
    const char *name;
    enum loops_kind kind;
    uint32_t piece;
    unsigned plain; /* of the ways: the first ones, without io_uring */
    unsigned ways;
    const char *way[WAYS];
};

#define RECV_WAYS                                                                                  \
    4, 7,                                                                                          \
    {                                                                                              \
        "epoll", "epoll, prefetch", "epoll, recvmsg", "epoll, recvmmsg", "io_uring", "multishot",  \
            "bundles"                                                                              \
    }
#define SEND_WAYS                                                                                  \
    3,                                                                                             \
    {                                                                                              \
        "send", "io_uring", "send_zc"                                                              \
    }
static const struct contest contests[] = {
    {"bulk", LOOPS_BULK, 0, RECV_WAYS},
    {"small", LOOPS_SMALLS, 0, RECV_WAYS},
    {"answers of 64 KiB", LOOPS_ANSWERS, 64u << 10, 1, SEND_WAYS},
    {"answers of 256 KiB", LOOPS_ANSWERS, 256u << 10, 1, SEND_WAYS},
    {"answers of 1 MiB", LOOPS_ANSWERS, 1u << 20, 1, SEND_WAYS},
    {"accept", LOOPS_CONNECTIONS, 0, 1, 3, {"epoll_ctl each", "epoll_ctl batched", "multishot"}},
};
#define CONTESTS (sizeof(contests) / sizeof(contests[0]))

/* ---- The server ---------------------------------------------------------------------------- */

static int server_open(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    struct loops_server *s = calloc(1, sizeof(*s));
    if (!s)
        return embar_fail(err, -ENOMEM, "a server");
    w->own = s;
    s->open = load->connections;
    if (load->kind == LOOPS_CONNECTIONS) {
        raw_raise_limit();
        int flags = fcntl(load->listener, F_GETFL);
        return fcntl(load->listener, F_SETFL, flags | O_NONBLOCK) == 0
                   ? 0
                   : embar_fail(err, -errno, "a listening socket");
    }
    for (unsigned i = 0; i < load->connections; i++) {
        s->one[i].fd = accept4(load->listener, NULL, NULL, SOCK_CLOEXEC);
        s->one[i].base = load->region->base + (size_t)i * LOOPS_SLICE;
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
    int rc = load->kind == LOOPS_CONNECTIONS ? loops_admit(load)
             : load->kind == LOOPS_ANSWERS   ? loops_answer(load, w->own)
                                             : loops_receive(load, w->own);
    load->shared->cpu = (double)(clock_cpu(0) - before) / 1e9;
    return rc ? embar_fail(&w->report->error, rc, "the server's loop") : 0;
}

/* ---- Its clients --------------------------------------------------------------------------- */

struct loops_client {
    int fd;
    char source[LOOPS_PIECE];
};

static int dial(const struct loops_load *load, struct embar_error *err)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&load->address, sizeof(load->address)))
        return embar_fail(err, -errno, "connecting");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static int client_open(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    struct loops_client *c = calloc(1, sizeof(*c));
    if (!c)
        return embar_fail(err, -ENOMEM, "a client");
    memset(c->source, 'x', sizeof(c->source));
    w->own = c;
    c->fd = -1;
    if (load->kind != LOOPS_CONNECTIONS)
        c->fd = dial(load, err);
    return c->fd < 0 ? err->code : 0;
}

static int publish(struct load_worker *w, struct loops_client *c)
{
    const struct loops_load *load = w->load->arg;
    struct hist *rtt = &load->shared->rtt[w->index - 1];
    bool small = load->kind == LOOPS_SMALLS;
    uint32_t each = small ? LOOPS_SMALL : LOOPS_PIECE;
    char reply[LOOPS_REPLY];
    int rc = 0;
    for (uint64_t sent = 0; sent < load->each && rc == 0; sent += each) {
        uint64_t from = clock_ns();
        rc = io_send(c->fd, c->source, each);
        if (rc == 0 && small)
            rc = io_recv(c->fd, reply, LOOPS_REPLY);
        if (rc == 0 && small)
            hist_add(rtt, clock_ns() - from);
        w->report->bytes += each;
        w->report->messages++;
    }
    (void)shutdown(c->fd, SHUT_WR);
    return rc;
}

static int subscribe(struct load_worker *w, struct loops_client *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, c->source, sizeof(c->source), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        w->report->bytes += (uint64_t)n;
    }
}

/* They end by a reset, which leaves no port behind that waits for a minute. */
static int connect_many(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    const struct linger reset = {.l_onoff = 1};
    int rc = 0;
    raw_raise_limit();
    for (uint64_t i = 0; i < load->each && rc == 0; i++) {
        int fd = dial(load, &w->report->error);
        rc = fd < 0 ? fd : 0;
        if (rc == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) != 0)
            rc = -errno;
        w->report->messages++;
    }
    return rc;
}

static int client_run(struct load_worker *w)
{
    const struct loops_load *load = w->load->arg;
    int rc = load->kind == LOOPS_CONNECTIONS ? connect_many(w)
             : load->kind == LOOPS_ANSWERS   ? subscribe(w, w->own)
                                             : publish(w, w->own);
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
    memset(load->shared->rtt, 0, sizeof(load->shared->rtt));
    int rc = load_run(&l, &result, err);
    if (rc || !counts)
        return rc;
    if (load->kind == LOOPS_BULK || load->kind == LOOPS_ANSWERS) {
        series_add(s->speed[load->way], (double)result.bytes / result.seconds / 1e9);
        series_add(s->cpu[load->way], load->shared->cpu / ((double)result.bytes / 1e9));
        return 0;
    }
    series_add(s->speed[load->way], (double)result.messages / result.seconds);
    series_add(s->cpu[load->way], load->shared->cpu / (double)result.messages * 1e6);
    if (load->kind == LOOPS_CONNECTIONS)
        return 0;
    struct hist *all = &load->shared->rtt[0];
    for (unsigned i = 1; i < load->connections; i++)
        hist_merge(all, &load->shared->rtt[i]);
    series_add(s->p50[load->way], (double)hist_percentile(all, 50) / 1e3);
    return 0;
}

static void make_series(struct report *r, const struct contest *c, unsigned ways,
                        struct loops_series *s)
{
    bool bytes = c->kind == LOOPS_BULK || c->kind == LOOPS_ANSWERS;
    const char *speed = bytes                          ? "GB/s"
                        : c->kind == LOOPS_CONNECTIONS ? "connections/s"
                                                       : "messages/s";
    char name[64];
    for (unsigned k = 0; k < ways; k++) {
        (void)snprintf(name, sizeof(name), "%s, %s: %s", c->name, c->way[k], speed);
        s->speed[k] = report_series(r, name, bytes ? "GB/s " : "1/s", 0);
        (void)snprintf(name, sizeof(name), "%s, %s: server's time", c->name, c->way[k]);
        s->cpu[k] = report_series(r, name, bytes ? "s/GB" : "us each", 0);
        (void)snprintf(name, sizeof(name), "%s, %s: p50", c->name, c->way[k]);
        if (c->kind == LOOPS_SMALLS)
            s->p50[k] = report_series(r, name, "us", 0);
    }
}

static uint64_t share_of(const struct bench_options *o, const struct loops_load *load)
{
    uint64_t each = o->bytes / load->connections;
    uint64_t smalls = each / 65536;
    switch (load->kind) {
    case LOOPS_SMALLS: return smalls * LOOPS_SMALL;
    case LOOPS_CONNECTIONS:
        return smalls * load->connections < CONNECTIONS_MOST ? smalls
                                                             : CONNECTIONS_MOST / load->connections;
    default: return each / LOOPS_PIECE * LOOPS_PIECE;
    }
}

static int contest_run(const struct bench_options *o, struct report *r, struct loops_load *load,
                       const struct contest *c, unsigned ways, struct embar_error *err)
{
    struct loops_series s = {0};
    int rc = 0;
    load->kind = c->kind;
    load->piece = c->piece;
    load->each = share_of(o, load);
    make_series(r, c, ways, &s);
    for (unsigned round = 0; round < o->rounds + o->warmup && rc == 0; round++)
        for (unsigned k = 0; k < ways && rc == 0; k++) {
            load->way = (k + round) % ways;
            rc = one_round(load, &s, round >= o->warmup, err);
        }
    for (unsigned k = 1; k < ways && rc == 0; k++) {
        report_ratio(r, s.speed[k], s.speed[0]);
        report_ratio(r, s.cpu[k], s.cpu[0]);
        if (c->kind == LOOPS_SMALLS)
            report_ratio(r, s.p50[k], s.p50[0]);
    }
    return rc;
}

/* Each contest with the ways that there are on this machine. */
static int all_contests(const struct bench_options *o, struct report *r, struct loops_load *load,
                        struct embar_error *err)
{
    struct uring u;
    int ring = uring_open(&u, 8);
    bool bundles = ring == 0 && (u.features & IORING_FEAT_RECVSEND_BUNDLE);
    if (ring)
        report_caveat(r, "io_uring is left out: this kernel or container does not give it (%s).",
                      strerror(-ring));
    else
        uring_close(&u);
    if (ring == 0 && !bundles)
        report_caveat(r, "Bundles are left out: this kernel is older than 6.10.");
    int rc = 0;
    for (unsigned i = 0; i < CONTESTS && rc == 0; i++) {
        const struct contest *c = &contests[i];
        unsigned ways = ring ? c->plain : c->ways;
        if (ways > RECV_BUNDLE && !bundles)
            ways = RECV_BUNDLE;
        if (ways > 1)
            rc = contest_run(o, r, load, c, ways, err);
    }
    uint64_t copied = load->shared->copied, all = copied + load->shared->zeroed;
    if (rc == 0 && all > 0)
        report_fact(r, "send_zc", "%llu of %llu sends were copied by the kernel",
                    (unsigned long long)copied, (unsigned long long)all);
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
        listen(load->listener, LOOPS_BACKLOG) ||
        getsockname(load->listener, (struct sockaddr *)&load->address, &n))
        return embar_fail(err, -errno, "a listening socket");
    return 0;
}

int bench_loops(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct region region = {0};
    unsigned n = o->connections < LOOPS_MOST ? o->connections : LOOPS_MOST - 1;
    struct loops_load load = {.region = &region, .connections = n, .listener = -1};
    struct region_options ro = {
        .spec = "mem:", .size = (uint64_t)n * LOOPS_SLICE, .flush = o->flush, .durability = -1};
    int rc = region_open(&region, &ro, err);
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
    uint64_t smalls = o->bytes / n / 65536;
    report_fact(r, "a round",
                "bulk and answers: %llu bytes, small: %llu messages, of each connection",
                (unsigned long long)(o->bytes / n), (unsigned long long)smalls);
    report_caveat(r, "No loop spins: what else the broker does with a batch makes any difference "
                     "smaller.");
    if (rc == 0)
        rc = all_contests(o, r, &load, err);
    if (load.listener >= 0)
        (void)close(load.listener);
    region_close(&region);
    return rc;
}
