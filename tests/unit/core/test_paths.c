/* What a name may be, and a path of names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/log.h"

static void name_table(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t length;
        int rc;
    } table[] = {
        {"a", 1, 0},
        {"", 0, -EMBAR_ENAME},
        {".", 1, -EMBAR_ENAME},
        {"..", 2, -EMBAR_ENAME},
        {"...", 3, 0},
        {".a", 2, 0},
        {"..a", 3, 0},
        {".embar", 6, 0}, /* reserved at the root only: not a matter of the name */
        {"a/b", 3, -EMBAR_ENAME},
        {"/", 1, -EMBAR_ENAME},
        {"a\0b", 3, -EMBAR_ENAME},
        {"a\nb", 3, -EMBAR_ENAME},
        {"a\tb", 3, -EMBAR_ENAME},
        {"a\x1f", 2, -EMBAR_ENAME},
        {"a\x7f", 2, -EMBAR_ENAME},
        {"a b", 3, 0},
        {" ", 1, 0},
        {"-rf", 3, 0},
        {"\xc2\x80", 2, -EMBAR_ENAME}, /* U+0080, a control character */
        {"\xc2\x9f", 2, -EMBAR_ENAME}, /* U+009F */
        {"\xc2\xa0", 2, 0},            /* U+00A0 */
        {"\xc3\xa9", 2, 0},            /* e acute */
        {"\xc3", 1, -EMBAR_ENAME},     /* cut off */
        {"\xc3\x28", 2, -EMBAR_ENAME}, /* no continuation */
        {"\x80", 1, -EMBAR_ENAME},     /* a lone continuation */
        {"\xbf", 1, -EMBAR_ENAME},
        {"\xc0\xaf", 2, -EMBAR_ENAME},     /* '/' overlong */
        {"\xc1\xbf", 2, -EMBAR_ENAME},     /* overlong */
        {"\xe0\x80\xaf", 3, -EMBAR_ENAME}, /* overlong */
        {"\xe0\x9f\xbf", 3, -EMBAR_ENAME}, /* overlong */
        {"\xe0\xa0\x80", 3, 0},            /* U+0800 */
        {"\xe2\x82\xac", 3, 0},            /* euro */
        {"\xe2\x82", 2, -EMBAR_ENAME},
        {"a\xe2\x82", 3, -EMBAR_ENAME},
        {"\xed\x9f\xbf", 3, 0},                /* U+D7FF */
        {"\xed\xa0\x80", 3, -EMBAR_ENAME},     /* surrogate */
        {"\xed\xbf\xbf", 3, -EMBAR_ENAME},     /* surrogate */
        {"\xee\x80\x80", 3, 0},                /* U+E000 */
        {"\xf0\x8f\xbf\xbf", 4, -EMBAR_ENAME}, /* overlong */
        {"\xf0\x90\x80\x80", 4, 0},            /* U+10000 */
        {"\xf0\x9f\x90\x98", 4, 0},
        {"\xf4\x8f\xbf\xbf", 4, 0},            /* U+10FFFF */
        {"\xf4\x90\x80\x80", 4, -EMBAR_ENAME}, /* above it */
        {"\xf5\x80\x80\x80", 4, -EMBAR_ENAME},
        {"\xff", 1, -EMBAR_ENAME},
        {"\xfe", 1, -EMBAR_ENAME},
        {"\xf8\x88\x80\x80\x80", 5, -EMBAR_ENAME},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        /* Exactly as long as said: a read behind it is the sanitizer's. */
        char *exact = malloc(table[i].length + 1);
        memcpy(exact, table[i].name, table[i].length);
        exact = realloc(exact, table[i].length ? table[i].length : 1);
        if (name_check(exact, table[i].length) != table[i].rc)
            fail_msg("row %zu", i);
        free(exact);
    }
    char most[256];
    memset(most, 'x', sizeof most);
    assert_int_equal(name_check(most, 255), 0);
    assert_int_equal(name_check(most, 256), -EMBAR_ENAME);
    memcpy(most + 252, "\xe2\x82\xac", 3);
    assert_int_equal(name_check(most, 255), 0);
    assert_int_equal(name_check(most, 254), -EMBAR_ENAME);
}

static void paths(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int rc;
    } table[] = {
        {"", 0},
        {"/", 0},
        {"a", 0},
        {"/a", 0},
        {"a/b c/\xe2\x82\xac", 0},
        {"//", -EMBAR_ENAME},
        {"//a", -EMBAR_ENAME},
        {"a/", -EMBAR_ENAME},
        {"a//b", -EMBAR_ENAME},
        {"a/../b", -EMBAR_ENAME},
        {"a/b\n", -EMBAR_ENAME},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t n = strlen(table[i].path);
        char *exact = malloc(n ? n : 1);
        memcpy(exact, table[i].path, n);
        if (path_check(exact, n) != table[i].rc)
            fail_msg("row %zu", i);
        free(exact);
    }
    char most[MEDIA_MAX_PATH + 1];
    for (size_t i = 0; i < sizeof most; i++)
        most[i] = i % 200 == 199 ? '/' : 'x';
    assert_int_equal(path_check(most, MEDIA_MAX_PATH), 0);
    assert_int_equal(path_check(most, MEDIA_MAX_PATH + 1), -EMBAR_ENAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_table),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests_name("core paths", tests, NULL, NULL);
}
