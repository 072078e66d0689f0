/* Where a topic begins after a trim, and with which message: the number is the trim's own word, not found
 * out again. Messages without bytes make the difference: several may begin at the base. What was there
 * when the trim was made goes with what is before it; what comes later is kept. The same from the ring,
 * from a checkpoint, from any moment at which the process is killed, and with the records that the trim
 * went by lost. */
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define BATCHES 3u
#define MOST    4u

struct begin {
    uint64_t base, first, messages;
};

static const struct story {
    const char *what;
    uint32_t before[BATCHES][MOST],
        after[BATCHES][MOST]; /* lengths, up to UINT32_MAX, of batches */
    uint64_t trim;
    struct begin begin;
} stories[] = {
#define END UINT32_MAX
    {"empty ones that come after a trim to the end", {{5, END}}, {{0, 0, 3, END}}, 5, {5, 1, 4}},
    {"empty ones in the middle of a batch", {{5, 0, 0, 3}}, {{2, END}}, 5, {5, 3, 5}},
    {"empty ones at the end of one batch and the begin of the next",
     {{5, 0, END}, {0, 3, END}},
     {{0, 2, END}},
     6,
     {5, 3, 6}},
    {"empty ones before the first byte", {{0, 0, 4, END}, {2, END}}, {{0, 7, END}}, 5, {4, 3, 6}},
    {"empty ones at the very end", {{5, 0, 0, END}, {2, 0, END}}, {{0, 0, 9, END}}, 7, {7, 5, 8}},
};
#define STORIES (sizeof stories / sizeof stories[0])

static uint32_t count_of(const uint32_t *lengths)
{
    static const uint32_t none[MOST];
    uint32_t n = 0;
    while (n < MOST && lengths[n] != END)
        n++;
    return memcmp(lengths, none, sizeof none) == 0 ? 0 : n;
}

static void publish(struct fixture *f, uint32_t id, const uint32_t lengths[BATCHES][MOST])
{
    static const char bytes[64] = "what the messages are made of is the same everywhere";
    struct topic *t = log_topic(f->log, id);
    for (unsigned i = 0; i < BATCHES; i++) {
        uint32_t n = count_of(lengths[i]), sum = 0;
        for (uint32_t k = 0; k < n; k++)
            sum += lengths[i][k];
        if (n > 0)
            assert_int_equal(fixture_publish(f, t, 0, 0, 0, bytes, sum, lengths[i], n).status, 0);
    }
    topic_put(t);
}

static struct begin begin_of(struct fixture *f, uint32_t id)
{
    struct node_stat st;
    assert_int_equal(log_stat(f->log, id, &st), 0);
    return (struct begin){st.base, st.first, st.messages};
}

static void assert_begin(struct fixture *f, uint32_t id, struct begin want)
{
    struct begin is = begin_of(f, id);
    assert_int_equal(is.base, want.base);
    assert_int_equal(is.first, want.first);
    assert_int_equal(is.messages, want.messages);
    struct topic *t = log_topic(f->log, id);
    uint64_t offset = 0;
    assert_int_equal(topic_seek_message(t, want.first, &offset), 0);
    assert_int_equal(offset, want.base);
    if (want.first > 0)
        assert_int_equal(topic_seek_message(t, want.first - 1, &offset), -EMBAR_ETRIMMED);
    topic_put(t);
}

static uint32_t begin_story(struct fixture *f, const struct story *s, bool aged)
{
    struct control make = {
        .kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .name = "t", .value2 = aged ? 1 : 0};
    uint32_t id = (uint32_t)fixture_control(f, make);
    publish(f, id, s->before);
    return id;
}

static void trim(struct fixture *f, uint32_t id, uint64_t to)
{
    fixture_control(f, (struct control){.kind = MEDIA_C_TRIM, .id = id, .value = to});
}

static void a_trim_says_where_messages_begin(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STORIES; i++)
        for (unsigned file = 0; file < 3; file++) {
            const struct story *s = &stories[i];
            struct fixture f;
            struct log_options o = {.manual = file < 2}; /* acks of the last wait for syncs */
            if (file)
                fixture_open_file(&f, 0, &o, file == 2);
            else
                fixture_open_as(&f, 0, &o);
            uint32_t id = begin_story(&f, s, false);
            trim(&f, id, s->trim);
            publish(&f, id, s->after);
            assert_begin(&f, id, s->begin);
            fixture_kill(&f); /* from the ring */
            assert_begin(&f, id, s->begin);
            assert_int_equal(log_checkpoint(f.log), 0);
            fixture_kill(&f); /* from the checkpoint */
            assert_begin(&f, id, s->begin);
            publish(&f, id, s->after); /* over it */
            struct begin more = s->begin;
            more.messages = begin_of(&f, id).messages;
            fixture_kill(&f);
            assert_begin(&f, id, more);
            fixture_reopen(&f);
            assert_begin(&f, id, more);
            fixture_close(&f);
        }
}

/* Killed at every flush: the topic begins where it did, or where the trim says, and never at the place
 * of the one with the number of the other. */
static void at_whatever_moment_it_ends(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STORIES; i++)
        for (uint64_t n = 1;; n++) {
            const struct story *s = &stories[i];
            struct fixture f;
            struct log_options o = {.manual = true};
            fixture_open_file(&f, 0, &o, false);
            uint32_t id = begin_story(&f, s, false);
            if (n % 2)
                assert_int_equal(log_checkpoint(f.log), 0);
            fixture_arm(&f, n);
            trim(&f, id, s->trim);
            publish(&f, id, s->after);
            assert_int_equal(log_checkpoint(f.log), 0);
            bool crashed = fixture_crash(&f);
            struct begin is = begin_of(&f, id);
            if (is.base > 0) {
                assert_int_equal(is.base, s->begin.base);
                assert_int_equal(is.first, s->begin.first);
            } else {
                assert_int_equal(is.first, 0);
            }
            fixture_close(&f);
            if (!crashed)
                break;
        }
}

/* By age, when all is old: the trim is to the end, and what comes in the same turn is behind it. */
static void retention_says_so_too(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_file(&f, 0, &o, false);
    uint32_t id = begin_story(&f, &stories[0], true);
    struct topic *t = log_topic(f.log, id);
    const uint32_t lengths[] = {0, 0, 3};
    struct sent s;
    assert_int_equal(fixture_send(&f, 0, &s, t, 0, 0, 0, "new", 3, lengths, 3), 0);
    log_tick(f.log, now_monotonic() + 3600000000000ull); /* trims, then commits */
    assert_true(atomic_load(&s.done));
    topic_put(t);
    const struct begin want = {5, 1, 4};
    assert_begin(&f, id, want);
    fixture_kill(&f);
    assert_begin(&f, id, want);
    fixture_reopen(&f);
    assert_begin(&f, id, want);
    fixture_close(&f);
}

/* The pages of all side records are lost: reads are refused, the begin is what it was. */
static void without_the_records_that_counted(void **state)
{
    (void)state;
    for (unsigned checkpoint = 0; checkpoint < 2; checkpoint++) {
        struct fixture f;
        struct log_options o = {.manual = true};
        fixture_open_as(&f, 0, &o);
        const struct story *s = &stories[2];
        uint32_t id = begin_story(&f, s, false);
        trim(&f, id, s->trim);
        publish(&f, id, s->after);
        if (checkpoint)
            assert_int_equal(log_checkpoint(f.log), 0);
        struct topic *t = log_topic(f.log, id);
        const struct run *r = topic_run(t, 0);
        uint64_t top = pool_extent_base(&f.log->pool, r->side, r->order) +
                       (1ull << (r->order + f.log->pool.geo.block_shift));
        uint64_t low = t->side_tail - t->side_tail_below;
        topic_put(t);
        memset(pool_at(log_pool(f.log), low), 0, top - low);
        fixture_kill(&f);
        struct begin is = begin_of(&f, id);
        assert_int_equal(is.base, s->begin.base);
        assert_int_equal(is.first, s->begin.first);
        assert_int_equal(is.messages, s->begin.messages);
        t = log_topic(f.log, id);
        struct batch_cursor c = {.offset = is.base};
        struct batch_view v;
        assert_int_equal(topic_next(t, &c, &v), -EMBAR_ECORRUPT);
        topic_put(t);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trim_says_where_messages_begin),
        cmocka_unit_test(at_whatever_moment_it_ends),
        cmocka_unit_test(retention_says_so_too),
        cmocka_unit_test(without_the_records_that_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
