/* The workload: random publishers (publish.c) and administrators of a small log, whose process or machine
 * dies now and then. Keeps the promises (trial.h: now, synced, ops) by what completions say, and by
 * nothing else that the log says.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/crash/publish.h"
#include "tests/crash/verify.h"

/* ---- Administrating ----------------------------------------------------------------------- */

struct told {
    struct completion completion;
    struct trial *run;
    struct control control;
};

static void control_done(struct completion *self, const struct commit *c)
{
    struct told *t = (struct told *)self;
    struct trial *r = t->run;
    if (r->death)
        return;
    if (c->status == 0 && r->control.kind <= MEDIA_C_CREATE && c->id != r->now.next_id)
        trial_fail(r, "node %u was made, %u was next", c->id, r->now.next_id);
    if (c->status == 0 && r->control.kind == MEDIA_C_OPEN && c->session != c->number)
        trial_fail(r, "session %" PRIu64 " was opened by entry %" PRIu64, c->session, c->number);
    trial_settled(r, c->status, c->number);
}

static void job_control(void *arg)
{
    struct told *t = arg;
    log_control(t->run->log, &t->control);
    epochs_run(t->run->log);
}

static void control_by(struct trial *r, unsigned member, struct control c)
{
    struct told *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    *t = (struct told){.completion.done = control_done, .run = r, .control = c};
    t->control.completion = &t->completion;
    r->control = c;
    r->controlling = true;
    team_call(r->team, member, job_control, t);
    if (!r->death && r->controlling)
        trial_fail(r, "control action %d was not answered", (int)c.kind);
    free(t);
    trial_tidy(r);
}

static void control(struct trial *r, struct control c)
{
    control_by(r, trial_member(r), c);
}

static uint8_t some_order(struct trial *r)
{
    static const uint8_t orders[4] = {5, 2, 5, 0};
    return orders[below(&r->random, 4)];
}

/* Such as come into force within a short life. */
static void settings(struct trial *r, struct control *c)
{
    c->policy = chance(&r->random, 4) == r->packed;
    c->value = chance(&r->random, r->packed ? 12 : 3) ? below(&r->random, 200u << 10) : 0;
    c->value2 =
        chance(&r->random, r->packed ? 12 : 3) ? (1 + below(&r->random, 5)) * 1000000000ull : 0;
}

static struct control named(struct trial *r, enum media_control_kind kind)
{
    struct control c = {.kind = kind,
                        .parent = some_node(r, true)->id,
                        .mode = below(&r->random, 01000),
                        .uid = below(&r->random, 5),
                        .gid = below(&r->random, 5),
                        .ack = 1};
    c.order = kind == MEDIA_C_MKDIR ? 0 : some_order(r);
    if (r->brim && kind == MEDIA_C_CREATE)
        settings(r, &c);
    snprintf(c.name, sizeof c.name, "n%u", below(&r->random, 60));
    return c;
}

static void attributes(struct trial *r)
{
    struct node *n = some_node(r, chance(&r->random, 4));
    if (!n || n->id == LOG_ROOT_ID)
        return;
    uint16_t flags =
        n->is_dir ? MEDIA_A_MODE | MEDIA_A_OWNER : (uint16_t)(draw(&r->random) & 0xffu);
    struct control c = {.kind = MEDIA_C_ATTR,
                        .id = n->id,
                        .flags = flags,
                        .mode = below(&r->random, 01000),
                        .uid = below(&r->random, 9),
                        .gid = below(&r->random, 9),
                        .order = some_order(r),
                        .ack = (uint8_t)below(&r->random, 3),
                        .policy = (uint8_t)below(&r->random, 2),
                        .value = draw(&r->random) >> below(&r->random, 64),
                        .value2 = draw(&r->random) >> below(&r->random, 64)};
    if (r->brim && !n->is_dir)
        settings(r, &c);
    control(r, c);
}

static void trim(struct trial *r, struct node *n, bool all)
{
    if (!n)
        return;
    uint64_t to = all ? n->end : n->base + draw(&r->random) % (n->end - n->base + 1);
    control(r, (struct control){.kind = MEDIA_C_TRIM, .id = n->id, .value = to});
}

static void sessions(struct trial *r, uint32_t dice)
{
    const struct node *n = some_node(r, false);
    const struct promise *s =
        r->now.sessions ? &r->now.session[below(&r->random, r->now.sessions)] : NULL;
    if (dice < 6 && n && r->now.sessions < LEDGER_SESSIONS - 1)
        control(r,
                (struct control){.kind = MEDIA_C_OPEN, .id = n->id, .uid = below(&r->random, 9)});
    else if (dice < 8 && s)
        control(r, (struct control){.kind = MEDIA_C_FENCE, .value = s->id});
    else if (s)
        control(r, (struct control){.kind = MEDIA_C_CLOSE, .value = s->id});
}

static void job_tick(void *arg)
{
    struct job *j = arg;
    j->run->now.old =
        chance_now() + (j->rc ? 1ull << 61 : 1000000); /* and what it takes to get there */
    struct log_stat before, after;
    log_stat_all(j->run->log, &before);
    log_tick(j->run->log, j->rc ? now_monotonic() + (1ull << 60) : now_monotonic());
    log_stat_all(j->run->log, &after);
    j->run->counts->moved += after.moved - before.moved;
}

/* What retention trimmed: nobody is told by name, so the base says it. Once seen it may not go back. */
void workload_trims(struct trial *r)
{
    for (unsigned i = 0; i < r->now.nodes && !r->death; i++) {
        const struct node *n = &r->now.node[i];
        const struct topic *t = n->is_dir ? NULL : trial_topic(r, n->id);
        uint64_t base = t ? topic_base(t) : n->base;
        if (base == n->base)
            continue;
        struct control c = {
            .kind = MEDIA_C_TRIM, .id = n->id, .value = base, .value2 = t->first_message};
        if (!verify_retained(&r->now, n, base, n->end, &r->now)) {
            trial_fail(r, "topic %u was trimmed to %" PRIu64 " by itself", n->id, base);
            return;
        }
        uint64_t number = atomic_load(&r->log->committed);
        r->counts->retained++;
        if (ledger_control(&r->now, &c, number) != 0)
            abort();
        trial_remember(r, &(struct op){.number = number, .last = number, .control = c});
    }
}

/* Holds expire: told apart only when one session holds something. */
static void expire(struct trial *r)
{
    uint64_t holding = 0;
    for (struct session *s = r->log->sessions.by_id; s; s = s->hh.next)
        if (s->held && !s->is_ready) {
            if (holding)
                return;
            holding = s->id;
        }
    struct job j = {.run = r, .rc = 1};
    if (holding) {
        r->control = (struct control){.kind = MEDIA_C_FENCE, .value = holding};
        r->controlling = r->expiring = true;
    }
    team_call(r->team, trial_member(r), job_tick, &j);
    r->expiring = false;
    if (!r->death && r->controlling) {
        struct session_stat st;
        if (log_session(r->log, holding, &st) != 0 ||
            st.epoch != ledger_session(&r->now, holding)->epoch)
            trial_fail(r, "session %" PRIu64 " was fenced and nobody was told", holding);
        r->controlling = false; /* no space for the entry */
    }
    workload_trims(r);
    trial_tidy(r);
}

static void job_checkpoint(void *arg)
{
    struct job *j = arg;
    j->rc = log_checkpoint(j->run->log);
}

static void checkpoint(struct trial *r)
{
    struct job j = {.run = r};
    team_call(r->team, trial_member(r), job_checkpoint, &j);
    if (!r->death && j.rc && j.rc != -EMBAR_EFULL)
        trial_fail(r, "checkpoint: %d", j.rc);
    trial_tidy(r);
}

/* Two actions by one thread: the drain of the second takes the watermark of the first along. */
static void vouched(struct trial *r)
{
    struct control c = {.kind = MEDIA_C_ATTR, .id = LOG_ROOT_ID, .flags = MEDIA_A_OWNER};
    unsigned member = trial_member(r);
    uint64_t before = r->now.number;
    control_by(r, member, c);
    uint64_t number = r->now.number;
    c.uid = 1;
    if (!r->death)
        control_by(r, member, c);
    if (!r->death && !r->failed && number > before && r->now.number > number)
        witness_damage(r, number);
    if (r->hosts && !r->looking && !r->death && !r->failed && number > before &&
        r->now.number > number)
        hosts_damage(r, number);
    for (unsigned i = 0; i < 12 && !r->death && !r->failed; i++)
        witness_flip(r);
}

/* ---- Living and dying --------------------------------------------------------------------- */

static uint64_t kept(const struct trial *r)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < r->now.nodes; i++)
        bytes += r->now.node[i].end - r->now.node[i].base;
    return bytes;
}

static struct node *largest(struct trial *r)
{
    struct node *best = NULL;
    for (unsigned i = 0; i < r->now.nodes; i++)
        if (!best || r->now.node[i].end - r->now.node[i].base > best->end - best->base)
            best = &r->now.node[i];
    return best && !best->is_dir ? best : NULL;
}

static void tick(struct trial *r)
{
    if (chance(&r->random, 2)) {
        meanwhile_aside(r, ASIDE_RETENTION);
        return;
    }
    struct job j = {.run = r};
    team_call(r->team, trial_member(r), job_tick, &j);
    workload_trims(r);
    trial_tidy(r);
}

void workload_control(struct trial *r)
{
    uint32_t dice = below(&r->random, 8);
    struct node *n = some_node(r, false);
    if (dice < 5)
        trim(r, n, chance(&r->random, 2));
    else if (dice < 6 && n)
        control(r, (struct control){.kind = MEDIA_C_REMOVE, .id = n->id});
    else if (r->now.nodes < LEDGER_NODES - 2)
        control(r, named(r, MEDIA_C_CREATE));
}

void workload_settle(struct trial *r)
{
    for (unsigned i = 0; i < FLIGHTS && !r->death; i++)
        if (r->flight[i].state == FLIGHT_RESERVED)
            publish_abandon(r, &r->flight[i]);
    publish_commit(r);
}

/* Nothing is on its way, in or out: whatever stands in a block may be moved. */
static void calm(struct trial *r)
{
    workload_settle(r);
    if (r->death || r->failed)
        return;
    meanwhile_unpin(r, true);
    if (r->open)
        topic_put(r->open);
    r->open = NULL;
}

/* Small batches of some topics side by side, until it is full. */
static void scatter(struct trial *r)
{
    struct node *n;
    for (unsigned i = 0; i < 40 && r->now.nodes < 16 && !r->death && !r->failed; i++)
        control(r, named(r, MEDIA_C_CREATE));
    while (r->now.nodes > 20 && !r->death && !r->failed && (n = some_node(r, false)))
        control(r, (struct control){.kind = MEDIA_C_REMOVE, .id = n->id});
    if (!r->death && !r->failed)
        calm(r);
    r->filling = true;
    for (unsigned i = 0; i < 900 && r->filling && !r->death && !r->failed; i++) {
        struct flight *f = publish_reserve(r);
        if (f)
            publish_announce(r, f);
        if (i % 8 == 7)
            publish_commit(r);
    }
    r->filling = false;
}

/* Every so many topics' data goes: what is free is in pieces between those that stay. */
static void thin(struct trial *r, unsigned first, unsigned step)
{
    for (unsigned i = first; i < r->now.nodes && !r->death && !r->failed; i += step)
        if (!r->now.node[i].is_dir && r->now.node[i].id != r->large)
            trim(r, &r->now.node[i], !chance(&r->random, 6));
}

/* Who was refused space before is still waited for: policies may give up data for it. */
static bool is_wanted(const struct trial *r)
{
    return atomic_load(&r->log->retain.want[false]) || atomic_load(&r->log->retain.want[true]);
}

/* Large batches of one topic, until there is no place for one, which waits so many times. */
static void enlarge(struct trial *r, unsigned waits)
{
    r->moving = true;
    for (unsigned i = 0, vain = 0; i < 40 && vain <= waits && !r->death && !r->failed; i++) {
        bool before = r->now.starved && is_wanted(r);
        r->now.starved = false;
        struct flight *f = publish_reserve(r);
        bool refused = r->now.starved;
        r->now.starved |= before;
        if (f) {
            publish_announce(r, f);
            publish_commit(r);
        } else if (refused && !r->death && !r->failed && ++vain <= waits) {
            calm(r);
            chance_pass(1100000000); /* moves are not tried again at once */
            if (!r->death && !r->failed)
                tick(r);
        }
    }
    r->moving = false;
}

/* What stays stands in the way of large batches, until it is moved. Now and then a crash comes in the middle. */
static void crowd(struct trial *r)
{
    r->packing = true;
    scatter(r);
    const struct node *n = some_node(r, false);
    r->large = n ? n->id : 0;
    thin(r, 0, 2);
    enlarge(r, 0);
    if (!r->death && !r->failed)
        calm(r);
    thin(r, 1, 4);
    if (chance(&r->random, 2) && !r->death && !r->failed)
        checkpoint(r);
    r->packing = false;
    if (chance(&r->random, 3) && !r->death)
        r->dies_in = below(&r->random, 150);
    enlarge(r, 5);
}

void workload_step(struct trial *r)
{
    uint32_t dice = below(&r->random, 100);
    struct flight *f = NULL;
    struct node *n = NULL;
    r->counts->operations++;
    if (r->packed && (!r->crowded || chance(&r->random, 60))) {
        r->crowded = true;
        crowd(r);
        return;
    }
    if (r->now.nodes < 3 || dice < 4) {
        if (r->now.nodes < LEDGER_NODES - 2)
            control(r, named(r, chance(&r->random, 4) ? MEDIA_C_MKDIR : MEDIA_C_CREATE));
    } else if (r->pressed || kept(r) > r->live_limit) {
        r->pressed = false;
        n = r->packed && !chance(&r->random, 4) ? some_node(r, false) : largest(r);
        trim(r, n, r->packed || chance(&r->random, 2));
        r->live_limit = r->live_limit < (256u << 10) ? 256u << 10 : r->live_limit;
    } else if (dice < 46) {
        f = publish_reserve(r);
        if (!f && r->brim && r->now.starved && !r->death && !r->failed) {
            chance_pass(60000000); /* moves are not tried again at once */
            tick(r); /* the background thread was woken; what it trims is filled again at once */
            f = r->death || r->failed ? NULL : publish_reserve(r);
        }
        if (f && flights_in(r, FLIGHT_RESERVED) < 6 && chance(&r->random, 6))
            f = NULL; /* later */
        if (f)
            publish_announce(r, f);
    } else if (dice < 66 || flights_in(r, FLIGHT_FREE) == 0) {
        publish_commit(r);
    } else if (dice < 69 && (f = flight_in(r, FLIGHT_RESERVED))) {
        publish_announce(r, f);
    } else if (dice < 72 && (f = flight_in(r, FLIGHT_RESERVED))) {
        publish_abandon(r, f);
    } else if (dice < 75) {
        n = some_node(r, chance(&r->random, 3));
        struct control c = named(r, MEDIA_C_RENAME);
        c.id = n ? n->id : 0;
        c.flags = chance(&r->random, 4) ? LOG_RENAME_NOREPLACE : 0;
        control(r, c);
    } else if (dice < 78) {
        n = some_node(r, chance(&r->random, 3));
        if (n && n->id != LOG_ROOT_ID)
            control(r, (struct control){.kind = MEDIA_C_REMOVE, .id = n->id});
    } else if (dice < 82) {
        trim(r, some_node(r, false), chance(&r->random, 3));
    } else if (dice < 84) {
        attributes(r);
    } else if (dice < 93) {
        sessions(r, dice - 84);
    } else if (dice < 95) {
        expire(r);
    } else if (dice < 97) {
        if (medium_is_file(&r->medium) && !chance(&r->random, 4))
            meanwhile_aside(r, ASIDE_CHECKPOINT);
        else
            checkpoint(r);
    } else if (dice < 98) {
        vouched(r);
    } else {
        if (r->medium.variant == MEDIUM_FILE && chance(&r->random, 2))
            meanwhile_aside(r, ASIDE_SYNC);
        else
            tick(r);
    }
    if (r->brim && chance(&r->random, 12))
        chance_pass(below(&r->random, 2000) * 1000000ull);
    if (chance(&r->random, 8) && !r->death && !r->failed)
        meanwhile_pin(r);
    if (!r->stutters && chance(&r->shots, r->sparse ? 64 : 16))
        shots_now(r);
}

static void job_close(void *arg)
{
    struct job *j = arg;
    log_close(j->run->log);
}

void workload_close(struct trial *r)
{
    workload_settle(r);
    if (r->death)
        return;
    meanwhile_unpin(r, true);
    struct job j = {.run = r};
    r->between = true; /* nobody may publish any more */
    team_call(r->team, trial_member(r), job_close, &j);
    r->between = false;
    r->log = NULL;
    if (r->death)
        return;
    for (unsigned i = 0; i < FLIGHTS; i++) {
        if (r->flight[i].state == FLIGHT_ANNOUNCED)
            trial_fail(r, "batch %u was not answered by closing", r->flight[i].m.serial);
        r->flight[i].state = FLIGHT_FREE;
    }
    if (!r->failed)
        witness_closed(r);
}