/* One lost entry of the index by itself (recovery): what it may have been is tried until the chain of checksums
 * says that it was that. Never writes to the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_gap.h"

/* A lost entry without a batch: the begin of a term, or the first grant. */
bool gap_is_bare(struct salvage *v, struct gap *g, uint32_t term)
{
    const struct pool *p = &v->log->pool;
    if (!g->known || g->to - g->from != 1)
        return false;
    g->count = 1;
    for (unsigned slot = 0; slot < p->geo.slots; slot++) {
        g->e[0] = (struct entry){
            .number = g->from, .term = term, .kind = MEDIA_TERM, .session = slot, .count = 1};
        if (gap_proved(v, g))
            return true;
        g->e[0] = (struct entry){.number = g->from,
                                 .term = term,
                                 .kind = MEDIA_GRANT,
                                 .session = slot,
                                 .sequence = p->geo.regions / p->geo.brokers,
                                 .count = 1};
        if (gap_proved(v, g))
            return true;
    }
    g->count = 0;
    return false;
}

#define MOVES_MOST (1u << 16) /* ways that are tried at one gap */

/* A run as the lost entry moved it, if the chain says so. */
static bool gap_moved(const struct salvage *v, struct gap *g, uint32_t term, const struct topic *t,
                      size_t i, uint64_t payload, uint64_t side, unsigned order)
{
    const struct run *r = topic_run(t, i);
    g->e[0] = (struct entry){.number = g->from,
                             .term = term,
                             .kind = MEDIA_MOVE,
                             .topic = t->id,
                             .offset = r->offset,
                             .length = (uint32_t)(topic_run_end(t, i) - r->offset),
                             .payload = payload,
                             .side = side,
                             .count = r->batches > 0 ? r->batches : 1u,
                             .slot = (uint8_t)v->log->slot,
                             .order = (uint8_t)order};
    g->count = 1;
    return gap_proved(v, g);
}

/* A second part has no record: it went to the begin of an extent, or behind what was moved just before. */
static bool gap_moved_part(const struct salvage *v, struct gap *g, uint32_t term,
                           const struct topic *t, size_t i, unsigned *left)
{
    const struct pool *p = &v->log->pool;
    const struct media_entry *before = salvage_line(v, g->from - 1);
    if (before && before->kind == MEDIA_MOVE &&
        gap_moved(v, g, term, t, i, le64_low48(before->payload) + le32_get(before->length), 0,
                  before->order))
        return true;
    for (unsigned order = 0; order <= p->geo.max_order; order++) {
        uint64_t size = 1ull << (order + p->geo.block_shift);
        for (uint64_t at = p->data_base; pool_in_data(p, at, size) && *left > 0;
             at += size, --*left)
            if (gap_moved(v, g, term, t, i, at, 0, order))
                return true;
    }
    return false;
}

/* A topic of which a lost move may tell: a batch that begins a run stands elsewhere too, or not where the run says,
 * or is a second part. */
struct movable {
    uint32_t topic;
    UT_hash_handle hh;
};

static bool run_begin(const struct topic *t, size_t i, struct side *s)
{
    const struct run *r = topic_run(t, i);
    return side_read(&t->log->pool, r->side, s) == 0 && s->topic == t->id && s->run0 == r->payload;
}

static bool stands_elsewhere(struct orphans of, const struct run *r, const struct side *s)
{
    struct orphans then = orphans_at(of, s->time);
    for (size_t i = 0; i < then.count; i++)
        if (then.at[i]->at != r->side && fsck_same_batch(&then.at[i]->s, s))
            return true;
    return false;
}

static bool run_is_movable(const struct fsck *f, const struct topic *t, size_t i)
{
    const struct run *r = topic_run(t, i);
    struct side s;
    f->report->compared++;
    return !run_is_damaged(r) && (r->batches == 0 || !run_begin(t, i, &s) ||
                                  stands_elsewhere(fsck_orphans_of(f, t->id), r, &s) ||
                                  stands_elsewhere(fsck_twins_of(f, t->id), r, &s));
}

static int movable_add(struct salvage *v, uint32_t topic)
{
    struct movable *m;
    HASH_FIND(hh, v->movable, &topic, sizeof topic, m);
    if (m)
        return 0;
    m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    m->topic = topic;
    HASH_ADD(hh, v->movable, topic, sizeof m->topic, m);
    if (is_hashed(m, hh))
        return 0;
    free(m);
    return -ENOMEM;
}

/* All runs as they are now: those that come are looked at when they do. */
static int movables_find(struct salvage *v)
{
    int rc = fsck_orphans(v->f, v->log);
    if (rc || v->movables_known)
        return rc;
    for (const struct topic *t = v->log->names.by_id; rc == 0 && t; t = t->by_id.next)
        for (size_t i = 0; rc == 0 && i < t->run_count; i++)
            if (run_is_movable(v->f, t, i)) {
                rc = movable_add(v, t->id);
                break;
            }
    v->movables_known = rc == 0;
    return rc;
}

int salvage_movable(struct salvage *v, uint32_t topic, uint64_t offset)
{
    const struct topic *t = v->movables_known ? names_id(&v->log->names, topic) : NULL;
    if (!t || t->run_count == 0 || !run_is_movable(v->f, t, topic_run_find(t, offset)))
        return 0;
    return movable_add(v, topic);
}

void salvage_movables_drop(struct salvage *v)
{
    for (struct movable *m = v->movable, *next; m; m = next) {
        next = m->hh.next;
        HASH_DELETE(hh, v->movable, m);
        free(m);
    }
}

/* Where the batch is that begins run i; where that does not stand there, any of the topic's. */
static bool gap_moved_to(const struct salvage *v, struct gap *g, uint32_t term,
                         const struct topic *t, size_t i, struct orphans of, unsigned *left)
{
    const struct run *r = topic_run(t, i);
    struct side s;
    bool whole = run_begin(t, i, &s);
    if (whole)
        of = orphans_at(of, s.time);
    for (size_t k = 0; k<of.count && * left> 0; k++, --*left) {
        const struct orphan *o = of.at[k];
        if (o->at != r->side && (!whole || fsck_same_batch(&o->s, &s)) &&
            gap_moved(v, g, term, t, i, o->s.run0, o->at, o->s.order0))
            return true;
    }
    return false;
}

/* A lost move: the copies of the run's records say where it went. */
bool gap_is_move(struct salvage *v, struct gap *g, uint32_t term)
{
    struct fsck *f = v->f;
    unsigned most = MOVES_MOST < v->moves_left ? MOVES_MOST : v->moves_left, left = most;
    bool found = false;
    if (!g->known || g->to - g->from != 1 || movables_find(v))
        return false;
    for (const struct movable *m = v->movable; !found && m && left > 0; m = m->hh.next) {
        const struct topic *t = names_id(&v->log->names, m->topic);
        struct orphans own = fsck_orphans_of(f, m->topic), twins = fsck_twins_of(f, m->topic);
        for (size_t i = 0; !found && t && i < t->run_count && left > 0; i++) {
            const struct run *r = topic_run(t, i);
            left--;
            if (run_is_damaged(r))
                continue;
            found = r->batches == 0 ? gap_moved_part(v, g, term, t, i, &left)
                                    : gap_moved_to(v, g, term, t, i, own, &left) ||
                                          gap_moved_to(v, g, term, t, i, twins, &left);
        }
    }
    f->report->compared += most - left;
    v->moves_left -= most - left;
    g->count = found ? g->count : 0;
    return found;
}

#define TRIES_MOST 4096u /* batches that are tried in one place */

/* The entry is that batch's, if the chain says so. */
static bool gap_is(const struct salvage *v, struct gap *g, struct orphan *o)
{
    const struct orphan *as = o->named >= g->from ? fsck_as_named(v->f, o) : o;
    unsigned n = fsck_entry(v->log, as, g->from, gap_end(v, g, o->s.topic), v->term, g->e);
    if (n != g->to - g->from)
        return false;
    if (o->s.time < salvage_newer_than(v, o->s.topic))
        g->e[0].flags |= MEDIA_F_LATE;
    g->count = n;
    if (gap_proved(v, g))
        return true;
    if (!v->unproved) /* else it is not known where its topic ended */
        o->not_there += n;
    return false;
}

/* Can it be neither this entry nor one that is lost behind it? */
static bool is_past(const struct salvage *v, const struct gap *g, const struct orphan *o)
{
    return o->taken || o->s.topic == 0 || !names_id(&v->log->names, o->s.topic) ||
           o->s.time + FSCK_SLACK <= salvage_newer_than(v, o->s.topic) || gap_is_told(g, o);
}

/* One lost entry of a batch: it may be any, also one that was announced before what its topic held by then, but
 * not by long. */
bool gap_is_batch(struct salvage *v, struct gap *g)
{
    unsigned tries = TRIES_MOST;
    struct orphan *o;
    if (!g->known || g->half || g->to - g->from > 2 || gap_sieve(v, g))
        return false;
    const struct orphan *behind = sieve_end(v, g->before);
    for (; tries > 0 && (o = sieve_before(v, SIEVE_ONE, behind)); behind = o) {
        if (is_past(v, g, o)) {
            sieve_out(v, SIEVE_ONE, o);
            continue;
        }
        if (o->named >= g->to)
            continue;
        tries--;
        g->count = 0;
        if (gap_is(v, g, o))
            return true;
    }
    g->count = 0;
    return false;
}
