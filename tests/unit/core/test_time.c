/* Index time never goes back: over batches announced at once, a clock that steps back, and openings;
 * and a search by time finds the first batch that is not before it, exactly. What stands at a name was
 * altered last when its name, attributes, base or bytes were, over openings too. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/log_state.h"

#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define TOPICS    2u
#define BATCHES   20000u
#define FLIGHTS   9u
#define PRODUCERS 3u

/* ---- The clock of the log ----------------------------------------------------------------- */

static uint64_t fake_ns = 1000000;

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    if (id != CLOCK_REALTIME)
        return __real_clock_gettime(id, ts);
    ts->tv_sec = (time_t)(fake_ns / 1000000000u);
    ts->tv_nsec = (long)(fake_ns % 1000000000u);
    return 0;
}

static void clock_moves(struct draws *d)
{
    if (!one_in(d, 4))
        fake_ns += pick(d, 50);
    if (one_in(d, 40))
        fake_ns -= pick(d, 1000); /* set back */
    if (one_in(d, 60))
        fake_ns += pick(d, 2000);
}

/* ---- What should be found ----------------------------------------------------------------- */

struct known {
    uint64_t offset, end, time; /* time: of its record */
};

struct told {
    struct topic *t;
    uint32_t id;
    struct known batch[BATCHES];
    unsigned count;
};

static struct told told[TOPICS];
static uint64_t committed_time;            /* the largest of all */
static uint64_t announced_time[PRODUCERS]; /* since it was opened */
static unsigned late;

static void note(struct told *w, const struct sent *s)
{
    assert_true(s->done && s->commit.status == 0);
    assert_true(w->count < BATCHES);
    unsigned i = w->count++;
    struct known k = {s->commit.offset, s->commit.offset + s->batch.length, s->batch.time};
    for (; i > 0 && w->batch[i - 1].offset > k.offset; i--)
        w->batch[i] = w->batch[i - 1];
    w->batch[i] = k;
}

/* Index time of batch i: from the first that stands in a run on. */
static uint64_t index_time(const struct told *w, unsigned i)
{
    uint64_t time = 0, from = topic_run(w->t, 0)->offset;
    for (unsigned k = 0; k <= i; k++)
        if (w->batch[k].offset >= from && w->batch[k].time > time)
            time = w->batch[k].time;
    return time;
}

static void check_topic(const struct told *w, struct draws *d)
{
    uint64_t base = topic_base(w->t), end = topic_end(w->t), from = 0, last = 0;
    unsigned first = 0;
    if (base == end)
        return;
    from = topic_run(w->t, 0)->offset;
    while (w->batch[first].offset < from)
        first++;
    /* All moments that make a difference, and their neighbours. */
    uint64_t time = 0;
    for (unsigned i = first; i < w->count; i++) {
        uint64_t offset, want = w->batch[i].offset > base ? w->batch[i].offset : base;
        bool grows = w->batch[i].time > time;
        late += w->batch[i].time < time;
        uint64_t before = time;
        time = grows ? w->batch[i].time : time;
        if (!grows || w->batch[i].end <= base)
            continue;
        /* Moments after what came before it, up to its own. */
        uint64_t ns = before + 1 + draw(d) % (time - before);
        assert_int_equal(topic_seek_time(w->t, ns, &offset), 0);
        if (index_time(w, i) == time && (i == first || w->batch[i - 1].end > base || before == 0))
            assert_int_equal(offset, want);
        assert_int_equal(topic_seek_time(w->t, time, &offset), 0);
        assert_int_equal(offset, want);
    }
    uint64_t offset;
    assert_int_equal(topic_seek_time(w->t, time + 1, &offset), 0);
    assert_int_equal(offset, end);
    assert_int_equal(topic_seek_time(w->t, 0, &offset), 0);
    assert_int_equal(offset, base);
    /* In order, and from anywhere. */
    struct batch_cursor c = {.offset = base};
    struct batch_view v;
    for (unsigned i = first; i < w->count; i++) {
        if (w->batch[i].end <= base)
            continue;
        assert_int_equal(topic_next(w->t, &c, &v), 1);
        read_release(&v.data);
        assert_int_equal(v.offset, w->batch[i].offset);
        assert_true(v.time >= last);
        last = v.time;
        if (one_in(d, 20)) {
            assert_int_equal(v.time, index_time(w, i));
            struct batch_cursor alone = {.offset = v.offset};
            if (v.offset >= base) {
                assert_int_equal(topic_next(w->t, &alone, &v), 1);
                read_release(&v.data);
                assert_int_equal(v.time, last);
            }
        }
    }
}

/* ---- Doing -------------------------------------------------------------------------------- */

/* Some batches: reserved in one order, announced in another while the clock moves, committed at once. */
static void publish_some(struct fixture *f, struct draws *d)
{
    static struct sent sent[FLIGHTS];
    unsigned n = 1 + pick(d, FLIGHTS), topic[FLIGHTS];
    memset(sent, 0, sizeof sent);
    struct sent *s = sent;
    for (unsigned i = 0; i < n; i++) {
        topic[i] = pick(d, TOPICS);
        uint32_t length = one_in(d, 30) ? 3000 + pick(d, 3000) : 8 + pick(d, 40);
        s[i].batch =
            (struct batch){.topic = told[topic[i]].t, .length = length, .count = 1, .equal = true};
        assert_int_equal(log_reserve(f->log, &s[i].batch), 0);
        s[i].completion.done = fixture_told;
        s[i].batch.completion = &s[i].completion;
    }
    for (unsigned left = n; left > 0; left--) {
        unsigned i = pick(d, n);
        while (s[i].batch.status == 1)
            i = (i + 1) % n;
        clock_moves(d);
        assert_int_equal(log_announce(log_producer(f->log, i % PRODUCERS), &s[i].batch), 0);
        /* However the clock was set; who announced before at another worker may be of the same moment. */
        assert_true(s[i].batch.time > committed_time);
        assert_true(s[i].batch.time > announced_time[i % PRODUCERS]);
        announced_time[i % PRODUCERS] = s[i].batch.time;
        s[i].batch.status = 1;
        if (one_in(d, 20))
            break;
    }
    for (unsigned i = 0; i < n; i++) {
        if (s[i].batch.status != 1) {
            log_abandon(f->log, &s[i].batch);
            continue;
        }
        s[i].batch.status = 0;
    }
    log_commit(f->log);
    for (unsigned i = 0; i < n; i++) {
        if (!s[i].done)
            continue;
        note(&told[topic[i]], &s[i]);
        if (s[i].batch.time > committed_time)
            committed_time = s[i].batch.time;
    }
}

static void reopen(struct fixture *f, struct draws *d)
{
    for (unsigned i = 0; i < TOPICS; i++)
        topic_put(told[i].t);
    if (one_in(d, 2))
        assert_int_equal(log_checkpoint(f->log), 0);
    if (one_in(d, 3))
        fixture_reopen(f);
    else
        fixture_kill(f);
    memset(announced_time, 0, sizeof announced_time);
    if (one_in(d, 3))
        fake_ns -= 3000; /* another machine's clock */
    for (unsigned i = 0; i < TOPICS; i++)
        told[i].t = log_topic(f->log, told[i].id);
}

static void time_never_goes_back(void **state)
{
    (void)state;
    struct draws d = campaign_begin("time");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 256, .geo.producers = PRODUCERS};
    fixture_open_as(&f, 16ull << 20, &o);
    memset(told, 0, sizeof told);
    for (unsigned i = 0; i < TOPICS; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "t%u", i);
        told[i].id = fixture_topic(&f, name);
        told[i].t = log_topic(f.log, told[i].id);
    }
    unsigned rounds = campaign_rounds(1200);
    for (unsigned i = 0; i < rounds; i++) {
        publish_some(&f, &d);
        struct told *w = &told[pick(&d, TOPICS)];
        if (one_in(&d, 200) && w->count > 0) {
            const struct known *k = &w->batch[w->count - 1 - pick(&d, w->count / 4 + 1)];
            (void)fixture_try(
                &f, (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = k->offset}, NULL);
        }
        if (one_in(&d, 40))
            reopen(&f, &d);
        if (i % 25 == 0)
            check_topic(w, &d);
    }
    for (unsigned i = 0; i < TOPICS; i++)
        check_topic(&told[i], &d);
    print_message("%u late batches looked at\n", late);
    assert_true(late > 100);
    for (unsigned i = 0; i < TOPICS; i++)
        topic_put(told[i].t);
    fixture_close(&f);
}

/* ---- When it was altered ------------------------------------------------------------------ */

#define TOUCHED 12345u

static struct node_stat stat_of(struct fixture *f, uint32_t id)
{
    struct node_stat st;
    assert_int_equal(log_stat(f->log, id, &st), 0);
    return st;
}

/* At a moment of its own. */
static uint32_t at_next(struct fixture *f, struct control c)
{
    fake_ns += 1000000000;
    return (uint32_t)fixture_control(f, c);
}

static struct control named(enum media_control_kind kind, uint32_t id, uint32_t parent,
                            const char *name)
{
    struct control c = {.kind = kind, .id = id, .parent = parent, .mode = 0755, .order = 5};
    snprintf(c.name, sizeof c.name, "%s", name);
    return c;
}

static void altered_is_the_last_change(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    fake_ns += 3600000000000u;
    fixture_open_as(&f, 0, &o);
    uint32_t dir = at_next(&f, named(MEDIA_C_MKDIR, 0, LOG_ROOT_ID, "d"));
    uint32_t id = at_next(&f, named(MEDIA_C_CREATE, 0, LOG_ROOT_ID, "t"));
    assert_int_equal(stat_of(&f, id).altered, fake_ns);
    assert_int_equal(stat_of(&f, LOG_ROOT_ID).altered, fake_ns);
    struct topic *t = log_topic(f.log, id);

    fake_ns += 1000000000;
    assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "one\ntwo\n", 8, NULL, 2).status, 0);
    assert_int_equal(stat_of(&f, id).altered, fake_ns);
    assert_int_equal(stat_of(&f, id).modified, fake_ns);
    uint64_t modified = fake_ns;
    static const unsigned flags[] = {MEDIA_A_MODE, MEDIA_A_OWNER, MEDIA_A_GROUP, MEDIA_A_ORDER,
                                     MEDIA_A_ACK,  MEDIA_A_BYTES, MEDIA_A_AGE,   MEDIA_A_FULL};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        struct control c = {
            .kind = MEDIA_C_ATTR, .id = id, .flags = (uint16_t)flags[i], .order = 5, .mode = 0600};
        (void)at_next(&f, c);
        assert_int_equal(stat_of(&f, id).altered, fake_ns);
        assert_int_equal(stat_of(&f, id).modified, modified);
    }
    (void)at_next(&f, (struct control){
                          .kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_TIMES, .time = TOUCHED});
    assert_int_equal(stat_of(&f, id).altered, fake_ns);
    assert_int_equal(stat_of(&f, id).modified, TOUCHED);
    (void)at_next(&f, named(MEDIA_C_RENAME, id, dir, "u"));
    assert_int_equal(stat_of(&f, id).altered, fake_ns);
    assert_int_equal(stat_of(&f, dir).altered, fake_ns);
    assert_int_equal(stat_of(&f, LOG_ROOT_ID).altered, fake_ns);
    uint64_t moved = fake_ns;
    (void)at_next(&f, (struct control){.kind = MEDIA_C_TRIM, .id = id, .value = 4});
    assert_int_equal(stat_of(&f, id).altered, fake_ns);
    /* What is refused, or changes nothing, alters nothing. */
    uint64_t trimmed = fake_ns;
    (void)at_next(&f, (struct control){.kind = MEDIA_C_TRIM, .id = id, .value = 4});
    topic_put(t);

    for (int round = 0; round < 3; round++) {
        fake_ns += 1000000000;
        round == 1 ? fixture_reopen(&f) : fixture_kill(&f);
        assert_int_equal(stat_of(&f, id).altered, trimmed);
        assert_int_equal(stat_of(&f, id).modified, TOUCHED);
        assert_int_equal(stat_of(&f, dir).altered, moved);
    }
    t = log_topic(f.log, id);
    fake_ns += 1000000000;
    assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "three\n", 6, NULL, 1).status, 0);
    assert_int_equal(stat_of(&f, id).altered, fake_ns);
    /* Removed and still open: its link count changed. */
    (void)at_next(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    struct node_stat st;
    assert_int_equal(log_stat(f.log, id, &st), -EMBAR_EGONE);
    assert_int_equal(st.altered, fake_ns);
    topic_put(t);
    fixture_close(&f);
}

/* What comes after an opening is no older than that, should the clock step back then: so a repair tells it from
 * what was announced before, which the opening made void. */
static void nothing_is_older_than_the_opening(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true};
    struct sent s = {0};
    fixture_open_as(&f, 4u << 20, &o);
    struct topic *t = log_topic(f.log, fixture_topic(&f, "t"));
    uint64_t began = le64_get(pool_claim(&f.log->pool, 0)->time);
    assert_int_equal(began, fake_ns);
    fake_ns -= 1000;
    assert_int_equal(fixture_send(&f, 0, &s, t, 0, 0, 0, "x", 1, NULL, 1), 0);
    log_commit(f.log);
    assert_true(atomic_load(&s.done));
    assert_true(s.batch.time >= began);
    topic_put(t);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_never_goes_back),
                                       cmocka_unit_test(altered_is_the_last_change),
                                       cmocka_unit_test(nothing_is_older_than_the_opening)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
