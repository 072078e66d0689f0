/* A pool that many topics share does not go to pieces: slow topics take little each and gather in one
 * place, what a topic keeps holds up no more than a quarter of that, and the largest batch finds its
 * place again once what stands in its way is trimmed, or is moved for as long as somebody waits. */
#include <stdio.h>
#include <string.h>

#include "core/extent_state.h"
#include "core/log_state.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define MANY 2000u

static char bytes[8 << 20];

static struct topic *topic_make(struct fixture *f, unsigned i, uint8_t policy)
{
    char name[16];
    snprintf(name, sizeof name, "t%u", i);
    return log_topic(f->log,
                     fixture_topic_as(f, name, (struct control){.order = 5, .policy = policy}));
}

static int publish(struct fixture *f, struct topic *t, uint32_t length)
{
    return fixture_publish(f, t, 0, 0, 0, bytes, length, NULL, 1).status;
}

static void trim(struct fixture *f, const struct topic *t, uint64_t to)
{
    fixture_control(f, (struct control){.kind = MEDIA_C_TRIM, .id = t->id, .value = to});
}

static uint64_t settled(struct fixture *f)
{
    for (int i = 0; i < 3; i++)
        assert_int_equal(log_checkpoint(f->log), 0);
    return fixture_used(f);
}

static void pool_open(struct fixture *f)
{
    struct log_options o = {.manual = true};
    fixture_open_as(f, 64 << 20, &o);
}

/* ---- Sets --------------------------------------------------------------------------------- */

static void sets_know_first_and_last_and_next(void **state)
{
    (void)state;
    struct draws d = campaign_begin("sets");
    static bool there[70000];
    const uint32_t sizes[] = {1, 63, 64, 65, 4096, 4097, 70000};
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct bits b;
        uint32_t n = sizes[s];
        memset(there, 0, sizeof there);
        assert_int_equal(bits_create(&b, n), 0);
        assert_true(bits_first(&b) == BITS_NONE && bits_last(&b) == BITS_NONE);
        for (unsigned i = 0; i < campaign_rounds(3000); i++) {
            uint32_t k = one_in(&d, 4) ? n - 1 - pick(&d, n < 70 ? n : 70) : pick(&d, n);
            if (there[k])
                bits_remove(&b, k);
            else
                bits_add(&b, k);
            there[k] = !there[k];
            if (one_in(&d, 3))
                continue;
            uint32_t first = 0, last = n;
            while (first < n && !there[first])
                first++;
            while (last > 0 && !there[last - 1])
                last--;
            assert_int_equal(bits_first(&b), first < n ? first : BITS_NONE);
            assert_int_equal(bits_last(&b), last > 0 ? last - 1 : BITS_NONE);
            uint32_t from = pick(&d, n + 1), next = from, before = from;
            while (next < n && !there[next])
                next++;
            while (before > 0 && !there[before - 1])
                before--;
            assert_int_equal(bits_next(&b, from), next < n ? next : BITS_NONE);
            assert_int_equal(bits_before(&b, from), before > 0 ? before - 1 : BITS_NONE);
        }
        bits_destroy(&b);
    }
}

/* ---- Many slow topics --------------------------------------------------------------------- */

static void slow_topics_take_little_and_stay_together(void **state)
{
    (void)state;
    struct draws d = campaign_begin("slow");
    static struct topic *t[MANY];
    struct fixture f;
    pool_open(&f);
    uint64_t empty = settled(&f);
    uint32_t most = (uint32_t)log_pool(f.log)->max_batch;
    for (unsigned i = 0; i < MANY; i++)
        t[i] = topic_make(&f, i, 0);
    (void)settled(&f);
    uint64_t made = fixture_used(&f);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(publish(&f, t[i], 1 + pick(&d, 3000)), 0);
    /* The first extents of so many are an eighth of the pool. */
    assert_true(fixture_used(&f) - made <= f.size / 8);
    /* Between large batches that come and go, for long: they grow, are trimmed, and never mix. */
    struct topic *large = topic_make(&f, MANY, 0);
    for (unsigned i = 0; i < campaign_rounds(300); i++) {
        for (unsigned k = 0; k < 50; k++) {
            struct topic *s = t[pick(&d, MANY)];
            assert_int_equal(publish(&f, s, 1 + pick(&d, 3000)), 0);
            if (topic_end(s) - topic_base(s) > 6000)
                trim(&f, s, topic_end(s) - 100);
        }
        assert_int_equal(publish(&f, large, most - 1000 + pick(&d, 1000)), 0);
        if (one_in(&d, 3))
            trim(&f, large, topic_end(large));
    }
    /* All that they leave is still there for large batches, in whole pieces. */
    trim(&f, large, topic_end(large));
    unsigned n = 0;
    while (publish(&f, large, most) == 0)
        n++;
    struct log_stat st;
    log_stat_all(f.log, &st);
    assert_true(st.free < 2ull * most);
    assert_true((uint64_t)n * most >= f.size / 3);
    topic_put(large);
    fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = large->id});
    for (unsigned i = 0; i < MANY; i++) {
        fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = t[i]->id});
        topic_put(t[i]);
    }
    assert_int_equal(settled(&f), empty);
    fixture_close(&f);
}

/* ---- Tails -------------------------------------------------------------------------------- */

/* Topics that wrote much and keep one small batch, each in a large extent. */
static void tails_hold_up_a_part_only(void **state)
{
    (void)state;
    struct draws d = campaign_begin("tails");
    struct topic *t[8];
    struct fixture f;
    pool_open(&f);
    for (unsigned i = 0; i < 8; i++) {
        t[i] = topic_make(&f, i, 0);
        uint64_t most = 0;
        for (unsigned k = 0; k < 600; k++)
            assert_int_equal(publish(&f, t[i], 1 + pick(&d, 20000)), 0);
        most = topic_end(t[i]);
        uint64_t before = fixture_used(&f);
        assert_int_equal(publish(&f, t[i], 10), 0);
        trim(&f, t[i], topic_end(t[i]) - 10);
        /* It wrote so much, and holds up an extent or two of a quarter of it. */
        assert_true(fixture_used(&f) < before - most / 3);
    }
    for (unsigned i = 0; i < 8; i++)
        trim(&f, t[i], topic_end(t[i]));
    unsigned n = 0;
    uint32_t most = (uint32_t)log_pool(f.log)->max_batch;
    while (publish(&f, t[0], most) == 0)
        n++;
    assert_true((uint64_t)n * most >= f.size / 10 * 8);
    for (unsigned i = 0; i < 8; i++)
        topic_put(t[i]);
    fixture_close(&f);
}

/* ---- In the way --------------------------------------------------------------------------- */

/* Small batches all over the pool, and a batch of the largest size: what may be trimmed makes way for
 * it, what may not stays. */
static void largest_batch_finds_its_place(void **state)
{
    (void)state;
    struct draws d = campaign_begin("largest");
    static struct topic *t[600];
    struct fixture f;
    pool_open(&f);
    uint32_t most = (uint32_t)log_pool(f.log)->max_batch;
    for (unsigned i = 0; i < 600; i++)
        t[i] = topic_make(&f, i, i >= 20);
    for (unsigned i = 0; i < 20; i++) /* these may not be trimmed */
        assert_int_equal(publish(&f, t[i], 1000), 0);
    int rc;
    do {
        struct topic *some = t[20 + pick(&d, 580)];
        rc = publish(&f, some, 1 + pick(&d, one_in(&d, 4) ? 100000 : 3000));
    } while (rc == 0);
    assert_int_equal(rc, -EMBAR_EFULL);
    struct topic *large = topic_make(&f, 600, 0);
    uint64_t base[20];
    for (unsigned i = 0; i < 20; i++)
        base[i] = topic_base(t[i]);
    assert_int_equal(publish(&f, large, most), -EMBAR_EFULL);
    log_tick(f.log, now_monotonic());
    assert_int_equal(publish(&f, large, most), 0);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(topic_base(t[i]), base[i]);
    /* By hand, where nothing may go by itself: everything that stands in the way is enough. */
    while (publish(&f, large, most) == 0)
        ;
    for (unsigned i = 20; i < 600; i++)
        trim(&f, t[i], topic_end(t[i]));
    assert_int_equal(publish(&f, large, most), 0);
    for (unsigned i = 0; i < 600; i++)
        topic_put(t[i]);
    topic_put(large);
    fixture_close(&f);
}

/* What is said to be free can be had. */
static void free_space_can_be_reserved(void **state)
{
    (void)state;
    struct draws d = campaign_begin("free");
    struct fixture f;
    pool_open(&f);
    struct topic *t = topic_make(&f, 0, 0);
    struct log_stat st;
    while (publish(&f, t, 1 + pick(&d, 2000)) == 0)
        ;
    log_stat_all(f.log, &st);
    assert_true(st.free < 2 * 4096);
    trim(&f, t, topic_end(t) / 2);
    log_stat_all(f.log, &st);
    uint64_t told = st.free, had = 0;
    while (publish(&f, t, 60000) == 0)
        had += 60000;
    assert_true(had > told / 10 * 9 && had <= told + 4096);
    topic_put(t);
    fixture_close(&f);
}

/* ---- Who waits ---------------------------------------------------------------------------- */

/* Every second extent is free, and no largest batch finds its place. */
static void scatter(struct fixture *f, struct topic **t, unsigned *n, uint32_t most)
{
    for (*n = 0; *n < MANY; ++*n) {
        t[*n] = topic_make(f, *n, 0);
        if (publish(f, t[*n], 9000) != 0)
            break;
    }
    assert_true(*n > 100 && *n < MANY);
    for (unsigned i = 0; i < *n; i += 2) {
        fixture_control(f, (struct control){.kind = MEDIA_C_REMOVE, .id = t[i]->id});
        topic_put(t[i]);
        t[i] = NULL;
    }
    while (publish(f, t[1], most) == 0)
        ;
}

/* Somebody reads everything, or no longer. */
static void read_all(struct fixture *f, bool begin)
{
    static struct extent *read[65536];
    static unsigned n;
    struct extents *x = f->log->extents;
    for (uint32_t b = 0; begin && b < x->blocks; b++)
        if (x->table[b])
            extent_ref(read[n++] = x->table[b]);
    while (!begin && n > 0)
        extent_put(x, read[--n]);
}

static unsigned asked;

static void ask(struct watcher *self)
{
    (void)self;
    asked++;
}

/* What nobody waits for any more is not looked for: who does is asked after an attempt in vain, and says
 * so by another try. */
static void only_who_waits_is_moved_for(void **state)
{
    (void)state;
    static struct topic *t[MANY];
    struct fixture f;
    struct watcher watcher = {.fire = ask};
    struct log_options o = {.manual = true};
    unsigned n;
    fixture_open_as(&f, 16 << 20, &o);
    uint32_t most = (uint32_t)log_pool(f.log)->max_batch;
    const struct move *m = &f.log->move[false];
    scatter(&f, t, &n, most);
    read_all(&f, true);
    log_space_watch(f.log, &watcher);
    for (unsigned tries = 1; tries < 4; tries++) {
        assert_int_equal(publish(&f, t[1], most), -EMBAR_EFULL);
        log_tick(f.log, now_monotonic());
        assert_true(m->failed && m->busy);
        assert_int_equal(f.log->survey.number, tries);
        unsigned before = asked;
        for (unsigned i = 0; i < 3; i++) {
            f.log->move[false].retry = 0; /* the pause is over */
            log_tick(f.log, now_monotonic());
            assert_int_equal(f.log->survey.number, tries);
            assert_int_equal(asked, before + 1);
        }
        assert_true(retain_wait(f.log, now_realtime()) == UINT64_MAX);
    }
    read_all(&f, false);
    assert_int_equal(publish(&f, t[1], most), -EMBAR_EFULL);
    log_tick(f.log, now_monotonic());
    assert_int_equal(publish(&f, t[1], most), 0);
    log_space_unwatch(f.log, &watcher);
    for (unsigned i = 0; i <= n; i++)
        if (t[i])
            topic_put(t[i]);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_know_first_and_last_and_next),
        cmocka_unit_test(slow_topics_take_little_and_stay_together),
        cmocka_unit_test(tails_hold_up_a_part_only),
        cmocka_unit_test(largest_batch_finds_its_place),
        cmocka_unit_test(free_space_can_be_reserved),
        cmocka_unit_test(only_who_waits_is_moved_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
