/* Whole batches that a repair would lose (recovery): the last look at what stands, when all is planned.
 *
 * Each batch whose record and payload are whole is served at its offset, or was trimmed, or was never
 * committed, or goes aside. Who placed or gave up what is not relied on: topics that lost something, or
 * whose end is not told, are compared with what stands of them in the pool. Not saved is what is proved
 * to be gone: an index line that stands says where it was, and the topic begins behind that; its session
 * never took it; or it was whole well before something that came before all that is lost. Where
 * nothing came before, the newest are kept until they are twice what is lost.
 *
 * Costs a look at each line of the data area, the record of each batch of such topics, 8 bytes of memory for
 * each that is served and 64 for each that may be lost by its time; n log n, where times tell what is lost. A pool without such a topic
 * costs nothing. Changes what is saved, never what is served; never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_state.h"

/* A batch that stands beside what is lost, before or behind. */
struct edge {
    uint64_t time, session, sequence, place;
    unsigned order; /* of the extent */
};
#define ANYBODY UINT64_MAX /* as a session: not known whose */

/* Some of a topic is lost: what was committed between these may be of it. */
struct window {
    uint32_t topic;
    struct edge after, before;
    struct edge oldest_kept; /* begins the first run; when older ones were trimmed */
    uint64_t slack;          /* by which times belie the order, but within a session */
    uint64_t bytes;          /* lost; UINT64_MAX: not known */
    bool tail; /* behind all that is known of it: what its session is known to have taken is not */
    bool open; /* nothing that is known came before it, but for what was trimmed */
    bool copies;    /* it is known which they are, and that they stand damaged: only copies count */
    bool sessions;  /* some of what may be of it was sent in sessions, and perhaps not taken */
    const char *by; /* what is damaged */
    uint64_t reach; /* the latest that any of the topic's windows up to this one ends, with slack */
    uint64_t ends;  /* and without */
    uint64_t kept;  /* bytes of what is saved for it, */
    uint64_t oldest; /* down to this time; when it is full no older one is added */
};

struct left {
    uint64_t at; /* record */
    uint64_t time, sequence;
    uint32_t producer, topic, length, payload_crc;
    size_t window;
    bool gone; /* it is served, saved, or proved to be gone */
};

#define BLOCK 64u /* windows that are passed over at once, where none is large enough */

struct keep {
    struct fsck *f;
    struct window *window; /* topic by topic, each in the order of its offsets; owned */
    size_t windows, window_capacity;
    uint64_t *
        most; /* of each BLOCK of them: the length of the largest batch that may be in one; owned */
    struct left *left; /* owned */
    size_t count, capacity;
    uint64_t *served; /* records of what is served of these topics, by place; owned */
    size_t served_count, served_capacity;
};

/* ---- What was known before --------------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const struct known *x = a, *y = b;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

int fsck_known(struct fsck *f, const struct log *log)
{
    size_t count = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        size_t n = 0;
        for (const struct topic *t = log->names.by_id; t; t = t->by_id.next)
            for (size_t i = 0; !t->lost_table && i < t->run_count; i++) {
                if (!run_is_damaged(topic_run(t, i)))
                    continue;
                if (pass > 0)
                    f->known[n] =
                        (struct known){t->id, topic_run(t, i)->offset, topic_run_end(t, i)};
                n++;
            }
        if (pass > 0)
            continue;
        free(f->known);
        f->known_count = 0;
        f->known = malloc((n + 1) * sizeof *f->known);
        if (!f->known)
            return -ENOMEM;
        count = n;
    }
    f->known_count = count;
    if (count > 1)
        qsort(f->known, count, sizeof *f->known, by_offset);
    return 0;
}

/* Was all of the run noted by an earlier repair? */
static bool is_known(const struct fsck *f, const struct topic *t, size_t i)
{
    uint64_t at = topic_run(t, i)->offset;
    size_t low = 0, high = f->known_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct known *k = &f->known[mid];
        if (k->topic < t->id || (k->topic == t->id && k->from <= at))
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 && f->known[low - 1].topic == t->id &&
           topic_run_end(t, i) <= f->known[low - 1].to;
}

/* ---- What is lost ------------------------------------------------------------------------------ */

static int window_push(struct keep *k, const struct window *w)
{
    if (k->windows == k->window_capacity) {
        size_t capacity = k->window_capacity ? k->window_capacity * 2 : 16;
        struct window *grown = realloc(k->window, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        k->window = grown;
        k->window_capacity = capacity;
    }
    k->window[k->windows++] = *w;
    return 0;
}

static struct edge edge_of(const struct side *s)
{
    return (struct edge){s->time, s->session, s->sequence, s->run0, s->order0};
}

/* The first or the last batch of a run that can be read. */
static bool edge_read(const struct topic *t, size_t i, bool last, struct edge *e)
{
    const struct run *r = topic_run(t, i);
    uint64_t at = r->side;
    struct side s;
    bool any = false;
    for (unsigned b = 0; !run_is_damaged(r) && b < (last ? r->batches : 1u); b++) {
        if (side_read(&t->log->pool, at, &s) != 0 || s.topic != t->id)
            break;
        *e = edge_of(&s);
        any = true;
        at -= side_size(s.count, s.equal);
    }
    return any;
}

/* What stands next before a run, as the runs are gone along once. */
struct before {
    size_t next; /* run to read */
    struct edge edge, oldest;
    bool any;
};

static void before_read(struct before *b, const struct topic *t, size_t i)
{
    for (; b->next < i; b->next++) {
        if (!b->any && topic_base(t) > 0)
            (void)edge_read(t, b->next, false, &b->oldest);
        b->any = edge_read(t, b->next, true, &b->edge) || b->any;
    }
}

/* What stands at run i or next behind. */
static void edge_behind(const struct topic *t, size_t i, struct edge *e)
{
    bool any = false;
    *e = (struct edge){.time = UINT64_MAX, .session = ANYBODY};
    for (; i < t->run_count && !any; i++)
        any = edge_read(t, i, false, e);
}

/* The last batch that the topic held, when all were trimmed. */
static void edge_trimmed(const struct topic *t, struct edge *e)
{
    struct side s;
    *e = (struct edge){.time = t->time, .session = ANYBODY};
    if (t->side_tail && side_read(&t->log->pool, t->side_tail, &s) == 0 && s.topic == t->id &&
        s.time == t->time)
        *e = edge_of(&s);
}

/* Of a damaged run whose records stand it is known which batches they are; from when to when. */
static bool records_stand(const struct topic *t, size_t i, struct window *w)
{
    const struct run *r = topic_run(t, i);
    uint64_t at = r->side, bytes = 0;
    struct side s;
    for (unsigned b = 0; b < r->batches; b++) {
        if (r->flags & MEDIA_RUN_LOST || side_read(&t->log->pool, at, &s) != 0 ||
            s.topic != t->id || s.run0 != r->payload + bytes)
            return false;
        w->after.time = s.time < w->after.time ? s.time : w->after.time;
        w->before.time = s.time > w->before.time ? s.time : w->before.time;
        bytes += s.run0_length;
        at -= side_size(s.count, s.equal);
    }
    return true;
}

/* Runs [i, behind) are damaged or lost, and were not before. */
static int window_make(struct keep *k, const struct topic *t, struct before *before, size_t i,
                       size_t behind)
{
    struct window w = {
        .topic = t->id, .copies = true, .after.time = UINT64_MAX, .slack = FSCK_SLACK};
    uint64_t from = topic_run(t, i)->offset;
    bool lost = false;
    w.bytes = topic_run_end(t, behind - 1) - from;
    w.by = "copy of it that is read";
    for (size_t n = i; n < behind; n++) {
        lost = lost || topic_run(t, n)->flags & MEDIA_RUN_LOST;
        w.copies = w.copies && records_stand(t, n, &w);
    }
    if (w.copies)
        return window_push(k, &w);
    w.by = !lost           ? "record where it stood"
           : t->lost_table ? "table that named it"
                           : "index entry that named it";
    before_read(before, t, i);
    w.after = before->edge;
    w.oldest_kept = before->oldest;
    w.open = !before->any && from > 0;
    edge_behind(t, behind, &w.before);
    return window_push(k, &w);
}

static int windows_topic(struct keep *k, const struct topic *t)
{
    int rc = 0;
    struct before before = {.edge.session = ANYBODY};
    for (size_t i = 0, behind; rc == 0 && i < t->run_count; i = behind) {
        behind = i + 1;
        if (!run_is_damaged(topic_run(t, i)) || is_known(k->f, t, i) ||
            topic_run_end(t, i) <= topic_base(t))
            continue;
        while (behind < t->run_count && run_is_damaged(topic_run(t, behind)) &&
               !is_known(k->f, t, behind))
            behind++;
        rc = window_make(k, t, &before, i, behind);
    }
    if (rc || (!k->f->unproved && !t->adopted))
        return rc;
    /* Nothing tells where it ends, or what it held before. */
    struct window w = {.topic = t->id,
                       .bytes = UINT64_MAX,
                       .tail = !t->adopted,
                       .slack = k->f->maybe ? 0 : FSCK_SLACK,
                       .by = "index entry that named it"};
    w.before = (struct edge){.time = UINT64_MAX, .session = ANYBODY};
    w.after = (struct edge){.session = ANYBODY};
    if (!t->adopted) {
        before_read(&before, t, t->run_count);
        w.after = before.edge;
        w.oldest_kept = before.oldest;
        if (!before.any)
            edge_trimmed(t, &w.after);
        if (!before.any && w.after.session == 0)
            w.oldest_kept = w.after;
    }
    return window_push(k, &w);
}

/* ---- What stands ------------------------------------------------------------------------------- */

static int by_topic(const void *a, const void *b)
{
    const struct window *x = a, *y = b;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    return x->after.time < y->after.time ? -1 : x->after.time > y->after.time;
}

static uint64_t later(uint64_t time, uint64_t by)
{
    return time > UINT64_MAX - by ? UINT64_MAX : time + by;
}

static int windows_sort(struct keep *k)
{
    k->most = calloc(k->windows / BLOCK + 1, sizeof *k->most);
    if (!k->most)
        return -ENOMEM;
    qsort(k->window, k->windows, sizeof *k->window, by_topic);
    for (size_t i = 0; i < k->windows; i++) {
        struct window *w = &k->window[i];
        const struct window *last = i > 0 && w[-1].topic == w->topic ? w - 1 : NULL;
        w->reach = later(w->before.time, FSCK_SLACK);
        w->reach = last && last->reach > w->reach ? last->reach : w->reach;
        w->ends = last && last->ends > w->before.time ? last->ends : w->before.time;
        uint64_t most = w->copies ? UINT64_MAX : w->bytes;
        k->most[i / BLOCK] = most > k->most[i / BLOCK] ? most : k->most[i / BLOCK];
    }
    return 0;
}

/* The topic's first window that begins behind `time`; with 0 its first. */
static size_t window_find(const struct keep *k, uint32_t topic, uint64_t time)
{
    size_t low = 0, high = k->windows;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct window *w = &k->window[mid];
        if (w->topic < topic || (w->topic == topic && time > 0 && w->after.time <= time))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_window_of(const struct keep *k, size_t i, uint32_t topic)
{
    return i < k->windows && k->window[i].topic == topic;
}

static int served_push(struct keep *k, uint64_t at)
{
    if (k->served_count == k->served_capacity) {
        size_t capacity = k->served_capacity ? k->served_capacity * 2 : 64;
        uint64_t *grown = realloc(k->served, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        k->served = grown;
        k->served_capacity = capacity;
    }
    k->served[k->served_count++] = at;
    return 0;
}

static int served_topic(struct keep *k, const struct topic *t)
{
    struct side s;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        uint64_t at = r->side;
        if (run_is_damaged(r))
            continue;
        for (unsigned b = 0; rc == 0 && b < r->batches && side_read(&t->log->pool, at, &s) == 0;
             b++) {
            if (s.topic == t->id)
                rc = served_push(k, at);
            at -= side_size(s.count, s.equal);
        }
    }
    return rc;
}

static int left_push(struct keep *k, uint64_t at, const struct side *s, size_t window)
{
    if (k->count == k->capacity) {
        size_t capacity = k->capacity ? k->capacity * 2 : 64;
        struct left *grown = realloc(k->left, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        k->left = grown;
        k->capacity = capacity;
    }
    k->left[k->count++] = (struct left){.at = at,
                                        .time = s->time,
                                        .sequence = s->sequence,
                                        .producer = s->producer,
                                        .topic = s->topic,
                                        .length = s->length,
                                        .payload_crc = s->payload_crc,
                                        .window = window};
    return 0;
}

/* Was a taken after b, as far as it is told? Sequences tell it in a session, but not at every order; else times when
 * they are not close: they may be of two publishers, also when neither has a session. */
static bool may_follow(const struct edge *a, const struct edge *b, uint64_t slack)
{
    if (a->session == b->session && a->session != 0 && a->sequence >= b->sequence)
        return true;
    return a->time >= (b->time > slack ? b->time - slack : 0);
}

/* Without a session, and whole before the first that the topic still holds: trimmed with those before that,
 * unless their places in one extent gainsay, for the sequencer keeps those of an epoch in the order of these. */
static bool is_trimmed(const struct pool *p, const struct window *w, const struct edge *e)
{
    const struct edge *o = &w->oldest_kept;
    bool gainsaid =
        e->place > o->place && e->order == o->order &&
        pool_extent_base(p, e->place, e->order) == pool_extent_base(p, o->place, o->order);
    return e->session == 0 && e->time < o->time && !gainsaid;
}

static bool may_be(const struct pool *p, const struct window *w, const struct side *s)
{
    struct edge e = edge_of(s);
    if (w->copies)
        return s->time >= w->after.time && s->time <= w->before.time;
    return s->length <= w->bytes && may_follow(&e, &w->after, w->slack) &&
           may_follow(&w->before, &e, w->slack) && !is_trimmed(p, w, &e);
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static bool is_served(const struct keep *k, uint64_t at)
{
    return k->served_count > 0 &&
           bsearch(&at, k->served, k->served_count, sizeof at, by_number) != NULL;
}

/* The last of the windows that it fits, rather one that is bounded: by its time, or within the slack. */
static size_t window_of(const struct keep *k, const struct side *s, uint64_t slack)
{
    size_t best = k->windows, i = window_find(k, s->topic, later(s->time, slack));
    while (i > 0 && is_window_of(k, i - 1, s->topic) &&
           (slack ? k->window[i - 1].reach : k->window[i - 1].ends) >= s->time &&
           (best == k->windows || k->window[best].open)) {
        k->f->report->compared++;
        if (i % BLOCK == 0 && k->most[i / BLOCK - 1] < s->length)
            i -= BLOCK;
        else if (may_be(&k->f->pool, &k->window[--i], s))
            best = i;
    }
    return best;
}

/* A record that may be one of what is lost, by its topic, time and size. */
static int record_look(void *arg, uint64_t at, const struct side *s)
{
    struct keep *k = arg;
    if (!is_window_of(k, window_find(k, s->topic, 0), s->topic) || is_served(k, at))
        return 0;
    size_t best = window_of(k, s, 0);
    if (best == k->windows || k->window[best].open)
        best = window_of(k, s, FSCK_SLACK);
    if (best == k->windows)
        return 0;
    k->window[best].sessions = k->window[best].sessions || s->session != 0;
    return left_push(k, at, s, best);
}

static int by_batch(const void *a, const void *b)
{
    const struct left *x = a, *y = b;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Enough is kept for a window: what is lost, twice where some may not have been taken by their sessions, or
 * publishers were many. */
static bool window_full(const struct window *w)
{
    return w->kept / (w->sessions ? 2 : 1) >= w->bytes;
}

static void window_count(struct window *w, const struct left *l)
{
    if (!window_full(w) && (l->time < w->oldest || w->oldest == 0))
        w->oldest = l->time;
    w->kept += l->length;
}

/* The batch has its place, or is `saved`: so have all its copies. */
static void batch_strike(struct keep *k, const struct side *s, bool saved)
{
    bool counted = false;
    size_t low = 0, high = k->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct left *l = &k->left[mid];
        if (l->topic < s->topic || (l->topic == s->topic && l->time < s->time))
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < k->count && k->left[low].topic == s->topic && k->left[low].time == s->time;
         low++) {
        struct left *l = &k->left[low];
        if (l->sequence != s->sequence || l->producer != s->producer || l->length != s->length ||
            l->payload_crc != s->payload_crc)
            continue;
        l->gone = true;
        if (saved && !counted)
            window_count(&k->window[l->window], l);
        counted = true;
    }
}

/* What looks the same and stands elsewhere is a copy. */
static void served_strike(struct keep *k)
{
    struct side s;
    for (size_t i = 0; i < k->served_count; i++)
        if (side_read(&k->f->pool, k->served[i], &s) == 0)
            batch_strike(k, &s, false);
}

static void saved_strike(struct keep *k)
{
    const struct fsck *f = k->f;
    struct side s;
    for (size_t i = 0; i < f->unplaced_count; i++)
        if (side_read(&f->pool, f->unplaced[i].at, &s) == 0)
            batch_strike(k, &s, true);
}

static void left_settle(struct keep *k)
{
    size_t kept = 0;
    for (size_t i = 0; i < k->count; i++)
        if (!k->left[i].gone)
            k->left[kept++] = k->left[i];
    k->count = kept;
}

static bool is_same(const struct left *a, const struct left *b)
{
    return a->topic == b->topic && a->time == b->time && a->sequence == b->sequence &&
           a->producer == b->producer && a->length == b->length && a->payload_crc == b->payload_crc;
}

/* ---- What is proved to be gone ----------------------------------------------------------------- */

/* Does the line go on from the one before it? Then it says what it said when it was written. */
static bool line_read(const struct pool *p, unsigned slot, uint64_t n, struct entry *e)
{
    const struct media_entry *line = pool_entry(p, slot, n);
    uint64_t number = le64_get(line->number);
    const struct media_entry *before = pool_entry(p, slot, number - 1);
    uint32_t next;
    return number > 1 && number % p->geo.index_entries == n &&
           le64_get(before->number) == number - 1 &&
           index_decode(line, number, le32_get(before->crc), e, &next) && e->kind == MEDIA_BATCH;
}

/* Index lines say where they were: before all that their topics hold now. */
static void trimmed_strike(struct keep *k)
{
    const struct pool *p = &k->f->pool;
    for (unsigned slot = 0; slot < p->geo.slots; slot++)
        for (uint64_t n = 0; n < p->geo.index_entries; n++) {
            struct entry e;
            struct side s;
            if (!line_read(p, slot, n, &e) ||
                !is_window_of(k, window_find(k, e.topic, 0), e.topic) ||
                side_read(p, e.side, &s) != 0 || s.topic != e.topic || s.run0 != e.payload ||
                (e.session ? (uint16_t)s.crc : s.crc) != e.check)
                continue;
            const struct topic *t = names_id(&k->f->log->names, e.topic);
            if (t && e.offset + s.length <= topic_base(t))
                batch_strike(k, &s, false);
        }
}

/* Is so much kept already that an older one cannot be of it? */
static bool is_too_old(const struct window *w, const struct topic *t, const struct left *l)
{
    uint64_t slack = w->sessions ? FSCK_SLACK : 0;
    return w->open && topic_base(t) > 0 && window_full(w) &&
           l->time < (w->oldest > slack ? w->oldest - slack : 0);
}

/* Does its session tell that it cannot be of what is lost? */
static bool is_told(const struct fsck *f, const struct window *w, const struct topic *t,
                    const struct side *s)
{
    const struct session *x = s->session ? session_find(t->log, s->session) : NULL;
    if (!x)
        return false;
    return session_taken(x, s->sequence) ? w->tail : !f->unproved;
}

/* Newest first. */
static void windows_strike(struct keep *k)
{
    struct fsck *f = k->f;
    struct side s;
    for (size_t i = k->count; i-- > 0;) {
        struct left *l = &k->left[i];
        struct window *w = &k->window[l->window];
        const struct topic *t = names_id(&f->log->names, l->topic);
        bool copy = i + 1 < k->count && !k->left[i + 1].gone && is_same(l, &k->left[i + 1]);
        l->gone = is_too_old(w, t, l) || copy || side_read(&f->pool, l->at, &s) != 0 ||
                  is_told(f, w, t, &s) || !side_payload_whole(&f->pool, &s);
        if (l->gone)
            continue;
        window_count(w, l);
    }
}

/* ---- All of it --------------------------------------------------------------------------------- */

static int left_aside(const struct keep *k)
{
    struct fsck *f = k->f;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < k->count; i++) {
        const struct left *l = &k->left[i];
        struct orphan o = {.at = l->at};
        if (side_read(&f->pool, o.at, &o.s) == 0)
            rc = fsck_unplaced(f, names_id(&f->log->names, l->topic), &o, k->window[l->window].by);
    }
    return rc;
}

static int keep_look(struct keep *k)
{
    struct log *log = k->f->log;
    int rc = 0;
    for (const struct topic *t = log->names.by_id; rc == 0 && t; t = t->by_id.next)
        if (!names_is_dir(t))
            rc = windows_topic(k, t);
    if (rc || k->windows == 0)
        return rc;
    rc = windows_sort(k);
    for (size_t i = 0; rc == 0 && i < k->windows; i++)
        if (i == 0 || k->window[i].topic != k->window[i - 1].topic)
            rc = served_topic(k, names_id(&log->names, k->window[i].topic));
    if (k->served_count > 1)
        qsort(k->served, k->served_count, sizeof *k->served, by_number);
    if (rc)
        return rc;
    rc = fsck_records(k->f, log, record_look, k);
    if (rc || k->count == 0)
        return rc;
    qsort(k->left, k->count, sizeof *k->left, by_batch);
    served_strike(k);
    saved_strike(k);
    trimmed_strike(k);
    left_settle(k);
    windows_strike(k);
    left_settle(k);
    return left_aside(k);
}

int fsck_keep(struct fsck *f)
{
    struct keep k = {.f = f};
    int rc = keep_look(&k);
    free(k.window);
    free(k.most);
    free(k.left);
    free(k.served);
    return rc;
}
