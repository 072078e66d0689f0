/* Error codes: no hole in the table, cause and remedy in each, nothing from outside breaks it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "embar/error.h"

static void no_hole(void **state)
{
    (void)state;
    for (int code = EMBAR_ENOTPOOL; code <= EMBAR_ETAKEN; code++) {
        const char *text = embar_strerror(code);
        assert_non_null(text);
        assert_ptr_equal(text, embar_strerror(-code));
        size_t n = strlen(text);
        /* A cause and a remedy, in one sentence that leaves room for particulars. */
        assert_in_range(n, 20, 300);
        assert_int_equal(text[n - 1], '.');
        assert_true(strchr(text, ';') || strchr(text, ':') || strchr(text, ','));
        assert_in_range(embar_to_errno(code), 1, 200);
        assert_int_equal(embar_to_errno(code), embar_to_errno(-code));
        for (int other = EMBAR_ENOTPOOL; other < code; other++)
            assert_string_not_equal(text, embar_strerror(other));
    }
}

static void any_number(void **state)
{
    (void)state;
    const int odd[] = {0, 1, -1, 500, -500, 1000, 1029, -1029, 99999, INT_MAX, -INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        assert_true(strlen(embar_strerror(odd[i])) > 0);
        assert_in_range(embar_to_errno(odd[i]), 0, 200);
    }
    for (int code = 1; code < 134; code++)
        assert_true(strlen(embar_strerror(-code)) > 0);
    assert_int_equal(embar_to_errno(-ENOSPC), ENOSPC);
    assert_int_equal(embar_to_errno(-EMBAR_EFULL), ENOSPC);
    assert_int_equal(embar_to_errno(-EMBAR_ETRIMMED), ENODATA);
    assert_int_equal(embar_to_errno(500), EIO);
}

static void particulars(void **state)
{
    (void)state;
    struct embar_error err;
    assert_int_equal(embar_fail(NULL, -EMBAR_EFULL, "nobody listens"), -EMBAR_EFULL);
    assert_int_equal(embar_fail(&err, -EMBAR_EFULL, "all %d of it is said.", 1), -EMBAR_EFULL);
    assert_int_equal(err.code, -EMBAR_EFULL);
    assert_string_equal(err.text, "all 1 of it is said.");
    embar_fail(&err, -ENOSPC, "writing %s", "/x");
    assert_non_null(strstr(err.text, "writing /x: "));
    assert_string_equal(err.text + strlen("writing /x: "), embar_strerror(ENOSPC));
    embar_fail(&err, -ENOSPC, "writing:");
    assert_string_equal(err.text + strlen("writing: "), embar_strerror(ENOSPC));
    embar_fail(&err, -EMBAR_EGONE, NULL);
    assert_string_equal(err.text, embar_strerror(EMBAR_EGONE));
}

/* Whatever the length of the particulars: terminated, and the sentence behind them stays whole. */
static void long_particulars(void **state)
{
    (void)state;
    char text[700];
    for (int code = EMBAR_ENOTPOOL; code <= EMBAR_ETAKEN; code++) {
        for (size_t n = 0; n < sizeof(text); n += 7) {
            memset(text, 'x', n);
            text[n] = '\0';
            struct embar_error err;
            memset(&err, 0xff, sizeof(err));
            embar_fail(&err, -code, "%s", text);
            assert_non_null(memchr(err.text, '\0', sizeof(err.text)));
            const char *own = embar_strerror(code);
            size_t whole = strlen(err.text);
            assert_true(whole >= strlen(own));
            assert_string_equal(err.text + whole - strlen(own), own);
            embar_fail(&err, -code, "%s.", text);
            assert_non_null(memchr(err.text, '\0', sizeof(err.text)));
            assert_int_equal(err.text[strlen(err.text) - 1], '.');
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_hole),
        cmocka_unit_test(any_number),
        cmocka_unit_test(particulars),
        cmocka_unit_test(long_particulars),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
