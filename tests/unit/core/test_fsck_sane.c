/* Whatever a checker made of a pool: what it writes opens, or nothing is written. The state that was found is
 * spoilt by hand, in ways that no damage is known to lead to. */
#include <string.h>
#include <sys/mman.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 12u
#define LENGTH  100u

struct world {
    struct fixture f;
    uint32_t id;
    char *image;
    char save[TRIAL_SAVE];
    struct trial_step step;
    struct topic *t; /* as the checker found it */
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true};
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    w.id = fixture_topic(&w.f, "t");
    struct topic *t = log_topic(w.f.log, w.id);
    for (unsigned i = 0; i < BATCHES; i++) {
        char data[LENGTH];
        memset(data, 'a' + (int)i, sizeof data);
        assert_int_equal(fixture_publish(&w.f, t, 0, 0, 0, data, LENGTH, NULL, 1).status, 0);
    }
    topic_put(t);
    w.image = fixture_copy(&w.f);
    trial_step_begin(&w.step, w.image, w.save);
    w.t = names_id(&w.step.fsck.log->names, w.id);
    assert_int_equal(w.t->run_count, 1);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    fixture_close(&w->f);
    munmap(w->image, TRIAL_SIZE);
    trial_save_drop(w->save);
    return 0;
}

/* It opens; bytes up to `lost` answer EIO, and those behind them are what they were. */
static void repaired(struct world *w, enum fsck_kind kind, uint64_t lost)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    assert_int_equal(fsck_sane(&w->step.fsck), 0);
    assert_non_null(trial_finding(&w->step.report, kind));
    if (fsck_repair(&w->step.fsck, &err) != 0)
        fail_msg("%s", err.text);
    trial_step_end(&w->step);
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    if (log_open(&log, &o, &err) != 0)
        fail_msg("%s", err.text);
    struct topic *t = log_topic(log, w->id);
    assert_int_equal(topic_base(t), 0);
    assert_int_equal(topic_end(t), BATCHES * LENGTH);
    assert_true(t->first_message <= t->last_message_end);
    for (uint64_t at = 0; at < BATCHES * LENGTH; at += LENGTH) {
        struct read_view v;
        assert_int_equal(topic_read(t, at, LENGTH, &v), at < lost ? -EMBAR_ECORRUPT : 0);
        if (at < lost)
            continue;
        for (size_t k = 0; k < LENGTH; k++)
            assert_int_equal(((const char *)v.iov[0].iov_base)[k], 'a' + (int)(at / LENGTH));
        read_release(&v);
    }
    topic_put(t);
    log_close(log);
}

static void oldest_above_all(void **state)
{
    struct world *w = *state;
    w->t->first_message = w->t->last_message_end + 3;
    repaired(w, FSCK_TOTALS, 0);
}

/* Its batches are saved aside, as far as they can be read. */
static void beyond_its_extent(void **state)
{
    struct world *w = *state;
    struct run *r = topic_run(w->t, 0);
    const struct pool *p = &w->step.fsck.log->pool;
    r->payload = (pool_extent_base(p, r->payload, r->order) +
                  (1ull << (r->order + p->geo.block_shift)) - LENGTH) &
                 MASK48;
    assert_int_equal(fsck_sane(&w->step.fsck), 0);
    assert_int_equal(w->step.fsck.let_go_count, BATCHES);
    repaired(w, FSCK_LOST, BATCHES * LENGTH);
}

static void behind_the_base(void **state)
{
    struct world *w = *state;
    struct run *r = topic_run(w->t, 0);
    r->offset += 2 * LENGTH;
    r->payload = (r->payload + 2 * LENGTH) & MASK48;
    repaired(w, FSCK_LOST, 2 * LENGTH);
}

static void without_a_run(void **state)
{
    struct world *w = *state;
    topic_run(w->t, 0)->offset = BATCHES * LENGTH;
    repaired(w, FSCK_LOST, BATCHES * LENGTH);
}

/* What is not known to be mended is not written either. */
static void senseless(void **state)
{
    struct world *w = *state;
    struct embar_error err;
    char *before = malloc(TRIAL_SIZE);
    assert_non_null(before);
    memcpy(before, w->image, TRIAL_SIZE);
    w->t->ack = 9;
    assert_int_equal(fsck_sane(&w->step.fsck), 0);
    assert_true(w->step.fsck.state_damaged);
    assert_int_equal(fsck_repair(&w->step.fsck, &err), -EMBAR_ECORRUPT);
    assert_non_null(strstr(err.text, "nothing was written"));
    assert_memory_equal(before, w->image, TRIAL_SIZE);
    free(before);
    trial_step_end(&w->step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(oldest_above_all, begin, end),
        cmocka_unit_test_setup_teardown(beyond_its_extent, begin, end),
        cmocka_unit_test_setup_teardown(behind_the_base, begin, end),
        cmocka_unit_test_setup_teardown(without_a_run, begin, end),
        cmocka_unit_test_setup_teardown(senseless, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
