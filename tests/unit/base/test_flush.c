/* Flush variants: each copies exactly, writes nothing beyond its range, and can be forced on any
 * memory; modes parse; a processor's missing instruction is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/flush_variants.h"

static void modes(void **state)
{
    (void)state;
    enum flush_mode mode = FLUSH_NT;
    assert_int_equal(flush_mode_parse("auto", &mode), 0);
    assert_int_equal(mode, FLUSH_AUTO);
    assert_int_equal(flush_mode_parse("clwb", &mode), 0);
    assert_int_equal(mode, FLUSH_CLWB);
    assert_int_equal(flush_mode_parse("nt", &mode), 0);
    assert_int_equal(mode, FLUSH_NT);
    static const char *const junk[] = {"", "CLWB", "clwb ", "none,nt", "clflush"};
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
        assert_int_equal(flush_mode_parse(junk[i], &mode), -EMBAR_ESPEC);
}

static void copy_exactly(struct flush *f)
{
    enum { SIZE = 1024, EDGE = 128 };
    unsigned char *pool = aligned_alloc(64, SIZE);
    unsigned char source[SIZE];
    assert_non_null(pool);
    for (unsigned i = 0; i < SIZE; i++)
        source[i] = (unsigned char)(i * 7 + 1);
    for (size_t at = EDGE; at < EDGE + 65; at++) {
        for (size_t n = 0; n < 400; n += n < 70 ? 1 : 31) {
            memset(pool, 0xee, SIZE);
            flush_copy(f, pool + at, source + (n & 3), n);
            flush_drain(f);
            assert_memory_equal(pool + at, source + (n & 3), n);
            for (size_t i = 0; i < SIZE; i++)
                if (i < at || i >= at + n)
                    assert_int_equal(pool[i], 0xee);
            flush_writeback(f, pool + at, n);
            flush_drain(f);
            assert_memory_equal(pool + at, source + (n & 3), n);
        }
    }
    free(pool);
}

static void variants(void **state)
{
    (void)state;
    const struct flush_memory plain = {0};
    const struct flush_memory pages = {.pages = true};
    struct flush f;
    assert_int_equal(flush_choose(&f, FLUSH_AUTO, &plain, NULL), 0);
    assert_true(flush_is_noop(&f));
    copy_exactly(&f);
    assert_int_equal(flush_choose(&f, FLUSH_AUTO, &pages, NULL), 0);
    assert_false(flush_is_noop(&f));
    copy_exactly(&f);
    flush_release(&f);
    assert_int_equal(flush_choose(&f, FLUSH_NONE, &pages, NULL), 0);
    assert_true(flush_is_noop(&f));
    const enum flush_mode forced[] = {FLUSH_CLWB, FLUSH_CLFLUSHOPT, FLUSH_NT};
    for (unsigned i = 0; i < 3; i++) {
        struct embar_error err;
        int rc = flush_choose(&f, forced[i], &pages, &err);
        if (!flush_instruction(forced[i])) {
            assert_int_equal(rc, -EMBAR_ESPEC);
            assert_non_null(strstr(err.text, "--flush"));
            continue;
        }
        assert_int_equal(rc, 0);
        assert_false(flush_is_noop(&f));
        copy_exactly(&f);
        flush_release(&f);
    }
}

/* Who only reads writes nothing back; lines of a device are invalidated, which changes no byte. */
static void reader(void **state)
{
    (void)state;
    char *bytes = aligned_alloc(64, 256);
    const struct flush_memory plain = {0};
    struct flush_memory lines = {.lines = (struct pmem2_map *)bytes}; /* only asked whether it is */
    struct flush f;
    assert_non_null(bytes);
    memset(bytes, 7, 256);
    flush_choose_reader(&f, &plain);
    assert_true(flush_is_noop(&f));
    assert_null(f.ops->invalidate);
    flush_invalidate(&f, bytes, 256);
    flush_choose_reader(&f, &lines);
    assert_non_null(f.ops->invalidate);
    flush_invalidate(&f, bytes + 63, 0);
    flush_invalidate(&f, bytes + 63, 2);
    flush_invalidate(&f, bytes, 256);
    flush_writeback(&f, bytes, 256);
    flush_drain(&f);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(bytes[i], 7);
    free(bytes);
    flush_release(&f);
}

/* The file variant's count moves with each write-back, so that a sync is never skipped wrongly. */
static void file_counts(void **state)
{
    (void)state;
    const struct flush_memory pages = {.pages = true};
    struct flush f;
    uint64_t before = 0;
    uint64_t after = 0;
    char bytes[64] = {0};
    assert_int_equal(flush_choose(&f, FLUSH_AUTO, &pages, NULL), 0);
    assert_true(flush_file_noted(&f, &before));
    flush_drain(&f);
    flush_writeback(&f, bytes, 0);
    assert_true(flush_file_noted(&f, &after));
    assert_int_equal(before, after);
    flush_writeback(&f, bytes, 1);
    assert_true(flush_file_noted(&f, &after));
    assert_int_equal(after, before + 1);
    flush_copy(&f, bytes, "x", 1);
    assert_true(flush_file_noted(&f, &after));
    assert_int_equal(after, before + 2);
    flush_release(&f);
    assert_false(flush_file_noted(&f, &after));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes),
        cmocka_unit_test(variants),
        cmocka_unit_test(reader),
        cmocka_unit_test(file_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
