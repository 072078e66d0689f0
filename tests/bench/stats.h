/* Summaries of a few measured rounds: median and quartiles. Serves no step of a batch: it belongs
 * to `embar bench`. Pure functions, thread-safe. */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stddef.h>

struct stats {
    size_t n; /* 0: all else is 0 */
    double min, q1, median, q3, max;
    double low, high; /* the median's 95 % interval; below 6 values: min and max, which is less */
};

/* Quartiles interpolate linearly between order statistics (R's type 7: the p-quantile stands at
 * p * (n - 1)). The median's interval stands between the order statistics that it lies between
 * with a probability of 95 % or more whatever the distribution (binomial). `values` are left as they are; NaNs are left out. */
struct stats stats_of(const double *values, size_t n);

/* out[i] = a[i] / b[i], the ratio within each interleaved pair; NaN where b[i] is not positive. */
void stats_ratios(const double *a, const double *b, size_t n, double *out);

#endif
