/* What goes on behind a repair: what is published then is served, and nothing that was served is written over. */
#include <string.h>
#include <sys/mman.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_two),
        cmocka_unit_test(last_and_third),
        cmocka_unit_test(first_two),
        cmocka_unit_test(last_lower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
