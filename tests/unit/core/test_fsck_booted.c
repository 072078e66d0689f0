/* A file that was served, whose machine has booted since, and which is damaged. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"
#include "tests/unit/core/model.h"

#define PIECE 30000u

/* Topic 0's batches were trimmed and their places are topic 1's by now, all of it above what was noted
 * as synced: the later note was lost. The machine has booted since, and a bit of an entry flipped. */
struct booted {
    struct fixture f;
    uint32_t id[2];
    struct model_topic model[2];
    uint64_t last[2]; /* where the last two batches, both topic 1's, stand */
    char *image;
};

static const uint8_t boots[2][16] = {"this boot", "another"};

static void booted_publish(struct booted *b, unsigned k, struct topic *t)
{
    char data[PIECE];
    for (unsigned i = 0; i < PIECE; i++)
        data[i] = (char)('a' + (b->model[k].end / PIECE * 7 + k * 3 + i) % 26);
    struct commit c = fixture_publish(&b->f, t, 0, 0, 0, data, PIECE, NULL, 10);
    assert_int_equal(c.status, 0);
    model_append(&b->model[k], data, PIECE, NULL, 10);
    const struct pool *pool = &b->f.log->pool;
    uint64_t number = b->f.log->seq.next - 1;
    const struct media_entry *line = pool_entry(pool, 0, number);
    struct entry e;
    uint32_t next;
    assert_true(index_decode(line, number, index_chain_before(line), &e, &next));
    b->last[0] = b->last[1];
    b->last[1] = e.payload;
}

static void booted_make(struct booted *b)
{
    struct log_options o = {.manual = true, .boot_id = boots[0], .geo.index_entries = 1024};
    struct topic *t[2];
    memset(b, 0, sizeof *b);
    fixture_open_file(&b->f, TRIAL_SIZE, &o, false);
    const struct log *log = b->f.log;
    const struct pool *pool = &log->pool;
    for (unsigned k = 0; k < 2; k++) {
        b->id[k] = fixture_topic(&b->f, k ? "kept" : "trimmed");
        t[k] = log_topic(b->f.log, b->id[k]);
    }
    assert_int_equal(log_checkpoint(b->f.log), 0);
    uint64_t checkpoint = atomic_load(&log->checkpoint);
    booted_publish(b, 1, t[1]);
    uint64_t flipped = log->seq.next - 1;
    assert_int_equal(background_sync(b->f.log), 0);
    struct media_watermark noted = *pool_synced(pool, 0, (b->f.log->syncs - 1) & 1);
    for (unsigned i = 0; i < 20; i++)
        booted_publish(b, 0, t[0]);
    struct side first;
    assert_int_equal(side_read(pool, topic_run(t[0], 0)->side, &first), 0);
    fixture_control(
        &b->f, (struct control){.kind = MEDIA_C_TRIM, .id = b->id[0], .value = topic_end(t[0])});
    model_trim(&b->model[0], b->model[0].end);
    assert_int_equal(background_sync(b->f.log), 0); /* frees the places */
    for (unsigned i = 0; i < 100 && side_payload_whole(pool, &first); i++)
        booted_publish(b, 1, t[1]);
    booted_publish(b, 1, t[1]);
    assert_false(side_payload_whole(pool, &first));
    assert_int_equal(atomic_load(&log->checkpoint), checkpoint); /* all of it is to be replayed */
    for (unsigned k = 0; k < 2; k++)
        topic_put(t[k]);
    b->image = fixture_copy(&b->f);
    const char *memory = b->f.memory;
    for (unsigned which = 0; which < 2; which++)
        memcpy(b->image + ((const char *)pool_synced(pool, 0, which) - memory), &noted,
               sizeof noted);
    b->image[(const char *)pool_entry(pool, 0, flipped) - memory + 20] ^= 1;
}

static void booted_region(struct booted *b, struct region *region)
{
    region_wrap(region, b->image, TRIAL_SIZE, NULL);
    region->needs_sync = true;
}

/* Repaired, all is there that the models say. */
static void booted_check(struct booted *b)
{
    struct draws d = campaign_begin("booted");
    struct region region;
    struct embar_error err = {0};
    struct fsck_report r;
    struct log *log;
    booted_region(b, &region);
    struct log_options o = {.region = &region, .manual = true, .boot_id = boots[1]};
    assert_int_equal(log_open(&log, &o, &err), -EMBAR_ECORRUPT);
    char save[TRIAL_SAVE];
    trial_save_make(save);
    booted_region(b, &region);
    struct fsck_options check = {
        .region = &region, .repair = true, .threads = 1, .save = save, .boot_id = boots[1]};
    assert_int_equal(fsck_run(&check, &r, &err), 0);
    if (r.errors > 0)
        trial_print(&r);
    assert_int_equal(r.errors, 0);
    assert_non_null(trial_finding(&r, FSCK_ENTRY));
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    trial_save_drop(save);
    booted_region(b, &region);
    assert_int_equal(log_open(&log, &o, &err), 0);
    for (unsigned k = 0; k < 2; k++) {
        struct topic *t = log_topic(log, b->id[k]);
        assert_non_null(t);
        model_check(&b->model[k], t, &d);
        topic_put(t);
    }
    log_close(log);
}

static void booted_drop(struct booted *b)
{
    for (unsigned k = 0; k < 2; k++)
        model_free(&b->model[k]);
    munmap(b->image, TRIAL_SIZE);
    fixture_close(&b->f);
}

/* A place that was given away since says nothing of the disk. */
static void booted_reused(void **state)
{
    (void)state;
    struct booted b;
    booted_make(&b);
    booted_check(&b);
    booted_drop(&b);
}

/* What is live and did not reach the disk is the cut, as when the pool is opened. */
static void booted_cut(void **state)
{
    (void)state;
    struct booted b;
    booted_make(&b);
    b.image[b.last[0] + 30] ^= 4;
    model_unappend(&b.model[1], PIECE, 10);
    model_unappend(&b.model[1], PIECE, 10);
    booted_check(&b);
    booted_drop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(booted_reused),
                                       cmocka_unit_test(booted_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
