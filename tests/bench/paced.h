/* A publisher at a fixed rate, open loop, as `embar bench latency` has it and `fair` puts others beside:
 * see latency.c. */
#ifndef BENCH_PACED_H
#define BENCH_PACED_H

#include <stdatomic.h>

#include "tests/bench/bench.h"

/* In memory shared with the parent, one writer each. */
struct paced_shared {
    struct hist ack;      /* written by whoever hears acks: one thread */
    struct hist delivery; /* written by the subscriber */
    atomic_uint errors;   /* messages that failed */
};

/* load.arg points to this, or to a struct that begins with it. */
struct paced_load {
    const struct daemon *daemon; /* NULL: echo */
    const struct peer_load *peer;
    const struct bench_options *options;
    struct paced_shared *shared;
    double rate;
    uint64_t count;
};

/* Worker 0 sends and hears acks, any other subscribes. */
extern const struct load_ops paced_ops;

#endif
