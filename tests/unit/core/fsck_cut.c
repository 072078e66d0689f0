/* A repair that is cut off at any of the operations by which it writes, and made again: see fsck_trial.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/fsck_trial.h"

/* What is left then of what was stored: all, as of a process that was killed; only what is durable; or some lines
 * of the rest, too. */
enum way { KILLED, DURABLE, SOME, WAYS };

struct cutter {
    char *memory, *back, *durable; /* as stored, as last written back, as drained */
    uint8_t *pending;              /* lines written back and not drained */
    uint64_t count, at;            /* operations so far; before which one it is cut, 0: none */
    enum way way;
    struct draws d;
    char *left;    /* the pool as it stands then */
    size_t errors; /* that the repair found */
};

static char *image_new(void)
{
    char *image = aligned_alloc(MEDIA_PAGE, TRIAL_SIZE);
    assert_non_null(image);
    return image;
}

static void cut_begin(struct cutter *c)
{
    *c = (struct cutter){.memory = image_new(),
                         .back = image_new(),
                         .durable = image_new(),
                         .left = image_new(),
                         .pending = malloc(TRIAL_SIZE / MEDIA_LINE)};
    assert_non_null(c->pending);
}

static void cut_at(struct cutter *c, const char *damaged, uint64_t at, enum way way, struct draws d)
{
    c->count = 0;
    c->at = at;
    c->way = way;
    c->d = d;
    memcpy(c->memory, damaged, TRIAL_SIZE);
    memcpy(c->back, damaged, TRIAL_SIZE);
    memcpy(c->durable, damaged, TRIAL_SIZE);
    memset(c->pending, 0, TRIAL_SIZE / MEDIA_LINE);
}

static void cut_end(struct cutter *c)
{
    free(c->memory);
    free(c->back);
    free(c->durable);
    free(c->left);
    free(c->pending);
}

static void passed(struct cutter *c)
{
    if (++c->count != c->at)
        return;
    memcpy(c->left, c->memory, TRIAL_SIZE);
    for (uint64_t i = 0; c->way != KILLED && i < TRIAL_SIZE; i += MEDIA_LINE)
        if (memcmp(c->left + i, c->durable + i, MEDIA_LINE) != 0 &&
            (c->way == DURABLE || one_in(&c->d, 2)))
            memcpy(c->left + i, c->durable + i, MEDIA_LINE);
}

static void cut_writeback(struct flush *flush, const void *p, size_t n)
{
    struct cutter *c = flush->state;
    uint64_t at = (uint64_t)((const char *)p - c->memory) / MEDIA_LINE * MEDIA_LINE;
    uint64_t end = (uint64_t)((const char *)p - c->memory) + n;
    passed(c);
    for (; at < end; at += MEDIA_LINE) {
        memcpy(c->back + at, c->memory + at, MEDIA_LINE);
        c->pending[at / MEDIA_LINE] = 1;
    }
}

static void cut_drain(struct flush *flush)
{
    struct cutter *c = flush->state;
    passed(c);
    for (uint64_t i = 0; i < TRIAL_SIZE / MEDIA_LINE; i++)
        if (c->pending[i])
            memcpy(c->durable + i * MEDIA_LINE, c->back + i * MEDIA_LINE, MEDIA_LINE);
    memset(c->pending, 0, TRIAL_SIZE / MEDIA_LINE);
}

static void cut_copy(struct flush *flush, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    cut_writeback(flush, dst, n);
}

static const struct flush_ops cut_ops = {
    .name = "cut", .writeback = cut_writeback, .drain = cut_drain, .copy = cut_copy};

static int cut_repair(struct cutter *c, const char *save)
{
    struct fsck_report r;
    struct embar_error err;
    struct region region;
    struct flush flush = {.ops = &cut_ops, .state = c};
    region_wrap(&region, c->memory, TRIAL_SIZE, &flush);
    struct fsck_options o = {.region = &region, .repair = true, .threads = 1, .save = save};
    int rc = fsck_run(&o, &r, &err);
    c->errors = r.errors;
    fsck_report_drop(&r);
    return rc;
}

/* ---- What is served ------------------------------------------------------------------------------ */

/* How much from `at` on is of one kind: can be read (v->pieces), or not. */
static uint64_t stretch(struct topic *t, uint64_t at, struct read_view *v)
{
    if (topic_read(t, at, UINT32_MAX, v) == 0 && v->bytes > 0)
        return v->iov[0].iov_len;
    *v = (struct read_view){.pieces = 0};
    return topic_run_end(t, topic_run_find(t, at)) - at;
}

static void topic_same(const char *cut, struct topic *a, struct topic *b)
{
    if (topic_base(b) != topic_base(a) || topic_end(b) != topic_end(a) ||
        b->first_message != a->first_message || b->last_message_end != a->last_message_end)
        fail_msg("%s: topic %u begins or ends elsewhere", cut, a->id);
    for (uint64_t at = topic_base(a), n; at < topic_end(a); at += n) {
        struct read_view v, w;
        uint64_t more = stretch(b, at, &w);
        n = stretch(a, at, &v);
        n = more < n ? more : n;
        bool same = (v.pieces > 0) == (w.pieces > 0) &&
                    (v.pieces == 0 || memcmp(v.iov[0].iov_base, w.iov[0].iov_base, n) == 0);
        if (v.pieces > 0)
            read_release(&v);
        if (w.pieces > 0)
            read_release(&w);
        if (!same)
            fail_msg("%s: topic %u is another from byte %" PRIu64 " on", cut, a->id, at);
    }
}

static void served_same(const char *cut, char *uncut, char *again)
{
    struct embar_error err;
    struct region ra, rb;
    struct log *a, *b;
    char one[MEDIA_MAX_PATH + 1], other[MEDIA_MAX_PATH + 1];
    assert_int_equal(trial_image_open(&a, &ra, uncut, true, &err), 0);
    if (trial_image_open(&b, &rb, again, true, &err) != 0)
        fail_msg("%s: the pool does not open: %s", cut, err.text);
    for (struct topic *x = a->names.by_id; x; x = x->by_id.next) {
        struct topic *y = names_id(&b->names, x->id);
        if (!y)
            fail_msg("%s: number %u is gone", cut, x->id);
        assert_int_equal(log_path(a, x->id, one, sizeof one), 0);
        assert_int_equal(log_path(b, x->id, other, sizeof other), 0);
        assert_string_equal(other, one);
        if (!names_is_dir(x))
            topic_same(cut, x, y);
    }
    assert_int_equal(b->names.topics + b->names.directories,
                     a->names.topics + a->names.directories);
    assert_int_equal(b->sessions.count, a->sessions.count);
    log_close(a);
    log_close(b);
}

/* Made again on what was left, and checked. */
static void cut_again(struct trial *t, const char *save, const char *cut,
                      const struct cutter *uncut)
{
    struct fsck_report r;
    struct embar_error err;
    if (trial_fsck(t, true, save, &r, &err) != 0)
        fail_msg("%s: not repaired: %s", cut, err.text);
    if (r.left > 0)
        fail_msg("%s: something is left", cut);
    if (r.errors > uncut->errors)
        fail_msg("%s: %zu errors, not %zu", cut, r.errors, uncut->errors);
    fsck_report_drop(&r);
    assert_int_equal(trial_fsck(t, false, NULL, &r, &err), 0);
    if (r.errors + r.warnings > 0) {
        print_message("%s\n", cut);
        trial_print(&r);
    }
    assert_int_equal(r.errors + r.warnings, 0);
    fsck_report_drop(&r);
    served_same(cut, uncut->memory, t->image);
}

void trial_cuts(struct trial *t, const char *save, struct draws d, unsigned most)
{
    struct cutter whole, c;
    char cut[96], *damaged = t->image;
    cut_begin(&whole);
    cut_begin(&c);
    cut_at(&whole, damaged, 0, KILLED, d);
    bool repaired = cut_repair(&whole, save) == 0;
    uint64_t ways = repaired ? whole.count * WAYS : 0;
    for (uint64_t i = 0; i < (most < ways ? most : ways); i++) {
        uint64_t which = most < ways ? draw(&d) % ways : i;
        (void)snprintf(cut, sizeof cut, "cut off at operation %" PRIu64 " of %" PRIu64 ", way %u",
                       which / WAYS + 1, whole.count, (unsigned)(which % WAYS));
        cut_at(&c, damaged, which / WAYS + 1, (enum way)(which % WAYS), d);
        assert_int_equal(cut_repair(&c, save), 0);
        t->image = c.left;
        cut_again(t, save, cut, &whole);
    }
    t->image = damaged;
    cut_end(&c);
    cut_end(&whole);
}
