/* Several lost entries of the index, when the chain behind them is known (recovery): which of the batches that
 * stand they named, in which order, is tried until the chain of checksums says so.
 *
 * What may stand where is told by the records: each names an entry that it is behind; a session's batches follow
 * one another by their numbers, those of one producer in one topic by their times; an action knows its own
 * number. Their times' order comes first, and then, in rounds, what differs from that in one more place: a batch
 * that is left out, or comes later; the begin of a term. When a round had nothing left to differ in, no choice
 * of batches makes up the gap: some of its entries told of none of them. A checksum of 32 bits proves little
 * among too many tries, so there is an end to them: then nothing is known. Never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_gap.h"

#define TRIES_MOST  65536u     /* at one gap */
#define STEPS_MOST  4000000u   /* looks at a batch for one place, at one gap */
#define STEPS_ALL   100000000u /* and at all of them */
#define ROUNDS_MOST 64u

/* A topic, as far as the gap is made up. */
struct tail {
    uint32_t topic;
    bool there;
    uint64_t end, time;
};

/* Whose order is told: a session, or without one a producer in a topic. */
struct sender {
    uint32_t topic, producer;
    uint64_t session;
    uint64_t before; /* sequence, or time, of the last that was taken; 0: none was */
};

struct option {
    const struct orphan *o; /* as its entry named it */
    struct tail *tail;
    struct sender *sender;
    uint64_t least, number; /* of its entry: at least; when it is told, else 0 */
    unsigned entries;
    bool half; /* its second entry stands behind the gap */
    bool late; /* by its time */
    bool taken;
    size_t passed; /* place, + 1, of which one behind it was taken first */
};

struct
try {
    const struct salvage *v;
    struct gap *g;
    struct option *option; /* in the order of their times; those that would be late behind all */
    struct tail *tail;
    struct sender *sender;
    size_t options, tails, senders;
    size_t passed; /* options that were, by now */
    size_t tries, steps;
    bool cut; /* something was not tried, since it differs in too much */
};

/* How far the gap is made up. */
struct spot {
    uint32_t chain, term;
    unsigned left; /* so much more may differ */
    size_t first;  /* no option before this one is left, but for those that were passed */
};

/* ---- What may stand there --------------------------------------------------------------------- */

static struct tail *tail_of(struct try *y, uint32_t topic)
{
    for (size_t i = 0; i < y->tails; i++)
        if (y->tail[i].topic == topic)
            return &y->tail[i];
    const struct topic *t = topic ? names_id(&y->v->log->names, topic) : y->v->log->control;
    struct tail *r = &y->tail[y->tails++];
    *r = (struct tail){.topic = topic,
                       .there = t != NULL,
                       .end = t ? topic_end(t) : 0,
                       .time = topic ? salvage_newer_than(y->v, topic) : 0};
    return r;
}

static struct sender *sender_of(struct try *y, const struct side *s)
{
    for (size_t i = 0; i < y->senders; i++) {
        struct sender *x = &y->sender[i];
        if (x->topic == s->topic && x->session == s->session && x->producer == s->producer)
            return x;
    }
    struct sender *x = &y->sender[y->senders++];
    *x = (struct sender){.topic = s->topic, .producer = s->producer, .session = s->session};
    return x;
}

/* Is it a candidate at all? */
static bool is_option(const struct try *y, const struct orphan *o, const struct orphan *as)
{
    const struct salvage *v = y->v;
    const struct gap *g = y->g;
    const struct topic *t = as->s.topic ? names_id(&v->log->names, as->s.topic) : NULL;
    bool half = g->half && as->at == g->half_side;
    return !o->taken && as->s.time < g->before && (o->named < g->to || half) &&
           !(t && names_is_dir(t)) && !gap_is_told(g, o) && !salvage_is_void(v, o, g->from) &&
           !salvage_is_taken(v, &o->s);
}

static void option_add(struct try *y, const struct orphan *o, uint64_t after)
{
    const struct salvage *v = y->v;
    /* The chain is made of what was said at the time, wherever the batch stands now. */
    const struct orphan *as = o->named >= y->g->from ? fsck_as_named(v->f, o) : o;
    bool late = as->s.time <= salvage_newer_than(v, as->s.topic);
    struct control c;
    /* What is late was announced since the checkpoint: all entries from there on are known, and none is its own. */
    if (!is_option(y, o, as) || (late && (as->s.topic == 0 || after < v->start)))
        return;
    bool half = y->g->half && as->at == y->g->half_side;
    bool action = as->s.topic == 0 && !as->s.run1 &&
                  control_decode(pool_at(&v->log->pool, as->s.run0), as->s.length, &c) == 0;
    y->option[y->options++] = (struct option){.o = as,
                                              .tail = tail_of(y, as->s.topic),
                                              .sender = sender_of(y, &as->s),
                                              .least = after + 1,
                                              .number = action ? c.number : 0,
                                              .entries = as->s.run1 && !half ? 2 : 1,
                                              .half = half,
                                              .late = late};
}

static int by_time(const void *a, const void *b)
{
    const struct option *x = a, *y = b;
    if (x->late != y->late)
        return x->late ? 1 : -1;
    if (x->o->s.time != y->o->s.time)
        return x->o->s.time < y->o->s.time ? -1 : 1;
    return x->o->at < y->o->at ? -1 : x->o->at > y->o->at;
}

/* May it follow what its sender had taken? */
static bool is_next(const struct try *y, const struct option *x, uint64_t number)
{
    const struct side *s = &x->o->s;
    const struct topic *t = names_id(&y->v->log->names, s->topic);
    if (s->session == 0)
        return s->topic == 0 || s->time > x->sender->before;
    if (y->v->unproved && x->sender->before == 0) /* what was lost before may be its */
        return true;
    return s->session < number && salvage_is_next(y->v->log, t, s, x->sender->before);
}

static bool is_fit(struct try *y, const struct option *x)
{
    const struct gap *g = y->g;
    uint64_t number = g->from + g->count, left = g->to - number;
    y->steps++;
    if (x->least > number || (x->number && x->number != number) ||
        (x->half ? left != 1 : x->entries + (g->half ? 1u : 0u) > left))
        return false;
    return (x->tail->there || gap_topic_there(y->v, g, x->tail->topic)) && is_next(y, x, number);
}

/* ---- One behind the other --------------------------------------------------------------------- */

static bool gap_go(struct try *y, const struct spot *s);

static uint32_t gap_encode(const struct gap *g, size_t from, uint32_t chain)
{
    struct media_entry line;
    for (size_t i = from; i < g->count; i++)
        chain = index_encode(&line, &g->e[i], chain);
    return chain;
}

static bool option_go(struct try *y, const struct spot *s, struct option *x, unsigned costs)
{
    struct gap *g = y->g;
    const struct side *o = &x->o->s;
    const struct tail was = *x->tail;
    uint64_t before = x->sender->before;
    size_t at = g->count;
    struct entry *e = &g->e[at];
    unsigned parts = fsck_entry(y->v->log, x->o, g->from + at, was.end, s->term, e);
    if (o->topic != 0 && o->time < was.time)
        e->flags |= MEDIA_F_LATE;
    g->count += x->half ? 1 : parts;
    x->taken = true;
    x->tail->end += o->length;
    x->tail->time = o->time > was.time ? o->time : was.time;
    x->sender->before = o->session ? o->sequence : o->time;
    const struct spot next = {.chain = gap_encode(g, at, s->chain),
                              .term = s->term,
                              .left = s->left - costs,
                              .first = s->first};
    bool proved = gap_go(y, &next);
    if (proved)
        return true;
    x->taken = false;
    *x->tail = was;
    x->sender->before = before;
    g->count = at;
    return false;
}

static bool term_go(struct try *y, const struct spot *s, const struct entry *e, unsigned costs)
{
    struct gap *g = y->g;
    size_t at = g->count++;
    g->e[at] = *e;
    const struct spot next = {.chain = gap_encode(g, at, s->chain),
                              .term = e->term,
                              .left = s->left - costs,
                              .first = s->first};
    bool proved = gap_go(y, &next);
    g->count = proved ? g->count : at;
    return proved;
}

/* The begin of the next term, should one be missing; or of one behind that, where terms never had an entry. */
static bool terms_go(struct try *y, const struct spot *s, unsigned costs)
{
    const struct gap *g = y->g;
    for (uint32_t term = s->term + 1; term <= g->term; term++, costs++) {
        const struct entry e = {.number = g->from + g->count,
                                .term = term,
                                .kind = MEDIA_TERM,
                                .session = y->v->log->slot,
                                .count = 1};
        if (costs > s->left) {
            y->cut = true;
            return false;
        }
        if (term_go(y, s, &e, costs))
            return true;
    }
    return false;
}

/* Those that come next by their times, each costs those that are passed for it. */
static bool options_go(struct try *y, const struct spot *s, unsigned *costs)
{
    for (size_t i = s->first; i < y->options; i++) {
        struct option *x = &y->option[i];
        if (x->taken || x->passed || !is_fit(y, x))
            continue;
        if (*costs > s->left) {
            y->cut = true;
            return false;
        }
        if (option_go(y, s, x, *costs))
            return true;
        x->passed = y->g->count + 1;
        y->passed++;
        ++*costs;
    }
    return false;
}

static void passed_back(struct try *y, size_t first)
{
    for (size_t i = first; i < y->options && y->passed > 0; i++)
        if (y->option[i].passed == y->g->count + 1) {
            y->option[i].passed = 0;
            y->passed--;
        }
}

/* Those that were passed before. */
static bool passed_go(struct try *y, const struct spot *s)
{
    if (y->passed > 0 && s->left == 0) {
        y->cut = true;
        return false;
    }
    for (size_t i = 0; i < y->options && y->passed > 0; i++) {
        struct option *x = &y->option[i];
        if (x->passed && !x->taken && is_fit(y, x) && option_go(y, s, x, 1))
            return true;
    }
    return false;
}

static bool gap_go(struct try *y, const struct spot *at)
{
    const struct gap *g = y->g;
    struct spot s = *at;
    struct entry begin;
    unsigned costs = 0;
    if (y->steps > STEPS_MOST || y->tries > TRIES_MOST)
        return false;
    if (g->from + g->count == g->to) {
        y->tries++;
        return s.chain == g->behind && (g->term_open || s.term == g->term);
    }
    if (gap_term_begins(y->v, g->from + g->count, &begin))
        return begin.term > s.term && term_go(y, &s, &begin, 0);
    while (s.first < y->options && (y->option[s.first].taken || y->option[s.first].passed))
        s.first++;
    bool proved = options_go(y, &s, &costs);
    passed_back(y, s.first);
    return proved || terms_go(y, &s, costs > 0) || passed_go(y, &s);
}

/* ---- All of it -------------------------------------------------------------------------------- */

static void gap_rounds(struct try *y, const struct salvage *v)
{
    struct gap *g = y->g;
    uint64_t entries = g->term > v->term ? g->term - v->term : 0;
    for (size_t i = 0; i < y->options; i++)
        entries += y->option[i].entries;
    g->answer = GAP_UNKNOWN;
    y->cut = entries >= g->to - g->from; /* or they are too few */
    for (unsigned round = 0; y->cut && round < ROUNDS_MOST; round++) {
        y->cut = false;
        if (gap_go(y, &(struct spot){.chain = v->chain, .term = v->term, .left = round})) {
            g->answer = GAP_PROVED;
            return;
        }
        if (y->steps > STEPS_MOST || y->tries > TRIES_MOST)
            return;
    }
    /* Where something was lost before it is not known where the topics end; but how many they are is. */
    if (!y->cut && (!v->unproved || entries < g->to - g->from)) {
        g->answer = GAP_REFUSED;
        g->strange = entries < g->to - g->from ? g->to - g->from - entries : 1;
    }
}

static int try_in(struct salvage *v, struct gap *g, const struct gap_reach *r)
{
    struct try y = {.v = v, .g = g};
    size_t n = r->end - r->first + 1;
    y.option = calloc(n, sizeof *y.option);
    y.tail = calloc(n, sizeof *y.tail);
    y.sender = calloc(n, sizeof *y.sender);
    int rc = y.option && y.tail && y.sender ? 0 : -ENOMEM;
    if (rc == 0) {
        for (size_t i = r->first; i < r->end; i++)
            option_add(&y, &v->f->orphan[v->behind[i].orphan], v->behind[i].after);
        if (y.options > 1)
            qsort(y.option, y.options, sizeof *y.option, by_time);
        gap_rounds(&y, v);
    }
    v->tried += y.steps;
    free(y.option);
    free(y.tail);
    free(y.sender);
    return rc;
}

int gap_try(struct salvage *v, struct gap *g)
{
    struct gap_reach r;
    g->answer = GAP_UNKNOWN;
    if (!g->known || g->to - g->from > LOST_MOST - 2 || v->tried > STEPS_ALL)
        return 0;
    int rc = gap_reach(v, g, &r);
    g->count = 0;
    if (rc == 0)
        rc = try_in(v, g, &r);
    if (g->answer != GAP_PROVED)
        g->count = 0;
    return rc;
}
