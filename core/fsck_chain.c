/* Where the batches stood that a damaged run table told of (recovery). See fsck_chain.h.
 *
 * Where the lost bytes begin and end is known, in bytes and in messages. In the order of their times the
 * batches must arrive at the begin from the end, in both, and no index line that still stands may gainsay: then
 * they are what the table told. Else a batch has its place when such a line says so. That it stands beside one that
 * has, in payload and record, does not tell: somebody slower may have reserved before both, and come between. What
 * bytes are missing between others is not guessed: a publisher may have left them. Batches that were held, fenced or refused are whole, too, and
 * stand between the others; they have no place. Reads only.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_chain.h"

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

void chain_fill(struct chain *c, uint64_t bytes)
{
    uint64_t sum = 0;
    for (c->first = c->count; c->first > 0 && sum < bytes; c->first--)
        sum += c->at[c->first - 1].refused ? 0 : c->at[c->first - 1].o->s.length;
}

bool chain_is_refused(const struct topic *t, const struct side *s)
{
    const struct session *x = s->session ? session_find(t->log, s->session) : NULL;
    return x && !session_taken(x, s->sequence);
}

static int by_session(const void *a, const void *b)
{
    const struct link *x = *(struct link *const *)a, *y = *(struct link *const *)b;
    if (x->o->s.session != y->o->s.session)
        return x->o->s.session < y->o->s.session ? -1 : 1;
    return x->o < y->o ? -1 : x->o > y->o; /* in the order of their times */
}

/* Of what a session sent twice, or earlier than something before it, nothing tells which was taken, or when. */
static int doubt(const struct topic *t, struct chain *c)
{
    struct link **by = malloc((c->count + 1) * sizeof(struct link *));
    if (!by)
        return -ENOMEM;
    for (size_t i = 0; i < c->count; i++)
        by[i] = &c->at[i];
    qsort(by, c->count, sizeof *by, by_session);
    uint64_t most = 0;
    for (size_t i = 0; i < c->count; i++) {
        const struct side *s = &by[i]->o->s;
        most = i > 0 && s->session == by[i - 1]->o->s.session ? most : 0;
        by[i]->unknown = s->session && !session_find(t->log, s->session);
        by[i]->doubted = s->session && !by[i]->refused && s->sequence <= most;
        most = s->sequence > most && !by[i]->refused ? s->sequence : most;
    }
    uint64_t least = UINT64_MAX;
    for (size_t i = c->count; i-- > 0;) {
        const struct side *s = &by[i]->o->s;
        least = i + 1 < c->count && s->session == by[i + 1]->o->s.session ? least : UINT64_MAX;
        by[i]->doubted = by[i]->doubted || (s->session && !by[i]->refused && s->sequence >= least);
        least = s->sequence < least && !by[i]->refused ? s->sequence : least;
    }
    free(by);
    return 0;
}

/* The first batch behind the lost run, should it be whole. */
static bool behind_read(const struct topic *t, struct orphan *behind)
{
    const struct run *r = t->run_count > 1 ? topic_run(t, 1) : NULL;
    if (!r || run_is_damaged(r) || r->batches == 0)
        return false;
    *behind = (struct orphan){.at = r->side};
    return side_read(&t->log->pool, r->side, &behind->s) == 0 && behind->s.topic == t->id;
}

/* Which of them have no place by their times: one behind the other, and before what stands behind the lost run. */
static int close_find(const struct topic *t, struct chain *c)
{
    size_t n = 0;
    struct orphan behind;
    const struct side **s = malloc((c->count + 2) * sizeof(struct side *));
    bool *close = calloc(c->count + 2, sizeof *close);
    if (!s || !close) {
        free(s);
        free(close);
        return -ENOMEM;
    }
    for (size_t i = 0; i < c->count; i++)
        if (!c->at[i].refused)
            s[n++] = &c->at[i].o->s;
    size_t taken = n;
    if (behind_read(t, &behind) && (n == 0 || behind.s.time >= s[n - 1]->time))
        s[n++] = &behind.s;
    int rc = fsck_close(s, n, close);
    for (size_t i = c->count; rc == 0 && i-- > 0;)
        if (!c->at[i].refused)
            c->at[i].close = close[--taken];
    free(s);
    free(close);
    return rc;
}

int chain_make(const struct fsck *f, const struct topic *t, struct chain *c)
{
    uint64_t before = time_behind(t), base = topic_base(t);
    c->end = topic_run_end(t, 0);
    c->message = t->run_count > 1 ? topic_run(t, 1)->message : t->last_message_end;
    struct orphans own = fsck_orphans_of(f, t->id);
    c->count = orphans_find(own, before);
    f->report->compared += c->count;
    c->at = calloc(c->count + 1, sizeof *c->at);
    if (!c->at)
        return -ENOMEM;
    for (size_t i = 0; i < c->count; i++)
        c->at[i] = (struct link){
            .o = own.at[i], .offset = NOWHERE, .refused = chain_is_refused(t, &own.at[i]->s)};
    chain_fill(c, c->end - base);
    int rc = doubt(t, c);
    return rc ? rc : close_find(t, c);
}

/* ---- Neighbours --------------------------------------------------------------------------------- */

/* May b follow a? Sequences of one session say so too, and the index lines that still name both. */
static bool follows(const struct orphan *a, const struct orphan *b)
{
    bool same = a->s.session && a->s.session == b->s.session;
    return a->s.time < b->s.time && (!same || a->s.sequence < b->s.sequence) &&
           (a->named == 0 || b->named == 0 || a->named < b->named);
}

/* What is left behind it of the extent that it ends in: from the end of its payload to its record. */
static struct fsck_range tail_of(const struct pool *p, const struct orphan *o)
{
    const struct side *s = &o->s;
    if (!s->run1)
        return (struct fsck_range){s->run0 + s->run0_length,
                                   o->at + MEDIA_LINE - side_size(s->count, s->equal)};
    /* What comes next stands behind its second part. */
    uint64_t top =
        pool_extent_base(p, s->run1, s->order1) + (1ull << (s->order1 + p->geo.block_shift));
    return (struct fsck_range){s->run1 + (s->length - s->run0_length), top};
}

bool chain_is_beside(const struct pool *p, const struct orphan *a, const struct orphan *b)
{
    struct fsck_range tail = tail_of(p, a);
    return b->s.run0 == tail.from && b->at + MEDIA_LINE == tail.to;
}

/* The extent in which it begins. */
static struct fsck_range extent_of(const struct pool *p, const struct orphan *o)
{
    uint64_t base = pool_extent_base(p, o->s.run0, o->s.order0);
    return (struct fsck_range){base, base + (1ull << (o->s.order0 + p->geo.block_shift))};
}

/* Can no batch have stood between a and b? They are side by side, or the rest of the one's extent is
 * too small for what went into the next. */
static bool is_next(const struct pool *p, const struct orphan *a, const struct orphan *b)
{
    struct fsck_range tail = tail_of(p, a), extent = extent_of(p, b);
    if (b->s.run0 == tail.from)
        return b->at + MEDIA_LINE == tail.to;
    return b->s.run0 == extent.from && b->at + MEDIA_LINE == extent.to && tail.to >= tail.from &&
           b->s.length + side_size(b->s.count, b->s.equal) > tail.to - tail.from;
}

/* ---- Index lines --------------------------------------------------------------------------------- */

/* What the index line says that still stands, if it is the batch's own: the record's checksum does. */
static uint64_t line_offset(const struct fsck *f, const struct topic *t, const struct orphan *o)
{
    const struct pool *p = &t->log->pool;
    const struct orphan *n = fsck_as_named(f, o);
    for (unsigned slot = 0; n->named && slot < p->geo.slots; slot++) {
        const struct media_entry *line = pool_entry(p, slot, n->named);
        const struct media_entry *before = pool_entry(p, slot, n->named - 1);
        struct entry e;
        uint32_t next;
        if (le64_get(before->number) == n->named - 1 &&
            le32_get(before->crc) != index_chain_before(line))
            continue; /* either is damaged */
        if (index_decode(line, n->named, index_chain_before(line), &e, &next) &&
            e.kind == MEDIA_BATCH && e.topic == t->id && e.side == n->at &&
            e.payload == n->s.run0 && e.length == n->s.run0_length &&
            (e.session ? (uint16_t)n->s.crc == e.check : n->s.crc == e.check))
            return e.offset;
    }
    return NOWHERE;
}

/* ---- All of them -------------------------------------------------------------------------------- */

/* The message of the batch at `offset` that begins at the topic's base. */
static bool base_index(const struct topic *t, const struct side *s, uint64_t offset,
                       uint64_t *index)
{
    uint64_t base = topic_base(t), at = offset;
    for (*index = 0; *index < s->count && at < base; ++*index)
        at += s->lengths ? le32_get(s->lengths[*index]) : s->length / s->count;
    return at == base && *index <= t->first_message;
}

struct span {
    size_t first;
    uint64_t bytes, messages;
    bool next;  /* each stands where nothing can have come between it and the one behind */
    bool goes;  /* each may follow the one before */
    bool known; /* each one's session tells that it took it */
};

/* From the end back, until the begin is reached. */
static bool span_make(const struct topic *t, const struct chain *c, struct span *s)
{
    const struct pool *p = &t->log->pool;
    uint64_t need = c->end - topic_base(t);
    struct orphan last;
    const struct orphan *b = behind_read(t, &last) ? &last : NULL;
    *s = (struct span){.first = c->count, .next = b != NULL, .goes = true, .known = true};
    while (s->first > 0 && s->bytes < need) {
        const struct link *l = &c->at[--s->first];
        const struct orphan *o = l->o;
        if (l->refused)
            continue;
        s->next = s->next && b && is_next(p, o, b);
        s->goes = s->goes && !l->doubted && (!b || b == &last || follows(o, b));
        s->known = s->known && !l->unknown;
        s->bytes += o->s.length;
        s->messages += o->s.count;
        b = o;
    }
    return s->bytes >= need && s->bytes <= c->end && s->goes && s->first < c->count;
}

/* Where batches are as large as others, one whose record is damaged is not missed in the sum: one that
 * was trimmed stands in for it. */
static bool is_alike(const struct chain *c, size_t first)
{
    const struct side *oldest = &c->at[first].o->s;
    for (size_t i = 0; i < c->count; i++) {
        const struct side *s = &c->at[i].o->s;
        if (i != first && !c->at[i].refused && s->length == oldest->length &&
            s->count == oldest->count)
            return true;
    }
    return false;
}

/* Where the topic was never trimmed, nothing may be left over. */
static bool span_is_all(const struct chain *c, const struct span *s)
{
    for (size_t i = 0; i < s->first; i++)
        if (!c->at[i].refused)
            return false;
    return true;
}

static bool span_fits(const struct fsck *f, const struct topic *t, const struct chain *c,
                      const struct span *s)
{
    const struct orphan *o = c->at[s->first].o;
    uint64_t index, at = c->end - s->bytes;
    if (!base_index(t, &o->s, at, &index) || t->first_message - index + s->messages != c->message)
        return false;
    if (topic_base(t) == 0)
        return span_is_all(c, s);
    return line_offset(f, t, o) == at || (s->known && s->next && !is_alike(c, s->first));
}

/* Does no index line gainsay that still stands? */
static bool span_put(const struct fsck *f, const struct topic *t, struct chain *c,
                     const struct span *s)
{
    uint64_t at = c->end, base = topic_base(t);
    for (size_t i = c->count; i-- > 0;) {
        struct link *l = &c->at[i];
        uint64_t line = line_offset(f, t, l->o);
        if (i >= s->first && !l->refused) {
            at -= l->o->s.length;
            l->offset = at;
            if (line != NOWHERE && line != at)
                return false;
        } else if (line != NOWHERE && line + l->o->s.length > base) {
            return false;
        }
    }
    return true;
}

/* ---- Each by itself ----------------------------------------------------------------------------- */

/* What is trimmed, or lies across the base where no message begins, has no place. False: two gainsay each
 * other. */
static bool places_agree(const struct topic *t, struct chain *c)
{
    uint64_t base = topic_base(t), end = 0, index;
    for (size_t i = 0; i < c->count; i++) {
        struct link *l = &c->at[i];
        if (l->offset == NOWHERE)
            continue;
        if (l->offset < end || l->offset > c->end || l->o->s.length > c->end - l->offset)
            return false;
        end = l->offset + l->o->s.length;
        l->trimmed = end <= base;
        if (l->trimmed || (l->offset < base && !base_index(t, &l->o->s, l->offset, &index)))
            l->offset = NOWHERE;
    }
    return true;
}

static void places_forget(struct chain *c)
{
    for (size_t i = 0; i < c->count; i++) {
        c->at[i].offset = NOWHERE;
        c->at[i].trimmed = false;
    }
}

static void lines_put(const struct fsck *f, const struct topic *t, struct chain *c)
{
    places_forget(c);
    for (size_t i = 0; i < c->count; i++)
        c->at[i].offset = line_offset(f, t, c->at[i].o);
}

/* ---- Messages ----------------------------------------------------------------------------------- */

/* Counted from the begin as far as nothing is lost, and from the end; in between, one for each lost range.
 * Returns how many batches have a place. */
static size_t messages_put(const struct topic *t, struct chain *c)
{
    uint64_t at = topic_base(t), message = t->first_message, index;
    size_t known = 0, last = c->count;
    for (size_t i = 0; i < c->count; i++) {
        struct link *l = &c->at[i];
        if (l->offset == NOWHERE)
            continue;
        if (known == 0 && l->offset < at && base_index(t, &l->o->s, l->offset, &index))
            message -= index;
        message += l->offset > at;
        c->partly = c->partly || l->offset > at;
        l->message = message;
        message += l->o->s.count;
        at = l->offset + l->o->s.length;
        known++;
    }
    c->partly = c->partly || at < c->end;
    at = c->end;
    message = c->message;
    while (last-- > 0) {
        struct link *l = &c->at[last];
        if (l->offset == NOWHERE)
            continue;
        bool joins = l->offset + l->o->s.length == at && message >= l->o->s.count;
        uint64_t most = message > l->o->s.count ? message - l->o->s.count : 0;
        if (!joins && l->message <= most)
            break; /* from here on they are counted from the begin */
        l->message = most;
        message = most;
        at = l->offset;
    }
    return known;
}

/* As many as there must be, but in which order some came is not told. */
static void close_forget(const struct fsck *f, const struct topic *t, struct chain *c)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->at[i].close && c->at[i].offset != NOWHERE)
            c->at[i].offset = line_offset(f, t, c->at[i].o);
}

size_t chain_prove(const struct fsck *f, const struct topic *t, struct chain *c)
{
    struct span s;
    if (span_make(t, c, &s) && span_fits(f, t, c, &s) && span_put(f, t, c, &s)) {
        close_forget(f, t, c);
        return messages_put(t, c);
    }
    lines_put(f, t, c);
    if (!places_agree(t, c))
        places_forget(c);
    return messages_put(t, c);
}
