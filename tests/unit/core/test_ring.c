/* Everything that wraps, lapped: index rings of a few entries, pending rings of two descriptors,
 * a small pool filled and emptied again, with kills between and in the middle of everything. A
 * model beside each topic says what must be there, byte for byte. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define TOPICS 4u
#define FLIGHT 6u

struct world {
    struct fixture f;
    struct draws d;
    uint32_t id[TOPICS];
    struct topic *topic[TOPICS];
    struct model_topic model[TOPICS];
    struct sent sent[FLIGHT];
    char data[FLIGHT][1 << 17];
    uint32_t lengths[FLIGHT][2000];
    unsigned crashes, splits, full;
    bool hungry; /* large batches, few trims: the pool is full most of the time */
};

static void topics_get(struct world *w)
{
    for (unsigned i = 0; i < TOPICS; i++) {
        w->topic[i] = log_topic(w->f.log, w->id[i]);
        assert_non_null(w->topic[i]);
    }
}

static void topics_put(struct world *w)
{
    for (unsigned i = 0; i < TOPICS; i++)
        if (w->topic[i])
            topic_put(w->topic[i]);
}

static void check_all(struct world *w)
{
    for (unsigned i = 0; i < TOPICS; i++)
        model_check(&w->model[i], w->topic[i], &w->d);
}

static void topic_make(struct world *w, unsigned k)
{
    char name[16];
    snprintf(name, sizeof name, "t%u", k);
    w->id[k] = fixture_topic(&w->f, name);
    w->topic[k] = log_topic(w->f.log, w->id[k]);
    model_free(&w->model[k]);
}

/* One batch of any shape, stored and announced; nothing is committed yet unless the ring is full. */
static int send_any(struct world *w, unsigned k, unsigned slot)
{
    struct draws *d = &w->d;
    uint32_t most = (uint32_t)log_pool(w->f.log)->max_batch;
    if (most > sizeof w->data[0])
        most = sizeof w->data[0];
    uint32_t length = 1 + pick(d, one_in(d, w->hungry ? 2 : 12) ? most : one_in(d, 3) ? 5000 : 200);
    if (length > most)
        length = most;
    uint64_t v = draw(d);
    for (uint32_t i = 0; i < length; i++)
        w->data[slot][i] = (char)(v >> (i % 8 * 8) ^ i >> 3);
    uint32_t count = 1 + pick(d, length < 30 ? length : one_in(d, 10) ? 2000 : 30);
    if (count > length)
        count = length;
    bool equal = length % count == 0 && one_in(d, 2);
    uint32_t left = length;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t even = left / (count - i);
        w->lengths[slot][i] = i + 1 == count ? left : equal ? length / count : 1 + pick(d, even);
        left -= w->lengths[slot][i];
    }
    return fixture_send(&w->f, pick(d, log_producers(w->f.log)), &w->sent[slot], w->topic[k], 0, 0,
                        0, w->data[slot], length, equal ? NULL : w->lengths[slot], count);
}

/* What was sent, into the model, in the order it was committed in. */
static unsigned absorb(struct world *w, unsigned k, unsigned n)
{
    struct model_topic *m = &w->model[k];
    unsigned committed = 0;
    for (unsigned i = 0; i < n; i++) {
        assert_true(atomic_load(&w->sent[i].done));
        int status = w->sent[i].commit.status;
        assert_true(status == 0 || status == -EMBAR_EFULL);
        w->full += status != 0;
        committed += status == 0;
    }
    for (unsigned left = committed; left > 0; left--) {
        unsigned i = 0;
        while (i < n && (w->sent[i].commit.status || w->sent[i].commit.offset != m->end))
            i++;
        assert_true(i < n);
        const struct batch *b = &w->sent[i].batch;
        w->splits += b->run1 != 0;
        model_append(m, w->data[i], b->length, w->lengths[i], b->count);
    }
    return committed;
}

/* The crash may have cut off the last ones. */
static void absorb_crash(struct world *w, unsigned k, unsigned n)
{
    struct model_topic *m = &w->model[k];
    uint64_t end = topic_end(w->topic[k]);
    while (m->end > end) {
        unsigned i = 0;
        while (i < n && (w->sent[i].commit.status ||
                         w->sent[i].commit.offset + w->sent[i].batch.length != m->end))
            i++;
        assert_true(i < n);
        model_unappend(m, w->sent[i].batch.length, w->sent[i].batch.count);
    }
}

static void make_room(struct world *w)
{
    unsigned k = 0;
    for (unsigned i = 1; i < TOPICS; i++)
        if (w->model[i].end - w->model[i].base > w->model[k].end - w->model[k].base)
            k = i;
    struct model_topic *m = &w->model[k];
    uint64_t at = m->base + (m->end - m->base) / (1 + pick(&w->d, 3));
    struct control c = {.kind = MEDIA_C_TRIM, .id = w->id[k], .value = at};
    assert_int_equal(fixture_try(&w->f, c, NULL), 0); /* a full pool can always be trimmed */
    model_trim(m, model_boundary(m, at));
    assert_int_equal(topic_base(w->topic[k]), m->base);
}

/* Let go of the topics, then go on from the copy if the crash came. */
static bool crashed(struct world *w)
{
    if (!w->f.crashed) {
        w->f.countdown = 0;
        return false;
    }
    topics_put(w);
    assert_true(fixture_crash(&w->f));
    w->crashes++;
    return true;
}

static void step_publish(struct world *w)
{
    unsigned k = pick(&w->d, TOPICS), n = 0, most = 1 + pick(&w->d, FLIGHT);
    bool full = false;
    while (n < most && !full) {
        int rc = send_any(w, k, n);
        assert_true(rc == 0 || rc == -EMBAR_EFULL);
        full = rc != 0;
        n += !full;
    }
    log_commit(w->f.log);
    full = absorb(w, k, n) < n || full;
    if (crashed(w)) {
        topics_get(w);
        absorb_crash(w, k, n);
        check_all(w);
    }
    if (full) {
        w->full++;
        make_room(w);
    }
}

static void step_trim(struct world *w)
{
    unsigned k = pick(&w->d, TOPICS);
    struct model_topic *m = &w->model[k];
    uint64_t at = m->base + draw(&w->d) % (m->end - m->base + 1), base = m->base;
    uint64_t want = model_boundary(m, at);
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_TRIM, .id = w->id[k], .value = at});
    base = topic_base(w->topic[k]);
    assert_int_equal(base, want);
    if (crashed(w)) {
        topics_get(w);
        base = topic_base(w->topic[k]);
        assert_true(base == want || base == m->base);
    }
    if (base != m->base)
        model_trim(m, base);
    model_check(m, w->topic[k], &w->d);
}

static void step_remove(struct world *w)
{
    unsigned k = pick(&w->d, TOPICS);
    struct node_stat st;
    topic_put(w->topic[k]);
    w->topic[k] = NULL;
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = w->id[k]});
    if (crashed(w)) {
        int rc = log_stat(w->f.log, w->id[k], &st);
        assert_true(rc == 0 || rc == -ENOENT);
        if (rc)
            topic_make(w, k);
        else
            w->topic[k] = NULL;
        for (unsigned i = 0; i < TOPICS; i++)
            if (i != k || rc == 0)
                w->topic[i] = log_topic(w->f.log, w->id[i]);
        check_all(w);
    } else {
        topic_make(w, k);
    }
}

static void step_open(struct world *w, bool kill)
{
    topics_put(w);
    for (unsigned i = 0; i < TOPICS; i++)
        w->topic[i] = NULL;
    /* The machine may have booted since; all of its memory came through. */
    static const uint8_t boots[2][16] = {"this boot", "another"};
    w->f.options.boot_id = boots[pick(&w->d, 2)];
    if (kill)
        fixture_kill(&w->f);
    else
        fixture_reopen(&w->f);
    (void)crashed(w);
    topics_get(w);
    check_all(w);
}

static void step(struct world *w)
{
    unsigned what = pick(&w->d, 1000);
    if (one_in(&w->d, 12))
        fixture_arm(&w->f, 1 + pick(&w->d, one_in(&w->d, 4) ? 200 : 25));
    if (what < (w->hungry ? 940 : 860)) {
        step_publish(w);
    } else if (what < 960) {
        step_trim(w);
    } else if (what < 975) {
        step_remove(w);
    } else if (what < 985) {
        assert_int_equal(log_checkpoint(w->f.log), 0);
        if (crashed(w)) {
            topics_get(w);
            check_all(w);
        }
    } else {
        step_open(w, what < 993);
    }
}

static void world_run(struct world *w, uint64_t entries, unsigned order, bool hungry,
                      unsigned steps)
{
    struct draws d = w->d;
    memset(w, 0, sizeof *w);
    w->d = d;
    w->hungry = hungry;
    struct log_options o = {.manual = true};
    o.geo.index_entries = entries;
    o.geo.descriptors = 2;
    o.geo.block_shift = 12;
    o.geo.max_order = order;
    if (one_in(&w->d, 3))
        fixture_open_file(&w->f, 0, &o, false);
    else
        fixture_open_as(&w->f, 0, &o);
    for (unsigned k = 0; k < TOPICS; k++)
        topic_make(w, k);
    for (unsigned i = 0; i < steps; i++)
        step(w);
    step_open(w, true);
    step_open(w, false);
    struct log_stat st;
    log_stat_all(w->f.log, &st);
    print_message("ring %u, extents 2^%u: entry %llu, %u crashes, %u splits, %u full\n",
                  (unsigned)entries, order, (unsigned long long)st.committed, w->crashes, w->splits,
                  w->full);
    for (unsigned k = 0; k < TOPICS; k++)
        model_free(&w->model[k]);
    topics_put(w);
    fixture_close(&w->f);
}

static void tiny_rings(void **state)
{
    (void)state;
    struct world *w = calloc(1, sizeof *w);
    w->d = campaign_begin("rings");
    for (unsigned k = 0; k < 6; k++) {
        world_run(w, 8ull << k % 3, 2 + k, false, campaign_rounds(800));
        world_run(w, 8ull << (k + 1) % 3, 2 + k, true, campaign_rounds(800));
    }
    free(w);
}

/* The shortest ring, lapped by one-byte batches, no crash in between: then one at the end. */
static void thousands_of_laps(void **state)
{
    (void)state;
    struct draws d = campaign_begin("laps");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 8, .geo.descriptors = 2};
    fixture_open_as(&f, 0, &o);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    for (unsigned i = 0; i < campaign_rounds(24000); i++) {
        char c = (char)('a' + pick(&d, 26));
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, &c, 1, NULL, 1).status, 0);
        model_append(&m, &c, 1, NULL, 1);
        if (i % 4001 == 4000) {
            topic_put(t);
            fixture_kill(&f);
            t = log_topic(f.log, id);
            model_check(&m, t, &d);
            fixture_control(&f, (struct control){.kind = MEDIA_C_TRIM, .id = id, .value = m.end});
            model_trim(&m, m.end);
        }
    }
    model_check(&m, t, &d);
    topic_put(t);
    model_free(&m);
    fixture_close(&f);
}

/* Many topics in a full pool: checkpoints need room for each one's table, and a trim must still
 * get through. */
static void full_pool_of_many_topics(void **state)
{
    (void)state;
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 32, .geo.descriptors = 2};
    fixture_open_as(&f, 0, &o);
    uint32_t id[60];
    struct topic *t[60];
    char data[8000];
    memset(data, 'q', sizeof data);
    for (unsigned i = 0; i < 60; i++) {
        char name[8];
        snprintf(name, sizeof name, "%u", i);
        id[i] = fixture_topic(&f, name);
        t[i] = log_topic(f.log, id[i]);
    }
    for (unsigned round = 0; round < 20; round++) {
        unsigned failures = 0;
        for (unsigned i = 0; failures < 200; i++) {
            struct commit c = fixture_publish(&f, t[i % 60], 0, 0, 0, data, sizeof data, NULL, 1);
            assert_true(c.status == 0 || c.status == -EMBAR_EFULL);
            failures = c.status ? failures + 1 : 0;
        }
        /* What frees nothing may be refused now, but must not use up what a trim needs. */
        for (unsigned i = 0; i < 100; i++) {
            struct control c = {.kind = MEDIA_C_ATTR, .id = id[i % 60], .flags = MEDIA_A_OWNER};
            int rc = fixture_try(&f, c, NULL);
            assert_true(rc == 0 || rc == -EMBAR_EFULL);
        }
        for (unsigned i = round % 3; i < 60; i += 3) {
            struct control c = {.kind = MEDIA_C_TRIM, .id = id[i], .value = topic_end(t[i])};
            assert_int_equal(fixture_try(&f, c, NULL), 0);
        }
        if (round % 4 == 3) {
            for (unsigned i = 0; i < 60; i++)
                topic_put(t[i]);
            fixture_kill(&f);
            for (unsigned i = 0; i < 60; i++)
                t[i] = log_topic(f.log, id[i]);
        }
        struct commit c = fixture_publish(&f, t[0], 0, 0, 0, data, sizeof data, NULL, 1);
        assert_int_equal(c.status, 0);
    }
    for (unsigned i = 0; i < 60; i++)
        topic_put(t[i]);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_rings),
        cmocka_unit_test(thousands_of_laps),
        cmocka_unit_test(full_pool_of_many_topics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
