/* `embar bench`: what its measurements share. One thread, one process (and its children). */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/flush.h"
#include "embar/embar.h"
#include "tests/bench/daemon.h"
#include "tests/bench/load.h"
#include "tests/bench/peer.h"
#include "tests/bench/report.h"

#define MAX_RATES 16u

enum bench_api { API_AUTO, API_BATCH, API_MESSAGE };

/* The command line, defaults filled in. */
struct bench_options {
    const char *server, *token_file, *mount, *program, *spec, *flush_text, *topic;
    enum flush_mode flush;
    uint64_t size;    /* of a private pool and of the baselines' memory */
    uint64_t bytes;   /* of a round, over all connections */
    unsigned seconds; /* of a round instead of bytes, 0: bytes; idle and latency: how long */
    uint32_t message_size, recv_size;
    uint32_t batch; /* order: 0: each size of its list */
    uint64_t window;
    unsigned connections, processes, rounds, warmup, workers, session_connections;
    int order, ack, sockbuf;
    enum bench_api api;
    bool unix_socket, json, overwrite, spin, subject_only;
    double rates[MAX_RATES];
    unsigned n_rates;
    uint64_t batches; /* recovery: at most */
    const char *data; /* latency, recovery: a file for a plot, NULL: none */
};

/* The measurements: 0 or a negative code with err filled. What they started is tidied by the keeper
 * whatever they return. */
int bench_pub(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_sub(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_cat(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_append(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_latency(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_order(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_flush(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_recovery(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_loops(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_fair(const struct bench_options *o, struct report *r, struct embar_error *err);
int bench_idle(const struct bench_options *o, struct report *r, struct embar_error *err);

/* ---- rounds.c ------------------------------------------------------------------------------ */

struct contestant {
    struct series *series;
    struct load load;
    /* Outside the measured time; arg is this struct's. May be NULL. */
    int (*before)(void *arg, struct embar_error *err);
    int (*after)(void *arg, struct embar_error *err);
    void *arg;
};

/* Each round runs every contestant once; which one begins moves on by one each round, so that drift
 * and warmth favour nobody. The first `warmup` rounds are thrown away. */
int rounds_run(struct contestant *c, unsigned n, const struct bench_options *o,
               struct embar_error *err) __attribute__((warn_unused_result));

/* ---- common.c ------------------------------------------------------------------------------ */

int bench_daemon(struct daemon *d, const struct bench_options *o, struct embar_error *err)
    __attribute__((warn_unused_result));
void bench_describe(struct report *r, const struct bench_options *o, const struct daemon *d);
int bench_peer(struct peer *p, const struct bench_options *o, uint64_t memory,
               struct embar_error *err) __attribute__((warn_unused_result));
/* The file of --data, NULL without it; closing keeps rc, or says that writing failed. */
int bench_data_open(const struct bench_options *o, FILE **data, struct embar_error *err)
    __attribute__((warn_unused_result));
int bench_data_close(const struct bench_options *o, FILE *data, int rc, struct embar_error *err);
/* Makes o->topic with o->order, replacing what a run before left of it. */
int bench_topic(struct daemon *d, const struct bench_options *o, struct embar_error *err)
    __attribute__((warn_unused_result));
/* A contestant's before and after: a fresh topic, and its removal. */
struct bench_subject {
    struct daemon *daemon;
    const struct bench_options *options;
};
int subject_topic(void *arg, struct embar_error *err) __attribute__((warn_unused_result));
int subject_drop(void *arg, struct embar_error *err) __attribute__((warn_unused_result));
/* Fills the topic with about `bytes` from o->connections publishers; *size is what it holds then. */
int bench_fill(struct daemon *d, const struct bench_options *o, uint64_t bytes, uint64_t *size,
               struct embar_error *err) __attribute__((warn_unused_result));
/* "4.0 GiB" into buf. */
const char *bytes_text(uint64_t n, char buf[32]);

/* ---- pub.c --------------------------------------------------------------------------------- */

struct pub_load {
    const struct daemon *daemon;
    const struct bench_options *options;
    uint64_t bytes; /* of a worker */
};
extern const struct load_ops pub_ops;

#endif
