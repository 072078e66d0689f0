/* Batches whose places were given to newer ones (recovery): they had been trimmed, or moved, and the entry
 * that said so is damaged.
 *
 * What was moved stands whole at its new place. Where entries are lost that may have said so, the topic's
 * whole batches from between what stands before and behind, in the order of their times, are taken for it
 * when they make up the bytes and the messages exactly; else they are saved aside. Such a topic is the last
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

/* What stands before runs [i, behind) was whole after this time, and what stands behind them before that. */
static struct fsck_range times_around(const struct topic *t, size_t i, size_t behind)
{
    struct fsck_range time = {0, UINT64_MAX};
    struct side s;
    while (i-- > 0 && time.from == 0)
        if (!run_is_damaged(topic_run(t, i)))
            time.from = run_time(t, i);
    for (; behind < t->run_count && time.to == UINT64_MAX; behind++) {
        const struct run *r = topic_run(t, behind);
        if (!run_is_damaged(r) && r->batches > 0 && side_read(&t->log->pool, r->side, &s) == 0 &&
            s.topic == t->id && s.run0 == r->payload)
            time.to = s.time;
    }
    return time;
}

/* The whole batches that may have stood there. */
static int candidates(struct salvage *v, const struct topic *t, const struct lost *lost,
                      struct chain *c)
{
    struct fsck *f = v->f;
    struct fsck_range time = times_around(t, lost->run, lost->behind);
    int rc = fsck_orphans(f, v->log);
    if (rc)
        return rc;
    c->count = 0;
    c->at = calloc(f->orphans + 1, sizeof *c->at);
    if (!c->at)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++) {
        const struct orphan *o = &f->orphan[i];
        if (o->s.topic == t->id && o->whole && !o->taken && o->s.time > time.from &&
            o->s.time < time.to)
            c->at[c->count++] = (struct link){.o = o};
    }
    c->bounded = time.from > 0;
    chain_fill(c, c->end - lost->offset);
    return 0;
}

/* Nothing that was moved as one run came apart; its copies at other places may be mixed with it. */
static bool is_run(const struct pool *p, const struct link *l, unsigned batches, bool bounded,
                   uint64_t length, uint64_t messages)
{
    uint64_t bytes = 0, count = 0;
    for (unsigned b = 0; b < batches; b++) {
        if (b > 0 && !bounded && !chain_is_beside(p, l[b - 1].o, l[b].o))
            return false;
        bytes += l[b].o->s.length;
        count += l[b].o->s.count;
    }
    return bytes == length && count == messages;
}

/* Do the newest of them make it up, run by run, in bytes and in messages? Nothing else may have stood between
 * what is known on both sides; where nothing is before, what was trimmed may not pass for one of them. */
static bool makes_up(const struct topic *t, const struct lost *lost, struct chain *c)
{
    uint64_t offset = lost->offset, message = lost->message;
    size_t at, batches = 0;
    for (size_t i = lost->run; i < lost->behind; i++)
        batches += topic_run(t, i)->batches;
    if (batches == 0 || batches > c->count)
        return false;
    at = c->first = c->count - batches;
    if ((c->bounded || lost->offset == 0) ? at > 0 : chain_is_alike(c, at))
        return false;
    for (size_t i = lost->run, next; i < lost->behind; i = next) {
        const struct run *r = topic_run(t, i);
        for (next = i + 1; next < lost->behind && topic_run(t, next)->batches == 0; next++)
            ;
        uint64_t end = topic_run_end(t, next - 1);
        uint64_t behind = next < t->run_count ? topic_run(t, next)->message : t->last_message_end;
        if (!is_run(&t->log->pool, &c->at[at], r->batches, c->bounded, end - r->offset,
                    behind - r->message))
            return false;
        at += r->batches;
    }
    for (at = 0; at < c->count; at++) {
        bool is_in = at >= c->first;
        c->at[at].offset = is_in ? offset : NOWHERE;
        c->at[at].message = message;
        offset += is_in ? c->at[at].o->s.length : 0;
        message += is_in ? c->at[at].o->s.count : 0;
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
static int given_settle(struct salvage *v, struct topic *t, size_t i, size_t behind, bool given)
{
    struct fsck *f = v->f;
    const struct run *r = topic_run(t, i);
    const struct parts none = {0};
    const struct lost lost = {i, behind, r->offset, r->message};
    struct chain c = {.end = topic_run_end(t, behind - 1),
                      .message = behind < t->run_count ? topic_run(t, behind)->message
                                                       : t->last_message_end};
    int rc = v->unproved && r->batches > 0 ? candidates(v, t, &lost, &c) : 0;
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
        for (size_t k = first; k < c.count; k++)
            if (!serves(t, i, c.at[k].o))
                fsck_unplaced(f, t, c.at[k].o, "index entry");
    }
    for (size_t k = first; k < c.count; k++)
        f->orphan[c.at[k].o - f->orphan].taken = true;
    free(c.at);
    return rc;
}

static int given_topic(struct salvage *v, struct topic *t)
{
    int rc = 0;
    for (size_t end = t->run_count, i; rc == 0 && end > 0; end = i) {
        size_t behind = end;
        i = end - 1;
        bool given = topic_run(t, i)->flags & RUN_GIVEN;
        if (!given && (!v->unproved || run_is_damaged(topic_run(t, i)) || run_stands(t, i)))
            continue;
        while (given && i > 0 && topic_run(t, i - 1)->flags & RUN_GIVEN)
            i--;
        while (behind < t->run_count && topic_run(t, behind)->batches == 0)
            behind++;
        for (size_t k = i; given && k < end; k++)
            topic_run(t, k)->flags = MEDIA_RUN_LOST;
        if (t->id != 0)
            rc = given_settle(v, t, i, behind, given);
    }
    return rc;
}

int salvage_given(struct salvage *v)
{
    int rc = given_topic(v, v->log->control);
    for (struct topic *t = v->log->names.by_id; rc == 0 && t; t = t->by_id.next)
        rc = given_topic(v, t);
    return rc;
}
