/* One lost entry of the index by itself (recovery): what it may have been is tried until the chain of checksums
 * says that it was that. Never writes to the pool.
 */
#include <inttypes.h>

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

#define MOVES_MOST (1u << 22) /* ways that are tried */

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

/* A lost move: the copies of the run's records say where it went. */
bool gap_is_move(struct salvage *v, struct gap *g, uint32_t term)
{
    struct fsck *f = v->f;
    unsigned left = MOVES_MOST;
    if (!g->known || g->to - g->from != 1 || fsck_orphans(f, v->log))
        return false;
    for (const struct topic *t = v->log->names.by_id; t; t = t->by_id.next)
        for (size_t i = 0; i < t->run_count; i++) {
            const struct run *r = topic_run(t, i);
            struct side s;
            if (run_is_damaged(r))
                continue;
            if (r->batches == 0 && gap_moved_part(v, g, term, t, i, &left))
                return true;
            bool whole = r->batches > 0 && side_read(&v->log->pool, r->side, &s) == 0 &&
                         s.topic == t->id && s.run0 == r->payload;
            for (size_t k = 0; r->batches > 0 && k < f->orphans + f->twins && left > 0;
                 k++, left--) {
                const struct orphan *o = &f->orphan[k];
                bool fits = o->s.topic == t->id && o->at != r->side &&
                            (!whole || fsck_same_batch(&o->s, &s));
                if (fits && gap_moved(v, g, term, t, i, o->s.run0, o->at, o->s.order0))
                    return true;
            }
        }
    g->count = 0;
    return false;
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

/* One lost entry of a batch: it may be any, also one that was announced before what its topic held by then, but
 * not by long. */
bool gap_is_batch(struct salvage *v, struct gap *g)
{
    struct fsck *f = v->f;
    unsigned tries = TRIES_MOST;
    if (!g->known || g->half || g->to - g->from > 2 || fsck_orphans(f, v->log))
        return false;
    for (size_t i = f->orphans; i-- > 0 && tries > 0;) {
        struct orphan *o = &f->orphan[i];
        g->count = 0;
        if (o->taken || o->s.topic == 0 || !names_id(&v->log->names, o->s.topic) ||
            o->s.time >= g->before || o->named >= g->to ||
            o->s.time + FSCK_SLACK <= salvage_newer_than(v, o->s.topic) || gap_is_told(v, g, o))
            continue;
        tries--;
        if (gap_is(v, g, o))
            return true;
    }
    g->count = 0;
    return false;
}
