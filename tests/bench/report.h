/* What a benchmark says: facts, series of rounds, distributions, ratios and caveats; as a table for
 * people or as JSON. One thread. Names and texts are copied. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "tests/bench/hist.h"
#include "tests/bench/load.h"

#define REPORT_MAX_ROUNDS 200u

struct report;
struct series;

struct report *report_new(const char *name, const char *title);
void report_free(struct report *r);

void report_fact(struct report *r, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void report_caveat(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The machine: cores, kernel, load. Call it first. */
void report_machine(struct report *r);

/* Values in `unit`; higher_better says how to read ratios. `message`: bytes of a message, so that
 * GB/s are told as messages a second too; 0: not. */
struct series *report_series(struct report *r, const char *name, const char *unit, size_t message);
void series_add(struct series *s, double value);
/* GB/s, and seconds of processor time per GB of both sides. */
void series_add_load(struct series *s, const struct load_result *result);

/* Shown as percentiles in microseconds. The histogram is copied. */
void report_distribution(struct report *r, const char *name, const struct hist *h);

/* The ratio subject / baseline of each round's pair. */
void report_ratio(struct report *r, const struct series *subject, const struct series *baseline);

/* 0 or -errno of writing. */
int report_print(const struct report *r, bool json, FILE *out) __attribute__((warn_unused_result));

#endif
