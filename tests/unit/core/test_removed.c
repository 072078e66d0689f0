/* A removed topic lives until its last reference goes: its open files write on and read what they
 * wrote, whoever else publishes to it is told that it is gone, no entry tells of it, and a crash
 * leaves nothing of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define PIECE 30000u

static char data[PIECE];

static void open_manual(struct fixture *f)
{
    struct log_options o = {.manual = true};
    o.geo.index_entries = 256;
    fixture_open_as(f, 0, &o);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)('a' + i * 11 % 26);
}

static void publish(struct fixture *f, struct topic *t, struct model_topic *m, uint32_t length,
                    uint32_t count)
{
    struct commit c = fixture_publish(f, t, 0, 0, 0, data, length, NULL, count);
    assert_int_equal(c.status, 0);
    assert_int_equal(c.offset, m->end);
    model_append(m, data, length, NULL, count);
}

static void drop(struct fixture *f, uint32_t id)
{
    fixture_control(f, (struct control){.kind = MEDIA_C_REMOVE, .id = id});
    f->past_removal = true;
}

static void open_files_write_on(void **state)
{
    (void)state;
    struct draws d = campaign_begin("removed");
    struct fixture f;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    publish(&f, t, &m, 1000, 10);
    drop(&f, id);

    struct log_stat before, after;
    log_stat_all(f.log, &before);
    for (int i = 0; i < 20; i++)
        publish(&f, t, &m, PIECE, 30);
    model_check(&m, t, &d);
    log_stat_all(f.log, &after);
    assert_int_equal(after.committed, before.committed); /* no entry */
    assert_true(after.used >= before.used + 20 * PIECE);
    assert_int_equal(after.reserved, 0);
    /* Whoever opens it again by what it has open sees the same; by name there is nothing. */
    struct topic *again = log_topic_held(f.log, id);
    assert_ptr_equal(again, t);
    assert_null(log_topic(f.log, id));
    assert_false(topic_is_last(t));
    topic_put(again);
    assert_true(topic_is_last(t));
    /* Publishers that do not have it open. */
    f.past_removal = false;
    assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "no", 2, NULL, 1).status, -EMBAR_EGONE);
    f.past_removal = true;
    /* Checkpoints do not know it, and what they free is not its. */
    assert_int_equal(log_checkpoint(f.log), 0);
    publish(&f, t, &m, PIECE, 1);
    assert_int_equal(log_checkpoint(f.log), 0);
    model_check(&m, t, &d);
    topic_put(t);
    assert_null(log_topic_held(f.log, id));
    assert_int_equal(log_checkpoint(f.log), 0);
    log_stat_all(f.log, &after);
    assert_true(after.used < before.used + 20 * PIECE / 2);
    model_free(&m);
    fixture_close(&f);
}

/* Announced before the removal, ordered after it. */
static void removed_while_under_way(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct sent kept, refused;
    f.past_removal = true;
    assert_int_equal(fixture_send(&f, 0, &kept, t, 0, 0, 0, "kept", 4, NULL, 1), 0);
    f.past_removal = false;
    assert_int_equal(fixture_send(&f, 0, &refused, t, 0, 0, 0, "no", 2, NULL, 1), 0);
    drop(&f, id); /* actions come first */
    log_commit(f.log);
    assert_true(kept.done && refused.done);
    assert_int_equal(kept.commit.status, 0);
    assert_int_equal(refused.commit.status, -EMBAR_EGONE);
    size_t size;
    char *bytes = fixture_read(t, &size);
    assert_int_equal(size, 4);
    assert_memory_equal(bytes, "kept", 4);
    free(bytes);
    struct log_stat st;
    log_stat_all(f.log, &st);
    assert_int_equal(st.reserved, 0);
    topic_put(t);
    fixture_close(&f);
}

static void attributes_hold_until_it_goes(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    drop(&f, id);
    struct log_stat before, after;
    log_stat_all(f.log, &before);
    struct commit commit;
    struct control c = {.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_MODE, .mode = 0600};
    assert_int_equal(fixture_try(&f, c, &commit), 0);
    struct node_stat st;
    assert_int_equal(log_stat(f.log, id, &st), -EMBAR_EGONE);
    assert_int_equal(st.mode, S_IFREG | 0600);
    log_stat_all(f.log, &after);
    assert_int_equal(after.committed, before.committed);
    /* Values that cannot be are refused as ever, and so is all that needs a name. */
    c = (struct control){.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_ORDER, .order = 3};
    assert_int_equal(fixture_try(&f, c, &commit), -EMBAR_EINVALID);
    c = (struct control){.kind = MEDIA_C_REMOVE, .id = id};
    assert_int_equal(fixture_try(&f, c, &commit), -ENOENT);
    topic_put(t);
    c = (struct control){.kind = MEDIA_C_ATTR, .id = id, .flags = MEDIA_A_MODE, .mode = 0600};
    assert_int_equal(fixture_try(&f, c, &commit), -ENOENT);
    fixture_close(&f);
}

/* Retention settings that it had: what has no name is nobody's to trim. */
static void retention_leaves_it_alone(void **state)
{
    (void)state;
    struct fixture f;
    open_manual(&f);
    uint32_t id = fixture_topic(&f, "t");
    fixture_control(&f, (struct control){.kind = MEDIA_C_ATTR,
                                         .id = id,
                                         .flags = MEDIA_A_BYTES | MEDIA_A_FULL,
                                         .value = 1000,
                                         .policy = 1});
    struct topic *t = log_topic(f.log, id);
    struct model_topic m = {0};
    drop(&f, id);
    for (int i = 0; i < 10; i++)
        publish(&f, t, &m, PIECE, 3);
    log_tick(f.log, now_monotonic());
    struct draws d = campaign_begin("removed retention");
    model_check(&m, t, &d);
    for (int kind = 0; kind < RETAIN_KINDS; kind++)
        assert_int_equal(f.log->retain.queue[kind].count, 0);
    topic_put(t);
    model_free(&m);
    fixture_close(&f);
}

/* Killed while it is open, by any history: the others are whole, and it has left nothing. */
static void a_crash_leaves_nothing(void **state)
{
    (void)state;
    struct draws d = campaign_begin("removed crash");
    for (uint64_t round = 0; round < campaign_rounds(20); round++) {
        struct fixture f;
        open_manual(&f);
        uint32_t id[2] = {fixture_topic(&f, "kept"), fixture_topic(&f, "gone")};
        struct topic *t[2] = {log_topic(f.log, id[0]), log_topic(f.log, id[1])};
        struct model_topic m[2] = {{0}, {0}};
        for (unsigned i = pick(&d, 10); i > 0; i--)
            publish(&f, t[i % 2], &m[i % 2], 1 + pick(&d, PIECE), 1);
        drop(&f, id[1]);
        for (unsigned i = 5 + pick(&d, 20); i > 0; i--) {
            unsigned which = pick(&d, 2);
            publish(&f, t[which], &m[which], 1 + pick(&d, PIECE), 1);
            if (one_in(&d, 8))
                assert_int_equal(log_checkpoint(f.log), 0);
        }
        model_check(&m[1], t[1], &d);
        f.past_removal = false;
        fixture_kill(&f);
        struct node_stat st;
        assert_int_equal(log_resolve(f.log, "gone", &st), -ENOENT);
        struct topic *kept = log_topic(f.log, id[0]);
        model_check(&m[0], kept, &d);
        topic_put(kept);
        fixture_control(&f, (struct control){.kind = MEDIA_C_REMOVE, .id = id[0]});
        assert_int_equal(log_checkpoint(f.log), 0);
        struct log_stat left;
        log_stat_all(f.log, &left);
        assert_true(left.used <= fixture_manifest(&f) + (64u << 10));
        model_free(&m[0]);
        model_free(&m[1]);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_files_write_on),
        cmocka_unit_test(removed_while_under_way),
        cmocka_unit_test(attributes_hold_until_it_goes),
        cmocka_unit_test(retention_leaves_it_alone),
        cmocka_unit_test(a_crash_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
