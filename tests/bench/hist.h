/* A latency histogram with log-linear buckets: exact below 128, then 128 buckets a factor of two,
 * so that a reported value is less than 0.8 % above the recorded one. Values are nanoseconds by
 * convention. Plain data: may stand in shared memory; not thread-safe, merge instead. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>
#include <stdio.h>

#define HIST_BITS    7u  /* log2 of the buckets a factor of two */
#define HIST_OCTAVES 34u /* values up to 2^41 - 1 (36 minutes); above: the last bucket */
#define HIST_BUCKETS ((HIST_OCTAVES + 1u) << HIST_BITS)

struct hist {
    uint64_t count, sum, min, max; /* min is meaningless while count is 0 */
    uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t value);
void hist_merge(struct hist *into, const struct hist *from);

/* The smallest recorded value (up to the resolution) that at least p percent of all are not above:
 * the bucket's highest value, never above max. 0 when empty. */
uint64_t hist_percentile(const struct hist *h, double p);
double hist_mean(const struct hist *h);

/* The distribution as HdrHistogram prints it: a line for each of a few steps to half of what is left
 * of the percentiles. Values are divided by `unit`. */
void hist_print(FILE *to, const struct hist *h, double unit);

/* For tests: which bucket, and the highest value that lands in it. */
unsigned hist_index(uint64_t value);
uint64_t hist_highest(unsigned index);

#endif
