/* Whatever is damaged, each batch that is whole itself ends up served at its place or saved aside: what falls
 * through what looks for places is found by the look at all that stands. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 9u
#define COUNT   40u /* messages of each at most */
#define LARGE   30000u
#define CUTS    12u

struct world {
    struct fixture f;
    uint32_t id;
    struct trial t;
    char save[TRIAL_SAVE];
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true};
    memset(&w, 0, sizeof w);
    trial_open(&w.f, w.save, &o);
    w.id = fixture_topic(&w.f, "t");
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    trial_close(&w->t, &w->f, w->save);
    return 0;
}

/* Records of one to four lines. */
static uint32_t data_of(unsigned i, char *data, uint32_t *lengths, uint32_t *count)
{
    uint32_t sum = 0;
    *count = 1 + i * 13 % COUNT;
    for (unsigned k = 0; k < *count; k++) {
        lengths[k] = i % 4 == 3 ? 7 : 1 + (i * 7 + k * 3) % 40;
        sum += lengths[k];
    }
    for (uint32_t k = 0; k < sum; k++)
        data[k] = (char)(i * 31 + k * 7);
    return sum;
}

static void publish(struct world *w, unsigned from, unsigned to)
{
    struct topic *t = log_topic(w->f.log, w->id);
    for (unsigned i = from; i < to; i++) {
        char data[40 * COUNT];
        uint32_t lengths[COUNT], count, sum = data_of(i, data, lengths, &count);
        struct commit c =
            fixture_publish(&w->f, t, 0, 0, 0, data, sum, i % 4 == 3 ? NULL : lengths, count);
        assert_int_equal(c.status, 0);
    }
    topic_put(t);
}

/* Repaired: no batch is gone that was not hit itself. */
static void keeps_all(struct world *w, struct trial_outcome *o)
{
    trial_run(&w->t, w->save, o);
    assert_true(o->findings > 0);
    assert_int_equal(o->collateral, 0);
}

static void *in_image(struct world *w, const void *at)
{
    return w->t.image + ((const char *)at - (const char *)w->f.memory);
}

/* A batch was whole before the checkpoint's time, and committed behind it. Its line is gone, and that of an action
 * whose record is gone too. */
static void late(void **state)
{
    struct world *w = *state;
    struct log *log = w->f.log;
    struct topic *t = log_topic(log, w->id);
    static struct sent s;
    struct control mode = {.kind = MEDIA_C_ATTR, .id = w->id, .flags = MEDIA_A_MODE, .mode = 0600};
    char data[40 * COUNT];
    uint32_t lengths[COUNT], count, sum = data_of(BATCHES, data, lengths, &count);
    struct batch left = {.topic = t, .length = 10, .count = 1, .equal = true};
    publish(w, 0, BATCHES);
    /* It does not stand right behind the others. */
    assert_int_equal(log_reserve(log, &left), 0);
    assert_int_equal(fixture_send(&w->f, 0, &s, t, 0, 0, 0, data, sum, lengths, count), 0);
    assert_int_equal(log_checkpoint(log), 0);
    assert_true(atomic_load(&s.done));
    assert_int_equal(s.commit.number, atomic_load(&log->checkpoint) + 1);
    log_abandon(log, &left);
    (void)fixture_control(&w->f, mode);
    topic_put(t);
    trial_take(&w->t, &w->f, true, NULL);
    struct media_entry *line = in_image(w, pool_entry(&log->pool, 0, s.commit.number + 1));
    assert_int_equal(line->kind, MEDIA_CONTROL);
    memset(w->t.image + le64_low48(line->side), 0, MEDIA_LINE);
    memset(line, 0, MEDIA_LINE);
    memset(in_image(w, pool_entry(&log->pool, 0, s.commit.number)), 0, MEDIA_LINE);
    trial_unmark(&w->t, &w->f);
    struct trial_outcome o;
    keeps_all(w, &o);
    assert_int_equal(o.unreadable, 1);
    assert_int_equal(o.aside, 1);
}

static void lines_swap(char *a, char *b)
{
    char was[MEDIA_LINE];
    memcpy(was, a, MEDIA_LINE);
    memcpy(a, b, MEDIA_LINE);
    memcpy(b, was, MEDIA_LINE);
}

/* Any two lines of a run's records change places. */
static void swapped(void **state)
{
    struct world *w = *state;
    publish(w, 0, 2 * BATCHES);
    const struct topic *t = names_id(&w->f.log->names, w->id);
    const struct run *r = topic_run(t, t->run_count - 1);
    uint64_t top = r->side, lines = (top + MEDIA_LINE - t->side_tail) / MEDIA_LINE;
    assert_true(r->batches > 3);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    trial_take(&w->t, &w->f, true, NULL);
    for (uint64_t a = 0; a < lines; a++)
        for (uint64_t b = a + 1; b < lines; b++) {
            struct trial_outcome o;
            memcpy(w->t.image, w->t.pristine, TRIAL_SIZE);
            lines_swap(w->t.image + top - a * MEDIA_LINE, w->t.image + top - b * MEDIA_LINE);
            keeps_all(w, &o);
        }
}

/* The last batch is split; the line of its second part is damaged, and both watermarks are as before it. */
static void split_end(void **state)
{
    static char data[LARGE];
    struct world *w = *state;
    struct log *log = w->f.log;
    const struct pool *p = &log->pool;
    struct topic *t = log_topic(log, w->id);
    struct media_watermark mark[2];
    memset(data, 'd', sizeof data);
    do
        for (unsigned i = 0; i < 2; i++)
            mark[i] = *pool_watermark(p, 0, i);
    while (fixture_publish(&w->f, t, 0, 0, 0, data, sizeof data, NULL, 1).status == 0 &&
           pool_entry(p, 0, log->seq.next - 1)->kind != MEDIA_PART);
    topic_put(t);
    assert_int_equal(pool_entry(p, 0, log->seq.next - 1)->kind, MEDIA_PART);
    trial_take(&w->t, &w->f, true, NULL);
    for (unsigned whole = 0; whole < 2; whole++) {
        struct trial_outcome o;
        char *line = in_image(w, pool_entry(p, 0, log->seq.next - 1));
        memcpy(w->t.image, w->t.pristine, TRIAL_SIZE);
        for (unsigned i = 0; i < 2; i++)
            memcpy(in_image(w, pool_watermark(p, 0, i)), &mark[i], sizeof mark[i]);
        /* Its number too; or that of the line behind it. */
        memset(line + (whole ? 30 : 0), 0x5a, MEDIA_LINE);
        trial_cuts(&w->t, w->save, (struct draws){whole + 1}, CUTS);
        keeps_all(w, &o);
    }
}

/* A batch was moved, and is damaged where it went: where it stood before, it is whole still. */
static void copy(void **state)
{
    struct world *w = *state;
    struct log *log = w->f.log;
    struct topic *t = names_id(&log->names, w->id);
    struct fsck_report r;
    struct embar_error err;
    publish(w, 0, BATCHES);
    uint64_t side = topic_run(t, 0)->side;
    (void)trial_move(log, t, 0);
    assert_int_equal(log_checkpoint(log), 0);
    trial_take(&w->t, &w->f, true, NULL);
    w->t.image[topic_run(t, 0)->payload] ^= 1;
    assert_int_equal(trial_fsck(&w->t, true, w->save, &r, &err), 0);
    const struct fsck_finding *x = trial_finding(&r, FSCK_UNPLACED);
    assert_non_null(x);
    assert_int_equal(x->place.from, side);
    assert_non_null(trial_finding(&r, FSCK_PAYLOAD));
    assert_int_equal(r.count, 2);
    fsck_report_drop(&r);
    assert_int_equal(trial_fsck(&w->t, false, NULL, &r, &err), 0); /* saved once */
    assert_int_equal(r.errors + r.warnings, 0);
    fsck_report_drop(&r);
}

/* A line behind the end is of another place, so the end may be damaged. Nothing is missing: of what was trimmed, and
 * stands still, none is taken for it, also where two publishers came by turns. */
static void odd_line(void **state)
{
    struct world *w = *state;
    const struct log *log = w->f.log;
    struct topic *t = log_topic(w->f.log, w->id);
    uint64_t session = fixture_session(&w->f, w->id, 0), sequence = 0;
    struct fsck_report r;
    struct embar_error err;
    char data[40 * COUNT];
    uint32_t lengths[COUNT], count;
    for (unsigned i = 0; i < 3 * BATCHES; i++) {
        uint32_t sum = data_of(i, data, lengths, &count);
        bool plain = i % 2 || i + 3 > 3 * BATCHES;
        struct commit c = fixture_publish(&w->f, t, plain ? 0 : session, 1, plain ? 0 : ++sequence,
                                          data, sum, NULL, 1);
        assert_int_equal(c.status, 0);
    }
    uint64_t half = topic_run(t, t->run_count / 2)->offset;
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = half});
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_CLOSE, .value = session});
    topic_put(t);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    trial_take(&w->t, &w->f, true, NULL);
    for (uint64_t n = 1; n < log->seq.next; n++) /* nor does any line tell of them */
        memset(in_image(w, pool_entry(&log->pool, 0, n)), 0, MEDIA_LINE);
    struct media_entry *line = in_image(w, pool_entry(&log->pool, 0, log->seq.next));
    line->number = le64_of(2);
    assert_int_equal(trial_fsck(&w->t, false, NULL, &r, &err), 0);
    if (r.errors + r.warnings > 0)
        trial_print(&r);
    assert_int_equal(r.errors + r.warnings, 0);
    fsck_report_drop(&r);
}

/* Three bytes, in the run of those before it or in one of its own. */
static void publish_three(struct world *w, struct topic *t, const char *data, bool own)
{
    struct batch left = {.topic = t, .length = 10, .count = 1, .equal = true};
    if (own)
        assert_int_equal(log_reserve(w->f.log, &left), 0);
    assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, data, 3, NULL, 1).status, 0);
    if (own)
        log_abandon(w->f.log, &left);
}

/* Its run i is said to stand where batch `b` of its first run does. */
static void stand_on(struct topic *t, size_t i, unsigned b)
{
    const struct run *r = topic_run(t, 0);
    topic_run(t, i)->payload = (r->payload + 3ull * b) & MASK48;
    topic_run(t, i)->side = (r->side - b * side_size(1, true)) & MASK48;
    table_rewrite(t->log, t);
}

/* One repair settles it: these bytes of the topic are not served any more, and no others are lost. */
static void settled(struct world *w, uint64_t from, uint64_t to)
{
    struct fsck_report r;
    struct embar_error err;
    assert_int_equal(trial_fsck(&w->t, true, w->save, &r, &err), 0);
    assert_non_null(trial_finding(&r, FSCK_OVERLAP));
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    assert_int_equal(trial_fsck(&w->t, false, NULL, &r, &err), 0);
    if (r.errors + r.warnings > 0)
        trial_print(&r);
    assert_int_equal(r.errors + r.warnings, 0);
    uint64_t lost = 0;
    for (size_t i = 0; i < r.count; i++)
        if (r.finding[i].kind == FSCK_KNOWN) {
            assert_in_range(r.finding[i].offsets.from, from, to);
            assert_in_range(r.finding[i].offsets.to, from, to);
            lost += r.finding[i].offsets.to - r.finding[i].offsets.from;
        }
    assert_int_equal(lost, to - from);
    fsck_report_drop(&r);
}

/* One of the two is damaged elsewhere: what is whole of it shares the place all the same. */
static void shared_damaged(void **state)
{
    struct world *w = *state;
    struct topic *t = log_topic(w->f.log, w->id);
    publish_three(w, t, "aaa", false);
    publish_three(w, t, "bbb", false);
    publish_three(w, t, "ccc", true);
    publish_three(w, t, "ddd", true);
    topic_put(t);
    assert_int_equal(t->run_count, 3);
    stand_on(t, 1, 0);
    uint64_t second = topic_run(t, 0)->payload + 3;
    assert_int_equal(log_checkpoint(w->f.log), 0);
    trial_take(&w->t, &w->f, true, NULL);
    w->t.image[second] ^= 1;
    settled(w, 0, 9);
}

/* One run holds what four others claim, one behind the other. */
static void shared_by_five(void **state)
{
    struct world *w = *state;
    struct topic *t = log_topic(w->f.log, w->id);
    for (unsigned i = 0; i < 9; i++)
        publish_three(w, t, &"aaabbbcccdddeeefffggghhhiii"[3 * i], i > 4);
    topic_put(t);
    assert_int_equal(t->run_count, 5);
    for (unsigned i = 1; i < 5; i++)
        stand_on(t, i, i);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    trial_take(&w->t, &w->f, true, NULL);
    settled(w, 0, 27);
}

/* A table says of two batches that they stand in one place: neither is served, and what stands there is kept. */
static void shared(void **state)
{
    static const char data[] = "aaabbbccc";
    struct world *w = *state;
    struct log *log = w->f.log;
    struct topic *t = log_topic(log, w->id);
    struct fsck_report r;
    struct embar_error err;
    for (unsigned i = 0; i < 3; i++)
        publish_three(w, t, &data[3 * i], true);
    topic_put(t);
    assert_int_equal(t->run_count, 3);
    stand_on(t, 1, 0);
    assert_int_equal(log_checkpoint(log), 0);
    trial_take(&w->t, &w->f, true, NULL);
    assert_int_equal(trial_fsck(&w->t, true, w->save, &r, &err), 0);
    assert_non_null(trial_finding(&r, FSCK_OVERLAP));
    size_t aside = 0;
    for (size_t i = 0; i < r.count; i++)
        aside += r.finding[i].kind == FSCK_UNPLACED;
    assert_int_equal(aside, 2); /* also the one that stands where no table says */
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    assert_int_equal(trial_fsck(&w->t, false, NULL, &r, &err), 0);
    assert_int_equal(r.errors + r.warnings + r.left, 0);
    assert_int_equal(r.remarks, 2);
    fsck_report_drop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(late, begin, end),
        cmocka_unit_test_setup_teardown(swapped, begin, end),
        cmocka_unit_test_setup_teardown(split_end, begin, end),
        cmocka_unit_test_setup_teardown(copy, begin, end),
        cmocka_unit_test_setup_teardown(odd_line, begin, end),
        cmocka_unit_test_setup_teardown(shared, begin, end),
        cmocka_unit_test_setup_teardown(shared_damaged, begin, end),
        cmocka_unit_test_setup_teardown(shared_by_five, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
