/* A load: worker threads spread over client processes that are opened, start together, run and
 * report. Baselines and subjects both run through here, so that they have the same processes and
 * threads and are timed by the same clock reads.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "embar/error.h"

struct load;

/* What a worker reports; stands in memory shared with the benchmark's process. */
struct load_report {
    uint64_t start_ns, end_ns; /* stamped around run() */
    uint64_t bytes, messages;  /* set by run(): what counts, that is acked or received */
    struct embar_error error;  /* code 0: none */
};

struct load_worker {
    const struct load *load;
    unsigned index; /* 0..load->workers - 1, over all processes */
    void *shared;   /* what prepare() made for this process */
    void *own;      /* the worker's, between open and close */
    struct load_report *report;
};

/* open and close are outside the measured time. Each answers 0 or a negative code with
 * report->error filled. All but run may be NULL. */
struct load_ops {
    int (*prepare)(const struct load *load, void **shared, struct embar_error *err); /* a process */
    int (*open)(struct load_worker *w);
    int (*run)(struct load_worker *w);
    void (*close)(struct load_worker *w);
};

struct load {
    const struct load_ops *ops;
    const void *arg;
    unsigned workers, processes; /* workers are dealt round over the processes */
    pid_t server;                /* whose processor time counts as the server's, 0: none */
    uint64_t limit_ms;           /* the load is ended and fails after this long */
};

struct load_result {
    double seconds; /* first start to last end */
    uint64_t bytes, messages;
    double cpu_client, cpu_server; /* seconds of processor time within the run */
};

/* 0, or the first worker's error. The benchmark's process must be single-threaded. */
int load_run(const struct load *load, struct load_result *result, struct embar_error *err)
    __attribute__((warn_unused_result));

#endif
