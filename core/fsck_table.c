/* A topic whose run table is damaged, put together from its batches (recovery).
 *
 * When the index behind the checkpoint was read, one lost run stands for what the table told and is
 * not trimmed since. Where it begins and ends is known, in bytes and in messages: from its end back,
 * the batches in the order of their times must arrive at the begin, in both. Then they are what the
 * table told; else its bytes are lost, and the batches are saved aside. Reads only.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_state.h"

#define U64 "%" PRIu64

struct chain {
    const struct orphan **at; /* oldest first, from `first` on */
    size_t first, count;
    uint64_t end, message; /* of the topic, where the chain must end */
    uint64_t bytes, messages;
};

/* What stands behind the lost run, and was whole at which time? Later than all that the table told. */
static uint64_t time_behind(const struct topic *t)
{
    struct side s;
    for (size_t i = 1; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        if (!run_is_damaged(r) && r->batches > 0 && side_read(&t->log->pool, r->side, &s) == 0 &&
            s.topic == t->id)
            return s.time;
    }
    return t->run_count > 1 ? 0 : t->time + 1;
}

/* The topic's batches before that, as many as the lost bytes take. */
static int chain_make(const struct fsck *f, const struct topic *t, struct chain *c)
{
    uint64_t before = time_behind(t), base = topic_base(t);
    c->end = topic_run_end(t, 0);
    c->message = t->run_count > 1 ? topic_run(t, 1)->message : t->last_message_end;
    c->at = calloc(f->orphans + 1, sizeof(struct orphan *));
    if (!c->at)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans && f->orphan[i].s.time < before; i++)
        if (f->orphan[i].s.topic == t->id)
            c->at[c->count++] = &f->orphan[i];
    c->first = c->count;
    while (c->first > 0 && c->bytes < c->end - base) {
        const struct side *s = &c->at[--c->first]->s;
        c->bytes += s->length;
        c->messages += s->count;
    }
    return 0;
}

/* May b follow a? Sequences of one session say so too, and the index lines that still name both. */
static bool follows(const struct orphan *a, const struct orphan *b)
{
    bool same = a->s.session && a->s.session == b->s.session;
    return a->s.time < b->s.time && (!same || a->s.sequence < b->s.sequence) &&
           (a->named == 0 || b->named == 0 || a->named < b->named);
}

/* Can no batch have stood between a and b? They are side by side, or the rest of the one's extent is
 * too small for what went into the next. */
static bool is_next(const struct pool *p, const struct orphan *a, const struct orphan *b)
{
    uint64_t low = a->at + MEDIA_LINE - side_size(a->s.count, a->s.equal);
    uint64_t end = a->s.run0 + a->s.run0_length;
    if (a->s.run1) { /* what comes next stands behind its second part */
        low = pool_extent_base(p, a->s.run1, a->s.order1) +
              (1ull << (a->s.order1 + p->geo.block_shift));
        end = a->s.run1 + (a->s.length - a->s.run0_length);
    }
    if (b->s.run0 == end)
        return b->at + MEDIA_LINE == low;
    uint64_t base = pool_extent_base(p, b->s.run0, b->s.order0);
    uint64_t top = base + (1ull << (b->s.order0 + p->geo.block_shift));
    return b->s.run0 == base && b->at + MEDIA_LINE == top && low >= end &&
           b->s.length + side_size(b->s.count, b->s.equal) > low - end;
}

/* Where batches are as large as others, one whose record is damaged is not missed in the sum: one that
 * was trimmed stands in for it. Then each must have its place beside the next. */
static bool chain_sure(const struct pool *p, const struct topic *t, const struct chain *c)
{
    const struct side *oldest = &c->at[c->first]->s;
    bool alike = false, next = true;
    for (size_t i = 0; i < c->count; i++) {
        const struct side *s = &c->at[i]->s;
        alike =
            alike || (i != c->first && s->length == oldest->length && s->count == oldest->count);
        next = next && (i <= c->first || is_next(p, c->at[i - 1], c->at[i]));
    }
    if (topic_base(t) == 0 || !alike)
        return true;
    const struct run *r = t->run_count > 1 ? topic_run(t, 1) : NULL;
    struct orphan behind = {.at = r ? r->side : 0};
    return next && r && side_read(p, r->side, &behind.s) == 0 &&
           is_next(p, c->at[c->count - 1], &behind);
}

/* Does the chain begin where the topic does, in bytes and in messages, and follow one upon another? */
static bool chain_fits(const struct topic *t, const struct chain *c)
{
    uint64_t base = topic_base(t);
    if (c->bytes < c->end - base || c->bytes > c->end || c->messages > c->message ||
        c->first == c->count)
        return false;
    const struct side *s = &c->at[c->first]->s;
    uint64_t at = c->end - c->bytes, message = c->message - c->messages;
    for (uint32_t i = 0; i < s->count && at < base; i++, message++)
        at += s->lengths ? le32_get(s->lengths[i]) : s->length / s->count;
    bool fits = at == base && message == t->first_message;
    for (size_t i = c->first + 1; fits && i < c->count; i++)
        fits = follows(c->at[i - 1], c->at[i]);
    return fits && chain_sure(&t->log->pool, t, c);
}

/* ---- Second parts that were moved by themselves ------------------------------------------------- */

/* No record says where they went: only the table does, and for as long as it stands the line of the move. */
struct parts {
    struct entry *at;
    size_t count, capacity;
};

static int parts_push(struct parts *parts, const struct entry *e)
{
    if (parts->count == parts->capacity) {
        size_t capacity = parts->capacity ? parts->capacity * 2 : 16;
        struct entry *grown = realloc(parts->at, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        parts->at = grown;
        parts->capacity = capacity;
    }
    parts->at[parts->count++] = *e;
    return 0;
}

static int parts_find(struct parts *parts, const struct pool *p)
{
    int rc = 0;
    for (unsigned slot = 0; slot < p->geo.slots; slot++)
        for (uint64_t n = 0; rc == 0 && n < p->geo.index_entries; n++) {
            const struct media_entry *line = pool_entry(p, slot, n);
            uint64_t number = le64_get(line->number);
            struct entry e;
            uint32_t next;
            if (line->kind == MEDIA_MOVE && le64_low48(line->side) == 0 && number != 0 &&
                number % p->geo.index_entries == n &&
                index_decode(line, number, index_chain_before(line), &e, &next) &&
                index_check(p, &e) == 0)
                rc = parts_push(parts, &e);
        }
    return rc;
}

/* Does the second part of the batch at `offset` stand where one of them says? The payload's checksum
 * does. Its place is put into s. */
static bool part_follow(const struct parts *parts, const struct topic *t, uint64_t offset,
                        struct side *s)
{
    for (size_t i = 0; s->run1 && i < parts->count; i++) {
        const struct entry *e = &parts->at[i];
        struct side there = *s;
        there.run1 = e->payload;
        there.order1 = e->order;
        if (e->topic == t->id && e->offset == offset + s->run0_length &&
            e->length == s->length - s->run0_length && side_payload_whole(&t->log->pool, &there)) {
            *s = there;
            return true;
        }
    }
    return false;
}

/* ---- Runs --------------------------------------------------------------------------------------- */

static int side_append(struct topic *t, uint64_t at, const struct side *s)
{
    struct placed p = {.offset = topic_end(t),
                       .run0 = s->run0,
                       .run1 = s->run1,
                       .side = at,
                       .time = s->time,
                       .run0_length = s->run0_length,
                       .length = s->length,
                       .count = s->count,
                       .order0 = s->order0,
                       .order1 = s->order1,
                       .equal = s->equal};
    return topic_append(t, &p);
}

static int orphan_append(struct topic *t, const struct orphan *o, const struct parts *parts)
{
    struct side s = o->s;
    if (!parts)
        return side_append(t, o->at, &s);
    if (!part_follow(parts, t, topic_end(t), &s))
        return -EMBAR_ECORRUPT;
    int rc = side_append(t, o->at, &s);
    struct run *last = rc == 0 ? topic_run(t, t->run_count - 1) : NULL;
    if (last)
        last->flags = (uint8_t)(last->flags | MEDIA_RUN_MOVED);
    return rc;
}

/* Where it stands whole, with its second part where it may have gone, or where it stood: what was moved is
 * at more places than one, and others may have been given one of them. */
static int batch_take(struct fsck *f, struct topic *t, const struct orphan *o,
                      const struct parts *parts)
{
    int rc = o->whole ? orphan_append(t, o, NULL) : -EMBAR_ECORRUPT;
    for (size_t i = 0; rc == -EMBAR_ECORRUPT && i < f->twins; i++) {
        const struct orphan *twin = &f->orphan[f->orphans + i];
        if (!fsck_same_batch(&twin->s, &o->s))
            continue;
        rc = orphan_append(t, twin, twin->whole ? NULL : parts);
    }
    if (rc == -EMBAR_ECORRUPT)
        rc = orphan_append(t, o, parts);
    if (rc == -EMBAR_ECORRUPT && !o->whole)
        rc = orphan_append(t, o, NULL);
    if (rc != -EMBAR_ECORRUPT)
        return rc;
    uint64_t from = topic_end(t), end = from + o->s.length;
    fsck_say(f,
             &(struct finding){.kind = FSCK_LOST,
                               .severity = FSCK_ERROR,
                               .action = FSCK_MARK,
                               .id = t->id,
                               .offsets = {from, end}},
             "The place of bytes " U64 " up to " U64 " was given to other batches.", from, end);
    rc = fsck_lose(t, end);
    t->last_message_end += o->s.count;
    return rc;
}

/* The batches as runs in the place of the lost one: the next table is written from them. */
static int chain_take(struct fsck *f, struct topic *t, const struct chain *c,
                      const struct parts *parts)
{
    size_t n = t->run_count - 1;
    uint64_t end = topic_end(t), messages = t->last_message_end, batches = t->batches;
    uint64_t tail = t->side_tail, below = t->side_tail_below;
    uint64_t time = t->time, modified = t->modified;
    struct run *rest = malloc((n + 1) * sizeof *rest);
    if (!rest)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        rest[i] = *topic_run(t, i + 1);
    atomic_fetch_sub_explicit(&t->log->runs, t->run_count, memory_order_relaxed);
    t->run_head = t->run_count = 0;
    atomic_store(&t->end, c->end - c->bytes);
    t->last_message_end = c->message - c->messages;
    int rc = 0;
    for (size_t i = c->first; rc == 0 && i < c->count; i++)
        rc = batch_take(f, t, c->at[i], parts);
    if (rc == 0)
        rc = topic_runs_grow(t, n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        *topic_run(t, t->run_count++) = rest[i];
    free(rest);
    if (rc)
        return rc;
    atomic_fetch_add_explicit(&t->log->runs, n, memory_order_relaxed);
    atomic_store(&t->end, end);
    t->last_message_end = messages;
    t->batches = batches;
    t->side_tail = tail;
    t->side_tail_below = below;
    t->time = time;
    t->modified = modified;
    return 0;
}

/* They do not make up what is lost, so where they stood is not known. */
static void chain_aside(struct fsck *f, const struct topic *t, const struct chain *c)
{
    for (size_t i = c->first; i < c->count; i++) {
        const struct orphan *o = c->at[i];
        for (size_t k = 0; !o->whole && k < f->twins; k++) {
            const struct orphan *twin = &f->orphan[f->orphans + k];
            if (twin->whole && fsck_same_batch(&twin->s, &o->s))
                o = twin;
        }
        if (!o->whole)
            continue;
        fsck_unplaced(f, t, o, "table");
    }
}

static int table_mend(struct fsck *f, struct topic *t, const struct parts *parts)
{
    struct chain c = {0};
    uint64_t base = topic_base(t), end = topic_run_end(t, 0);
    int rc = chain_make(f, t, &c);
    bool fits = rc == 0 && chain_fits(t, &c);
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_TABLE,
                          .severity = fits ? FSCK_WARNING : FSCK_ERROR,
                          .action = fits ? FSCK_REBUILD : FSCK_MARK,
                          .id = t->id,
                          .messages = {t->first_message, c.message},
                          .offsets = {base, end}},
        fits ? "The table that says where its messages stand is damaged. They were found by their "
               "own records, in number and bytes as many as there must be."
             : "The table that says where its messages stand is damaged, and they could not be put "
               "together from their own records: bytes " U64 " up to " U64 " are lost.",
        base, end);
    if (fits)
        rc = chain_take(f, t, &c, parts);
    else if (rc == 0)
        chain_aside(f, t, &c);
    free(c.at);
    return rc;
}

/* What all of the topic's runs but the last stood in: was it trimmed since? */
static bool is_trimmed(const struct topic *t)
{
    return t->run_count == 0 || !(topic_run(t, 0)->flags & MEDIA_RUN_LOST) ||
           topic_run_end(t, 0) <= topic_base(t);
}

int fsck_tables(struct fsck *f, struct log *log)
{
    struct parts parts = {0};
    int rc = parts_find(&parts, &log->pool);
    fsck_orphans_drop(f); /* more is known now */
    for (struct topic *t = log->names.by_id; rc == 0 && t; t = t->by_id.next) {
        if (!t->lost_table)
            continue;
        f->state_damaged = true;
        bool trimmed = is_trimmed(t);
        if (trimmed)
            fsck_say(f,
                     &(struct finding){.kind = FSCK_TABLE,
                                       .severity = FSCK_WARNING,
                                       .action = FSCK_REWRITE,
                                       .id = t->id},
                     "The table that says where its messages stand is damaged. All of them that it "
                     "told of were trimmed since.");
        else
            rc = fsck_orphans(f, log);
        if (rc == 0 && !trimmed)
            rc = table_mend(f, t, &parts);
        table_rewrite(log, t);
    }
    fsck_orphans_drop(f);
    free(parts.at);
    return rc;
}
