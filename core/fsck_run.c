/* One run of a topic against its side records and payloads: the pieces that it falls into (recovery). See
 * fsck_walk.h. Called by workers at once; never writes, neither to the pool nor to the log.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "core/fsck_walk.h"

#define U64 "%" PRIu64

/* What of it could be read, for the report. */
struct readable {
    uint64_t bytes, batches, messages;
};

/* Where a walk stands in a run. */
struct stand {
    uint64_t offset, message, side;
    bool jumped; /* the record at `side` is not where the one before ends */
    struct readable seen;
};

struct walk {
    struct walker *w;
    const struct topic *t;
    size_t i;
    const struct run *r, *part; /* part: second half of a split batch, or NULL */
    uint64_t limit;             /* log offset where r ends */
    struct stand at;
    bool moved; /* that was so of some record of the run */
    /* The run is not as it says, and its records may be left from before: each has to prove itself, by its
     * payload or by one behind it that does. Since where none did, and the pieces that there were by then: */
    bool closely, unproved;
    struct stand since;
    size_t before;
    struct records *records; /* of the run, when it is walked closely; owned */
    struct pieces *out;
    size_t first;     /* of this run's pieces */
    uint64_t batches; /* all that fit */
};

/* What stands at w's position up to `end` is of this state: a new piece, or more of the last. */
static int piece_put(struct walk *w, uint64_t end, enum state state, uint64_t messages,
                     bool counted)
{
    struct piece *last = w->out->count > w->first ? &w->out->at[w->out->count - 1] : NULL;
    bool jumped = w->at.jumped;
    w->at.jumped = false;
    if (last && last->state == state && last->end == w->at.offset && !jumped) {
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
    last->run.offset = w->at.offset;
    last->run.message = w->at.message;
    last->run.payload = (w->r->payload + (w->at.offset - w->r->offset)) & MASK48;
    last->run.side = w->at.side & MASK48;
    last->low = last->top = w->at.side + MEDIA_LINE;
    last->run.batches = 1;
    /* A search by time does not go by what begins within a run: it may be late. */
    bool late = w->at.offset > w->r->offset || w->r->flags & MEDIA_RUN_LATE;
    last->run.flags = state != WHOLE ? (uint8_t)MEDIA_RUN_DAMAGED : late ? MEDIA_RUN_LATE : 0;
    return 0;
}

static bool part_fits(const struct walk *w, const struct side *s)
{
    if (!w->part)
        return s->run1 == 0;
    return s->run1 == w->part->payload && s->order1 == w->part->order &&
           w->part->offset == w->at.offset + s->run0_length &&
           topic_run_end(w->t, w->i + 1) == w->at.offset + s->length;
}

/* Is the record at w->at.side that of the batch at w->at.offset? */
static bool record_fits(const struct walk *w, struct side *s)
{
    if (side_read(&w->t->log->pool, w->at.side, s) != 0)
        return false;
    topic_part_place(w->t, w->i, s);
    return s->topic == w->t->id && s->run0 == w->r->payload + (w->at.offset - w->r->offset) &&
           s->run0_length <= w->limit - w->at.offset && part_fits(w, s);
}

/* Where the payload of what stands at this log offset is. */
static uint64_t payload_at(const struct walk *w, uint64_t offset)
{
    return w->r->payload + (offset - w->r->offset);
}

static bool record_next(const struct walk *w, uint64_t told, uint64_t *side, uint64_t *offset)
{
    const struct record_place after = {w->at.side, payload_at(w, w->at.offset)};
    struct record_place next;
    if (!records_next(w->records, &after, payload_at(w, told), payload_at(w, w->limit), &next))
        return false;
    *side = next.side;
    *offset = w->r->offset + (next.payload - w->r->payload);
    return true;
}

/* What nothing proves may be of another batch than what stood there, and so may be where it ends. */
static uint64_t unproved_leave(struct walk *w)
{
    uint64_t told = w->at.offset;
    if (w->unproved) {
        w->at = w->since;
        w->out->count = w->before;
        w->unproved = false;
    }
    return told;
}

static int damaged_put(struct walk *w)
{
    uint64_t told = unproved_leave(w), side = w->at.side, offset = w->limit;
    if (w->part || !record_next(w, told, &side, &offset))
        offset = w->limit;
    int rc = piece_put(w, offset, BAD_SIDE, 0, false);
    w->at.offset = offset;
    w->at.side = side;
    return rc;
}

static int walk_damaged(struct walk *w)
{
    uint64_t moved;
    if (w->part ||
        !records_moved(w->records, payload_at(w, w->at.offset), payload_at(w, w->limit), &moved))
        return damaged_put(w);
    w->at.side = moved;
    w->at.jumped = w->moved = true;
    return 0;
}

/* The last record ends where the run does, which says nothing of it where there are others in its place. */
static bool end_is_wrong(const struct walk *w)
{
    struct walk since = *w;
    uint64_t side, offset;
    since.at = w->since;
    return w->unproved && w->at.offset == w->limit && w->batches != w->r->batches && !w->part &&
           record_next(&since, w->limit, &side, &offset);
}

static int place_put(const struct walk *k, const struct piece *p, uint64_t from, uint64_t to)
{
    struct walker *w = k->w;
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
        w->place[w->places++] = (struct place){from, to, p->run.offset, k->t->id};
    pthread_mutex_unlock(&w->lock);
    return rc;
}

/* Do the counts go with as many messages as the run has? */
static bool pieces_fit(const struct piece *p, size_t n, uint64_t room)
{
    bool all = true;
    for (; n > 0; p++, n--) {
        if (p->counted && p->messages > room)
            return false;
        room -= p->counted ? p->messages : 0;
        all = all && p->counted;
    }
    return !all || room == 0;
}

/* Of batches that are not whole, records may be left from before: such a one counts others. */
static void pieces_doubt(struct piece *p, size_t n)
{
    for (; n > 0; p++, n--) {
        p->counted = p->counted && p->state == WHOLE;
        if (p->state == TRIMMED)
            p->state = BAD_SIDE;
    }
}

/* Numbers of messages behind a record that cannot be read: from the run's end backwards. False: those
 * of the batches that are whole are not as many. */
static bool pieces_number(struct walk *w, uint64_t end_message)
{
    struct piece *p = w->out->at + w->first;
    size_t n = w->out->count - w->first, known = 0, last = n;
    uint64_t m = w->r->message, room = end_message > m ? end_message - m : 0;
    if (!pieces_fit(p, n, room))
        pieces_doubt(p, n);
    bool fits = pieces_fit(p, n, room);
    for (; known < n && p[known].counted; known++) {
        p[known].run.message = m;
        m += p[known].messages;
    }
    if (known == n)
        return fits;
    p[known].run.message = m;
    uint64_t back = end_message;
    for (; last > known + 1 && p[last - 1].counted; last--) {
        back -= back < p[last - 1].messages ? back : p[last - 1].messages;
        p[last - 1].run.message = back;
    }
    /* Between two that do not tell each has a message, where there are as many. */
    uint64_t left = back > m ? back - m : 0;
    for (size_t i = known; i < last; i++)
        left -= !p[i].counted || p[i].messages > left ? 0 : p[i].messages;
    for (size_t i = known; i < last; i++) {
        p[i].run.message = m;
        if (!p[i].counted) {
            p[i].messages = i + 1 < last && left > 0 ? 1 : left;
            left -= p[i].messages;
        }
        m += p[i].messages;
    }
    return fits;
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

/* What this very check found lost was said then. */
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
    if (lost && fsck_said_lost(w->w->f, t->id, w->r->offset, end))
        return;
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

/* What fits where the walk stands is a record of the run. */
static int record_put(struct walk *w, const struct side *s)
{
    bool live = w->at.offset + s->length > topic_base(w->t), quick = w->w->f->opt->quick;
    bool whole = w->closely || (live && !quick) ? side_payload_whole(&w->t->log->pool, s) : true;
    uint64_t end = w->at.offset + s->run0_length;
    if (!whole && !w->unproved) {
        w->since = w->at;
        w->before = w->out->count;
    }
    w->unproved = !whole;
    int rc = piece_put(w, end, whole ? WHOLE : live ? BAD_PAYLOAD : TRIMMED, s->count, true);
    if (rc)
        return rc;
    struct piece *p = &w->out->at[w->out->count - 1];
    p->low = w->at.side - (side_size(s->count, s->equal) - MEDIA_LINE);
    p->top = live ? p->top : p->low; /* trimmed: its place may have been given away */
    w->at.offset = end;
    w->at.message += s->count;
    w->at.side = p->low - MEDIA_LINE;
    w->at.seen.bytes += s->length;
    w->at.seen.messages += live ? s->count : 0;
    w->at.seen.batches += live;
    w->batches++;
    return 0;
}

static void records_begin(struct walk *w)
{
    w->at = (struct stand){.offset = w->r->offset, .message = w->r->message, .side = w->r->side};
    w->batches = 0;
    w->out->count = w->first;
    w->unproved = false;
}

/* Its records in turn, until one does not fit or its payload is not whole. */
static int records_walk(struct walk *w)
{
    int rc = 0;
    struct side s;
    records_begin(w);
    while (rc == 0 && w->at.offset < w->limit && !w->unproved && record_fits(w, &s))
        rc = record_put(w, &s);
    return rc;
}

/* The same around those. */
static int records_walk_closely(struct walk *w)
{
    struct side s;
    int rc = w->part ? 0 : records_find(&w->records, w->t, w->r, payload_at(w, w->limit));
    if (rc)
        return rc;
    records_begin(w);
    w->closely = true;
    do {
        while (rc == 0 && w->at.offset < w->limit)
            rc = record_fits(w, &s) ? record_put(w, &s) : walk_damaged(w);
        if (rc || !end_is_wrong(w))
            return rc;
        rc = damaged_put(w);
    } while (rc == 0);
    return rc;
}

/* Is all of it whole that was not trimmed? */
static bool is_whole(const struct walk *w)
{
    bool whole = w->at.offset == w->limit && !w->moved;
    for (size_t i = w->first; i < w->out->count; i++)
        whole = whole && (w->out->at[i].state == WHOLE || w->out->at[i].state == TRIMMED);
    return whole;
}

static void totals_say(const struct walk *w, const char *what)
{
    fsck_say(w->w->f,
             &(struct finding){.kind = FSCK_TOTALS,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .id = w->t->id,
                               .offsets = {w->r->offset, w->limit}},
             "Bytes " U64 " up to " U64 " are whole, but the %s in them do not add up to what the "
             "checkpoint says.",
             w->r->offset, w->limit, what);
}

static void moved_say(const struct walk *w)
{
    fsck_say(w->w->f,
             &(struct finding){.kind = FSCK_SIDE,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .id = w->t->id,
                               .offsets = {w->r->offset, w->limit}},
             "Records of bytes " U64 " up to " U64
             " stand in each other's places. They prove themselves, so nothing is lost by that.",
             w->r->offset, w->limit);
}

/* Where what is whole of it stands; also of a run that is damaged elsewhere. */
static int places_put(const struct walk *w)
{
    uint64_t base = topic_base(w->t);
    const struct run *part = w->part;
    int rc = 0;
    for (size_t i = w->first; rc == 0 && i < w->out->count; i++) {
        const struct piece *p = &w->out->at[i];
        const struct run *r = &p->run;
        uint64_t trimmed = base > r->offset ? base - r->offset : 0;
        if (p->state != WHOLE)
            continue;
        rc = place_put(w, p, r->payload + trimmed, r->payload + (p->end - r->offset));
        if (rc == 0)
            rc = place_put(w, p, p->low, p->top);
        if (rc == 0 && part)
            rc = place_put(w, p, part->payload,
                           part->payload + (topic_run_end(w->t, w->i + 1) - part->offset));
    }
    return rc;
}

/* Run i of the topic, with its second half when it has one. */
static int walk_run(struct walk *w, struct slice *s)
{
    struct walker *all = w->w;
    size_t behind = w->i + (w->part ? 2 : 1);
    uint64_t end_message =
        behind < w->t->run_count ? topic_run(w->t, behind)->message : w->t->last_message_end;
    int rc = records_walk(w);
    if (rc)
        return rc;
    bool told = is_whole(w) && pieces_number(w, end_message) && w->batches == w->r->batches;
    bool adds_up = true;
    if (!told) {
        rc = records_walk_closely(w);
        adds_up = pieces_number(w, end_message);
        atomic_fetch_add_explicit(&all->compared, w->records ? records_count(w->records) : 0,
                                  memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&all->bytes, w->at.seen.bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&all->messages, w->at.seen.messages, memory_order_relaxed);
    atomic_fetch_add_explicit(&all->batches, w->at.seen.batches, memory_order_relaxed);
    if (rc)
        return rc;
    bool whole = is_whole(w);
    s->changed = s->changed || !told;
    s->renumber = s->renumber || !adds_up;
    if (whole && (w->batches != w->r->batches || !adds_up))
        totals_say(w, adds_up ? "batches" : "messages");
    pieces_say(w);
    if (w->moved)
        moved_say(w);
    return places_put(w);
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
    int rc = walk_run(&w, s);
    records_drop(w.records);
    return rc == 0 && part ? part_put(&w) : rc;
}
