/* Enough is free, but in pieces that are too small: what stands in the way of a large batch is moved.
 * Nothing may be lost by it, seen at a wrong place, or freed too early, wherever a crash comes. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/churn/oracle.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define TOPICS 4000u

struct world {
    struct fixture f;
    struct topic *t[TOPICS];
    unsigned topics;
    uint32_t most;
};

static char bytes[4 << 20];

static void world_open(struct world *w, uint64_t size, const struct log_options *o, int file)
{
    memset(w, 0, sizeof *w);
    if (file)
        fixture_open_file(&w->f, size, o, file == 2);
    else
        fixture_open_as(&w->f, size, o);
    w->most = (uint32_t)log_pool(w->f.log)->max_batch;
}

static struct topic *topic_make(struct world *w)
{
    char name[16];
    snprintf(name, sizeof name, "t%u", w->topics);
    assert_true(w->topics < TOPICS);
    return w->t[w->topics++] = log_topic(w->f.log, fixture_topic(&w->f, name));
}

static void topic_drop(struct world *w, unsigned i)
{
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = w->t[i]->id});
    topic_put(w->t[i]);
    w->t[i] = NULL;
}

static int publish(struct world *w, struct topic *t, uint32_t length, uint32_t count)
{
    oracle_fill(t->id, topic_end(t), bytes, length);
    return fixture_publish(&w->f, t, 0, 0, 0, bytes, length, NULL, count).status;
}

/* Every byte of a topic, and every batch by its boundaries and checksum. */
static void topic_check(struct topic *t)
{
    size_t size;
    char *got = fixture_read(t, &size);
    assert_int_equal(size, topic_end(t) - topic_base(t));
    assert_true(oracle_equal(t->id, topic_base(t), got, size));
    free(got);
    struct batch_cursor c = {.offset = topic_base(t)};
    struct batch_view v;
    uint64_t time = 0;
    int rc;
    while ((rc = topic_next(t, &c, &v)) == 1) {
        uint32_t crc = 0;
        uint64_t at = v.offset, found;
        for (int i = 0; i < v.data.pieces; i++) {
            crc = crc32c(crc, v.data.iov[i].iov_base, v.data.iov[i].iov_len);
            assert_true(oracle_equal(t->id, at, v.data.iov[i].iov_base, v.data.iov[i].iov_len));
            at += v.data.iov[i].iov_len;
        }
        assert_int_equal(crc, v.payload_crc);
        assert_true(at == v.offset + v.length && v.time >= time);
        if (v.message >= t->first_message) {
            assert_int_equal(topic_seek_message(t, v.message, &found), 0);
            assert_int_equal(found, v.offset < topic_base(t) ? topic_base(t) : v.offset);
        }
        if (v.time > time) {
            assert_int_equal(topic_seek_time(t, v.time, &found), 0);
            assert_int_equal(found, v.offset < topic_base(t) ? topic_base(t) : v.offset);
        }
        time = v.time;
        read_release(&v.data);
    }
    assert_int_equal(rc, 0);
}

static void world_check(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++)
        if (w->t[i])
            topic_check(w->t[i]);
}

static void world_put(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++)
        if (w->t[i])
            topic_put(w->t[i]);
}

/* The topics that were there are found again, as they were. */
static void world_found(struct world *w, const uint32_t *id, const uint64_t *end)
{
    for (unsigned i = 0; i < w->topics; i++) {
        if (id[i] == 0)
            continue;
        w->t[i] = log_topic(w->f.log, id[i]);
        assert_non_null(w->t[i]);
        assert_true(end == NULL || topic_end(w->t[i]) == end[i]);
    }
}

static void world_reopen(struct world *w, bool kill)
{
    static uint32_t id[TOPICS];
    static uint64_t end[TOPICS];
    for (unsigned i = 0; i < w->topics; i++) {
        id[i] = w->t[i] ? w->t[i]->id : 0;
        end[i] = w->t[i] ? topic_end(w->t[i]) : 0;
    }
    world_put(w);
    if (kill)
        fixture_kill(&w->f);
    else
        fixture_reopen(&w->f);
    world_found(w, id, end);
}

static void world_close(struct world *w)
{
    world_put(w);
    fixture_close(&w->f);
}

static struct log_stat stat_of(struct world *w)
{
    struct log_stat st;
    log_stat_all(w->f.log, &st);
    return st;
}

/* Small topics that may not be trimmed all over the pool. */
static void fill(struct world *w, struct draws *d, uint32_t small)
{
    while (w->topics < TOPICS && publish(w, topic_make(w), 1 + pick(d, small), 1) == 0)
        for (unsigned i = pick(d, 4);
             i > 0 && publish(w, w->t[w->topics - 1], 1 + pick(d, small), 1) == 0; i--)
            ;
}

/* Every second of them is removed. */
static void thin(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i += 2)
        topic_drop(w, i);
    if (w->f.needs_sync)
        log_tick(w->f.log, now_monotonic());     /* which frees them */
    while (publish(w, w->t[1], w->most, 1) == 0) /* what is in one piece already */
        ;
}

static void scatter(struct world *w, struct draws *d, uint32_t small)
{
    fill(w, d, small);
    thin(w);
}

/* It waits for space, and the background's turn makes some. */
static int publish_waiting(struct world *w, struct topic *t, uint32_t length, uint32_t count)
{
    int rc = publish(w, t, length, count);
    if (rc == -EMBAR_EFULL) {
        log_tick(w->f.log, now_monotonic());
        rc = publish(w, t, length, count);
    }
    return rc;
}

/* ---- Tests -------------------------------------------------------------------------------- */

static void scattered_space_becomes_one_piece(void **state)
{
    (void)state;
    struct draws d = campaign_begin("scattered");
    const struct log_options o = {.manual = true};
    static struct world w;
    for (int file = 0; file < 3; file++) {
        world_open(&w, 32 << 20, &o, file);
        scatter(&w, &d, 30000);
        struct log_stat st = stat_of(&w);
        assert_true(st.free > 4ull * w.most);
        uint64_t trims = st.trims, had = 0;
        unsigned n = 0;
        for (; publish_waiting(&w, w.t[3], w.most, 1) == 0; n++)
            had += w.most;
        /* All but a little of what was free, and no more was moved than was let in. */
        assert_true(n > 0 && had > st.free / 10 * 8);
        struct log_stat after = stat_of(&w);
        assert_true(after.moves > 0 && after.moved <= had && after.trims == trims);
        world_check(&w);
        world_reopen(&w, true);
        world_check(&w);
        for (unsigned i = 1; i < w.topics; i += 2)
            assert_true(publish_waiting(&w, w.t[i], 10, 1) == 0 || stat_of(&w).free < 8192);
        world_check(&w);
        world_reopen(&w, false);
        world_check(&w);
        world_close(&w);
    }
}

/* A batch whose record takes more than half of its place, so that it cannot stand in two pieces. */
static int publish_whole(struct world *w, struct topic *t)
{
    enum { COUNT = 1008 };
    static uint32_t length[COUNT];
    for (unsigned i = 0; i < COUNT; i++)
        length[i] = 1;
    oracle_fill(t->id, topic_end(t), bytes, COUNT);
    return fixture_publish(&w->f, t, 0, 0, 0, bytes, COUNT, length, COUNT).status;
}

/* Two wait, the larger one for two pieces, the other for one: neither is forgotten for the other. */
static void who_waits_for_one_piece_hides_nobody(void **state)
{
    (void)state;
    struct draws d = campaign_begin("hides");
    const struct log_options o = {.manual = true};
    static struct world w;
    world_open(&w, 32 << 20, &o, 0);
    fill(&w, &d, 30000);
    while (publish_whole(&w, w.t[5]) == 0)
        ;
    thin(&w);
    assert_int_equal(publish(&w, w.t[1], w.most, 1), -EMBAR_EFULL);
    log_tick(w.f.log, now_monotonic());
    assert_int_equal(publish(&w, w.t[1], w.most, 1), 0);
    assert_int_equal(publish_whole(&w, w.t[5]), 0);
    world_check(&w);
    world_close(&w);
}

/* That no place can be made for a batch that goes into one piece says nothing of one that goes into two. */
static void one_waits_for_itself_alone(void **state)
{
    (void)state;
    struct draws d = campaign_begin("itself");
    const struct log_options o = {.manual = true};
    static struct world w;
    world_open(&w, 32 << 20, &o, 0);
    scatter(&w, &d, 30000);
    assert_int_equal(publish(&w, w.t[1], w.most, 1), -EMBAR_EFULL);
    w.f.log->move[true] = (struct move){
        .failed = true, .freed = extents_freed(w.f.log->extents), .retry = UINT64_MAX};
    log_tick(w.f.log, now_monotonic());
    assert_int_equal(publish(&w, w.t[1], w.most, 1), 0);
    world_check(&w);
    world_close(&w);
}

/* A place that was waited for is there by now, and the last attempt to make one is over: no turn
 * comes for it any more, so that an idle log sleeps. */
static void what_is_there_is_waited_for_no_more(void **state)
{
    (void)state;
    const struct log_options o = {.manual = true};
    static struct world w;
    world_open(&w, 32 << 20, &o, 0);
    struct topic *t = topic_make(&w);
    while (publish(&w, t, 3000, 1) == 0)
        ;
    uint64_t some = topic_base(t) + (100u << 10);
    fixture_control(&w.f, (struct control){.kind = MEDIA_C_TRIM, .id = t->id, .value = some});
    w.f.log->move[false].failed = w.f.log->move[false].busy = true;
    w.f.log->move[false].retry = UINT64_MAX;
    retain_starve(w.f.log, 3064, false);
    log_tick(w.f.log, now_monotonic());
    assert_true(retain_wait(w.f.log, now_realtime()) == UINT64_MAX);
    assert_int_equal(publish(&w, t, 3000, 1), 0);
    world_check(&w);
    world_close(&w);
}

/* A process killed at any write-back, drain or copy of a move leaves all of it. */
static void killed_anywhere_nothing_is_lost(void **state)
{
    (void)state;
    const struct log_options o = {.manual = true};
    static struct world w;
    static uint32_t id[TOPICS];
    static uint64_t end[TOPICS];
    const struct draws begun = campaign_begin("killed");
    for (int file = 0; file < 3; file++) {
        bool crashed = true;
        for (uint64_t n = 1; crashed; n += 1 + n / campaign_rounds(4)) {
            struct draws d = begun;
            world_open(&w, 8 << 20, &o, file);
            scatter(&w, &d, 9000);
            for (unsigned i = 0; i < w.topics; i++) {
                id[i] = w.t[i] ? w.t[i]->id : 0;
                end[i] = w.t[i] ? topic_end(w.t[i]) : 0;
            }
            assert_int_equal(publish(&w, w.t[1], w.most, 1), -EMBAR_EFULL);
            uint64_t moves = stat_of(&w).moves;
            fixture_arm(&w.f, n);
            log_tick(w.f.log, now_monotonic());
            assert_true(stat_of(&w).moves > moves);
            /* What comes now stands where something was moved away from. */
            while (publish(&w, w.t[3], 3000, 1) == 0)
                ;
            end[3] = UINT64_MAX;
            world_put(&w);
            crashed = fixture_crash(&w.f);
            if (!crashed)
                fixture_kill(&w.f);
            world_found(&w, id, NULL);
            for (unsigned i = 0; i < w.topics; i++)
                assert_true(!w.t[i] || end[i] == UINT64_MAX || topic_end(w.t[i]) == end[i]);
            world_check(&w);
            world_close(&w);
        }
    }
}

/* Who reads while it is moved reads what was there; the piece comes free with the last reader. */
static void readers_keep_what_they_read(void **state)
{
    (void)state;
    struct draws d = campaign_begin("readers");
    const struct log_options o = {.manual = true};
    static struct world w;
    static struct read_view v[TOPICS];
    static struct batch_cursor c[TOPICS];
    world_open(&w, 16 << 20, &o, 0);
    scatter(&w, &d, 9000);
    for (unsigned i = 1; i < w.topics; i += 2) {
        struct batch_view first;
        c[i].offset = topic_base(w.t[i]);
        assert_int_equal(topic_next(w.t[i], &c[i], &first), 1);
        read_release(&first.data);
    }
    assert_int_equal(publish(&w, w.t[1], w.most, 1), -EMBAR_EFULL);
    /* Being read when it begins: another block, or later. */
    for (unsigned i = 1; i < w.topics; i += 2)
        assert_int_equal(topic_read(w.t[i], topic_base(w.t[i]), 1 << 20, &v[i]), 0);
    log_tick(w.f.log, now_monotonic());
    (void)publish(&w, w.t[1], w.most, 1); /* over whatever was given away */
    for (unsigned i = 1; i < w.topics; i += 2) {
        uint64_t at = topic_base(w.t[i]);
        for (int k = 0; k < v[i].pieces; at += v[i].iov[k++].iov_len)
            assert_true(oracle_equal(w.t[i]->id, at, v[i].iov[k].iov_base, v[i].iov[k].iov_len));
        read_release(&v[i]);
    }
    const struct timespec wait = {.tv_nsec = 60000000};
    nanosleep(&wait, NULL); /* the pause after an attempt */
    assert_int_equal(publish_waiting(&w, w.t[1], w.most, 1), 0);
    assert_true(stat_of(&w).moves > 0);
    /* Cursors from before go on. */
    for (unsigned i = 3; i < w.topics; i += 2) {
        struct batch_view next;
        uint64_t from = c[i].offset;
        int rc = topic_next(w.t[i], &c[i], &next);
        assert_int_equal(rc, from < topic_end(w.t[i]));
        if (rc == 1) {
            assert_int_equal(next.offset, from);
            assert_true(oracle_equal(w.t[i]->id, from, next.data.iov[0].iov_base,
                                     next.data.iov[0].iov_len));
            read_release(&next.data);
        }
    }
    world_check(&w);
    world_close(&w);
}

/* Pinned by who began between the look at it and the commit: a thread that reads all the time. */
struct reader {
    struct world *w;
    atomic_bool stop;
    uint64_t reads;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    for (unsigned i = 1; !atomic_load(&r->stop); i = i + 2 < r->w->topics ? i + 2 : 1) {
        struct read_view v;
        struct topic *t = r->w->t[i];
        uint64_t at = topic_base(t);
        assert_int_equal(topic_read(t, at, 1 << 20, &v), 0);
        sched_yield();
        for (int k = 0; k < v.pieces; at += v.iov[k++].iov_len)
            assert_true(oracle_equal(t->id, at, v.iov[k].iov_base, v.iov[k].iov_len));
        read_release(&v);
        r->reads++;
    }
    return NULL;
}

/* With a background thread, and as a publisher waits: it is told when there is space. */
struct waiting {
    struct watcher watcher;
    pthread_mutex_t lock; /* guards fired */
    pthread_cond_t cond;
    unsigned fired;
};

static void fired(struct watcher *self)
{
    struct waiting *p = (struct waiting *)self;
    pthread_mutex_lock(&p->lock);
    p->fired++;
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->lock);
}

static void publishers_go_on_by_themselves(void **state)
{
    (void)state;
    struct draws d = campaign_begin("by themselves");
    const struct log_options o = {.manual = true};
    static struct world w;
    for (int file = 0; file < 3; file++) {
        struct waiting p = {.watcher.fire = fired,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .cond = PTHREAD_COND_INITIALIZER};
        world_open(&w, 16 << 20, &o, file);
        scatter(&w, &d, 9000);
        w.f.options.manual = false;
        world_reopen(&w, false);
        struct reader r = {.w = &w};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0);
        log_space_watch(w.f.log, &p.watcher);
        for (unsigned i = 0; i < 2; i++) {
            unsigned seen = 0;
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += 60;
            while (publish(&w, w.t[1], w.most, 1) == -EMBAR_EFULL) {
                pthread_mutex_lock(&p.lock);
                while (p.fired == seen)
                    assert_int_equal(pthread_cond_timedwait(&p.cond, &p.lock, &until), 0);
                seen = p.fired;
                pthread_mutex_unlock(&p.lock);
            }
        }
        log_space_unwatch(w.f.log, &p.watcher);
        atomic_store(&r.stop, true);
        pthread_join(thread, NULL);
        assert_true(stat_of(&w).moves > 0);
        world_check(&w);
        world_close(&w);
    }
}

/* Moved again and again, with batches in two parts, trims into the middle, checkpoints, and deaths. */
static void churned_all_is_right(void **state)
{
    (void)state;
    struct draws d = campaign_begin("churned");
    static struct world w;
    uint64_t moves = 0;
    for (unsigned round = 0; round < campaign_rounds(6); round++) {
        const struct log_options o = {.manual = true, .geo.index_entries = round % 2 ? 256 : 0};
        world_open(&w, 8 << 20, &o, (int)(round % 3));
        for (unsigned i = 0; i < 60; i++)
            topic_make(&w);
        for (unsigned step = 0; step < 1500; step++) {
            unsigned i = pick(&d, w.topics);
            struct topic *t = w.t[i];
            uint32_t dice = pick(&d, 100);
            if (dice < 60) {
                uint32_t count = 1 + pick(&d, 5), each = 1 + pick(&d, one_in(&d, 8) ? 20000 : 600);
                (void)publish_waiting(&w, t, count * each, count);
            } else if (dice < 64) {
                (void)publish_waiting(&w, t, w.most - pick(&d, w.most / 4), 1);
            }
            if (dice >= 64 && dice < 75)
                fixture_control(&w.f,
                                (struct control){
                                    .kind = MEDIA_C_TRIM,
                                    .id = t->id,
                                    .value = topic_base(t) +
                                             pick(&d, 100) * (topic_end(t) - topic_base(t)) / 100});
            else if (dice >= 75 && dice < 78)
                (void)log_checkpoint(w.f.log);
            else if (dice == 99 || dice == 98) {
                moves += stat_of(&w).moves;
                world_reopen(&w, dice == 99);
            } else if (dice > 94) {
                topic_check(t);
            }
        }
        moves += stat_of(&w).moves;
        world_check(&w);
        world_reopen(&w, true);
        world_check(&w);
        world_close(&w);
    }
    assert_true(moves > 0);
}

/* A batch that fails its checksum stays where it is, and says so for ever. */
static void damage_is_not_laundered(void **state)
{
    (void)state;
    struct draws d = campaign_begin("damage");
    const struct log_options o = {.manual = true};
    static struct world w;
    world_open(&w, 16 << 20, &o, 0);
    scatter(&w, &d, 9000);
    static uint64_t place[TOPICS];
    for (unsigned i = 1; i < w.topics; i += 2) {
        const struct run *r = topic_run(w.t[i], 0);
        *(char *)pool_at(&w.f.log->pool, r->payload) ^= 0x55;
        place[i] = r->payload;
    }
    assert_int_equal(publish_waiting(&w, w.t[1], w.most, 1), -EMBAR_EFULL);
    for (unsigned i = 1; i < w.topics; i += 2) {
        struct batch_cursor c = {.offset = topic_base(w.t[i])};
        struct batch_view v;
        assert_int_equal(topic_run(w.t[i], 0)->payload, place[i]);
        assert_int_equal(topic_next(w.t[i], &c, &v), 1);
        assert_true(crc32c(0, v.data.iov[0].iov_base, v.data.iov[0].iov_len) != v.payload_crc);
        read_release(&v.data);
    }
    world_close(&w);
}

/* Batches in two parts, all first parts side by side, and the places between their second parts given
 * up: only second parts can be in the way of another such batch. Topics 0, 2, .. below what is
 * returned have them; the last one has nothing yet. */
static unsigned scatter_parts(struct world *w, uint32_t length)
{
    unsigned n = 0;
    while (publish(w, topic_make(w), length, 1) == 0) {
        struct topic *between = topic_make(w);
        for (unsigned k = 0; k < 3 && publish(w, between, 4000, 1) == 0; k++)
            ;
        n = w->topics;
    }
    for (unsigned i = 1; i < n; i += 2)
        topic_drop(w, i);
    log_tick(w->f.log, now_monotonic());
    while (publish(w, topic_make(w), length, 1) == 0) /* what is in one piece already */
        ;
    return n;
}

/* A second part moves without its first, whose record alone tells whether it is whole. */
static void damaged_parts_stay(void **state)
{
    (void)state;
    const uint32_t length = 34000; /* half of an extent that holds it, and a little */
    const struct log_options o = {.manual = true};
    static struct world w;
    static uint64_t head[TOPICS], place[TOPICS];
    for (int damaged = 0; damaged < 2; damaged++) {
        unsigned alone = 0, gone = 0;
        world_open(&w, 8 << 20, &o, 0);
        unsigned n = scatter_parts(&w, length);
        for (unsigned i = 0; i < n; i += 2) {
            assert_int_equal(w.t[i]->run_count, 2);
            head[i] = topic_run(w.t[i], 0)->payload;
            place[i] = topic_run(w.t[i], 1)->payload;
            if (damaged)
                *(char *)pool_at(&w.f.log->pool, place[i]) ^= 0x55;
        }
        int rc = publish_waiting(&w, w.t[w.topics - 1], length, 1);
        for (unsigned i = 0; i < n; i += 2) {
            gone += topic_run(w.t[i], 0)->payload != head[i];
            alone += topic_run(w.t[i], 1)->payload != place[i];
        }
        assert_int_equal(rc, damaged ? -EMBAR_EFULL : 0);
        assert_int_equal(gone, 0);
        assert_true(damaged ? alone == 0 : alone > 0);
        if (!damaged)
            world_check(&w);
        world_close(&w);
    }
}

/* What comes after the batch that was moved last joins its run, where there is room behind it: a topic does
 * not cost a run a move. */
static void moved_runs_are_joined(void **state)
{
    (void)state;
    struct draws d = campaign_begin("joined");
    const struct log_options o = {.manual = true};
    static struct world w;
    static uint64_t place[TOPICS];
    world_open(&w, 16 << 20, &o, 0);
    scatter(&w, &d, 9000);
    for (unsigned i = 3; i < w.topics; i += 2)
        place[i] = topic_run(w.t[i], w.t[i]->run_count - 1)->payload;
    assert_int_equal(publish_waiting(&w, w.t[1], w.most, 1), 0);
    for (int life = 0; life < 3; life++) {
        unsigned joined = 0;
        for (unsigned i = 3; i < w.topics; i += 2) {
            const struct topic *t = w.t[i];
            size_t runs = t->run_count;
            if (topic_run(t, runs - 1)->payload == place[i] || !t->fill ||
                t->fill->top - t->fill->bottom < 10 + MEDIA_LINE)
                continue;
            assert_int_equal(publish(&w, w.t[i], 10, 1), 0);
            assert_int_equal(t->run_count, runs);
            joined++;
        }
        assert_true(joined > 0);
        world_check(&w);
        world_reopen(&w, life == 0); /* from the move's entry, then from a checkpoint */
    }
    world_close(&w);
}

/* Who only looks at the pool learns that a place was given away. */
static void lookers_are_told(void **state)
{
    (void)state;
    struct draws d = campaign_begin("lookers");
    const struct log_options o = {.manual = true};
    static struct world w;
    world_open(&w, 16 << 20, &o, 0);
    scatter(&w, &d, 9000);
    struct log_options look = {.region = &w.f.region, .readonly = true, .manual = true};
    struct embar_error err = {0};
    struct log *log;
    assert_int_equal(log_open(&log, &look, &err), 0);
    assert_int_equal(log_settled(log), 0);
    uint64_t trims = stat_of(&w).trims, moves = stat_of(&w).moves;
    assert_int_equal(publish(&w, w.t[1], w.most, 1), -EMBAR_EFULL);
    log_tick(w.f.log, now_monotonic());
    assert_true(stat_of(&w).moves > moves && stat_of(&w).trims == trims);
    assert_int_equal(log_settled(log), -ESTALE);
    log_close(log);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scattered_space_becomes_one_piece),
        cmocka_unit_test(who_waits_for_one_piece_hides_nobody),
        cmocka_unit_test(one_waits_for_itself_alone),
        cmocka_unit_test(what_is_there_is_waited_for_no_more),
        cmocka_unit_test(killed_anywhere_nothing_is_lost),
        cmocka_unit_test(readers_keep_what_they_read),
        cmocka_unit_test(publishers_go_on_by_themselves),
        cmocka_unit_test(churned_all_is_right),
        cmocka_unit_test(damage_is_not_laundered),
        cmocka_unit_test(damaged_parts_stay),
        cmocka_unit_test(moved_runs_are_joined),
        cmocka_unit_test(lookers_are_told),
    };
    cmocka_set_test_filter(getenv("XF"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
