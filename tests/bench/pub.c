/* `embar bench pub`: acked publishing through libembar, against the raw sink, the equal-work sink
 * and memcpy + write-back, in interleaved rounds. Must never count a byte before its ack. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"
#include "tests/bench/clock.h"
#include "tests/bench/copy.h"
#include "tests/bench/source.h"

#define SOURCE_SIZE ((size_t)16 << 20) /* as the baselines' */
#define FLUSH_MS    120000

struct publisher {
    struct embar_client *client;
    struct embar_publisher *pub;
    char *source;
    size_t size;
    uint32_t batch, count;    /* bytes and messages of one batch */
    uint64_t acked;           /* bytes; written by the publisher's thread, read after embar_flush */
    struct embar_error error; /* the first that a batch was told; as above */
};

static bool by_message(const struct bench_options *o)
{
    return o->api == API_MESSAGE || (o->api == API_AUTO && o->message_size < 1024);
}

static int pub_open(struct load_worker *w)
{
    const struct pub_load *load = w->load->arg;
    const struct bench_options *o = load->options;
    struct embar_error *err = &w->report->error;
    struct publisher *p = calloc(1, sizeof(*p));
    if (!p)
        return embar_fail(err, -ENOMEM, "a publisher");
    struct embar_publisher_options po = EMBAR_PUBLISHER_OPTIONS;
    po.ack = o->ack;
    po.order = o->order;
    po.batch_bytes = o->batch;
    po.connections = o->session_connections;
    po.window = o->window;
    int rc = daemon_connect(load->daemon, &p->client, err);
    if (rc == 0)
        rc = embar_publisher_open(&p->pub, p->client, o->topic, &po, err);
    if (rc == 0) {
        struct embar_publisher_info info;
        embar_publisher_info(p->pub, &info);
        uint32_t bytes = o->batch < info.max_batch ? o->batch : info.max_batch;
        p->count = bytes / o->message_size;
        if (p->count > info.max_messages)
            p->count = info.max_messages;
        if (p->count == 0)
            p->count = 1;
        p->batch = p->count * o->message_size;
        p->size = SOURCE_SIZE;
        p->source = source_make(&p->size, o->message_size, w->index);
        if (!p->source)
            rc = embar_fail(err, -ENOMEM, "memory to publish from");
        else if (p->size < p->batch)
            rc = embar_fail(err, -EMBAR_ETOOBIG, "batches of %u bytes", p->batch);
    }
    w->own = p;
    if (rc) {
        (void)embar_publisher_close(p->pub, EMBAR_CLOSE_NOW, NULL);
        embar_disconnect(p->client);
        source_free(p->source, p->size);
        free(p);
    }
    return rc;
}

static void batch_done(void *arg, const struct embar_error *err)
{
    struct publisher *p = arg;
    if (!err)
        p->acked += p->batch;
    else if (p->error.code == 0)
        p->error = *err;
}

static int publish_batches(const struct pub_load *load, struct publisher *p)
{
    unsigned seconds = load->options->seconds;
    uint64_t until = seconds ? clock_ns() + seconds * UINT64_C(1000000000) : UINT64_MAX;
    size_t at = 0;
    for (uint64_t sent = 0; sent < load->bytes && clock_ns() < until; sent += p->batch) {
        struct iovec iov = {p->source + at, p->batch};
        int rc = embar_publish_batch(p->pub, &iov, 1, NULL, p->count, batch_done, p);
        if (rc)
            return rc;
        at = at + 2 * (size_t)p->batch > p->size ? 0 : at + p->batch;
    }
    return 0;
}

static int publish_messages(const struct pub_load *load, struct publisher *p)
{
    size_t n = load->options->message_size;
    unsigned seconds = load->options->seconds;
    uint64_t until = seconds ? clock_ns() + seconds * UINT64_C(1000000000) : UINT64_MAX;
    size_t at = 0;
    for (uint64_t sent = 0; sent < load->bytes; sent += n) {
        /* A look at the clock each 64 KiB: it must not cost more than what is measured. */
        if ((sent & 0xffff) < n && clock_ns() >= until)
            break;
        int rc = embar_publish(p->pub, p->source + at, n, NULL, NULL);
        if (rc)
            return rc;
        at = at + 2 * n > p->size ? 0 : at + n;
    }
    return 0;
}

static int pub_run(struct load_worker *w)
{
    const struct pub_load *load = w->load->arg;
    struct publisher *p = w->own;
    struct embar_error *err = &w->report->error;
    bool messages = by_message(load->options);
    int rc = messages ? publish_messages(load, p) : publish_batches(load, p);
    if (rc)
        return p->error.code ? (*err = p->error, err->code)
                             : embar_fail(err, rc, "publishing to %s", load->options->topic);
    rc = embar_flush(p->pub, FLUSH_MS, err);
    if (rc)
        return rc;
    if (p->error.code) {
        *err = p->error;
        return err->code;
    }
    struct embar_publisher_info info;
    embar_publisher_info(p->pub, &info);
    w->report->bytes = messages ? info.done_bytes : p->acked;
    w->report->messages = info.done_messages;
    if (info.done_bytes != info.taken_bytes || w->report->bytes != info.done_bytes)
        return embar_fail(
            err, -EMBAR_ECORRUPT, "%llu bytes were accepted but %llu were told as done.",
            (unsigned long long)info.taken_bytes, (unsigned long long)w->report->bytes);
    return 0;
}

static void pub_close(struct load_worker *w)
{
    struct publisher *p = w->own;
    (void)embar_publisher_close(p->pub, EMBAR_CLOSE_FORGET, NULL);
    embar_disconnect(p->client);
    source_free(p->source, p->size);
    free(p);
}

const struct load_ops pub_ops = {.open = pub_open, .run = pub_run, .close = pub_close};

static void explain(struct report *r, const struct bench_options *o)
{
    char a[32];
    if (o->seconds)
        report_fact(r, "a round", "%u s, at most %s", o->seconds, bytes_text(o->bytes, a));
    else
        report_fact(r, "a round", "%s over all connections", bytes_text(o->bytes, a));
    report_fact(r, "messages", "%u bytes, batches of %s, %s", o->message_size,
                bytes_text(o->batch, a),
                by_message(o) ? "one embar_publish each (copied by the library)"
                              : "embar_publish_batch from caller-owned memory (not copied)");
    report_fact(r, "order, ack", "%d, %d%s", o->order, o->ack,
                o->ack == 0 ? " (sent, not acked!)" : "");
}

static void explain_baselines(struct report *r, const struct bench_options *o,
                              const struct peer *peer)
{
    char b[32];
    report_fact(r, "recv size", "%s in the sinks; embarfs: 256 KiB at most",
                bytes_text(o->recv_size, b));
    report_fact(r, "write-back", "equal-work sink: %s", peer->flush);
    if (strcmp(peer->flush, "none") == 0)
        report_caveat(r, "This kind of memory needs no write-back, so none is done, by the broker "
                         "or by the equal-work sink. --flush clwb forces it in both.");
    report_caveat(r, "The sinks are bare loops with a blocking thread a connection and know no "
                     "batches, order, sessions or acks; they answer once, at the end.");
    report_caveat(r,
                  "A libembar publisher has a thread of its own beside its caller's: embarfs may "
                  "use more cores than a sink's client, which CRCs and sends in one.");
    report_caveat(r, "memcpy is what memory alone allows: no socket, as many threads as "
                     "connections.");
}

int bench_pub(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    struct peer peer = {0};
    int rc = bench_daemon(&daemon, o, err);
    if (rc == 0 && !o->subject_only) /* its memory is as large as a round */
        rc = bench_peer(&peer, o, o->bytes, err);
    if (rc)
        return rc;
    bench_describe(r, o, &daemon);
    explain(r, o);
    if (!o->subject_only)
        explain_baselines(r, o, &peer);
    struct bench_subject subject = {&daemon, o};
    struct pub_load pub = {&daemon, o, o->bytes / o->connections};
    struct peer_load raw = {.peer = &peer,
                            .mode = PEER_RAW,
                            .bytes = o->bytes / o->connections,
                            .seconds = o->seconds,
                            .send_size = o->batch,
                            .recv_size = o->recv_size};
    struct peer_load equal = raw;
    equal.mode = PEER_WORK;
    char spec[48];
    (void)snprintf(spec, sizeof(spec), "mem:%llu", (unsigned long long)o->bytes);
    struct copy_load plain = {.spec = spec, .bytes = o->bytes / o->connections, .mode = FLUSH_NONE};
    struct copy_load forced = plain;
    forced.mode = o->flush == FLUSH_AUTO || o->flush == FLUSH_NONE ? FLUSH_CLWB : o->flush;
    size_t m = o->message_size;
    uint64_t limit = 120000 + o->seconds * 1000u;
    unsigned n = o->connections;
    struct contestant c[] = {
        {.series = report_series(r, "embar, acked", "GB/s", m),
         .load = {&pub_ops, &pub, n, o->processes, daemon.pid, limit},
         .before = subject_topic,
         .after = subject_drop,
         .arg = &subject},
        {.series = o->subject_only ? NULL : report_series(r, "raw sink", "GB/s", m),
         .load = {&peer_stream_ops, &raw, n, o->processes, peer.pid, limit}},
        {.series = o->subject_only ? NULL : report_series(r, "equal-work sink", "GB/s", m),
         .load = {&peer_stream_ops, &equal, n, o->processes, peer.pid, limit}},
        {.series = o->subject_only ? NULL : report_series(r, "memcpy", "GB/s", m),
         .load = {&copy_ops, &plain, n, 1, 0, limit}},
        {.series =
             o->subject_only ? NULL : report_series(r, "memcpy + forced write-back", "GB/s", m),
         .load = {&copy_ops, &forced, n, 1, 0, limit}},
    };
    unsigned count = o->subject_only ? 1 : sizeof(c) / sizeof(c[0]);
    rc = rounds_run(c, count, o, err);
    for (unsigned i = 1; i < count && rc == 0; i++)
        report_ratio(r, c[0].series, c[i].series);
    if (!o->subject_only)
        peer_stop(&peer);
    if (rc == 0)
        rc = subject_drop(&subject, err);
    daemon_close(&daemon);
    return rc;
}
