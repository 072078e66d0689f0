/* Both copies of a run table are gone: what it told is found again by the batches' own records, also
 * after trims and moves; what cannot be placed is saved aside. The seed is EMBAR_TEST_SEED. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define POOLS   6u
#define BATCHES 300u
#define LENGTH  1000u
#define COUNT   10u /* messages of each */

/* A topic of BATCHES batches that only the checkpoint tells of, in many extents. */
struct world {
    struct fixture f;
    uint32_t id, other;
    char *image;
    char save[TRIAL_SAVE];
};

static void data_of(unsigned i, char *data)
{
    for (unsigned k = 0; k < LENGTH; k++)
        data[k] = (char)(i * 31 + k * 7 + k / 256);
}

static void publish(struct world *w, uint32_t id, unsigned from, unsigned to)
{
    struct topic *t = log_topic(w->f.log, id);
    char data[LENGTH];
    for (unsigned i = from; i < to; i++) {
        data_of(i, data);
        assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, data, LENGTH, NULL, COUNT).status, 0);
    }
    topic_put(t);
}

static void trim(struct world *w, uint64_t bytes)
{
    fixture_control(&w->f, (struct control){.kind = MEDIA_C_TRIM, .id = w->id, .value = bytes});
}

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true};
    o.geo.max_order = 3;
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    w.id = fixture_topic(&w.f, "t");
    w.other = fixture_topic(&w.f, "other");
    publish(&w, w.id, 0, BATCHES);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    fixture_close(&w->f);
    munmap(w->image, TRIAL_SIZE);
    trial_save_drop(w->save);
    return 0;
}

/* Both roots name the table; then it is gone. */
static void table_destroyed(struct world *w)
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    w->image = fixture_copy(&w->f);
    assert_true(t->table.count > 0);
    for (size_t i = 0; i < t->table.count; i++) {
        const struct extent *e = t->table.piece[i].extent;
        memset(w->image + e->base, 0, MEDIA_LINE);
        memset(w->image + e->base + checkpoint_room(e->size), 0, MEDIA_LINE);
    }
}

static void checkpoints(struct world *w)
{
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(log_checkpoint(w->f.log), 0);
}

static void repair(struct world *w, struct fsck_report *r)
{
    struct trial t = {.image = w->image};
    struct embar_error err;
    if (trial_fsck(&t, true, w->save, r, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(r->left, 0);
}

/* Exactly the batches [from, BATCHES) are there, where they were. */
static void reads_from(struct world *w, uint64_t base)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, w->id);
    assert_int_equal(topic_base(t), base);
    assert_int_equal(topic_end(t), BATCHES * LENGTH);
    size_t size;
    char *got = fixture_read(t, &size), want[LENGTH];
    assert_int_equal(size, BATCHES * LENGTH - base);
    for (uint64_t at = base; at < BATCHES * LENGTH; at = (at / LENGTH + 1) * LENGTH) {
        struct batch_cursor c = {.offset = at};
        struct batch_view v;
        data_of((unsigned)(at / LENGTH), want);
        assert_memory_equal(got + (at - base), want + at % LENGTH, LENGTH - at % LENGTH);
        assert_int_equal(topic_next(t, &c, &v), 1);
        assert_int_equal(v.offset, at / LENGTH * LENGTH);
        assert_int_equal(v.message, at / LENGTH * COUNT);
        read_release(&v.data);
    }
    free(got);
    topic_put(t);
    log_close(log);
}

static void mended(struct world *w, uint64_t base)
{
    struct fsck_report r;
    table_destroyed(w);
    repair(w, &r);
    if (r.errors > 0)
        trial_print(&r);
    assert_int_equal(r.errors, 0);
    assert_int_equal(trial_finding(&r, FSCK_TABLE)->action, FSCK_REBUILD);
    fsck_report_drop(&r);
    reads_from(w, base);
}

static void whole(void **state)
{
    struct world *w = *state;
    checkpoints(w);
    mended(w, 0);
}

/* What was trimmed does not come back, although most of it still stands. */
static void trimmed(void **state)
{
    struct world *w = *state;
    trim(w, 70 * LENGTH + 300);
    checkpoints(w);
    mended(w, 70 * LENGTH + 300);
}

/* Trimmed behind the checkpoint, and its place given to others. */
static void trimmed_behind(void **state)
{
    struct world *w = *state;
    checkpoints(w);
    trim(w, 150 * LENGTH);
    publish(w, w->other, 0, 12);
    mended(w, 150 * LENGTH);
}

/* All that the table told, behind the checkpoint. */
static void trimmed_whole(void **state)
{
    struct world *w = *state;
    checkpoints(w);
    trim(w, (BATCHES - 1) * LENGTH);
    struct fsck_report r;
    table_destroyed(w);
    repair(w, &r);
    assert_int_equal(r.errors, 0);
    fsck_report_drop(&r);
    reads_from(w, (BATCHES - 1) * LENGTH);
}

/* ---- Records that are damaged too ------------------------------------------------------------- */

/* The lines of the index behind which a checkpoint stands are overwritten, but for each `keep`th. */
static void lines_overwritten(struct world *w, unsigned keep)
{
    const struct log *log = w->f.log;
    uint64_t last = atomic_load(&log->checkpoint);
    uint64_t entries = log->pool.geo.index_entries;
    for (uint64_t n = last > entries ? last - entries + 1 : 1; n + 2 <= last; n++)
        if (keep == 0 || n % keep != 0)
            memset(w->image + ((const char *)pool_entry(&log->pool, 0, n) - log->pool.base), 0,
                   MEDIA_LINE);
}

/* What is read of the topic is right, each batch at its place: how many are not. */
static unsigned unread(struct world *w, uint64_t base)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    unsigned missing = 0;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, w->id);
    assert_int_equal(topic_base(t), base);
    assert_int_equal(topic_end(t), BATCHES * LENGTH);
    for (unsigned i = (unsigned)(base / LENGTH); i < BATCHES; i++) {
        uint64_t at = i * LENGTH < base ? base : i * LENGTH;
        struct batch_cursor c = {.offset = at};
        struct batch_view v;
        char want[LENGTH];
        int rc = topic_next(t, &c, &v);
        missing += rc != 1;
        if (rc != 1) {
            assert_int_equal(rc, -EMBAR_ECORRUPT);
            continue;
        }
        data_of(i, want);
        assert_int_equal(v.offset, i * LENGTH);
        assert_int_equal(v.message, i * COUNT);
        assert_int_equal(v.length, LENGTH);
        assert_memory_equal(v.data.iov[0].iov_base, want, LENGTH);
        read_release(&v.data);
    }
    topic_put(t);
    log_close(log);
    return missing;
}

/* Where the first batch of an extent has its record, one between, and the last. */
static void records_of(const struct world *w, uint64_t at[3])
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    const struct run *r = topic_run(t, t->run_count - 4);
    assert_true(r->offset > 100 * LENGTH && r->batches > 5);
    at[0] = r->side;
    at[1] = r->side - 3ull * MEDIA_LINE;
    at[2] = r->side - (r->batches - 1ull) * MEDIA_LINE;
}

/* Table and record are gone, and each line but some: so many batches are not read, so many saved aside. */
static void record_gone(struct world *w, uint64_t record, unsigned keep, uint64_t base,
                        unsigned lost, unsigned aside)
{
    struct fsck_report r;
    unsigned n = 0;
    if (w->image)
        munmap(w->image, TRIAL_SIZE);
    table_destroyed(w);
    lines_overwritten(w, keep);
    memset(w->image + record, 0, MEDIA_LINE);
    repair(w, &r);
    assert_int_equal(trial_finding(&r, FSCK_TABLE)->severity, FSCK_ERROR);
    for (size_t i = 0; i < r.count; i++)
        n += r.finding[i].kind == FSCK_UNPLACED;
    assert_int_equal(n, aside);
    assert_true(r.saved_bytes >= aside * LENGTH);
    fsck_report_drop(&r);
    assert_int_equal(unread(w, base), lost);
}

/* How many batches the table tells of. */
static unsigned told(const struct world *w, uint64_t base)
{
    const struct topic *t = names_id(&w->f.log->names, w->id);
    return (unsigned)(topic_run(t, t->run_count - 1)->offset / LENGTH - base / LENGTH);
}

/* Nobody knows whether a batch stood where bytes are missing, or how many did: a publisher may have left them.
 * What is whole is saved aside. */
static void record_too(void **state)
{
    struct world *w = *state;
    uint64_t at[3];
    checkpoints(w);
    records_of(w, at);
    for (unsigned i = 0; i < 3; i++)
        record_gone(w, at[i], 0, 0, told(w, 0), told(w, 0) - 1);
}

/* As many bytes and messages as there must be, but for one that was trimmed, and stands in for the one
 * whose record is damaged: it is not taken for it. */
static void changeling(void **state)
{
    struct world *w = *state;
    const uint64_t base = 70 * LENGTH + 300;
    uint64_t at[3];
    records_of(w, at);
    trim(w, base);
    checkpoints(w);
    for (unsigned i = 0; i < 3; i++)
        record_gone(w, at[i], 0, base, told(w, base), told(w, base));
}

/* Lines of the index that still stand say where they stood. */
static void lines_stand(void **state)
{
    struct world *w = *state;
    const uint64_t base = 70 * LENGTH + 300;
    uint64_t at[3];
    records_of(w, at);
    trim(w, base);
    checkpoints(w);
    record_gone(w, at[2], 1, base, 1, 0);
}

/* All of the topic, as the image serves it. */
static char *served(struct world *w, size_t *size)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, w->id);
    char *got = fixture_read(t, size);
    topic_put(t);
    log_close(log);
    return got;
}

/* The second part of the topic's split batch goes to another place by itself. Where it stood. */
static uint64_t part_move(struct world *w)
{
    struct log *log = w->f.log;
    struct topic *t = names_id(&log->names, w->id);
    size_t i = 0;
    while (topic_run(t, i)->batches > 0)
        i++;
    const struct run was = *topic_run(t, i);
    uint32_t length = (uint32_t)(topic_run_end(t, i) - was.offset);
    struct extent *to = extent_new(log->extents, was.order, EXTENT_MOVE);
    assert_non_null(to);
    memcpy(pool_at(&log->pool, to->base), pool_at(&log->pool, was.payload), length);
    struct entry e = {.topic = t->id,
                      .offset = was.offset,
                      .length = length,
                      .payload = to->base,
                      .count = 1,
                      .order = was.order};
    seq_take_wait(log);
    assert_int_equal(seq_moves(log, &e, 1), 0);
    seq_give(log);
    extent_put(log->extents, to);
    return was.payload;
}

/* The second part of a split batch was moved by itself, its old place is used again, and the table is gone
 * that knew: the move's line still stands. */
static void part_moved(void **state)
{
    static char data[15000];
    struct world *w = *state;
    struct topic *t = log_topic(w->f.log, w->id);
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 13 + i / 251);
    for (unsigned i = 0; i < 30 && topic_run(t, t->run_count - 1)->batches > 0; i++)
        assert_int_equal(fixture_publish(&w->f, t, 0, 0, 0, data, sizeof data, NULL, COUNT).status,
                         0);
    assert_int_equal(topic_run(t, t->run_count - 1)->batches, 0);
    topic_put(t);
    publish(w, w->id, 0, 100);
    uint64_t from = part_move(w);
    checkpoints(w);
    size_t before, after;
    table_destroyed(w);
    memset(w->image + from, 0x55, 600);
    t = log_topic(w->f.log, w->id);
    char *want = fixture_read(t, &before), *got;
    topic_put(t);
    struct fsck_report r;
    repair(w, &r);
    if (r.errors > 0)
        trial_print(&r);
    assert_int_equal(r.errors, 0);
    fsck_report_drop(&r);
    got = served(w, &after);
    assert_int_equal(after, before);
    assert_memory_equal(got, want, before);
    free(got);
    free(want);
}

/* Second halves of split batches that were moved by themselves: only the table tells where they are. */
static size_t parts_moved(const struct trial *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->topics; i++)
        for (size_t b = 0; b < t->topic[i].batches; b++)
            n += t->topic[i].batch[b].part_moved;
    return n;
}

/* Pools with a history, each topic's table destroyed by itself. */
static void histories(void **state)
{
    (void)state;
    struct draws d = campaign_begin("tables");
    char save[TRIAL_SAVE];
    size_t tables = 0, lost = 0, alone = 0;
    trial_save_make(save);
    for (unsigned p = campaign_rounds(POOLS); p > 0; p--) {
        struct trial t;
        trial_build(&t, &d);
        size_t parts = parts_moved(&t);
        for (unsigned i = 0; i + 1 < t.areas; i++) {
            const struct trial_area *a = &t.area[i];
            if (strcmp(a->name, "run table") != 0)
                continue;
            struct trial_outcome o;
            memcpy(t.image, t.pristine, TRIAL_SIZE);
            memset(t.image + a[0].at, 0, a[0].size);
            memset(t.image + a[1].at, 0, a[1].size);
            trial_run(&t, save, &o);
            tables++;
            lost += o.collateral > parts ? o.collateral - parts : 0;
            alone += o.collateral;
            if (o.collateral + o.aside > 0)
                print_message("pool %u, table at %llu: %zu lost, %zu aside\n", p,
                              (unsigned long long)a->at, o.collateral, o.aside);
        }
        trial_free(&t);
    }
    print_message("%zu tables: %zu batches lost\n", tables, alone);
    trial_save_drop(save);
    assert_int_equal(lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole, begin, end),
        cmocka_unit_test_setup_teardown(trimmed, begin, end),
        cmocka_unit_test_setup_teardown(trimmed_behind, begin, end),
        cmocka_unit_test_setup_teardown(trimmed_whole, begin, end),
        cmocka_unit_test_setup_teardown(record_too, begin, end),
        cmocka_unit_test_setup_teardown(changeling, begin, end),
        cmocka_unit_test_setup_teardown(lines_stand, begin, end),
        cmocka_unit_test_setup_teardown(part_moved, begin, end),
        cmocka_unit_test(histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
