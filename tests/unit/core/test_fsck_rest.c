/* A pool whose whole index ring is lost, and one batch with it: what is put back of the others stands where it
 * stood, or it is saved aside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 9u
#define LENGTH  50000u

struct lost {
    struct fixture f;
    char *image, *data;
    uint32_t id;
    char save[TRIAL_SAVE];
};

static uint64_t record_of(struct lost *l, unsigned i)
{
    const struct topic *t = names_id(&l->f.log->names, l->id);
    unsigned n = 0;
    for (size_t k = 0; k < t->run_count; k++) {
        uint64_t at = topic_run(t, k)->side;
        if (topic_run(t, k)->batches == 0)
            continue; /* a second part */
        for (unsigned b = 0; b < topic_run(t, k)->batches; b++, n++, at -= MEDIA_LINE)
            if (n == i)
                return at;
    }
    fail();
    return 0;
}

/* Of one session, or of none, or with another one's between: killed before any checkpoint. */
static void begin(struct lost *l, bool session, bool other)
{
    struct log_options o = {.manual = true};
    memset(l, 0, sizeof *l);
    trial_save_make(l->save);
    l->data = malloc((size_t)BATCHES * LENGTH);
    for (size_t i = 0; i < (size_t)BATCHES * LENGTH; i++)
        l->data[i] = (char)('a' + i / LENGTH);
    fixture_open_as(&l->f, TRIAL_SIZE, &o);
    l->id = fixture_topic(&l->f, "t");
    struct topic *t = log_topic(l->f.log, l->id);
    uint64_t of[2] = {session ? fixture_session(&l->f, l->id, 0) : 0, 0};
    of[1] = other ? fixture_session(&l->f, l->id, 0) : of[0];
    uint64_t sequence[2] = {0};
    for (unsigned i = 0; i < BATCHES; i++) {
        unsigned who = other && i % 3 == 1;
        assert_int_equal(fixture_publish(&l->f, t, of[who], of[who] ? 1 : 0,
                                         of[who] ? ++sequence[who] : 0,
                                         l->data + (size_t)i * LENGTH, LENGTH, NULL, 10)
                             .status,
                         0);
    }
    topic_put(t);
    l->image = fixture_copy(&l->f);
}

static void end(struct lost *l)
{
    fixture_close(&l->f);
    munmap(l->image, TRIAL_SIZE);
    free(l->data);
    trial_save_drop(l->save);
}

/* The batches that are saved aside, by their letters. */
static unsigned saved(const struct fsck_report *r)
{
    char command[160], letter;
    unsigned set = 0;
    if (!r->saved)
        return 0;
    snprintf(command, sizeof command,
             "cd %s && for f in *-batch; do head -c 1 \"$f\" 2>/dev/null; done", r->saved);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fread(&letter, 1, 1, f) == 1)
        set |= 1u << (letter - 'a');
    pclose(f);
    return set;
}

/* The batches that can be read; each byte stands at its offset. */
static unsigned readable(struct lost *l)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    unsigned set = 0;
    region_wrap(&region, l->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, l->id);
    for (unsigned i = 0; t && (i + 1ull) * LENGTH <= topic_end(t); i++) {
        struct read_view v;
        bool same = true;
        if (topic_read(t, (uint64_t)i * LENGTH, LENGTH, &v) != 0)
            continue;
        for (unsigned k = 0; k < (unsigned)v.pieces; k++)
            for (size_t b = 0; b < v.iov[k].iov_len; b++)
                same = same && ((const char *)v.iov[k].iov_base)[b] == (char)('a' + i);
        assert_true(same);
        if (v.bytes == LENGTH)
            set |= 1u << i;
        read_release(&v);
    }
    if (t)
        topic_put(t);
    log_close(log);
    return set;
}

static void each_lost(bool session, bool other)
{
    for (unsigned gone = 0; gone <= BATCHES; gone++) {
        struct lost l;
        struct fsck_report r;
        struct embar_error err = {0};
        begin(&l, session, other);
        const struct pool *pool = &l.f.log->pool;
        memset(l.image + ((char *)pool_entry(pool, 0, 0) - (char *)l.f.memory), 0xff,
               64 * MEDIA_LINE);
        if (gone < BATCHES)
            l.image[record_of(&l, gone) + 4] ^= 1;
        struct trial t = {.image = l.image};
        assert_int_equal(trial_fsck(&t, true, l.save, &r, &err), 0);
        unsigned all = ((1u << BATCHES) - 1) & ~(1u << gone), kept = readable(&l) | saved(&r);
        assert_int_equal(kept & all, all);
        fsck_report_drop(&r);
        end(&l);
    }
}

static void of_a_session(void **state)
{
    (void)state;
    each_lost(true, false);
}

static void of_two_sessions(void **state)
{
    (void)state;
    each_lost(true, true);
}

static void of_nobody(void **state)
{
    (void)state;
    each_lost(false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_session),
        cmocka_unit_test(of_two_sessions),
        cmocka_unit_test(of_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
