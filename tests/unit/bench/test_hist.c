/* The histogram: bucket borders, resolution, percentiles against a sorted array, merging. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bench/hist.h"

static struct hist a, b, both;

static int ascending(const void *x, const void *y)
{
    uint64_t p = *(const uint64_t *)x;
    uint64_t q = *(const uint64_t *)y;
    return (p > q) - (p < q);
}

static void buckets_are_contiguous(void **state)
{
    (void)state;
    for (unsigned i = 0; i + 1 < HIST_BUCKETS; i++) {
        assert_int_equal(hist_index(hist_highest(i)), i);
        assert_int_equal(hist_index(hist_highest(i) + 1), i + 1);
    }
    assert_int_equal(hist_index(UINT64_MAX), HIST_BUCKETS - 1);
}

static void resolution_is_below_one_percent(void **state)
{
    (void)state;
    for (uint64_t v = 1; v < (UINT64_C(1) << 40); v += v / 3 + 1) {
        uint64_t high = hist_highest(hist_index(v));
        assert_true(high >= v);
        assert_true(high - v <= v / 128);
    }
}

static void percentiles_match_a_sorted_array(void **state)
{
    (void)state;
    enum { N = 20011 };
    static uint64_t v[N];
    uint64_t x = 88172645463325252u;
    memset(&a, 0, sizeof(a));
    for (int i = 0; i < N; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        v[i] = x % (UINT64_C(1) << (8 + i % 30));
        hist_add(&a, v[i]);
    }
    qsort(v, N, sizeof(v[0]), ascending);
    const double p[] = {0, 1, 50, 90, 99, 99.9, 100};
    for (size_t i = 0; i < sizeof(p) / sizeof(p[0]); i++) {
        double exact = p[i] / 100.0 * N;
        size_t rank = (size_t)exact;
        if ((double)rank < exact || rank == 0)
            rank++;
        uint64_t want = v[rank - 1];
        uint64_t got = hist_percentile(&a, p[i]);
        assert_true(got >= want);
        assert_true(got - want <= want / 128);
    }
    assert_int_equal(hist_percentile(&a, 100), v[N - 1]);
    assert_int_equal(a.min, v[0]);
}

static void beyond_the_range_is_counted(void **state)
{
    (void)state;
    memset(&a, 0, sizeof(a));
    hist_add(&a, 5);
    hist_add(&a, UINT64_MAX / 2);
    assert_int_equal(a.count, 2);
    assert_int_equal(hist_percentile(&a, 50), 5);
    assert_int_equal(hist_percentile(&a, 99), UINT64_MAX / 2);
}

static void merging_equals_adding(void **state)
{
    (void)state;
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    memset(&both, 0, sizeof(both));
    hist_merge(&a, &b); /* empty into empty */
    for (uint64_t i = 1; i < 3000; i++) {
        hist_add(i % 3 ? &a : &b, i * i);
        hist_add(&both, i * i);
    }
    hist_merge(&a, &b);
    assert_memory_equal(&a, &both, sizeof(a));
}

static void empty_answers_zero(void **state)
{
    (void)state;
    memset(&a, 0, sizeof(a));
    assert_int_equal(hist_percentile(&a, 50), 0);
    assert_true(hist_mean(&a) == 0);
}

static void printing_ends_with_the_largest(void **state)
{
    (void)state;
    char text[16384] = "", *line, *rest = text;
    unsigned long long seen = 0, count, lines = 0;
    double value, p, last = 0;
    memset(&a, 0, sizeof(a));
    for (uint64_t i = 1; i <= 100000; i++)
        hist_add(&a, i * 1000);
    FILE *f = fmemopen(text, sizeof(text), "w");
    assert_non_null(f);
    hist_print(f, &a, 1e3);
    assert_int_equal(fclose(f), 0);
    while ((line = strsep(&rest, "\n")) && *line) {
        if (sscanf(line, "%lf %lf %llu", &value, &p, &count) != 3)
            continue;
        assert_true(p > last && count > seen);
        assert_true(value >= (double)count && value <= (double)count * 1.008);
        last = p;
        seen = count;
        lines++;
    }
    assert_int_equal(seen, 100000);
    assert_true(last == 1);
    assert_in_range(lines, 25, 90); /* five to a half, as far as the buckets tell them apart */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_contiguous),
        cmocka_unit_test(resolution_is_below_one_percent),
        cmocka_unit_test(percentiles_match_a_sorted_array),
        cmocka_unit_test(beyond_the_range_is_counted),
        cmocka_unit_test(merging_equals_adding),
        cmocka_unit_test(empty_answers_zero),
        cmocka_unit_test(printing_ends_with_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
