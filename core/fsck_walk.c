/* Every batch of every topic, against its side record and its payload (recovery).
 *
 * Design notes. The log is nobody else's, and its runs do not change while it is walked: workers take
 * slices of a topic's runs off a counter, walk them and leave the pieces that each run falls into.
 * Then one thread puts the topics with damage together anew: what is damaged gets a run of its own,
 * flagged, so that the rest can be read again. Findings go through the report's lock.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fsck_state.h"
#include "core/guard.h"

#define SLICE   64u /* runs that a worker takes at once */
#define THREADS 16u
#define U64     "%" PRIu64

enum state { WHOLE, BAD_PAYLOAD, BAD_SIDE, KNOWN };

/* A part of a run: batches of one state. */
struct piece {
    struct run run;
    uint64_t end;      /* log offset */
    uint64_t messages; /* in it, when known */
    bool counted;
    enum state state;
};

struct pieces {
    struct piece *at;
    size_t count, capacity;
};

struct slice {
    struct topic *t;
    size_t first, end; /* runs */
    struct pieces pieces;
    bool changed;  /* they are not the runs as they were */
    bool renumber; /* messages do not add up */
    int rc;
};

struct place { /* what a whole run holds */
    uint64_t from, to, offset;
    uint32_t topic;
};

struct walker {
    struct fsck *f;
    struct slice *slice;
    size_t slices;
    atomic_size_t next;
    atomic_uint_fast64_t bytes, batches, messages;
    uint64_t total;
    pthread_mutex_t lock; /* guards place */
    struct place *place;
    size_t places, place_capacity;
};

/* ---- One run -------------------------------------------------------------------------------- */

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

static struct piece *piece_add(struct pieces *p)
{
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 16;
        struct piece *grown = realloc(p->at, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        p->at = grown;
        p->capacity = capacity;
    }
    return &p->at[p->count++];
}

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

static int slice_walk(struct walker *all, struct slice *s)
{
    const struct topic *t = s->t;
    for (size_t i = s->first; i < s->end; i++) {
        struct walk w = {.w = all,
                         .t = t,
                         .i = i,
                         .r = topic_run(t, i),
                         .limit = topic_run_end(t, i),
                         .out = &s->pieces,
                         .first = s->pieces.count};
        bool part = i + 1 < t->run_count && topic_run(t, i + 1)->batches == 0 &&
                    !run_is_damaged(topic_run(t, i + 1));
        int rc;
        if (run_is_damaged(w.r)) {
            rc = known_put(&w);
        } else if (w.r->batches == 0) {
            continue; /* its first half stands before it, and put both */
        } else {
            w.part = part ? topic_run(t, i + 1) : NULL;
            w.offset = w.r->offset;
            w.message = w.r->message;
            w.side = w.r->side;
            rc = walk_run(&w, s);
            if (rc == 0 && part)
                rc = part_put(&w);
        }
        if (rc)
            return rc;
    }
    if (!s->changed) { /* the runs say it all */
        free(s->pieces.at);
        s->pieces = (struct pieces){0};
    }
    return 0;
}

static int worker_walk(void *arg)
{
    struct walker *w = arg;
    size_t i;
    while ((i = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed)) < w->slices)
        w->slice[i].rc = slice_walk(w, &w->slice[i]);
    return 0;
}

/* As they do, and tells how far all are. */
static int main_walk(void *arg)
{
    struct walker *w = arg;
    size_t i;
    while ((i = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed)) < w->slices) {
        w->slice[i].rc = slice_walk(w, &w->slice[i]);
        fsck_progress(w->f, "checking messages", atomic_load(&w->bytes), w->total);
    }
    return 0;
}

/* What it finds gone marks the region, which who waits for it looks at. */
static void *worker(void *arg)
{
    struct walker *w = arg;
    (void)!guard_run(w->f->region, worker_walk, w);
    return NULL;
}

/* ---- Together ------------------------------------------------------------------------------- */

/* The pieces of a slice; of one without damage the runs as they are. */
static int topic_gather(const struct slice *s, struct pieces *all)
{
    for (size_t i = 0; i < (s->changed ? s->pieces.count : s->end - s->first); i++) {
        struct piece *p = piece_add(all);
        if (!p)
            return -ENOMEM;
        *p = s->changed ? s->pieces.at[i]
                        : (struct piece){.run = *topic_run(s->t, s->first + i),
                                         .end = topic_run_end(s->t, s->first + i)};
    }
    return 0;
}

static void pieces_renumber(struct topic *t, struct pieces *all)
{
    uint64_t m = all->count > 0 ? all->at[0].run.message : 0;
    for (size_t i = 0; i < all->count; i++) {
        struct piece *p = &all->at[i];
        uint64_t next = i + 1 < all->count ? all->at[i + 1].run.message : t->last_message_end;
        uint64_t n = p->counted ? p->messages : next > p->run.message ? next - p->run.message : 0;
        p->run.message = m;
        m += p->run.batches ? n : 0;
        if (p->run.batches == 0)
            p->run.message = i > 0 ? all->at[i - 1].run.message : p->run.message;
    }
    t->last_message_end = m;
    if (t->first_message > m)
        t->first_message = m;
}

/* The topic's runs are these now. */
static int topic_replace(struct fsck *f, struct topic *t, const struct pieces *all)
{
    struct extents *x = t->log->extents;
    uint64_t base = topic_base(t);
    size_t skip = 0, n;
    /* What is below the base is nobody's loss; the first half of a batch stays with its second. */
    for (size_t k = 0; k < all->count && all->at[k].end <= base; k++)
        if (k + 1 == all->count || all->at[k + 1].run.batches > 0)
            skip = k + 1;
    struct run *runs = malloc((all->count - skip + 1) * sizeof *runs);
    if (!runs)
        return -ENOMEM;
    for (n = 0; n < all->count - skip; n++) {
        struct extent *e;
        runs[n] = all->at[skip + n].run;
        if (!(runs[n].flags & MEDIA_RUN_LOST) &&
            extent_claim(x, runs[n].payload, runs[n].order, &e) != 0)
            runs[n] = (struct run){.offset = runs[n].offset,
                                   .message = runs[n].message,
                                   .batches = runs[n].batches,
                                   .flags = MEDIA_RUN_LOST};
    }
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        struct extent *e = r->flags & MEDIA_RUN_LOST ? NULL : extent_find(x, r->payload, r->order);
        if (e)
            extent_put(x, e);
    }
    atomic_fetch_add_explicit(&t->log->runs, n - t->run_count, memory_order_relaxed);
    free(t->runs);
    t->runs = runs;
    t->run_head = 0;
    t->run_count = n;
    t->run_capacity = all->count - skip + 1;
    table_rewrite(t->log, t);
    f->state_damaged = true;
    return 0;
}

static int topic_settle(struct fsck *f, struct slice *s, size_t n)
{
    struct pieces all = {0};
    bool changed = false, renumber = false;
    int rc = 0;
    for (size_t i = 0; i < n; i++) {
        changed = changed || s[i].changed;
        renumber = renumber || s[i].renumber;
    }
    if (!changed)
        return 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = topic_gather(&s[i], &all);
    if (rc == 0 && renumber)
        pieces_renumber(s->t, &all);
    if (rc == 0)
        rc = topic_replace(f, s->t, &all);
    free(all.at);
    return rc;
}

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->to < y->to ? -1 : x->to > y->to;
}

static void overlaps_say(struct walker *w)
{
    char name[FSCK_NAME];
    if (w->places > 1)
        qsort(w->place, w->places, sizeof *w->place, by_place);
    for (size_t i = 1; i < w->places; i++) {
        const struct place *a = &w->place[i - 1], *b = &w->place[i];
        if (b->from >= a->to)
            continue;
        fsck_say(w->f,
                 &(struct finding){.kind = FSCK_OVERLAP,
                                   .severity = FSCK_ERROR,
                                   .id = b->topic,
                                   .offsets = {b->offset, b->offset},
                                   .place = {b->from, a->to < b->to ? a->to : b->to}},
                 "What stands from byte " U64 " on shares its place with %s from byte " U64 " on.",
                 b->offset, fsck_name(w->f->log, a->topic, name), a->offset);
    }
}

/* No slice parts the halves of a split batch. */
static size_t slice_end(const struct topic *t, size_t i)
{
    size_t end = i + SLICE < t->run_count ? i + SLICE : t->run_count;
    while (end < t->run_count && topic_run(t, end)->batches == 0)
        end++;
    return end;
}

static int slices_make(struct walker *w)
{
    struct log *log = w->f->log;
    size_t n = 0;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next)
        for (size_t i = 0; i < t->run_count; i = slice_end(t, i))
            n++;
    w->slice = calloc(n + 1, sizeof *w->slice);
    if (!w->slice)
        return -ENOMEM;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next)
        for (size_t i = 0, end; i < t->run_count; i = end) {
            end = slice_end(t, i);
            w->slice[w->slices++] = (struct slice){.t = t, .first = i, .end = end};
            w->total += topic_run_end(t, end - 1) - topic_run(t, i)->offset;
        }
    return 0;
}

static void workers_run(struct walker *w)
{
    pthread_t thread[THREADS];
    unsigned want = w->f->opt->threads, n = 0;
    if (want == 0)
        want = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    want = want > THREADS ? THREADS : want;
    while (n + 1 < want && n + 1 < w->slices && pthread_create(&thread[n], NULL, worker, w) == 0)
        n++;
    /* Under a guard of its own: left from further out, the others would go on in a frame that is gone. */
    (void)!guard_run(w->f->region, main_walk, w);
    while (n > 0)
        pthread_join(thread[--n], NULL);
}

int fsck_walk(struct fsck *f)
{
    struct walker w = {.f = f};
    pthread_mutex_init(&w.lock, NULL);
    int rc = slices_make(&w);
    if (rc == 0)
        workers_run(&w);
    if (region_faulted(f->region))
        return -EMBAR_EFAULTED;
    for (size_t i = 0; i < w.slices; i++)
        rc = rc ? rc : w.slice[i].rc;
    if (rc == 0)
        overlaps_say(&w);
    for (size_t i = 0, n; rc == 0 && i < w.slices; i += n) {
        for (n = 1; i + n < w.slices && w.slice[i + n].t == w.slice[i].t; n++)
            ;
        rc = topic_settle(f, &w.slice[i], n);
    }
    if (rc == 0)
        fsck_bases(f);
    f->report->batches = w.batches;
    f->report->messages = w.messages;
    f->report->bytes = w.bytes;
    for (size_t i = 0; i < w.slices; i++)
        free(w.slice[i].pieces.at);
    free(w.slice);
    free(w.place);
    pthread_mutex_destroy(&w.lock);
    return rc;
}
