/* `embar bench sub`: subscribers that read a topic from its beginning to its end over the network,
 * against a server that sends the same number of bytes from prefaulted memory. */
#include <errno.h>
#include <stdlib.h>

#include "tests/bench/bench.h"

struct sub_load {
    const struct daemon *daemon;
    const struct bench_options *options;
    uint64_t bytes; /* that the topic holds */
};

struct subscriber {
    struct embar_client *client;
    struct embar_subscription *sub;
};

static int sub_open(struct load_worker *w)
{
    const struct sub_load *load = w->load->arg;
    struct subscriber *s = calloc(1, sizeof(*s));
    if (!s)
        return embar_fail(&w->report->error, -ENOMEM, "a subscriber");
    int rc = daemon_connect(load->daemon, &s->client, &w->report->error);
    if (rc)
        free(s);
    else
        w->own = s;
    return rc;
}

/* Subscribing is part of the run: the server begins to send at once. */
static int sub_run(struct load_worker *w)
{
    const struct sub_load *load = w->load->arg;
    struct subscriber *s = w->own;
    struct embar_error *err = &w->report->error;
    int rc = embar_subscribe(&s->sub, s->client, load->options->topic, NULL, err);
    while (rc >= 0) {
        struct embar_batch batch;
        rc = embar_next_batch(s->sub, &batch, 60000, err);
        if (rc != 1)
            break;
        w->report->bytes += batch.length;
        w->report->messages += batch.count;
    }
    if (rc < 0)
        return rc;
    if (w->report->bytes != load->bytes)
        return embar_fail(err, -EMBAR_ECORRUPT, "%llu bytes came instead of %llu.",
                          (unsigned long long)w->report->bytes, (unsigned long long)load->bytes);
    return 0;
}

static void sub_close(struct load_worker *w)
{
    struct subscriber *s = w->own;
    embar_unsubscribe(s->sub);
    embar_disconnect(s->client);
    free(s);
}

static const struct load_ops sub_ops = {.open = sub_open, .run = sub_run, .close = sub_close};

int bench_sub(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    struct peer peer;
    char a[32];
    uint64_t size = 0;
    int rc = bench_daemon(&daemon, o, err);
    if (rc == 0)
        rc = bench_fill(&daemon, o, o->bytes / o->connections, &size, err);
    if (rc == 0)
        rc = bench_peer(&peer, o, size, err);
    if (rc)
        return rc;
    bench_describe(r, o, &daemon);
    report_fact(r, "a round", "%u subscribers, each reads all %s of the topic", o->connections,
                bytes_text(size, a));
    report_fact(r, "messages", "%u bytes", o->message_size);
    report_fact(r, "recv size", "%s in the baseline, which sends as much at a time",
                bytes_text(o->recv_size, a));
    report_caveat(r, "libembar checks each batch's CRC32C; the source's client discards what it "
                     "receives.");
    struct sub_load sub = {&daemon, o, size};
    struct peer_load source = {.peer = &peer,
                               .mode = PEER_SOURCE,
                               .bytes = size,
                               .send_size = o->batch,
                               .recv_size = o->recv_size};
    unsigned n = o->connections;
    struct contestant c[] = {
        {.series = report_series(r, "embar subscribe", "GB/s", o->message_size),
         .load = {&sub_ops, &sub, n, o->processes, daemon.pid, 300000}},
        {.series = report_series(r, "raw source", "GB/s", o->message_size),
         .load = {&peer_stream_ops, &source, n, o->processes, peer.pid, 300000}},
    };
    rc = rounds_run(c, o->subject_only ? 1 : 2, o, err);
    if (rc == 0)
        report_ratio(r, c[0].series, c[1].series);
    peer_stop(&peer);
    if (rc == 0)
        rc = daemon_remove(&daemon, o->topic, err);
    daemon_close(&daemon);
    return rc;
}
