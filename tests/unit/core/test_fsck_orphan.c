/* Batches that stand twice, as what was moved does until its old place is used again: which copy is gone
 * by. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_first, begin, end),
        cmocka_unit_test_setup_teardown(named_first, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
