/* A repair that is cut off, and made again: what the second goes by still stands then, also what nobody serves. */
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define NAMES  60u   /* topics, whose names make a checkpoint large */
#define LENGTH 8000u /* of batches of a topic that is removed: an extent each */
#define GONE   120u
#define CUTS   24u

struct world {
    struct fixture f;
    struct trial t;
    char save[TRIAL_SAVE];
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = 1024};
    memset(&w, 0, sizeof w);
    trial_open(&w.f, w.save, &o);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    trial_close(&w->t, &w->f, w->save);
    return 0;
}

static uint64_t publish(struct world *w, uint32_t id, char what, uint32_t length)
{
    static char data[LENGTH];
    struct topic *t = log_topic(w->f.log, id);
    uint64_t number = w->f.log->seq.next;
    memset(data, what, length);
    assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, data, length, NULL, 1).status, 0);
    topic_put(t);
    return number;
}

/* Lines of batches are lost whose topic was removed: their records prove what the lines said, and their places are
 * free. Were they not found again, a batch that was never committed might stand for one of them. */
static void records_free(void **state)
{
    static struct sent s;
    struct world *w = *state;
    const struct pool *p = &w->f.log->pool;
    uint64_t number[GONE];
    char name[MEDIA_MAX_NAME + 1];
    memset(name, 'n', MEDIA_MAX_NAME);
    for (unsigned i = 0; i < NAMES; i++) {
        (void)snprintf(name + MEDIA_MAX_NAME - 3, 4, "%03u", i);
        (void)fixture_topic(&w->f, name);
    }
    uint32_t kept = fixture_topic(&w->f, "kept"), gone = fixture_topic(&w->f, "gone");
    (void)publish(w, kept, 'k', 100);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    for (unsigned i = 0; i < GONE; i++) {
        number[i] = publish(w, gone, (char)('A' + i % 26), LENGTH - i);
        (void)publish(w, kept, (char)('a' + i % 26), 100);
    }
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = gone});
    struct topic *t = log_topic(w->f.log, kept);
    assert_int_equal(fixture_send(&w->f, 0, &s, t, 0, 0, 0, name, 100, NULL, 1), 0);
    topic_put(t);
    trial_take(&w->t, &w->f, true, NULL);
    for (unsigned i = 0; i < GONE; i++)
        memset(w->t.image + ((const char *)pool_entry(p, 0, number[i]) - p->base), 0, MEDIA_LINE);
    trial_cuts(&w->t, w->save, (struct draws){1}, CUTS);
    log_commit(w->f.log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records_free, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
