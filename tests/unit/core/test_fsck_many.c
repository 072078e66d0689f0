/* More is wrong with a pool than a report lists: a repair mends, notes and saves what was only counted as it does what
 * is listed, and nothing of it is left, then or later. Nor does a check look through all that the pool holds for each
 * of its batches. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define SIZE    (32ull << 20)
#define ENTRIES (1u << 16)
#define TOPICS  1000u
#define MORE    (FSCK_FINDINGS + 50u)

struct world {
    struct fixture f;
    uint32_t id;
    char save[TRIAL_SAVE];
    char *image;
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = ENTRIES};
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, SIZE, &o);
    w.id = fixture_topic(&w.f, "t");
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    fixture_close(&w->f);
    if (w->image)
        munmap(w->image, SIZE);
    trial_save_drop(w->save);
    return 0;
}

static void publish(struct world *w, unsigned batches)
{
    struct topic *t = log_topic(w->f.log, w->id);
    for (unsigned i = 0; i < batches; i++)
        assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, &i, sizeof i, NULL, 1).status, 0);
    topic_put(t);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    w->image = fixture_copy(&w->f);
}

static void check(struct world *w, bool repair, struct fsck_report *r)
{
    struct region region;
    struct embar_error err;
    region_wrap(&region, w->image, SIZE, NULL);
    region.readonly = !repair;
    struct fsck_options o = {.region = &region, .repair = repair, .threads = 1, .save = w->save};
    if (fsck_run(&o, r, &err) != 0)
        fail_msg("%s", err.text);
}

/* A bit of every second batch: of its payload, or so many bytes into its record. */
static void flip(struct world *w, unsigned into)
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    unsigned k = 0;
    for (size_t i = 0; i < t->run_count; i++) {
        uint64_t at = topic_run(t, i)->side;
        for (unsigned b = 0; b < topic_run(t, i)->batches; b++, k++) {
            struct side s;
            assert_int_equal(side_read(&t->log->pool, at, &s), 0);
            w->image[into ? at + into : s.run0] ^= k % 2 ? 1 : 0;
            at -= side_size(s.count, s.equal);
        }
    }
}

/* Every second batch's payload has a flipped bit: each answers an error of its own. */
static void damaged(void **state)
{
    struct world *w = *state;
    struct fsck_report r;
    publish(w, 2 * MORE);
    flip(w, 0);
    check(w, false, &r);
    assert_in_range(r.compared, MORE, 4 * MORE); /* each with what is lost near its time */
    assert_int_equal(r.errors, MORE);
    assert_int_equal(r.left, MORE);
    assert_int_equal(r.count, FSCK_FINDINGS);
    fsck_report_drop(&r);
    check(w, true, &r);
    assert_int_equal(r.errors, MORE);
    assert_int_equal(r.unread, MORE - FSCK_FINDINGS);
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    check(w, false, &r);
    assert_int_equal(r.errors + r.warnings, 0);
    assert_int_equal(r.remarks, MORE);
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
}

/* So has every second batch's record: those that stand in a run are read once, not for each of them. */
static void records(void **state)
{
    struct world *w = *state;
    struct fsck_report r;
    publish(w, 2 * TOPICS);
    flip(w, 20);
    check(w, false, &r);
    assert_int_equal(r.errors, TOPICS);
    assert_in_range(r.compared, TOPICS, 3 * TOPICS);
    fsck_report_drop(&r);
}

/* Every second line of the index speaks of an entry that never was: a repair clears each, and keeps what it said. */
static void overwritten(void **state)
{
    struct world *w = *state;
    const struct pool *p = &w->f.log->pool;
    struct fsck_report r;
    uint64_t at[MORE];
    publish(w, 1);
    for (unsigned i = 0; i < MORE; i++) {
        at[i] = (uint64_t)((char *)pool_entry(p, 0, 1000 + 2 * i) - p->base);
        struct media_entry *line = (struct media_entry *)(w->image + at[i]);
        line->number = le64_of(INT64_MAX);
        line->session = le64_of(i + 1);
    }
    check(w, true, &r);
    assert_int_equal(r.warnings, MORE);
    assert_int_equal(r.left, 0);
    for (unsigned i = 0; i < MORE; i++) {
        char path[256];
        struct media_entry line, zero = {0};
        snprintf(path, sizeof path, "%s/%012llx-entry", r.saved, (unsigned long long)at[i]);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_int_equal(fread(&line, sizeof line, 1, file), 1);
        assert_int_equal(le64_get(line.session), i + 1);
        assert_int_equal(fclose(file), 0);
        assert_memory_equal(w->image + at[i], &zero, sizeof zero);
    }
    fsck_report_drop(&r);
}

/* The first line behind the checkpoint is gone, with its batch. Who stands where those that follow do is not looked for
 * among all that the pool holds, for each of them. */
static void followed(void **state)
{
    struct world *w = *state;
    struct log *log = w->f.log;
    struct fsck_report r;
    for (unsigned i = 0; i < TOPICS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        struct topic *t = log_topic(log, fixture_topic(&w->f, name));
        assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, &i, sizeof i, NULL, 1).status, 0);
        topic_put(t);
    }
    assert_int_equal(log_checkpoint(log), 0);
    const struct media_entry *line = pool_entry(&log->pool, 0, log->seq.next);
    struct topic *t = log_topic(log, w->id);
    for (unsigned i = 0; i < TOPICS; i++)
        assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, &i, sizeof i, NULL, 1).status, 0);
    topic_put(t);
    w->image = fixture_copy(&w->f);
    w->image[le64_low48(line->side)] ^= 1;
    memset(w->image + ((const char *)line - (const char *)w->f.memory), 0, sizeof *line);
    check(w, false, &r);
    assert_true(r.errors > 0);
    assert_in_range(r.compared, 1, 20 * 2 * TOPICS);
    fsck_report_drop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damaged, begin, end),
        cmocka_unit_test_setup_teardown(records, begin, end),
        cmocka_unit_test_setup_teardown(overwritten, begin, end),
        cmocka_unit_test_setup_teardown(followed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
