/* The index from a checkpoint on, around what is damaged in it (recovery).
 *
 * As recovery does, entry by entry along the chain; but a break below the watermark, or an entry
 * that cannot be folded, is reported and gone around. Folds into a log that nobody serves; never
 * writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_salvage.h"

/* One entry, or two. 1: on; 0: the end; or an error. */
static int step(struct salvage *v)
{
    struct log *log = v->log;
    struct entry e, part;
    uint32_t next = 0, behind = 0;
    uint64_t number = v->number + 1;
    if (v->number >= log->limit)
        return 0;
    if (!salvage_entry(v, v->term, number, v->chain, &e, &next)) {
        if (number > v->trusted)
            return 0;
        int rc = salvage_break(v);
        return rc ? rc : 1;
    }
    bool split = e.flags & MEDIA_F_SPLIT;
    if (index_check(&log->pool, &e) || e.kind == MEDIA_PART) {
        v->f->state_damaged = true;
        fsck_say(v->f,
                 &(struct finding){.kind = FSCK_ENTRY,
                                   .severity = FSCK_ERROR,
                                   .action = FSCK_FORGET,
                                   .entries = one(number)},
                 "Index entry " U64 " is valid but makes no sense; it is left out.", number);
        v->number = number;
        v->chain = next;
        return 1;
    }
    if (split) {
        bool there = salvage_entry(v, e.term, number + 1, next, &part, &behind) &&
                     part.kind == MEDIA_PART && index_check(&log->pool, &part) == 0;
        if (!there && number + 1 > v->trusted)
            return 0;
        if (!there) {
            if (!salvage_part(v, &e, &part)) {
                v->number = number; /* the break says the rest */
                v->chain = next;
                return 1;
            }
            struct media_entry line;
            behind = index_encode(&line, &part, next);
            v->f->state_damaged = true;
            fsck_say(v->f,
                     &(struct finding){.kind = FSCK_ENTRY,
                                       .severity = FSCK_WARNING,
                                       .action = FSCK_REBUILD,
                                       .id = e.topic,
                                       .entries = one(number + 1)},
                     "Index entry " U64 " is damaged; the batch's own record says what it said.",
                     number + 1);
        }
    }
    int rc = 1;
    if (v->booted && number > v->trusted)
        rc = recover_doubt(v->replay, &e, split ? &part : NULL);
    if (rc != 1)
        return rc;
    rc = salvage_hear(v, &e);
    if (rc == 0)
        rc = salvage_fold(v, &e, split ? &part : NULL);
    v->number = number + split;
    v->chain = split ? behind : next;
    v->term = e.term;
    return rc ? rc : 1;
}

/* Without a watermark to trust, all that stands in the ring and goes on by itself counts. */
static uint64_t furthest(const struct salvage *v)
{
    const struct pool *p = &v->log->pool;
    uint64_t last = v->number;
    for (uint64_t m = v->number + 1; m <= v->number + p->geo.index_entries; m++) {
        const struct media_entry *line = salvage_line(v, m), *before = salvage_line(v, m - 1);
        struct entry e;
        uint32_t next;
        if (line && before && index_decode(line, m, le32_get(before->crc), &e, &next))
            last = m;
    }
    return last;
}

static void term_look(struct salvage *v)
{
    uint32_t newest = 0;
    for (unsigned slot = 0; slot < v->log->pool.geo.slots; slot++) {
        struct media_claim c;
        uint32_t term = recover_claim_term(&v->log->pool, slot, &c);
        if (term <= newest)
            continue;
        newest = term;
        v->begun = le64_get(c.start);
        v->begun_term = term;
        v->begun_time = le64_get(c.time);
    }
}

/* Watermarks and roots tell how the chain goes on behind their entries. */
static void marks_look(struct salvage *v)
{
    struct fsck_root root[INDEX_MARKS];
    bool booted;
    v->marks = index_marks(&v->log->pool, v->mark, &booted);
    for (unsigned n = fsck_roots(v->f, root, INDEX_MARKS); n > 0; n--) {
        const struct media_root *r = &root[n - 1].root;
        v->mark[v->marks++] =
            (struct mark){le64_get(r->number), le32_get(r->chain), le32_get(r->term)};
    }
}

const struct mark *salvage_mark(const struct salvage *v, uint64_t number)
{
    const struct mark *found = NULL;
    for (unsigned i = 0; i < v->marks; i++) {
        const struct mark *m = &v->mark[i];
        if (m->number == number && m->chain != 0 && (!found || m->term > found->term))
            found = m;
    }
    return found;
}

int fsck_replay(struct fsck *f, struct log *log, const struct fsck_root *base)
{
    struct salvage v = {.f = f,
                        .log = log,
                        .chain = index_seed(&log->pool),
                        .missing_from = UINT64_MAX,
                        .moves_left = SALVAGE_MOVES};
    v.replay = recover_begin(log);
    if (!v.replay)
        return -ENOMEM;
    v.trusted = recover_trusted(log, &v.booted);
    if (base) {
        v.start = v.number = le64_get(base->root.number);
        v.next_id = le32_get(base->root.next_id);
        v.chain = le32_get(base->root.chain);
        v.term = le32_get(base->root.term);
        v.time = le64_get(base->root.time);
    }
    f->outrun = false;
    term_look(&v);
    marks_look(&v);
    salvage_times(&v);
    if (f->watermark_damaged) {
        uint64_t last = furthest(&v);
        v.trusted = last > v.trusted ? last : v.trusted;
    }
    /* Never more than a ring behind the checkpoint: older entries cannot stand. */
    if (v.trusted > v.number + log->pool.geo.index_entries) {
        uint64_t from = v.trusted - log->pool.geo.index_entries;
        f->state_damaged = true;
        fsck_say(f,
                 &(struct finding){.kind = FSCK_ENTRY,
                                   .severity = FSCK_ERROR,
                                   .action = FSCK_FORGET,
                                   .entries = {v.number + 1, from + 1}},
                 "Index entries " U64 " to " U64 " were overwritten by later ones: the checkpoint "
                 "that held what they said cannot be used.",
                 v.number + 1, from);
        v.number = from;
        v.chain = 0;
        v.unproved = true;
        v.missing_from = 0;
        f->outrun = true;
    }
    int rc = salvage_since(&v, base ? le64_get(base->root.clock) : 0) ? -ENOMEM : 1;
    while (rc == 1) {
        if ((v.number & 0xffff) == 0)
            fsck_progress(f, "reading the index", v.number, v.trusted);
        rc = step(&v);
    }
    if (rc == 0 && f->watermark_damaged)
        rc = salvage_tail(&v);
    if (rc == 0)
        rc = salvage_rest(&v);
    if (rc == 0)
        salvage_since_settle(&v);
    if (rc == 0)
        rc = salvage_given(&v);
    if (rc == 0)
        rc = salvage_aside(&v);
    uint64_t limit = rc ? UINT64_MAX : recover_limit(v.replay);
    if (limit != UINT64_MAX) {
        log->limit = limit;
        rc = -EAGAIN;
    }
    salvage_actions_drop(&v);
    free(v.behind);
    salvage_places_drop(&v);
    salvage_movables_drop(&v);
    salvage_sieve_drop(&v);
    salvage_since_drop(&v);
    salvage_hearsay_drop(&v);
    recover_end(v.replay);
    f->number = v.number;
    f->trusted = v.trusted;
    f->unproved = v.unproved;
    f->maybe = v.maybe;
    log->seq.next = v.number + 1;
    log->seq.chain = v.chain;
    log->term = v.term;
    return rc;
}
