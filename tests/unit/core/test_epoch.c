/* A session's epochs: takeovers told from fences for gaps, more gaps than their bits count, and the last
 * epoch there is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"

#define HOLD_MS 2000ull
#define GAPS    (1u << LOG_EPOCH_GAPS)

static struct commit put(struct fixture *f, struct topic *t, uint64_t session, uint32_t epoch,
                         uint64_t sequence, const char *text)
{
    return fixture_publish(f, t, session, epoch, sequence, text, (uint32_t)strlen(text), NULL, 1);
}

static void open_manual(struct fixture *f)
{
    const struct log_options o = {.manual = true};
    fixture_open_as(f, 0, &o);
}

/* The same, with a session on a topic. */
static uint64_t open_session(struct fixture *f, struct topic **t)
{
    open_manual(f);
    uint32_t id = fixture_topic(f, "t");
    *t = log_topic(f->log, id);
    return fixture_session(f, id, 7);
}

/* A new process's fence is told from one for a gap, by whoever comes with an epoch from before: what is
 * held, what comes later, over a restart and over gaps in between. */
static void a_takeover_is_told_apart(void **state)
{
    (void)state;
    struct fixture f;
    struct topic *t;
    uint64_t s = open_session(&f, &t);
    struct sent held;
    assert_int_equal(fixture_send(&f, 0, &held, t, s, 1, 3, "x", 1, NULL, 1), 0);
    log_commit(f.log);
    fixture_control(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s, .taken = true});
    assert_true(held.done);
    assert_int_equal(held.commit.status, -EMBAR_ETAKEN);
    struct session_stat st;
    assert_int_equal(log_session(f.log, s, &st), 0);
    uint32_t mine = st.epoch;
    for (unsigned i = 0; i < 3; i++)
        fixture_control(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s});
    uint32_t id = topic_id(t);
    topic_put(t);
    fixture_kill(&f);
    t = log_topic(f.log, id);
    assert_int_equal(log_session(f.log, s, &st), 0);
    assert_int_equal(st.epoch, mine + 3);
    assert_int_equal(put(&f, t, s, 1, 1, "1").status, -EMBAR_ETAKEN);
    assert_int_equal(put(&f, t, s, mine, 1, "1").status, -EMBAR_EFENCED);
    assert_int_equal(put(&f, t, s, mine + 3, 1, "1").status, 0);
    fixture_control(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s, .taken = true});
    assert_int_equal(put(&f, t, s, mine + 3, 2, "2").status, -EMBAR_ETAKEN);
    fixture_expect(t, "1");
    topic_put(t);
    fixture_close(&f);
}

static uint32_t epoch_of(struct fixture *f, uint64_t id)
{
    struct session_stat st;
    assert_int_equal(log_session(f->log, id, &st), 0);
    return st.epoch;
}

/* A batch behind a gap that is never filled: what becomes of it. */
static struct commit lasting_gap(struct fixture *f, struct topic *t, uint64_t session)
{
    struct session_stat st;
    struct sent held;
    assert_int_equal(log_session(f->log, session, &st), 0);
    assert_int_equal(
        fixture_send(f, 0, &held, t, session, st.epoch, st.sequence + 2, "x", 1, NULL, 1), 0);
    log_commit(f->log);
    assert_false(held.done);
    log_tick(f->log, now_monotonic() + (HOLD_MS + 1) * 1000000);
    assert_true(held.done);
    return held.commit;
}

/* The gaps between two takeovers are counted in so many bits: one more in a row looks like a takeover,
 * which ends a publisher and loses nothing. */
static void gaps_in_a_row_look_like_a_takeover(void **state)
{
    (void)state;
    struct fixture f;
    struct topic *t;
    uint64_t s = open_session(&f, &t);
    while (epoch_of(&f, s) < GAPS - 1)
        fixture_control(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s});
    assert_int_equal(put(&f, t, s, 1, 1, "1").status, -EMBAR_EFENCED);
    assert_int_equal(put(&f, t, s, GAPS - 1, 1, "1").status, 0);
    struct commit c = lasting_gap(&f, t, s);
    assert_int_equal(c.status, -EMBAR_ETAKEN);
    assert_int_equal(c.epoch, GAPS);
    assert_int_equal(c.sequence, 1);
    assert_int_equal(put(&f, t, s, GAPS - 1, 2, "2").status, -EMBAR_ETAKEN);
    /* The next one is told apart again. */
    assert_int_equal(lasting_gap(&f, t, s).status, -EMBAR_EFENCED);
    fixture_control(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s, .taken = true});
    assert_int_equal(epoch_of(&f, s), 2 * GAPS);
    uint32_t id = topic_id(t);
    topic_put(t);
    fixture_kill(&f);
    t = log_topic(f.log, id);
    assert_int_equal(epoch_of(&f, s), 2 * GAPS);
    assert_int_equal(put(&f, t, s, 2 * GAPS, 2, "2").status, 0);
    fixture_expect(t, "12");
    topic_put(t);
    fixture_close(&f);
}

/* As if it had been fenced so often. */
static void age(struct fixture *f, uint64_t session, uint32_t epoch)
{
    seq_take_wait(f->log);
    session_fence(f->log, session_find(f->log, session), epoch);
    seq_give(f->log);
}

/* Epochs never begin anew, or a batch from long ago would be taken: the last one stays, for whoever has
 * the session; nobody takes it over any more, and what stands behind a gap is refused at once. */
static void epochs_end(void **state)
{
    (void)state;
    struct control again = {.kind = MEDIA_C_FENCE, .taken = true};
    struct fixture f;
    struct commit c;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t s = again.value = fixture_session(&f, id, 7);
    age(&f, s, UINT32_MAX - 2 * GAPS + 6);
    fixture_control(&f, again);
    assert_int_equal(epoch_of(&f, s), UINT32_MAX - GAPS + 1);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(fixture_try(&f, again, &c), -EMBAR_ELIMIT);
        assert_int_equal(epoch_of(&f, s), UINT32_MAX - GAPS + 1);
        topic_put(t);
        fixture_kill(&f);
        t = log_topic(f.log, id);
    }
    assert_int_equal(lasting_gap(&f, t, s).status, -EMBAR_EFENCED);
    assert_int_equal(fixture_try(&f, again, &c), -EMBAR_ELIMIT);
    age(&f, s, UINT32_MAX - 1);
    assert_int_equal(lasting_gap(&f, t, s).status, -EMBAR_EFENCED);
    assert_int_equal(epoch_of(&f, s), UINT32_MAX);
    assert_int_equal(lasting_gap(&f, t, s).status, -EMBAR_ELIMIT);
    assert_int_equal(fixture_try(&f, again, &c), -EMBAR_ELIMIT);
    assert_int_equal(epoch_of(&f, s), UINT32_MAX);
    assert_int_equal(put(&f, t, s, UINT32_MAX - 1, 1, "0").status, -EMBAR_EFENCED);
    assert_int_equal(put(&f, t, s, UINT32_MAX, 1, "1").status, 0);
    fixture_expect(t, "1");
    fixture_control(&f, (struct control){.kind = MEDIA_C_CLOSE, .value = s});
    topic_put(t);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_takeover_is_told_apart),
        cmocka_unit_test(gaps_in_a_row_look_like_a_takeover),
        cmocka_unit_test(epochs_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
