/* Text for a terminal: what is a character and what is written out, into any size of buffer, and through
 * stderr. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/plain.h"
#include "embar/error.h"

static const struct {
    const char *from, *to;
} cases[] = {
    {"", ""},
    {"plain words", "plain words"},
    {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
    {"\033[31mred", "\\x1b[31mred"},
    {"two\nlines\r\tand\a\b\v\f", "two\\nlines\\r\\tand\\a\\b\\v\\f"},
    {"\x01\x1f\x7f", "\\x01\\x1f\\x7f"},
    {"\xc2\x9b"
     "31m",
     "\\xc2\\x9b31m"}, /* U+009B is an escape sequence's beginning, too */
    {"\xc2\xa0", "\xc2\xa0"},
    {"\x9b", "\\x9b"},
    {"\xc0\x80 \xed\xa0\x80 \xf5", "\\xc0\\x80 \\xed\\xa0\\x80 \\xf5"},
    {"cut \xe2\x82", "cut \\xe2\\x82"},
};

static void written_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char to[100];
        assert_int_equal(plain_text(to, sizeof(to), cases[i].from), strlen(cases[i].to));
        assert_string_equal(to, cases[i].to);
    }
}

/* Whatever the size: terminated, a beginning, and of whole characters. */
static void any_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t whole = strlen(cases[i].to);
        for (size_t size = 0; size <= whole + 2; size++) {
            char to[100];
            memset(to, 'x', sizeof(to));
            assert_int_equal(plain_text(to, size, cases[i].from), whole);
            assert_int_equal(to[size], 'x');
            if (size == 0)
                continue;
            size_t n = strlen(to);
            assert_true(n < size && n + 4 >= (size <= whole ? size : whole + 1));
            assert_memory_equal(to, cases[i].to, n);
            for (size_t at = 0, step; at < n; at += step) {
                step = plain_step(to + at, n - at);
                assert_true(step > 0);
            }
        }
    }
}

static void sentences(void **state)
{
    (void)state;
    struct embar_error err;
    (void)embar_fail(&err, -EMBAR_ENAME, "\"%s\".", "a\n\033]0;title\a");
    assert_string_equal(err.text, "\"a\\n\\x1b]0;title\\a\".");
    char bad[400];
    memset(bad, '\033', sizeof(bad) - 1);
    bad[sizeof(bad) - 1] = '\0';
    (void)embar_fail(&err, -EMBAR_ENAME, "%s", bad);
    assert_null(strchr(err.text, '\033'));
    assert_non_null(strstr(err.text, embar_strerror(EMBAR_ENAME)));
    (void)embar_fail(&err, -EMBAR_ENAME, "%s.", bad);
    assert_null(strchr(err.text, '\033'));
    assert_string_equal(err.text + strlen(err.text) - 3, "...");
}

/* Last: stderr stays as it is then. */
static void through_stderr(void **state)
{
    (void)state;
    int ends[2], before = dup(STDERR_FILENO);
    char got[6000], want[6000] = "", line[4001];
    assert_int_equal(pipe(ends), 0);
    plain_stderr();
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (!strchr(cases[i].from, '\n')) {
            fprintf(stderr, "%s\n", cases[i].from);
            snprintf(want + strlen(want), sizeof(want) - strlen(want), "%s\n", cases[i].to);
        }
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    fputs(line, stderr);
    strcat(want, line);
    dup2(before, STDERR_FILENO);
    close(ends[1]);
    size_t have = 0;
    for (ssize_t n; (n = read(ends[0], got + have, sizeof(got) - 1 - have)) > 0;)
        have += (size_t)n;
    got[have] = '\0';
    assert_string_equal(got, want);
    close(ends[0]);
    close(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_out),
        cmocka_unit_test(any_size),
        cmocka_unit_test(sentences),
        cmocka_unit_test(through_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
