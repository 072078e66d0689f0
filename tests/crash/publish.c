/* The publishers of a crash run: they reserve, store, announce and abandon batches, and what completions say
 * is promised from then on. Must never look at anything else that the log says.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "tests/crash/publish.h"

/* ---- Promises ----------------------------------------------------------------------------- */

void trial_remember(struct trial *r, const struct op *op)
{
    r->now.number = op->last;
    if (r->medium.variant != MEDIUM_FILE && !r->looking)
        return;
    if (r->op_count == r->op_capacity) {
        r->op_capacity = r->op_capacity ? r->op_capacity * 2 : 64;
        r->ops = reallocarray(r->ops, r->op_capacity, sizeof *r->ops);
        if (!r->ops)
            abort();
    }
    r->ops[r->op_count++] = *op;
}

/* The action that is in flight was committed as entry `number`, or refused. */
void trial_settled(struct trial *r, int status, uint64_t number)
{
    struct ledger try = r->now;
    int expected = ledger_control(&try, &r->control, number);
    r->controlling = false;
    r->counts->controls++;
    if (status == -EMBAR_EFULL) {
        r->counts->refused++;
        return;
    }
    if (status != (expected > 0 ? 0 : expected)) {
        trial_fail(r, "control action %d answers %d, not %d", (int)r->control.kind, status,
                   expected);
        return;
    }
    if (expected)
        return;
    if (number <= r->now.number)
        trial_fail(r, "entry %" PRIu64 " is told after %" PRIu64, number, r->now.number);
    r->now = try;
    trial_remember(r, &(struct op){.number = number, .last = number, .control = r->control});
}

/* What is written to a removed topic is ordered, and no entry tells of it. */
static void batch_past_removal(struct trial *r, const struct flight *f, const struct commit *c)
{
    if (!f->batch.past_removal || c->number != 0)
        trial_fail(r, "topic %u was removed: batch %u is acked as entry %" PRIu64, f->topic,
                   f->m.serial, c->number);
}

static void batch_committed(struct trial *r, const struct flight *f, const struct commit *c)
{
    const struct node *t = ledger_node(&r->now, f->topic);
    if (!t || c->offset != t->end || c->number <= r->now.number) {
        trial_fail(r, "topic %u: batch %u is acked at %" PRIu64 " as entry %" PRIu64, f->topic,
                   f->m.serial, c->offset, c->number);
        return;
    }
    const struct promise *s = f->m.session ? ledger_session(&r->now, f->m.session) : NULL;
    bool due = s && (t->order == 5 ? f->m.sequence == s->sequence + 1
                                   : !promise_has(s, f->m.sequence) && s->aheads < LEDGER_AHEAD);
    if (f->m.session && !due) {
        trial_fail(r, "session %" PRIu64 ": batch %" PRIu64 " is acked out of turn", f->m.session,
                   f->m.sequence);
        return;
    }
    struct entry_batch m = f->m;
    m.time = f->batch.time;
    ledger_append(&r->now, f->topic, &m);
    /* All of the epoch is told with the mark behind it. */
    if (s && (c->sequence < s->sequence || c->messages < s->messages))
        trial_fail(r, "session %" PRIu64 ": batch %" PRIu64 " is acked with mark %" PRIu64,
                   f->m.session, f->m.sequence, c->sequence);
    r->counts->batches++;
    trial_remember(r, &(struct op){.number = c->number,
                                   .last = c->number + (f->batch.run1 ? 1 : 0),
                                   .is_batch = true,
                                   .topic = f->topic,
                                   .batch = m});
}

static void batch_done(struct completion *self, const struct commit *c)
{
    struct flight *f = (struct flight *)self;
    struct trial *r = f->run;
    if (r->death)
        return;
    /* A fence by timeout has nobody else to tell. */
    if (c->status == -EMBAR_EFENCED && r->expiring && r->control.value == f->m.session) {
        r->expiring = false;
        trial_settled(r, 0, atomic_load(&r->log->committed));
    }
    f->state = FLIGHT_DONE;
    if (c->status == 0 && topic_deleted(f->batch.topic)) {
        batch_past_removal(r, f, c);
    } else if (c->status == 0 && !c->duplicate) {
        batch_committed(r, f, c);
    } else if (c->status == 0) {
        const struct promise *s = ledger_session(&r->now, f->m.session);
        if (!s || !promise_has(s, f->m.sequence))
            trial_fail(r, "session %" PRIu64 ": batch %" PRIu64 " is called a duplicate",
                       f->m.session, f->m.sequence);
    } else {
        r->counts->refused++;
    }
}

/* ---- Topics in use ------------------------------------------------------------------------ */

struct topic *trial_topic(struct trial *r, uint32_t id)
{
    for (unsigned i = 0; i < r->visibles; i++)
        if (r->visible[i].id == id)
            return r->visible[i].topic;
    struct topic *t = log_topic(r->log, id);
    if (!t)
        return NULL;
    r->visible[r->visibles++] = (struct visible){.id = id, .topic = t};
    return t;
}

static void topics_prune(struct trial *r)
{
    for (unsigned i = r->visibles; i-- > 0;)
        if (!ledger_node(&r->now, r->visible[i].id)) {
            if (r->open)
                topic_put(r->visible[i].topic);
            else
                r->open = r->visible[i].topic;
            r->visible[i] = r->visible[--r->visibles];
        }
}

static void flights_prune(struct trial *r)
{
    for (unsigned i = 0; i < FLIGHTS; i++)
        if (r->flight[i].state == FLIGHT_DONE) {
            topic_put(r->flight[i].batch.topic);
            r->flight[i].state = FLIGHT_FREE;
        }
}

void trial_tidy(struct trial *r)
{
    if (r->death)
        return;
    flights_prune(r);
    topics_prune(r);
    if (r->open && chance(&r->random, 60)) {
        topic_put(r->open);
        r->open = NULL;
    }
}

struct node *some_node(struct trial *r, bool dir)
{
    struct node *pick = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < r->now.nodes; i++)
        if (r->now.node[i].is_dir == dir && chance(&r->random, ++n))
            pick = &r->now.node[i];
    return pick;
}

struct flight *flight_in(struct trial *r, enum flight_state state)
{
    struct flight *pick = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < FLIGHTS; i++)
        if (r->flight[i].state == state && chance(&r->random, ++n))
            pick = &r->flight[i];
    return pick;
}

unsigned flights_in(const struct trial *r, enum flight_state state)
{
    unsigned n = 0;
    for (unsigned i = 0; i < FLIGHTS; i++)
        n += r->flight[i].state == state;
    return n;
}

/* ---- Publishing --------------------------------------------------------------------------- */

static void job_commit(void *arg)
{
    struct job *j = arg;
    epochs_run(j->run->log);
}

void publish_commit(struct trial *r)
{
    struct job j = {.run = r};
    if (!r->death)
        team_call(r->team, trial_member(r), job_commit, &j);
    trial_tidy(r);
}

static bool sent(const struct trial *r, uint64_t session, uint64_t sequence)
{
    for (unsigned i = 0; i < FLIGHTS; i++)
        if (r->flight[i].state == FLIGHT_ANNOUNCED && r->flight[i].m.session == session &&
            r->flight[i].m.sequence == sequence)
            return true;
    return false;
}

/* Something of the session is on its way: what comes next may have to wait for it. */
static bool held(const struct trial *r, uint64_t session)
{
    for (unsigned i = 0; i < FLIGHTS; i++)
        if (r->flight[i].state != FLIGHT_FREE && r->flight[i].m.session == session)
            return true;
    return false;
}

/* The next one due, sometimes one again, sometimes one too early: at order 5 it is held, at the others
 * committed, up to the window's end. */
static uint64_t choose_sequence(struct trial *r, const struct node *n, const struct promise *s)
{
    uint32_t dice = below(&r->random, 100);
    if (dice < 10 && s->sequence > 0)
        return 1 + draw(&r->random) % s->sequence;
    if (dice < 16 && s->aheads > 0)
        return s->ahead[below(&r->random, s->aheads)].sequence;
    if (n->order != 5 && s->aheads + FLIGHTS >= LEDGER_AHEAD)
        return s->sequence + 1;
    uint64_t next = s->sequence + 1;
    while (sent(r, s->id, next) || promise_has(s, next))
        next++;
    if (dice < 22 && next > s->sequence + 1)
        return next - 1;
    if (n->order == 5 || dice < 60)
        return dice < 32 ? next + 1 : next;
    return next + (dice < 64 ? 980 + below(&r->random, 60) : below(&r->random, 9));
}

static void choose_batch(struct trial *r, struct entry_batch *m, uint32_t most)
{
    uint32_t dice = below(&r->random, 100);
    if (r->moving && !r->between)
        dice = 99;
    else if (r->filling)
        dice = 60;
    else if (r->brim && dice < 55) /* so that it is full soon */
        dice = 99;
    if (dice < 55)
        m->length = LEDGER_MIN + below(&r->random, 300);
    else if (dice < 80)
        m->length = 300 + below(&r->random, r->filling ? 3000 : 5000);
    else if (dice < 90)
        m->length = 64 * (1 + below(&r->random, 200));
    else
        m->length = most / 4 + below(&r->random, most - most / 4);
    if (m->length > most)
        m->length = most;
    uint32_t count = 1 + below(&r->random, chance(&r->random, 10) ? 1500 : 20);
    m->count = count < m->length ? count : m->length;
    m->equal = chance(&r->random, 3);
    if (m->equal) {
        m->length -= m->length % m->count;
        if (m->length < LEDGER_MIN)
            m->length = m->count = LEDGER_MIN;
    }
    m->serial = ++r->serial;
}

static uint32_t payload_crc(const struct flight *f)
{
    static char bytes[1 << 16];
    payload_fill(f->m.serial, 0, bytes, f->m.length);
    return crc32c(0, bytes, f->m.length);
}

/* Store some of it, in pieces, as a receiver does. */
static void fill(struct trial *r, struct flight *f)
{
    uint32_t n;
    for (uint32_t at = 0; at < f->m.length; at += n) {
        char *p = log_span(r->log, &f->batch, at, &n);
        uint32_t most = 1 + below(&r->random, 20000);
        n = n < most ? n : most;
        payload_fill(f->m.serial, at, p, n);
        log_writeback(r->log, &f->batch, at, n);
    }
    le32 *to = log_lengths(r->log, &f->batch);
    if (!to)
        return;
    static uint32_t lengths[1 << 12];
    payload_lengths(&f->m, lengths);
    for (uint32_t i = 0; i < f->m.count; i++)
        to[i] = le32_of(lengths[i]);
}

static void job_reserve(void *arg)
{
    struct job *j = arg;
    j->rc = log_reserve(j->run->log, &j->flight->batch);
}

static void job_announce(void *arg)
{
    struct job *j = arg;
    struct flight *f = j->flight;
    fill(j->run, f);
    j->rc = log_announce(log_producer(j->run->log, f->producer), &f->batch);
}

unsigned trial_member(struct trial *r)
{
    unsigned member = below(&r->random, r->busy < TEAM_SIZE ? TEAM_SIZE - 1 : TEAM_SIZE);
    return member < r->busy ? member : member + 1; /* nobody is busy: below TEAM_SIZE */
}

static unsigned waiting(const struct trial *r, unsigned producer)
{
    const struct producer *p = log_producer(r->log, producer);
    return (unsigned)(atomic_load(&p->tail) - atomic_load(&p->head));
}

bool publish_room(const struct trial *r, const struct flight *f)
{
    return waiting(r, f->producer) < log_pool(r->log)->geo.descriptors;
}

void publish_announce(struct trial *r, struct flight *f)
{
    /* Where only the background thread orders, nobody else makes room in the ring. */
    if (background_only(r->log) && !publish_room(r, f))
        publish_commit(r);
    if (r->death)
        return;
    struct job j = {.run = r, .flight = f};
    team_call(r->team, f->producer, job_announce, &j);
    if (r->death)
        return;
    if (j.rc) {
        trial_fail(r, "announcing batch %u: %d", f->m.serial, j.rc);
        return;
    }
    f->state = FLIGHT_ANNOUNCED;
    f->announced = ++r->announced;
}

struct flight *publish_reserve(struct trial *r)
{
    struct flight *f = flight_in(r, FLIGHT_FREE);
    struct node *n = r->moving && !r->between ? ledger_node(&r->now, r->large) : NULL;
    n = n ? n : some_node(r, false);
    if (!f || !n)
        return NULL;
    *f = (struct flight){.completion.done = batch_done, .run = r, .topic = n->id};
    struct topic *open = r->open && chance(&r->random, 6) ? r->open : NULL;
    if (open)
        f->topic = topic_id(open);
    f->producer = r->busy < PRODUCERS ? 1 - r->busy : below(&r->random, PRODUCERS);
    uint32_t most = (uint32_t)log_pool(r->log)->max_batch;
    for (unsigned i = 0; i < r->now.sessions; i++) {
        const struct promise *s = &r->now.session[i];
        if (s->topic != f->topic || !chance(&r->random, 2))
            continue;
        f->m.session = s->id;
        f->m.sequence = choose_sequence(r, n, s);
        /* What may be held is small: a session that holds much is fenced by itself. */
        if (n->order == 5 && (f->m.sequence != s->sequence + 1 || held(r, s->id)))
            most = 3000;
        f->batch.epoch = s->epoch - (s->epoch > 1 && chance(&r->random, 16) ? 1 : 0);
    }
    choose_batch(r, &f->m, most);
    f->batch.topic = open ? open : trial_topic(r, n->id);
    f->batch.past_removal = open || chance(&r->random, 2);
    if (!f->batch.topic && r->between) /* removed, and not told yet */
        return NULL;
    f->batch.length = f->m.length;
    f->batch.count = f->m.count;
    f->batch.equal = f->m.equal;
    f->batch.session = f->m.session;
    f->batch.sequence = f->m.sequence;
    f->batch.payload_crc = payload_crc(f);
    f->batch.completion = &f->completion;
    struct job j = {.run = r, .flight = f};
    team_call(r->team, f->producer, job_reserve, &j);
    if (r->death)
        return NULL;
    if (j.rc == 0) {
        (void)topic_ref(f->batch.topic);
        f->state = FLIGHT_RESERVED;
        return f;
    }
    if (j.rc == -EMBAR_EFULL) {
        r->now.starved = true;
        r->filling = false;
        r->live_limit /= r->brim ? 1 : 2;
        r->pressed = r->pressed || chance(&r->random, 6);
    } else if (j.rc != -EMBAR_EGONE || !r->between) { /* as above */
        trial_fail(r, "reserving %u bytes: %d", f->m.length, j.rc);
    }
    r->counts->refused++;
    return NULL;
}

void publish_abandon(struct trial *r, struct flight *f)
{
    /* It may have been received in part. */
    if (chance(&r->random, 2)) {
        uint32_t n;
        char *p = log_span(r->log, &f->batch, 0, &n);
        payload_fill(f->m.serial, 0, p, n);
        if (chance(&r->random, 2))
            log_writeback(r->log, &f->batch, 0, n);
    }
    if (r->death)
        return;
    log_abandon(r->log, &f->batch);
    f->state = FLIGHT_DONE;
    trial_tidy(r);
}
