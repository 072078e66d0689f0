/* A check of a whole pool, and its repair: the order of things (recovery). See fsck.h.
 */
#include "core/fsck.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_state.h"
#include "core/guard.h"

/* Nobody may serve it meanwhile: a check would take what changes for damage. */
static int lock_all(struct region *r, bool repair, struct embar_error *err)
{
    int rc = 0;
    for (unsigned slot = 0; rc == 0 && slot < MEDIA_MAX_SLOTS; slot++)
        rc = repair ? region_lock_slot(r, slot, err) : region_lock_look(r, slot, err);
    return rc;
}

/* Where it stands in the pool's structure first, then by topic and offset: workers report in any
 * order. */
static int by_place(const void *a, const void *b)
{
    const struct fsck_finding *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    if (x->offsets.from != y->offsets.from)
        return x->offsets.from < y->offsets.from ? -1 : 1;
    return (int)x->kind - (int)y->kind;
}

static void report_settle(struct fsck *f, size_t walked)
{
    struct fsck_report *r = f->report;
    if (r->count > walked + 1)
        qsort(r->finding + walked, r->count - walked, sizeof *r->finding, by_place);
    r->left = r->repaired ? f->unlisted_left : f->unlisted;
    for (size_t i = 0; i < r->count; i++)
        r->left += r->finding[i].severity != FSCK_REMARK && !r->finding[i].repaired;
}

static int check(struct fsck *f, struct embar_error *err)
{
    int rc = fsck_supers(f, err);
    if (rc)
        return rc;
    fsck_lines(f);
    rc = fsck_state(f, err);
    if (rc)
        return rc;
    size_t walked = f->report->count;
    rc = fsck_walk(f);
    if (rc)
        return embar_fail(err, rc, "checking the batches");
    rc = fsck_keep(f);
    if (rc)
        return embar_fail(err, rc, "looking for batches that would be lost");
    rc = f->state_damaged ? fsck_room(f) : 0;
    if (rc)
        return embar_fail(err, rc, "looking for the space that a repair takes");
    rc = f->state_damaged ? fsck_sane(f) : 0;
    if (rc)
        return embar_fail(err, rc, "looking at what a repair would write");
    bool work = f->report->errors + f->report->warnings > 0;
    if (f->opt->repair && work)
        rc = fsck_repair(f, err);
    report_settle(f, walked);
    return rc;
}

struct checked {
    struct fsck *f;
    struct embar_error *err;
};

static int guarded(void *arg)
{
    const struct checked *c = arg;
    return check(c->f, c->err);
}

int fsck_run(const struct fsck_options *opt, struct fsck_report *report, struct embar_error *err)
{
    struct fsck f = {.opt = opt, .report = report, .region = opt->region};
    memset(report, 0, sizeof *report);
    report->quick = opt->quick;
    pthread_mutex_init(&f.lock, NULL);
    int rc = lock_all(opt->region, opt->repair, err);
    struct checked c = {&f, err};
    if (rc == 0)
        rc = guard_run(opt->region, guarded, &c);
    /* Left in the middle of anything: what it held stays, for who is about to end anyway. */
    if (rc == -EMBAR_EFAULTED && region_faulted(opt->region))
        return embar_fail(err, rc, "%s cannot be read at byte %llu",
                          opt->region->spec ? opt->region->spec : "the pool",
                          (unsigned long long)atomic_load(&opt->region->fault) - 1);
    if (f.log)
        log_free(f.log);
    fsck_orphans_drop(&f);
    free(f.let_go);
    free(f.unplaced);
    free(f.written);
    free(f.known);
    pthread_mutex_destroy(&f.lock);
    return rc;
}
