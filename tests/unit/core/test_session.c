/* Sessions: each one's batches land once and in order, whatever the order and number of their
 * deliveries, over gaps, fences, kills and reopenings; and nobody else's state suffers. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define HOLD_MS 2000ull

static void open_manual(struct fixture *f, unsigned sessions, uint64_t entries)
{
    struct log_options o = {.manual = true, .sessions = sessions, .geo.index_entries = entries};
    fixture_open_as(f, 0, &o);
}

static int send(struct fixture *f, unsigned producer, struct sent *s, struct topic *t, uint64_t id,
                uint32_t epoch, uint64_t sequence, const char *text)
{
    return fixture_send(f, producer, s, t, id, epoch, sequence, text, (uint32_t)strlen(text), NULL,
                        1);
}

/* The second connection is ahead of the first: held until the gap is filled, then all at once. */
static void held_until_the_gap_is_filled(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7), other = fixture_session(&f, id, 7);
    struct sent b[6];
    assert_int_equal(send(&f, 1, &b[3], t, s, 1, 3, "3"), 0);
    assert_int_equal(send(&f, 1, &b[2], t, s, 1, 2, "2"), 0);
    assert_int_equal(send(&f, 1, &b[5], t, s, 1, 5, "5"), 0);
    log_commit(f.log);
    assert_false(b[2].done || b[3].done || b[5].done);
    fixture_expect(t, "");
    /* Others do not wait. */
    assert_int_equal(fixture_publish(&f, t, other, 1, 1, "o", 1, NULL, 1).status, 0);
    assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "n", 1, NULL, 1).status, 0);
    assert_int_equal(send(&f, 0, &b[1], t, s, 1, 1, "1"), 0);
    log_commit(f.log);
    assert_true(b[1].done && b[2].done && b[3].done && !b[5].done);
    fixture_expect(t, "on123");
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(b[i].commit.status, 0);
        assert_false(b[i].commit.duplicate);
        assert_int_equal(b[i].commit.session, s);
        assert_int_equal(b[i].commit.sequence, 3);
        assert_int_equal(b[i].commit.messages, 3);
    }
    assert_int_equal(send(&f, 2, &b[4], t, s, 1, 4, "4"), 0);
    log_commit(f.log);
    assert_true(b[4].done && b[5].done);
    fixture_expect(t, "on12345");
    topic_put(t);
    fixture_close(&f);
}

/* The same batch twice among the held ones: once in the topic, twice told. */
static void duplicates_of_held_batches(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7);
    struct sent b[5];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(send(&f, i, &b[i], t, s, 1, 2, "b"), 0);
    log_commit(f.log);
    assert_false(b[0].done || b[1].done || b[2].done);
    assert_int_equal(send(&f, 0, &b[3], t, s, 1, 1, "a"), 0);
    assert_int_equal(send(&f, 1, &b[4], t, s, 1, 1, "a"), 0);
    log_commit(f.log);
    unsigned duplicates = 0;
    for (unsigned i = 0; i < 5; i++) {
        assert_true(b[i].done);
        assert_int_equal(b[i].commit.status, 0);
        assert_int_equal(b[i].commit.sequence, 2);
        duplicates += b[i].commit.duplicate;
    }
    assert_int_equal(duplicates, 3);
    fixture_expect(t, "ab");
    struct log_stat st;
    log_stat_all(f.log, &st);
    assert_int_equal(st.duplicates, 3);
    assert_int_equal(st.reserved, 0);
    topic_put(t);
    fixture_close(&f);
}

/* A gap that lasts: the session is fenced alone, told where it stands, and what was sent before the
 * fence cannot land after it. */
static void a_lasting_gap_fences(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7), other = fixture_session(&f, id, 7);
    struct sent b[8];
    assert_int_equal(fixture_publish(&f, t, s, 1, 1, "1", 1, NULL, 1).status, 0);
    uint64_t begun = now_monotonic();
    assert_int_equal(send(&f, 0, &b[0], t, s, 1, 3, "x"), 0);
    assert_int_equal(send(&f, 1, &b[1], t, s, 1, 1000000, "y"), 0);
    log_commit(f.log);
    log_tick(f.log, begun + (HOLD_MS - 500) * 1000000);
    assert_false(b[0].done || b[1].done);
    log_tick(f.log, now_monotonic() + (HOLD_MS + 1) * 1000000);
    assert_true(b[0].done && b[1].done);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(b[i].commit.status, -EMBAR_EFENCED);
        assert_int_equal(b[i].commit.sequence, 1);
        assert_int_equal(b[i].commit.messages, 1);
        assert_int_equal(b[i].commit.epoch, 2);
    }
    struct session_stat st;
    assert_int_equal(log_session(f.log, s, &st), 0);
    assert_int_equal(st.epoch, 2);
    assert_int_equal(st.sequence, 1);
    assert_int_equal(log_session(f.log, other, &st), 0);
    assert_int_equal(st.epoch, 1);
    /* From before the fence: refused, even the next in line and even a duplicate. */
    assert_int_equal(fixture_publish(&f, t, s, 1, 2, "2", 1, NULL, 1).status, -EMBAR_EFENCED);
    assert_int_equal(fixture_publish(&f, t, s, 1, 1, "1", 1, NULL, 1).status, -EMBAR_EFENCED);
    assert_int_equal(fixture_publish(&f, t, s, 3, 2, "2", 1, NULL, 1).status, -EMBAR_EFENCED);
    struct commit c = fixture_publish(&f, t, s, 2, 2, "2", 1, NULL, 1);
    assert_int_equal(c.status, 0);
    assert_int_equal(c.messages, 2);
    fixture_control(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s});
    topic_put(t);
    fixture_kill(&f);
    t = log_topic(f.log, id);
    assert_int_equal(log_session(f.log, s, &st), 0);
    assert_int_equal(st.epoch, 3);
    assert_int_equal(st.sequence, 2);
    assert_int_equal(fixture_publish(&f, t, s, 2, 3, "3", 1, NULL, 1).status, -EMBAR_EFENCED);
    assert_int_equal(fixture_publish(&f, t, s, 3, 3, "3", 1, NULL, 1).status, 0);
    fixture_expect(t, "123");
    topic_put(t);
    fixture_close(&f);
}

/* Later arrivals with lower numbers do not put the fence off. */
static void the_hold_counts_from_its_first_batch(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .hold_ms = 40};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7);
    struct sent b[2];
    assert_int_equal(send(&f, 0, &b[0], t, s, 1, 9, "9"), 0);
    log_commit(f.log);
    uint64_t first = now_monotonic();
    while (now_monotonic() < first + 60000000)
        ;
    assert_int_equal(send(&f, 0, &b[1], t, s, 1, 5, "5"), 0);
    log_commit(f.log);
    log_tick(f.log, first + 50000000);
    assert_true(b[0].done && b[1].done);
    assert_int_equal(b[0].commit.status, -EMBAR_EFENCED);
    topic_put(t);
    fixture_close(&f);
}

static void closed_and_unknown_sessions(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t"), other = fixture_topic(&f, "u");
    struct topic *t = log_topic(f.log, id), *u = log_topic(f.log, other);
    uint64_t s = fixture_session(&f, id, 7);
    assert_int_equal(fixture_publish(&f, t, s, 1, 1, "1", 1, NULL, 1).status, 0);
    /* A session belongs to one topic. */
    assert_int_equal(fixture_publish(&f, u, s, 1, 2, "2", 1, NULL, 1).status, -EMBAR_ESESSION);
    /* Numbers that are none. */
    assert_int_equal(fixture_publish(&f, t, s, 1, 0, "0", 1, NULL, 1).status, -EMBAR_EINVALID);
    assert_int_equal(fixture_publish(&f, t, s, 1, 1ull << 48, "0", 1, NULL, 1).status,
                     -EMBAR_EINVALID);
    struct sent held;
    assert_int_equal(send(&f, 0, &held, t, s, 1, 3, "3"), 0);
    log_commit(f.log);
    struct commit c;
    assert_int_equal(fixture_try(&f, (struct control){.kind = MEDIA_C_CLOSE, .value = s}, &c), 0);
    assert_int_equal(c.sequence, 1);
    assert_int_equal(c.messages, 1);
    assert_true(held.done);
    assert_int_equal(held.commit.status, -EMBAR_ESESSION);
    assert_int_equal(fixture_publish(&f, t, s, 1, 2, "2", 1, NULL, 1).status, -EMBAR_ESESSION);
    assert_int_equal(fixture_try(&f, (struct control){.kind = MEDIA_C_CLOSE, .value = s}, NULL),
                     -EMBAR_ESESSION);
    assert_int_equal(fixture_try(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s}, NULL),
                     -EMBAR_ESESSION);
    topic_put(t);
    topic_put(u);
    fixture_kill(&f);
    struct session_stat st;
    assert_int_equal(log_session(f.log, s, &st), -EMBAR_ESESSION);
    fixture_close(&f);
}

static void the_table_is_bounded(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f, 5, 0);
    uint32_t id = fixture_topic(&f, "t");
    uint64_t s[5];
    for (unsigned i = 0; i < 5; i++)
        s[i] = fixture_session(&f, id, 7);
    struct control more = {.kind = MEDIA_C_OPEN, .id = id};
    assert_int_equal(fixture_try(&f, more, NULL), -EMBAR_ELIMIT);
    fixture_kill(&f);
    assert_int_equal(fixture_try(&f, more, NULL), -EMBAR_ELIMIT);
    fixture_control(&f, (struct control){.kind = MEDIA_C_CLOSE, .value = s[2]});
    uint64_t fresh = fixture_session(&f, id, 7);
    for (unsigned i = 0; i < 5; i++)
        assert_true(fresh != s[i]);
    fixture_close(&f);
}

/* A topic goes: what its sessions hold is told so, they are gone, and others are not. */
static void removed_topics_take_their_sessions_along(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t"), other = fixture_topic(&f, "u");
    struct topic *t = log_topic(f.log, id), *u = log_topic(f.log, other);
    uint64_t s = fixture_session(&f, id, 7), kept = fixture_session(&f, other, 7);
    struct sent a, b, late;
    assert_int_equal(send(&f, 0, &a, t, s, 1, 2, "2"), 0);
    assert_int_equal(send(&f, 1, &b, u, kept, 1, 2, "2"), 0);
    log_commit(f.log);
    assert_int_equal(send(&f, 1, &late, t, s, 1, 1, "1"), 0); /* on its way when the topic goes */
    fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    log_commit(f.log);
    assert_true(a.done && late.done && !b.done);
    assert_int_equal(a.commit.status, -EMBAR_EGONE);
    assert_int_equal(late.commit.status, -EMBAR_EGONE);
    struct session_stat st;
    assert_int_equal(log_session(f.log, s, &st), -EMBAR_ESESSION);
    struct log_stat all;
    log_stat_all(f.log, &all);
    assert_int_equal(all.sessions, 1);
    assert_int_equal(all.reserved, 1);
    topic_put(t);
    assert_int_equal(fixture_publish(&f, u, kept, 1, 1, "1", 1, NULL, 1).status, 0);
    assert_true(b.done);
    fixture_expect(u, "12");
    topic_put(u);
    fixture_kill(&f);
    assert_int_equal(log_session(f.log, s, &st), -EMBAR_ESESSION);
    assert_int_equal(log_session(f.log, kept, &st), 0);
    assert_int_equal(st.sequence, 2);
    fixture_close(&f);
}

/* Thousands held, arriving forwards, backwards and at random: all come out in order. */
static void many_held(void **state)
{
    (void)state;
    struct draws d = campaign_begin("held");
    struct fixture f;
    open_manual(&f, 0, 1024);
    struct sent *b = calloc(4000, sizeof *b);
    uint32_t place[4000];
    for (unsigned round = 0; round < 3; round++) {
        uint32_t id = fixture_topic(&f, (char[]){(char)('a' + round), 0});
        struct topic *t = log_topic(f.log, id);
        uint64_t s = fixture_session(&f, id, 7);
        for (uint32_t i = 0; i < 4000; i++)
            place[i] = round == 1 ? 3999 - i : i;
        for (uint32_t i = 3999; round == 2 && i > 0; i--) {
            uint32_t k = pick(&d, i + 1), swap = place[i];
            place[i] = place[k];
            place[k] = swap;
        }
        for (uint32_t i = 0; i < 4000; i++) {
            char line[16];
            snprintf(line, sizeof line, "%u\n", place[i] + 2);
            assert_int_equal(send(&f, i % 3, &b[i], t, s, 1, place[i] + 2, line), 0);
            if (i % 50 == 0)
                log_commit(f.log);
        }
        log_commit(f.log);
        assert_int_equal(topic_end(t), 0);
        assert_int_equal(fixture_publish(&f, t, s, 1, 1, "1\n", 2, NULL, 1).status, 0);
        log_commit(f.log);
        size_t n, at = 0;
        char *all = fixture_read(t, &n);
        for (unsigned i = 1; i <= 4001; i++) {
            char line[16];
            size_t length = (size_t)snprintf(line, sizeof line, "%u\n", i);
            assert_true(at + length <= n);
            assert_memory_equal(all + at, line, length);
            at += length;
        }
        assert_int_equal(at, n);
        free(all);
        for (unsigned i = 0; i < 4000; i++)
            assert_true(b[i].done && b[i].commit.status == 0);
        topic_put(t);
    }
    free(b);
    fixture_close(&f);
}

/* ---- Random deliveries -------------------------------------------------------------------- */

#define SESSIONS 7u
#define FLIGHT   40u
#define AHEAD    9u

struct publisher {
    uint64_t id, acked, messages;
    uint32_t epoch;
    unsigned topic;
};

struct world {
    struct fixture f;
    struct draws d;
    uint32_t topic_id[2];
    struct topic *topic[2];
    struct publisher p[SESSIONS];
    struct sent sent[FLIGHT];
    unsigned owner[FLIGHT];
    bool used[FLIGHT];
    unsigned fences, duplicates, crashes;
};

static unsigned lines_of(uint64_t sequence)
{
    return 1 + (unsigned)(sequence % 3);
}

static uint32_t text_of(unsigned who, uint64_t sequence, char *text, uint32_t *lengths)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < lines_of(sequence); i++) {
        int more = sprintf(text + n, "%u %llu %u%s\n", who, (unsigned long long)sequence, i,
                           sequence % 17 == 0 ? " padded padded padded padded padded padded" : "");
        lengths[i] = (uint32_t)more;
        n += (uint32_t)more;
    }
    return n;
}

static void topics_get(struct world *w)
{
    for (unsigned i = 0; i < 2; i++)
        w->topic[i] = log_topic(w->f.log, w->topic_id[i]);
}

static void reap(struct world *w)
{
    for (unsigned i = 0; i < FLIGHT; i++) {
        if (!w->used[i] || !atomic_load(&w->sent[i].done))
            continue;
        w->used[i] = false;
        const struct commit *c = &w->sent[i].commit;
        struct publisher *p = &w->p[w->owner[i]];
        assert_int_equal(c->session, p->id);
        if (c->status == -EMBAR_EFENCED) {
            assert_true(c->sequence >= p->acked);
            if (c->epoch > p->epoch) {
                p->epoch = c->epoch;
                w->fences++;
            }
            continue;
        }
        assert_int_equal(c->status, 0);
        w->duplicates += c->duplicate;
        assert_true(c->sequence >= w->sent[i].batch.sequence);
        if (c->sequence > p->acked) {
            p->acked = c->sequence;
            p->messages = c->messages;
        }
    }
}

static void deliver(struct world *w)
{
    char text[400];
    uint32_t lengths[4];
    unsigned i = pick(&w->d, FLIGHT), who = pick(&w->d, SESSIONS);
    if (w->used[i])
        return;
    struct publisher *p = &w->p[who];
    uint64_t sequence = p->acked + 1 + pick(&w->d, 1 + pick(&w->d, AHEAD));
    if (one_in(&w->d, 6) && p->acked > 0)
        sequence = 1 + draw(&w->d) % p->acked;
    uint32_t length = text_of(who, sequence, text, lengths);
    int rc =
        fixture_send(&w->f, pick(&w->d, log_producers(w->f.log)), &w->sent[i], w->topic[p->topic],
                     p->id, p->epoch, sequence, text, length, lengths, lines_of(sequence));
    assert_int_equal(rc, 0);
    w->used[i] = true;
    w->owner[i] = who;
}

/* What is in the topics: each session's lines, once, in order, as many as it was told. */
static void check_content(struct world *w)
{
    uint64_t seen[SESSIONS] = {0}, messages[SESSIONS] = {0};
    for (unsigned k = 0; k < 2; k++) {
        size_t n, at = 0;
        char *all = fixture_read(w->topic[k], &n);
        while (at < n) {
            unsigned who = (unsigned)(all[at] - '0');
            assert_true(who < SESSIONS && w->p[who].topic == k);
            char text[400];
            uint32_t lengths[4], length = text_of(who, ++seen[who], text, lengths);
            messages[who] += lines_of(seen[who]);
            assert_true(at + length <= n);
            assert_memory_equal(all + at, text, length);
            at += length;
        }
        free(all);
    }
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session_stat st;
        assert_int_equal(log_session(w->f.log, w->p[i].id, &st), 0);
        assert_int_equal(st.sequence, seen[i]);
        assert_int_equal(st.messages, messages[i]);
        assert_int_equal(st.topic, w->topic_id[w->p[i].topic]);
        assert_true(st.sequence >= w->p[i].acked);
    }
}

/* Nothing on its way survives; what was acked does, and the publishers resume from there. */
static void interrupt(struct world *w, unsigned how)
{
    reap(w);
    for (unsigned i = 0; i < 2; i++)
        topic_put(w->topic[i]);
    if (how == 0)
        fixture_kill(&w->f);
    else if (how == 1)
        fixture_reopen(&w->f);
    else if (fixture_crash(&w->f))
        w->crashes++;
    topics_get(w);
    check_content(w);
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session_stat st;
        assert_int_equal(log_session(w->f.log, w->p[i].id, &st), 0);
        w->p[i].acked = st.sequence;
        w->p[i].epoch = st.epoch;
    }
    if (how < 2)
        memset(w->used, 0, sizeof w->used);
}

/* Killed in the middle of a commit: only what was told before it is owed. */
static void crash_in_commit(struct world *w)
{
    reap(w);
    uint64_t acked[SESSIONS];
    for (unsigned i = 0; i < SESSIONS; i++)
        acked[i] = w->p[i].acked;
    fixture_arm(&w->f, 1 + pick(&w->d, 12));
    for (unsigned i = pick(&w->d, 8); i > 0; i--)
        deliver(w);
    log_commit(w->f.log);
    if (!w->f.crashed) {
        w->f.countdown = 0;
        return;
    }
    for (unsigned i = 0; i < 2; i++)
        topic_put(w->topic[i]);
    assert_true(fixture_crash(&w->f));
    w->crashes++;
    topics_get(w);
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session_stat st;
        assert_int_equal(log_session(w->f.log, w->p[i].id, &st), 0);
        assert_true(st.sequence >= acked[i]);
        w->p[i].acked = st.sequence;
        w->p[i].epoch = st.epoch;
    }
    memset(w->used, 0, sizeof w->used);
    check_content(w);
}

static void random_deliveries(void **state)
{
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    struct draws d = campaign_begin("deliveries");
    for (unsigned round = 0; round < campaign_rounds(4); round++) {
        memset(w, 0, sizeof *w);
        w->d = d;
        struct log_options o = {.manual = true};
        o.geo.index_entries = 16u << 2 * round % 4;
        o.geo.descriptors = 2u << round % 3;
        fixture_open_as(&w->f, 0, &o);
        for (unsigned i = 0; i < 2; i++)
            w->topic_id[i] = fixture_topic(&w->f, i ? "u" : "t");
        topics_get(w);
        for (unsigned i = 0; i < SESSIONS; i++)
            w->p[i] = (struct publisher){
                .id = fixture_session(&w->f, w->topic_id[i % 2], 7), .epoch = 1, .topic = i % 2};
        for (unsigned i = 0; i < 6000; i++) {
            unsigned what = pick(&w->d, 1000);
            if (what < 700)
                deliver(w);
            else if (what < 960)
                log_commit(w->f.log);
            else if (what < 964)
                log_tick(w->f.log, now_monotonic() + (HOLD_MS + 1) * 1000000);
            else if (what < 985)
                crash_in_commit(w);
            else if (what < 990)
                interrupt(w, what % 2);
            reap(w);
        }
        log_commit(w->f.log);
        reap(w);
        check_content(w);
        uint64_t all = 0;
        for (unsigned i = 0; i < SESSIONS; i++)
            all += w->p[i].acked;
        print_message("%llu batches, %u duplicates, %u fences, %u crashes\n",
                      (unsigned long long)all, w->duplicates, w->fences, w->crashes);
        assert_true(all > 200 && w->duplicates > 20);
        for (unsigned i = 0; i < 2; i++)
            topic_put(w->topic[i]);
        fixture_close(&w->f);
        d = w->d;
    }
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_until_the_gap_is_filled),
        cmocka_unit_test(duplicates_of_held_batches),
        cmocka_unit_test(a_lasting_gap_fences),
        cmocka_unit_test(the_hold_counts_from_its_first_batch),
        cmocka_unit_test(closed_and_unknown_sessions),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(removed_topics_take_their_sessions_along),
        cmocka_unit_test(many_held),
        cmocka_unit_test(random_deliveries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
