/* Orders 0 and 2 beside 5: batches of a session are committed as they come, each once; what is ahead
 * of the mark outlives checkpoints, kills and changes of the order; and the bounds of what a session
 * may hold, what a principal may open and what a ring may take. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define HOLD_MS 2000ull

static uint32_t topic_of(struct fixture *f, const char *name, uint8_t order)
{
    return fixture_topic_as(f, name, (struct control){.order = order, .ack = 1});
}

static void order_set(struct fixture *f, uint32_t topic, uint8_t order)
{
    fixture_control(f,
                    (struct control){
                        .kind = MEDIA_C_ATTR, .id = topic, .flags = MEDIA_A_ORDER, .order = order});
}

static void expect_mark(struct fixture *f, uint64_t id, uint64_t sequence, uint64_t messages)
{
    struct session_stat st;
    assert_int_equal(log_session(f->log, id, &st), 0);
    assert_int_equal(st.sequence, sequence);
    assert_int_equal(st.messages, messages);
}

static struct commit put(struct fixture *f, struct topic *t, uint64_t id, uint32_t epoch,
                         uint64_t sequence, const char *text)
{
    return fixture_publish(f, t, id, epoch, sequence, text, (uint32_t)strlen(text), NULL, 1);
}

static void committed_as_they_come(void **state)
{
    for (uint8_t order = 0; order <= 2; order += 2) {
        struct fixture f;
        struct log_options o = {.manual = true};
        fixture_open_as(&f, 0, &o);
        uint32_t id = topic_of(&f, "t", order);
        struct topic *t = log_topic(f.log, id);
        uint64_t s = fixture_session(&f, id, 7);
        struct commit c = put(&f, t, s, 1, 3, "3");
        assert_int_equal(c.status, 0);
        assert_false(c.duplicate);
        assert_int_equal(c.sequence, 0); /* the mark: 1 is not here */
        assert_int_equal(put(&f, t, s, 1, 5, "5").status, 0);
        c = put(&f, t, s, 1, 3, "3");
        assert_true(c.status == 0 && c.duplicate);
        c = put(&f, t, s, 1, 1, "1");
        assert_int_equal(c.sequence, 1);
        c = put(&f, t, s, 1, 2, "2");
        assert_int_equal(c.sequence, 3);
        assert_int_equal(c.messages, 3);
        fixture_expect(t, "3512");
        for (unsigned how = 0; how < 3; how++) {
            topic_put(t);
            if (how == 1)
                fixture_reopen(&f);
            else
                fixture_kill(&f);
            if (how == 2)
                assert_int_equal(log_checkpoint(f.log), 0);
            t = log_topic(f.log, id);
            expect_mark(&f, s, 3, 3);
            c = put(&f, t, s, 1, 5, "5");
            assert_true(c.status == 0 && c.duplicate);
        }
        assert_int_equal(put(&f, t, s, 1, 4, "4").sequence, 5);
        expect_mark(&f, s, 5, 5);
        fixture_expect(t, "35124");
        topic_put(t);
        fixture_close(&f);
    }
    (void)state;
}

/* Twice in one epoch: the second is told when the first is committed. */
static void duplicates_in_one_epoch(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 2);
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7);
    struct sent b[4];
    const uint64_t sequence[] = {2, 2, 1, 2};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(fixture_send(&f, i % log_producers(f.log), &b[i], t, s, 1, sequence[i],
                                      i == 2 ? "a" : "b", 1, NULL, 1),
                         0);
    log_commit(f.log);
    unsigned duplicates = 0;
    for (unsigned i = 0; i < 4; i++) {
        assert_true(b[i].done && b[i].commit.status == 0);
        assert_int_equal(b[i].commit.sequence, 2);
        duplicates += b[i].commit.duplicate;
    }
    assert_int_equal(duplicates, 2);
    assert_int_equal(topic_end(t), 2);
    topic_put(t);
    fixture_close(&f);
}

static void the_window_ends(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 2);
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7);
    assert_int_equal(put(&f, t, s, 1, MEDIA_WINDOW + 1, "x").status, -EMBAR_ELIMIT);
    for (uint64_t i = MEDIA_WINDOW; i > 1; i--)
        assert_int_equal(put(&f, t, s, 1, i, ".").sequence, 0);
    topic_put(t);
    fixture_reopen(&f);
    t = log_topic(f.log, id);
    for (uint64_t i = MEDIA_WINDOW; i > 1; i--)
        assert_true(put(&f, t, s, 1, i, ".").duplicate);
    assert_int_equal(put(&f, t, s, 1, 1, ".").sequence, MEDIA_WINDOW);
    /* Round and round: places of the window are used again. */
    for (uint64_t i = MEDIA_WINDOW; i < 5ull * MEDIA_WINDOW; i += 2) {
        assert_int_equal(put(&f, t, s, 1, i + 2, ".").sequence, i);
        assert_int_equal(put(&f, t, s, 1, i + 1, ".").sequence, i + 2);
    }
    expect_mark(&f, s, 5ull * MEDIA_WINDOW, 5ull * MEDIA_WINDOW);
    assert_int_equal(topic_end(t), 5ull * MEDIA_WINDOW);
    topic_put(t);
    fixture_close(&f);
}

/* Gaps below a fence stay empty; its numbers go on above all that was committed, its count of
 * messages from the last batch before the gap. */
static void a_fence_jumps(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 0);
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7);
    struct commit c;
    assert_int_equal(put(&f, t, s, 1, 1, "1").status, 0);
    assert_int_equal(put(&f, t, s, 1, 4, "4").status, 0);
    assert_int_equal(fixture_try(&f, (struct control){.kind = MEDIA_C_FENCE, .value = s}, &c), 0);
    assert_int_equal(c.sequence, 4);
    assert_int_equal(c.messages, 1);
    for (unsigned round = 0; round < 2; round++) {
        expect_mark(&f, s, 4, 1);
        assert_int_equal(put(&f, t, s, 1, 2, "2").status, -EMBAR_EFENCED);
        assert_true(put(&f, t, s, 2, 2, "2").duplicate); /* below the mark: as committed */
        topic_put(t);
        fixture_kill(&f);
        t = log_topic(f.log, id);
    }
    assert_int_equal(put(&f, t, s, 2, 5, "5").messages, 2);
    fixture_expect(t, "145");
    topic_put(t);
    fixture_close(&f);
}

/* To a weaker order: what was held is committed. To 5: what is ahead counts when its turn comes. */
static void the_order_changes(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 5);
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7);
    struct sent b[2];
    assert_int_equal(fixture_send(&f, 0, &b[0], t, s, 1, 4, "4", 1, NULL, 1), 0);
    assert_int_equal(fixture_send(&f, 0, &b[1], t, s, 1, 2, "2", 1, NULL, 1), 0);
    log_commit(f.log);
    assert_false(b[0].done || b[1].done);
    order_set(&f, id, 2);
    log_commit(f.log);
    assert_true(b[0].done && b[1].done && b[0].commit.status == 0 && b[1].commit.status == 0);
    fixture_expect(t, "24");
    order_set(&f, id, 5);
    topic_put(t);
    fixture_kill(&f);
    t = log_topic(f.log, id);
    expect_mark(&f, s, 0, 0);
    assert_int_equal(fixture_send(&f, 0, &b[0], t, s, 1, 3, "3", 1, NULL, 1), 0);
    log_commit(f.log);
    assert_false(b[0].done);
    assert_int_equal(put(&f, t, s, 1, 1, "1").sequence, 4);
    assert_true(b[0].done);
    fixture_expect(t, "2413");
    expect_mark(&f, s, 4, 4);
    topic_put(t);
    fixture_close(&f);
}

/* ---- Bounds ------------------------------------------------------------------------------- */

/* A session that holds more than its share is fenced at once, and the others reserve as before. */
/* A gap that was filled is over, however much it held: the next one is judged by what that holds. */
static void a_filled_gap_is_forgiven(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 5);
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7), other = fixture_session(&f, id, 7);
    uint32_t size = (uint32_t)(reserve_bound(f.log) / 4) / 8;
    char *bytes = calloc(1, size);
    struct sent b[10], small, c[9];
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(
            fixture_send(&f, 0, &b[i], t, s, 1, i < 9 ? i + 2 : 1, bytes, size, NULL, 1), 0);
    log_commit(f.log);
    for (unsigned i = 0; i < 10; i++)
        assert_true(b[i].done && b[i].commit.status == 0);
    assert_int_equal(fixture_send(&f, 0, &small, t, s, 1, 12, "s", 1, NULL, 1), 0);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(fixture_send(&f, 0, &c[i], t, other, 1, i + 2, bytes, size, NULL, 1), 0);
    log_commit(f.log);
    assert_true(c[0].done);
    assert_int_equal(c[0].commit.status, -EMBAR_EFENCED);
    assert_false(small.done);
    assert_int_equal(put(&f, t, s, 1, 11, "f").status, 0);
    assert_true(small.done);
    assert_int_equal(small.commit.status, 0);
    free(bytes);
    topic_put(t);
    fixture_close(&f);
}

static void a_hold_is_bounded_in_space(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 5);
    struct topic *t = log_topic(f.log, id);
    uint64_t s = fixture_session(&f, id, 7), other = fixture_session(&f, id, 7);
    uint64_t share = reserve_bound(f.log) / 4;
    uint32_t size = (uint32_t)share / 8;
    char *bytes = calloc(1, size);
    struct sent b[9];
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(fixture_send(&f, 0, &b[i], t, s, 1, i + 2, bytes, size, NULL, 1), 0);
        log_commit(f.log);
        assert_int_equal(b[0].done, i == 8);
    }
    for (unsigned i = 0; i < 9; i++) {
        assert_true(b[i].done);
        assert_int_equal(b[i].commit.status, -EMBAR_EFENCED);
        assert_int_equal(b[i].commit.epoch, 2);
    }
    struct log_stat st;
    log_stat_all(f.log, &st);
    assert_int_equal(st.reserved, 0);
    assert_int_equal(st.fenced, 1);
    assert_int_equal(put(&f, t, other, 1, 1, "o").status, 0);
    assert_int_equal(put(&f, t, s, 2, 1, "1").status, 0);
    /* Many sessions together: the one that goes over the bound of all, nobody else. */
    struct sent many[20];
    unsigned fenced = 0;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t one = fixture_session(&f, id, 7);
        assert_int_equal(fixture_send(&f, 0, &many[i], t, one, 1, 2, bytes, size, NULL, 1), 0);
        log_commit(f.log);
        for (unsigned k = 0; k < i; k++)
            fenced += many[k].done;
    }
    assert_int_equal(fenced, 0); /* one batch a session is always held: 20 of 16 */
    free(bytes);
    topic_put(t);
    fixture_close(&f);
}

static void a_principal_has_its_share(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .sessions = 400};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 5);
    uint64_t first = fixture_session(&f, id, 1);
    for (unsigned i = 1; i < 100; i++)
        (void)fixture_session(&f, id, 1);
    struct control more = {.kind = MEDIA_C_OPEN, .id = id, .uid = 1};
    assert_int_equal(fixture_try(&f, more, NULL), -EMBAR_ELIMIT);
    (void)fixture_session(&f, id, 2);
    fixture_kill(&f);
    assert_int_equal(fixture_try(&f, more, NULL), -EMBAR_ELIMIT);
    (void)fixture_session(&f, id, 2);
    fixture_control(&f, (struct control){.kind = MEDIA_C_CLOSE, .value = first});
    (void)fixture_session(&f, id, 1);
    assert_int_equal(fixture_try(&f, more, NULL), -EMBAR_ELIMIT);
    fixture_close(&f);
}

/* Out of room: the longest idle goes, once it has outlived its lifetime; who published lately stays. */
static void the_longest_idle_makes_room(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .sessions = 3, .session_lifetime_s = 1};
    fixture_open_as(&f, 0, &o);
    uint32_t id = topic_of(&f, "t", 5);
    struct topic *t = log_topic(f.log, id);
    uint64_t s[3];
    for (unsigned i = 0; i < 3; i++)
        s[i] = fixture_session(&f, id, 7);
    struct control more = {.kind = MEDIA_C_OPEN, .id = id, .uid = 7};
    assert_int_equal(fixture_try(&f, more, NULL), -EMBAR_ELIMIT);
    assert_int_equal(put(&f, t, s[0], 1, 1, "1").status, 0);
    topic_put(t);
    fixture_reopen(&f); /* the order of age outlives it */
    t = log_topic(f.log, id);
    uint64_t from = now_monotonic();
    while (now_monotonic() < from + 1100000000u)
        ;
    assert_int_equal(put(&f, t, s[0], 1, 2, "2").status, 0);
    uint64_t fresh = fixture_session(&f, id, 7);
    struct session_stat st;
    assert_int_equal(log_session(f.log, s[1], &st), -EMBAR_ESESSION);
    assert_int_equal(log_session(f.log, s[0], &st), 0);
    assert_int_equal(log_session(f.log, s[2], &st), 0);
    assert_int_equal(log_session(f.log, fresh, &st), 0);
    topic_put(t);
    fixture_close(&f);
}

static atomic_uint fired;

static void space_fired(struct watcher *self)
{
    (void)self;
    atomic_fetch_add(&fired, 1);
}

/* A full ring says so instead of waiting, and who was told is woken when it has room. Epochs are the
 * background thread's there, and there is none. */
static void a_full_ring_says_so(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .geo.descriptors = 2};
    fixture_open_file(&f, 0, &o, true);
    struct watcher w = {.fire = space_fired};
    log_space_watch(f.log, &w);
    struct topic *t = log_topic(f.log, topic_of(&f, "t", 5));
    struct sent b[4];
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(fixture_send(&f, i / 3, &b[i], t, 0, 0, 0, "x", 1, NULL, 1),
                         i == 2 ? -EAGAIN : 0);
    /* The reservation stands; to give it back would fire the watcher, too. */
    assert_int_equal(log_reserve(f.log, &b[2].batch), 0);
    *(char *)log_span(f.log, &b[2].batch, 0, &(uint32_t){0}) = 'x';
    log_writeback(f.log, &b[2].batch, 0, 1);
    assert_int_equal(log_announce(log_producer(f.log, 0), &b[2].batch), -EAGAIN);
    atomic_store(&fired, 0);
    assert_false(b[0].done);
    assert_int_equal(atomic_load(&fired), 0);
    seq_take_wait(f.log);
    while (seq_epoch(f.log) > 0)
        ;
    seq_give(f.log);
    assert_true(b[0].done && b[1].done && b[3].done);
    assert_int_equal(atomic_load(&fired), 1);
    assert_int_equal(log_announce(log_producer(f.log, 0), &b[2].batch), 0);
    log_space_unwatch(f.log, &w);
    topic_put(t);
    fixture_close(&f);
    assert_true(b[2].done);
}

/* ---- Random deliveries -------------------------------------------------------------------- */

#define SESSIONS 5u
#define FLIGHT   30u
#define NUMBERS  4000u

struct publisher {
    uint64_t id;
    uint32_t epoch;
    uint64_t floor, floor_messages; /* the mark as of the last fence */
    bool acked[NUMBERS], here[NUMBERS];
};

struct world {
    struct fixture f;
    struct draws d;
    uint32_t topic_id;
    struct topic *topic;
    bool fifo; /* it was never anything but 5 */
    struct publisher p[SESSIONS];
    struct sent sent[FLIGHT];
    unsigned owner[FLIGHT];
    bool used[FLIGHT];
    unsigned batches, duplicates, crashes, fences, ahead;
};

static uint32_t lines_of(uint64_t sequence)
{
    return 1 + (uint32_t)(sequence % 3);
}

static uint32_t text_of(unsigned who, uint64_t sequence, char *text, uint32_t *lengths)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < lines_of(sequence); i++) {
        lengths[i] =
            (uint32_t)sprintf(text + n, "%u %llu %u\n", who, (unsigned long long)sequence, i);
        n += lengths[i];
    }
    return n;
}

static void deliver(struct world *w)
{
    char text[200];
    uint32_t lengths[4];
    unsigned i = pick(&w->d, FLIGHT), who = pick(&w->d, SESSIONS);
    struct publisher *p = &w->p[who];
    struct session_stat st;
    if (w->used[i])
        return;
    assert_int_equal(log_session(w->f.log, p->id, &st), 0);
    uint64_t sequence = st.sequence + 1 + pick(&w->d, 1 + pick(&w->d, 12));
    if (one_in(&w->d, 6) && st.sequence > 0)
        sequence = 1 + draw(&w->d) % st.sequence;
    if (sequence >= NUMBERS)
        return;
    uint32_t length = text_of(who, sequence, text, lengths);
    assert_int_equal(fixture_send(&w->f, pick(&w->d, log_producers(w->f.log)), &w->sent[i],
                                  w->topic, p->id, p->epoch, sequence, text, length, lengths,
                                  lines_of(sequence)),
                     0);
    w->used[i] = true;
    w->owner[i] = who;
}

static void reap(struct world *w)
{
    for (unsigned i = 0; i < FLIGHT; i++) {
        if (!w->used[i] || !atomic_load(&w->sent[i].done))
            continue;
        w->used[i] = false;
        const struct commit *c = &w->sent[i].commit;
        struct publisher *p = &w->p[w->owner[i]];
        uint64_t sequence = w->sent[i].batch.sequence;
        if (c->status == -EMBAR_EFENCED) /* from before a fence, or told by it */
            continue;
        assert_int_equal(c->status, 0);
        w->batches += !c->duplicate;
        w->duplicates += c->duplicate;
        w->ahead += sequence > c->sequence;
        if (sequence > p->floor)
            p->acked[sequence] = true;
    }
}

/* The content: every batch once and whole, all that were acked, and what the marks say. */
static void check_content(struct world *w)
{
    size_t n, at = 0;
    char *all = fixture_read(w->topic, &n);
    uint64_t last[SESSIONS] = {0};
    for (unsigned i = 0; i < SESSIONS; i++)
        memset(w->p[i].here, 0, sizeof w->p[i].here);
    while (at < n) {
        unsigned who;
        unsigned long long sequence;
        assert_int_equal(sscanf(all + at, "%u %llu 0\n", &who, &sequence), 2);
        assert_true(who < SESSIONS && sequence < NUMBERS);
        struct publisher *p = &w->p[who];
        char text[200];
        uint32_t lengths[4], length = text_of(who, sequence, text, lengths);
        assert_true(at + length <= n);
        assert_memory_equal(all + at, text, length);
        at += length;
        assert_false(p->here[sequence]);
        p->here[sequence] = true;
        assert_true(!w->fifo || sequence > last[who]);
        last[who] = sequence;
    }
    free(all);
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct publisher *p = &w->p[i];
        uint64_t mark = p->floor, messages = p->floor_messages;
        for (unsigned k = 1; k < NUMBERS; k++)
            assert_true(!p->acked[k] || p->here[k]);
        while (p->here[mark + 1])
            messages += lines_of(++mark);
        expect_mark(&w->f, p->id, mark, messages);
    }
}

/* Somebody was fenced: by the hand of the test, or by a gap that lasted. */
static void fences_seen(struct world *w)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session_stat st;
        assert_int_equal(log_session(w->f.log, w->p[i].id, &st), 0);
        if (st.epoch == w->p[i].epoch)
            continue;
        w->p[i].epoch = st.epoch;
        w->p[i].floor = st.sequence;
        w->p[i].floor_messages = st.messages;
        w->fences++;
    }
}

static void quiet(struct world *w)
{
    log_commit(w->f.log);
    reap(w);
}

static void fence(struct world *w)
{
    struct publisher *p = &w->p[pick(&w->d, SESSIONS)];
    quiet(w);
    check_content(w);
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_FENCE, .value = p->id});
    fences_seen(w);
    reap(w);
    check_content(w);
}

static void expire(struct world *w)
{
    quiet(w);
    log_tick(w->f.log, now_monotonic() + (HOLD_MS + 1) * 1000000);
    fences_seen(w);
    reap(w);
    check_content(w);
}

static void die(struct world *w)
{
    reap(w);
    bool in_commit = one_in(&w->d, 2);
    if (in_commit) {
        fixture_arm(&w->f, 1 + pick(&w->d, 12));
        for (unsigned i = pick(&w->d, 8); i > 0; i--)
            deliver(w);
        log_commit(w->f.log);
        if (!w->f.crashed) {
            w->f.countdown = 0;
            reap(w);
            return;
        }
    }
    topic_put(w->topic);
    if (in_commit)
        assert_true(fixture_crash(&w->f));
    else if (one_in(&w->d, 2))
        fixture_kill(&w->f);
    else
        fixture_reopen(&w->f);
    w->crashes++;
    memset(w->used, 0, sizeof w->used);
    w->topic = log_topic(w->f.log, w->topic_id);
    fences_seen(w);
    check_content(w);
}

static void random_deliveries(void **state)
{
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    struct draws d = campaign_begin("orders");
    for (unsigned round = 0; round < campaign_rounds(6); round++) {
        memset(w, 0, sizeof *w);
        w->d = d;
        struct log_options o = {.manual = true};
        o.geo.index_entries = 64u << 2 * round % 4;
        o.geo.descriptors = 2u << round % 3;
        fixture_open_as(&w->f, 0, &o);
        const uint8_t orders[] = {2, 0, 5};
        w->topic_id = topic_of(&w->f, "t", orders[round % 3]);
        w->topic = log_topic(w->f.log, w->topic_id);
        w->fifo = orders[round % 3] == 5;
        for (unsigned i = 0; i < SESSIONS; i++)
            w->p[i] = (struct publisher){.id = fixture_session(&w->f, w->topic_id, i), .epoch = 1};
        for (unsigned i = 0; i < 4000; i++) {
            unsigned what = pick(&w->d, 1000);
            if (what < 700)
                deliver(w);
            else if (what < 960)
                quiet(w);
            else if (what < 963)
                fence(w);
            else if (what < 966)
                expire(w);
            else if (what < 985)
                die(w);
            else if (what < 990 && round >= 3) {
                quiet(w);
                order_set(&w->f, w->topic_id, orders[pick(&w->d, 3)]);
                w->fifo = false;
            }
            reap(w);
        }
        quiet(w);
        check_content(w);
        print_message("%u batches, %u ahead, %u duplicates, %u fences, %u crashes\n", w->batches,
                      w->ahead, w->duplicates, w->fences, w->crashes);
        assert_true(w->batches > 200 && w->duplicates > 20);
        assert_true(w->fifo ? w->ahead == 0 : w->ahead > 20);
        topic_put(w->topic);
        fixture_close(&w->f);
        d = w->d;
    }
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(committed_as_they_come),
        cmocka_unit_test(duplicates_in_one_epoch),
        cmocka_unit_test(the_window_ends),
        cmocka_unit_test(a_fence_jumps),
        cmocka_unit_test(the_order_changes),
        cmocka_unit_test(a_hold_is_bounded_in_space),
        cmocka_unit_test(a_filled_gap_is_forgiven),
        cmocka_unit_test(a_principal_has_its_share),
        cmocka_unit_test(the_longest_idle_makes_room),
        cmocka_unit_test(a_full_ring_says_so),
        cmocka_unit_test(random_deliveries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
