/* Median, quartiles and pair ratios against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/bench/stats.h"

static void near(double got, double want)
{
    if (fabs(got - want) > 1e-12)
        fail_msg("got %.15g, want %.15g", got, want);
}

static void odd_count_has_its_middle(void **state)
{
    (void)state;
    const double v[] = {9, 1, 5, 3, 7};
    struct stats s = stats_of(v, 5);
    assert_int_equal(s.n, 5);
    near(s.min, 1);
    near(s.q1, 3);
    near(s.median, 5);
    near(s.q3, 7);
    near(s.max, 9);
    near(v[0], 9); /* the input is left as it was */
}

static void even_count_interpolates(void **state)
{
    (void)state;
    const double v[] = {4, 1, 3, 2};
    struct stats s = stats_of(v, 4);
    near(s.q1, 1.75);
    near(s.median, 2.5);
    near(s.q3, 3.25);
}

static void one_and_none(void **state)
{
    (void)state;
    const double v[] = {42};
    struct stats s = stats_of(v, 1);
    near(s.q1, 42);
    near(s.median, 42);
    near(s.q3, 42);
    s = stats_of(v, 0);
    assert_int_equal(s.n, 0);
    near(s.median, 0);
}

static void nan_is_left_out(void **state)
{
    (void)state;
    const double v[] = {NAN, 2, NAN, 4};
    struct stats s = stats_of(v, 4);
    assert_int_equal(s.n, 2);
    near(s.median, 3);
}

/* Ranks as tables of the sign test give them. */
static void the_medians_interval(void **state)
{
    (void)state;
    static const struct {
        size_t n, rank;
    } table[] = {{5, 1}, {6, 1}, {8, 1}, {9, 2}, {15, 4}, {30, 10}, {31, 10}, {100, 40}};
    double v[100];
    for (size_t i = 0; i < 100; i++)
        v[i] = (double)(i + 1);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct stats s = stats_of(v, table[i].n);
        near(s.low, (double)table[i].rank);
        near(s.high, (double)(table[i].n + 1 - table[i].rank));
    }
}

static void ratios_pair_by_round(void **state)
{
    (void)state;
    const double a[] = {1, 4, 9};
    const double b[] = {2, 0, 3};
    double r[3];
    stats_ratios(a, b, 3, r);
    near(r[0], 0.5);
    assert_true(isnan(r[1]));
    near(r[2], 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_count_has_its_middle),
        cmocka_unit_test(even_count_interpolates),
        cmocka_unit_test(one_and_none),
        cmocka_unit_test(nan_is_left_out),
        cmocka_unit_test(the_medians_interval),
        cmocka_unit_test(ratios_pair_by_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
