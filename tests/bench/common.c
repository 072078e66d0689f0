/* What the measurements have in common: the broker, the baselines' server, a topic with content. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

/* libembar gives its Unix sockets a larger buffer: the baseline gets the same. */
#define UNIX_BUFFER (4 << 20)

const char *bytes_text(uint64_t n, char buf[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    unsigned u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    (void)snprintf(buf, 32, v == (double)(uint64_t)v ? "%.0f %s" : "%.2f %s", v, units[u]);
    return buf;
}

/* The topic is removed in each round: it must not be one that holds somebody's messages. */
static int refuse_existing(const struct daemon *d, const struct bench_options *o,
                           struct embar_error *err)
{
    struct embar_client *client = NULL;
    char *text = NULL;
    int rc = daemon_connect(d, &client, err);
    if (rc == 0) {
        rc = embar_stat(client, o->topic, &text, err);
        if (rc == 0)
            rc = embar_fail(err, -EEXIST,
                            "The topic %s is there already and was not touched: name another with "
                            "--topic, or remove it (embar rm %s).",
                            o->topic, o->topic);
        else if (rc == -ENOENT)
            rc = 0;
    }
    free(text);
    embar_disconnect(client);
    return rc;
}

int bench_daemon(struct daemon *d, const struct bench_options *o, struct embar_error *err)
{
    struct daemon_options dopt = {.server = o->server,
                                  .token_file = o->token_file,
                                  .mount = o->mount,
                                  .program = o->program,
                                  .spec = o->spec,
                                  .size = o->size,
                                  .flush = o->flush_text,
                                  .workers = o->workers,
                                  .unix_socket = o->unix_socket};
    int rc = daemon_open(d, &dopt, err);
    if (rc == 0 && !d->ours)
        rc = refuse_existing(d, o, err);
    return rc;
}

/* It paces or not, on loopback too: figures of two machines differ by it. */
static void report_congestion(struct report *r)
{
    char name[32] = "unknown";
    FILE *f = fopen("/proc/sys/net/ipv4/tcp_congestion_control", "re");
    if (f && fscanf(f, "%31s", name) != 1)
        name[0] = '\0';
    if (f)
        (void)fclose(f);
    report_fact(r, "TCP", "congestion control %s", name);
}

void bench_describe(struct report *r, const struct bench_options *o, const struct daemon *d)
{
    char a[32];
    report_machine(r);
    report_fact(r, "broker", "%s, pid %d, %s", d->ours ? "private embarfs" : "as given",
                (int)d->pid, d->server);
    report_fact(r, "pool", "%s, %s, flush %s, durability %s", *d->pool ? d->pool : "unknown",
                bytes_text(d->size, a), *d->flush ? d->flush : "unknown",
                *d->durability ? d->durability : "unknown");
    report_fact(r, "clients", "%u connections in %u process%s over %s, socket buffers %s",
                o->connections, o->processes, o->processes == 1 ? "" : "es",
                o->unix_socket ? "a Unix socket" : "TCP on loopback",
                o->sockbuf ? "as given" : "the system's default");
    if (!o->unix_socket)
        report_congestion(r);
    report_fact(r, "rounds", "%u interleaved after %u of warm-up", o->rounds, o->warmup);
    report_caveat(r,
                  "Sender and receiver share this machine's %ld cores: loopback is bound by "
                  "processor time, so compare core-s/GB as well as GB/s.",
                  sysconf(_SC_NPROCESSORS_ONLN));
    if (d->pid == 0)
        report_caveat(r, "The broker was given by its address, so its processor time is unknown: "
                         "name its mount (--mount) to have it.");
    if (o->rounds < 9)
        report_caveat(r,
                      "%u rounds: identical runs spread by 10-30 %%, so nine or more are "
                      "wanted for a figure to quote.",
                      o->rounds);
}

int bench_peer(struct peer *p, const struct bench_options *o, uint64_t memory,
               struct embar_error *err)
{
    struct peer_options po = {
        .unix_socket = o->unix_socket, .memory = memory, .flush = o->flush, .sockbuf = o->sockbuf};
    if (o->unix_socket && !po.sockbuf)
        po.sockbuf = UNIX_BUFFER;
    return peer_start(p, &po, err);
}

int bench_data_open(const struct bench_options *o, FILE **data, struct embar_error *err)
{
    *data = o->data ? fopen(o->data, "w") : NULL;
    return o->data && !*data ? embar_fail(err, -errno, "%s", o->data) : 0;
}

int bench_data_close(const struct bench_options *o, FILE *data, int rc, struct embar_error *err)
{
    bool failed = data && (ferror(data) | fclose(data)) != 0;
    return failed && rc == 0 ? embar_fail(err, -EIO, "writing %s", o->data) : rc;
}

int bench_topic(struct daemon *d, const struct bench_options *o, struct embar_error *err)
{
    int rc = daemon_remove(d, o->topic, err);
    if (rc == 0)
        rc = daemon_refresh(d, err);
    struct embar_client *client = NULL;
    struct embar_topic_options to = EMBAR_TOPIC_OPTIONS;
    to.order = o->order;
    to.parents = true;
    if (rc == 0)
        rc = daemon_connect(d, &client, err);
    if (rc == 0)
        rc = embar_create(client, o->topic, &to, err);
    embar_disconnect(client);
    return rc;
}

int subject_topic(void *arg, struct embar_error *err)
{
    const struct bench_subject *s = arg;
    return bench_topic(s->daemon, s->options, err);
}

int subject_drop(void *arg, struct embar_error *err)
{
    const struct bench_subject *s = arg;
    return daemon_remove(s->daemon, s->options->topic, err);
}

int bench_fill(struct daemon *d, const struct bench_options *o, uint64_t bytes, uint64_t *size,
               struct embar_error *err)
{
    struct load_result result;
    struct bench_options fill = *o;
    fill.seconds = 0;
    fill.ack = 1;
    fill.api = API_BATCH;
    struct pub_load pub = {d, &fill, bytes / o->connections};
    struct load load = {&pub_ops, &pub, o->connections, 1, d->pid, 300000};
    int rc = bench_topic(d, o, err);
    if (rc == 0)
        rc = load_run(&load, &result, err);
    *size = rc == 0 ? result.bytes : 0;
    return rc;
}
