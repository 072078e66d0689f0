/* Each kind of damage by hand: what is said of it, and what a repair makes of it. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/fsck_trial.h"

#define BATCHES 40u
#define LENGTH  100u

/* A killed pool with one topic of BATCHES batches, half of them behind the checkpoint, and a session. */
struct pool_of {
    struct fixture f;
    char *image;
    uint32_t id;
    uint64_t session;
    char save[TRIAL_SAVE];
};

static void data_of(unsigned i, char *data)
{
    for (unsigned k = 0; k < LENGTH; k++)
        data[k] = (char)('a' + (i * 7 + k) % 26);
}

static int begin(void **state)
{
    static struct pool_of p;
    struct log_options o = {.manual = true};
    memset(&p, 0, sizeof p);
    trial_save_make(p.save);
    fixture_open_as(&p.f, TRIAL_SIZE, &o);
    p.id = fixture_topic(&p.f, "t");
    struct topic *t = log_topic(p.f.log, p.id);
    p.session = fixture_session(&p.f, p.id, 0);
    for (unsigned i = 0; i < BATCHES; i++) {
        char data[LENGTH];
        data_of(i, data);
        assert_int_equal(
            fixture_publish(&p.f, t, p.session, 1, i + 1, data, LENGTH, NULL, 10).status, 0);
        if (i == BATCHES / 2)
            assert_int_equal(log_checkpoint(p.f.log), 0);
    }
    topic_put(t);
    p.image = fixture_copy(&p.f);
    *state = &p;
    return 0;
}

static int end(void **state)
{
    struct pool_of *p = *state;
    fixture_close(&p->f);
    munmap(p->image, TRIAL_SIZE);
    trial_save_drop(p->save);
    return 0;
}

static void *at(struct pool_of *p, const void *in_log)
{
    return p->image + ((const char *)in_log - (const char *)p->f.memory);
}

/* The side record of batch i, none of which is split. */
static struct side record(struct pool_of *p, unsigned i, uint64_t *side)
{
    const struct topic *t = names_id(&p->f.log->names, p->id);
    struct side s = {0};
    unsigned n = 0;
    for (size_t k = 0; k < t->run_count && n <= i; k++) {
        *side = topic_run(t, k)->side;
        for (unsigned b = 0; b < topic_run(t, k)->batches && n <= i; b++, n++) {
            *side -= b > 0 ? side_size(s.count, s.equal) : 0;
            assert_int_equal(side_read(&p->f.log->pool, *side, &s), 0);
        }
    }
    return s;
}

static struct media_entry *last_entry(struct pool_of *p, unsigned back)
{
    return at(p, pool_entry(&p->f.log->pool, 0, p->f.log->seq.next - 1 - back));
}

static int run(struct pool_of *p, bool repair, struct fsck_report *r)
{
    struct trial t = {.image = p->image};
    struct embar_error err = {0};
    int rc = trial_fsck(&t, repair, p->save, r, &err);
    assert_true(rc == 0 || strlen(err.text) > 10);
    return rc;
}

/* Check: the finding. Repair, and a check again: nothing is left of it. */
static void found(struct pool_of *p, enum fsck_kind kind, enum fsck_severity severity)
{
    struct fsck_report r;
    assert_int_equal(run(p, false, &r), 0);
    const struct fsck_finding *f = trial_finding(&r, kind);
    if (!f)
        trial_print(&r);
    assert_non_null(f);
    assert_int_equal(f->severity, severity);
    assert_true(strlen(f->text) > 20);
    assert_false(r.repaired);
    assert_true(r.left > 0);
    fsck_report_drop(&r);
    assert_int_equal(run(p, true, &r), 0);
    assert_true(r.repaired);
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    assert_int_equal(run(p, false, &r), 0);
    if (r.errors + r.warnings > 0)
        trial_print(&r);
    assert_int_equal(r.errors + r.warnings, 0);
    fsck_report_drop(&r);
}

/* All batches stand where they stood, but for [from, to), which answer EIO. */
static void reads(struct pool_of *p, unsigned from, unsigned to)
{
    struct region region;
    struct log_options o = {.region = &region, .manual = true};
    struct embar_error err;
    struct log *log;
    region_wrap(&region, p->image, TRIAL_SIZE, NULL);
    assert_int_equal(log_open(&log, &o, &err), 0);
    struct topic *t = log_topic(log, p->id);
    assert_non_null(t);
    assert_int_equal(topic_end(t), BATCHES * LENGTH);
    for (unsigned i = 0; i < BATCHES; i++) {
        struct batch_cursor c = {.offset = (uint64_t)i * LENGTH};
        struct batch_view v;
        struct read_view bytes;
        char data[LENGTH];
        data_of(i, data);
        int rc = topic_next(t, &c, &v);
        assert_int_equal(rc, i >= from && i < to ? -EMBAR_ECORRUPT : 1);
        assert_int_equal(topic_read(t, (uint64_t)i * LENGTH, LENGTH, &bytes),
                         rc == 1 ? 0 : -EMBAR_ECORRUPT);
        if (rc != 1)
            continue;
        assert_int_equal(v.message, i * 10);
        assert_memory_equal(v.data.iov[0].iov_base, data, LENGTH);
        assert_memory_equal(bytes.iov[0].iov_base, data, LENGTH);
        read_release(&v.data);
        read_release(&bytes);
    }
    topic_put(t);
    log_close(log);
}

static void clean(void **state)
{
    struct pool_of *p = *state;
    struct fsck_report r;
    char *before = malloc(TRIAL_SIZE);
    memcpy(before, p->image, TRIAL_SIZE);
    assert_int_equal(run(p, true, &r), 0);
    assert_int_equal(r.count, 0);
    assert_int_equal(r.topics, 1);
    assert_int_equal(r.batches, BATCHES);
    assert_int_equal(r.messages, BATCHES * 10);
    assert_memory_equal(before, p->image, TRIAL_SIZE); /* nothing to repair: nothing is written */
    fsck_report_drop(&r);
    free(before);
}

static void superblock(void **state)
{
    struct pool_of *p = *state;
    p->image[MEDIA_SUPER_AT + 100] ^= 1;
    found(p, FSCK_SUPERBLOCK, FSCK_WARNING);
    memset(p->image + MEDIA_SUPER_ALT, 0, MEDIA_PAGE);
    found(p, FSCK_SUPERBLOCK, FSCK_WARNING);
    reads(p, 0, 0);
    memset(p->image, 0, MEDIA_SUPER_AT + sizeof(struct media_super));
    memset(p->image + MEDIA_SUPER_ALT, 0, sizeof(struct media_super));
    struct fsck_report r;
    assert_int_equal(run(p, false, &r), -EMBAR_ENOTPOOL);
    fsck_report_drop(&r);
}

static void lines(void **state)
{
    struct pool_of *p = *state;
    ((struct media_claim *)at(p, pool_claim(&p->f.log->pool, 0)))->term = le32_of(99);
    found(p, FSCK_CLAIM, FSCK_WARNING);
    for (unsigned which = 0; which < 2; which++) {
        memset(at(p, pool_watermark(&p->f.log->pool, 0, which)), 0x55, MEDIA_LINE);
        found(p, FSCK_WATERMARK, FSCK_WARNING);
        memset(at(p, pool_synced(&p->f.log->pool, 0, which)), 0x55, MEDIA_LINE);
        found(p, FSCK_WATERMARK, FSCK_WARNING);
    }
    reads(p, 0, 0);
}

static void root(void **state)
{
    struct pool_of *p = *state;
    memset(at(p, pool_root(&p->f.log->pool, 0, 0)), 0, sizeof(struct media_root));
    found(p, FSCK_ROOT, FSCK_WARNING);
    reads(p, 0, 0);
}

static void image_anew(struct pool_of *p)
{
    munmap(p->image, TRIAL_SIZE);
    p->image = fixture_copy(&p->f);
}

/* Both roots are gone; then the newest is what it was two checkpoints ago, which proves itself. */
static void roots(void **state)
{
    struct pool_of *p = *state;
    const struct pool *pool = &p->f.log->pool;
    struct media_root before = *pool_root(pool, 0, 0);
    for (unsigned which = 0; which < 2; which++)
        memset(at(p, pool_root(pool, 0, which)), 0, MEDIA_PAGE);
    found(p, FSCK_ROOT, FSCK_WARNING);
    reads(p, 0, 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(log_checkpoint(p->f.log), 0);
    assert_true(le64_get(pool_root(pool, 0, 0)->generation) > le64_get(before.generation));
    image_anew(p);
    memcpy(at(p, pool_root(pool, 0, 0)), &before, sizeof before);
    found(p, FSCK_ROOT, FSCK_WARNING);
    reads(p, 0, 0);
}

/* A slot that nobody uses has no root, whatever is read there. */
static void root_of_another(void **state)
{
    struct pool_of *p = *state;
    for (unsigned which = 0; which < 2; which++) {
        memset(at(p, pool_root(&p->f.log->pool, 1, which)), 0x5a, sizeof(struct media_root));
        found(p, FSCK_ROOT, FSCK_WARNING);
        reads(p, 0, 0);
    }
}

/* The power goes when half of a root is on the media: nothing is damaged. What its area held before is
 * in its copy by then, although that had been cut short. */
static void root_half(void **state)
{
    struct pool_of *p = *state;
    const struct pool *pool = &p->f.log->pool;
    struct media_root old, *at_copy, *at_root;
    bool put = false;
    assert_int_equal(log_checkpoint(p->f.log), 0);
    for (uint64_t n = 1; !put; n++) {
        struct media_root *a = pool_root(pool, 0, 0), *b = pool_root(pool, 0, 1);
        unsigned which = le64_get(b->generation) < le64_get(a->generation);
        old = *pool_root(pool, 0, which);
        memset((char *)pool_root_copy(pool, 0, which) + MEDIA_LINE, 0, MEDIA_LINE);
        fixture_arm(&p->f, n);
        assert_int_equal(log_checkpoint(p->f.log), 0);
        munmap(p->image, TRIAL_SIZE);
        p->image = p->f.crashed;
        p->f.crashed = NULL;
        assert_non_null(p->image);
        at_root = at(p, pool_root(pool, 0, which));
        at_copy = at(p, pool_root_copy(pool, 0, which));
        put = memcmp(at_root, &old, sizeof old) != 0;
    }
    assert_memory_equal(at_copy, &old, sizeof old);
    struct media_root whole = *at_root;
    for (unsigned half = 0; half < 2; half++) {
        struct fsck_report r;
        *at_root = whole;
        memcpy((char *)at_root + half * MEDIA_LINE, (char *)&old + half * MEDIA_LINE, MEDIA_LINE);
        assert_int_equal(run(p, true, &r), 0);
        if (r.errors + r.warnings > 0)
            trial_print(&r);
        assert_int_equal(r.errors + r.warnings, 0);
        assert_int_equal(trial_finding(&r, FSCK_ROOT)->severity, FSCK_REMARK);
        fsck_report_drop(&r);
    }
    reads(p, 0, 0);
}

/* One of the watermarks is what it was before, and proves itself: the other one still says that the
 * last entry, or the one before it, was durable. */
static void mark_back(void **state)
{
    struct pool_of *p = *state;
    const struct log *log = p->f.log;
    for (unsigned which = 0; which < 2; which++) {
        const struct media_watermark *line = pool_watermark(&log->pool, 0, which);
        bool newest = le64_get(line->number) == log->seq.next - 1;
        struct media_watermark before = {.number = le64_of(3), .term = line->term};
        memcpy(before.boot_id, line->boot_id, sizeof before.boot_id);
        before.crc = le32_of(crc32c(0, &before, sizeof before));
        image_anew(p);
        *(struct media_watermark *)at(p, line) = before;
        memset(last_entry(p, newest), 0, MEDIA_LINE);
        found(p, FSCK_ENTRY, FSCK_WARNING);
        reads(p, 0, 0);
    }
}

static void marks_zeroed(struct pool_of *p)
{
    image_anew(p);
    for (unsigned which = 0; which < 2; which++)
        memset(at(p, pool_watermark(&p->f.log->pool, 0, which)), 0, MEDIA_LINE);
}

/* Nobody waits for a watermark: the power may go before the first one of a later term is on the media, and
 * none of an earlier one ever was. Not so when many entries are. */
static void mark_unwritten(void **state)
{
    struct pool_of *p = *state;
    struct fsck_report r;
    fixture_kill(&p->f);
    marks_zeroed(p);
    assert_int_equal(run(p, true, &r), 0);
    if (r.count > 0)
        trial_print(&r);
    assert_int_equal(r.count, 0);
    fsck_report_drop(&r);
    reads(p, 0, 0);
    for (unsigned i = 0; i < 30; i++)
        fixture_control(
            &p->f, (struct control){
                       .kind = MEDIA_C_ATTR, .id = p->id, .flags = MEDIA_A_MODE, .mode = 0600 + i});
    marks_zeroed(p);
    found(p, FSCK_WATERMARK, FSCK_WARNING);
}

/* The newest checkpoint's names: either of their two places, a whole page of it, and then both. */
static void manifest(void **state)
{
    struct pool_of *p = *state;
    const struct log *log = p->f.log;
    const struct extent *e = log->manifest.piece[log->manifest.count - 1].extent;
    uint64_t copy = e->base + checkpoint_room(e->size);
    assert_true(copy - e->base >= MEDIA_PAGE);
    char *pristine = malloc(TRIAL_SIZE);
    memcpy(pristine, p->image, TRIAL_SIZE);
    memset(p->image + e->base, 0, MEDIA_PAGE);
    found(p, FSCK_CHECKPOINT, FSCK_WARNING);
    reads(p, 0, 0);
    memcpy(p->image, pristine, TRIAL_SIZE);
    p->image[copy + 100] ^= 1;
    found(p, FSCK_CHECKPOINT, FSCK_WARNING);
    reads(p, 0, 0);
    memcpy(p->image, pristine, TRIAL_SIZE);
    memset(p->image + e->base, 0, 128);
    memset(p->image + copy, 0, 128);
    struct fsck_report r;
    assert_int_equal(run(p, true, &r), 0);
    assert_true(r.errors + r.warnings > 0 && r.left == 0);
    fsck_report_drop(&r);
    free(pristine);
}

static void entry_bit(void **state)
{
    struct pool_of *p = *state;
    last_entry(p, 5)->offset.raw ^= 1u << 20;
    found(p, FSCK_ENTRY, FSCK_WARNING);
    reads(p, 0, 0);
}

/* Behind the end, a line of an earlier lap whose number flipped: it is none of a later one, so whoever
 * opens the pool loses nothing by it. */
static void line_ahead(void **state)
{
    struct pool_of *p = *state;
    const struct pool *pool = &p->f.log->pool;
    struct media_entry *line = at(p, pool_entry(pool, 0, p->f.log->seq.next));
    line->number = le64_of(p->f.log->seq.next + 4 * pool->geo.index_entries);
    char *image = malloc(TRIAL_SIZE);
    memcpy(image, p->image, TRIAL_SIZE);
    reads(p, 0, 0);
    memcpy(p->image, image, TRIAL_SIZE);
    found(p, FSCK_ENTRY, FSCK_WARNING);
    reads(p, 0, 0);
    free(image);
}

static void entry_gone(void **state)
{
    struct pool_of *p = *state;
    memset(last_entry(p, 7), 0, 3 * MEDIA_LINE);
    found(p, FSCK_ENTRY, FSCK_WARNING);
    reads(p, 0, 0);
}

/* What is left of a line names its batch, under a number that no entry ever had. */
static void entry_number(void **state)
{
    struct pool_of *p = *state;
    uint8_t *line = (uint8_t *)last_entry(p, 5);
    memset(line + 4, 0x5a, 4);
    memset(line + offsetof(struct media_entry, session), 0x5a, 8);
    found(p, FSCK_ENTRY, FSCK_WARNING);
    reads(p, 0, 0);
}

static void entries_at_end(void **state)
{
    struct pool_of *p = *state;
    memset(last_entry(p, 3), 0, 4 * MEDIA_LINE);
    found(p, FSCK_ENTRY, FSCK_WARNING);
    reads(p, 0, 0);
}

/* Its entry and its own record: nothing tells where the batch stood. */
static void entry_and_record(void **state)
{
    struct pool_of *p = *state;
    uint64_t side;
    (void)record(p, BATCHES - 4, &side);
    memset(last_entry(p, 3), 0, MEDIA_LINE);
    memset(p->image + side, 0, MEDIA_LINE);
    struct fsck_report r;
    assert_int_equal(run(p, false, &r), 0);
    const struct fsck_finding *f = trial_finding(&r, FSCK_LOST);
    assert_non_null(f);
    assert_string_equal(f->topic, "t");
    assert_int_equal(f->offsets.from, (BATCHES - 4) * LENGTH);
    assert_int_equal(f->offsets.to, (BATCHES - 3) * LENGTH);
    assert_null(trial_finding(&r, FSCK_KNOWN)); /* not by an earlier repair */
    fsck_report_drop(&r);
    assert_int_equal(run(p, true, &r), 0);
    assert_int_equal(r.left, 0);
    fsck_report_drop(&r);
    assert_int_equal(run(p, false, &r), 0);
    assert_non_null(trial_finding(&r, FSCK_KNOWN));
    fsck_report_drop(&r);
}

static void side(void **state)
{
    struct pool_of *p = *state;
    uint64_t where;
    (void)record(p, 11, &where);
    p->image[where + 30] ^= 4;
    found(p, FSCK_SIDE, FSCK_ERROR);
    reads(p, 11, 12);
}

static void payload(void **state)
{
    struct pool_of *p = *state;
    uint64_t where;
    p->image[record(p, 11, &where).run0 + 30] ^= 4;
    p->image[record(p, 12, &where).run0 + 30] ^= 4;
    struct fsck_report r;
    assert_int_equal(run(p, false, &r), 0);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.finding[0].messages.from, 110);
    assert_int_equal(r.finding[0].messages.to, 130);
    assert_int_equal(r.finding[0].offsets.from, 11 * LENGTH);
    assert_int_equal(r.finding[0].offsets.to, 13 * LENGTH);
    fsck_report_drop(&r);
    found(p, FSCK_PAYLOAD, FSCK_ERROR);
    reads(p, 11, 13);
    /* Known from then on. */
    assert_int_equal(run(p, false, &r), 0);
    assert_non_null(trial_finding(&r, FSCK_KNOWN));
    fsck_report_drop(&r);
}

/* What is overwritten is saved: here the damaged root, byte for byte. */
static void saved(void **state)
{
    struct pool_of *p = *state;
    const struct pool *pool = &p->f.log->pool;
    struct media_root *damaged = at(p, pool_root(pool, 0, 0));
    damaged->number.raw ^= 2;
    struct media_root was = *damaged;
    uint64_t offset = (uint64_t)((char *)damaged - p->image);
    struct fsck_report r;
    assert_int_equal(run(p, true, &r), 0);
    assert_non_null(r.saved);
    char path[128];
    snprintf(path, sizeof path, "%s/%012llx-root", r.saved, (unsigned long long)offset);
    FILE *f = fopen(path, "r");
    struct media_root got;
    assert_non_null(f);
    assert_int_equal(fread(&got, sizeof got, 1, f), 1);
    fclose(f);
    assert_memory_equal(&got, &was, sizeof got);
    fsck_report_drop(&r);
}

/* What a file holds, in `data`. */
static size_t content(const char *dir, const char *name, char *data, size_t size)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(data, 1, size, f);
    fclose(f);
    return n;
}

/* Whole, but nothing tells where in its topic it stood: it is saved aside, with what it is. */
static void unplaced(void **state)
{
    struct pool_of *p = *state;
    const unsigned first = BATCHES - 8, lone = first + 1; /* between two that are damaged */
    uint64_t where;
    for (unsigned i = first; i <= first + 2; i += 2) {
        (void)record(p, i, &where);
        memset(p->image + where, 0, MEDIA_LINE);
    }
    memset(last_entry(p, 7), 0, 3 * MEDIA_LINE);
    struct side s = record(p, lone, &where);
    struct fsck_report r;
    assert_int_equal(run(p, true, &r), 0);
    const struct fsck_finding *f = trial_finding(&r, FSCK_UNPLACED);
    assert_non_null(f);
    assert_int_equal(f->id, p->id);
    assert_int_equal(f->place.from, where);
    assert_int_equal(r.left, 0);
    char name[32], want[512], got[512], data[LENGTH];
    data_of(lone, data);
    snprintf(name, sizeof name, "%012llx-batch", (unsigned long long)s.run0);
    assert_int_equal(content(r.saved, name, got, sizeof got), LENGTH);
    assert_memory_equal(got, data, LENGTH);
    int n = snprintf(want, sizeof want,
                     "{\"topic\": \"t\", \"id\": %u, \"offset\": null, \"session\": %llu, "
                     "\"sequence\": %u, \"time\": %llu, \"messages\": 10, \"bytes\": %u, "
                     "\"lengths\": %u, \"files\": [\"%s\"]}\n",
                     (unsigned)p->id, (unsigned long long)p->session, lone + 1,
                     (unsigned long long)s.time, LENGTH, LENGTH / 10, name);
    assert_int_equal(content(r.saved, "batches.jsonl", got, sizeof got), n);
    assert_memory_equal(got, want, (size_t)n);
    fsck_report_drop(&r);
}

/* ---- A repair that is killed ------------------------------------------------------------------ */

/* The image as it stands at the n-th write-back, drain or copy. */
struct camera {
    struct pool_of *p;
    char *picture;
    unsigned countdown;
};

static void click(struct flush *flush)
{
    struct camera *c = flush->state;
    if (c->countdown > 0 && --c->countdown == 0)
        memcpy(c->picture, c->p->image, TRIAL_SIZE);
}

static void camera_writeback(struct flush *flush, const void *from, size_t n)
{
    (void)from;
    (void)n;
    click(flush);
}

static void camera_copy(struct flush *flush, void *to, const void *from, size_t n)
{
    memcpy(to, from, n);
    click(flush);
}

static const struct flush_ops camera_ops = {
    .name = "camera", .writeback = camera_writeback, .drain = click, .copy = camera_copy};

/* Killed at every moment of a repair: what is left is repaired as well as the first time. */
static void killed(void **state)
{
    struct pool_of *p = *state;
    char *damaged = malloc(TRIAL_SIZE);
    struct camera c = {.p = p, .picture = malloc(TRIAL_SIZE)};
    uint64_t where;
    unsigned n = 0;
    p->image[record(p, 3, &where).run0 + 30] ^= 4;
    memset(last_entry(p, 7), 0, 3 * MEDIA_LINE);
    memset(at(p, pool_root(&p->f.log->pool, 0, 1)), 0x33, sizeof(struct media_root));
    memcpy(damaged, p->image, TRIAL_SIZE);
    do {
        struct region region;
        struct fsck_report r;
        struct embar_error err;
        struct flush flush = {.ops = &camera_ops, .state = &c};
        memcpy(p->image, damaged, TRIAL_SIZE);
        c.countdown = ++n;
        region_wrap(&region, p->image, TRIAL_SIZE, &flush);
        struct fsck_options o = {.region = &region, .repair = true, .threads = 1, .save = p->save};
        assert_int_equal(fsck_run(&o, &r, &err), 0);
        fsck_report_drop(&r);
        if (c.countdown > 0)
            break; /* it was through before */
        memcpy(p->image, c.picture, TRIAL_SIZE);
        assert_int_equal(run(p, true, &r), 0);
        assert_int_equal(r.left, 0);
        fsck_report_drop(&r);
        assert_int_equal(run(p, false, &r), 0);
        assert_int_equal(r.errors + r.warnings, 0);
        fsck_report_drop(&r);
        reads(p, 3, 4);
    } while (n < 1000);
    print_message("killed at %u places\n", n - 1);
    assert_true(n > 5 && n < 1000);
    free(damaged);
    free(c.picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(clean, begin, end),
        cmocka_unit_test_setup_teardown(superblock, begin, end),
        cmocka_unit_test_setup_teardown(lines, begin, end),
        cmocka_unit_test_setup_teardown(root, begin, end),
        cmocka_unit_test_setup_teardown(roots, begin, end),
        cmocka_unit_test_setup_teardown(root_of_another, begin, end),
        cmocka_unit_test_setup_teardown(root_half, begin, end),
        cmocka_unit_test_setup_teardown(mark_back, begin, end),
        cmocka_unit_test_setup_teardown(mark_unwritten, begin, end),
        cmocka_unit_test_setup_teardown(manifest, begin, end),
        cmocka_unit_test_setup_teardown(entry_bit, begin, end),
        cmocka_unit_test_setup_teardown(line_ahead, begin, end),
        cmocka_unit_test_setup_teardown(entry_gone, begin, end),
        cmocka_unit_test_setup_teardown(entry_number, begin, end),
        cmocka_unit_test_setup_teardown(entries_at_end, begin, end),
        cmocka_unit_test_setup_teardown(entry_and_record, begin, end),
        cmocka_unit_test_setup_teardown(side, begin, end),
        cmocka_unit_test_setup_teardown(payload, begin, end),
        cmocka_unit_test_setup_teardown(saved, begin, end),
        cmocka_unit_test_setup_teardown(unplaced, begin, end),
        cmocka_unit_test_setup_teardown(killed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
