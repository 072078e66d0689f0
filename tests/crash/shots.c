/* Crash images: when to take them, recovering them, and crashing their recoveries. Must never change
 * what the run goes on with.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/flush_variants.h"
#include "core/log_state.h"
#include "tests/crash/aftermath.h"
#include "tests/crash/verify.h"

void trial_fail(struct trial *r, const char *fmt, ...)
{
    if (r->failed)
        return;
    r->failed = true;
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, args);
    va_end(args);
}

void epochs_run(struct log *log)
{
    log_commit(log);
    if (!background_only(log))
        return;
    seq_take_wait(log);
    while (seq_epoch(log) > 0)
        ;
    seq_give(log);
}

void log_drop(struct log *log, struct region *region)
{
    bool needs_sync = region->needs_sync;
    log_fault(log, -EIO); /* from here on nothing is written */
    region->needs_sync = false;
    log_close(log);
    region->needs_sync = needs_sync;
}

struct log_options trial_options(const struct trial *r, struct region *region, const uint8_t *boot)
{
    struct log_options o = r->options;
    o.region = region;
    o.boot_id = boot;
    return o;
}

/* ---- One image ---------------------------------------------------------------------------- */

struct shot {
    struct trial *run;
    uint64_t seed;
    enum shadow_mode mode;
    bool same_boot;
};

struct expect trial_expect(struct trial *r, bool same_boot, uint64_t random)
{
    struct expect e = {.must = &r->now,
                       .control = r->controlling ? &r->control : NULL,
                       .flight = r->flight,
                       .visible = r->visible,
                       .visibles = r->visibles,
                       .rule = &r->now,
                       .random = random};
    /* Until it is open again, what the last machine crash took is not promised any more. */
    if (r->medium.variant == MEDIUM_FILE && (!same_boot || (!r->log && r->was_off))) {
        e.must = &r->synced;
        e.tail = r->ops;
        e.tail_count = r->op_count;
        e.rule = NULL;
        e.visibles = 0;
    }
    return e;
}

static void boots(const struct trial *r, const struct shot *s, unsigned more, uint8_t boot[16])
{
    memcpy(boot, r->boot, 16);
    if (!s->same_boot)
        boot[0] = (uint8_t)(boot[0] + more);
}

static void report(const struct shot *s, const char *what, const char *why)
{
    static const char *const modes[] = {"nothing that was not drained", "what was written back",
                                        "everything", "some of it"};
    trial_fail(s->run, "%s; image %" PRIu64 " (%s), seed %#" PRIx64 ": %s", what,
               s->run->counts->images, modes[s->mode], s->seed, why);
}

/* While a pool is made over an old one: the image is still that, and all of it. */
static bool still_old(struct shot *s, struct region *region)
{
    struct trial *r = s->run;
    struct pool pool;
    if (!r->formatting || pool_attach(&pool, region, NULL) != 0 ||
        memcmp(pool.uuid, r->old_uuid, 16) != 0)
        return false;
    if (memcmp(region->base + pool.slot_base, r->old + pool.slot_base,
               pool.slot_stride * pool.geo.slots) != 0)
        report(s, "formatting is wrong", "the old pool is there without its records");
    return true;
}

/* Open the image, compare, sometimes go on with it. */
static void recover_image(struct shot *s, struct region *region, const uint8_t *boot)
{
    struct trial *r = s->run;
    struct embar_error err = {0};
    struct log_options options = trial_options(r, region, boot);
    struct log *log = NULL;
    char why[512];
    r->counts->images++;
    r->counts->behind += r->log && atomic_load(&r->log->moved) > 0;
    if (still_old(s, region))
        return;
    int rc = log_open(&log, &options, &err);
    /* A half-made pool may be none, but never one with old records. */
    if (rc && !r->formatting)
        report(s, "recovery refuses", err.text);
    if (rc)
        return;
    struct expect e = trial_expect(r, s->same_boot, s->seed);
    struct outcome out;
    if (!verify(log, &e, &out, why)) {
        report(s, "recovery is wrong", why);
    } else if (!witness_copies(log)) {
        report(s, "recovery has no second chance", "a piece of the checkpoint lacks its copy");
    } else if (chance(&s->seed, 12)) {
        r->counts->used++;
        if (!aftermath_use(&log, &options, &out.ledger, draw(&s->seed), why))
            report(s, "the recovered log does not work", why);
    }
    if (log && !r->failed && chance(&s->seed, 16)) {
        r->counts->emptied++;
        if (!aftermath_empty(log, &out.ledger, why))
            report(s, "space is lost", why);
    }
    if (log)
        log_drop(log, region);
}

/* ---- Crashes of recoveries ---------------------------------------------------------------- */

static void nested_event(void *arg, enum shadow_event event, uint64_t number)
{
    struct shot *outer = arg;
    struct trial *r = outer->run;
    (void)number;
    if (r->failed)
        return;
    for (unsigned i = event == SHADOW_WRITEBACK ? 1 : 2; i > 0; i--) {
        struct shot s = *outer;
        struct region region;
        uint8_t boot[16];
        s.seed = draw(&outer->seed);
        s.mode = chance(&s.seed, 4) ? SHADOW_ALL_OLD : SHADOW_RANDOM;
        medium_image(&r->second, s.seed, s.mode, &region);
        boots(r, &s, 2, boot);
        recover_image(&s, &region, boot);
        r->counts->nested++;
    }
}

static void crash_recovery(struct shot *s, const char *bytes)
{
    struct trial *r = s->run;
    struct region region;
    struct embar_error err = {0};
    struct log *log;
    uint8_t boot[16];
    medium_load(&r->second, bytes);
    medium_region(&r->second, &region);
    boots(r, s, 1, boot);
    struct log_options options = trial_options(r, &region, boot);
    struct shot inner = *s;
    medium_on_event(&r->second, nested_event, &inner);
    int rc = log_open(&log, &options, &err);
    medium_on_event(&r->second, NULL, NULL);
    if (rc)
        report(s, "recovery refuses", err.text);
    else
        log_drop(log, &region);
}

/* ---- When --------------------------------------------------------------------------------- */

static void choose(struct trial *r, struct shot *s)
{
    *s = (struct shot){.run = r, .seed = draw(&r->shots), .mode = SHADOW_RANDOM};
    uint32_t dice = below(&s->seed, 24);
    if (dice < 5)
        s->mode = SHADOW_ALL_OLD;
    else if (dice < 7)
        s->mode = SHADOW_PENDING;
    else if (dice < 9)
        s->mode = SHADOW_ALL_NEW;
    if (r->medium.variant == MEDIUM_PROCESS)
        s->mode = SHADOW_ALL_NEW;
    /* A process that dies alone leaves everything. */
    s->same_boot = s->mode == SHADOW_ALL_NEW && (dice != 8 || r->medium.variant == MEDIUM_PROCESS);
}

/* A crash is no damage: that is what a check says of the same moment. */
static void check(struct shot *s, const uint8_t *boot)
{
    struct trial *r = s->run;
    struct region region;
    char why[400];
    if (r->formatting || r->torn || r->hosts)
        return;
    medium_image(&r->medium, s->seed, s->mode == SHADOW_RANDOM ? SHADOW_UNTORN : s->mode, &region);
    r->counts->checked++;
    if (r->log && r->medium.variant == MEDIUM_LINES && s->mode == SHADOW_ALL_OLD &&
        !witness_root(r->log, &region))
        report(s, "a checkpoint is through", "its root's copy is not on the media");
    if (!witness_unharmed(&region, boot, why, sizeof why))
        report(s, "what only died is called damaged", why);
}

static void shoot(struct trial *r)
{
    struct shot s;
    struct region region;
    uint8_t boot[16];
    choose(r, &s);
    boots(r, &s, 1, boot);
    check(&s, boot);
    medium_image(&r->medium, s.seed, s.mode, &region);
    if (!s.same_boot && !r->formatting && r->medium.variant != MEDIUM_PROCESS &&
        chance(&s.seed, 80)) {
        crash_recovery(&s, region.base);
        return;
    }
    recover_image(&s, &region, boot);
}

static void see(struct trial *r)
{
    for (unsigned i = 0; r->log && i < r->visibles; i++)
        r->visible[i].end = topic_end(r->visible[i].topic);
}

/* Generation of the newest root that the caches hold. */
static uint64_t root_stored(struct trial *r)
{
    struct region region;
    struct pool pool;
    uint64_t newest = 0;
    medium_region(&r->medium, &region);
    if (r->formatting || pool_attach(&pool, &region, NULL) != 0)
        return 0;
    for (unsigned i = 0; i < 2 * pool.geo.slots; i++) {
        uint64_t generation = le64_get(pool_root(&pool, i / 2, i % 2)->generation);
        newest = generation > newest ? generation : newest;
    }
    return newest;
}

/* From here on the run's log is a ghost: what it still does reaches nobody. */
static void die(struct trial *r, bool kill)
{
    struct shot s;
    struct region region;
    choose(r, &s);
    /* On a file a killed process could be holding what nobody can number: kills come in between. */
    kill = r->medium.variant == MEDIUM_PROCESS ||
           (r->medium.variant != MEDIUM_FILE && (kill || below(&s.seed, 3) <= r->stutters));
    r->death = kill ? KILL : POWER;
    if (kill) {
        memcpy(r->next, medium_view(&r->medium), r->medium.size);
        r->region.flush = (struct flush){.ops = &flush_none_ops};
        r->region.needs_sync = false;
        r->counts->kills++;
    } else {
        medium_image(&r->medium, s.seed, s.mode, &region);
        r->torn = r->torn || (r->medium.shadow && s.mode == SHADOW_RANDOM);
        memcpy(r->next, region.base, r->medium.size);
    }
    r->counts->lives++;
    if (r->log)
        log_fault(r->log, -EIO);
}

void shots_now(struct trial *r)
{
    if (r->death || r->failed || (r->packing && r->log && !chance(&r->shots, 20)))
        return;
    see(r);
    r->counts->points++;
    /* Being made and being opened are short, and much depends on them. */
    unsigned most = r->fresh ? 12 : r->log || r->stutters ? 3 : 6;
    for (unsigned n = 1 + below(&r->shots, most); n > 0 && !r->failed; n--)
        shoot(r);
}

static void synced(struct trial *r)
{
    r->counts->syncs++;
    if (r->log) {
        r->synced = r->now;
        r->op_count = 0;
    }
}

void shots_event(void *arg, enum shadow_event event, uint64_t number)
{
    struct trial *r = arg;
    (void)number;
    if (r->death || r->failed)
        return;
    if (r->medium.pages && event == SHADOW_DRAINED)
        synced(r);
    if (r->medium.pages && chance(&r->shots, 6))
        pages_leak(r->medium.pages, draw(&r->shots));
    if (r->hosts && chance(&r->shots, 8))
        hosts_glance(r);
    uint32_t one_in = r->hosts ? 400 : r->moving ? 6 : r->sparse ? 40 : r->stutters ? 100 : 2;
    if (!r->failed && chance(&r->shots, r->fresh && !r->hosts ? 1 : r->log ? one_in : 2))
        shots_now(r);
    /* The moment when a root is seen and not durable is short and worth dying in. */
    uint64_t root = r->medium.shadow ? root_stored(r) : 0;
    bool fresh = root > r->root_drained;
    if (event == SHADOW_DRAINED)
        r->root_drained = root;
    bool kill = fresh && event == SHADOW_WRITEBACK && chance(&r->shots, r->stutters ? 2 : 12);
    if (!r->formatting && !r->packing && (kill || r->dies_in-- == 0) && !r->failed) {
        see(r);
        die(r, kill);
    }
}
