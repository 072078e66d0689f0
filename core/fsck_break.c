/* Breaks in the index's chain, below what was durable (recovery): what stood there is mended when a
 * lone bit flipped, or put together from the batches themselves. A CRC tells its own seed, so the
 * entry behind a break says what the chain was there, and with it whether what was put there is
 * right. Never writes to the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_gap.h"

static struct fsck_range place_of(const struct pool *p, const void *at, uint64_t size)
{
    uint64_t from = (uint64_t)((const char *)at - p->base);
    return (struct fsck_range){from, from + size};
}

/* ---- Lines --------------------------------------------------------------------------------- */

bool gap_term_begins(const struct salvage *v, uint64_t number, struct entry *e)
{
    const struct log *log = v->log;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++) {
        struct media_claim c = *pool_claim(&log->pool, slot);
        uint32_t term = recover_claim_term(&log->pool, slot, NULL);
        if (term == 0 || le64_get(c.start) != number)
            continue;
        *e = (struct entry){
            .number = number, .term = term, .kind = MEDIA_TERM, .session = slot, .count = 1};
        return true;
    }
    return false;
}

/* Does the entry's side record say the same as the entry, or the claim of its term? */
static bool agrees(const struct salvage *v, const struct entry *e)
{
    const struct log *log = v->log;
    struct side s;
    struct entry begin;
    if (e->kind == MEDIA_TERM)
        return gap_term_begins(v, e->number, &begin) && begin.term == e->term;
    if (e->kind == MEDIA_MOVE)
        return e->side && index_check(&log->pool, e) == 0 &&
               side_read(&log->pool, e->side, &s) == 0 && s.topic == e->topic &&
               s.run0 == e->payload;
    if (e->kind != MEDIA_BATCH && e->kind != MEDIA_CONTROL && e->kind != MEDIA_PART)
        return false;
    if (index_check(&log->pool, e) || side_read(&log->pool, e->side, &s))
        return false;
    bool part = e->kind == MEDIA_PART;
    return fsck_names(e, &s) && s.session == e->session && s.count == e->count &&
           e->payload == (part ? s.run1 : s.run0) &&
           e->length == (part ? s.length - s.run0_length : s.run0_length);
}

/* Does the line for `number` stand although the chain before it is not known? The line before or the
 * one behind says so by the chain, and then its side record. */
static bool stands(const struct salvage *v, uint64_t number, struct entry *e, uint32_t *next)
{
    const struct media_entry *line = salvage_line(v, number);
    if (!line || !index_decode(line, number, index_chain_before(line), e, next) ||
        e->term < v->term)
        return false;
    const struct media_entry *before = salvage_line(v, number - 1),
                             *behind = salvage_line(v, number + 1);
    struct entry other;
    uint32_t unused;
    if (before && le32_get(before->crc) == index_chain_before(line))
        return true;
    bool goes_on = behind && index_decode(behind, number + 1, *next, &other, &unused);
    return agrees(v, e) && (goes_on || !behind);
}

/* The line as it was before one of its bits flipped; `behind`: the chain behind it, when known. */
static bool line_mend(const struct media_entry *line, uint64_t number, uint32_t chain,
                      const uint32_t *behind, struct entry *e, uint32_t *next)
{
    struct media_entry copy = *line;
    uint8_t *bytes = (uint8_t *)&copy;
    if (behind)
        copy.crc = le32_of(*behind);
    if (index_decode(&copy, number, chain, e, next))
        return true;
    for (unsigned bit = 0; bit < 8 * sizeof copy; bit++) {
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
        if (index_decode(&copy, number, chain, e, next))
            return true;
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
    }
    return false;
}

/* The line that continues the chain but for one bit, in any slot; NULL: there is none. */
static const struct media_entry *entry_mend(const struct pool *p, uint32_t term, uint64_t number,
                                            uint32_t chain, struct entry *e, uint32_t *next)
{
    for (unsigned slot = 0; slot < p->geo.slots; slot++) {
        const struct media_entry *line = pool_entry(p, slot, number);
        if (line_mend(line, number, chain, NULL, e, next) && e->term >= term &&
            index_check(p, e) == 0)
            return line;
    }
    return NULL;
}

bool salvage_entry(struct salvage *v, uint32_t term, uint64_t number, uint32_t chain,
                   struct entry *e, uint32_t *next)
{
    const struct pool *p = &v->log->pool;
    if (recover_entry(v->replay, term, number, chain, e, next))
        return true;
    const struct media_entry *line = entry_mend(p, term, number, chain, e, next);
    if (!line)
        return false;
    v->f->state_damaged = true;
    fsck_say(v->f,
             &(struct finding){.kind = FSCK_ENTRY,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REBUILD,
                               .entries = one(number),
                               .place = place_of(p, line, MEDIA_LINE)},
             "A bit of index entry " U64 " flipped. With it put right the chain of checksums "
             "goes on; nothing is lost.",
             number);
    return true;
}

/* Does a line of some slot continue the chain as it is? */
static bool line_whole(const struct pool *p, uint64_t number, uint32_t chain, struct entry *e,
                       uint32_t *next)
{
    for (unsigned slot = 0; slot < p->geo.slots; slot++)
        if (index_decode(pool_entry(p, slot, number), number, chain, e, next))
            return true;
    return false;
}

/* Does something stand in the place of that entry, or right behind it, that was never written there, for it is of
 * another place? Damage does not keep to lines. */
static bool line_is_odd(const struct pool *p, uint64_t number)
{
    uint64_t entries = p->geo.index_entries;
    for (unsigned i = 0; i < 2 * p->geo.slots; i++) {
        uint64_t n = number + i % 2, there = le64_get(pool_entry(p, i / 2, n)->number);
        if (there != 0 && there % entries != n % entries)
            return true;
    }
    return false;
}

/* Lines are stored whole, so what stands there was never half of an entry: one of an earlier lap, or
 * none, or one that was not told to anybody and whose chain is another. */
bool fsck_end_damaged(const struct fsck *f)
{
    const struct pool *p = &f->log->pool;
    uint64_t number = f->log->seq.next;
    uint32_t chain = f->log->seq.chain, next;
    struct entry e;
    if (line_is_odd(p, number))
        return true;
    /* Recovery saw whole ones and left them out: their record did not reach the disk. */
    bool split = line_whole(p, number, chain, &e, &next) && e.flags & MEDIA_F_SPLIT;
    if (split) {
        number++;
        chain = next;
        if (line_is_odd(p, number))
            return true;
    }
    if (line_whole(p, number, chain, &e, &next))
        return false;
    return entry_mend(p, 0, number, chain, &e, &next) != NULL;
}

bool salvage_part(const struct salvage *v, const struct entry *head, struct entry *part)
{
    struct side s;
    if (side_read(&v->log->pool, head->side, &s) || !s.run1 || s.run0 != head->payload ||
        s.run0_length != head->length || s.topic != head->topic)
        return false;
    struct entry e[2];
    struct orphan o = {.at = head->side, .s = s};
    (void)fsck_entry(v->log, &o, head->number, head->offset, head->term, e);
    *part = e[1];
    return true;
}

/* ---- Breaks -------------------------------------------------------------------------------- */

bool gap_proved(const struct salvage *v, const struct gap *g)
{
    uint32_t chain = v->chain;
    struct media_entry line;
    for (size_t i = 0; i < g->count; i++)
        chain = index_encode(&line, &g->e[i], chain);
    return g->count == g->to - g->from && chain == g->behind;
}

/* A lone bit, anywhere in one line. */
static bool gap_mend(struct salvage *v, struct gap *g)
{
    uint32_t next;
    if (g->to - g->from != 1)
        return false;
    for (unsigned slot = 0; slot < v->log->pool.geo.slots; slot++) {
        const struct media_entry *line = pool_entry(&v->log->pool, slot, g->from);
        if (line_mend(line, g->from, v->chain, g->known ? &g->behind : NULL, &g->e[0], &next) &&
            g->e[0].term >= v->term && index_check(&v->log->pool, &g->e[0]) == 0) {
            g->count = 1;
            return true;
        }
    }
    return false;
}

uint64_t gap_end(const struct salvage *v, const struct gap *g, uint32_t topic)
{
    for (size_t i = g->count; i-- > 0;)
        if (g->e[i].topic == topic && g->e[i].kind != MEDIA_TERM)
            return g->e[i].offset + g->e[i].length;
    const struct topic *t = topic ? names_id(&v->log->names, topic) : v->log->control;
    return t ? topic_end(t) : 0;
}

/* Does the batch stand right behind the topic's last one, both payload and record? Then no other
 * came between them. */
static bool adjacent(const struct salvage *v, const struct gap *g, const struct orphan *o)
{
    uint64_t end = 0, side = 0;
    struct side s;
    for (size_t i = g->count; i-- > 0 && !end;)
        if (g->e[i].topic == o->s.topic && g->e[i].kind != MEDIA_TERM) {
            end = g->e[i].payload + g->e[i].length;
            side = g->e[i].side;
        }
    const struct topic *t = o->s.topic ? names_id(&v->log->names, o->s.topic) : v->log->control;
    if (!end && t && t->run_count > 0) {
        size_t last = t->run_count - 1;
        end = topic_run(t, last)->payload + (topic_end(t) - topic_run(t, last)->offset);
        side = t->side_tail;
    }
    return end == o->s.run0 && side_read(&v->log->pool, side, &s) == 0 &&
           side == o->at + side_size(s.count, s.equal);
}

bool gap_topic_there(const struct salvage *v, const struct gap *g, uint32_t topic)
{
    if (topic == 0 || names_id(&v->log->names, topic))
        return true;
    for (size_t i = 0; i < g->count; i++) {
        struct control c;
        if (g->e[i].kind == MEDIA_CONTROL &&
            control_decode(pool_at(&v->log->pool, g->e[i].payload), g->e[i].length, &c) == 0 &&
            c.kind == MEDIA_C_CREATE && c.id == topic)
            return true;
    }
    return false;
}

/* May it have been held, and never committed? */
static bool is_ahead(const struct salvage *v, const struct gap *g, const struct orphan *o)
{
    const struct topic *t = o->s.topic ? names_id(&v->log->names, o->s.topic) : NULL;
    size_t i = g->count;
    while (i > 0 && g->e[i - 1].session != o->s.session)
        i--;
    return !salvage_is_next(v->log, t, &o->s, i > 0 ? g->e[i - 1].sequence : 0);
}

bool gap_is_told(const struct gap *g, const struct orphan *o)
{
    return o->told && o->named < g->from;
}

/* Does every action stand at the number that it says? */
static bool actions_agree(const struct salvage *v, const struct gap *g)
{
    for (size_t i = 0; i < g->count; i++) {
        struct control c;
        if (g->e[i].kind == MEDIA_CONTROL && !(g->e[i].flags & MEDIA_F_SPLIT) &&
            control_decode(pool_at(&v->log->pool, g->e[i].payload), g->e[i].length, &c) == 0 &&
            c.number != g->e[i].number)
            return false;
    }
    return true;
}

/* Can it be of no entry from the gap on? */
static bool is_past(const struct salvage *v, const struct gap *g, const struct orphan *o)
{
    return o->taken || !gap_topic_there(v, g, o->s.topic) ||
           o->s.time <= salvage_newer_than(v, o->s.topic) || salvage_is_void(v, o, g->from);
}

/* The batches that nothing names, in the order of their times, from the last entry on. With all of
 * them that is what stood there when the chain proves it, or when nothing follows that could. When
 * some are missing (`part`), only what stands right behind its topic's last batch is sure. */
static int gap_collect(struct salvage *v, struct gap *g, bool part)
{
    uint32_t term = v->term;
    int rc = gap_sieve(v, g);
    if (rc == 0 && !g->known)
        rc = salvage_close(v);
    g->count = 0;
    g->close = false;
    memset(g->is_close, 0, sizeof g->is_close);
    const struct orphan *last = NULL, *own;
    while (rc == 0 && (own = sieve_next(v, SIEVE_NEXT, last)) && own->s.time < g->before) {
        const struct orphan *o = last = own;
        if (is_past(v, g, own)) {
            sieve_out(v, SIEVE_NEXT, own);
            continue;
        }
        /* The chain is made of what was said at the time, wherever the batch stands now. */
        if (!part && o->named >= g->from)
            o = fsck_as_named(v->f, o);
        bool half = g->half && o->at == g->half_side;
        if ((o->named >= g->to && !half) || (part && !adjacent(v, g, o)) ||
            salvage_is_taken(v, &o->s) || (!g->known && (is_ahead(v, g, o) || gap_is_told(g, o))))
            continue;
        if (part && (o->close || !(v->f->watermark_damaged || salvage_is_sure(v, o))))
            continue;
        if (!part && gap_term_begins(v, g->from + g->count, &g->e[g->count]))
            term = g->e[g->count++].term;
        uint64_t left = g->to - g->from - g->count;
        if (left < (o->s.run1 && !half ? 2 : 1) || g->count + 3 > LOST_MOST) {
            if (g->known)
                break;
            /* More than were lost: some were not committed, and nothing tells which. */
            g->count = 0;
            return 0;
        }
        g->is_close[g->count] = !g->known && own->close;
        g->close = g->close || g->is_close[g->count];
        unsigned n = fsck_entry(v->log, o, g->from + g->count, gap_end(v, g, o->s.topic), term,
                                &g->e[g->count]);
        salvage_made(v, &g->e[g->count]);
        g->count += half ? 1 : n;
    }
    if (rc == 0 && !part && g->count < g->to - g->from &&
        gap_term_begins(v, g->from + g->count, &g->e[g->count]))
        g->count++;
    return rc;
}

static int gap_rebuild(struct salvage *v, struct gap *g, bool part)
{
    int rc = gap_collect(v, g, part);
    /* As many as are missing, unless more were missed before. */
    bool counted = g->count == g->to - g->from && !v->unproved;
    bool whole = rc == 0 && (g->known ? gap_proved(v, g) : counted && actions_agree(v, g));
    if (rc == 0 && !part && !whole)
        rc = gap_arrange(v, g);
    return rc;
}

/* From the i-th on nothing tells the order of the topic's batches, but how much they are. */
static int gap_lose(struct salvage *v, const struct gap *g, size_t i, struct topic *t)
{
    uint64_t end = topic_end(t), messages = 0;
    v->unproved = true; /* those that are not served go aside */
    for (size_t k = i; k < g->count; k++) {
        const struct entry *e = &g->e[k];
        if (e->topic != t->id || (e->kind != MEDIA_BATCH && e->kind != MEDIA_PART))
            continue;
        end = e->offset + e->length;
        messages += e->kind == MEDIA_BATCH ? e->count : 0;
        if (e->session && session_find(v->log, e->session))
            salvage_session_lose(v, e->session, t->id, e->number);
    }
    int rc = salvage_lose(v, t, end, g->e[i].number);
    t->last_message_end += rc == 0 ? messages : 0;
    return rc;
}

static int gap_fold(struct salvage *v, struct gap *g)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < g->count; i++) {
        const struct entry *e = &g->e[i];
        struct entry part;
        if (g->is_close[i]) {
            struct topic *t = names_id(&v->log->names, e->topic);
            if (t && !names_is_dir(t) && e->offset >= topic_end(t)) /* the first of them */
                rc = gap_lose(v, g, i, t);
            i += e->flags & MEDIA_F_SPLIT ? 1 : 0;
            continue;
        }
        bool split = e->flags & MEDIA_F_SPLIT;
        if (split && i + 1 < g->count)
            part = g->e[++i];
        else if (split && !salvage_part(v, e, &part))
            continue;
        fsck_orphan_take(v->f, e->side);
        if (g->known)
            rc = salvage_hear(v, e);
        if (rc == 0)
            rc = salvage_fold(v, e, split ? &part : NULL);
    }
    return rc;
}

/* What control actions stand in the gap, each at its number; what came before a trim, before it. */
static int gap_actions(struct salvage *v, struct gap *g, uint32_t term)
{
    int rc = 0;
    size_t end = salvage_action_find(v, g->to);
    for (size_t i = salvage_action_find(v, g->from); rc == 0 && i < end; i++) {
        const struct action *a = &v->action[i];
        struct entry e[2];
        if (a->o->taken)
            continue;
        a->o->taken = true;
        v->missing--;
        v->placed++;
        (void)fsck_entry(v->log, a->o, a->c.number, topic_end(v->log->control), term, e);
        rc = salvage_fold(v, &e[0], NULL);
    }
    return rc;
}

static void gap_say(struct salvage *v, const struct gap *g, bool found)
{
    uint64_t n = g->to - g->from;
    const struct pool *p = &v->log->pool;
    v->f->state_damaged = true;
    struct finding what = {.kind = FSCK_ENTRY,
                           .severity = found && !g->close ? FSCK_WARNING : FSCK_ERROR,
                           .action = found ? FSCK_REBUILD : FSCK_FORGET,
                           .entries = {g->from, g->to},
                           .place = place_of(p, pool_entry(p, v->log->slot, g->from), MEDIA_LINE)};
    if (found && g->close)
        fsck_say(
            v->f, &what,
            "Index entries " U64 " to " U64
            " are damaged, although they were durable. What they said was found again, but not "
            "in which order batches of several publishers came that were close.",
            g->from, g->to - 1);
    else if (found)
        fsck_say(v->f, &what,
                 "Index entries " U64 " to " U64
                 " are damaged, although they were durable. What they "
                 "said was found again%s; nothing is lost.",
                 g->from, g->to - 1, g->known ? ", and the chain of checksums proves it" : "");
    else
        fsck_say(v->f, &what,
                 "%s " U64 " to " U64 " are damaged, although they were durable (" U64
                 " of them; %zu were found by the batches themselves). %s",
                 "Index entries", g->from, g->to - 1, n, g->count,
                 g->known ? "What they said is lost but for what is found below."
                          : "Topics may have lost what came last.");
}

/* What stood there, all of it. */
static int gap_find(struct salvage *v, struct gap *g, uint32_t term, bool *found)
{
    *found = gap_mend(v, g) || gap_is_bare(v, g, term);
    int rc = *found ? 0 : salvage_actions(v);
    if (rc || *found)
        return rc;
    rc = gap_rebuild(v, g, false);
    *found = rc == 0 && (g->count > 0 || gap_is_batch(v, g));
    if (rc == 0 && !*found) {
        rc = gap_try(v, g);
        *found = rc == 0 && (g->count > 0 || gap_is_move(v, g, term));
    }
    if (rc || *found || !g->known || !g->open || g->answer == GAP_REFUSED)
        return rc;
    /* Nothing follows, and the chain was not asked for all that stands: those that are just as many. */
    g->known = false;
    rc = gap_rebuild(v, g, false);
    *found = rc == 0 && g->count > 0;
    return rc;
}

/* Is it known how the chain goes on from entry m? That stands then, or a mark tells. */
static bool gap_close(const struct salvage *v, struct gap *g, uint64_t m, struct entry *e,
                      uint32_t *next)
{
    const struct media_entry *line = salvage_line(v, m);
    const struct mark *mark = salvage_mark(v, m - 1);
    struct side s;
    if (stands(v, m, e, next)) {
        g->behind = index_chain_before(line);
        g->term_open = e->kind == MEDIA_TERM;
        g->term = e->term - g->term_open;
    } else if (mark) {
        g->behind = mark->chain;
        g->term = mark->term;
        if (!line || !index_decode(line, m, g->behind, e, next))
            *e = (struct entry){0};
    } else {
        return false;
    }
    g->to = m;
    g->open = e->number != m;
    if (!g->open && e->kind != MEDIA_MOVE && agrees(v, e) &&
        side_read(&v->log->pool, e->side, &s) == 0) {
        g->half = e->kind == MEDIA_PART;
        g->half_side = e->side;
        g->before = s.time + g->half;
    }
    return true;
}

int salvage_break(struct salvage *v)
{
    struct gap *g = calloc(1, sizeof *g);
    struct entry e = {0};
    uint32_t next = 0;
    if (!g)
        return -ENOMEM;
    v->damaged = true;
    g->from = v->number + 1;
    g->to = v->trusted + 1;
    g->before = UINT64_MAX;
    /* What stands right behind the watermark continues what it vouches for, too. */
    for (uint64_t m = g->from + 1; m <= v->trusted + 1 && !g->known; m++)
        g->known = gap_close(v, g, m, &e, &next);
    uint32_t term = g->known && !g->term_open ? g->term : v->term;
    bool found = false;
    int rc = gap_find(v, g, term, &found);
    if (rc == 0)
        gap_say(v, g, found);
    if (rc == 0 && !found) {
        v->unproved = true;
        v->missing += g->to - g->from;
        v->strange += g->strange;
        v->missing_from = g->from < v->missing_from ? g->from : v->missing_from;
        v->missing_before = g->before > v->missing_before ? g->before : v->missing_before;
        rc = gap_actions(v, g, term);
        if (rc == 0 && !g->known)
            rc = gap_rebuild(v, g, true);
        v->missing -= g->count;
    }
    if (rc == 0)
        rc = gap_fold(v, g);
    if (found && g->count > 0)
        v->term = g->e[g->count - 1].term;
    v->number = g->half ? g->to : g->to - 1;
    v->chain = g->half ? next : g->behind;
    if (!g->known) { /* whatever comes now is a chain of its own */
        struct media_entry line;
        for (size_t i = 0; i < g->count; i++)
            v->chain = index_encode(&line, &g->e[i], v->chain);
    }
    free(g);
    return rc;
}

int salvage_tail(struct salvage *v)
{
    struct gap *g = calloc(1, sizeof *g);
    if (!g)
        return -ENOMEM;
    v->damaged = true;
    g->from = v->number + 1;
    g->to = g->from + LOST_MOST;
    v->trusted = g->to - 1;
    v->maybe = !v->unproved;
    v->unproved = true;
    v->missing += LOST_MOST;
    v->missing_from = g->from < v->missing_from ? g->from : v->missing_from;
    v->missing_before = UINT64_MAX;
    size_t placed = v->placed;
    salvage_actions_drop(v);
    int rc = salvage_actions(v);
    if (rc == 0)
        rc = gap_actions(v, g, v->term);
    if (rc == 0)
        rc = salvage_rest(v);
    v->number += v->placed - placed;
    if (v->actions > 0 && v->action[v->actions - 1].c.number > v->number)
        v->number = v->action[v->actions - 1].c.number;
    v->missing = 0;
    v->trusted = v->number;
    free(g);
    return rc;
}
