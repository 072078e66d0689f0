/* Checkpoints: their cost follows what changed, they need no contiguous space, and one that finds
 * none leaves nothing behind. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/crc.h"
#include "core/log_state.h"

#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

/* A batch behind a hole: a run of its own. */
static void publish_apart(struct fixture *f, struct topic *t, struct draws *d)
{
    struct sent a = {0};
    uint32_t data = (uint32_t)draw(d);
    struct batch first = {.topic = t, .length = 64, .count = 1, .equal = true};
    assert_int_equal(log_reserve(f->log, &first), 0);
    assert_int_equal(fixture_send(f, 0, &a, t, 0, 0, 0, &data, sizeof data, NULL, 1), 0);
    log_commit(f->log);
    assert_true(a.done && a.commit.status == 0);
    log_abandon(f->log, &first);
}

/* All extents that the newest root names, as (base, size); how many. */
struct named {
    uint64_t base, size;
    uint32_t crc; /* of its bytes */
};

static struct named named(const struct fixture *f, const struct extent *e)
{
    return (struct named){e->base, e->size, crc32c(0, (char *)f->memory + e->base, e->size)};
}

static size_t named_all(const struct fixture *f, struct named *n, size_t most)
{
    const struct manifest *m = &f->log->manifest;
    size_t count = 0;
    for (size_t i = 0; i < m->count; i++, count++) {
        assert_true(count < most);
        n[count] = named(f, m->piece[i].extent);
    }
    for (const struct topic *t = f->log->names.by_id; t; t = t->by_id.next)
        for (size_t i = 0; i < t->table.count; i++, count++) {
            assert_true(count < most);
            n[count] = named(f, t->table.piece[i].extent);
        }
    return count;
}

#define NAMED 4096

/* Checkpoint: nothing that the last root names is changed. The bytes of the extents that are new. */
static uint64_t checkpoint_cost(struct fixture *f)
{
    static struct named before[NAMED], after[NAMED];
    size_t n = named_all(f, before, NAMED);
    assert_int_equal(log_checkpoint(f->log), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(before[i].crc,
                         crc32c(0, (char *)f->memory + before[i].base, before[i].size));
    uint64_t cost = 0;
    size_t now = named_all(f, after, NAMED);
    for (size_t k = 0; k < now; k++) {
        bool is_new = true;
        for (size_t i = 0; i < n; i++)
            is_new = is_new && before[i].base != after[k].base;
        cost += is_new ? after[k].size : 0;
    }
    return cost;
}

/* A long topic that gets a few runs between checkpoints: each is rewritten a few times at most. */
static void cost_of_a_long_topic(void **state)
{
    (void)state;
    struct draws d = campaign_begin("long topic");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 4096};
    fixture_open_as(&f, 32ull << 20, &o);
    uint32_t id = fixture_topic(&f, "long");
    struct topic *t = log_topic(f.log, id);
    uint64_t written = 0, rounds = 400;
    for (uint64_t i = 0; i < rounds; i++) {
        for (unsigned k = 0; k < 16; k++)
            publish_apart(&f, t, &d);
        written += checkpoint_cost(&f);
        assert_true(t->table.count < 20);
        if (i % 100 == 50) {
            topic_put(t);
            fixture_kill(&f);
            t = log_topic(f.log, id);
        }
    }
    uint64_t runs = t->run_count;
    assert_true(runs >= 16 * rounds);
    /* All runs in each checkpoint would have been 80 MB; two blocks of each kind are 6 MB. */
    print_message("%llu runs, %llu bytes written\n", (unsigned long long)runs,
                  (unsigned long long)written);
    assert_true(written < 12ull << 20);
    /* Trimmed in front: whole pieces go, nothing is written but the node. */
    size_t pieces = t->table.count;
    uint64_t half = topic_run(t, t->run_count * 3 / 4)->offset;
    fixture_control(&f, (struct control){.kind = MEDIA_C_TRIM, .id = topic_id(t), .value = half});
    assert_true(checkpoint_cost(&f) <= 8192);
    assert_true(t->table.count < pieces);
    uint64_t end = topic_end(t), base = topic_base(t);
    topic_put(t);
    fixture_kill(&f);
    t = log_topic(f.log, id);
    assert_int_equal(topic_end(t), end);
    assert_int_equal(topic_base(t), base);
    /* And all of it. */
    fixture_control(&f, (struct control){.kind = MEDIA_C_TRIM, .id = topic_id(t), .value = end});
    publish_apart(&f, t, &d);
    assert_true(checkpoint_cost(&f) <= 16384);
    topic_put(t);
    fixture_close(&f);
}

/* Many names and sessions, one of which changes. */
static void cost_of_many_names(void **state)
{
    (void)state;
    struct draws d = campaign_begin("many names");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 8192, .sessions = 3000};
    fixture_open_as(&f, 32ull << 20, &o);
    uint32_t id[1000];
    uint64_t session[3000];
    for (unsigned i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof name, "topic-number-%u", i);
        id[i] = fixture_topic(&f, name);
    }
    for (unsigned i = 0; i < 3000; i++)
        session[i] = fixture_session(&f, id[i % 1000], i);
    uint64_t whole = checkpoint_cost(&f), most = 0, sum = 0;
    assert_true(whole > 300u << 10);
    for (unsigned i = 0; i < 200; i++) {
        unsigned k = pick(&d, 1000);
        struct topic *t = log_topic(f.log, id[k]);
        struct commit c = fixture_publish(&f, t, 0, 0, 0, "hello", 5, NULL, 1);
        assert_int_equal(c.status, 0);
        topic_put(t);
        uint64_t cost = checkpoint_cost(&f);
        most = cost > most ? cost : most;
        sum += cost;
        if (i % 50 == 20)
            fixture_kill(&f);
    }
    print_message("whole %llu, most %llu, mean %llu\n", (unsigned long long)whole,
                  (unsigned long long)most, (unsigned long long)sum / 200);
    assert_true(most <= whole / 4);
    assert_true(sum / 200 < 16384);
    /* What is gone stays gone, also told of by older pieces. */
    for (unsigned i = 0; i < 1000; i += 3)
        fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id[i]});
    for (unsigned i = 1; i < 3000; i += 30)
        if (i % 1000 % 3)
            fixture_control(&f, (struct control){.kind = MEDIA_C_CLOSE, .value = session[i]});
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(log_checkpoint(f.log), 0);
        fixture_kill(&f);
        for (unsigned k = 0; k < 1000; k++) {
            struct node_stat st;
            int rc = log_stat(f.log, id[k], &st);
            assert_int_equal(rc, k % 3 ? 0 : -ENOENT);
        }
        for (unsigned k = 0; k < 3000; k++) {
            struct session_stat st;
            bool gone = k % 1000 % 3 == 0 || k % 30 == 1;
            assert_int_equal(log_session(f.log, session[k], &st), gone ? -EMBAR_ESESSION : 0);
            assert_true(gone || (st.topic == id[k % 1000] && st.principal == k));
        }
        fixture_control(
            &f, (struct control){
                    .kind = MEDIA_C_ATTR, .id = id[1], .flags = MEDIA_A_MODE, .mode = 0600 + i});
    }
    /* Nothing that is gone is carried along for ever. */
    for (unsigned i = 0; i < 1000; i++)
        if (i % 3)
            fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id[i]});
    assert_int_equal(log_checkpoint(f.log), 0);
    assert_int_equal(f.log->manifest.count, 1);
    assert_int_equal(f.log->manifest.gone_count, 0);
    fixture_close(&f);
}

/* Every free block but every second: no two are adjacent. Returns the taken ones. */
static size_t fragment(struct log *log, struct extent **taken, size_t most, bool all)
{
    size_t n = 0;
    while (n < most && (taken[n] = extent_new(log->extents, 0, EXTENT_META)))
        n++;
    assert_true(n < most);
    for (size_t i = 0; i < n && !all; i++)
        if ((taken[i]->base >> log->pool.geo.block_shift) % 2) {
            extent_put_now(log->extents, taken[i]);
            taken[i--] = taken[--n];
        }
    return n;
}

static void space_in_pieces(void **state)
{
    (void)state;
    static struct extent *taken[4096];
    struct draws d = campaign_begin("pieces");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 4096};
    fixture_open_as(&f, 8ull << 20, &o);
    uint32_t id = fixture_topic(&f, "a");
    struct topic *t = log_topic(f.log, id);
    for (unsigned i = 0; i < 300; i++) {
        char name[MEDIA_MAX_NAME + 1];
        snprintf(name, sizeof name, "%0200u", i);
        (void)fixture_topic(&f, name);
        publish_apart(&f, t, &d);
    }
    size_t n = fragment(f.log, taken, 4096, false);
    assert_null(extent_new(f.log->extents, 1, EXTENT_META));
    assert_int_equal(log_checkpoint(f.log), 0);
    assert_true(f.log->manifest.count > 20);
    assert_true(t->table.count >= 3);
    while (n > 0)
        extent_put_now(f.log->extents, taken[--n]);
    uint64_t end = topic_end(t), runs = t->run_count;
    topic_put(t);
    for (unsigned i = 0; i < 2; i++) {
        fixture_kill(&f);
        t = log_topic(f.log, id);
        assert_int_equal(topic_end(t), end);
        assert_int_equal(t->run_count, runs);
        topic_put(t);
        struct log_stat st;
        log_stat_all(f.log, &st);
        assert_int_equal(st.topics, 301);
        assert_int_equal(log_checkpoint(f.log), 0);
    }
    fixture_close(&f);
}

/* Without space: nothing is held or written, nothing is tried again before some came free. */
static void no_space(void **state)
{
    (void)state;
    static struct extent *taken[4096];
    struct draws d = campaign_begin("no space");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 4096};
    fixture_open_as(&f, 8ull << 20, &o);
    uint32_t id = fixture_topic(&f, "a");
    struct topic *t = log_topic(f.log, id);
    assert_int_equal(log_checkpoint(f.log), 0);
    for (unsigned i = 0; i < 300; i++)
        publish_apart(&f, t, &d);
    size_t n = fragment(f.log, taken, 4096, true);
    for (unsigned round = 0; n > 0; round++) {
        struct log_stat before, after;
        char *copy = fixture_copy(&f);
        log_stat_all(f.log, &before);
        int rc = log_checkpoint(f.log);
        if (rc == 0) {
            munmap(copy, f.size);
            break;
        }
        assert_int_equal(rc, -EMBAR_EFULL);
        uint64_t freed = extents_freed(f.log->extents);
        assert_int_equal(log_checkpoint(f.log), -EMBAR_EFULL);
        assert_int_equal(extents_freed(f.log->extents), freed); /* it did not even try */
        log_stat_all(f.log, &after);
        assert_int_equal(before.used, after.used);
        assert_memory_equal(copy, f.memory, f.size);
        munmap(copy, f.size);
        extent_put_now(f.log->extents, taken[--n]);
    }
    assert_true(n > 0);
    while (n > 0)
        extent_put_now(f.log->extents, taken[--n]);
    uint64_t end = topic_end(t);
    topic_put(t);
    fixture_kill(&f);
    t = log_topic(f.log, id);
    assert_int_equal(topic_end(t), end);
    topic_put(t);
    fixture_close(&f);
}

/* Payload fills all that it gets, and every topic has runs to tell of: what is kept back, counted in
 * single blocks, holds a checkpoint of them all, as soon as no piece takes two for its second place. */
static void a_full_pool_has_space_for_one(void **state)
{
    (void)state;
    enum { TOPICS = 300 };
    static struct topic *t[TOPICS];
    static uint64_t end[TOPICS];
    static const char data[4000];
    struct draws d = campaign_begin("full");
    struct fixture f;
    struct log_options o = {.manual = true, .geo.index_entries = 8192};
    fixture_open_as(&f, 8ull << 20, &o);
    for (unsigned i = 0; i < TOPICS; i++) {
        char name[32];
        snprintf(name, sizeof name, "topic-%u", i);
        t[i] = log_topic(f.log, fixture_topic(&f, name));
        for (unsigned k = 0; k < 3; k++)
            publish_apart(&f, t[i], &d);
    }
    while (fixture_publish(&f, t[0], 0, 0, 0, data, sizeof data, NULL, 1).status == 0)
        ;
    struct extents_stat st;
    extents_stat(f.log->extents, &st);
    uint64_t blocks = st.free >> f.log->pool.geo.block_shift;
    assert_true(blocks > TOPICS && blocks < 2 * TOPICS);
    assert_int_equal(log_checkpoint(f.log), 0);
    for (unsigned i = 0; i < TOPICS; i++) {
        assert_int_equal(t[i]->table.count, 1);
        end[i] = topic_end(t[i]);
        topic_put(t[i]);
    }
    fixture_kill(&f);
    assert_int_equal(f.log->recovered, 0);
    for (unsigned i = 0; i < TOPICS; i++) {
        char name[32];
        struct node_stat node;
        snprintf(name, sizeof name, "topic-%u", i);
        assert_int_equal(log_resolve(f.log, name, &node), 0);
        assert_int_equal(node.end, end[i]);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cost_of_a_long_topic),
        cmocka_unit_test(cost_of_many_names),
        cmocka_unit_test(space_in_pieces),
        cmocka_unit_test(no_space),
        cmocka_unit_test(a_full_pool_has_space_for_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
