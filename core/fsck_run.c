/* One run of a topic against its side records and payloads: the pieces that it falls into (recovery). See
 * fsck_walk.h. Called by workers at once; never writes, neither to the pool nor to the log.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_walk.h"

#define U64 "%" PRIu64

struct walk {
    struct walker *w;
    const struct topic *t;
    size_t i;
    const struct run *r, *part; /* part: second half of a split batch, or NULL */
    uint64_t limit;             /* log offset where r ends */
    uint64_t offset, message, side;
    bool jumped; /* the record at `side` is not where the one before ends */
    bool moved;  /* that was so of some record of the run */
    struct pieces *out;
    size_t first; /* of this run's pieces */
};

/* What stands at w's position up to `end` is of this state: a new piece, or more of the last. */
static int piece_put(struct walk *w, uint64_t end, enum state state, uint64_t messages,
                     bool counted)
{
    struct piece *last = w->out->count > w->first ? &w->out->at[w->out->count - 1] : NULL;
    bool jumped = w->jumped;
    w->jumped = false;
    if (last && last->state == state && last->end == w->offset && !jumped) {
        last->end = end;
        last->messages += messages;
        last->counted = last->counted && counted;
        last->run.batches = (uint16_t)(last->run.batches + 1u);
        return 0;
    }
    last = piece_add(w->out);
    if (!last)
        return -ENOMEM;
    *last = (struct piece){
        .run = *w->r, .end = end, .messages = messages, .counted = counted, .state = state};
    last->run.offset = w->offset;
    last->run.message = w->message;
    last->run.payload = (w->r->payload + (w->offset - w->r->offset)) & MASK48;
    last->run.side = w->side & MASK48;
    last->run.batches = 1;
    /* A search by time does not go by what begins within a run: it may be late. */
    bool late = w->offset > w->r->offset || w->r->flags & MEDIA_RUN_LATE;
    last->run.flags = state != WHOLE ? (uint8_t)MEDIA_RUN_DAMAGED : late ? MEDIA_RUN_LATE : 0;
    return 0;
}

static bool part_fits(const struct walk *w, const struct side *s)
{
    if (!w->part)
        return s->run1 == 0;
    return s->run1 == w->part->payload && s->order1 == w->part->order &&
           w->part->offset == w->offset + s->run0_length &&
           topic_run_end(w->t, w->i + 1) == w->offset + s->length;
}

/* Is the record at w->side that of the batch at w->offset? */
static bool record_fits(const struct walk *w, struct side *s)
{
    if (side_read(&w->t->log->pool, w->side, s) != 0)
        return false;
    topic_part_place(w->t, w->i, s);
    return s->topic == w->t->id && s->run0 == w->r->payload + (w->offset - w->r->offset) &&
           s->run0_length <= w->limit - w->offset && part_fits(w, s);
}

/* Does a record stand at `at` that may be one of the run? */
static bool record_there(const struct walk *w, uint64_t at, struct side *s)
{
    const struct pool *p = &w->t->log->pool;
    return le32_get(((const struct media_side *)pool_at(p, at))->magic) == MEDIA_SIDE_MAGIC &&
           side_read(p, at, s) == 0 && s->topic == w->t->id && s->order0 == w->r->order && !s->run1;
}

/* Is the record at `at` the first of those that go on, one behind the other, to the run's end? */
static bool record_reaches(const struct walk *w, uint64_t at, struct side s)
{
    uint64_t end = w->r->payload + (w->limit - w->r->offset), next;
    while ((next = s.run0 + s.run0_length) < end) {
        at -= side_size(s.count, s.equal);
        if (at < end || !record_there(w, at, &s) || s.run0 != next)
            return false;
    }
    return next == end;
}

/* The record that comes next in the run below a damaged one: of those that stand there the one whose
 * payload is first, since one may stand in another's place. Some may be left of what stood there
 * before: it proves itself by its payload, or by those that follow it. False: there is none. */
static bool record_next(const struct walk *w, uint64_t *side, uint64_t *offset)
{
    uint64_t here = w->r->payload + (w->offset - w->r->offset);
    uint64_t end = w->r->payload + (w->limit - w->r->offset), first = end;
    struct side s;
    for (uint64_t at = w->side; at >= end + MEDIA_LINE;) {
        at -= MEDIA_LINE;
        if (!record_there(w, at, &s) || s.run0 <= here || s.run0 >= first ||
            !(record_reaches(w, at, s) || side_payload_whole(&w->t->log->pool, &s)))
            continue;
        first = s.run0;
        *side = at;
        *offset = w->r->offset + (s.run0 - w->r->payload);
    }
    return first < end;
}

/* The record itself, whole with its payload, but at another place of the run: lines changed places. */
static bool record_moved(const struct walk *w, uint64_t *side)
{
    uint64_t here = w->r->payload + (w->offset - w->r->offset);
    uint64_t end = w->r->payload + (w->limit - w->r->offset);
    struct side s;
    for (uint64_t at = w->r->side + MEDIA_LINE; at >= end + MEDIA_LINE;) {
        at -= MEDIA_LINE;
        *side = at;
        if (record_there(w, at, &s) && s.run0 == here && s.run0_length <= w->limit - w->offset &&
            side_payload_whole(&w->t->log->pool, &s))
            return true;
    }
    return false;
}

static int walk_damaged(struct walk *w)
{
    uint64_t moved;
    if (!w->part && record_moved(w, &moved)) {
        w->side = moved;
        w->jumped = w->moved = true;
        return 0;
    }
    uint64_t side = w->side, offset = w->limit;
    if (w->part || !record_next(w, &side, &offset))
        offset = w->limit;
    int rc = piece_put(w, offset, BAD_SIDE, 0, false);
    w->offset = offset;
    w->side = side;
    return rc;
}

static int place_put(struct walker *w, const struct walk *k, uint64_t from, uint64_t to)
{
    int rc = 0;
    if (from >= to)
        return 0;
    pthread_mutex_lock(&w->lock);
    if (w->places == w->place_capacity) {
        size_t capacity = w->place_capacity ? w->place_capacity * 2 : 256;
        struct place *grown = realloc(w->place, capacity * sizeof *grown);
        if (!grown)
            rc = -ENOMEM;
        else
            w->place = grown, w->place_capacity = capacity;
    }
    if (rc == 0)
        w->place[w->places++] = (struct place){from, to, k->r->offset, k->t->id};
    pthread_mutex_unlock(&w->lock);
    return rc;
}

/* Numbers of messages behind a record that cannot be read: from the run's end backwards. */
static bool pieces_number(struct walk *w, uint64_t end_message)
{
    struct piece *p = w->out->at + w->first;
    size_t n = w->out->count - w->first, known = 0, last = n;
    uint64_t m = w->r->message;
    for (; known < n && p[known].counted; known++) {
        p[known].run.message = m;
        m += p[known].messages;
    }
    if (known == n)
        return m == end_message;
    p[known].run.message = m;
    uint64_t back = end_message;
    while (last > known + 1 && p[last - 1].counted && back >= p[last - 1].messages) {
        back -= p[--last].messages;
        p[last].run.message = back;
    }
    for (size_t i = known + 1; i < last; i++) {
        m += p[i - 1].counted ? p[i - 1].messages : 1;
        p[i].run.message = m < back ? m : back;
    }
    for (size_t i = known; i < n; i++) {
        uint64_t next = i + 1 < n ? p[i + 1].run.message : end_message;
        if (!p[i].counted)
            p[i].messages = next > p[i].run.message ? next - p[i].run.message : 0;
    }
    return true;
}

static void pieces_say(const struct walk *w)
{
    struct fsck *f = w->w->f;
    uint64_t base = topic_base(w->t);
    for (size_t i = w->first; i < w->out->count; i++) {
        const struct piece *p = &w->out->at[i];
        uint64_t end = w->part && p->state != WHOLE ? topic_run_end(w->t, w->i + 1) : p->end;
        bool trimmed = end <= base;
        struct finding what = {
            .kind = p->state == BAD_SIDE ? FSCK_SIDE : FSCK_PAYLOAD,
            .severity = trimmed ? FSCK_WARNING : FSCK_ERROR,
            .action = trimmed ? FSCK_FORGET : FSCK_MARK,
            .id = w->t->id,
            .messages = {p->run.message, p->run.message + p->messages},
            .offsets = {p->run.offset, end},
            .place = {p->run.payload, p->run.payload + (p->end - p->run.offset)}};
        if (p->state == BAD_SIDE)
            what.place = (struct fsck_range){p->run.side, p->run.side + MEDIA_LINE};
        if (p->state == BAD_PAYLOAD)
            fsck_say(f, &what,
                     "Messages " U64 " up to " U64 " (bytes " U64 " up to " U64
                     ") fail their checksum: their "
                     "bytes are damaged.",
                     what.messages.from, what.messages.to, what.offsets.from, end);
        else if (p->state == BAD_SIDE && trimmed)
            fsck_say(f, &what,
                     "The record of trimmed bytes " U64 " up to " U64
                     " is damaged. They are gone anyway, "
                     "but messages behind them cannot be told apart until this is repaired.",
                     what.offsets.from, end);
        else if (p->state == BAD_SIDE)
            fsck_say(f, &what,
                     "Messages " U64 " up to " U64 " (bytes " U64 " up to " U64
                     ") cannot be read: the record "
                     "that tells them apart is damaged, so whether their bytes are is not known.",
                     what.messages.from, what.messages.to, what.offsets.from, end);
    }
}

static void known_say(const struct walk *w)
{
    const struct topic *t = w->t;
    bool lost = w->r->flags & MEDIA_RUN_LOST;
    size_t behind = w->i + 1;
    while (behind < t->run_count && topic_run(t, behind)->batches == 0)
        behind++; /* its second half */
    uint64_t end = topic_run_end(t, behind - 1);
    uint64_t end_message =
        behind < t->run_count ? topic_run(t, behind)->message : t->last_message_end;
    fsck_say(w->w->f,
             &(struct finding){.kind = FSCK_KNOWN,
                               .severity = FSCK_REMARK,
                               .id = w->t->id,
                               .messages = {w->r->message, end_message},
                               .offsets = {w->r->offset, end}},
             "Bytes " U64 " up to " U64
             " are noted as %s by an earlier repair; reading them answers an "
             "input/output error. A trim past them gives them up.",
             w->r->offset, end, lost ? "lost" : "damaged");
}

/* Run i of the topic, with its second half when it has one. */
static int walk_run(struct walk *w, struct slice *s)
{
    struct walker *all = w->w;
    const struct pool *pool = &w->t->log->pool;
    uint64_t base = topic_base(w->t), batches = 0, low = w->r->side + MEDIA_LINE, top = low;
    size_t behind = w->i + (w->part ? 2 : 1);
    uint64_t end_message =
        behind < w->t->run_count ? topic_run(w->t, behind)->message : w->t->last_message_end;
    int rc = 0;
    while (rc == 0 && w->offset < w->limit) {
        struct side record;
        if (!record_fits(w, &record)) {
            rc = walk_damaged(w);
            continue;
        }
        bool live = w->offset + record.length > base;
        bool whole = !live || all->f->opt->quick || side_payload_whole(pool, &record);
        uint64_t end = w->offset + record.run0_length;
        rc = piece_put(w, end, whole ? WHOLE : BAD_PAYLOAD, record.count, true);
        low = w->side - (side_size(record.count, record.equal) - MEDIA_LINE);
        top = live ? top : low; /* trimmed: its place may have been given away */
        w->offset = end;
        w->message += record.count;
        w->side = low - MEDIA_LINE;
        batches++;
        atomic_fetch_add_explicit(&all->bytes, record.length, memory_order_relaxed);
        atomic_fetch_add_explicit(&all->messages, live ? record.count : 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&all->batches, live, memory_order_relaxed);
    }
    if (rc)
        return rc;
    bool adds_up = pieces_number(w, end_message);
    size_t n = w->out->count - w->first;
    bool clean = n == 1 && w->out->at[w->first].state == WHOLE && !w->moved;
    if (clean && (batches != w->r->batches || !adds_up)) {
        s->renumber = s->renumber || !adds_up;
        s->changed = true;
        fsck_say(all->f,
                 &(struct finding){.kind = FSCK_TOTALS,
                                   .severity = FSCK_WARNING,
                                   .action = FSCK_REWRITE,
                                   .id = w->t->id,
                                   .offsets = {w->r->offset, w->limit}},
                 "Bytes " U64 " up to " U64
                 " are whole, but the %s in them do not add up to what the "
                 "checkpoint says.",
                 w->r->offset, w->limit, adds_up ? "batches" : "messages");
    }
    if (clean) {
        uint64_t trimmed = base > w->r->offset ? base - w->r->offset : 0;
        rc = place_put(all, w, w->r->payload + trimmed, w->r->payload + (w->limit - w->r->offset));
        if (rc == 0)
            rc = place_put(all, w, low, top);
        if (rc == 0 && w->part)
            rc = place_put(all, w, w->part->payload,
                           w->part->payload + (topic_run_end(w->t, w->i + 1) - w->part->offset));
        return rc;
    }
    s->changed = true;
    pieces_say(w);
    if (w->moved)
        fsck_say(
            all->f,
            &(struct finding){.kind = FSCK_SIDE,
                              .severity = FSCK_WARNING,
                              .action = FSCK_REWRITE,
                              .id = w->t->id,
                              .offsets = {w->r->offset, w->limit}},
            "Records of bytes " U64 " up to " U64
            " stand in each other's places. They prove themselves, so nothing is lost by that.",
            w->r->offset, w->limit);
    return 0;
}

/* The second half follows its first as it is, but for the flags. */
static int part_put(struct walk *w)
{
    const struct piece head = w->out->at[w->out->count - 1];
    struct piece *p = piece_add(w->out);
    if (!p)
        return -ENOMEM;
    *p = (struct piece){.run = *w->part,
                        .end = topic_run_end(w->t, w->i + 1),
                        .counted = true,
                        .state = head.state};
    p->run.flags = (uint8_t)((head.state == WHOLE ? 0 : MEDIA_RUN_DAMAGED) |
                             (w->part->flags & MEDIA_RUN_MOVED));
    p->run.message = head.run.message;
    return 0;
}

static int known_put(struct walk *w)
{
    struct piece *p = piece_add(w->out);
    if (!p)
        return -ENOMEM;
    *p = (struct piece){.run = *w->r, .end = w->limit, .state = KNOWN};
    /* A second half without its first is as lost, and its bytes are the first's to answer for. */
    for (size_t i = w->i + 1; i < w->t->run_count && topic_run(w->t, i)->batches == 0 &&
                              !run_is_damaged(topic_run(w->t, i));
         i++)
        p->end = topic_run_end(w->t, i);
    if (w->r->batches > 0)
        known_say(w);
    return 0;
}

int run_walk(struct walker *all, struct slice *s, size_t i)
{
    const struct topic *t = s->t;
    struct walk w = {.w = all,
                     .t = t,
                     .i = i,
                     .r = topic_run(t, i),
                     .limit = topic_run_end(t, i),
                     .out = &s->pieces,
                     .first = s->pieces.count};
    bool part = i + 1 < t->run_count && topic_run(t, i + 1)->batches == 0 &&
                !run_is_damaged(topic_run(t, i + 1));
    if (run_is_damaged(w.r))
        return known_put(&w);
    if (w.r->batches == 0)
        return 0; /* its first half stands before it, and put both */
    w.part = part ? topic_run(t, i + 1) : NULL;
    w.offset = w.r->offset;
    w.message = w.r->message;
    w.side = w.r->side;
    int rc = walk_run(&w, s);
    return rc == 0 && part ? part_put(&w) : rc;
}
