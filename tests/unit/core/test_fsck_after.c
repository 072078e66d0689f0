/* What goes on behind a repair: what is published then is served, and nothing that was served is written over. */
#include <string.h>
#include <sys/mman.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

/* ---- Records in each other's places ----------------------------------------------------------- */

#define LENGTH 300u
#define BEFORE 10u
#define BEHIND 3u

static void data_of(unsigned i, char *data)
{
    for (unsigned k = 0; k < LENGTH; k++)
        data[k] = (char)(i * 31 + k * 7);
}

static void publish(struct fixture *f, uint32_t id, unsigned from, unsigned to)
{
    struct topic *t = log_topic(f->log, id);
    for (unsigned i = from; i < to; i++) {
        char data[LENGTH];
        data_of(i, data);
        assert_int_equal(fixture_publish(f, t, 0, 0, 0, data, LENGTH, NULL, 1).status, 0);
    }
    topic_put(t);
}

/* The pool of an image, as who serves it opens it. */
static void image_open(struct fixture *g, char *image)
{
    struct embar_error err;
    *g = (struct fixture){.memory = image, .size = TRIAL_SIZE};
    struct log_options o = {.region = &g->region, .manual = true};
    region_wrap(&g->region, image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&g->log, &o, &err), 0);
}

static void sound(struct trial *t)
{
    struct fsck_report r;
    struct embar_error err;
    assert_int_equal(trial_fsck(t, false, NULL, &r, &err), 0);
    if (r.errors + r.warnings > 0)
        trial_print(&r);
    assert_int_equal(r.errors + r.warnings, 0);
    fsck_report_drop(&r);
}

static void serves(struct fixture *g, uint32_t id, unsigned n)
{
    struct topic *t = log_topic(g->log, id);
    for (unsigned i = 0; i < n; i++) {
        char want[LENGTH];
        struct batch_cursor c = {.offset = i * LENGTH};
        struct batch_view v;
        data_of(i, want);
        int rc = topic_next(t, &c, &v);
        if (rc != 1)
            fail_msg("batch %u of %u cannot be read: %d", i, n, rc);
        assert_int_equal(v.offset, i * LENGTH);
        assert_int_equal(v.message, i);
        assert_int_equal(v.data.iov[0].iov_len, LENGTH);
        assert_memory_equal(v.data.iov[0].iov_base, want, LENGTH);
        read_release(&v.data);
    }
    assert_int_equal(topic_end(t), n * LENGTH);
    topic_put(t);
}

/* Two lines of records change places, `a` and `b`, counted from the topic's last one upwards; then it is repaired,
 * and more is published. */
static void swapped(int a, int b)
{
    struct fixture f, g;
    struct log_options o = {.manual = true};
    struct fsck_report r;
    struct embar_error err;
    char save[TRIAL_SAVE], was[MEDIA_LINE];
    trial_save_make(save);
    fixture_open_as(&f, TRIAL_SIZE, &o);
    uint32_t id = fixture_topic(&f, "t");
    publish(&f, id, 0, BEFORE);
    assert_int_equal(log_checkpoint(f.log), 0);
    struct trial t = {.image = fixture_copy(&f)};
    char *tail = t.image + names_id(&f.log->names, id)->side_tail;
    memcpy(was, tail + a * (int)MEDIA_LINE, MEDIA_LINE);
    memcpy(tail + a * (int)MEDIA_LINE, tail + b * (int)MEDIA_LINE, MEDIA_LINE);
    memcpy(tail + b * (int)MEDIA_LINE, was, MEDIA_LINE);
    assert_int_equal(trial_fsck(&t, true, save, &r, &err), 0);
    assert_true(r.warnings > 0);
    assert_int_equal(r.errors + r.left, 0);
    fsck_report_drop(&r);

    image_open(&g, t.image);
    publish(&g, id, BEFORE, BEFORE + BEHIND);
    serves(&g, id, BEFORE + BEHIND);
    log_close(g.log);
    image_open(&g, t.image);
    serves(&g, id, BEFORE + BEHIND);
    log_close(g.log);
    sound(&t);
    munmap(t.image, TRIAL_SIZE);
    fixture_close(&f);
    trial_save_drop(save);
}

static void last_two(void **state)
{
    (void)state;
    swapped(0, 1);
}

static void last_and_third(void **state)
{
    (void)state;
    swapped(0, 2);
}

static void first_two(void **state)
{
    (void)state;
    swapped(BEFORE - 2, BEFORE - 1);
}

/* With a free line below all records, which is free no more. */
static void last_lower(void **state)
{
    (void)state;
    swapped(0, -2);
}

static void another_lower(void **state)
{
    (void)state;
    swapped(1, -1);
}

/* ---- An extent that two topics hold ----------------------------------------------------------- */

#define OLD  2000u /* bytes of a batch */
#define MOST 4096u

static int publish_new(struct fixture *f, struct topic *t, unsigned what, uint32_t length)
{
    static char data[1u << 18];
    for (uint32_t k = 0; k < length; k++)
        data[k] = (char)(what * 31 + k * 7);
    return fixture_publish(f, t, 0, 0, 0, data, length, NULL, 1).status;
}

/* Which of its batches can be read; they hold what they did. */
static unsigned readable(struct topic *t, bool *reads)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MOST && (uint64_t)i * OLD < topic_end(t); i++) {
        struct batch_cursor c = {.offset = (uint64_t)i * OLD};
        struct batch_view v;
        reads[i] = c.offset >= topic_base(t) && topic_next(t, &c, &v) == 1;
        if (!reads[i])
            continue;
        assert_int_equal(v.offset, i * OLD);
        const char *at = v.data.iov[0].iov_base;
        for (size_t k = 0; k < v.data.iov[0].iov_len; k++)
            assert_int_equal(at[k], (char)(i * 31 + k * 7));
        read_release(&v.data);
        n++;
    }
    return n;
}

static uint64_t extent_of(const struct fixture *f, const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    return pool_extent_base(&f->log->pool, r->payload, r->order);
}

/* A topic of many runs, and another that takes all else. */
static void fill_both(struct fixture *f, struct topic *old, struct topic *new)
{
    for (unsigned i = 0; i < 200; i++) {
        /* Some are given up: those around them are runs of their own. */
        struct batch left = {.topic = old, .length = 10, .count = 1, .equal = true};
        bool leave = i % 5 == 0 && log_reserve(f->log, &left) == 0;
        assert_int_equal(publish_new(f, old, i, OLD), 0);
        if (leave)
            log_abandon(f->log, &left);
    }
    for (uint32_t length = 200000; length > 100; length /= 2)
        while (publish_new(f, new, length, length) == 0)
            ;
}

/* The old topic is trimmed up to where one of its extents ends, which the new one fills a part of then. Returns the
 * number of the trim's entry. */
static uint64_t hand_over(struct fixture *f, struct topic *old, struct topic *new)
{
    size_t run = old->run_count / 2;
    while (run > 0 && topic_run(old, run)->batches < 4)
        run--;
    uint64_t base = extent_of(f, old, run);
    while (extent_of(f, old, run + 1) == base)
        run++;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(log_checkpoint(f->log), 0);
    uint64_t action = f->log->seq.next;
    struct control trim = {.kind = MEDIA_C_TRIM, .id = old->id, .value = topic_run_end(old, run)};
    fixture_control(f, trim);
    size_t last;
    do {
        assert_int_equal(publish_new(f, new, 7, 300), 0);
        last = new->run_count - (topic_run(new, new->run_count - 1)->batches ? 1 : 2);
    } while (extent_of(f, new, last) != base);
    return action;
}

/* The trim is lost with its record. What the repair finds again of the old topic stays while the new one goes on. */
static void shared(void **state)
{
    (void)state;
    struct fixture f, g;
    struct log_options o = {.manual = true, .geo.index_entries = 4096};
    struct fsck_report r;
    struct embar_error err;
    char save[TRIAL_SAVE];
    static bool before[MOST], after[MOST];
    trial_save_make(save);
    fixture_open_as(&f, TRIAL_SIZE, &o);
    uint32_t old_id = fixture_topic(&f, "old"), new_id = fixture_topic(&f, "new");
    struct topic *old = log_topic(f.log, old_id), *new = log_topic(f.log, new_id);
    fill_both(&f, old, new);
    uint64_t action = hand_over(&f, old, new);
    struct trial t = {.image = fixture_copy(&f)};
    const struct media_entry *at = pool_entry(&f.log->pool, 0, action);
    memset(t.image + le64_low48(at->side), 0, MEDIA_LINE);
    memset(t.image + ((const char *)at - f.log->pool.base), 0, MEDIA_LINE);
    topic_put(old);
    topic_put(new);
    assert_int_equal(trial_fsck(&t, true, save, &r, &err), 0);
    assert_true(r.errors > 0);
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);

    image_open(&g, t.image);
    old = log_topic(g.log, old_id);
    new = log_topic(g.log, new_id);
    assert_true(readable(old, before) > 0);
    for (unsigned i = 0; i < 40 && publish_new(&g, new, i, 300) == 0; i++)
        ;
    (void)readable(old, after);
    assert_memory_equal(before, after, sizeof before);
    topic_put(old);
    topic_put(new);
    log_close(g.log);
    sound(&t);
    munmap(t.image, TRIAL_SIZE);
    fixture_close(&f);
    trial_save_drop(save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_two),   cmocka_unit_test(last_and_third), cmocka_unit_test(first_two),
        cmocka_unit_test(last_lower), cmocka_unit_test(another_lower),  cmocka_unit_test(shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
