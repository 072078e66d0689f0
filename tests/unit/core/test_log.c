/* The log end to end on memory: what is committed is read back, also after close and kill. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/core/fixture.h"

/* Content that tells where it stands. */
static void fill(char *p, size_t n, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + (at + i) * 2654435761u % 26);
}

static void expect_content(struct topic *t, uint64_t size)
{
    size_t n;
    char *got = fixture_read(t, &n);
    assert_int_equal(n, size);
    char *want = malloc(n + 1);
    fill(want, n, topic_base(t));
    assert_memory_equal(got, want, n);
    free(got);
    free(want);
}

static void publish_filled(struct fixture *f, struct topic *t, uint32_t length, uint32_t count)
{
    char *data = malloc(length);
    fill(data, length, topic_end(t));
    uint32_t *lengths = calloc(count, sizeof *lengths);
    for (uint32_t i = 0; i < count; i++)
        lengths[i] = i + 1 < count ? length / count : length - (length / count) * (count - 1);
    struct commit c =
        fixture_publish(f, t, 0, 0, 0, data, length, count > 1 ? lengths : NULL, count);
    assert_int_equal(c.status, 0);
    free(lengths);
    free(data);
}

static void reads_what_was_published(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "topic0");
    struct topic *t = log_topic(f.log, id);
    uint64_t total = 0;
    for (unsigned i = 0; i < 300; i++) {
        uint32_t length = 1 + i * 37 % 5000;
        publish_filled(&f, t, length, 1 + i % 7 < length ? 1 + i % 7 : 1);
        total += length;
    }
    expect_content(t, total);
    topic_put(t);
    fixture_reopen(&f);
    t = log_topic(f.log, id);
    expect_content(t, total);
    topic_put(t);
    fixture_close(&f);
}

static void survives_kill(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    uint64_t total = 0;
    for (unsigned round = 0; round < 20; round++) {
        struct topic *t = log_topic(f.log, id);
        assert_non_null(t);
        expect_content(t, total);
        for (unsigned i = 0; i < 30; i++) {
            publish_filled(&f, t, 100 + i, 3);
            total += 100 + i;
        }
        topic_put(t);
        fixture_kill(&f);
    }
    struct topic *t = log_topic(f.log, id);
    expect_content(t, total);
    topic_put(t);
    fixture_close(&f);
}

static void tiny_ring_laps(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 16, 2);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t total = 0;
    for (unsigned i = 0; i < 5000; i++) {
        publish_filled(&f, t, 17, 1);
        total += 17;
        if (i % 997 == 0) {
            topic_put(t);
            fixture_kill(&f);
            t = log_topic(f.log, id);
            expect_content(t, total);
        }
    }
    expect_content(t, total);
    topic_put(t);
    fixture_close(&f);
}

static void session_commits_once(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    uint64_t s = fixture_session(&f, id, 7);
    struct topic *t = log_topic(f.log, id);
    for (uint64_t seq = 1; seq <= 10; seq++) {
        char line[32];
        int n = snprintf(line, sizeof line, "line %llu\n", (unsigned long long)seq);
        for (int again = 0; again < 3; again++) {
            struct commit c = fixture_publish(&f, t, s, 1, seq, line, (uint32_t)n, NULL, 1);
            assert_int_equal(c.status, 0);
            assert_int_equal(c.duplicate, again > 0);
            assert_int_equal(c.sequence, seq);
            assert_int_equal(c.messages, seq);
        }
    }
    topic_put(t);
    fixture_kill(&f);
    struct session_stat st;
    assert_int_equal(log_session(f.log, s, &st), 0);
    assert_int_equal(st.sequence, 10);
    assert_int_equal(st.messages, 10);
    assert_int_equal(st.principal, 7);
    t = log_topic(f.log, id);
    struct commit c = fixture_publish(&f, t, s, 1, 10, "line 10\n", 8, NULL, 1);
    assert_true(c.duplicate);
    size_t n;
    char *all = fixture_read(t, &n);
    assert_int_equal(n, 9 * 7 + 8);
    free(all);
    c = fixture_publish(&f, t, s + 1000, 1, 1, "x", 1, NULL, 1);
    assert_int_equal(c.status, -EMBAR_ESESSION);
    c = fixture_publish(&f, t, s, 9, 11, "x", 1, NULL, 1);
    assert_int_equal(c.status, -EMBAR_EFENCED);
    topic_put(t);
    fixture_close(&f);
}

static void full_pool_blocks_and_trim_frees(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct log_stat before, full, after;
    log_stat_all(f.log, &before);
    char *data = malloc(40000);
    for (unsigned round = 0; round < 20; round++) {
        unsigned n = 0;
        for (;; n++) {
            fill(data, 40000, topic_end(t));
            struct commit c = fixture_publish(&f, t, 0, 0, 0, data, 40000, NULL, 1);
            if (c.status == -EMBAR_EFULL)
                break;
            assert_int_equal(c.status, 0);
        }
        assert_true(n > 40);
        log_stat_all(f.log, &full);
        uint64_t end = topic_end(t);
        fixture_control(&f, (struct control){.kind = MEDIA_C_TRIM, .id = id, .value = end});
        assert_int_equal(topic_base(t), end);
        if (round % 5 == 4) {
            topic_put(t);
            fixture_kill(&f);
            t = log_topic(f.log, id);
            assert_int_equal(topic_base(t), end);
        }
    }
    topic_put(t);
    fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    assert_int_equal(log_checkpoint(f.log), 0);
    assert_int_equal(log_checkpoint(f.log), 0);
    log_stat_all(f.log, &after);
    assert_true(after.used <= before.used + 3 * 8192);
    free(data);
    fixture_close(&f);
}

static void walks_batches_and_seeks(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    for (unsigned i = 0; i < 2000; i++)
        publish_filled(&f, t, 30 + i % 11, 1 + i % 5);
    struct batch_cursor c = {0};
    struct batch_view v;
    uint64_t offset = 0, message = 0;
    unsigned n = 0;
    int rc;
    while ((rc = topic_next(t, &c, &v)) == 1) {
        assert_int_equal(v.offset, offset);
        assert_int_equal(v.message, message);
        assert_int_equal(v.count, 1 + n % 5);
        uint64_t at;
        assert_int_equal(topic_seek_message(t, message, &at), 0);
        assert_int_equal(at, offset);
        offset += v.length;
        message += v.count;
        n++;
        read_release(&v.data);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(n, 2000);
    assert_int_equal(offset, topic_end(t));
    uint64_t at;
    assert_int_equal(topic_seek_message(t, message, &at), 0);
    assert_int_equal(at, offset);
    assert_int_equal(topic_seek_message(t, message + 1, &at), -EMBAR_EINVALID);
    assert_int_equal(topic_seek_time(t, 0, &at), 0);
    assert_int_equal(at, 0);
    assert_int_equal(topic_seek_time(t, UINT64_MAX, &at), 0);
    assert_int_equal(at, offset);
    topic_put(t);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_published),
        cmocka_unit_test(survives_kill),
        cmocka_unit_test(tiny_ring_laps),
        cmocka_unit_test(session_commits_once),
        cmocka_unit_test(full_pool_blocks_and_trim_frees),
        cmocka_unit_test(walks_batches_and_seeks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
