/* Log-linear buckets. Must never lose a value: what is beyond the range counts in the last bucket
 * and max stays exact. */
#include <math.h>

#include "tests/bench/hist.h"

unsigned hist_index(uint64_t value)
{
    if (value < (1u << HIST_BITS))
        return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
    unsigned shift = exponent - HIST_BITS;
    if (shift >= HIST_OCTAVES)
        return HIST_BUCKETS - 1;
    unsigned mantissa = (unsigned)(value >> shift) - (1u << HIST_BITS);
    return ((shift + 1) << HIST_BITS) + mantissa;
}

uint64_t hist_highest(unsigned index)
{
    unsigned row = index >> HIST_BITS;
    uint64_t mantissa = index & ((1u << HIST_BITS) - 1);
    if (row == 0)
        return mantissa;
    return ((((uint64_t)1 << HIST_BITS) + mantissa + 1) << (row - 1)) - 1;
}

void hist_add(struct hist *h, uint64_t value)
{
    if (h->count == 0 || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->count++;
    h->sum += value;
    h->bucket[hist_index(value)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    if (from->count == 0)
        return;
    if (into->count == 0 || from->min < into->min)
        into->min = from->min;
    if (from->max > into->max)
        into->max = from->max;
    into->count += from->count;
    into->sum += from->sum;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

uint64_t hist_percentile(const struct hist *h, double p)
{
    if (h->count == 0)
        return 0;
    double wanted = ceil(p / 100.0 * (double)h->count);
    uint64_t rank = wanted < 1 ? 1 : (uint64_t)wanted;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank) {
            /* The last bucket has no upper end of its own. */
            uint64_t value = i == HIST_BUCKETS - 1 ? h->max : hist_highest(i);
            return value < h->max ? value : h->max;
        }
    }
    return h->max;
}

double hist_mean(const struct hist *h)
{
    return h->count > 0 ? (double)h->sum / (double)h->count : 0;
}

void hist_print(FILE *to, const struct hist *h, double unit)
{
    (void)fprintf(to, "%12s %14s %10s %14s\n", "Value", "Percentile", "TotalCount",
                  "1/(1-Percentile)");
    uint64_t seen = 0;
    double next = 0;
    for (unsigned i = 0; i < HIST_BUCKETS && seen < h->count; i++) {
        if (h->bucket[i] == 0)
            continue;
        seen += h->bucket[i];
        double p = (double)seen / (double)h->count;
        uint64_t value =
            i == HIST_BUCKETS - 1 || hist_highest(i) > h->max ? h->max : hist_highest(i);
        if (p < next && seen < h->count)
            continue;
        (void)fprintf(to, "%12.3f %14.12f %10llu", (double)value / unit, p,
                      (unsigned long long)seen);
        (void)(seen < h->count ? fprintf(to, " %14.2f\n", 1 / (1 - p)) : fprintf(to, "\n"));
        while (next <= p && seen < h->count) /* five steps to half of what is left */
            next += exp2(-floor(-log2(1 - next)) - 1) / 5;
    }
    (void)fprintf(to, "#[Mean = %.3f, Total count = %llu]\n#[Max = %.3f]\n", hist_mean(h) / unit,
                  (unsigned long long)h->count, (double)h->max / unit);
}
