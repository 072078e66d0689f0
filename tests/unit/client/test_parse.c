/* Durations and positions of the command line: what is accepted, with its value, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "core/when.h"
#include "net/cmd/cmd.h"

#define NOW 1800000000000000000ull

static void durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"1ns", 1},
        {"200us", 200000},
        {"5ms", 5000000},
        {"10s", 10000000000},
        {"10m", 600000000000},
        {"1h30m", 5400000000000},
        {"2d", 172800000000000},
        {"0s", 0},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t ns = 99;
        assert_true(when_duration(good[i].text, &ns));
        assert_int_equal(ns, good[i].ns);
    }
    static const char *const bad[] = {
        "",     "10",      "s", "10x", "10 s", "-1s", "1.5s", "1sm", "999999999999999999999s",
        "1h30", "30000w0q"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t ns;
        assert_false(when_duration(bad[i], &ns));
    }
}

static void numbers(void **state)
{
    (void)state;
    uint64_t v;
    assert_true(parse_number("18446744073709551615", UINT64_MAX, &v));
    assert_true(v == UINT64_MAX);
    assert_false(parse_number("18446744073709551616", UINT64_MAX, &v));
    assert_false(parse_number("3", 2, &v));
    assert_false(parse_number("", 2, &v));
    assert_false(parse_number("+1", 2, &v));
    assert_false(parse_number("1 ", 2, &v));
}

static void positions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum embar_from from;
        uint64_t value;
    } good[] = {
        {"earliest", EMBAR_EARLIEST, 0},
        {"latest", EMBAR_LATEST, 0},
        {"offset:0", EMBAR_OFFSET, 0},
        {"offset:123456789012", EMBAR_OFFSET, 123456789012},
        {"message:7", EMBAR_MESSAGE, 7},
        {"time:@1700000000", EMBAR_TIME, 1700000000000000000},
        {"time:@1700000000.25", EMBAR_TIME, 1700000000250000000},
        {"time:10m", EMBAR_TIME, NOW - 600000000000},
        {"time:2023-11-14T22:13:20Z", EMBAR_TIME, 1700000000000000000},
        {"time:2023-11-14T22:13:20.5Z", EMBAR_TIME, 1700000000500000000},
        {"time:2023-11-15T00:13:20+02:00", EMBAR_TIME, 1700000000000000000},
        {"time:2023-11-14T20:43:20-01:30", EMBAR_TIME, 1700000000000000000},
        {"time:2023-11-14T22:13:20", EMBAR_TIME, 1700000000000000000},
        {"time:2024-02-29Z", EMBAR_TIME, 1709164800000000000},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        enum embar_from from;
        uint64_t value;
        assert_true(parse_position(good[i].text, NOW, &from, &value));
        assert_int_equal(from, good[i].from);
        assert_int_equal(value, good[i].value);
    }
    static const char *const bad[] = {"",
                                      "first",
                                      "offset:",
                                      "offset:-1",
                                      "offset:1x",
                                      "message:",
                                      "time:",
                                      "time:@",
                                      "time:@1.",
                                      "time:yesterday",
                                      "time:10",
                                      "time:@1x",
                                      "offset",
                                      "time:2023-02-31Z",
                                      "time:2023-11-14T25:00:00Z",
                                      "EARLIEST",
                                      "latest ",
                                      "time:2023-11-14T22:13:20+2:00"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        enum embar_from from;
        uint64_t value;
        if (parse_position(bad[i], NOW, &from, &value))
            fail_msg("\"%s\" was accepted", bad[i]);
    }
}

int main(void)
{
    setenv("TZ", "UTC", 1); /* a time without a zone is local */
    tzset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations),
        cmocka_unit_test(numbers),
        cmocka_unit_test(positions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
