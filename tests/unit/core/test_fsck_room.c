/* A pool that lost the record of a trim and is too full for a repair: what the trim had given up goes
 * again, and what was left of it is saved aside, byte for byte. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 120u
#define LARGEST 70000u

struct sample {
    char *data;
    uint32_t length, count, lengths[8];
    uint64_t offset;
};

struct world {
    struct fixture f;
    uint32_t id, before; /* before: a topic that is looked at first */
    struct sample sample[BATCHES];
    unsigned samples;
    char *image;
    char save[TRIAL_SAVE];
    struct trial_step step;
};

static void sample_make(struct world *w, struct draws *d)
{
    struct sample *s = &w->sample[w->samples];
    static const uint32_t most[] = {60, 900, 9000, LARGEST / 8};
    uint32_t each = most[pick(d, 4)];
    s->count = 1 + pick(d, 8);
    s->offset = w->samples ? s[-1].offset + s[-1].length : 0;
    s->length = 0;
    for (uint32_t i = 0; i < s->count; i++)
        s->length += s->lengths[i] = 1 + pick(d, each);
    s->data = malloc(s->length);
    assert_non_null(s->data);
    for (uint32_t i = 0; i < s->length; i++)
        s->data[i] = (char)draw(d);
}

static int begin(void **state)
{
    static struct world w;
    struct log_options o = {.manual = true};
    struct draws d = campaign_begin("room");
    memset(&w, 0, sizeof w);
    trial_save_make(w.save);
    fixture_open_as(&w.f, TRIAL_SIZE, &o);
    static const char data[30000];
    w.before = fixture_topic(&w.f, "before");
    struct topic *t = log_topic(w.f.log, w.before);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(fixture_publish(&w.f, t, 0, 0, 0, data, sizeof data, NULL, 1).status, 0);
    topic_put(t);
    w.id = fixture_topic(&w.f, "a \"topic\"");
    t = log_topic(w.f.log, w.id);
    for (bool full = false; !full && w.samples < BATCHES; w.samples += !full) {
        sample_make(&w, &d);
        const struct sample *s = &w.sample[w.samples];
        full = fixture_publish(&w.f, t, 0, 0, 0, s->data, s->length, s->lengths, s->count).status;
        if (full)
            free(s->data);
    }
    topic_put(t);
    assert_int_equal(log_checkpoint(w.f.log), 0);
    w.image = fixture_copy(&w.f);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    fixture_close(&w->f);
    munmap(w->image, TRIAL_SIZE);
    for (unsigned i = 0; i < w->samples; i++)
        free(w->sample[i].data);
    trial_save_drop(w->save);
    return 0;
}

static struct topic *load(struct world *w)
{
    trial_step_begin(&w->step, w->image, w->save);
    w->step.fsck.state_damaged = true;
    return names_id(&w->step.fsck.log->names, w->id);
}

/* The place of run i was given to newer batches. */
static uint64_t give_away(struct world *w, struct topic *t, size_t i)
{
    struct run *r = topic_run(t, i);
    extent_put(w->step.fsck.log->extents,
               extent_find(w->step.fsck.log->extents, r->payload, r->order));
    *r = (struct run){
        .offset = r->offset, .message = r->message, .batches = r->batches, .flags = MEDIA_RUN_LOST};
    t->ordered_end = topic_run_end(t, i);
    return t->ordered_end;
}

static void fill(struct world *w)
{
    while (extent_new(w->step.fsck.log->extents, 0, EXTENT_META))
        ;
}

/* ---- What was saved --------------------------------------------------------------------------- */

static size_t content(const struct world *w, const char *name, char *data, size_t size)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", w->step.report.saved, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(data, 1, size, f);
    fclose(f);
    return n;
}

/* The names in quotes behind `key`, up to `most`. */
static unsigned names_behind(const char *line, const char *key, char name[2][64], unsigned most)
{
    unsigned n = 0;
    const char *at = strstr(line, key);
    assert_non_null(at);
    at += strlen(key);
    while (n < most && sscanf(at, "%*[[ ,]%*[\"]%63[^\"]", name[n]) == 1) {
        at = strstr(at, name[n]) + strlen(name[n]) + 1;
        n++;
    }
    return n;
}

static void sample_saved(const struct world *w, const struct sample *s, const char *line)
{
    static char got[8 * LARGEST];
    char name[2][64], want[128];
    le32 lengths[8];
    size_t size = 0;
    assert_non_null(strstr(line, "\"topic\": \"a \\\"topic\\\"\","));
    snprintf(want, sizeof want, "\"messages\": %u, \"bytes\": %u,", s->count, s->length);
    assert_non_null(strstr(line, want));
    unsigned files = names_behind(line, "\"files\":", name, 2);
    assert_true(files > 0);
    for (unsigned i = 0; i < files; i++)
        size += content(w, name[i], got + size, sizeof got - size);
    assert_int_equal(size, s->length);
    assert_memory_equal(got, s->data, size);
    assert_int_equal(names_behind(line, "\"lengths\":", name, 1), 1);
    assert_int_equal(content(w, name[0], (char *)lengths, sizeof lengths), 4 * s->count);
    for (uint32_t i = 0; i < s->count; i++)
        assert_int_equal(le32_get(lengths[i]), s->lengths[i]);
}

/* A line each of the batches up to `to`, but for those in [lost, behind): none of others. */
static void all_saved(const struct world *w, uint64_t lost, uint64_t behind, uint64_t to)
{
    static char lines[1 << 20];
    size_t n = content(w, "batches.jsonl", lines, sizeof lines - 1), at = 0;
    unsigned halves = 0;
    lines[n] = 0;
    for (unsigned i = 0; i < w->samples && w->sample[i].offset < to; i++) {
        const struct sample *s = &w->sample[i];
        char *newline = strchr(lines + at, '\n'), want[64];
        if (s->offset >= lost && s->offset < behind)
            continue;
        assert_non_null(newline);
        *newline = 0;
        snprintf(want, sizeof want, "\"offset\": %llu,", (unsigned long long)s->offset);
        assert_non_null(strstr(lines + at, want));
        sample_saved(w, s, lines + at);
        halves += strstr(lines + at, "-batch-2\"") != NULL;
        at = (size_t)(newline - lines) + 1;
    }
    assert_int_equal(at, n);
    assert_true(halves > 0);
}

/* What is not let go stands where it stood. */
static void rest_reads(struct world *w, uint64_t base)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    size_t size;
    region_wrap(&region, w->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, w->id);
    assert_int_equal(topic_base(t), base);
    char *got = fixture_read(t, &size);
    for (unsigned i = 0; i < w->samples; i++) {
        const struct sample *s = &w->sample[i];
        if (s->offset >= base)
            assert_memory_equal(got + (s->offset - base), s->data, s->length);
    }
    const struct sample *last = &w->sample[w->samples - 1];
    assert_int_equal(base + size, last->offset + last->length);
    free(got);
    topic_put(t);
    log_close(log);
}

/* The run before the last that holds half of a split batch is given away. */
static size_t middle(const struct topic *t)
{
    size_t i = t->run_count - 2;
    while (i > 2 && (topic_run(t, i)->batches == 0 || topic_run(t, i + 1)->batches == 0))
        i--;
    return i;
}

static void saved_aside(void **state)
{
    struct world *w = *state;
    struct embar_error err;
    struct topic *t = load(w);
    size_t i = middle(t);
    uint64_t lost = topic_run(t, i)->offset, to = give_away(w, t, i);
    fill(w);
    assert_int_equal(fsck_room(&w->step.fsck), 0);
    assert_int_equal(topic_base(t), to);
    const struct fsck_finding *x = trial_finding(&w->step.report, FSCK_LOST);
    assert_non_null(x);
    assert_int_equal(x->offsets.to, to);
    assert_int_equal(fsck_repair(&w->step.fsck, &err), 0);
    all_saved(w, lost, to, to);
    trial_step_end(&w->step);
    rest_reads(w, to);
}

/* Where there is space for the repair, nothing is let go. */
static void kept(void **state)
{
    struct world *w = *state;
    struct topic *t = load(w);
    give_away(w, t, middle(t));
    assert_int_equal(fsck_room(&w->step.fsck), 0);
    assert_int_equal(topic_base(t), 0);
    assert_int_equal(w->step.report.count, 0);
    trial_step_end(&w->step);
}

/* What was perhaps moved is let go only when that of others is not enough. */
static void doubted_last(void **state)
{
    struct world *w = *state;
    for (unsigned both = 0; both < 2; both++) {
        struct topic *t = load(w), *before = names_id(&w->step.fsck.log->names, w->before);
        give_away(w, before, before->run_count - 1);
        before->doubted = true;
        if (!both)
            give_away(w, t, middle(t));
        fill(w);
        assert_int_equal(fsck_room(&w->step.fsck), 0);
        assert_int_equal(topic_base(before) > 0, both);
        assert_int_equal(topic_base(t) > 0, !both);
        trial_step_end(&w->step);
    }
}

/* Where it does not fit whatever is let go, the pool stays as it is. */
static void too_full(void **state)
{
    struct world *w = *state;
    struct embar_error err;
    struct media_entry *line;
    char *before = malloc(TRIAL_SIZE);
    (void)load(w);
    struct fsck *f = &w->step.fsck;
    line = pool_entry(&f->pool, 0, f->log->seq.next + 9); /* of an entry that never was */
    line->number = le64_of(f->highest + 1000 * f->pool.geo.index_entries);
    fill(w);
    assert_non_null(before);
    memcpy(before, w->image, TRIAL_SIZE);
    assert_int_equal(fsck_room(f), 0);
    assert_int_equal(fsck_repair(f, &err), -EMBAR_EFULL);
    assert_false(w->step.report.repaired);
    assert_memory_equal(before, w->image, TRIAL_SIZE);
    free(before);
    trial_step_end(&w->step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(saved_aside, begin, end),
        cmocka_unit_test_setup_teardown(kept, begin, end),
        cmocka_unit_test_setup_teardown(doubted_last, begin, end),
        cmocka_unit_test_setup_teardown(too_full, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
