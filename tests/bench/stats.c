/* Median and quartiles of rounds, and ratios of pairs. Must never compare values of different
 * rounds: the machine drifts between them, which is what pairs are for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/stats.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t low = (size_t)at;
    if (low + 1 >= n)
        return sorted[n - 1];
    return sorted[low] + (at - (double)low) * (sorted[low + 1] - sorted[low]);
}

/* How many of n values lie below the median's interval, and as many above it: the most such that the
 * chance of the median being there, twice the lower tail of a binomial distribution, is at most 5 %. */
static size_t outside(size_t n)
{
    double chance = pow(0.5, (double)n), tail = 0;
    for (size_t i = 0; i < n / 2; i++) {
        tail += chance;
        if (2 * tail > 0.05)
            return i;
        chance *= (double)(n - i) / (double)(i + 1);
    }
    return n / 2;
}

struct stats stats_of(const double *values, size_t n)
{
    struct stats s = {0};
    double *sorted = n > 0 ? calloc(n, sizeof(*sorted)) : NULL;
    if (!sorted)
        return s;
    for (size_t i = 0; i < n; i++)
        if (!isnan(values[i]))
            sorted[s.n++] = values[i];
    if (s.n > 0) {
        qsort(sorted, s.n, sizeof(*sorted), ascending);
        s.min = sorted[0];
        s.q1 = quantile(sorted, s.n, 0.25);
        s.median = quantile(sorted, s.n, 0.5);
        s.q3 = quantile(sorted, s.n, 0.75);
        s.max = sorted[s.n - 1];
        size_t cut = outside(s.n);
        s.low = sorted[cut ? cut - 1 : 0];
        s.high = sorted[cut ? s.n - cut : s.n - 1];
    }
    free(sorted);
    return s;
}

void stats_ratios(const double *a, const double *b, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = b[i] > 0 ? a[i] / b[i] : NAN;
}
