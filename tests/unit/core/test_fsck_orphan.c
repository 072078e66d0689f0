/* Batches that stand twice, as what was moved does until its old place is used again: which copy is gone
 * by. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 12u
#define LENGTH  3000u

struct world {
    struct fixture f;
    uint32_t id;
    char *image;
    struct trial_step step;
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true};
    char data[LENGTH];
    memset(&w, 0, sizeof w);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    uint32_t gone = fixture_topic(&w.f, "gone");
    struct topic *t = log_topic(w.f.log, gone);
    memset(data, 0, LENGTH);
    assert_int_equal(fixture_publish(&w.f, t, 0, 0, 0, data, LENGTH, NULL, 1).status, 0);
    topic_put(t);
    w.id = fixture_topic(&w.f, "t");
    t = log_topic(w.f.log, w.id);
    for (unsigned i = 0; i < BATCHES; i++) {
        memset(data, (int)('a' + i), LENGTH);
        assert_int_equal(fixture_publish(&w.f, t, 0, 0, 0, data, LENGTH, NULL, 10).status, 0);
    }
    topic_put(t);
    fixture_control(&w.f, (struct control){.kind = MEDIA_C_REMOVE, .id = gone});
    w.image = fixture_copy(&w.f);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    trial_step_end(&w->step);
    munmap(w->image, TRIAL_SIZE);
    fixture_close(&w->f);
    return 0;
}

/* The record of the topic's first batch. */
static uint64_t first(struct world *w, struct side *s)
{
    uint64_t at = topic_run(names_id(&w->step.fsck.log->names, w->id), 0)->side;
    assert_int_equal(side_read(&w->step.fsck.log->pool, at, s), 0);
    return at;
}

/* A copy of the batch where space is free, as a move makes it. */
static uint64_t copied(struct world *w, uint64_t from, struct side s)
{
    struct log *log = w->step.fsck.log;
    struct extent *e = extent_new(log->extents, s.order0, EXTENT_META);
    assert_non_null(e);
    memcpy(pool_at(&log->pool, e->base), pool_at(&log->pool, s.run0), s.length);
    s.run0 = e->base;
    uint64_t to = e->base + e->size - MEDIA_LINE;
    side_move(&log->pool, from, to, &s);
    return to;
}

static const struct orphan *found(struct world *w, uint32_t topic, uint64_t time)
{
    struct fsck *f = &w->step.fsck;
    const struct orphan *it = NULL;
    assert_int_equal(fsck_orphans(f, f->log), 0);
    for (size_t i = 0; i < f->orphans; i++)
        if (f->orphan[i].s.topic == topic && f->orphan[i].s.time == time) {
            assert_null(it);
            it = &f->orphan[i];
        }
    return it;
}

/* The index names the first place, and what stood there was overwritten but for its record. */
static void whole_first(void **state)
{
    struct world *w = *state;
    struct side s;
    trial_step_begin(&w->step, w->image, NULL);
    uint64_t at = first(w, &s), to = copied(w, at, s);
    memset(w->image + s.run0, 0, LENGTH / 2);
    const struct orphan *o = found(w, w->id, s.time);
    assert_non_null(o);
    assert_true(o->whole);
    assert_int_equal(o->at, to);
    assert_true(to < at); /* so it comes first */
    assert_true(o->named > 0);
    const struct orphan *named = fsck_as_named(&w->step.fsck, o);
    assert_int_equal(named->at, at);
    assert_int_equal(named->named, o->named);
    assert_false(named->whole);
}

/* Both are whole: the one that is named. */
static void named_first(void **state)
{
    struct world *w = *state;
    struct side s;
    trial_step_begin(&w->step, w->image, NULL);
    uint64_t at = first(w, &s), to = copied(w, at, s);
    assert_int_not_equal(at, to);
    const struct orphan *o = found(w, w->id, s.time);
    assert_non_null(o);
    assert_int_equal(o->at, at);
    assert_ptr_equal(fsck_as_named(&w->step.fsck, o), o);
    assert_int_equal(w->step.fsck.twins, 1);
}

/* A record of the same batch at another time, in free space, as a publisher's bytes may stand there who knows all
 * but the pool's secret. The same line with the secret is found: the rest of it is right. */
static void forged_record(void **state)
{
    struct world *w = *state;
    struct side s;
    trial_step_begin(&w->step, w->image, NULL);
    const struct pool *p = &w->step.fsck.log->pool;
    uint64_t at = first(w, &s), to = copied(w, at, s), time = s.time + 1;
    struct media_side *m = pool_at(p, to);
    struct pool known = *p;
    known.side_seed = 0;
    m->time = le64_of(time);
    m->magic = le32_of(MEDIA_SIDE_MAGIC);
    m->crc = le32_of(side_crc(&known, m, NULL));
    assert_null(found(w, w->id, time));
    m->magic = le32_of(p->side_magic);
    m->crc = le32_of(side_crc(&known, m, NULL));
    assert_int_equal(side_read(p, to, &s), -EMBAR_ECORRUPT);
    m->crc = le32_of(side_crc(p, m, NULL));
    assert_int_equal(side_read(p, to, &s), 0);
    assert_int_equal(s.time, time);
}

/* The report is full: one that has no place is saved nevertheless, and what is taken back is not counted. */
static void full_report(void **state)
{
    struct world *w = *state;
    struct embar_error err;
    struct side s;
    char save[TRIAL_SAVE], path[96];
    trial_save_make(save);
    trial_step_begin(&w->step, w->image, save);
    struct fsck *f = &w->step.fsck;
    const struct topic *t = names_id(&f->log->names, w->id);
    const struct finding what = {.kind = FSCK_KNOWN, .severity = FSCK_WARNING};
    struct orphan o = {.at = first(w, &s), .s = s};
    for (unsigned i = 0; i < FSCK_FINDINGS; i++)
        fsck_say(f, &what, "This is known.");
    const struct fsck_said said = fsck_said(f);
    fsck_say(f, &what, "Too much.");
    assert_int_equal(fsck_unplaced(f, t, &o, "index entry"), 0);
    assert_int_equal(f->report->unread, 2);
    fsck_unsay(f, &said);
    assert_int_equal(f->report->count, FSCK_FINDINGS);
    assert_int_equal(f->report->warnings, FSCK_FINDINGS);
    assert_int_equal(f->report->errors + f->report->unread + f->unplaced_count, 0);
    assert_int_equal(fsck_unplaced(f, t, &o, "index entry"), 0);
    assert_int_equal(fsck_repair(f, &err), 0);
    assert_non_null(f->report->saved);
    snprintf(path, sizeof path, "%s/%012llx-batch", f->report->saved, (unsigned long long)s.run0);
    assert_int_equal(access(path, R_OK), 0);
    trial_save_drop(save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_first, begin, end),
        cmocka_unit_test_setup_teardown(named_first, begin, end),
        cmocka_unit_test_setup_teardown(forged_record, begin, end),
        cmocka_unit_test_setup_teardown(full_report, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
