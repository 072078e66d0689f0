/* Every batch of every topic, against its side record and its payload (recovery).
 *
 * Design notes. The log is nobody else's, and its runs do not change while it is walked: workers take
 * slices of a topic's runs off a counter, walk them (fsck_run.c) and leave the pieces that each falls into.
 * Then one thread puts the topics with damage together anew: what is damaged gets a run of its own,
 * flagged, so that the rest can be read again. Findings go through the report's lock.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/fsck_walk.h"
#include "core/guard.h"

#define SLICE   64u /* runs that a worker takes at once */
#define THREADS 16u
#define U64     "%" PRIu64

/* ---- Workers -------------------------------------------------------------------------------- */

struct piece *piece_add(struct pieces *p)
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

static int slice_walk(struct walker *all, struct slice *s)
{
    for (size_t i = s->first; i < s->end; i++) {
        int rc = run_walk(all, s, i);
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

/* Does the last run end with the record that the topic names as its last? Where records stand in each other's places
 * it does not, and then nothing may go on there, neither the run nor what is free of its extent. */
static void tail_settle(struct topic *t)
{
    size_t i = t->run_count;
    while (i > 0 && topic_run(t, i - 1)->batches == 0)
        i--;
    const struct run *r = i > 0 ? topic_run(t, i - 1) : NULL;
    if (!r || run_is_damaged(r))
        return;
    uint64_t at = r->side, last = 0;
    struct side s;
    for (unsigned b = 0; b < r->batches && side_read(&t->log->pool, at, &s) == 0; b++) {
        last = at;
        at -= side_size(s.count, s.equal);
    }
    if (last == t->side_tail)
        return;
    t->side_tail = t->side_tail_below = 0;
    manifest_touch(t->log, t);
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
    tail_settle(t);
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

static void overlap_say(struct fsck *f, const struct place *a, const struct place *b)
{
    char name[FSCK_NAME];
    fsck_say(f,
             &(struct finding){.kind = FSCK_OVERLAP,
                               .severity = FSCK_ERROR,
                               .action = FSCK_MARK,
                               .id = b->topic,
                               .offsets = {b->offset, b->offset},
                               .place = {b->from, a->to < b->to ? a->to : b->to}},
             "What stands from byte " U64 " on shares its place with %s from byte " U64
             " on. Nothing tells which of them is right, so neither is read; what is whole is "
             "saved aside.",
             b->offset, fsck_name(f->log, a->topic, name), a->offset);
}

static void overlap_lose(struct fsck *f, const struct place *x)
{
    struct topic *t = names_id(&f->log->names, x->topic);
    size_t i = t && t->run_count > 0 ? topic_run_find(t, x->offset) : 0;
    if (!t || t->run_count == 0 || topic_run(t, i)->offset != x->offset)
        return;
    do
        if (!run_is_damaged(topic_run(t, i)))
            fsck_run_lose(t, topic_run(t, i));
    while (++i < t->run_count && topic_run(t, i)->batches == 0);
    table_rewrite(f->log, t);
    f->state_damaged = true;
}

/* One of the two serves what is another's: which, is not told. */
static void overlap_settle(struct fsck *f, const struct place *a, const struct place *b)
{
    overlap_lose(f, a);
    overlap_lose(f, b);
}

/* Each place with the one before it that reaches furthest, where they share a byte. */
static void overlaps(struct walker *w,
                     void (*each)(struct fsck *f, const struct place *a, const struct place *b))
{
    if (w->places > 1)
        qsort(w->place, w->places, sizeof *w->place, by_place);
    for (size_t i = 1, furthest = 0; i < w->places; i++) {
        const struct place *a = &w->place[furthest], *b = &w->place[i];
        if (b->from < a->to)
            each(w->f, a, b);
        furthest = b->to > a->to ? i : furthest;
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
        overlaps(&w, overlap_say);
    for (size_t i = 0, n; rc == 0 && i < w.slices; i += n) {
        for (n = 1; i + n < w.slices && w.slice[i + n].t == w.slice[i].t; n++)
            ;
        rc = topic_settle(f, &w.slice[i], n);
    }
    if (rc == 0)
        overlaps(&w, overlap_settle);
    if (rc == 0)
        fsck_bases(f);
    f->report->batches = w.batches;
    f->report->messages = w.messages;
    f->report->bytes = w.bytes;
    f->report->compared += w.compared;
    for (size_t i = 0; i < w.slices; i++)
        free(w.slice[i].pieces.at);
    free(w.slice);
    free(w.place);
    pthread_mutex_destroy(&w.lock);
    return rc;
}
