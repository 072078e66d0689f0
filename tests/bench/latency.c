/* `embar bench latency`: publish to ack and publish to subscriber at fixed rates, against a TCP echo
 * that is paced in the same way. Open loop: a message's time runs from when it was due, not from
 * when the sender got round to it, so a stall counts in full for all that it delays.
 *
 * Workers: 0 sends and hears acks (a receiver thread of its own, or libembar's); 1, in another
 * process, subscribes. Their histograms stand in memory shared with the parent, one writer each.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/paced.h"
#include "tests/bench/source.h"

#define TAIL_MS 30000 /* what may still come after the last was sent */

/* A message begins with when it was due; the rest is text. */
struct stamp {
    uint64_t due_ns;
};

struct runner {
    struct embar_client *client;
    struct embar_publisher *pub;
    struct embar_subscription *sub;
    struct paced_load load;
    char *message;
    size_t size;
    int fd;
    uint64_t *due; /* of each message: done callbacks point into it */
    int status;    /* of the echo's receiver thread; read after it was joined */
};

/* The `done` callback has one argument, which is the message's due time: the rest stands here. One
 * run a process. Written before the first message, read by the publisher's thread. */
static struct paced_shared *run_shared;

static void on_done(void *arg, const struct embar_error *err)
{
    uint64_t now = clock_ns();
    uint64_t due = *(const uint64_t *)arg;
    if (err)
        atomic_fetch_add_explicit(&run_shared->errors, 1, memory_order_relaxed);
    else
        hist_add(&run_shared->ack, now > due ? now - due : 0);
}

static int send_one(struct runner *r, uint64_t i)
{
    struct stamp stamp = {r->due[i]};
    memcpy(r->message, &stamp, sizeof(stamp));
    if (r->pub)
        return embar_publish(r->pub, r->message, r->size, on_done, &r->due[i]);
    return io_send(r->fd, r->message, r->size);
}

static int pace(struct runner *r)
{
    double interval = 1e9 / r->load.rate;
    uint64_t start = clock_ns() + 1000000;
    (void)prctl(PR_SET_TIMERSLACK, 1UL);
    for (uint64_t i = 0; i < r->load.count; i++)
        r->due[i] = start + (uint64_t)((double)i * interval);
    for (uint64_t i = 0; i < r->load.count; i++) {
        if (r->load.options->spin)
            while (clock_ns() < r->due[i])
                __builtin_ia32_pause();
        else if (clock_ns() < r->due[i])
            clock_sleep_until(r->due[i]);
        int rc = send_one(r, i);
        if (rc)
            return rc;
    }
    return 0;
}

static void *hear_echo(void *arg)
{
    struct runner *r = arg;
    char *reply = malloc(r->size);
    struct stamp stamp;
    int rc = reply ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < r->load.count && rc == 0; i++) {
        rc = io_recv(r->fd, reply, r->size);
        uint64_t now = clock_ns();
        if (rc)
            break;
        memcpy(&stamp, reply, sizeof(stamp));
        if (stamp.due_ns != r->due[i])
            rc = -EMBAR_ECORRUPT;
        else
            hist_add(&r->load.shared->ack, now > stamp.due_ns ? now - stamp.due_ns : 0);
    }
    free(reply);
    r->status = rc;
    return NULL;
}

static int run_echo(struct runner *r, struct embar_error *err)
{
    pthread_t id;
    if (pthread_create(&id, NULL, hear_echo, r) != 0)
        return embar_fail(err, -EAGAIN, "a receiver thread");
    int rc = pace(r);
    if (rc)
        (void)shutdown(r->fd, SHUT_RDWR);
    (void)pthread_join(id, NULL);
    rc = rc ? rc : r->status;
    return rc ? embar_fail(err, rc, "the TCP echo") : 0;
}

static int run_publisher(struct runner *r, struct embar_error *err)
{
    run_shared = r->load.shared;
    int rc = pace(r);
    if (rc)
        return embar_fail(err, rc, "publishing");
    rc = embar_flush(r->pub, TAIL_MS, err);
    unsigned errors = atomic_load_explicit(&run_shared->errors, memory_order_relaxed);
    if (rc == 0 && errors > 0)
        rc = embar_fail(err, -EMBAR_ECORRUPT, "%u messages were not acked.", errors);
    return rc;
}

static int run_subscriber(struct runner *r, struct embar_error *err)
{
    for (uint64_t i = 0; i < r->load.count; i++) {
        struct embar_message m;
        struct stamp stamp;
        int rc = embar_next(r->sub, &m, TAIL_MS, err);
        uint64_t now = clock_ns();
        if (rc != 1)
            return rc < 0 ? rc : embar_fail(err, -EPIPE, "the subscription ended early.");
        if (m.length != r->size)
            return embar_fail(err, -EMBAR_ECORRUPT, "a message of %zu bytes came", m.length);
        memcpy(&stamp, m.data, sizeof(stamp));
        hist_add(&r->load.shared->delivery, now > stamp.due_ns ? now - stamp.due_ns : 0);
    }
    return 0;
}

static void latency_close(struct load_worker *w)
{
    struct runner *r = w->own;
    embar_unsubscribe(r->sub);
    (void)embar_publisher_close(r->pub, EMBAR_CLOSE_FORGET, NULL);
    embar_disconnect(r->client);
    if (r->fd >= 0)
        (void)close(r->fd);
    source_free(r->message, r->size);
    free(r->due);
    free(r);
}

static int latency_open(struct load_worker *w)
{
    const struct paced_load *load = w->load->arg;
    const struct bench_options *o = load->options;
    struct embar_error *err = &w->report->error;
    struct embar_publisher_options po = EMBAR_PUBLISHER_OPTIONS;
    struct embar_subscribe_options so = {.from = EMBAR_EARLIEST, .follow = true};
    struct runner *r = calloc(1, sizeof(*r));
    if (!r)
        return embar_fail(err, -ENOMEM, "a worker");
    w->own = r;
    r->fd = -1;
    r->load = *load;
    r->size = o->message_size;
    r->message = source_make(&r->size, o->message_size, 0);
    r->due = calloc(load->count, sizeof(*r->due));
    int rc = r->message && r->due ? 0 : embar_fail(err, -ENOMEM, "memory for messages");
    po.ack = o->ack;
    po.order = o->order;
    po.connections = o->session_connections;
    if (rc == 0 && load->daemon)
        rc = daemon_connect(load->daemon, &r->client, err);
    if (rc == 0 && load->daemon)
        rc = w->index == 0 ? embar_publisher_open(&r->pub, r->client, o->topic, &po, err)
                           : embar_subscribe(&r->sub, r->client, o->topic, &so, err);
    if (rc == 0 && !load->daemon) {
        r->fd = peer_connect(load->peer, 0, 1, 0, err);
        rc = r->fd < 0 ? r->fd : 0;
    }
    if (rc)
        latency_close(w);
    return rc;
}

static int latency_run(struct load_worker *w)
{
    struct runner *r = w->own;
    struct embar_error *err = &w->report->error;
    int rc = !r->load.daemon ? run_echo(r, err)
             : r->pub        ? run_publisher(r, err)
                             : run_subscriber(r, err);
    if (rc == 0 && w->index == 0) {
        w->report->messages = r->load.count;
        w->report->bytes = r->load.count * r->size;
    }
    return rc;
}

const struct load_ops paced_ops = {
    .open = latency_open, .run = latency_run, .close = latency_close};

/* One rate: what is shown of it. */
struct rate_report {
    struct hist ack, delivery, echo; /* of all rounds */
    struct series *p50[3], *p99[3];  /* ack, delivery, echo */
    double slowest;                  /* messages a second reached, in the worst round */
};

static const char *const names[] = {"publish->ack", "publish->subscriber", "TCP echo"};

static const struct hist *rate_hist(const struct rate_report *rr, unsigned which)
{
    return which == 0 ? &rr->ack : which == 1 ? &rr->delivery : &rr->echo;
}

static void note(struct rate_report *rr, unsigned which, const struct hist *h, struct hist *into)
{
    hist_merge(into, h);
    series_add(rr->p50[which], (double)hist_percentile(h, 50) / 1e3);
    series_add(rr->p99[which], (double)hist_percentile(h, 99) / 1e3);
}

static int one_round(const struct bench_options *o, struct daemon *daemon,
                     const struct peer_load *peer, pid_t peer_pid, double rate, bool embar,
                     struct paced_shared *shared, double *reached, struct embar_error *err)
{
    struct paced_load load = {.daemon = embar ? daemon : NULL,
                              .peer = peer,
                              .options = o,
                              .shared = shared,
                              .rate = rate,
                              .count = (uint64_t)(rate * o->seconds)};
    unsigned workers = embar ? 2 : 1;
    struct load l = {&paced_ops,
                     &load,
                     workers,
                     workers,
                     embar ? daemon->pid : peer_pid,
                     o->seconds * 1000u + 2 * TAIL_MS};
    struct load_result result;
    memset(shared, 0, sizeof(*shared));
    int rc = embar ? bench_topic(daemon, o, err) : 0;
    if (rc == 0)
        rc = load_run(&l, &result, err);
    if (rc == 0 && result.seconds > 0)
        *reached = (double)result.messages / result.seconds;
    return rc;
}

static int run_rate(const struct bench_options *o, struct daemon *daemon,
                    const struct peer_load *peer, struct report *r, unsigned which,
                    struct paced_shared *shared, struct rate_report *rr, struct embar_error *err)
{
    double rate = o->rates[which];
    char name[64];
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof(name), "%s p50 at %g/s", names[i], rate);
        rr->p50[i] = report_series(r, name, "us", 0);
        (void)snprintf(name, sizeof(name), "%s p99 at %g/s", names[i], rate);
        rr->p99[i] = report_series(r, name, "us", 0);
    }
    rr->slowest = rate;
    int rc = 0;
    for (unsigned round = 0; round < o->rounds + o->warmup && rc == 0; round++) {
        bool counts = round >= o->warmup;
        for (unsigned turn = 0; turn < 2 && rc == 0; turn++) {
            bool embar = (turn + round) % 2 == 0;
            double reached = rate;
            rc = one_round(o, daemon, peer, peer->peer->pid, rate, embar, shared, &reached, err);
            if (rc || !counts)
                continue;
            if (embar) {
                note(rr, 0, &shared->ack, &rr->ack);
                note(rr, 1, &shared->delivery, &rr->delivery);
                rr->slowest = reached < rr->slowest ? reached : rr->slowest;
            } else {
                note(rr, 2, &shared->ack, &rr->echo);
            }
        }
    }
    if (rc)
        return rc;
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof(name), "%s at %g/s", names[i], rate);
        report_distribution(r, name, rate_hist(rr, i));
    }
    for (unsigned i = 0; i < 2; i++) {
        report_ratio(r, rr->p50[i], rr->p50[2]);
        report_ratio(r, rr->p99[i], rr->p99[2]);
    }
    if (rr->slowest < rate * 0.98)
        report_caveat(r,
                      "%g messages/s were offered but only %.0f were reached: the latencies at "
                      "that rate are those of a queue that grows.",
                      rate, rr->slowest);
    return 0;
}

/* Block 0: a line for each rate and subject; then a distribution for each of these. */
static void write_data(const struct bench_options *o, const struct rate_report *rr, FILE *data)
{
    static const double p[] = {50, 90, 99, 99.9, 100};
    (void)fprintf(
        data, "# messages/s subject(0 ack, 1 subscriber, 2 TCP echo), us: p50 p90 p99 p99.9 max\n");
    for (unsigned i = 0; i < 3 * o->n_rates; i++) {
        const struct hist *h = rate_hist(&rr[i / 3], i % 3);
        (void)fprintf(data, "%g %u", o->rates[i / 3], i % 3);
        for (unsigned k = 0; k < sizeof p / sizeof *p; k++)
            (void)fprintf(data, " %.3f", (double)hist_percentile(h, p[k]) / 1e3);
        (void)fprintf(data, "\n");
    }
    for (unsigned i = 0; i < 3 * o->n_rates; i++) {
        (void)fprintf(data, "\n\n# %s at %g/s, us\n# ", names[i % 3], o->rates[i / 3]);
        hist_print(data, rate_hist(&rr[i / 3], i % 3), 1e3);
    }
}

int bench_latency(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    struct peer peer;
    FILE *data;
    int rc = bench_data_open(o, &data, err);
    if (rc == 0)
        rc = bench_daemon(&daemon, o, err);
    if (rc == 0)
        rc = bench_peer(&peer, o, 4 << 20, err);
    if (rc)
        return rc;
    struct peer_load load = {
        .peer = &peer, .mode = PEER_ECHO, .send_size = o->message_size, .recv_size = 65536};
    struct paced_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct rate_report *rr = calloc(o->n_rates, sizeof(*rr));
    if (shared == MAP_FAILED || !rr) {
        free(rr);
        return embar_fail(err, -ENOMEM, "histograms");
    }
    bench_describe(r, o, &daemon);
    report_fact(r, "a round", "%u s at each rate, messages of %u bytes, order %d, ack %d",
                o->seconds, o->message_size, o->order, o->ack);
    report_fact(r, "sender", "open loop, due times fixed beforehand, %s",
                o->spin ? "spinning until due" : "sleeping until due (timer slack 1 ns)");
    report_caveat(r, "Times run from when a message was due, so they hold the sender's own waking "
                     "up; embarfs and echo are paced alike. The echo returns the whole message, an "
                     "ack is 48 bytes.");
    for (unsigned i = 0; i < o->n_rates && rc == 0; i++)
        rc = run_rate(o, &daemon, &load, r, i, shared, &rr[i], err);
    if (data && rc == 0)
        write_data(o, rr, data);
    free(rr);
    (void)munmap(shared, sizeof(*shared));
    peer_stop(&peer);
    if (rc == 0)
        rc = daemon_remove(&daemon, o->topic, err);
    daemon_close(&daemon);
    return bench_data_close(o, data, rc, err);
}
