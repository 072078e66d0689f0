/* Rounds of trims: what retention takes of many topics at once is hardened at once, one sync of a file
 * for all of them; before it nothing is trimmed and no space is free, and a full pool gives up the
 * oldest data and no more than it must. Others are acked between the parts of a long one. Linked with
 * --wrap=region_sync and --wrap=clock_gettime. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log_state.h"
#include "tests/churn/oracle.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define SECOND 1000000000ull
#define MOST   3500u

struct world {
    struct fixture f;
    struct topic *t[MOST];
    uint64_t end[MOST], base[MOST];
    unsigned topics;
};

/* ---- Syncs -------------------------------------------------------------------------------- */

static struct {
    struct world *w; /* whose bases must not move before the sync; NULL: nobody looks */
    unsigned count;
    uint64_t free;
} watched;

int __real_region_sync(struct region *r);
int __wrap_region_sync(struct region *r);
static void busy_go_on(void);
static void trim_late(void);

static uint64_t free_bytes(struct world *w)
{
    struct extents_stat st;
    extents_stat(w->f.log->extents, &st);
    return st.free;
}

int __wrap_region_sync(struct region *r)
{
    watched.count++;
    for (unsigned i = 0; watched.w && i < watched.w->topics; i++)
        assert_int_equal(topic_base(watched.w->t[i]), watched.w->base[i]);
    /* An extent for the records of what is to be hardened, and no space yet of what they free. */
    if (watched.w)
        assert_true(free_bytes(watched.w) <= watched.free);
    watched.w = NULL;
    busy_go_on();
    int rc = __real_region_sync(r);
    trim_late();
    return rc;
}

static void watch(struct world *w)
{
    watched.w = w;
    watched.count = 0;
    watched.free = free_bytes(w);
}

/* ---- Dates -------------------------------------------------------------------------------- */

static atomic_uint_fast64_t later_s; /* so much ahead is CLOCK_REALTIME */

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    int rc = __real_clock_gettime(id, ts);
    if (id == CLOCK_REALTIME)
        ts->tv_sec += (time_t)atomic_load(&later_s);
    return rc;
}

/* ---- A world ------------------------------------------------------------------------------ */

static char bytes[1 << 20];

static int publish(struct world *w, struct topic *t, uint32_t length)
{
    oracle_fill(t->id, topic_end(t), bytes, length);
    return fixture_publish(&w->f, t, 0, 0, 0, bytes, length, NULL, 1).status;
}

static void topic_make(struct world *w, uint64_t keep, uint64_t age, uint8_t policy)
{
    const struct control c = {.order = 5, .value = keep, .value2 = age, .policy = policy};
    char name[16];
    snprintf(name, sizeof name, "t%u", w->topics);
    w->t[w->topics++] = log_topic(w->f.log, fixture_topic_as(&w->f, name, c));
}

static void world_open(struct world *w, uint64_t size)
{
    const struct log_options o = {.manual = true};
    memset(w, 0, sizeof *w);
    fixture_open_file(&w->f, size, &o, true);
}

/* What is kept is as it was. */
static void world_check(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++) {
        size_t size;
        char *got = fixture_read(w->t[i], &size);
        assert_int_equal(topic_end(w->t[i]), w->end[i]);
        assert_int_equal(size, w->end[i] - topic_base(w->t[i]));
        assert_true(oracle_equal(w->t[i]->id, topic_base(w->t[i]), got, size));
        free(got);
    }
}

static void world_note(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++) {
        w->base[i] = topic_base(w->t[i]);
        w->end[i] = topic_end(w->t[i]);
    }
}

static void world_put(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++)
        topic_put(w->t[i]);
}

static void world_close(struct world *w)
{
    world_put(w);
    fixture_close(&w->f);
}

/* ---- Age and bytes ------------------------------------------------------------------------ */

/* A third each with an age, a bound of bytes, and both; a tenth of them keep everything. */
static void world_due(struct world *w, unsigned topics)
{
    for (unsigned i = 0; i < topics; i++)
        topic_make(w, i % 10 == 9 || i % 3 == 0 ? 0 : 1000,
                   i % 10 == 9 || i % 3 == 1 ? 0 : 100 * SECOND, 0);
    for (unsigned i = 0; i < topics; i++)
        for (unsigned k = 0; k < 3; k++)
            assert_int_equal(publish(w, w->t[i], i % 3 == 1 ? 30000 : 300), 0);
    assert_int_equal(log_checkpoint(w->f.log), 0);
    world_note(w);
}

static uint64_t base_due(const struct world *w, unsigned i)
{
    if (i % 10 == 9)
        return 0;
    return i % 3 == 1 ? w->end[i] - 30000 : w->end[i];
}

static void a_round_is_one_sync(void **state)
{
    (void)state;
    static struct world w;
    unsigned topics = campaign_rounds(600) < 1000 ? campaign_rounds(600) : 1000;
    world_open(&w, 128 << 20);
    world_due(&w, topics);
    watch(&w);
    log_tick(w.f.log, now_monotonic() + 200 * SECOND);
    assert_int_equal(watched.count, 1);
    for (unsigned i = 0; i < topics; i++)
        assert_int_equal(topic_base(w.t[i]), base_due(&w, i));
    assert_true(free_bytes(&w) > watched.free);
    world_check(&w);
    /* Nothing is left to do. */
    watched.count = 0;
    log_tick(w.f.log, now_monotonic() + 200 * SECOND);
    assert_int_equal(watched.count, 0);
    world_close(&w);
}

/* More come due at once than the index ring has room for: the thread that trims them writes the
 * checkpoint that makes room, and others go on publishing. */
static void more_than_the_ring_holds(void **state)
{
    (void)state;
    enum { MANY = 200 };
    static struct world w;
    const struct log_options o = {.geo.index_entries = 64};
    unsigned gone = 0;
    memset(&w, 0, sizeof w);
    fixture_open_file(&w.f, 64 << 20, &o, false);
    for (unsigned i = 0; i < MANY; i++)
        topic_make(&w, 0, SECOND / 2, 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(publish(&w, w.t[i], 300), 0);
    for (unsigned tries = 0; gone < MANY && tries < 30000; tries++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        for (gone = 0; gone < MANY && topic_base(w.t[gone]) == topic_end(w.t[gone]);)
            gone++;
    }
    assert_int_equal(gone, MANY);
    assert_int_equal(publish(&w, w.t[0], 300), 0);
    world_close(&w);
}

/* By hand each is answered when it is durable. */
static void by_hand_each_is_synced(void **state)
{
    (void)state;
    static struct world w;
    world_open(&w, 16 << 20);
    world_due(&w, 10);
    for (unsigned i = 0; i < 10; i++) {
        watched.count = 0;
        uint64_t before = w.f.log->synced;
        fixture_control(
            &w.f, (struct control){.kind = MEDIA_C_TRIM, .id = w.t[i]->id, .value = w.end[i]});
        assert_int_equal(watched.count, 1);
        assert_true(w.f.log->synced > before);
    }
    world_check(&w);
    world_close(&w);
}

/* A process killed anywhere in a round: each topic begins where it began, or where it was to. */
static void killed_anywhere_a_trim_is_whole(void **state)
{
    (void)state;
    static struct world w;
    static uint32_t id[30];
    unsigned done = 0, left = 0;
    bool crashed = true;
    for (uint64_t n = 1; crashed; n += 1 + n / campaign_rounds(8)) {
        world_open(&w, 16 << 20);
        world_due(&w, 30);
        for (unsigned i = 0; i < 30; i++)
            id[i] = w.t[i]->id;
        fixture_arm(&w.f, n);
        log_tick(w.f.log, now_monotonic() + 200 * SECOND);
        world_put(&w);
        crashed = fixture_crash(&w.f);
        if (!crashed)
            fixture_kill(&w.f);
        for (unsigned i = 0; i < 30; i++) {
            w.t[i] = log_topic(w.f.log, id[i]);
            uint64_t base = topic_base(w.t[i]), due = base_due(&w, i);
            assert_true(base == w.base[i] || base == due);
            done += due > 0 && base == due;
            left += due > 0 && base < due;
        }
        world_check(&w);
        world_close(&w);
    }
    assert_true(done > 0 && left > 0);
}

/* ---- Others meanwhile --------------------------------------------------------------------- */

/* A publisher that has one batch on its way at any time: whoever syncs announces it for him. */
static struct {
    pthread_mutex_t lock; /* guards all of it */
    struct world *w;      /* NULL: he is not there */
    struct topic *t;
    struct sent sent;
    bool is_sent;
    unsigned syncs, failed;
    unsigned between; /* acks that came when some of the others' trims were done, and not all */
} busy = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void busy_go_on(void)
{
    pthread_mutex_lock(&busy.lock);
    if (busy.w) {
        uint64_t trims = atomic_load(&busy.w->f.log->trims);
        bool acked = busy.is_sent && atomic_load(&busy.sent.done);
        busy.syncs++;
        busy.failed += acked && busy.sent.commit.status != 0;
        busy.between += acked && trims > 0 && trims < busy.w->topics;
        if (acked || !busy.is_sent)
            busy.is_sent =
                fixture_send(&busy.w->f, 1, &busy.sent, busy.t, 0, 0, 0, "b", 1, NULL, 1) == 0;
    }
    pthread_mutex_unlock(&busy.lock);
}

static void busy_begin(struct world *w, uint32_t topic)
{
    busy.t = log_topic(w->f.log, topic);
    pthread_mutex_lock(&busy.lock);
    busy.w = w;
    pthread_mutex_unlock(&busy.lock);
}

static void busy_end(void)
{
    pthread_mutex_lock(&busy.lock);
    busy.w = NULL;
    pthread_mutex_unlock(&busy.lock);
    while (busy.is_sent && !atomic_load(&busy.sent.done))
        sched_yield();
    topic_put(busy.t);
}

/* So many come due at once that trimming them takes long: it is done in parts, a sync for each, and
 * between any two of them others are acked. */
static void others_are_acked_between_parts(void **state)
{
    (void)state;
    enum { MANY = 3000, PARTS = 3 };
    static struct world w;
    const struct log_options o = {.geo.index_entries = 32768};
    unsigned gone = 0;
    memset(&w, 0, sizeof w);
    fixture_open_file(&w.f, 64 << 20, &o, true);
    for (unsigned i = 0; i < MANY; i++)
        topic_make(&w, 0, 100 * SECOND, 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(publish(&w, w.t[i], 300), 0);
    world_note(&w);
    busy_begin(&w, fixture_topic(&w.f, "busy"));
    atomic_store(&later_s, 200);
    for (unsigned tries = 0; gone < MANY && tries < 30000; tries++) {
        background_wake(w.f.log);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        for (gone = 0; gone < MANY && topic_base(w.t[gone]) == w.end[gone];)
            gone++;
    }
    busy_end();
    assert_int_equal(gone, MANY);
    assert_int_equal(busy.failed, 0);
    assert_true(busy.between >= PARTS - 1);
    /* Of each part and of each ack; the first ack is before, the last one behind. */
    assert_true(busy.syncs >= PARTS && busy.syncs <= 2 * PARTS + 2);
    world_check(&w);
    world_close(&w);
    atomic_store(&later_s, 0);
}

/* ---- A checkpoint ------------------------------------------------------------------------- */

static struct {
    struct world *w;
    unsigned syncs; /* until the world's first topic is trimmed */
} late;

static void trim_late(void)
{
    if (late.syncs == 0 || --late.syncs > 0)
        return;
    struct topic *t = late.w->t[0];
    fixture_control(&late.w->f,
                    (struct control){.kind = MEDIA_C_TRIM, .id = t->id, .value = topic_end(t)});
}

/* What comes free while a checkpoint's root is synced was freed by an action that this sync may have
 * missed: it waits for another. */
static void freed_beside_a_checkpoint_waits(void **state)
{
    (void)state;
    static struct world w;
    const struct log_options o = {.manual = true};
    memset(&w, 0, sizeof w);
    fixture_open_file(&w.f, 16 << 20, &o, false);
    topic_make(&w, 0, 0, 0);
    assert_int_equal(publish(&w, w.t[0], 200000), 0);
    assert_int_equal(log_checkpoint(w.f.log), 0);
    uint64_t taken = free_bytes(&w);
    late.w = &w;
    late.syncs = 2; /* of the checkpoint's pieces, of its root */
    assert_int_equal(checkpoint_write_aside(w.f.log), 0);
    assert_int_equal(late.syncs, 0);
    assert_int_equal(topic_base(w.t[0]), topic_end(w.t[0]));
    assert_true(extents_waiting(w.f.log->extents));
    assert_true(free_bytes(&w) < taken + 100000);
    assert_int_equal(background_sync(w.f.log), 0);
    assert_false(extents_waiting(w.f.log->extents));
    assert_true(free_bytes(&w) > taken + 100000);
    world_close(&w);
}

/* ---- A full pool -------------------------------------------------------------------------- */

static void a_full_pool_gives_up_the_oldest_with_few_syncs(void **state)
{
    (void)state;
    static struct world w;
    world_open(&w, 16 << 20);
    uint32_t want = (uint32_t)log_pool(w.f.log)->max_batch;
    while (w.topics < MOST) {
        topic_make(&w, 0, 0, 1);
        if (publish(&w, w.t[w.topics - 1], 7000) != 0)
            break;
    }
    assert_true(w.topics < MOST && w.topics > 1000);
    world_note(&w);
    struct topic *large = w.t[w.topics - 1];
    assert_int_equal(publish(&w, large, want), -EMBAR_EFULL);
    struct log_stat before, after;
    log_stat_all(w.f.log, &before);
    watch(&w);
    log_tick(w.f.log, now_monotonic());
    log_stat_all(w.f.log, &after);
    uint64_t trims = after.trims - before.trims;
    assert_true(trims > 20 && watched.count <= 5);
    /* Of each an extent of one block came free: no more of them than were missing. */
    assert_true(after.free < want + (64 << 10) + (w.f.size / 64));
    bool kept = false;
    for (unsigned i = 0; i + 1 < w.topics; i++) {
        bool gone = topic_base(w.t[i]) == topic_end(w.t[i]) && w.end[i] > w.base[i];
        assert_true(!gone || !kept);
        kept = kept || topic_base(w.t[i]) < topic_end(w.t[i]);
    }
    world_check(&w);
    assert_int_equal(publish(&w, large, want), 0);
    world_close(&w);
}

/* All are being read, so that nothing comes free however much is given up: each round is of one topic, the
 * data of each being older than that of the next, and a sync. Others are acked between them, and it
 * ends when half was in vain. */
static void others_are_acked_between_rounds_in_vain(void **state)
{
    (void)state;
    static struct world w;
    static struct read_view v[MOST];
    static uint32_t id[MOST];
    world_open(&w, 16 << 20);
    uint32_t want = (uint32_t)log_pool(w.f.log)->max_batch;
    uint32_t other = fixture_topic(&w.f, "busy");
    struct topic *own = log_topic(w.f.log, other);
    assert_int_equal(publish(&w, own, 1), 0); /* it has room for what is acked meanwhile */
    topic_put(own);
    int full = 0;
    while (full == 0) {
        topic_make(&w, 0, 0, 1);
        for (unsigned i = 0; i < 16 && full == 0; i++)
            full = publish(&w, w.t[w.topics - 1], 7000);
    }
    /* For what is acked meanwhile. */
    fixture_control(&w.f, (struct control){.kind = MEDIA_C_REMOVE, .id = w.t[w.topics - 1]->id});
    topic_put(w.t[--w.topics]);
    world_note(&w);
    for (unsigned i = 0; i < w.topics; i++)
        id[i] = w.t[i]->id;
    world_put(&w);
    w.f.options.manual = false;
    fixture_reopen(&w.f);
    for (unsigned i = 0; i < w.topics; i++) {
        w.t[i] = log_topic(w.f.log, id[i]);
        assert_int_equal(topic_read(w.t[i], w.base[i], 1 << 20, &v[i]), 0);
    }
    busy_begin(&w, other);
    uint64_t least = 20, trims = 0;
    for (unsigned tries = 0; trims < least && tries < 60000; tries++) {
        if (tries % 100 == 0) /* who waits tries again */
            assert_int_equal(publish(&w, w.t[w.topics - 1], want), -EMBAR_EFULL);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        trims = atomic_load(&w.f.log->trims);
    }
    busy_end();
    assert_int_equal(busy.failed, 0);
    assert_true(trims >= least && busy.between >= least / 2);
    for (unsigned i = 0; i < w.topics; i++)
        read_release(&v[i]);
    int rc = -EMBAR_EFULL;
    for (unsigned tries = 0; rc == -EMBAR_EFULL && tries < 60000; tries++) {
        rc = publish(&w, w.t[w.topics - 1], want);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(rc, 0);
    w.end[w.topics - 1] += want;
    world_check(&w);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_is_one_sync),
        cmocka_unit_test(more_than_the_ring_holds),
        cmocka_unit_test(by_hand_each_is_synced),
        cmocka_unit_test(killed_anywhere_a_trim_is_whole),
        cmocka_unit_test(others_are_acked_between_parts),
        cmocka_unit_test(freed_beside_a_checkpoint_waits),
        cmocka_unit_test(a_full_pool_gives_up_the_oldest_with_few_syncs),
        cmocka_unit_test(others_are_acked_between_rounds_in_vain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
