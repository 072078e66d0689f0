/* Batches were moved, their old place is full of newer ones, and both the line that said so and what it
 * could be found by are damaged: that looks as if they had been trimmed, and is not taken for it. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 60u
#define LARGEST 3000u
#define LARGE   9000u

struct world {
    struct fixture f;
    uint32_t kept, newer;
    char *want, *image;
    size_t size;
    uint64_t move; /* number of the entry */
    uint64_t side; /* the first record, where it was */
    char save[TRIAL_SAVE];
};

static void publish(struct world *w, unsigned i, struct draws *d)
{
    struct topic *t = log_topic(w->f.log, w->kept);
    char data[LARGEST];
    uint32_t length = 10 * (1 + pick(d, LARGEST / 10));
    for (uint32_t k = 0; k < length; k++)
        data[k] = (char)draw(d);
    assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, data, length, NULL, 1 + i % 2 * 9).status,
                     0);
    topic_put(t);
}

/* Run i of the topic goes elsewhere. Where it stood. */
static uint64_t run_move(struct world *w, size_t i)
{
    struct topic *t = names_id(&w->f.log->names, w->kept);
    uint64_t from = topic_run(t, i)->payload;
    w->side = topic_run(t, i)->side;
    w->move = trial_move(w->f.log, t, i);
    return from;
}

/* Newer batches until nothing is free. */
static void fill(struct world *w)
{
    struct topic *t = log_topic(w->f.log, w->newer);
    static char data[LARGE];
    memset(data, 'n', sizeof data);
    for (uint32_t length = LARGE; length > 100; length /= 2)
        while (fixture_publish(&w->f, t, 0, 0, 0, data, length, NULL, 1).status == 0)
            ;
    topic_put(t);
}

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = 2048};
    struct draws d = campaign_begin("given");
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    w.kept = fixture_topic(&w.f, "kept");
    w.newer = fixture_topic(&w.f, "newer");
    for (unsigned i = 0; i < BATCHES; i++)
        publish(&w, i, &d);
    assert_int_equal(log_checkpoint(w.f.log), 0);
    struct topic *t = log_topic(w.f.log, w.kept);
    size_t i = t->run_count - 2;
    while (topic_run(t, i)->batches < 3 || topic_run(t, i + 1)->batches == 0)
        i--;
    w.want = fixture_read(t, &w.size);
    uint64_t from = run_move(&w, i);
    char was[64];
    memcpy(was, (char *)w.f.memory + from, sizeof was);
    fill(&w);
    assert_memory_not_equal(was, (char *)w.f.memory + from, sizeof was);
    topic_put(t);
    w.image = fixture_copy(&w.f);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    fixture_close(&w->f);
    munmap(w->image, TRIAL_SIZE);
    free(w->want);
    trial_save_drop(w->save);
    return 0;
}

static void *in_image(struct world *w, const void *at)
{
    return w->image + ((const char *)at - (const char *)w->f.memory);
}

/* The line of the move, the one behind it, and the record that this names. */
static void damage(struct world *w)
{
    const struct pool *pool = &w->f.log->pool;
    const struct media_entry *line = pool_entry(pool, 0, w->move + 1);
    assert_int_equal(line->kind, MEDIA_BATCH);
    memset(w->image + le64_low48(line->side), 0, MEDIA_LINE);
    memset(in_image(w, line), 0, MEDIA_LINE);
    memset(in_image(w, pool_entry(pool, 0, w->move)), 0, MEDIA_LINE);
}

static void repair(struct world *w, struct fsck_report *r)
{
    struct trial t = {.image = w->image};
    struct embar_error err;
    if (trial_fsck(&t, true, w->save, r, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(r->left, 0);
}

static void served(struct world *w)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    size_t size;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, w->kept);
    char *got = fixture_read(t, &size);
    assert_int_equal(size, w->size);
    assert_memory_equal(got, w->want, size);
    free(got);
    topic_put(t);
    log_close(log);
}

/* They are found where they went, and nothing of their topic is lost. */
static void moved(void **state)
{
    struct world *w = *state;
    struct fsck_report r;
    damage(w);
    repair(w, &r);
    for (size_t i = 0; i < r.count; i++)
        if (r.finding[i].id == w->kept && r.finding[i].severity == FSCK_ERROR)
            trial_print(&r);
    for (size_t i = 0; i < r.count; i++)
        assert_false(r.finding[i].id == w->kept && r.finding[i].severity == FSCK_ERROR);
    fsck_report_drop(&r);
    served(w);
}

/* One of them is damaged where it went, too: what is whole of them is saved aside. */
static void apart(void **state)
{
    struct world *w = *state;
    const struct topic *t = names_id(&w->f.log->names, w->kept);
    const struct pool *pool = &w->f.log->pool;
    const struct media_entry *line = pool_entry(pool, 0, w->move);
    unsigned batches = 0, aside = 0;
    struct fsck_report r;
    damage(w);
    for (size_t i = 0; i < t->run_count; i++)
        if (topic_run(t, i)->payload == le64_low48(line->payload))
            batches = topic_run(t, i)->batches;
    memset(w->image + le64_low48(line->side) - MEDIA_LINE, 0, MEDIA_LINE);
    memset(w->image + w->side - MEDIA_LINE, 0, MEDIA_LINE);
    repair(w, &r);
    for (size_t i = 0; i < r.count; i++)
        aside += r.finding[i].id == w->kept && r.finding[i].kind == FSCK_UNPLACED;
    assert_true(batches > 1);
    assert_int_equal(aside, batches - 1);
    fsck_report_drop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(moved, begin, end),
        cmocka_unit_test_setup_teardown(apart, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
