/* A topic whose run table is damaged, put together from its batches (recovery).
 *
 * The node says where the topic begins and ends, in bytes and in messages, and which record is the
 * last: from there back, the batches in the order of their times must arrive at the begin, in both.
 * Then they are what the table told; else its bytes are lost. Reads only.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_state.h"

#define U64 "%" PRIu64

struct chain {
    const struct orphan **at; /* oldest first, from `first` on */
    size_t first, count;
    uint64_t bytes, messages;
};

/* The topic's batches up to the last one, as many as its bytes take. */
static int chain_make(const struct fsck *f, const struct topic *t, struct chain *c)
{
    c->at = calloc(f->orphans + 1, sizeof(struct orphan *));
    if (!c->at)
        return -ENOMEM;
    bool last = false;
    for (size_t i = 0; i < f->orphans && !last; i++) {
        const struct orphan *o = &f->orphan[i];
        last = o->at == t->side_tail && o->s.topic == t->id;
        if (o->s.topic == t->id)
            c->at[c->count++] = o;
    }
    c->first = c->count;
    uint64_t need = topic_end(t) - topic_base(t);
    while (last && c->first > 0 && c->bytes < need) {
        const struct side *s = &c->at[--c->first]->s;
        c->bytes += s->length;
        c->messages += s->count;
    }
    return 0;
}

/* Does the chain begin where the topic does, in bytes and in messages, and follow one upon another? */
static bool chain_fits(const struct topic *t, const struct chain *c)
{
    uint64_t base = topic_base(t), end = topic_end(t);
    if (c->bytes < end - base || c->bytes > end || c->messages > t->last_message_end ||
        c->first == c->count)
        return false;
    const struct side *s = &c->at[c->first]->s;
    uint64_t at = end - c->bytes, message = t->last_message_end - c->messages;
    for (uint32_t i = 0; i < s->count && at < base; i++, message++)
        at += s->lengths ? le32_get(s->lengths[i]) : s->length / s->count;
    bool fits = at == base && message == t->first_message;
    for (size_t i = c->first + 1; fits && i < c->count; i++) {
        const struct side *a = &c->at[i - 1]->s, *b = &c->at[i]->s;
        bool same = a->session && a->session == b->session;
        fits = a->time < b->time && (!same || a->sequence < b->sequence);
    }
    return fits;
}

/* The batches as runs, one each: the next table is written from them. */
static int chain_take(struct log *log, struct topic *t, const struct chain *c)
{
    uint64_t offset = topic_end(t) - c->bytes;
    t->last_message_end -= c->messages;
    atomic_fetch_sub_explicit(&log->runs, t->run_count, memory_order_relaxed);
    t->run_head = t->run_count = 0;
    atomic_store(&t->end, offset);
    int rc = 0;
    for (size_t i = c->first; rc == 0 && i < c->count; i++) {
        const struct side *s = &c->at[i]->s;
        struct placed p = {.offset = topic_end(t),
                           .run0 = s->run0,
                           .run1 = s->run1,
                           .side = c->at[i]->at,
                           .time = s->time,
                           .run0_length = s->run0_length,
                           .length = s->length,
                           .count = s->count,
                           .order0 = s->order0,
                           .order1 = s->order1,
                           .equal = s->equal};
        rc = topic_append(t, &p);
    }
    return rc;
}

static int table_mend(struct fsck *f, struct log *log, struct topic *t)
{
    struct chain c = {0};
    uint64_t base = topic_base(t), end = topic_end(t), modified = t->modified;
    int rc = chain_make(f, t, &c);
    bool fits = rc == 0 && chain_fits(t, &c);
    fsck_say(
        f,
        &(struct finding){.kind = FSCK_TABLE,
                          .severity = fits ? FSCK_WARNING : FSCK_ERROR,
                          .action = fits ? FSCK_REBUILD : FSCK_MARK,
                          .id = t->id,
                          .messages = {t->first_message, t->last_message_end},
                          .offsets = {base, end}},
        fits ? "The table that says where its messages stand is damaged. They were found by their "
               "own records, in number and bytes as many as there must be; nothing is lost."
             : "The table that says where its messages stand is damaged, and they could not be put "
               "together from their own records: bytes " U64 " up to " U64 " are lost.",
        base, end);
    if (fits)
        rc = chain_take(log, t, &c);
    t->modified = modified;
    table_rewrite(log, t);
    f->state_damaged = true;
    free(c.at);
    return rc;
}

int fsck_tables(struct fsck *f, struct log *log)
{
    int rc = 0;
    for (struct topic *t = log->names.by_id; rc == 0 && t; t = t->by_id.next) {
        if (!t->lost_table || topic_base(t) == topic_end(t))
            continue;
        rc = fsck_orphans(f, log);
        if (rc == 0)
            rc = table_mend(f, log, t);
    }
    fsck_orphans_drop(f);
    return rc;
}
