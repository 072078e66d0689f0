/* `embar bench fair`: what others do to a connection. A publisher at a fixed rate, alone, beside one
 * that sends 16 MiB batches flat out, and beside one that sends such a batch byte by byte; and how
 * evenly many publishers that all want everything are served. The greedy one is also measured on a
 * broker of its own: what it does to the publisher from there, the machine does.
 *
 * Workers: 0 is the paced publisher (latency.c); 1, in another process, the neighbour, which goes on
 * until the first is done. What they tell each other and the parent stands in shared memory.
 */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/crc.h"
#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/paced.h"
#include "tests/bench/raw.h"
#include "tests/bench/source.h"

#define NEIGHBOUR    "embar-bench-beside" /* its topic */
#define GREEDY_BATCH (16u << 20)
#define GREEDY_SEND  (128u << 10) /* a call: a longer one keeps its core from others in the kernel */
#define TRICKLE_HEAD (4u << 20)   /* of its batch that comes at once */
#define SMALL_BATCH  (64u << 10)  /* of the many */
#define KEEP         (64u << 20)  /* bytes that the neighbours' topics keep */
#define EVENTS       64

#define ELSEWHERE_POOL (1u << 30)

enum neighbour { ALONE, ELSEWHERE, GREEDY, TRICKLE, KINDS };

struct fair_shared {
    struct paced_shared paced;
    atomic_bool over;           /* set by the paced one; relaxed: it only ends the neighbour */
    double jain, least_of_even; /* of the many */
};

struct fair_load {
    struct paced_load paced; /* first: what worker 0 sees */
    enum neighbour kind;
    const struct daemon *beside; /* the neighbour's broker */
    unsigned connections;
    struct fair_shared *shared;
};

struct one {
    int fd;
    uint8_t head[RAW_HEAD];
    size_t sent; /* of the batch at hand, head included */
    uint64_t sequence;
    struct raw_acks acks;
};

struct neighbours {
    struct one *one;
    unsigned n;
    uint8_t *payload;
    uint32_t size, crc;
};

static void beside_close(struct neighbours *b)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->one[i].fd >= 0)
            (void)close(b->one[i].fd);
    free(b->one);
    free(b->payload);
    free(b);
}

static int beside_open(struct load_worker *w, unsigned n, uint32_t size)
{
    const struct fair_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    struct neighbours *b = calloc(1, sizeof(*b));
    struct one *one = calloc(n, sizeof(*one));
    uint8_t *payload = malloc(size);
    struct address to;
    if (!b || !one || !payload) {
        free(b);
        free(one);
        free(payload);
        return embar_fail(err, -ENOMEM, "a neighbour");
    }
    *b = (struct neighbours){.one = one, .n = n, .payload = payload, .size = size};
    w->own = b;
    memset(payload, 'n', size);
    b->crc = crc32c(0, payload, size);
    raw_raise_limit();
    for (unsigned i = 0; i < n; i++)
        one[i].fd = -1;
    int rc = raw_find(load->beside, &to, err);
    for (unsigned i = 0; i < n && rc == 0; i++) {
        one[i].fd = raw_connect(&to, err);
        rc = one[i].fd < 0 ? one[i].fd : raw_open(one[i].fd, NEIGHBOUR, err);
    }
    if (rc)
        beside_close(b);
    return rc;
}

/* Send what the socket takes of the batch at hand, at most `most` bytes; *end: it is all sent. */
static int push(struct neighbours *b, struct one *o, size_t most, bool *end)
{
    size_t all = RAW_HEAD + b->size;
    if (o->sent == 0)
        raw_head(o->head, ++o->sequence, b->size, b->crc);
    struct iovec iov[2];
    int pieces = 0;
    if (o->sent < RAW_HEAD)
        iov[pieces++] = (struct iovec){o->head + o->sent, RAW_HEAD - o->sent};
    size_t at = o->sent < RAW_HEAD ? 0 : o->sent - RAW_HEAD;
    iov[pieces++] = (struct iovec){b->payload + at, b->size - at < most ? b->size - at : most};
    ssize_t n = raw_write(o->fd, iov, pieces);
    *end = false;
    if (n == -EAGAIN)
        return -EAGAIN;
    if (n < 0)
        return (int)n;
    o->sent += (size_t)n;
    if (o->sent == all) {
        o->sent = 0;
        *end = true;
    }
    return 0;
}

static bool over(const struct fair_load *load)
{
    return atomic_load_explicit(&load->shared->over, memory_order_relaxed);
}

static void wait_writable(int fd)
{
    struct epoll_event ev = {.events = EPOLLOUT};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0)
        (void)epoll_wait(ep, &ev, 1, 10);
    if (ep >= 0)
        (void)close(ep);
}

static int greedy_run(const struct fair_load *load, struct neighbours *b, struct embar_error *err)
{
    struct one *o = &b->one[0];
    bool end;
    while (!over(load)) {
        int rc = push(b, o, GREEDY_SEND, &end);
        if (rc == -EAGAIN)
            wait_writable(o->fd);
        else if (rc)
            return embar_fail(err, rc, "the greedy publisher");
        rc = raw_hear(o->fd, &o->acks, err);
        if (rc)
            return rc;
    }
    return o->acks.acked > 0 ? 0 : embar_fail(err, -EPIPE, "the greedy publisher got no batch in");
}

static int trickle_run(const struct fair_load *load, struct neighbours *b, struct embar_error *err)
{
    struct one *o = &b->one[0];
    uint64_t next = clock_ns();
    bool end;
    while (!over(load)) {
        size_t most = o->sent < TRICKLE_HEAD ? TRICKLE_HEAD - o->sent : 1;
        int rc = most > 1 || clock_ns() >= next ? push(b, o, most, &end) : -EAGAIN;
        if (rc == 0 && most == 1)
            next = clock_ns() + 1000000000u;
        if (rc == -EAGAIN)
            clock_sleep(1000000);
        else if (rc)
            return embar_fail(err, rc, "the trickling publisher");
        rc = raw_hear(o->fd, &o->acks, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int fair_open(struct load_worker *w)
{
    if (w->index == 0)
        return paced_ops.open(w);
    /* Under chrt the broker and the paced one come first, and what is measured is no longer who of
     * them waits for a core behind the neighbour. */
    (void)sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    return beside_open(w, 1, GREEDY_BATCH);
}

static int fair_run(struct load_worker *w)
{
    const struct fair_load *load = w->load->arg;
    if (w->index > 0)
        return load->kind == TRICKLE ? trickle_run(load, w->own, &w->report->error)
                                     : greedy_run(load, w->own, &w->report->error);
    int rc = paced_ops.run(w);
    atomic_store_explicit(&load->shared->over, true, memory_order_relaxed);
    return rc;
}

static void fair_close(struct load_worker *w)
{
    if (w->index == 0)
        paced_ops.close(w);
    else
        beside_close(w->own);
}

static const struct load_ops fair_ops = {.open = fair_open, .run = fair_run, .close = fair_close};

/* ---- Many ---------------------------------------------------------------------------------- */

static int many_open(struct load_worker *w)
{
    const struct fair_load *load = w->load->arg;
    return beside_open(w, load->connections, SMALL_BATCH);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* How even: Jain's index (1: all alike, 1/n: one has all), and the least as part of the median. */
static int evenness(const struct neighbours *b, const uint64_t *before, struct fair_shared *s,
                    struct embar_error *err)
{
    double sum = 0, squares = 0;
    double *x = calloc(b->n, sizeof(*x));
    if (!x)
        return embar_fail(err, -ENOMEM, "counts");
    for (unsigned i = 0; i < b->n; i++) {
        x[i] = (double)(b->one[i].acks.acked - before[i]);
        sum += x[i];
        squares += x[i] * x[i];
    }
    qsort(x, b->n, sizeof(*x), compare);
    s->jain = squares > 0 ? sum * sum / (b->n * squares) : 0;
    s->least_of_even = x[b->n / 2] > 0 ? x[0] / x[b->n / 2] : 0;
    free(x);
    return 0;
}

static int many_loop(const struct fair_load *load, struct neighbours *b, int ep, uint64_t *before,
                     struct embar_error *err)
{
    uint64_t start = clock_ns(), half = start + load->paced.options->seconds * 500000000ull,
             until = start + load->paced.options->seconds * 1000000000ull;
    bool counting = false, end;
    for (uint64_t now = start; now < until; now = clock_ns()) {
        struct epoll_event ev[EVENTS];
        int n = epoll_wait(ep, ev, EVENTS, 100);
        for (int i = 0; i < n; i++) {
            struct one *o = &b->one[ev[i].data.u32];
            int rc = (ev[i].events & EPOLLOUT) ? push(b, o, b->size, &end) : 0;
            if (rc == 0 || rc == -EAGAIN)
                rc = raw_hear(o->fd, &o->acks, err);
            else
                (void)embar_fail(err, rc, "one of the many publishers");
            if (rc)
                return rc;
        }
        if (!counting && now >= half) { /* the beginning is who came first */
            counting = true;
            for (unsigned i = 0; i < b->n; i++)
                before[i] = b->one[i].acks.acked;
        }
    }
    return 0;
}

static int many_run(struct load_worker *w)
{
    const struct fair_load *load = w->load->arg;
    struct neighbours *b = w->own;
    struct embar_error *err = &w->report->error;
    uint64_t *before = calloc(b->n, sizeof(*before));
    int ep = epoll_create1(EPOLL_CLOEXEC);
    int rc = ep >= 0 && before ? 0 : embar_fail(err, -ENOMEM, "many publishers");
    for (unsigned i = 0; i < b->n && rc == 0; i++) {
        struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.u32 = i};
        if (epoll_ctl(ep, EPOLL_CTL_ADD, b->one[i].fd, &ev) != 0)
            rc = embar_fail(err, -errno, "many publishers");
    }
    if (rc == 0)
        rc = many_loop(load, b, ep, before, err);
    if (rc == 0)
        rc = evenness(b, before, load->shared, err);
    for (unsigned i = 0; i < b->n && rc == 0; i++)
        w->report->bytes += (b->one[i].acks.acked) * b->size;
    free(before);
    if (ep >= 0)
        (void)close(ep);
    return rc;
}

static void many_close(struct load_worker *w)
{
    beside_close(w->own);
}

static const struct load_ops many_ops = {.open = many_open, .run = many_run, .close = many_close};

/* ---- Rounds -------------------------------------------------------------------------------- */

/* The neighbours publish more than the pool holds: their topic forgets. */
static int neighbours_topic(struct daemon *d, bool make, struct embar_error *err)
{
    struct embar_topic_options opt = EMBAR_TOPIC_OPTIONS;
    struct embar_client *client = NULL;
    opt.keep_bytes = KEEP;
    opt.when_full = EMBAR_TRIM;
    int rc = daemon_connect(d, &client, err);
    if (rc == 0)
        rc = embar_remove(client, NEIGHBOUR, err);
    if (rc == -ENOENT)
        rc = 0;
    if (rc == 0 && make)
        rc = embar_create(client, NEIGHBOUR, &opt, err);
    embar_disconnect(client);
    return rc;
}

struct fair {
    const struct bench_options *o;
    struct daemon *daemon, *elsewhere;
    struct fair_shared *shared;
    struct series *p50[KINDS], *p99[KINDS], *jain, *least, *speed;
    struct hist all[KINDS];
};

static struct fair_load load_of(const struct fair *f, enum neighbour kind)
{
    return (struct fair_load){.paced = {.daemon = f->daemon,
                                        .options = f->o,
                                        .shared = &f->shared->paced,
                                        .rate = f->o->rates[0],
                                        .count = (uint64_t)(f->o->rates[0] * f->o->seconds)},
                              .kind = kind,
                              .beside = kind == ELSEWHERE ? f->elsewhere : f->daemon,
                              .connections = f->o->connections,
                              .shared = f->shared};
}

static int paced_round(struct fair *f, enum neighbour kind, bool counts, struct embar_error *err)
{
    struct fair_load fl = load_of(f, kind);
    unsigned workers = kind == ALONE ? 1 : 2;
    struct load l = {
        &fair_ops, &fl, workers, workers, f->daemon->pid, f->o->seconds * 1000u + 60000};
    struct load_result result;
    memset(f->shared, 0, sizeof(*f->shared));
    /* The neighbours' first: making the paced one's waits until the pool is as free as it was. */
    int rc = neighbours_topic(f->daemon, true, err);
    if (rc == 0)
        rc = neighbours_topic(f->elsewhere, true, err);
    if (rc == 0)
        rc = bench_topic(f->daemon, f->o, err);
    if (rc == 0)
        rc = load_run(&l, &result, err);
    if (rc || !counts)
        return rc;
    const struct hist *h = &f->shared->paced.ack;
    hist_merge(&f->all[kind], h);
    series_add(f->p50[kind], (double)hist_percentile(h, 50) / 1e3);
    series_add(f->p99[kind], (double)hist_percentile(h, 99) / 1e3);
    return 0;
}

static int many_round(struct fair *f, bool counts, struct embar_error *err)
{
    struct fair_load fl = load_of(f, ALONE);
    struct load l = {&many_ops, &fl, 1, 1, f->daemon->pid, f->o->seconds * 1000u + 60000};
    struct load_result result;
    memset(f->shared, 0, sizeof(*f->shared));
    int rc = neighbours_topic(f->daemon, true, err);
    if (rc == 0)
        rc = load_run(&l, &result, err);
    if (rc || !counts)
        return rc;
    series_add(f->jain, f->shared->jain);
    series_add(f->least, f->shared->least_of_even);
    series_add(f->speed, (double)result.bytes / result.seconds / 1e9);
    return 0;
}

static int fair_rounds(struct fair *f, struct report *r, struct embar_error *err)
{
    static const char *const names[KINDS] = {"alone", "beside a greedy one elsewhere",
                                             "beside a greedy one", "beside a trickler"};
    char name[80];
    for (unsigned k = 0; k < KINDS; k++) {
        (void)snprintf(name, sizeof(name), "%s p50", names[k]);
        f->p50[k] = report_series(r, name, "us", 0);
        (void)snprintf(name, sizeof(name), "%s p99", names[k]);
        f->p99[k] = report_series(r, name, "us", 0);
    }
    f->jain = report_series(r, "many: Jain's index", "of 1", 0);
    f->least = report_series(r, "many: least / median", "of 1", 0);
    f->speed = report_series(r, "many: together", "GB/s", 0);
    int rc = 0;
    for (unsigned round = 0; round < f->o->rounds + f->o->warmup && rc == 0; round++) {
        bool counts = round >= f->o->warmup;
        for (unsigned k = 0; k < KINDS && rc == 0; k++)
            rc = paced_round(f, (enum neighbour)((k + round) % KINDS), counts, err);
        if (rc == 0)
            rc = many_round(f, counts, err);
    }
    for (unsigned k = 0; k < KINDS && rc == 0; k++)
        report_distribution(r, names[k], &f->all[k]);
    for (unsigned k = ALONE + 1; k < KINDS && rc == 0; k++) {
        report_ratio(r, f->p50[k], f->p50[ALONE]);
        report_ratio(r, f->p99[k], f->p99[ALONE]);
    }
    if (rc == 0)
        report_ratio(r, f->p99[GREEDY], f->p99[ELSEWHERE]);
    return rc;
}

int bench_fair(const struct bench_options *options, struct report *r, struct embar_error *err)
{
    struct bench_options o = *options;
    struct daemon daemon, elsewhere;
    if (!o.workers)
        o.workers = 1; /* they share it: with more each may have its own */
    const struct daemon_options other = {
        .program = o.program, .size = ELSEWHERE_POOL, .workers = o.workers};
    int rc = bench_daemon(&daemon, &o, err);
    if (rc)
        return rc;
    rc = daemon_open(&elsewhere, &other, err);
    if (rc) {
        daemon_close(&daemon);
        return rc;
    }
    struct fair *f = calloc(1, sizeof(*f));
    struct fair_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || !f) {
        free(f);
        return embar_fail(err, -ENOMEM, "histograms");
    }
    *f = (struct fair){.o = &o, .daemon = &daemon, .elsewhere = &elsewhere, .shared = shared};
    bench_describe(r, &o, &daemon);
    report_fact(r, "the paced one", "%g messages of %u bytes a second for %u s, order %d, ack %d",
                o.rates[0], o.message_size, o.seconds, o.order, o.ack);
    report_fact(r, "the greedy one",
                "batches of 16 MiB, flat out; elsewhere: to a broker of its own");
    report_fact(r, "the trickler", "a batch of 16 MiB: 4 MiB at once, then a byte a second");
    report_fact(r, "many", "%u publishers of 64 KiB batches, flat out, second half counted",
                o.connections);
    report_fact(r, "workers", "%u, shared by all", o.workers);
    report_caveat(r, "Sender, neighbour and daemon share the machine's cores and memory: what they "
                     "take from each other there counts as well.");
    rc = fair_rounds(f, r, err);
    free(f);
    (void)munmap(shared, sizeof(*shared));
    int gone = rc ? 0 : neighbours_topic(&daemon, false, err);
    if (rc == 0 && gone == 0)
        rc = daemon_remove(&daemon, o.topic, err);
    daemon_close(&elsewhere);
    daemon_close(&daemon);
    return rc ? rc : gone;
}
