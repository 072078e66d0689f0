/* Many holes and many batches that nothing names: a check looks for what fills one among those that it can be, not among
 * all. What is counted is compared with how much the pool holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define SIZE   (128ull << 20)
#define TOPICS 600u
#define LENGTH 64u

struct world {
    struct fixture f;
    uint32_t id[TOPICS];
    unsigned batches;
    char *image;
    struct fsck_report r;
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = 1u << 14, .geo.block_shift = 12};
    memset(&w, 0, sizeof w);
    fixture_open_as(&w.f, SIZE, &o);
    for (unsigned i = 0; i < TOPICS; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        w.id[i] = fixture_topic(&w.f, name);
    }
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    fsck_report_drop(&w->r);
    munmap(w->image, SIZE);
    fixture_close(&w->f);
    return 0;
}

/* The number of its entry. */
static uint64_t publish(struct world *w, unsigned i, uint32_t length)
{
    char data[2000];
    struct topic *t = log_topic(w->f.log, w->id[i]);
    uint64_t number = w->f.log->seq.next;
    memset(data, (int)(w->batches++ % 251), sizeof data);
    assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, data, length, NULL, 1).status, 0);
    topic_put(t);
    return number;
}

/* One of each topic, one topic after the other. */
static void publish_all(struct world *w, uint32_t length)
{
    for (unsigned i = 0; i < TOPICS; i++)
        (void)publish(w, i, length);
}

static struct media_entry *line_of(const struct world *w, uint64_t number)
{
    const char *line = (const char *)pool_entry(&w->f.log->pool, 0, number);
    return (struct media_entry *)(w->image + (line - (const char *)w->f.memory));
}

/* The index line, and with `record` what it names. */
static void lose(const struct world *w, uint64_t number, bool record)
{
    struct media_entry *line = line_of(w, number);
    if (record)
        w->image[le64_low48(line->side)] ^= 1;
    memset(line, 0, sizeof *line);
}

/* With `errors` found, no more is compared than some times what was published: by each of the ways that are tried to
 * load the pool. */
static void check(struct world *w, size_t errors)
{
    struct region region;
    struct embar_error err;
    region_wrap(&region, w->image, SIZE, NULL);
    region.readonly = true;
    struct fsck_options o = {.region = &region, .threads = 1};
    if (fsck_run(&o, &w->r, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(w->r.errors, errors);
    assert_in_range(w->r.compared, TOPICS, 40 * w->batches);
}

/* The tables of all topics are gone. */
static void tables(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 3; i++)
        publish_all(w, 1500);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    w->image = fixture_copy(&w->f);
    for (unsigned i = 0; i < TOPICS; i++) {
        const struct topic *t = names_id(&w->f.log->names, w->id[i]);
        assert_int_equal(t->table.count, 1);
        const struct extent *e = t->table.piece[0].extent;
        memset(w->image + e->base, 0, MEDIA_LINE);
        memset(w->image + e->base + checkpoint_room(e->size), 0, MEDIA_LINE);
    }
    check(w, 0);
    assert_int_equal(w->r.warnings, TOPICS);
}

/* What all topics but one hold is damaged, and an entry is lost that may have moved it. */
static void given(void **state)
{
    struct world *w = *state;
    publish_all(w, LENGTH);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    (void)publish(w, 0, LENGTH);
    uint64_t lost = publish(w, 0, LENGTH);
    (void)publish(w, 0, LENGTH);
    w->image = fixture_copy(&w->f);
    lose(w, lost, true);
    for (unsigned i = 1; i < TOPICS; i++)
        w->image[topic_run(names_id(&w->f.log->names, w->id[i]), 0)->payload] ^= 1;
    check(w, TOPICS + 2);
}

/* Lines of one batch in three are gone, in gaps of their own, with their records or without: what else may have stood
 * there is not gone through for each. */
static void gaps(struct world *w, bool record, size_t errors)
{
    for (unsigned i = 0; i < 3; i++)
        publish_all(w, LENGTH);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t first = w->f.log->seq.next;
    for (unsigned i = 0; i < 3; i++)
        publish_all(w, LENGTH);
    w->image = fixture_copy(&w->f);
    for (unsigned i = 1; i < 2 * TOPICS; i += 3)
        lose(w, first + i, record);
    check(w, errors);
}

static void gaps_proved(void **state)
{
    gaps(*state, false, 0);
}

static void gaps_lost(void **state)
{
    gaps(*state, true, TOPICS);
}

/* Records of small batches are gone, and as many large ones stand about that were held: none of them fits. */
static void sizes(void **state)
{
    struct world *w = *state;
    static struct sent sent[TOPICS];
    static char data[512];
    struct topic *t = log_topic(w->f.log, w->id[0]);
    uint64_t took = fixture_session(&w->f, w->id[0], 1), held = fixture_session(&w->f, w->id[0], 2);
    for (unsigned i = 0; i < TOPICS; i++)
        assert_int_equal(fixture_publish(&w->f, t, took, 1, i + 1, data, LENGTH, NULL, 1).status,
                         0);
    for (unsigned i = 0; i < TOPICS; i++)
        if (fixture_send(&w->f, 0, &sent[i], t, held, 1, i + 2, data, sizeof data, NULL, 1) == 0)
            log_commit(w->f.log);
    w->batches = 2 * TOPICS;
    w->image = fixture_copy(&w->f);
    uint64_t first = w->f.log->seq.next - TOPICS;
    for (unsigned i = 0; i < TOPICS; i += 2)
        w->image[le64_low48(line_of(w, first + i)->side) + 20] ^= 1;
    memset(line_of(w, first + TOPICS - 1), 0, MEDIA_LINE);
    topic_put(t);
    check(w, TOPICS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tables, begin, end),
        cmocka_unit_test_setup_teardown(given, begin, end),
        cmocka_unit_test_setup_teardown(gaps_proved, begin, end),
        cmocka_unit_test_setup_teardown(gaps_lost, begin, end),
        cmocka_unit_test_setup_teardown(sizes, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
