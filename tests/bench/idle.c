/* `embar bench idle`: what a daemon costs when nobody wants anything of it: alone, with publishers
 * and followers connected that say nothing, and with many raw connections that opened a topic once:
 * of these the memory, too. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/raw.h"

#define SETTLE_NS 500000000u
#define CLIENTS   64u /* of libembar at most: each has threads of its own */

enum kind { ALONE, CLIENTS_IDLE, SILENT, KINDS };

struct idle_load {
    const struct daemon *daemon;
    const struct bench_options *options;
    enum kind kind;
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
    if (load->kind == ALONE)
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

/* ---- Silent connections -------------------------------------------------------------------- */

struct silent {
    unsigned n;
    int fd[];
};

/* The number behind `name` in a file of "Name:  N kB" lines, in bytes; 0 when it is not there. */
static uint64_t kilobytes(const char *path, const char *name)
{
    FILE *f = fopen(path, "re");
    char line[256];
    uint64_t n = 0;
    while (f && n == 0 && fgets(line, sizeof(line), f))
        if (strncmp(line, name, strlen(name)) == 0 &&
            sscanf(line + strlen(name), ": %" SCNu64, &n) != 1)
            break;
    if (f)
        (void)fclose(f);
    return n * 1024;
}

static uint64_t resident(const struct daemon *d)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)d->pid);
    return kilobytes(path, "VmRSS");
}

static uint64_t grown(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

static void silent_close(struct load_worker *w)
{
    struct silent *s = w->own;
    for (unsigned i = 0; i < s->n; i++)
        (void)close(s->fd[i]);
    free(s);
}

static int silent_open(struct load_worker *w)
{
    const struct idle_load *load = w->load->arg;
    struct embar_error *err = &w->report->error;
    unsigned n = load->options->connections;
    uint64_t rss = resident(load->daemon), slab = kilobytes("/proc/meminfo", "Slab");
    struct silent *s = calloc(1, sizeof(*s) + n * sizeof(s->fd[0]));
    struct address to;
    if (!s)
        return embar_fail(err, -ENOMEM, "silent connections");
    w->own = s;
    raw_raise_limit();
    int rc = raw_find(load->daemon, &to, err);
    while (rc == 0 && s->n < n) {
        int fd = raw_connect(&to, err);
        if (fd >= 0)
            s->fd[s->n++] = fd;
        rc = fd < 0 ? fd : raw_open(fd, load->options->topic, err);
    }
    if (rc) {
        silent_close(w);
        return rc;
    }
    clock_sleep(SETTLE_NS);
    w->report->bytes = grown(resident(load->daemon), rss);
    w->report->messages = grown(kilobytes("/proc/meminfo", "Slab"), slab);
    return 0;
}

static const struct load_ops silent_ops = {
    .open = silent_open, .run = idle_run, .close = silent_close};

/* ---- Rounds -------------------------------------------------------------------------------- */

static int idle_rounds(const struct bench_options *o, struct daemon *daemon, struct report *r,
                       struct embar_error *err)
{
    static const char *const names[KINDS] = {"daemon alone", "with idle publishers, followers",
                                             "with silent connections"};
    int rc = 0;
    for (unsigned k = 0; k < KINDS && rc == 0; k++) {
        struct series *s = report_series(r, names[k], "% of a core", 0);
        struct series *memory =
            k == SILENT ? report_series(r, "  memory of each: daemon", "KiB", 0) : NULL;
        struct series *kernel =
            k == SILENT ? report_series(r, "  kernel, both ends", "KiB", 0) : NULL;
        struct idle_load idle = {daemon, o, (enum kind)k};
        unsigned clients = o->connections < CLIENTS ? o->connections : CLIENTS;
        struct load load = {k == SILENT ? &silent_ops : &idle_ops,
                            &idle,
                            k == CLIENTS_IDLE ? clients : 1,
                            1,
                            daemon->pid,
                            o->seconds * 1000u + 60000};
        for (unsigned round = 0; round < o->rounds && rc == 0; round++) {
            struct load_result result;
            rc = load_run(&load, &result, err);
            if (rc)
                break;
            series_add(s, 100.0 * result.cpu_server / result.seconds);
            if (memory && round == 0) /* later ones find it allocated */
                series_add(memory, (double)result.bytes / o->connections / 1024);
            if (kernel && round == 0)
                series_add(kernel, (double)result.messages / o->connections / 1024);
        }
    }
    return rc;
}

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
    report_fact(r, "clients", "%u of libembar at most, %u silent connections", CLIENTS,
                o->connections);
    rc = idle_rounds(o, &daemon, r, err);
    if (rc == 0)
        rc = daemon_remove(&daemon, o->topic, err);
    daemon_close(&daemon);
    return rc;
}
