/* `embar bench idle`: what a daemon costs when nobody wants anything of it: alone, and with
 * publishers and followers connected that say nothing. */
#include <errno.h>
#include <stdlib.h>

#include "tests/bench/bench.h"
#include "tests/bench/clock.h"

#define SETTLE_NS 500000000u

struct idle_load {
    const struct daemon *daemon;
    const struct bench_options *options;
    bool connected;
};

struct idler {
    struct embar_client *client;
    struct embar_publisher *pub;
    struct embar_subscription *sub;
};

static void idle_close(struct load_worker *w)
{
    struct idler *i = w->own;
    embar_unsubscribe(i->sub);
    (void)embar_publisher_close(i->pub, EMBAR_CLOSE_FORGET, NULL);
    embar_disconnect(i->client);
    free(i);
}

static int idle_open(struct load_worker *w)
{
    const struct idle_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    struct embar_subscribe_options so = {.from = EMBAR_EARLIEST, .follow = true};
    struct embar_message message;
    struct idler *i = calloc(1, sizeof(*i));
    if (!i)
        return embar_fail(err, -ENOMEM, "a connection");
    w->own = i;
    if (!load->connected)
        return 0;
    int rc = daemon_connect(load->daemon, &i->client, err);
    if (rc == 0)
        rc = embar_publisher_open(&i->pub, i->client, load->options->topic, NULL, err);
    if (rc == 0)
        rc = embar_publish_wait(i->pub, "idle\n", 5, err);
    if (rc == 0)
        rc = embar_subscribe(&i->sub, i->client, load->options->topic, &so, err);
    if (rc == 0) {
        int got = embar_next(i->sub, &message, 10000, err);
        rc = got == 1 ? 0 : got == 0 ? embar_fail(err, -EPIPE, "the subscription") : got;
    }
    if (rc)
        idle_close(w);
    else
        clock_sleep(SETTLE_NS);
    return rc;
}

static int idle_run(struct load_worker *w)
{
    const struct idle_load *load = w->load->arg;
    clock_sleep(load->options->seconds * UINT64_C(1000000000));
    return 0;
}

static const struct load_ops idle_ops = {.open = idle_open, .run = idle_run, .close = idle_close};

int bench_idle(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    int rc = bench_daemon(&daemon, o, err);
    if (rc == 0 && daemon.pid == 0)
        rc = embar_fail(err, -EMBAR_EINVALID,
                        "The daemon's processor time is needed: name its mount with --mount.");
    if (rc == 0)
        rc = bench_topic(&daemon, o, err);
    if (rc)
        return rc;
    bench_describe(r, o, &daemon);
    report_fact(r, "a round", "%u s of silence", o->seconds);
    const char *names[] = {"daemon alone", "with idle publishers, followers"};
    for (unsigned k = 0; k < 2 && rc == 0; k++) {
        struct series *s = report_series(r, names[k], "% of a core", 0);
        struct idle_load idle = {&daemon, o, k == 1};
        struct load load = {&idle_ops, &idle,      k ? o->connections : 1,
                            1,         daemon.pid, o->seconds * 1000u + 60000};
        for (unsigned round = 0; round < o->rounds && rc == 0; round++) {
            struct load_result result;
            rc = load_run(&load, &result, err);
            if (rc == 0)
                series_add(s, 100.0 * result.cpu_server / result.seconds);
        }
    }
    if (rc == 0)
        rc = daemon_remove(&daemon, o->topic, err);
    daemon_close(&daemon);
    return rc;
}
