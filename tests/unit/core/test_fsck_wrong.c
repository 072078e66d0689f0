/* What a repair must never do: serve other bytes than were acknowledged. Batches that look like what is lost
 * stand in the pool, as large, and whole: held, fenced, trimmed or never committed. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define LENGTH  500u /* of most batches; all others are multiples */
#define PENDING 16u
#define LARGE   8000u /* more than its extent has room for behind another one */

struct world {
    struct fixture f;
    uint32_t kept, newer;
    struct topic *k, *n;
    char *image, *want;
    size_t size;
    uint64_t end;
    char save[TRIAL_SAVE];
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = 2048};
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    w.kept = fixture_topic(&w.f, "kept");
    w.newer = fixture_topic(&w.f, "newer");
    w.k = log_topic(w.f.log, w.kept);
    w.n = log_topic(w.f.log, w.newer);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    topic_put(w->k);
    topic_put(w->n);
    fixture_close(&w->f);
    munmap(w->image, TRIAL_SIZE);
    free(w->want);
    trial_save_drop(w->save);
    return 0;
}

static int publish(struct world *w, struct topic *t, char what, uint32_t length)
{
    static char data[8 * LARGE];
    memset(data, what, length);
    return fixture_publish(&w->f, t, 0, 0, 0, data, length, NULL, 1).status;
}

static void publish_some(struct world *w, struct topic *t, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(publish(w, t, (char)('a' + i % 26), LENGTH), 0);
}

static void trim(struct world *w, uint64_t bytes)
{
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_TRIM, .id = w->kept, .value = bytes});
}

/* What must be served, and the pool that is damaged next. */
static void settle(struct world *w)
{
    w->want = fixture_read(w->k, &w->size);
    w->end = topic_end(w->k);
    w->image = fixture_copy(&w->f);
}

static void line_zero(struct world *w, uint64_t number)
{
    const char *line = (const char *)pool_entry(&w->f.log->pool, 0, number);
    memset(w->image + (line - (const char *)w->f.memory), 0, MEDIA_LINE);
}

/* The line and the record that it names: nothing tells any more what stood there. */
static void entry_zero(struct world *w, uint64_t number)
{
    memset(w->image + le64_low48(pool_entry(&w->f.log->pool, 0, number)->side), 0, MEDIA_LINE);
    line_zero(w, number);
}

/* Lines behind the checkpoint are lost that may have told of anything. */
static void unproved(struct world *w, uint64_t first)
{
    line_zero(w, first + 1);
    entry_zero(w, first + 2);
}

static unsigned repair(struct world *w)
{
    struct trial t = {.image = w->image};
    struct fsck_report r;
    struct embar_error err;
    unsigned aside = 0;
    if (trial_fsck(&t, true, w->save, &r, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(r.left, 0);
    for (size_t i = 0; i < r.count; i++)
        aside += r.finding[i].kind == FSCK_UNPLACED && r.finding[i].id == w->kept;
    fsck_report_drop(&r);
    return aside;
}

/* Each byte is as it was, or an error. How many batches' lengths are the latter. */
static unsigned unread(struct world *w)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    unsigned missing = 0;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, w->kept);
    uint64_t to = w->end, base = to - w->size;
    assert_int_equal(topic_end(t), to);
    for (uint64_t at = topic_base(t); at < to;) {
        struct read_view v;
        int rc = topic_read(t, at, to - at, &v);
        if (rc) {
            assert_int_equal(rc, -EMBAR_ECORRUPT);
            missing++;
            at += LENGTH - at % LENGTH;
            continue;
        }
        for (int i = 0; i < v.pieces; at += v.iov[i++].iov_len)
            assert_memory_equal(v.iov[i].iov_base, w->want + (at - base), v.iov[i].iov_len);
        read_release(&v);
    }
    topic_put(t);
    log_close(log);
    return missing;
}

/* ---- For what does not stand where it did (fsck_given.c) --------------------------------------- */

/* The last batch has a flipped bit; behind it stands one that was announced, and never committed. */
static void never_committed(void **state)
{
    struct world *w = *state;
    struct side s;
    const struct pool *p = &w->f.log->pool;
    publish_some(w, w->k, 40);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t first = w->f.log->seq.next;
    publish_some(w, w->n, 6);
    settle(w);
    assert_int_equal(side_read(p, w->k->side_tail, &s), 0);
    assert_int_equal(publish(w, w->k, 'U', LENGTH), 0);
    memcpy(w->image + p->data_base, (const char *)w->f.memory + p->data_base, p->data_size);
    w->image[s.run0 + 7] ^= 1;
    unproved(w, first);
    repair(w);
    assert_int_equal(unread(w), 1);
}

/* The first live run is one batch with a flipped bit; the one before it was trimmed, and still stands. */
static void trimmed_before(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(publish(w, w->k, "xyzz"[i], 7 * LARGE), 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    trim(w, 7 * LARGE);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    assert_int_equal(topic_run(w->k, 0)->batches, 1);
    uint64_t first = w->f.log->seq.next;
    publish_some(w, w->n, 6);
    settle(w);
    w->image[topic_run(w->k, 0)->payload + 7] ^= 1;
    unproved(w, first);
    repair(w);
    assert_int_equal(unread(w), 7 * LARGE / LENGTH);
}

/* The first was trimmed, and stays whole because somebody reads it. The next, as large, was trimmed then; its
 * place was given to others, and the action is lost. */
static void trimmed_after(void **state)
{
    struct world *w = *state;
    struct read_view pin;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(publish(w, w->k, "xyzw"[i], LARGE), 0);
    w->want = fixture_read(w->k, &w->size);
    assert_int_equal(topic_read(w->k, 0, LARGE, &pin), 0);
    trim(w, LARGE);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t action = w->f.log->seq.next;
    trim(w, 2 * LARGE);
    for (uint32_t length = 9000; length > 100; length /= 2)
        while (publish(w, w->n, 'n', length) == 0)
            ;
    w->end = topic_end(w->k);
    w->image = fixture_copy(&w->f);
    read_release(&pin);
    entry_zero(w, action);
    entry_zero(w, action + 1);
    repair(w);
    assert_true(unread(w) >= LARGE / LENGTH);
}

/* ---- Where both copies of a run table are gone (fsck_table.c) ---------------------------------- */

static void table_zero(struct world *w)
{
    assert_true(w->k->table.count > 0);
    for (size_t i = 0; i < w->k->table.count; i++) {
        const struct extent *e = w->k->table.piece[i].extent;
        memset(w->image + e->base, 0, MEDIA_LINE);
        memset(w->image + e->base + checkpoint_room(e->size), 0, MEDIA_LINE);
    }
}

/* All is served while the lines stand, trimmed or not; without them nothing wrong is, and what is not served is
 * saved aside. */
static void table_mended(struct world *w, uint64_t trimmed)
{
    uint64_t last = w->f.log->seq.next;
    if (trimmed > 0)
        trim(w, trimmed);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    settle(w);
    table_zero(w);
    repair(w);
    assert_int_equal(unread(w), 0);
    munmap(w->image, TRIAL_SIZE);
    w->image = fixture_copy(&w->f);
    table_zero(w);
    for (uint64_t n = 0; n < last; n++)
        line_zero(w, n);
    unsigned aside = repair(w);
    assert_true(unread(w) <= aside);
}

/* Batches of both topics by turns; between two of the first one stands one that its session never took, for
 * another is missing before it: then it is fenced. */
static void fenced_between(struct world *w, uint64_t trimmed)
{
    uint64_t session = fixture_session(&w->f, w->kept, 1);
    char data[LENGTH];
    struct sent u;
    for (unsigned i = 0; i < 40; i++) {
        publish(w, w->k, (char)('A' + i % 26), LENGTH);
        publish_some(w, w->n, 1);
        if (i != 17)
            continue;
        memset(data, 'U', sizeof data);
        assert_int_equal(
            fixture_send(&w->f, 0, &u, w->k, session, 1, 2, data, sizeof data, NULL, 1), 0);
        log_commit(w->f.log);
    }
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_FENCE, .value = session, .epoch = 2});
    log_commit(w->f.log);
    assert_true(u.done && u.commit.status != 0);
    table_mended(w, trimmed);
}

static void fenced(void **state)
{
    fenced_between(*state, 0);
}

static void fenced_trimmed(void **state)
{
    fenced_between(*state, 14ull * LENGTH);
}

/* A publisher left what it had reserved: nothing ever stood in the hole, and nothing is missing there. */
static void hole_between(struct world *w, uint64_t trimmed)
{
    struct batch hole;
    for (unsigned i = 0; i < 40; i++) {
        publish(w, w->k, (char)('A' + i % 26), LENGTH);
        publish_some(w, w->n, 1);
        if (i != 17)
            continue;
        hole = (struct batch){.topic = w->k, .length = LENGTH, .count = 1, .equal = true};
        assert_int_equal(log_reserve(w->f.log, &hole), 0);
    }
    log_abandon(w->f.log, &hole);
    table_mended(w, trimmed);
}

static void hole(void **state)
{
    hole_between(*state, 0);
}

static void hole_trimmed(void **state)
{
    hole_between(*state, 7ull * LENGTH);
}

static void hole_trimmed_further(void **state)
{
    hole_between(*state, 14ull * LENGTH);
}

/* ---- Where index lines behind the checkpoint are gone (fsck_fill.c) ---------------------------- */

/* Two batches lost their lines; between them in time stands one that its session holds, for another is missing
 * before it. `session`: the others are of one as well. */
static void held_between(struct world *w, bool session)
{
    uint64_t gap = fixture_session(&w->f, w->kept, 1), other = fixture_session(&w->f, w->kept, 1);
    char data[LENGTH];
    struct sent u;
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t line = w->f.log->seq.next;
    for (unsigned i = 0; i < 10; i++) {
        memset(data, 'A' + (int)i, sizeof data);
        assert_int_equal(fixture_publish(&w->f, w->k, session ? other : 0, session,
                                         session ? i + 1 : 0, data, sizeof data, NULL, 1)
                             .status,
                         0);
        if (i != 4)
            continue;
        memset(data, 'U', sizeof data);
        assert_int_equal(fixture_send(&w->f, 0, &u, w->k, gap, 1, 2, data, sizeof data, NULL, 1),
                         0);
        log_commit(w->f.log);
    }
    settle(w);
    line_zero(w, line + 4);
    line_zero(w, line + 5);
    repair(w);
    assert_int_equal(unread(w), 0);
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_FENCE, .value = gap, .epoch = 2});
    log_commit(w->f.log);
}

static void held(void **state)
{
    held_between(*state, false);
}

static void held_session(void **state)
{
    held_between(*state, true);
}

/* As it is, but what opened its session is lost, too: only the chain says that it is not one of them. Where a third
 * line is gone with its record the chain does not, and none is served. */
static void held_unknown_lost(struct world *w, bool proved)
{
    struct sent u;
    char data[LENGTH];
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t open = w->f.log->seq.next, session = fixture_session(&w->f, w->kept, 1);
    uint64_t line = w->f.log->seq.next;
    for (unsigned i = 0; i < 10; i++) {
        publish(w, w->k, (char)('A' + i), LENGTH);
        if (i != 4)
            continue;
        memset(data, 'U', sizeof data);
        assert_int_equal(
            fixture_send(&w->f, 0, &u, w->k, session, 1, 2, data, sizeof data, NULL, 1), 0);
        log_commit(w->f.log);
    }
    settle(w);
    entry_zero(w, open);
    line_zero(w, line + 4);
    line_zero(w, line + 5);
    if (!proved)
        entry_zero(w, line + 6);
    unsigned aside = repair(w);
    assert_int_equal(unread(w), proved ? 0 : 3);
    assert_true(proved || aside >= 2);
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_FENCE, .value = session, .epoch = 2});
    log_commit(w->f.log);
}

static void held_unknown(void **state)
{
    held_unknown_lost(*state, false);
}

static void held_unknown_proved(void **state)
{
    held_unknown_lost(*state, true);
}

/* The record of a trim is damaged, and what it gave up was given to a batch of the same topic that was never
 * committed: that does not stand for what stood there. */
static void place_given(struct world *w, bool checkpointed)
{
    static struct sent s[PENDING];
    static char data[LARGE];
    unsigned n = 0;
    memset(s, 0, sizeof s);
    assert_int_equal(publish(w, w->k, 'a', LARGE), 0);
    assert_int_equal(publish(w, w->k, 'b', LARGE), 0);
    if (checkpointed)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t place = topic_run(w->k, 0)->payload;
    settle(w);
    munmap(w->image, TRIAL_SIZE);
    uint64_t number = w->f.log->seq.next;
    trim(w, LARGE);
    memset(data, 'x', sizeof data);
    do
        assert_int_equal(
            fixture_send(&w->f, 0, &s[n], w->k, 0, 0, 0, data, LARGE - LENGTH, NULL, 1), 0);
    while (s[n].batch.run0 != place && ++n < PENDING);
    assert_true(n < PENDING);
    w->image = fixture_copy(&w->f);
    memset(w->image + le64_low48(pool_entry(&w->f.log->pool, 0, number)->payload), 0, MEDIA_LINE);
    (void)repair(w);
    assert_int_equal(unread(w), LARGE / LENGTH);
    log_commit(w->f.log);
}

static void given(void **state)
{
    place_given(*state, false);
}

static void given_checkpointed(void **state)
{
    place_given(*state, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(never_committed, begin, end),
        cmocka_unit_test_setup_teardown(trimmed_before, begin, end),
        cmocka_unit_test_setup_teardown(trimmed_after, begin, end),
        cmocka_unit_test_setup_teardown(fenced, begin, end),
        cmocka_unit_test_setup_teardown(fenced_trimmed, begin, end),
        cmocka_unit_test_setup_teardown(hole, begin, end),
        cmocka_unit_test_setup_teardown(hole_trimmed, begin, end),
        cmocka_unit_test_setup_teardown(hole_trimmed_further, begin, end),
        cmocka_unit_test_setup_teardown(held, begin, end),
        cmocka_unit_test_setup_teardown(held_session, begin, end),
        cmocka_unit_test_setup_teardown(held_unknown, begin, end),
        cmocka_unit_test_setup_teardown(held_unknown_proved, begin, end),
        cmocka_unit_test_setup_teardown(given, begin, end),
        cmocka_unit_test_setup_teardown(given_checkpointed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
