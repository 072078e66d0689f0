/* One pool's lives: it is formatted, opened, worked on (workload.c), and closed, killed or cut off from
 * its power, over and over, until enough images of it were taken.
 */
#include <stdlib.h>
#include <string.h>

#include "core/flush_variants.h"
#include "core/log_state.h"
#include "tests/crash/verify.h"

struct opening {
    struct trial *run;
    struct log *log;
    int rc;
    struct embar_error err;
};

static void job_open(void *arg)
{
    struct opening *o = arg;
    struct log_options options = trial_options(o->run, &o->run->region, o->run->boot);
    o->rc = log_open(&o->log, &options, &o->err);
}

/* What the recovered log says about what was in flight is from now on promised. */
static void adopt(struct trial *r, struct log *log)
{
    struct expect e = {.must = &r->now,
                       .control = r->controlling ? &r->control : NULL,
                       .flight = r->flight,
                       .visible = r->visible,
                       .visibles = r->visibles,
                       .rule = &r->now,
                       .random = r->random};
    if (r->was_off && r->medium.variant == MEDIUM_FILE) {
        e.must = &r->synced;
        e.tail = r->ops;
        e.tail_count = r->op_count;
        e.rule = NULL;
        e.visibles = 0;
    }
    struct outcome out;
    char why[512];
    if (!verify(log, &e, &out, why)) {
        trial_fail(r, "the recovered log, opened again, is wrong: %s", why);
        return;
    }
    r->now = out.ledger;
    r->now.number = atomic_load(&log->committed);
    r->now.old = 0;
    r->now.starved = false;
    memset(r->flight, 0, sizeof r->flight);
    r->controlling = false;
    r->visibles = 0;
    r->open = NULL;
    if (r->was_off || r->medium.variant != MEDIUM_FILE) {
        r->synced = r->now;
        r->synced.number = out.cut;
        r->op_count = 0;
    }
}

/* Open what there is, on the medium, with images being taken; false: died of it. */
static bool live(struct trial *r)
{
    struct opening o = {.run = r};
    medium_region(&r->medium, &r->region);
    uint32_t soon = r->stutters && chance(&r->random, 2) ? 16 : 60;
    /* What a killed process left in the caches, the next one builds upon: cut that off, too. */
    bool shaky = r->death == KILL && chance(&r->random, 2);
    uint32_t late = shaky ? 120 : r->sparse ? 5000 : 900;
    r->dies_in = below(&r->random, r->stutters || chance(&r->random, 4) ? soon : late);
    r->death = ALIVE;
    medium_on_event(&r->medium, shots_event, r);
    team_call(r->team, below(&r->random, TEAM_SIZE), job_open, &o);
    if (o.rc && !r->death)
        trial_fail(r, "opening: %s", o.err.text);
    if (r->death || r->failed) {
        if (o.log)
            log_drop(o.log, &r->region);
        return false;
    }
    adopt(r, o.log);
    r->fresh = r->was_off = r->crowded = false;
    r->log = o.log;
    return true;
}

/* After a death nothing of the process is left. */
static void bury(struct trial *r)
{
    medium_on_event(&r->medium, NULL, NULL);
    meanwhile_unpin(r, false);
    if (r->log)
        log_drop(r->log, &r->region);
    r->log = NULL;
    for (unsigned i = 0; i < FLIGHTS; i++)
        if (r->flight[i].state != FLIGHT_ANNOUNCED)
            r->flight[i].state = FLIGHT_FREE;
    if (r->death == KILL) {
        medium_resume(&r->medium, r->next);
    } else {
        medium_load(&r->medium, r->next);
        r->boot[0]++;
        r->was_off = true;
    }
}

/* On a file, kills come between operations (see die in shots.c). */
static void kill_between(struct trial *r)
{
    workload_settle(r);
    if (r->death)
        return;
    memcpy(r->next, medium_view(&r->medium), r->medium.size);
    r->death = KILL;
    r->region.flush = (struct flush){.ops = &flush_none_ops};
    r->region.needs_sync = false;
    r->counts->kills++;
    for (unsigned i = 0; i < FLIGHTS; i++) /* held: never ordered */
        r->flight[i].state = FLIGHT_FREE;
}

/* One life: ends closed, dead or failed. */
static void life(struct trial *r)
{
    uint64_t busy = 20 + below(&r->random, r->sparse && !chance(&r->random, 3) ? 2000 : 400);
    if (r->medium.variant == MEDIUM_FILE)
        busy /= 4;
    for (uint64_t i = 0; i < busy && !r->death && !r->failed; i++) {
        workload_step(r);
        if (r->hosts && chance(&r->shots, 3))
            hosts_look(r);
    }
    if (r->death || r->failed)
        return;
    if (r->medium.variant == MEDIUM_FILE && !chance(&r->random, 3))
        kill_between(r);
    else
        workload_close(r);
}

static void format_over(struct trial *r)
{
    struct embar_error err = {0};
    medium_load(&r->medium, r->old);
    medium_region(&r->medium, &r->region);
    struct pool pool;
    if (pool_attach(&pool, &r->region, NULL) == 0)
        memcpy(r->old_uuid, pool.uuid, sizeof r->old_uuid);
    r->death = ALIVE;
    medium_on_event(&r->medium, shots_event, r);
    r->formatting = r->fresh = true;
    if (pool_format(&r->region, &r->options.geo, &err) != 0)
        trial_fail(r, "formatting: %s", err.text);
    /* Who was told that it is made finds it made. */
    r->formatting = false;
    shots_now(r);
}

void trial_lives(struct trial *r, char *old)
{
    r->old = malloc(r->medium.size);
    if (!r->old)
        abort();
    memcpy(r->old, old, r->medium.size);
    r->options.manual = true;
    r->options.hold_ms = 3600 * 1000;
    ledger_init(&r->now, &r->lists);
    r->synced = r->now;
    r->next = malloc(r->medium.size);
    if (!r->next)
        abort();
    r->busy = TEAM_SIZE;
    format_over(r);
    medium_on_moment(&r->medium, meanwhile_turn, r);
    while (!r->failed && r->counts->images < r->image_limit) {
        if (live(r))
            life(r);
        if (r->death && !r->failed)
            bury(r);
        else
            r->was_off = false;
    }
    r->death = r->death ? r->death : KILL; /* images end here */
    medium_on_event(&r->medium, NULL, NULL);
    medium_on_moment(&r->medium, NULL, NULL);
    meanwhile_unpin(r, false);
    if (r->log)
        log_drop(r->log, &r->region);
    r->log = NULL;
    memcpy(old, medium_view(&r->medium), r->medium.size);
    free(r->next);
    free(r->old);
    free(r->ops);
    lists_free(&r->lists);
}
