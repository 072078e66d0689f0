/* A pool that was killed while batches were being moved, with one move's index line damaged: what it
 * said is found again, and nothing is lost. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define SMALL 400u
#define LARGE 60000u

struct world {
    struct fixture f;
    uint32_t id[SMALL];
    unsigned topics;
};

static char bytes[LARGE];

static int publish(struct world *w, unsigned i, uint32_t length, struct draws *d)
{
    struct topic *t = log_topic(w->f.log, w->id[i]);
    for (uint32_t k = 0; k < length; k++)
        bytes[k] = (char)draw(d);
    int rc = fixture_publish(&w->f, t, 0, 0, 0, bytes, length, NULL, 1).status;
    topic_put(t);
    return rc;
}

/* Small topics in all that is free, every second one removed, and a large batch that waits. */
static void world_make(struct world *w, struct draws *d)
{
    struct log_options o = {.manual = true};
    memset(w, 0, sizeof *w);
    fixture_open_as(&w->f, TRIAL_SIZE, &o);
    for (bool full = false; !full && w->topics < SMALL; w->topics++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", w->topics);
        w->id[w->topics] = fixture_topic(&w->f, name);
        full = publish(w, w->topics, 1 + pick(d, 9000), d) != 0 ||
               publish(w, w->topics, 1 + pick(d, 9000), d) != 0;
    }
    for (unsigned i = 0; i < w->topics; i += 2) {
        fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = w->id[i]});
        w->id[i] = 0;
    }
    while (publish(w, 1, LARGE, d) == 0)
        ;
}

static struct log *image_open(struct region *region, char *image, bool readonly)
{
    struct log_options o = {.region = region, .readonly = readonly, .manual = true};
    struct embar_error err;
    struct log *log;
    region_wrap(region, image, TRIAL_SIZE, NULL);
    region->readonly = readonly;
    if (log_open(&log, &o, &err) != 0)
        fail_msg("%s", err.text);
    return log;
}

/* Pool offsets of the moves' lines behind the checkpoint. */
static unsigned moves_find(char *image, uint64_t *at, unsigned most)
{
    struct region region;
    struct log *log = image_open(&region, image, true);
    unsigned n = 0;
    for (uint64_t i = log->seq.next - log->recovered; i < log->seq.next && n < most; i++) {
        const struct media_entry *line = pool_entry(&log->pool, 0, i);
        if (line->kind == MEDIA_MOVE)
            at[n++] = (uint64_t)((const char *)line - image);
    }
    log_close(log);
    return n;
}

static void same_content(const struct world *w, char *a, char *b)
{
    struct region ra, rb;
    struct log *la = image_open(&ra, a, true), *lb = image_open(&rb, b, true);
    for (unsigned i = 0; i < w->topics; i++) {
        size_t na, nb;
        struct topic *ta = w->id[i] ? log_topic(la, w->id[i]) : NULL;
        struct topic *tb = ta ? log_topic(lb, w->id[i]) : NULL;
        if (!ta)
            continue;
        assert_non_null(tb);
        char *da = fixture_read(ta, &na), *db = fixture_read(tb, &nb);
        assert_int_equal(na, nb);
        assert_memory_equal(da, db, na);
        free(da);
        free(db);
        topic_put(ta);
        topic_put(tb);
    }
    log_close(la);
    log_close(lb);
}

static void line_damaged(const struct world *w, char *pristine, uint64_t line, const char *save)
{
    struct trial t = {.image = malloc(TRIAL_SIZE)};
    struct embar_error err;
    struct fsck_report r;
    memcpy(t.image, pristine, TRIAL_SIZE);
    memset(t.image + line, 0, MEDIA_LINE);
    assert_int_equal(trial_fsck(&t, true, save, &r, &err), 0);
    if (r.errors > 0)
        trial_print(&r);
    assert_int_equal(r.errors, 0);
    assert_int_equal(r.left, 0);
    assert_non_null(trial_finding(&r, FSCK_ENTRY));
    fsck_report_drop(&r);
    same_content(w, pristine, t.image);
    free(t.image);
}

/* Killed when a move is in the index and no checkpoint holds it, opened again, and written into: what
 * was moved away from is used for something else. */
static unsigned world_kill(struct draws *d, const char *save)
{
    static struct world w;
    static uint64_t at[2000];
    const struct draws begun = *d;
    unsigned found = 0;
    bool killed = true;
    for (uint64_t n = 1; killed && found == 0; n += 1 + n / 8) {
        *d = begun;
        world_make(&w, d);
        fixture_arm(&w.f, n);
        log_tick(w.f.log, now_monotonic());
        killed = w.f.crashed != NULL;
        found = killed ? moves_find(w.f.crashed, at, 2000) : 0;
        if (fixture_crash(&w.f) && found > 0) {
            for (unsigned i = pick(d, 30); i > 0 && publish(&w, 3, 1 + pick(d, 9000), d) == 0; i--)
                ;
            char *image = fixture_copy(&w.f);
            found = moves_find(image, at, 2000);
            for (unsigned i = 0; i < found; i++)
                line_damaged(&w, image, at[i], save);
            munmap(image, TRIAL_SIZE);
        }
        fixture_close(&w.f);
    }
    return found;
}

static void moves(void **state)
{
    (void)state;
    char save[TRIAL_SAVE];
    struct draws d = campaign_begin("moves");
    unsigned lines = 0;
    trial_save_make(save);
    for (unsigned worlds = campaign_rounds(4); worlds > 0; worlds--)
        lines += world_kill(&d, save);
    print_message("%u moves\n", lines);
    assert_true(lines > 0);
    trial_save_drop(save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(moves)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
