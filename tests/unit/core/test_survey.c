/* The survey that moves go by is done in parts: between any two of them others are acked, topics are
 * removed, trimmed and made, and what comes of it is as right as without. Linked with
 * --wrap=seq_take_wait and --wrap=seq_give: whoever gives the role back in the middle of a survey lets
 * the others have their turn. */
#include <errno.h>
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

#define RUNS 15u /* a topic */
#define PART 1024u

struct world {
    struct fixture f;
    struct topic **t; /* NULL: removed */
    uint64_t *base;   /* as it was trimmed to */
    unsigned topics, most;
};

static char bytes[16 << 20];

/* ---- Others meanwhile --------------------------------------------------------------------- */

static struct {
    struct world *w; /* NULL: nobody does anything */
    struct draws d;
    struct topic *t;
    struct sent sent;
    struct control control;
    struct completion told;
    struct commit commit;
    bool is_sent, is_told, inside;
    unsigned topic, turn; /* of the control action */
    unsigned parts, late, acks, removed, trimmed, made;
} busy;

/* ns of the processor that the role was held for a survey by the background thread, which alone waits for it. */
static uint64_t longest;
static _Thread_local uint64_t since;  /* 0: not waited for */
static _Thread_local uint32_t number; /* of the survey then, 0: it goes on */

static uint64_t now_cpu(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void __real_seq_take_wait(struct log *log);
void __wrap_seq_take_wait(struct log *log);
void __real_seq_give(struct log *log);
void __wrap_seq_give(struct log *log);

void __wrap_seq_take_wait(struct log *log)
{
    __real_seq_take_wait(log);
    number = log->survey.at ? 0 : log->survey.number;
    since = now_cpu();
}

static void told(struct completion *self, const struct commit *commit)
{
    (void)self;
    busy.commit = *commit;
    busy.is_told = true;
}

static void settle(struct world *w)
{
    unsigned i = busy.topic;
    assert_int_equal(busy.commit.status, 0);
    if (busy.control.kind == MEDIA_C_REMOVE) {
        topic_put(w->t[i]);
        w->t[i] = NULL;
        busy.removed++;
    } else if (busy.control.kind == MEDIA_C_TRIM) {
        w->base[i] = busy.commit.offset;
        busy.trimmed++;
    } else {
        busy.made++;
    }
}

/* One control action at a time. */
static void meddle(void)
{
    struct world *w = busy.w;
    if (!busy.is_told)
        return;
    if (busy.control.kind)
        settle(w);
    unsigned i = pick(&busy.d, w->topics);
    while (!w->t[i])
        i = (i + 1) % w->topics;
    busy.control = (struct control){.parent = LOG_ROOT_ID, .order = 5, .ack = 1, .mode = 0600};
    busy.control.completion = &busy.told;
    busy.topic = i;
    if (busy.turn++ % 3 == 0) {
        busy.control.kind = MEDIA_C_CREATE;
        snprintf(busy.control.name, sizeof busy.control.name, "new%u", busy.made);
    } else {
        busy.control.kind = busy.turn % 3 == 2 ? MEDIA_C_REMOVE : MEDIA_C_TRIM;
        busy.control.id = w->t[i]->id;
        busy.control.value = w->base[i] + (topic_end(w->t[i]) - w->base[i]) / 2;
    }
    busy.is_told = false;
    log_control(w->f.log, &busy.control);
}

static void others(void)
{
    busy.parts++;
    if (busy.is_sent && atomic_load(&busy.sent.done)) {
        assert_int_equal(busy.sent.commit.status, 0);
        busy.acks++;
        busy.is_sent = false;
    }
    if (!busy.is_sent)
        busy.is_sent =
            fixture_send(&busy.w->f, 1, &busy.sent, busy.t, 0, 0, 0, "b", 1, NULL, 1) == 0;
    else
        busy.late++;
    meddle();
}

void __wrap_seq_give(struct log *log)
{
    uint64_t held = since && number != log->survey.number ? now_cpu() - since : 0;
    if (busy.w && held > longest)
        longest = held; /* read once nobody is busy any more */
    since = 0;
    bool middle = busy.w && !busy.inside && log->survey.at;
    __real_seq_give(log);
    if (!middle)
        return;
    busy.inside = true;
    others();
    busy.inside = false;
}

/* ---- A world ------------------------------------------------------------------------------ */

static int publish(struct world *w, struct topic *t, uint32_t length)
{
    oracle_fill(t->id, topic_end(t), bytes, length);
    return fixture_publish(&w->f, t, 0, 0, 0, bytes, length, NULL, 1).status;
}

/* A batch that joins no run: there is a hole between it and the one before. */
static int publish_apart(struct world *w, struct topic *t)
{
    struct batch hole = {.topic = t, .length = 1, .count = 1, .equal = true};
    int rc = log_reserve(w->f.log, &hole);
    if (rc)
        return rc;
    rc = publish(w, t, 8);
    log_abandon(w->f.log, &hole);
    return rc;
}

/* Topics of some runs each all over the pool, every second of them removed. */
static void scatter(struct world *w)
{
    unsigned most = (unsigned)(w->f.size >> 12);
    w->t = calloc(most, sizeof(struct topic *));
    w->base = calloc(most, sizeof *w->base);
    assert_non_null(w->t);
    assert_non_null(w->base);
    for (int rc = 0; rc == 0 && w->topics < most; w->topics++) {
        char name[16];
        struct commit made;
        struct control c = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .order = 5, .ack = 1};
        c.mode = 0600;
        snprintf(name, sizeof name, "t%u", w->topics);
        memcpy(c.name, name, sizeof name);
        if (fixture_try(&w->f, c, &made) != 0)
            break;
        w->t[w->topics] = log_topic(w->f.log, made.id);
        for (unsigned i = 0; rc == 0 && i < RUNS; i++)
            rc = publish_apart(w, w->t[w->topics]);
    }
    for (unsigned i = 2; i < w->topics; i += 2) {
        fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = w->t[i]->id});
        topic_put(w->t[i]);
        w->t[i] = NULL;
    }
    if (w->f.needs_sync)
        log_tick(w->f.log, now_monotonic()); /* which frees them */
    while (publish(w, w->t[1], w->most) == 0)
        ;
}

static void world_open(struct world *w, uint64_t size, int file)
{
    const struct log_options o = {.manual = true, .topics = 1u << 20};
    memset(w, 0, sizeof *w);
    if (file)
        fixture_open_file(&w->f, size, &o, file == 2);
    else
        fixture_open_as(&w->f, size, &o);
    w->most = (unsigned)log_pool(w->f.log)->max_batch;
    scatter(w);
}

/* With a background thread. */
static void world_reopen(struct world *w)
{
    uint32_t *id = calloc(w->topics, sizeof *id);
    assert_non_null(id);
    for (unsigned i = 0; i < w->topics; i++) {
        id[i] = w->t[i] ? w->t[i]->id : 0;
        if (w->t[i])
            topic_put(w->t[i]);
    }
    w->f.options.manual = false;
    fixture_reopen(&w->f);
    for (unsigned i = 0; i < w->topics; i++)
        w->t[i] = id[i] ? log_topic(w->f.log, id[i]) : NULL;
    free(id);
}

static void world_check(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++) {
        size_t size;
        if (!w->t[i])
            continue;
        char *got = fixture_read(w->t[i], &size);
        assert_int_equal(topic_base(w->t[i]), w->base[i]);
        assert_int_equal(size, topic_end(w->t[i]) - w->base[i]);
        assert_true(oracle_equal(w->t[i]->id, w->base[i], got, size));
        free(got);
    }
}

static void world_close(struct world *w)
{
    for (unsigned i = 0; i < w->topics; i++)
        if (w->t[i])
            topic_put(w->t[i]);
    fixture_close(&w->f);
    free(w->t);
    free(w->base);
}

/* ---- Tests -------------------------------------------------------------------------------- */

static void busy_begin(struct world *w)
{
    seq_take_wait(w->f.log); /* who has the role looks at it */
    memset(&busy, 0, sizeof busy);
    seq_give(w->f.log);
    busy.d = campaign_begin("others");
    busy.told.done = told;
    busy.is_told = true;
    busy.t = log_topic(w->f.log, fixture_topic(&w->f, "busy"));
    assert_int_equal(publish(w, busy.t, 1), 0);
    seq_take_wait(w->f.log);
    longest = 0;
    busy.w = w;
    seq_give(w->f.log);
}

static void busy_end(struct world *w)
{
    seq_take_wait(w->f.log);
    busy.w = NULL;
    seq_give(w->f.log);
    log_commit(w->f.log);
    while ((busy.is_sent && !atomic_load(&busy.sent.done)))
        sched_yield();
    log_quiesce(w->f.log);
    if (busy.control.kind) {
        assert_true(busy.is_told);
        settle(w);
    }
    topic_put(busy.t);
}

static void others_are_acked_between_parts(void **state)
{
    (void)state;
    static struct world w;
    unsigned size = campaign_rounds(32) > 32 ? campaign_rounds(32) : 32; /* MiB */
    for (int file = 0; file < 3; file++) {
        world_open(&w, (uint64_t)size << 20, file);
        world_reopen(&w);
        busy_begin(&w);
        uint64_t runs = atomic_load(&w.f.log->runs);
        for (unsigned tries = 0; atomic_load(&w.f.log->moves) == 0 && tries < 60000; tries++)
            if (publish(&w, w.t[1], w.most) != 0)
                nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        busy_end(&w);
        print_message("%llu runs: the role was held for %llu us at most; %u parts, %u acks, %u "
                      "removed, %u trimmed, %u made\n",
                      (unsigned long long)runs, (unsigned long long)longest / 1000, busy.parts,
                      busy.acks, busy.removed, busy.trimmed, busy.made);
        assert_true(atomic_load(&w.f.log->moves) > 0);
        assert_true(busy.parts >= runs / PART);
        /* Each that found a place was acked before the next part began. */
        assert_true(busy.late == 0 && busy.acks > 3);
        assert_true(busy.removed > 0 && busy.trimmed > 0 && busy.made > 0);
        world_check(&w);
        world_reopen(&w);
        world_check(&w);
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_are_acked_between_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
