/* Runs that were noted as damaged or lost: what is read around them, and what of them stays over a
 * checkpoint, a trim and a reopening. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"

#define BATCHES 1200u /* more than two runs take */
#define LENGTH  10u

static struct topic *filled(struct fixture *f, uint32_t *id)
{
    fixture_open(f, 0, 0);
    *id = fixture_topic(f, "t");
    struct topic *t = log_topic(f->log, *id);
    for (unsigned i = 0; i < BATCHES; i++) {
        char text[LENGTH + 1];
        snprintf(text, sizeof text, "%09u\n", i);
        assert_int_equal(fixture_publish(f, t, 0, 0, 0, text, LENGTH, NULL, 2).status, 0);
    }
    assert_true(t->run_count >= 3);
    return t;
}

/* Note run 1; the checkpoint takes it to the pool, the reopening brings it back. */
static struct topic *noted(struct fixture *f, uint32_t *id, unsigned flags)
{
    struct topic *t = filled(f, id);
    struct run *r = topic_run(t, 1);
    r->flags = (uint8_t)flags;
    if (flags & MEDIA_RUN_LOST) {
        extent_put(f->log->extents, extent_find(f->log->extents, r->payload, r->order));
        r->payload = 0, r->order = 0, r->side = 0;
    }
    table_rewrite(t->log, t);
    topic_put(t);
    fixture_reopen(f);
    t = log_topic(f->log, *id);
    assert_int_equal(topic_run(t, 1)->flags, flags);
    return t;
}

static void check_text(struct topic *t, uint64_t from, uint64_t to)
{
    while (from < to) {
        struct read_view v;
        assert_int_equal(topic_read(t, from, to - from, &v), 0);
        assert_true(v.bytes > 0);
        for (int i = 0; i < v.pieces; i++)
            for (size_t k = 0; k < v.iov[i].iov_len; k++, from++) {
                char text[LENGTH + 1];
                snprintf(text, sizeof text, "%09u\n", (unsigned)(from / LENGTH));
                assert_int_equal(((char *)v.iov[i].iov_base)[k], text[from % LENGTH]);
            }
        read_release(&v);
    }
}

static void reads_around(unsigned flags)
{
    struct fixture f;
    uint32_t id;
    struct topic *t = noted(&f, &id, flags);
    uint64_t a = topic_run(t, 1)->offset, b = topic_run(t, 2)->offset;
    struct read_view v;
    struct batch_view view;
    /* Up to it, then it, then from behind it. */
    assert_int_equal(topic_read(t, a - 5, 100, &v), 0);
    assert_int_equal(v.bytes, 5);
    read_release(&v);
    assert_int_equal(topic_read(t, a, 100, &v), -EMBAR_ECORRUPT);
    assert_int_equal(topic_read(t, b - 1, 100, &v), -EMBAR_ECORRUPT);
    check_text(t, 0, a);
    check_text(t, b, topic_end(t));
    for (uint64_t at = 0; at < topic_end(t);) {
        struct batch_cursor c = {.offset = at};
        int rc = topic_next(t, &c, &view);
        assert_int_equal(rc, at >= a && at < b ? -EMBAR_ECORRUPT : 1);
        if (rc == 1) {
            assert_int_equal(view.offset, at);
            assert_int_equal(view.message, at / LENGTH * 2);
            read_release(&view.data);
        }
        at += LENGTH;
    }
    uint64_t offset;
    uint64_t m = topic_run(t, 1)->message;
    assert_int_equal(topic_seek_message(t, m, &offset), 0);
    assert_int_equal(offset, a);
    assert_int_equal(topic_seek_message(t, m + 1, &offset), -EMBAR_ECORRUPT);
    assert_int_equal(topic_seek_message(t, topic_run(t, 2)->message + 1, &offset), 0);
    assert_int_equal(offset, b + LENGTH / 2);
    assert_int_equal(topic_seek_time(t, 1, &offset), 0);
    assert_int_equal(offset, 0);
    assert_int_equal(topic_seek_time(t, UINT64_MAX, &offset), 0);
    assert_int_equal(offset, topic_end(t));
    topic_put(t);
    fixture_close(&f);
}

static void test_damaged(void **state)
{
    (void)state;
    reads_around(MEDIA_RUN_DAMAGED);
}

static void test_lost(void **state)
{
    (void)state;
    reads_around(MEDIA_RUN_LOST);
}

static void test_trim_past_it(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t id;
    struct topic *t = noted(&f, &id, MEDIA_RUN_LOST);
    uint64_t a = topic_run(t, 1)->offset, b = topic_run(t, 2)->offset;
    struct control c = {.kind = MEDIA_C_TRIM, .id = id, .value = a + 7};
    struct commit commit;
    assert_int_equal(fixture_try(&f, c, &commit), 0);
    assert_int_equal(topic_base(t), a); /* all of it, or none */
    c.value = b + 15;
    assert_int_equal(fixture_try(&f, c, &commit), 0);
    assert_int_equal(topic_base(t), b + 15);
    check_text(t, b + 15, topic_end(t));
    topic_put(t);
    fixture_reopen(&f);
    t = log_topic(f.log, id);
    check_text(t, b + 15, topic_end(t));
    topic_put(t);
    fixture_close(&f);
}

/* Whatever is noted at the end: what comes next stands behind it, in a run of its own. */
static void test_append_behind(void **state)
{
    (void)state;
    for (unsigned flags = 1; flags <= 2; flags++) {
        struct fixture f;
        uint32_t id;
        struct topic *t = filled(&f, &id);
        struct run *r = topic_run(t, t->run_count - 1);
        uint64_t a = r->offset, end = topic_end(t);
        r->flags = (uint8_t)flags;
        if (flags & MEDIA_RUN_LOST) {
            extent_put(f.log->extents, extent_find(f.log->extents, r->payload, r->order));
            r->payload = 0, r->order = 0, r->side = 0;
        }
        table_rewrite(t->log, t);
        topic_put(t);
        fixture_reopen(&f);
        t = log_topic(f.log, id);
        struct read_view v;
        assert_int_equal(topic_read(t, a, 100, &v), -EMBAR_ECORRUPT);
        char text[LENGTH + 1];
        snprintf(text, sizeof text, "%09u\n", (unsigned)(end / LENGTH));
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, text, LENGTH, NULL, 2).status, 0);
        topic_put(t);
        fixture_kill(&f);
        t = log_topic(f.log, id);
        check_text(t, 0, a);
        assert_int_equal(topic_read(t, end - 1, 100, &v), -EMBAR_ECORRUPT);
        check_text(t, end, end + LENGTH);
        topic_put(t);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_trim_past_it),
        cmocka_unit_test(test_append_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
