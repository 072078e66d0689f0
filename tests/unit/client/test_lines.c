/* Lines into messages: every byte in exactly one message, each ended line one message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/cmd/lines.h"

static const unsigned char *bytes(const char *s)
{
    return (const unsigned char *)s;
}

static void cuts_ended_lines_and_leaves_the_rest(void **state)
{
    (void)state;
    uint32_t lengths[8], count;
    assert_int_equal(lines_cut(bytes("a\n\nbcd\nrest"), 11, lengths, 8, &count), 7);
    assert_int_equal(count, 3);
    assert_int_equal(lengths[0], 2);
    assert_int_equal(lengths[1], 1);
    assert_int_equal(lengths[2], 4);
}

static void stops_at_the_bound(void **state)
{
    (void)state;
    uint32_t lengths[2], count;
    assert_int_equal(lines_cut(bytes("\n\n\n\n"), 4, lengths, 2, &count), 2);
    assert_int_equal(count, 2);
}

static void no_newline_is_no_line(void **state)
{
    (void)state;
    uint32_t lengths[2], count = 9;
    assert_int_equal(lines_cut(bytes("abc"), 3, lengths, 2, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(lines_cut(bytes(""), 0, lengths, 2, &count), 0);
    assert_int_equal(lines_whole(bytes("abc"), 3), 0);
    assert_int_equal(lines_whole(bytes(""), 0), 0);
}

static void finds_the_last_newline(void **state)
{
    (void)state;
    assert_int_equal(lines_whole(bytes("a\nb\nc"), 5), 4);
    assert_int_equal(lines_whole(bytes("a\nb\n"), 4), 4);
}

/* Whatever the piece sizes, the pieces put together are the input. */
static void any_bound_covers_the_same_bytes(void **state)
{
    (void)state;
    enum { N = 5000 };
    unsigned char text[N];
    unsigned seed = 1;
    for (size_t i = 0; i < N; i++) {
        seed = seed * 1103515245u + 12345u;
        text[i] = seed >> 16 & 7 ? 'x' : '\n';
    }
    text[N - 1] = '\n';
    for (uint32_t max = 1; max < 40; max++) {
        size_t at = 0, lines = 0;
        while (at < N) {
            uint32_t lengths[40], count;
            size_t n = lines_cut(text + at, N - at, lengths, max, &count);
            assert_true(n > 0 && count > 0 && count <= max);
            size_t sum = 0;
            for (uint32_t i = 0; i < count; i++) {
                sum += lengths[i];
                assert_int_equal(text[at + sum - 1], '\n');
                assert_null(memchr(text + at + sum - lengths[i], '\n', lengths[i] - 1));
            }
            assert_int_equal(sum, n);
            at += n;
            lines += count;
        }
        size_t newlines = 0;
        for (size_t i = 0; i < N; i++)
            newlines += text[i] == '\n';
        assert_int_equal(lines, newlines);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_ended_lines_and_leaves_the_rest),
        cmocka_unit_test(stops_at_the_bound),
        cmocka_unit_test(no_newline_is_no_line),
        cmocka_unit_test(finds_the_last_newline),
        cmocka_unit_test(any_bound_covers_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
