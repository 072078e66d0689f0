/* Side records that stood there before, put back into the place of others: they prove themselves by their
 * checksum, and tell of what is not there any more. */
#include <string.h>
#include <sys/mman.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES  12u
#define LENGTH   100u
#define MESSAGES 10u

struct world {
    struct fixture f;
    uint32_t id;
    struct topic *t;
    char *image;
    char save[TRIAL_SAVE];
};

static void data_of(unsigned i, char *data)
{
    for (unsigned k = 0; k < LENGTH; k++)
        data[k] = (char)('a' + (i * 7 + k) % 26);
}

/* One run of a topic. */
static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true};
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    w.id = fixture_topic(&w.f, "t");
    w.t = log_topic(w.f.log, w.id);
    for (unsigned i = 0; i < BATCHES; i++) {
        char data[LENGTH];
        data_of(i, data);
        assert_int_equal(fixture_publish(&w.f, w.t, 0, 0, 0, data, LENGTH, NULL, MESSAGES).status,
                         0);
    }
    assert_int_equal(w.t->run_count, 1);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    topic_put(w->t);
    fixture_close(&w->f);
    munmap(w->image, TRIAL_SIZE);
    trial_save_drop(w->save);
    return 0;
}

static void settle(struct world *w)
{
    assert_int_equal(log_checkpoint(w->f.log), 0);
    w->image = fixture_copy(&w->f);
}

static struct media_side *record(struct world *w, unsigned i)
{
    return (struct media_side *)(w->image + topic_run(w->t, 0)->side - i * MEDIA_LINE);
}

/* What stands in the place of record i: one of a batch of other bytes, from `from` of the run on. */
static void stale(struct world *w, unsigned i, uint32_t from, uint32_t length, uint16_t messages)
{
    struct media_side *s = record(w, i);
    s->payload_crc = le32_of(~le32_get(s->payload_crc));
    s->run0 = le64_pack(topic_run(w->t, 0)->payload + from, (uint16_t)(messages - 1));
    s->run0_length = s->length = le32_of(length);
    s->crc = le32_of(side_crc(&w->f.log->pool, s, NULL));
}

static void repair(struct world *w)
{
    struct trial t = {.image = w->image};
    struct fsck_report r;
    struct embar_error err;
    if (trial_fsck(&t, true, w->save, &r, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(r.repaired);
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    assert_int_equal(trial_fsck(&t, false, NULL, &r, &err), 0);
    assert_int_equal(r.errors + r.warnings, 0);
    fsck_report_drop(&r);
}

/* It opens, and the topic is as long as it was. Of its batches [from, BATCHES) those in `missing`, a bit each,
 * answer EIO; all others are what they were, with their messages' numbers. */
static void expect(struct world *w, unsigned from, unsigned missing)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    if (log_open(&log, &o, &err) != 0)
        fail_msg("%s", err.text);
    struct topic *t = log_topic(log, w->id);
    assert_int_equal(topic_base(t), topic_base(w->t));
    assert_int_equal(topic_end(t), topic_end(w->t));
    assert_int_equal(t->first_message, w->t->first_message);
    assert_int_equal(t->last_message_end, w->t->last_message_end);
    for (unsigned i = from; i < BATCHES; i++) {
        struct batch_cursor c = {.offset = i * LENGTH};
        struct batch_view v;
        char data[LENGTH];
        data_of(i, data);
        assert_int_equal(topic_next(t, &c, &v), missing >> i & 1 ? -EMBAR_ECORRUPT : 1);
        if (missing >> i & 1)
            continue;
        assert_int_equal(v.offset, i * LENGTH);
        assert_int_equal(v.message, i * MESSAGES);
        assert_int_equal(v.length, LENGTH);
        assert_int_equal(v.count, MESSAGES);
        assert_memory_equal(v.data.iov[0].iov_base, data, LENGTH);
        read_release(&v.data);
    }
    topic_put(t);
    log_close(log);
}

/* Of what is trimmed, and read without its payload: they count more messages than the topic had. */
static void trimmed(void **state)
{
    struct world *w = *state;
    fixture_control(&w->f,
                    (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = 3 * LENGTH + 50});
    settle(w);
    stale(w, 0, 0, 2 * LENGTH + 50, 250);
    stale(w, 1, 2 * LENGTH + 50, 2 * LENGTH, 20);
    memset(record(w, 2), 0, (size_t)MEDIA_LINE);
    repair(w);
    expect(w, 4, 0);
}

/* All behind them are gone: the topic ends with what is damaged. */
static void trimmed_last(void **state)
{
    struct world *w = *state;
    fixture_control(&w->f,
                    (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = 3 * LENGTH + 50});
    settle(w);
    stale(w, 0, 0, 2 * LENGTH + 50, 250);
    stale(w, 1, 2 * LENGTH + 50, 2 * LENGTH, 20);
    for (unsigned i = 2; i < BATCHES; i++)
        memset(record(w, i), 0, (size_t)MEDIA_LINE);
    repair(w);
    expect(w, 4, 0xff0);
}

/* As long as what stood there, of other messages. */
static void trimmed_count(void **state)
{
    struct world *w = *state;
    fixture_control(&w->f,
                    (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = 3 * LENGTH});
    settle(w);
    stale(w, 1, LENGTH, LENGTH, 5 * MESSAGES);
    repair(w);
    expect(w, 3, 0);
}

/* One that says that its batch is longer hides none of those that stand where it would be. */
static void longer(void **state)
{
    struct world *w = *state;
    settle(w);
    stale(w, 4, 4 * LENGTH, 2 * LENGTH + 50, 25);
    repair(w);
    expect(w, 0, 0x010);
}

/* Nor does one that is as long and counts others shift their numbers. */
static void others(void **state)
{
    struct world *w = *state;
    settle(w);
    stale(w, 4, 4 * LENGTH, LENGTH, 5 * MESSAGES);
    repair(w);
    expect(w, 0, 0x010);
}

/* Even where it ends with the last of them. */
static void longest(void **state)
{
    struct world *w = *state;
    settle(w);
    stale(w, 4, 4 * LENGTH, (BATCHES - 4) * LENGTH, 5 * MESSAGES);
    repair(w);
    expect(w, 0, 0x010);
}

/* A record in the place of the next one hides none but that. */
static void in_the_next(void **state)
{
    struct world *w = *state;
    settle(w);
    memcpy(record(w, 4), record(w, 3), sizeof(struct media_side));
    memset(record(w, 3), 0, sizeof(struct media_side));
    repair(w);
    expect(w, 0, 0x010);
}

/* The last entry is lost. The records of the two before it changed places: their entries tell of them. */
static void of_other_entries(void **state)
{
    struct world *w = *state;
    w->image = fixture_copy(&w->f);
    const char *line = (const char *)pool_entry(&w->f.log->pool, 0, w->f.log->seq.next - 1);
    memset(w->image + (line - (const char *)w->f.memory), 0, MEDIA_LINE);
    struct media_side one = *record(w, BATCHES - 2);
    *record(w, BATCHES - 2) = *record(w, BATCHES - 3);
    *record(w, BATCHES - 3) = one;
    repair(w);
    expect(w, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(trimmed, begin, end),
        cmocka_unit_test_setup_teardown(trimmed_last, begin, end),
        cmocka_unit_test_setup_teardown(trimmed_count, begin, end),
        cmocka_unit_test_setup_teardown(longer, begin, end),
        cmocka_unit_test_setup_teardown(others, begin, end),
        cmocka_unit_test_setup_teardown(longest, begin, end),
        cmocka_unit_test_setup_teardown(in_the_next, begin, end),
        cmocka_unit_test_setup_teardown(of_other_entries, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
