/* What a repair must never do: serve a batch that was not committed, or serve two in each other's places. Whole
 * batches stand in the pool that were announced and never taken, and batches of two publishers were taken in
 * another order than their times tell. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define LENGTH 500u

struct world {
    struct fixture f;
    uint32_t x, y;
    bool marked; /* the watermark tells how the index ended */
    struct trial t;
    char save[TRIAL_SAVE];
};

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true, .geo.index_entries = 2048};
    memset(&w, 0, sizeof w);
    trial_open(&w.f, w.save, &o);
    w.x = fixture_topic(&w.f, "x");
    w.y = fixture_topic(&w.f, "y");
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    trial_close(&w->t, &w->f, w->save);
    return 0;
}

static void publish(struct world *w, uint32_t id, char what, uint64_t session, uint64_t sequence)
{
    struct topic *t = log_topic(w->f.log, id);
    char data[LENGTH];
    memset(data, what, sizeof data);
    assert_int_equal(
        fixture_publish(&w->f, t, session, session ? 1 : 0, sequence, data, sizeof data, NULL, 1)
            .status,
        0);
    topic_put(t);
}

/* Announced, and not committed yet. */
static void announce(struct world *w, struct sent *s, unsigned producer, uint32_t id, char what,
                     uint64_t session, uint64_t sequence)
{
    struct topic *t = log_topic(w->f.log, id);
    char data[LENGTH];
    memset(data, what, sizeof data);
    assert_int_equal(fixture_send(&w->f, producer, s, t, session, session ? 1 : 0, sequence, data,
                                  sizeof data, NULL, 1),
                     0);
    topic_put(t);
}

static void *in_image(struct world *w, const void *at)
{
    return w->t.image + ((const char *)at - (const char *)w->f.memory);
}

static struct media_entry *line_of(struct world *w, uint64_t number)
{
    return in_image(w, pool_entry(&w->f.log->pool, 0, number));
}

static void record_zero(struct world *w, uint64_t number)
{
    memset(w->t.image + le64_low48(line_of(w, number)->side), 0, MEDIA_LINE);
}

static void line_zero(struct world *w, uint64_t number)
{
    memset(line_of(w, number), 0, MEDIA_LINE);
}

static uint64_t end_of(const struct trial *t, uint32_t id)
{
    for (size_t i = 0; i < t->topics; i++)
        if (t->topic[i].id == id)
            return t->topic[i].end;
    fail();
    return 0;
}

/* Nothing is lost that was not hit, and no topic holds more than was committed. Returns how many batches cannot
 * be read. */
static size_t holds(struct world *w)
{
    struct trial_outcome o;
    struct region r;
    struct log_options lo = {.region = &r, .manual = true};
    struct embar_error err;
    struct log *log;
    trial_run(&w->t, w->save, &o);
    assert_true(o.findings > 0);
    region_wrap(&r, w->t.image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &lo, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t id = i ? w->y : w->x;
        struct topic *t = log_topic(log, id);
        assert_non_null(t);
        if (topic_end(t) > end_of(&w->t, id))
            fail_msg("topic %s holds %llu bytes more than were committed", i ? "y" : "x",
                     (unsigned long long)(topic_end(t) - end_of(&w->t, id)));
        topic_put(t);
    }
    log_close(log);
    assert_int_equal(o.collateral, 0);
    return o.unreadable;
}

/* A batch of x was announced, never committed, and the process killed; its place was not used again. */
static void leave(struct world *w, uint64_t session, uint64_t sequence)
{
    static struct sent u;
    publish(w, w->x, 'a', session, session ? sequence - 1 : 0);
    announce(w, &u, 0, w->x, 'U', session, sequence);
    fixture_kill(&w->f);
}

static void take(struct world *w)
{
    trial_take(&w->t, &w->f, true, NULL);
    if (!w->marked)
        trial_unmark(&w->t, &w->f);
}

/* The line that says when the newest term began. */
static void claim_zero(struct world *w)
{
    memset(in_image(w, pool_claim(&w->f.log->pool, 0)), 0, MEDIA_LINE);
}

/* The last line is gone, of another topic: its own record stands. */
static void last_line(void **state)
{
    struct world *w = *state;
    leave(w, 0, 0);
    publish(w, w->y, 'b', 0, 0);
    publish(w, w->y, 'c', 0, 0);
    take(w);
    line_zero(w, w->f.log->seq.next - 1);
    assert_int_equal(holds(w), 0);
}

/* The same when it is not known when the term began: either may be what came last. */
static void last_line_of_two(void **state)
{
    struct world *w = *state;
    leave(w, 0, 0);
    publish(w, w->y, 'b', 0, 0);
    publish(w, w->y, 'c', 0, 0);
    take(w);
    claim_zero(w);
    line_zero(w, w->f.log->seq.next - 1);
    assert_int_equal(holds(w), 1);
}

/* But the watermark tells. */
static void last_line_by_mark(void **state)
{
    struct world *w = *state;
    w->marked = true;
    leave(w, 0, 0);
    publish(w, w->y, 'b', 0, 0);
    publish(w, w->y, 'c', 0, 0);
    take(w);
    claim_zero(w);
    line_zero(w, w->f.log->seq.next - 1);
    assert_int_equal(holds(w), 0);
}

/* `n` lines amid others are gone with their records. */
static void amid(struct world *w, unsigned n, bool claim)
{
    leave(w, 0, 0);
    for (int c = 'b'; c < 'h'; c++)
        publish(w, w->y, (char)c, 0, 0);
    take(w);
    if (!claim)
        claim_zero(w);
    for (uint64_t hit = w->f.log->seq.next - 2 - n; hit < w->f.log->seq.next - 2; hit++) {
        record_zero(w, hit);
        line_zero(w, hit);
    }
    assert_int_equal(holds(w), n);
}

static void line_and_record(void **state)
{
    amid(*state, 1, true);
}

static void lines_and_records(void **state)
{
    amid(*state, 2, true);
}

/* As many stand as there are entries that tell of nothing that stands. */
static void lines_and_records_by_count(void **state)
{
    amid(*state, 2, false);
}

/* The chain says that it was not the one that was left. */
static void line_and_record_by_chain(void **state)
{
    amid(*state, 1, false);
}

/* A line amid others is gone; what was left is older than its batch. */
static void line_amid(void **state)
{
    struct world *w = *state;
    leave(w, 0, 0);
    for (int c = 'b'; c < 'h'; c++)
        publish(w, w->y, (char)c, 0, 0);
    take(w);
    claim_zero(w);
    line_zero(w, w->f.log->seq.next - 3);
    assert_int_equal(holds(w), 0);
}

/* Two lines amid others are gone, of two publishers, and something was left out: only the chain tells. */
static void lines_amid(void **state)
{
    struct world *w = *state;
    uint64_t session = fixture_session(&w->f, w->y, 1);
    leave(w, 0, 0);
    for (unsigned i = 0; i < 6; i++)
        publish(w, w->y, (char)('b' + i), i % 2 ? session : 0, i / 2 + i % 2);
    take(w);
    claim_zero(w);
    for (unsigned i = 0; i < 2; i++)
        line_zero(w, w->f.log->seq.next - 4 + i);
    assert_int_equal(holds(w), 0);
}

/* The same, and its publisher sent other bytes under that number when it resumed. */
static void resumed(void **state)
{
    struct world *w = *state;
    uint64_t session = fixture_session(&w->f, w->x, 1);
    publish(w, w->x, '1', session, 1);
    leave(w, session, 3);
    for (int c = 'b'; c < 'h'; c++)
        publish(w, w->y, (char)c, 0, 0);
    publish(w, w->x, 'R', session, 3);
    take(w);
    line_zero(w, w->f.log->seq.next - 1);
    holds(w);
}

static void publish_anew(struct world *w, char what, uint64_t session, uint64_t sequence)
{
    struct topic *t = log_topic(w->f.log, w->x);
    char data[LENGTH];
    memset(data, what, sizeof data);
    assert_int_equal(
        fixture_publish(&w->f, t, session, 2, sequence, data, sizeof data, NULL, 1).status, 0);
    topic_put(t);
}

/* A process was stopped, and another one took its session over. What the first one had still sent was refused; it
 * stands before the second one's first batch, which is lost with its record. The next one's line is lost, too,
 * and both are as large as what stands. */
static void refused(void **state)
{
    struct world *w = *state;
    static struct sent u;
    uint64_t session = fixture_session(&w->f, w->x, 1);
    publish(w, w->x, 'a', session, 1);
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_FENCE, .value = session, .epoch = 2});
    announce(w, &u, 0, w->x, 'U', session, 2);
    /* Its place is not taken back: another's is behind it. */
    struct batch left = {.topic = names_id(&w->f.log->names, w->x), .length = 10, .count = 1};
    assert_int_equal(log_reserve(w->f.log, &left), 0);
    log_commit(w->f.log);
    assert_true(atomic_load(&u.done) && u.commit.status != 0);
    log_abandon(w->f.log, &left);
    uint64_t first = w->f.log->seq.next;
    for (unsigned i = 0; i < 3; i++)
        publish_anew(w, (char)('b' + i), session, 2 + i);
    take(w);
    record_zero(w, first);
    line_zero(w, first);
    line_zero(w, first + 1);
    assert_int_equal(holds(w), 2);
}

/* Two publishers' batches, taken in another order than they were announced: the first was held for one of its
 * session. They are B, C and A, from the number that is returned on. */
static uint64_t reversed(struct world *w)
{
    static struct sent a;
    uint64_t session = fixture_session(&w->f, w->x, 1), first = w->f.log->seq.next;
    announce(w, &a, 0, w->x, 'A', session, 2);
    log_commit(w->f.log);
    assert_false(atomic_load(&a.done));
    publish(w, w->x, 'B', 0, 0);
    publish(w, w->x, 'C', session, 1);
    log_commit(w->f.log);
    assert_true(atomic_load(&a.done));
    assert_int_equal(a.commit.number, first + 2);
    return first;
}

/* Their lines are gone: of all, or of the last `n`. `behind`: so many batches follow. */
static void reversed_lost(struct world *w, unsigned n, unsigned behind)
{
    publish(w, w->x, 'a', 0, 0);
    uint64_t first = reversed(w);
    for (unsigned i = 0; i < behind; i++)
        publish(w, w->x, (char)('c' + i), 0, 0);
    take(w);
    for (unsigned i = 3 - n; i < 3; i++)
        line_zero(w, first + i);
    holds(w);
}

static void reversed_last(void **state)
{
    reversed_lost(*state, 3, 0);
}

static void reversed_last_two(void **state)
{
    reversed_lost(*state, 2, 0);
}

static void reversed_between(void **state)
{
    reversed_lost(*state, 3, 1);
}

static void reversed_between_two(void **state)
{
    reversed_lost(*state, 2, 2);
}

/* Of two sessions: the first one's batch was held, and each is the next of its own. */
static void reversed_two(void **state, unsigned n, unsigned behind, bool session)
{
    struct world *w = *state;
    static struct sent a, c;
    uint64_t s = fixture_session(&w->f, w->x, 1), o = fixture_session(&w->f, w->x, 1);
    publish(w, w->x, 'a', session ? o : 0, session ? 1 : 0);
    uint64_t first = w->f.log->seq.next;
    announce(w, &a, 0, w->x, 'A', s, 2);
    log_commit(w->f.log);
    publish(w, w->x, 'B', session ? o : 0, session ? 2 : 0);
    announce(w, &c, 0, w->x, 'C', s, 1);
    log_commit(w->f.log);
    assert_true(atomic_load(&a.done));
    for (unsigned i = 0; i < behind; i++)
        publish(w, w->y, (char)('c' + i), 0, 0);
    if (behind)
        publish(w, w->x, 'z', session ? o : 0, session ? 3 : 0);
    take(w);
    for (unsigned i = 0; i < n; i++)
        line_zero(w, first + i);
    holds(w);
}

static void reversed_sessions(void **state)
{
    reversed_two(state, 3, 0, true);
}

static void reversed_sessions_between(void **state)
{
    reversed_two(state, 3, 2, true);
}

/* Two connections receive a batch each; the one whose place is behind is whole first. One epoch takes both, in the
 * order of their places. No sessions. Returns the first one's number. */
static uint64_t at_once(struct world *w)
{
    static struct sent s[2];
    static char data[2][LENGTH];
    struct topic *t = log_topic(w->f.log, w->x);
    memset(s, 0, sizeof s);
    for (unsigned i = 0; i < 2; i++) {
        memset(data[i], 'A' + (int)i, LENGTH);
        s[i].completion.done = fixture_told;
        s[i].batch = (struct batch){.topic = t,
                                    .length = LENGTH,
                                    .count = 1,
                                    .equal = true,
                                    .payload_crc = crc32c(0, data[i], LENGTH),
                                    .completion = &s[i].completion};
        assert_int_equal(log_reserve(w->f.log, &s[i].batch), 0);
    }
    for (unsigned i = 2; i-- > 0;) {
        assert_int_equal(log_store(w->f.log, &s[i].batch, 0, data[i], LENGTH, NULL), 0);
        assert_int_equal(log_announce(log_producer(w->f.log, i), &s[i].batch), 0);
    }
    log_commit(w->f.log);
    assert_true(atomic_load(&s[0].done) && atomic_load(&s[1].done));
    topic_put(t);
    uint64_t x = s[0].commit.number, y = s[1].commit.number;
    return x < y ? x : y;
}

static void at_once_last(void **state)
{
    struct world *w = *state;
    publish(w, w->x, 'a', 0, 0);
    uint64_t first = at_once(w);
    take(w);
    line_zero(w, first);
    line_zero(w, first + 1);
    holds(w);
}

static void at_once_last_marked(void **state)
{
    struct world *w = *state;
    w->marked = true;
    publish(w, w->x, 'a', 0, 0);
    uint64_t first = at_once(w);
    take(w);
    line_zero(w, first);
    line_zero(w, first + 1);
    assert_int_equal(holds(w), 0);
}

/* A batch is held for another of its session, which began among the lines that are lost: for ever, or until the
 * other comes. */
static void held(struct world *w, bool comes)
{
    static struct sent a;
    w->marked = true;
    publish(w, w->x, 'a', 0, 0);
    uint64_t first = w->f.log->seq.next, session = fixture_session(&w->f, w->x, 1);
    announce(w, &a, 0, w->x, 'A', session, 2);
    log_commit(w->f.log);
    publish(w, w->x, 'b', 0, 0);
    publish(w, w->y, 'c', 0, 0);
    if (comes)
        publish(w, w->x, 'C', session, 1);
    log_commit(w->f.log);
    assert_int_equal(atomic_load(&a.done), comes);
    take(w);
    for (uint64_t n = first; n < w->f.log->seq.next; n++)
        line_zero(w, n);
    assert_int_equal(holds(w), 0);
}

static void held_for_ever(void **state)
{
    held(*state, false);
}

static void held_and_released(void **state)
{
    held(*state, true);
}

/* Terms began among the lines that are lost, and the claim tells of the last one only. */
static void terms(void **state)
{
    struct world *w = *state;
    w->marked = true;
    assert_int_equal(log_checkpoint(w->f.log), 0);
    uint64_t first = w->f.log->seq.next;
    for (int c = 'a'; c < 'e'; c++) {
        publish(w, w->x, (char)c, 0, 0);
        publish(w, w->y, (char)c, 0, 0);
        fixture_kill(&w->f);
    }
    publish(w, w->x, 'e', 0, 0);
    take(w);
    assert_true(atomic_load(&w->f.log->checkpoint) < first);
    for (uint64_t n = first; n < w->f.log->seq.next; n++)
        line_zero(w, n);
    assert_int_equal(holds(w), 0);
}

static void at_once_between(void **state)
{
    struct world *w = *state;
    publish(w, w->x, 'a', 0, 0);
    uint64_t first = at_once(w);
    publish(w, w->x, 'z', 0, 0);
    take(w);
    line_zero(w, first);
    line_zero(w, first + 1);
    holds(w);
}

/* The second one alone, which is late: its time is before that of the one in front of it. */
static void at_once_late(void **state)
{
    struct world *w = *state;
    publish(w, w->x, 'a', 0, 0);
    uint64_t first = at_once(w);
    publish(w, w->x, 'z', 0, 0);
    take(w);
    assert_true(line_of(w, first + 1)->flags & MEDIA_F_LATE);
    line_zero(w, first + 1);
    assert_int_equal(holds(w), 0);
}

/* The same while the clock is put back by an hour: all that is announced has one time. */
static void at_once_one_time(void **state)
{
    struct world *w = *state;
    publish(w, w->x, 'a', 0, 0);
    atomic_fetch_add(&w->f.log->clock, 3600000000000ull);
    uint64_t first = at_once(w);
    take(w);
    line_zero(w, first);
    line_zero(w, first + 1);
    holds(w);
}

/* The checkpoint holds them, both copies of the table are gone, and so are the lines: nothing was trimmed. */
static void at_once_table(void **state)
{
    struct world *w = *state;
    publish(w, w->x, 'a', 0, 0);
    (void)at_once(w);
    for (unsigned i = 0; i < 40; i++) {
        publish(w, w->x, (char)('c' + i), 0, 0);
        publish(w, w->y, (char)('c' + i), 0, 0);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(log_checkpoint(w->f.log), 0);
    take(w);
    const struct topic *t = names_id(&w->f.log->names, w->x);
    assert_true(t->table.count > 0);
    for (size_t i = 0; i < t->table.count; i++) {
        const struct extent *e = t->table.piece[i].extent;
        memset(w->t.image + e->base, 0, MEDIA_LINE);
        memset(w->t.image + e->base + checkpoint_room(e->size), 0, MEDIA_LINE);
    }
    for (uint64_t n = 0; n < w->f.log->seq.next; n++)
        line_zero(w, n);
    holds(w);
}

/* At order 2 a batch that was sent twice is whole twice; one was taken. */
static void sent_twice(struct world *w, bool record)
{
    static struct sent a, b;
    struct control c = {.order = 2, .ack = 1};
    uint32_t two = fixture_topic_as(&w->f, "two", c);
    uint64_t session = fixture_session(&w->f, two, 1);
    announce(w, &a, 0, two, 'A', session, 1);
    announce(w, &b, 1, two, 'A', session, 1);
    log_commit(w->f.log);
    assert_true(atomic_load(&a.done) && atomic_load(&b.done));
    publish(w, w->y, 'b', 0, 0);
    publish(w, w->y, 'c', 0, 0);
    take(w);
    w->x = two;
    uint64_t hit = w->f.log->seq.next - 1;
    if (record)
        record_zero(w, hit);
    line_zero(w, hit);
    assert_int_equal(holds(w), record);
}

static void twice(void **state)
{
    sent_twice(*state, false);
}

static void twice_and_record(void **state)
{
    sent_twice(*state, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(last_line, begin, end),
        cmocka_unit_test_setup_teardown(last_line_of_two, begin, end),
        cmocka_unit_test_setup_teardown(last_line_by_mark, begin, end),
        cmocka_unit_test_setup_teardown(line_and_record, begin, end),
        cmocka_unit_test_setup_teardown(lines_and_records, begin, end),
        cmocka_unit_test_setup_teardown(lines_and_records_by_count, begin, end),
        cmocka_unit_test_setup_teardown(line_and_record_by_chain, begin, end),
        cmocka_unit_test_setup_teardown(line_amid, begin, end),
        cmocka_unit_test_setup_teardown(lines_amid, begin, end),
        cmocka_unit_test_setup_teardown(resumed, begin, end),
        cmocka_unit_test_setup_teardown(refused, begin, end),
        cmocka_unit_test_setup_teardown(reversed_last, begin, end),
        cmocka_unit_test_setup_teardown(reversed_last_two, begin, end),
        cmocka_unit_test_setup_teardown(reversed_between, begin, end),
        cmocka_unit_test_setup_teardown(reversed_between_two, begin, end),
        cmocka_unit_test_setup_teardown(reversed_sessions, begin, end),
        cmocka_unit_test_setup_teardown(reversed_sessions_between, begin, end),
        cmocka_unit_test_setup_teardown(at_once_last, begin, end),
        cmocka_unit_test_setup_teardown(at_once_last_marked, begin, end),
        cmocka_unit_test_setup_teardown(held_for_ever, begin, end),
        cmocka_unit_test_setup_teardown(terms, begin, end),
        cmocka_unit_test_setup_teardown(held_and_released, begin, end),
        cmocka_unit_test_setup_teardown(at_once_between, begin, end),
        cmocka_unit_test_setup_teardown(at_once_late, begin, end),
        cmocka_unit_test_setup_teardown(at_once_one_time, begin, end),
        cmocka_unit_test_setup_teardown(at_once_table, begin, end),
        cmocka_unit_test_setup_teardown(twice, begin, end),
        cmocka_unit_test_setup_teardown(twice_and_record, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
