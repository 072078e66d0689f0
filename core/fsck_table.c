/* A topic whose run table is damaged, put together from its batches (recovery).
 *
 * When the index behind the checkpoint was read, one lost run stands for what the table told and is
 * not trimmed since. The batches whose places are proved (fsck_chain.c) take its place; the bytes between
 * them are lost, and what else is whole is saved aside. Reads only.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_chain.h"

#define U64 "%" PRIu64

/* ---- Second parts that were moved by themselves ------------------------------------------------- */

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
    struct orphans twins = orphans_at(fsck_twins_of(f, o->s.topic), o->s.time);
    for (size_t i = 0; rc == -EMBAR_ECORRUPT && i < twins.count; i++) {
        const struct orphan *twin = twins.at[i];
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

/* The topic's bytes up to `end` are not found. */
static int range_lose(struct fsck *f, struct topic *t, uint64_t end, uint64_t message)
{
    uint64_t from = topic_end(t);
    fsck_say(f,
             &(struct finding){.kind = FSCK_LOST,
                               .severity = FSCK_ERROR,
                               .action = FSCK_MARK,
                               .id = t->id,
                               .messages = {t->last_message_end, message},
                               .offsets = {from, end}},
             "Bytes " U64 " up to " U64
             " are lost: the table that said where they stand is damaged, "
             "and so are their own records, or nothing proves their place. Reading them answers an "
             "input/output error; what follows keeps its place.",
             from, end);
    int rc = fsck_lose(t, end);
    t->last_message_end = message;
    return rc;
}

static int links_take(struct fsck *f, struct topic *t, const struct chain *c,
                      const struct parts *parts)
{
    int rc = 0;
    bool first = true;
    for (size_t i = 0; rc == 0 && i < c->count; i++) {
        const struct link *l = &c->at[i];
        if (l->offset == NOWHERE)
            continue;
        if (first && l->offset <= topic_end(t)) {
            atomic_store(&t->end, l->offset);
            t->last_message_end = l->message;
        }
        first = false;
        if (topic_end(t) < l->offset)
            rc = range_lose(f, t, l->offset, l->message);
        if (rc == 0)
            rc = batch_take(f, t, l->o, parts);
    }
    return rc == 0 && topic_end(t) < c->end ? range_lose(f, t, c->end, c->message) : rc;
}

int chain_take(struct fsck *f, struct topic *t, const struct lost *lost, const struct chain *c,
               const struct parts *parts)
{
    size_t n = t->run_count - lost->behind;
    uint64_t end = topic_end(t), messages = t->last_message_end, batches = t->batches;
    uint64_t tail = t->side_tail, below = t->side_tail_below;
    uint64_t time = t->time, modified = t->modified;
    struct run *rest = malloc((n + 1) * sizeof *rest);
    if (!rest)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        rest[i] = *topic_run(t, lost->behind + i);
    atomic_fetch_sub_explicit(&t->log->runs, t->run_count - lost->run, memory_order_relaxed);
    t->run_count = lost->run;
    atomic_store(&t->end, lost->offset);
    t->last_message_end = lost->message;
    int rc = links_take(f, t, c, parts);
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
    if (n > 0) { /* else the last one was taken anew, and stands elsewhere */
        t->side_tail = tail;
        t->side_tail_below = below;
    }
    t->time = time;
    t->modified = modified;
    return 0;
}

/* Where they stood is not known. */
static int chain_aside(struct fsck *f, const struct topic *t, const struct chain *c)
{
    int rc = 0;
    for (size_t i = c->first; rc == 0 && i < c->count; i++) {
        const struct orphan *o = c->at[i].o;
        if (c->at[i].offset != NOWHERE || c->at[i].trimmed)
            continue;
        struct orphans twins = orphans_at(fsck_twins_of(f, o->s.topic), o->s.time);
        for (size_t k = 0; !o->whole && k < twins.count; k++)
            if (twins.at[k]->whole && fsck_same_batch(&twins.at[k]->s, &o->s))
                o = twins.at[k];
        if (!o->whole)
            continue;
        rc = fsck_unplaced(f, t, o,
                           c->at[i].close
                               ? "table that told its order among those of other publishers"
                               : "table that named it");
    }
    return rc;
}

static int table_mend(struct fsck *f, struct topic *t, const struct parts *parts)
{
    struct chain c = {0};
    uint64_t base = topic_base(t), end = topic_run_end(t, 0);
    int rc = chain_make(f, t, &c);
    size_t placed = rc == 0 ? chain_prove(f, t, &c) : 0;
    bool all = placed > 0 && !c.partly;
    struct finding what = {.kind = FSCK_TABLE,
                           .severity = all ? FSCK_WARNING : FSCK_ERROR,
                           .action = placed > 0 ? FSCK_REBUILD : FSCK_MARK,
                           .id = t->id,
                           .messages = {t->first_message, c.message},
                           .offsets = {base, end}};
    if (all)
        fsck_say(
            f, &what,
            "The table that says where its messages stand is damaged. They were found by their "
            "own records, in number and bytes as many as there must be.");
    else if (placed > 0)
        fsck_say(
            f, &what,
            "The table that says where its messages stand is damaged. %zu batches were found by "
            "their own records, and their place by what stands around them; not all of them.",
            placed);
    else
        fsck_say(
            f, &what,
            "The table that says where its messages stand is damaged, and they could not be put "
            "together from their own records: bytes " U64 " up to " U64 " are lost.",
            base, end);
    if (rc == 0 && !all)
        rc = chain_aside(f, t, &c);
    const struct lost lost = {.behind = 1, .offset = base, .message = t->first_message};
    if (rc == 0 && placed > 0)
        rc = chain_take(f, t, &lost, &c, parts);
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
