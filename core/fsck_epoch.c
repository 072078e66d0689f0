/* Lost entries of the index, when the log did not take their batches in the order of their times (recovery).
 *
 * A record names an entry that was committed when its batch was announced. So those numbers are ends of epochs, and
 * what is behind one was taken by no epoch before it. Between two ends as many entries stand as their numbers say:
 * those of the batches that were announced first, in the order that the sequencer gives an epoch (arrange.c). The
 * checksum behind the gap says whether it was so. Where it was not, epochs may have ended that no record names,
 * or one have been left in the order of its arrival: that is tried, within a bound. Never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_gap.h"

/* Where the batches begin that a gap holds: those are behind the entry before it, or so many commits further back
 * are tried one by one before all. What waits for longer was held, or is of another gap that was not found: it would
 * be taken for the first of these. */
#define NEARER 4u
/* A checksum of 32 bits proves little among too many tries. */
#define TRIES_MOST (1u << 14) /* at one gap, */
#define STEPS_MOST (1u << 22) /* looks at a batch, or lines made of one, in these, */
#define STEPS_ALL  (1u << 26) /* and at all gaps */
/* Entries that come between one that was committed when a batch was announced and its own: what was announced before
 * it. More where it was held: then it is not found. */
#define REACH (1u << 16)

struct member {
    const struct orphan *o;
    const struct side *s;
    uint64_t after;  /* its entry comes behind this one */
    uint64_t number; /* of an action: its entry's, else 0 */
    size_t tail;     /* of its topic */
    size_t turn;     /* of its session */
    unsigned lines;
    bool
        fifo; /* taken only as the next of its session: else it is held, and may have been to the end */
    bool used;
};

/* Of a topic, behind what was laid so far. */
struct tail {
    uint32_t topic;
    uint64_t end, time;
};

/* Of a session, behind what was laid so far: the last that it took. */
struct turn {
    uint64_t session, last;
};

/* The k-th epoch begins behind entry cut[k], and has so many members. */
struct epochs {
    const struct salvage *v;
    struct gap *g;
    uint32_t term;
    struct member *member; /* in the order of their times */
    struct member **pick;  /* of one epoch, and room to sort them once more */
    size_t members;
    struct tail *tail, *first_tail;
    size_t tails;
    struct turn *turn, *first_turn;
    size_t turns;
    uint32_t *made; /* topics that were made in the gap */
    size_t mades;
    uint64_t *cut;
    size_t *size;
    size_t cuts;
    unsigned tries, steps; /* that there may still be */
};

/* Up to two epochs that are tried another way than all others: 0: as their batches arrived; 1 + n: as if another
 * epoch had ended behind the first n. */
struct ways {
    size_t epoch[2];
    size_t way[2];
};

/* ---- What there is ------------------------------------------------------------------------------ */

static int by_after(const void *a, const void *b)
{
    const struct behind *x = a, *y = b;
    if (x->after != y->after)
        return x->after < y->after ? -1 : 1;
    return x->orphan < y->orphan ? -1 : x->orphan > y->orphan;
}

static int behind_make(struct salvage *v)
{
    size_t n = v->f->orphans;
    v->behind = malloc((n + 1) * sizeof *v->behind);
    if (!v->behind)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        v->behind[i] = (struct behind){fsck_after(v->trusted, &v->f->orphan[i].s), i};
    if (n > 1)
        qsort(v->behind, n, sizeof *v->behind, by_after);
    return 0;
}

/* The first that is behind this entry, or a later one. */
static size_t behind_find(const struct salvage *v, uint64_t after)
{
    size_t low = v->behind_first, high = v->f->orphans;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (v->behind[mid].after < after)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static int by_id(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* May it be one of them? What is older than what its topic holds may be, too, if it was announced since the
 * checkpoint: all entries from there on are known, and none is its own. */
static bool may_be(const struct epochs *x, const struct orphan *o, uint64_t after)
{
    const struct salvage *v = x->v;
    const struct gap *g = x->g;
    uint32_t topic = o->s.topic;
    bool late = o->s.time <= salvage_newer_than(v, topic);
    return topic != 0 && !o->taken && (!late || after >= v->start) &&
           (o->named < g->to || (g->half && o->at == g->half_side)) && !gap_is_told(g, o) &&
           (names_id(&v->log->names, topic) ||
            bsearch(&topic, x->made, x->mades, sizeof topic, by_id)) &&
           !salvage_is_void(v, o, g->from) && !salvage_is_taken(v, &o->s);
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* An action is an epoch of its own, and so is a term's begin. */
static void cuts_make(struct epochs *x)
{
    const struct salvage *v = x->v;
    const struct gap *g = x->g;
    size_t n = 0;
    x->cut[n++] = g->from - 1;
    for (size_t i = behind_find(v, g->from); i < v->f->orphans && v->behind[i].after < g->to; i++)
        if (v->behind[i].after > x->cut[n - 1])
            x->cut[n++] = v->behind[i].after;
    x->cut[n++] = g->to - 1;
    for (size_t i = 0; i < x->members; i++)
        if (x->member[i].number) {
            x->cut[n++] = x->member[i].number - 1;
            x->cut[n++] = x->member[i].number;
        }
    for (unsigned slot = 0; slot < v->log->pool.geo.slots; slot++) {
        uint64_t start = le64_get(pool_claim(&v->log->pool, slot)->start);
        if (start >= g->from && start < g->to) {
            x->cut[n++] = start - 1;
            x->cut[n++] = start;
        }
    }
    qsort(x->cut, n, sizeof *x->cut, by_number);
    for (size_t i = 0; i < n; i++)
        if (x->cuts == 0 || x->cut[x->cuts - 1] != x->cut[i])
            x->cut[x->cuts++] = x->cut[i];
}

static int by_time(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (x->s->time != y->s->time)
        return x->s->time < y->s->time ? -1 : 1;
    return x->o->at < y->o->at ? -1 : x->o->at > y->o->at;
}

static void member_add(struct epochs *x, const struct orphan *o, uint64_t after, uint64_t number)
{
    /* The chain is made of what was said at the time, wherever the batch stands now. */
    if (o->named >= x->g->from)
        o = fsck_as_named(x->v->f, o);
    x->member[x->members++] = (struct member){
        .o = o, .s = &o->s, .after = after, .number = number, .lines = o->s.run1 ? 2 : 1};
}

static void members_find(struct epochs *x, const struct gap_reach *r)
{
    const struct salvage *v = x->v;
    for (size_t i = r->action; i < r->action_end; i++) {
        const struct action *a = &v->action[i];
        if (a->o->taken)
            continue;
        member_add(x, a->o, a->c.number - 1, a->c.number);
        if (a->c.kind == MEDIA_C_CREATE)
            x->made[x->mades++] = a->c.id;
    }
    if (x->mades > 1)
        qsort(x->made, x->mades, sizeof *x->made, by_id);
    for (size_t i = r->first; i < r->end; i++) {
        const struct orphan *o = &v->f->orphan[v->behind[i].orphan];
        if (may_be(x, o, v->behind[i].after))
            member_add(x, o, v->behind[i].after, 0);
    }
    if (x->members > 1)
        qsort(x->member, x->members, sizeof *x->member, by_time);
}

static int by_topic(const void *a, const void *b)
{
    return by_id(&((const struct tail *)a)->topic, &((const struct tail *)b)->topic);
}

static void tails_find(struct epochs *x)
{
    size_t n = 0;
    for (size_t i = 0; i < x->members; i++)
        x->first_tail[i] = (struct tail){.topic = x->member[i].s->topic};
    if (x->members > 1)
        qsort(x->first_tail, x->members, sizeof *x->first_tail, by_topic);
    for (size_t i = 0; i < x->members; i++) {
        uint32_t id = x->first_tail[i].topic;
        if (n > 0 && x->first_tail[n - 1].topic == id)
            continue;
        const struct topic *t = id ? names_id(&x->v->log->names, id) : x->v->log->control;
        x->first_tail[n++] =
            (struct tail){id, t ? topic_end(t) : 0, t ? salvage_newer_than(x->v, id) : 0};
    }
    x->tails = n;
    for (size_t i = 0; i < x->members; i++) {
        const struct tail key = {.topic = x->member[i].s->topic};
        const struct tail *t = bsearch(&key, x->first_tail, n, sizeof key, by_topic);
        x->member[i].tail = (size_t)(t - x->first_tail);
    }
}

static int by_turn(const void *a, const void *b)
{
    return by_number(&((const struct turn *)a)->session, &((const struct turn *)b)->session);
}

static void turns_find(struct epochs *x)
{
    size_t n = 0;
    for (size_t i = 0; i < x->members; i++)
        x->first_turn[i] = (struct turn){.session = x->member[i].s->session};
    if (x->members > 1)
        qsort(x->first_turn, x->members, sizeof *x->first_turn, by_turn);
    for (size_t i = 0; i < x->members; i++) {
        uint64_t id = x->first_turn[i].session;
        if (n > 0 && x->first_turn[n - 1].session == id)
            continue;
        const struct session *s = id ? session_find(x->v->log, id) : NULL;
        x->first_turn[n++] = (struct turn){id, s ? s->ordered : 0};
    }
    x->turns = n;
    for (size_t i = 0; i < x->members; i++) {
        struct member *m = &x->member[i];
        const struct turn key = {.session = m->s->session};
        const struct turn *t = bsearch(&key, x->first_turn, n, sizeof key, by_turn);
        m->turn = (size_t)(t - x->first_turn);
        m->fifo = m->s->session && m->s->fifo;
    }
}

/* ---- One way ------------------------------------------------------------------------------------ */

static int by_place(const void *a, const void *b)
{
    const struct side *x = (*(struct member *const *)a)->s, *y = (*(struct member *const *)b)->s;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    return x->run0 < y->run0 ? -1 : x->run0 > y->run0;
}

static int by_arrival(const void *a, const void *b)
{
    const struct member *x = *(struct member *const *)a, *y = *(struct member *const *)b;
    return x < y ? -1 : x > y; /* they stand in the order of their times */
}

/* By topic, publisher, and the order that he was promised. */
static int by_publisher(const void *a, const void *b)
{
    const struct member *m = *(struct member *const *)a, *n = *(struct member *const *)b;
    const struct side *x = m->s, *y = n->s;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    if (x->session != y->session)
        return x->session < y->session ? -1 : 1;
    if (x->producer != y->producer)
        return x->producer < y->producer ? -1 : 1;
    if (x->sequence != y->sequence)
        return x->sequence < y->sequence ? -1 : 1;
    return m < n ? -1 : m > n;
}

/* As seq_arrange does it. */
static void arrange(struct member **pick, struct member **sorted, size_t n)
{
    qsort(pick, n, sizeof *pick, by_place);
    memcpy(sorted, pick, n * sizeof *pick);
    qsort(sorted, n, sizeof *sorted, by_publisher);
    bool kept = true;
    for (size_t i = 1; kept && i < n; i++) {
        const struct side *a = sorted[i - 1]->s, *b = sorted[i]->s;
        kept = a->topic != b->topic || a->session != b->session || a->producer != b->producer ||
               a->run0 < b->run0;
    }
    if (!kept)
        qsort(pick, n, sizeof *pick, by_arrival);
}

static bool is_half(const struct gap *g, const struct member *m)
{
    return g->half && m->o->at == g->half_side;
}

static void lay(struct epochs *x, const struct member *m)
{
    struct gap *g = x->g;
    struct tail *t = &x->tail[m->tail];
    struct entry *e = &g->e[g->count];
    unsigned n = fsck_entry(x->v->log, m->o, g->from + g->count, t->end, x->term, e);
    if (m->s->topic != 0 && m->s->time < t->time)
        e->flags |= MEDIA_F_LATE;
    else
        t->time = m->s->time;
    t->end += m->s->length;
    g->count += is_half(g, m) ? 1 : n;
}

/* Of a term that ended since no claim tells any more: nothing was announced between its first entry and what was
 * committed before that. */
static void lay_term(struct epochs *x)
{
    struct gap *g = x->g;
    g->e[g->count] = (struct entry){.number = g->from + g->count,
                                    .term = ++x->term,
                                    .kind = MEDIA_TERM,
                                    .session = x->v->log->slot,
                                    .count = 1};
    g->count++;
}

/* What is chosen for an epoch. */
struct choice {
    size_t k, low, n;
    uint64_t lines;  /* that its entries leave */
    size_t held;     /* passed over, for their turn had not come */
    bool impossible; /* a split batch would end in the next epoch */
};

static bool step(struct epochs *x, uint64_t n)
{
    bool may = n <= x->steps;
    x->steps = may ? x->steps - (unsigned)n : 0;
    return may;
}

static bool may_come(const struct epochs *x, const struct choice *c, const struct member *m)
{
    return !m->used && m->after <= x->cut[c->k] &&
           (m->number == 0 || m->number - 1 == x->cut[c->k]) &&
           (!is_half(x->g, m) || c->k + 2 == x->cuts);
}

static bool is_its_turn(const struct epochs *x, const struct member *m)
{
    return !m->fifo || m->s->sequence == x->turn[m->turn].last + 1;
}

static void come(struct epochs *x, struct choice *c, struct member *m)
{
    unsigned lines = is_half(x->g, m) ? 1 : m->lines;
    if (lines > c->lines) {
        c->impossible = true;
        return;
    }
    m->used = true;
    x->pick[c->n++] = m;
    x->turn[m->turn].last = m->s->sequence;
    c->lines -= lines;
}

/* The one that was held for the m-th, or NULL. */
static struct member *released(struct epochs *x, const struct choice *c, size_t m)
{
    for (size_t i = c->low; i < m && step(x, 1); i++) {
        struct member *o = &x->member[i];
        if (o->fifo && o->turn == x->member[m].turn && may_come(x, c, o) && is_its_turn(x, o))
            return o;
    }
    return NULL;
}

/* The members of the k-th epoch, in the order of their times, and how many of its entries they leave. */
static size_t choose(struct epochs *x, size_t k, size_t low, uint64_t *left)
{
    struct choice c = {.k = k, .low = low, .lines = x->cut[k + 1] - x->cut[k]};
    for (size_t i = low; i < x->members && c.lines > 0 && !c.impossible && step(x, 1); i++) {
        struct member *m = &x->member[i];
        if (!may_come(x, &c, m))
            continue;
        if (!is_its_turn(x, m)) {
            c.held++;
            continue;
        }
        come(x, &c, m);
        while (m && m->fifo && c.held > 0 && c.lines > 0 && !c.impossible) {
            m = released(x, &c, i);
            c.held -= m != NULL;
            if (m)
                come(x, &c, m);
        }
    }
    *left = c.lines;
    return c.n;
}

/* All of them that way: does the chain prove it? */
static bool lay_all(struct epochs *x, const struct ways *w)
{
    struct gap *g = x->g;
    struct entry begin;
    size_t low = 0;
    uint64_t lines = g->to - g->from;
    if (!step(x, lines) || x->tries == 0) {
        x->tries = 0;
        return false;
    }
    --x->tries;
    for (size_t i = 0; i < x->members; i++)
        x->member[i].used = false;
    memcpy(x->tail, x->first_tail, x->tails * sizeof *x->tail);
    memcpy(x->turn, x->first_turn, x->turns * sizeof *x->turn);
    x->term = x->v->term;
    g->count = 0;
    for (size_t k = 0; k + 1 < x->cuts; k++) {
        if (gap_term_begins(x->v, x->cut[k] + 1, &begin)) {
            g->e[g->count++] = begin;
            x->term = begin.term;
            continue;
        }
        uint64_t left;
        size_t n = x->size[k] = choose(x, k, low, &left), way = 1 + n;
        if (left > 1)
            return false;
        for (unsigned i = 0; i < 2; i++)
            way = w->epoch[i] == k ? w->way[i] : way;
        if (way > 0) {
            arrange(x->pick, x->pick + n, way - 1);
            arrange(x->pick + (way - 1), x->pick + n, n - (way - 1));
        }
        for (size_t i = 0; i < n; i++)
            lay(x, x->pick[i]);
        if (left > 0)
            lay_term(x);
        while (low < x->members && x->member[low].used)
            low++;
    }
    return gap_proved(x->v, g);
}

/* ---- All ways ----------------------------------------------------------------------------------- */

static bool lay_ways(struct epochs *x)
{
    const size_t none = x->cuts;
    struct ways w = {{none, none}, {0, 0}};
    if (lay_all(x, &w))
        return true;
    if (x->g->count < x->g->to - x->g->from)
        return false; /* they are not as many as are lost, whichever way */
    for (w.epoch[0] = 0; w.epoch[0] + 1 < x->cuts; w.epoch[0]++)
        for (w.way[0] = 0; w.way[0] <= x->size[w.epoch[0]]; w.way[0]++)
            if (x->size[w.epoch[0]] > 1 && lay_all(x, &w))
                return true;
    for (w.epoch[0] = 0; w.epoch[0] + 1 < x->cuts; w.epoch[0]++)
        for (w.way[0] = 0; w.way[0] <= x->size[w.epoch[0]]; w.way[0]++)
            for (w.epoch[1] = w.epoch[0] + 1; w.epoch[1] + 1 < x->cuts; w.epoch[1]++)
                for (w.way[1] = 0; w.way[1] <= x->size[w.epoch[1]] && x->tries > 0; w.way[1]++)
                    if (x->size[w.epoch[0]] > 1 && x->size[w.epoch[1]] > 1 && lay_all(x, &w))
                        return true;
    return false;
}

static int arrange_in(struct salvage *v, struct gap *g, const struct gap_reach *r, bool *found)
{
    size_t n = r->end - r->first + r->action_end - r->action + 1;
    size_t cuts = g->to - g->from + 3 * n + 2 * v->log->pool.geo.slots + 2;
    struct epochs x = {.v = v,
                       .g = g,
                       .member = calloc(n, sizeof *x.member),
                       .pick = calloc(2 * n, sizeof *x.pick),
                       .tail = calloc(n, sizeof *x.tail),
                       .first_tail = calloc(n, sizeof *x.tail),
                       .turn = calloc(n, sizeof *x.turn),
                       .first_turn = calloc(n, sizeof *x.turn),
                       .made = calloc(n, sizeof *x.made),
                       .cut = calloc(cuts, sizeof *x.cut),
                       .size = calloc(cuts, sizeof *x.size),
                       .tries = TRIES_MOST / (NEARER + 1),
                       .steps = v->tried < STEPS_ALL ? STEPS_MOST / (NEARER + 1)
                                                     : (unsigned)(n + g->to - g->from)};
    int rc = x.member && x.pick && x.tail && x.first_tail && x.turn && x.first_turn && x.made &&
                     x.cut && x.size
                 ? 0
                 : -ENOMEM;
    if (rc == 0) {
        members_find(&x, r);
        tails_find(&x);
        turns_find(&x);
        cuts_make(&x);
        unsigned steps = x.steps;
        *found = lay_ways(&x);
        v->tried += steps - x.steps;
    }
    free(x.member);
    free(x.pick);
    free(x.tail);
    free(x.first_tail);
    free(x.turn);
    free(x.first_turn);
    free(x.made);
    free(x.cut);
    free(x.size);
    return rc;
}

/* Of those that are behind an entry before the gap some can be of nothing from here on: the others are moved up, so
 * that each is gone by once. Gaps come one behind the other. */
static void behind_settle(struct salvage *v, const struct gap *g)
{
    size_t first = behind_find(v, g->from > REACH ? g->from - REACH : 0);
    size_t end = behind_find(v, g->from), kept = end;
    v->f->report->compared += end - first;
    for (size_t i = end; i-- > first;) {
        const struct orphan *o = &v->f->orphan[v->behind[i].orphan];
        if (!o->taken && !gap_is_told(g, o))
            v->behind[--kept] = v->behind[i];
    }
    v->behind_first = kept;
}

int gap_reach(struct salvage *v, const struct gap *g, struct gap_reach *r)
{
    int rc = v->behind ? 0 : behind_make(v);
    if (rc)
        return rc;
    behind_settle(v, g);
    *r = (struct gap_reach){.first = behind_find(v, g->from > REACH ? g->from - REACH : 0),
                            .end = behind_find(v, g->to - 1),
                            .action = salvage_action_find(v, g->from),
                            .action_end = salvage_action_find(v, g->to)};
    return 0;
}

int gap_arrange(struct salvage *v, struct gap *g)
{
    bool found = false;
    struct gap_reach r = {0};
    int rc = 0;
    if (g->known && g->to - g->from + 1 < LOST_MOST) {
        rc = gap_reach(v, g, &r);
        size_t farthest = r.first, at = rc ? 0 : behind_find(v, g->from - 1);
        for (unsigned i = 0; rc == 0 && !found && i <= NEARER; i++) {
            r.first = i < NEARER && at > farthest ? at : farthest;
            rc = arrange_in(v, g, &r, &found);
            if (r.first == farthest)
                break;
            at = behind_find(v, v->behind[at - 1].after); /* one commit further back */
        }
    }
    if (!found)
        g->count = 0;
    return rc;
}
