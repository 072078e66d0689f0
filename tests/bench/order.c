/* `embar bench order`: what an order costs: acked publishing to topics of order 5, 0 and 2, the same in
 * all else, in interleaved rounds. A round of one batch size is over before the next size begins, so that
 * what is compared stands close together in time. */
#include <stdio.h>

#include "tests/bench/bench.h"

#define ORDERS 3u

static const int orders[ORDERS] = {5, 0, 2};
static const uint32_t sizes[] = {64u << 10, 256u << 10, 2u << 20};

static void explain(struct report *r, const struct bench_options *o)
{
    char a[32];
    report_fact(r, "a round", "%s over all connections", bytes_text(o->bytes, a));
    report_fact(r, "messages", "%u bytes, from caller-owned memory (not copied)", o->message_size);
    report_fact(r, "connections", "%u publishers, %u connections each", o->connections,
                o->session_connections);
    report_caveat(r, "A ratio above 1 says that order 5 is faster than the other one. The 95 %% "
                     "interval is that of the median, whatever the distribution.");
    report_caveat(r, "While a pool has one broker, orders 0 and 2 go the same way: how far their "
                     "ratio is from 1 says how far such ratios can be trusted here.");
    report_caveat(r,
                  "Nothing is lost on the way here, so order 5 never holds a batch for a gap; with "
                  "several connections a session it holds those that overtake each other.");
}

/* One batch size: its rounds, and the ratios of order 5 to the others. */
static int compare(struct daemon *d, const struct bench_options *o, struct report *r,
                   struct embar_error *err)
{
    struct bench_options own[ORDERS];
    struct bench_subject subject[ORDERS];
    struct pub_load load[ORDERS];
    struct contestant c[ORDERS];
    uint64_t limit = 120000 + o->seconds * 1000u;
    char batch[32], name[64];
    for (unsigned i = 0; i < ORDERS; i++) {
        own[i] = *o;
        own[i].order = orders[i];
        own[i].api = API_BATCH;
        subject[i] = (struct bench_subject){d, &own[i]};
        load[i] = (struct pub_load){d, &own[i], o->bytes / o->connections};
        (void)snprintf(name, sizeof(name), "order %d, %s batches", orders[i],
                       bytes_text(o->batch, batch));
        c[i] = (struct contestant){
            .series = report_series(r, name, "GB/s", o->message_size),
            .load = {&pub_ops, &load[i], o->connections, o->processes, d->pid, limit},
            .before = subject_topic,
            .after = subject_drop,
            .arg = &subject[i]};
    }
    int rc = rounds_run(c, ORDERS, o, err);
    report_ratio(r, c[0].series, c[1].series);
    report_ratio(r, c[0].series, c[2].series);
    report_ratio(r, c[1].series, c[2].series);
    return rc;
}

int bench_order(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    int rc = bench_daemon(&daemon, o, err);
    if (rc)
        return rc;
    bench_describe(r, o, &daemon);
    explain(r, o);
    struct bench_options own = *o;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && rc == 0; i++) {
        own.batch = o->batch ? o->batch : sizes[i];
        rc = compare(&daemon, &own, r, err);
        if (o->batch)
            break;
    }
    daemon_close(&daemon);
    return rc;
}
