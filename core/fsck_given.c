/* Batches whose places were given to newer ones (recovery): they had been trimmed, or moved, and the entry
 * that said so is damaged.
 *
 * What was moved stands whole at its new place. Where entries are lost that may have said so, the topic's
 * whole batches from between what stands before and behind, in the order of their times, are taken for it
 * when they and no others make up the bytes and the messages exactly, side by side as a move leaves them, and
 * nothing that stands at the old place gainsays; else they are saved aside. Such a topic is the last
 * from which fsck_room.c takes anything. Folds into a log that nobody serves; never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_chain.h"
#include "core/fsck_salvage.h"

/* When the last batch of run i was whole; as late as can be read. */
static uint64_t run_time(const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    uint64_t time = 0, at = r->side;
    struct side s;
    for (unsigned b = 0;
         b < r->batches && side_read(&t->log->pool, at, &s) == 0 && s.topic == t->id; b++) {
        time = s.time;
        at -= side_size(s.count, s.equal);
    }
    return time;
}

/* When its first batch was whole, should it stand there; else 0. */
static uint64_t head_time(const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    struct side s;
    return !run_is_damaged(r) && r->batches > 0 && side_read(&t->log->pool, r->side, &s) == 0 &&
                   s.topic == t->id && s.run0 == r->payload
               ? s.time
               : 0;
}

/* What is known of a topic whose runs are settled from its end on: each thing is looked for once. */
struct given {
    struct salvage *v;
    struct topic *t;
    uint64_t *after; /* of each run: what stands before it was whole then at the latest; owned */
    uint64_t before; /* what stands behind was whole then */
    struct orphan *
        *own; /* its whole batches that have no place, in the order of their times; owned */
    size_t owned, settled; /* of those: they have a place now, or went aside */
};

static int given_begin(struct given *g)
{
    struct fsck *f = g->v->f;
    const struct topic *t = g->t;
    uint64_t last = 0;
    int rc = fsck_orphans(f, g->v->log);
    if (rc)
        return rc;
    struct orphans all = fsck_orphans_of(f, t->id);
    f->report->compared += all.count;
    g->after = calloc(t->run_count + 1, sizeof *g->after);
    g->own = calloc(all.count + 1, sizeof(struct orphan *));
    if (!g->after || !g->own)
        return -ENOMEM;
    for (size_t i = 0; i < t->run_count; i++) {
        uint64_t time = run_is_damaged(topic_run(t, i)) ? 0 : run_time(t, i);
        g->after[i] = last;
        last = time ? time : last;
    }
    for (size_t i = 0; i < all.count; i++)
        if (all.at[i]->whole && !all.at[i]->taken)
            g->own[g->owned++] = all.at[i];
    return 0;
}

/* Those are no candidates any more. They are left in until they are every second one, so that each is moved on
 * a few times, however often some are settled. */
static void given_taken(struct given *g, size_t settled)
{
    size_t kept = 0;
    g->settled += settled;
    if (g->settled < g->owned / 2)
        return;
    for (size_t i = 0; i < g->owned; i++)
        if (!g->own[i]->taken)
            g->own[kept++] = g->own[i];
    g->owned = kept;
    g->settled = 0;
}

/* The whole batches that may have stood there; where nothing tells what came before, the newest of them. */
static int candidates(struct given *g, const struct lost *lost, struct chain *c)
{
    const struct topic *t = g->t;
    uint64_t from = g->after[lost->run], bytes = 0;
    struct orphans own = {g->own, g->owned};
    size_t first = orphans_find(own, from + 1), last = orphans_find(own, g->before), i = last;
    c->bounded = from > 0 || lost->offset == 0;
    while (i > first && (c->bounded || bytes < c->end - lost->offset)) {
        const struct orphan *o = g->own[--i];
        bytes += o->taken || chain_is_refused(t, &o->s) ? 0 : o->s.length;
    }
    c->count = 0;
    c->at = calloc(last - i + 1, sizeof *c->at);
    if (!c->at)
        return -ENOMEM;
    for (; i < last; i++)
        if (!g->own[i]->taken)
            c->at[c->count++] =
                (struct link){.o = g->own[i], .refused = chain_is_refused(t, &g->own[i]->s)};
    chain_fill(c, c->end - lost->offset);
    return 0;
}

/* May it have been moved from where run i stood? Not when it stands there, nor when something else of the topic
 * does; not what its session never took, which was held or fenced; nor what came behind all that the topic
 * holds, which was never committed. */
static bool may_be(const struct topic *t, size_t i, const struct side *own, const struct orphan *o)
{
    const struct run *r = topic_run(t, i);
    return (!own || fsck_same_batch(own, &o->s)) &&
           (o->s.run0 < r->payload || o->s.run0 - r->payload >= topic_run_end(t, i) - r->offset) &&
           o->s.time <= t->time && (!o->s.session || session_find(t->log, o->s.session)) &&
           !chain_is_refused(t, &o->s);
}

/* Are these the batches of run i, which end at `end`? What was moved as one run stands side by side. */
static bool is_run(const struct topic *t, size_t i, const struct link *l, uint64_t end,
                   uint64_t behind)
{
    const struct pool *p = &t->log->pool;
    const struct run *r = topic_run(t, i);
    uint64_t bytes = 0, count = 0, at = r->side;
    bool stands = true; /* as far as records of its own do */
    for (unsigned b = 0; b < r->batches; b++) {
        const struct orphan *o = l[b].o;
        struct side own;
        stands = stands && side_read(p, at, &own) == 0 && own.topic == t->id &&
                 own.run0 == r->payload + bytes;
        if (!may_be(t, i, stands ? &own : NULL, o) || (b > 0 && !chain_is_beside(p, l[b - 1].o, o)))
            return false;
        at -= stands ? side_size(own.count, own.equal) : 0;
        bytes += o->s.length;
        count += o->s.count;
    }
    return bytes == end - r->offset && count == behind - r->message;
}

/* Do they make it up, run by run, in bytes and in messages? Nothing but these was whole between what is known
 * on both sides; where nothing is before, what was trimmed may pass for one of them. */
static bool makes_up(const struct topic *t, const struct lost *lost, struct chain *c)
{
    uint64_t offset = lost->offset, message = lost->message;
    size_t at = 0, batches = 0;
    for (size_t i = lost->run; i < lost->behind; i++)
        batches += topic_run(t, i)->batches;
    if (batches == 0 || batches != c->count || !c->bounded)
        return false;
    c->first = 0;
    for (size_t i = lost->run, next; i < lost->behind; i = next) {
        for (next = i + 1; next < lost->behind && topic_run(t, next)->batches == 0; next++)
            ;
        uint64_t behind = next < t->run_count ? topic_run(t, next)->message : t->last_message_end;
        if (!is_run(t, i, &c->at[at], topic_run_end(t, next - 1), behind))
            return false;
        at += topic_run(t, i)->batches;
    }
    for (at = 0; at < c->count; at++) {
        c->at[at].offset = offset;
        c->at[at].message = message;
        offset += c->at[at].o->s.length;
        message += c->at[at].o->s.count;
    }
    return offset == c->end && message == c->message;
}

static void say_moved(struct fsck *f, const struct topic *t, const struct lost *lost,
                      const struct chain *c)
{
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_ENTRY,
                          .severity = FSCK_WARNING,
                          .action = FSCK_REBUILD,
                          .id = t->id,
                          .messages = {lost->message, c->message},
                          .offsets = {lost->offset, c->end}},
        "Bytes " U64 " up to " U64
        " do not stand where they did: they had been moved, by an index entry that is damaged. "
        "They were found where they went.",
        lost->offset, c->end);
}

static void say_lost(const struct salvage *v, const struct topic *t, const struct lost *lost,
                     const struct chain *c)
{
    fsck_say(v->f,
             &(struct finding){.kind = FSCK_LOST,
                               .severity = FSCK_ERROR,
                               .action = FSCK_MARK,
                               .id = t->id,
                               .offsets = {lost->offset, c->end}},
             "The place of bytes " U64 " up to " U64
             " was given to newer batches. So they had been trimmed%s, or their topic removed, and "
             "the record of that is damaged.",
             lost->offset, c->end, v->unproved ? " or moved" : "");
}

/* Do all of the run's batches stand where it says? */
static bool run_stands(const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    uint64_t offset = r->offset, at = r->side;
    for (unsigned b = 0; b < r->batches; b++) {
        struct side s;
        if (side_read(&t->log->pool, at, &s) != 0 || s.topic != t->id ||
            s.run0 != r->payload + (offset - r->offset))
            return false;
        topic_part_place(t, i, &s);
        if (!side_payload_whole(&t->log->pool, &s))
            return false;
        at -= side_size(s.count, s.equal);
        offset += s.run0_length;
    }
    return true;
}

/* Is it what the run serves? */
static bool serves(const struct topic *t, size_t i, const struct orphan *o)
{
    const struct run *r = topic_run(t, i);
    return !run_is_damaged(r) && o->s.run0 >= r->payload &&
           o->s.run0 - r->payload < topic_run_end(t, i) - r->offset;
}

/* Runs [i, behind): those that follow one another, with the second part of a split batch. `given`: their
 * place was; else they do not stand there, which the walk says should they not be found. */
static int given_settle(struct given *g, size_t i, size_t behind, bool given)
{
    struct salvage *v = g->v;
    struct topic *t = g->t;
    struct fsck *f = v->f;
    const struct run *r = topic_run(t, i);
    const struct parts none = {0};
    const struct lost lost = {i, behind, r->offset, r->message};
    struct chain c = {.end = topic_run_end(t, behind - 1),
                      .message = behind < t->run_count ? topic_run(t, behind)->message
                                                       : t->last_message_end};
    int rc = v->unproved && r->batches > 0 && !g->after ? given_begin(g) : 0;
    if (rc == 0 && g->after && r->batches > 0)
        rc = candidates(g, &lost, &c);
    t->doubted = t->doubted || c.count > 0;
    if (given && t->ordered_end < c.end) /* for fsck_room.c: nobody orders here */
        t->ordered_end = c.end;
    size_t first = c.first;
    if (rc == 0 && makes_up(t, &lost, &c)) {
        say_moved(f, t, &lost, &c);
        v->f->state_damaged = true;
        table_rewrite(v->log, t);
        for (size_t k = i; k < behind; k++) { /* what was not given away */
            const struct run *part = topic_run(t, k);
            if (!(part->flags & MEDIA_RUN_LOST))
                extent_put(v->log->extents,
                           extent_find(v->log->extents, part->payload, part->order));
        }
        rc = chain_take(f, t, &lost, &c, &none);
    } else if (rc == 0) {
        if (given)
            say_lost(v, t, &lost, &c);
        for (size_t k = first; rc == 0 && k < c.count; k++)
            if (!serves(t, i, c.at[k].o))
                rc = fsck_unplaced(f, t, c.at[k].o, "index entry that named it");
    }
    for (size_t k = first; k < c.count; k++)
        f->orphan[c.at[k].o - f->orphan].taken = true;
    given_taken(g, c.count - first);
    free(c.at);
    return rc;
}

static int given_topic(struct salvage *v, struct topic *t)
{
    int rc = 0;
    struct given g = {.v = v, .t = t, .before = UINT64_MAX};
    for (size_t end = t->run_count, i; rc == 0 && end > 0; end = i) {
        size_t behind = end;
        i = end - 1;
        bool given = topic_run(t, i)->flags & RUN_GIVEN;
        uint64_t time = v->unproved ? head_time(t, i) : 0;
        if (!given && (!v->unproved || run_is_damaged(topic_run(t, i)) || run_stands(t, i))) {
            g.before = time ? time : g.before;
            continue;
        }
        while (given && i > 0 && topic_run(t, i - 1)->flags & RUN_GIVEN)
            i--;
        while (behind < t->run_count && topic_run(t, behind)->batches == 0)
            behind++;
        for (size_t k = i; given && k < end; k++)
            topic_run(t, k)->flags = MEDIA_RUN_LOST;
        if (t->id != 0)
            rc = given_settle(&g, i, behind, given);
        time = rc == 0 && v->unproved ? head_time(t, i) : 0;
        g.before = time ? time : g.before;
    }
    free(g.after);
    free(g.own);
    return rc;
}

int salvage_given(struct salvage *v)
{
    int rc = given_topic(v, v->log->control);
    for (struct topic *t = v->log->names.by_id; rc == 0 && t; t = t->by_id.next)
        rc = given_topic(v, t);
    return rc;
}
