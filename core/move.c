/* Moving: what stands in an aligned block goes elsewhere, so that the block is free in one piece
 * (beside steps 3 and 8).
 *
 * Design notes
 *   When      A reservation found no place, nothing that waits for a sync would help, and there is
 *             enough free in smaller pieces, or there would be once what is moved stands without the
 *             gaps around it. Only a block whose whole content fits what is free elsewhere is begun
 *             with, so that the wanted piece comes of it; what was copied for one waiting batch
 *             stays below BUDGET times its bytes.
 *   How       The background thread surveys all extents with the sequencer's role, part by part
 *             (survey.c), chooses the cheapest block without it (what changed since makes the plan
 *             fail, at worst the block come free later), and with it again holds what is free in it (clear.c), so that nobody begins anything
 *             there. What is filled in it is sealed. Without the role it copies run by run, each
 *             record's bounds and each payload's CRC checked on the copy: what is damaged stays
 *             where it is, and its extent is not tried again. The copies are drained (on a file:
 *             synced), and then, with the role again, each run gets a MOVE entry. So a move takes
 *             effect like a trim: when its entry is durable the old place is free, and recovery,
 *             whichever root it begins at, folds the same; pins keep the old place for who reads it.
 *   Records   A run's records are copied with the place that holds now. The record of a split batch
 *             whose second part alone moves is not touched: that run is flagged MEDIA_RUN_MOVED.
 *   Tables    A checkpoint's pieces, and topic 0's records, are in the way too, but nobody copies
 *             them: the next checkpoint writes them elsewhere, and follows at once.
 *   Pins      A block that still is being read when all was moved comes free with the last reader.
 *             It is held so long; the next attempt gives it up for another.
 *
 * Must never run on a publisher's or handler's thread, nor free a place whose move is not durable.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/log_state.h"

#define CHOICES       8u  /* blocks that are tried at once */
#define ENTRIES       64u /* moves that are committed at once, so that epochs run in between */
#define ROUNDS        16u /* epochs before it goes on */
#define BUDGET        4u
#define WORTH         6u          /* order */
#define RETRY_NS      50000000ull /* and twice as long each time, */
#define RETRY_MOST_NS 1000000000ull

/* A run on its way. Holds a reference to its topic and to each extent. */
struct move_unit {
    struct topic *t;
    uint64_t number;         /* of the run, as run_dropped counts */
    uint64_t base;           /* of the topic: what is below is trimmed */
    struct run run, other;   /* other: the other part of a split batch */
    uint64_t end, other_end; /* log offsets */
    bool has_other;
    uint64_t records; /* bytes */
    struct extent *from, *beside, *to;
    uint64_t payload, side; /* where it goes; side 0: a second part */
};

struct move_job {
    struct log *log;
    struct move_unit *unit;
    size_t count, capacity;
    bool whole;                 /* for a batch that goes into one piece */
    bool rewrite;               /* a checkpoint is needed, which writes about */
    uint64_t rewritten;         /* bytes elsewhere */
    const struct move_unit *at; /* being copied */
};

/* ---- Plan ---------------------------------------------------------------------------------- */

static struct extent *extent_of(struct log *log, const struct run *r)
{
    struct extent *e = extent_find(log->extents, r->payload, r->order);
    extent_ref(e);
    return e;
}

static int unit_add(struct move_job *job, struct topic *t, size_t i)
{
    struct log *log = job->log;
    if (job->count == job->capacity) {
        size_t capacity = job->capacity ? job->capacity * 2 : 64;
        struct move_unit *grown = realloc(job->unit, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        job->unit = grown;
        job->capacity = capacity;
    }
    const struct run *r = topic_run(t, i);
    bool second = r->batches == 0;
    size_t other = second ? i - 1 : i + 1;
    bool has_other = second ? i > 0 : other < t->run_count && topic_run(t, other)->batches == 0;
    if ((second && !has_other) || (has_other && run_is_damaged(topic_run(t, other))))
        return -EMBAR_ECORRUPT;
    struct move_unit *u = &job->unit[job->count++];
    *u = (struct move_unit){.t = topic_ref(t),
                            .number = t->run_dropped + i,
                            .base = topic_base(t),
                            .run = *r,
                            .end = topic_run_end(t, i),
                            .has_other = has_other,
                            .from = extent_of(log, r)};
    if (has_other) {
        u->other = *topic_run(t, other);
        u->other_end = topic_run_end(t, other);
        u->beside = extent_of(log, &u->other);
    }
    return 0;
}

/* All runs of a topic that the survey found in e. */
static int units_of(struct move_job *job, struct topic *t, const struct extent *e)
{
    int rc = 0;
    size_t i = e->first > t->run_dropped ? (size_t)(e->first - t->run_dropped) : 0;
    for (; rc == 0 && i < t->run_count && t->run_dropped + i <= e->last; i++) {
        const struct run *r = topic_run(t, i);
        if (!(r->flags & MEDIA_RUN_LOST) && r->payload >= e->base && r->payload < e->base + e->size)
            rc = unit_add(job, t, i);
    }
    return rc;
}

/* Nothing is reserved in it from now on. False: something is being received there, or read. */
static bool seal(struct topic *t, struct extent *e)
{
    bool filling, quiet;
    pthread_mutex_lock(&t->fill_lock);
    filling = t->fill == e;
    quiet = atomic_load_explicit(&e->refs, memory_order_acquire) == e->runs + filling;
    if (filling && quiet)
        t->fill = NULL;
    pthread_mutex_unlock(&t->fill_lock);
    if (filling && quiet)
        extent_put(t->log->extents, e);
    return quiet;
}

/* The next checkpoint writes what this extent holds elsewhere. */
static void rewrite(struct move_job *job, const struct extent *e)
{
    struct log *log = job->log;
    struct topic *t = names_id(&log->names, e->owner);
    job->rewrite = true;
    if (e->owner == SURVEY_MANIFEST)
        log->manifest.whole = true;
    else if (e->owner != SURVEY_GIVEN_UP && t)
        table_reopen(log, t, 0);
}

/* What the survey found of it is to be moved. */
static bool is_moved(const struct log *log, const struct extent *e)
{
    return e->survey == log->survey.number && !e->rewritten;
}

/* Everything in the block that is held: sealed, and then noted run by run, which takes references. */
static int plan(struct move_job *job, uint64_t at)
{
    struct log *log = job->log;
    uint64_t next = at;
    int rc = 0;
    for (struct extent *e; rc == 0 && (e = extents_held_next(log->extents, &next));) {
        struct topic *t = names_id(&log->names, e->owner);
        if (e->survey == log->survey.number && e->rewritten) {
            rewrite(job, e);
            job->rewritten += e->live;
        } else if (!is_moved(log, e) || !t || !seal(t, e)) {
            rc = -EBUSY;
        }
    }
    for (struct extent *e; rc == 0 && (e = extents_held_next(log->extents, &at));)
        if (is_moved(log, e) && e->runs > 0)
            rc = units_of(job, names_id(&log->names, e->owner), e);
    return rc;
}

/* ---- Copies -------------------------------------------------------------------------------- */

/* The checked record of the batch at `offset` of a first part or whole run. */
static int record_read(const struct pool *pool, const struct run *r, uint32_t topic, uint64_t side,
                       uint64_t offset, uint64_t end, struct side *s)
{
    int rc = side_read(pool, side, s);
    if (rc)
        return rc;
    bool fits = s->topic == topic && s->run0 == r->payload + (offset - r->offset) &&
                s->order0 == r->order && offset < end && s->run0_length <= end - offset;
    return fits ? 0 : -EMBAR_ECORRUPT;
}

/* Bytes of the records of a run. */
static int unit_measure(const struct pool *pool, struct move_unit *u)
{
    uint64_t side = u->run.side, offset = u->run.offset;
    for (unsigned b = 0; b < u->run.batches; b++) {
        struct side s;
        int rc = record_read(pool, &u->run, u->t->id, side, offset, u->end, &s);
        if (rc)
            return rc;
        uint64_t size = side_size(s.count, s.equal);
        u->records += size;
        side -= size;
        offset += s.run0_length;
    }
    return u->run.batches == 0 || offset == u->end ? 0 : -EMBAR_ECORRUPT;
}

static uint32_t crc_at(const struct pool *pool, uint32_t crc, uint64_t at, uint64_t n)
{
    return crc32c_cold(crc, pool_at(pool, at), n);
}

/* A second part: the first stands where it stood when this was planned. */
static int part_copy(const struct pool *pool, const struct move_unit *u)
{
    struct side s;
    const struct run *head = &u->other;
    uint64_t n = u->end - u->run.offset;
    flush_copy(pool->flush, pool_at(pool, u->payload), pool_at(pool, u->run.payload), n);
    int rc = record_read(pool, head, u->t->id, head->side, head->offset, u->other_end, &s);
    if (rc)
        return rc;
    if (s.run0_length != u->other_end - head->offset || s.length != u->end - head->offset)
        return -EMBAR_ECORRUPT;
    uint32_t crc = crc_at(pool, 0, s.run0, s.run0_length);
    bool whole = crc_at(pool, crc, u->payload, n) == s.payload_crc;
    return whole || u->end <= u->base ? 0 : -EMBAR_ECORRUPT;
}

static int batch_copy(const struct pool *pool, const struct move_unit *u, uint64_t offset,
                      uint64_t side, struct side *s)
{
    uint64_t down = u->run.side - side, to = u->payload + (offset - u->run.offset);
    flush_copy(pool->flush, pool_at(pool, to), pool_at(pool, s->run0), s->run0_length);
    s->run0 = to;
    s->order0 = u->to->order;
    uint32_t crc = crc_at(pool, 0, to, s->run0_length);
    if (s->run1) {
        if (!u->has_other || u->other_end - u->other.offset != s->length - s->run0_length)
            return -EMBAR_ECORRUPT;
        s->run1 = u->other.payload;
        s->order1 = u->other.order;
        crc = crc_at(pool, crc, s->run1, s->length - s->run0_length);
    }
    /* Of what is trimmed only the record is needed. */
    if (crc != s->payload_crc && offset + s->length > u->base)
        return -EMBAR_ECORRUPT;
    side_move(pool, side, u->side - down, s);
    return 0;
}

static int unit_copy(void *arg)
{
    const struct move_job *job = arg;
    const struct move_unit *u = job->at;
    const struct pool *pool = &job->log->pool;
    if (u->run.batches == 0)
        return part_copy(pool, u);
    uint64_t side = u->run.side, offset = u->run.offset;
    for (unsigned b = 0; b < u->run.batches; b++) {
        struct side s;
        int rc = record_read(pool, &u->run, u->t->id, side, offset, u->end, &s);
        uint64_t size = rc ? 0 : side_size(s.count, s.equal), n = rc ? 0 : s.run0_length;
        if (rc == 0)
            rc = batch_copy(pool, u, offset, side, &s);
        if (rc)
            return rc;
        side -= size;
        offset += n;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct move_unit *x = a, *y = b;
    if (x->from->base != y->from->base)
        return x->from->base < y->from->base ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Units [i, j) stand in one extent: another, as large as they need. */
static int group_place(struct move_job *job, size_t i, size_t j)
{
    struct log *log = job->log;
    uint64_t bytes = 0, records = 0;
    for (size_t k = i; k < j; k++) {
        struct move_unit *u = &job->unit[k];
        int rc = unit_measure(&log->pool, u);
        if (rc)
            return rc;
        bytes += u->end - u->run.offset + u->records;
        records += u->records;
    }
    job->unit[i].from->records = records;
    unsigned order = extents_order(log->extents, bytes);
    struct extent *to = extent_new(log->extents, order, EXTENT_MOVE);
    if (!to)
        return -EMBAR_EFULL;
    for (size_t k = i; k < j; k++) {
        struct move_unit *u = &job->unit[k];
        u->to = to;
        if (k > i)
            extent_ref(to);
        u->payload = to->bottom;
        to->bottom += u->end - u->run.offset;
        if (u->run.batches > 0)
            u->side = to->top - MEDIA_LINE;
        to->top -= u->records;
    }
    return 0;
}

static int group_copy(struct move_job *job, size_t i, size_t j)
{
    struct log *log = job->log;
    int rc = group_place(job, i, j);
    for (size_t k = i; rc == 0 && k < j; k++) {
        job->at = &job->unit[k];
        rc = guard_run(log->region, unit_copy, job);
    }
    if (rc == -EMBAR_ECORRUPT)
        job->unit[i].from->stuck = true;
    return rc;
}

/* Ordering rule "move": all copies are durable before the first entry that names one. */
static int copy(struct move_job *job)
{
    struct log *log = job->log;
    int rc = 0;
    if (job->count > 1)
        qsort(job->unit, job->count, sizeof *job->unit, by_place);
    for (size_t i = 0, j; rc == 0 && i < job->count; i = j) {
        for (j = i + 1; j < job->count && job->unit[j].from == job->unit[i].from; j++)
            ;
        rc = group_copy(job, i, j);
    }
    flush_drain(log->pool.flush);
    if (rc == 0 && log->region->needs_sync && job->count > 0) {
        rc = region_sync(log->region);
        if (rc)
            log_fault(log, rc);
    }
    if (rc == -EMBAR_EFAULTED)
        log_fault(log, rc);
    return rc;
}

/* ---- Commit -------------------------------------------------------------------------------- */

/* Is the run still what was copied? A trim may have taken it. */
static bool unchanged(const struct move_unit *u)
{
    const struct topic *t = u->t;
    if (topic_deleted(t) || u->number < t->run_dropped ||
        u->number - t->run_dropped >= t->run_count)
        return false;
    size_t i = u->number - t->run_dropped;
    const struct run *r = topic_run(t, i);
    return r->offset == u->run.offset && r->payload == u->run.payload && r->order == u->run.order &&
           r->batches == u->run.batches && topic_run_end(t, i) == u->end && !run_is_damaged(r);
}

/* What is in the way of nobody any more: the topic goes on behind its moved end. */
static void resume(const struct move_unit *u)
{
    struct topic *t = u->t;
    if (u->number - t->run_dropped + 1 != t->run_count)
        return;
    pthread_mutex_lock(&t->fill_lock);
    if (!t->fill && u->to->top > u->to->bottom) {
        extent_ref(u->to);
        t->fill = u->to;
        t->fill_order = u->to->order;
    }
    pthread_mutex_unlock(&t->fill_lock);
}

/* Entries for the units from *i on, as many as go at once. Role held. */
static int commit_some(struct move_job *job, size_t *i)
{
    struct log *log = job->log;
    struct entry entry[ENTRIES];
    const struct move_unit *of[ENTRIES];
    uint64_t bytes = 0, ring = log->pool.geo.index_entries / 8;
    unsigned n = 0, most = ring < ENTRIES ? (unsigned)ring : ENTRIES;
    size_t next = *i;
    for (; next < job->count && n < most; next++) {
        const struct move_unit *u = &job->unit[next];
        if (!unchanged(u))
            continue;
        of[n] = u;
        bytes += u->end - u->run.offset;
        entry[n++] = (struct entry){.topic = u->t->id,
                                    .offset = u->run.offset,
                                    .length = (uint32_t)(u->end - u->run.offset),
                                    .payload = u->payload,
                                    .side = u->side,
                                    .count = u->run.batches > 0 ? u->run.batches : 1u,
                                    .order = u->to->order};
    }
    int rc = n > 0 ? seq_moves(log, entry, n) : 0;
    if (rc)
        return rc;
    for (unsigned k = 0; k < n; k++)
        resume(of[k]);
    *i = next;
    atomic_fetch_add_explicit(&log->moved, bytes, memory_order_relaxed);
    log->move[job->whole].spent += bytes;
    return 0;
}

/* ---- The job ------------------------------------------------------------------------------- */

/* A manual log's caller has the role all the time. */
static void role_take(struct log *log, bool aside)
{
    if (aside)
        seq_take_wait(log);
}

/* Who announced meanwhile found the role taken: his batch does not wait for what comes next here. */
static void role_give(struct log *log, bool aside)
{
    if (!aside)
        return;
    unsigned rounds = background_only(log) ? ROUNDS : 1; /* nobody else runs epochs there */
    while (seq_epoch(log) > 0 && --rounds > 0)
        ;
    seq_give(log);
    if (seq_pending(log) && !background_only(log))
        log_commit(log);
}

static int checkpoint(struct log *log, bool aside)
{
    if (aside && log->region->needs_sync)
        return checkpoint_write_aside(log);
    role_take(log, aside);
    int rc = checkpoint_write(log);
    role_give(log, aside);
    return rc;
}

static int commit(struct move_job *job, bool aside)
{
    struct log *log = job->log;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < job->count;) {
        role_take(log, aside);
        rc = commit_some(job, &i);
        role_give(log, aside);
        if (rc == -EAGAIN) /* the ring is full, and whose checkpoint is waited for are we */
            rc = checkpoint(log, aside);
    }
    return rc;
}

static void job_end(struct move_job *job)
{
    struct extents *x = job->log->extents;
    for (size_t i = 0; i < job->count; i++) {
        struct move_unit *u = &job->unit[i];
        extent_put(x, u->from);
        if (u->beside)
            extent_put(x, u->beside);
        if (u->to)
            extent_put(x, u->to);
        topic_put(u->t);
    }
    free(job->unit);
}

/* One of the blocks at `at` is held and planned. Role held. */
static int begin_at(struct move_job *job, struct extents_choice *c, const uint64_t *at, unsigned n)
{
    struct log *log = job->log;
    int rc = -ENOSPC;
    for (unsigned i = 0; rc && rc != -ENOMEM && i < n; i++) {
        extents_hold(log->extents, at[i], c->order);
        rc = plan(job, at[i]);
        if (rc == 0)
            break;
        extents_unhold(log->extents);
        job_end(job);
        *job = (struct move_job){.log = log};
        c->busy = c->busy || rc == -EBUSY;
    }
    return rc;
}

/* A block of the order that is lacking; else, where enough is free in all, the two largest pieces of one
 * size can be made one of the next. Where not enough is free, some of a size that is worth a survey. */
static int begin(struct move_job *job, uint64_t want, bool whole, bool aside)
{
    struct log *log = job->log;
    struct extents *x = log->extents;
    struct extents_choice c = {0};
    struct extents_stat st;
    uint64_t at[CHOICES];
    unsigned lack = extents_lack(x, want, whole, &c.need), most = log->pool.geo.max_order;
    int rc = -ENOSPC;
    role_take(log, aside);
    extents_unhold(x); /* whoever read it last time still does */
    survey_begin(log);
    while (survey_part(log)) {
        role_give(log, aside);
        role_take(log, aside);
    }
    role_give(log, aside);
    extents_stat(x, &st);
    bool enough = st.free >= st.reserve + (c.need << log->pool.geo.block_shift);
    c.survey = log->survey.number;
    c.order = enough || lack > WORTH ? lack : WORTH;
    for (unsigned pass = 0; rc && rc != -ENOMEM && pass < 1u + enough; pass++) {
        if (pass > 0) {
            c.halves = true;
            c.order = extents_next_order(x);
        }
        c.order = c.order < most ? c.order : most;
        if (c.order == 0 || (pass > 0 && c.order >= lack))
            continue;
        unsigned n = extents_choose(x, &c, at, CHOICES);
        role_take(log, aside);
        rc = begin_at(job, &c, at, n);
        role_give(log, aside);
    }
    return rc && c.busy ? -EBUSY : rc;
}

/* What the old places wait for: a sync, a checkpoint. */
static int finish(struct move_job *job, bool aside)
{
    struct log *log = job->log;
    int rc = 0;
    role_take(log, aside);
    bool due = extents_holding(log->extents) || job->rewrite || log->manifest.runs > 0;
    role_give(log, aside);
    if (due)
        rc = checkpoint(log, aside);
    if (rc == 0 && extents_waiting(log->extents))
        rc = background_sync(log);
    return rc;
}

/* Could an attempt come to anything, if not at once? */
static bool is_hopeful(const struct log *log, uint64_t want, bool whole, bool enough)
{
    const struct move *m = &log->move[whole];
    struct extents_stat st;
    uint64_t need;
    if (extents_fit(log->extents, want, whole) || m->spent >= BUDGET * want)
        return false;
    (void)extents_lack(log->extents, want, whole, &need);
    extents_stat(log->extents, &st);
    if (enough && st.free < st.reserve + (need << log->pool.geo.block_shift))
        return false;
    return !m->failed || m->busy || extents_freed(log->extents) != m->freed;
}

static bool is_pausing(const struct move *m)
{
    return m->failed && now_monotonic() < m->retry;
}

bool move_wanted(const struct log *log, uint64_t want, bool whole, bool enough)
{
    return is_hopeful(log, want, whole, enough) && !is_pausing(&log->move[whole]);
}

bool move_awaited(const struct log *log, uint64_t want, bool whole)
{
    return is_hopeful(log, want, whole, false) && is_pausing(&log->move[whole]);
}

int move_run(struct log *log, uint64_t want, bool whole, bool aside)
{
    struct move *m = &log->move[whole];
    struct move_job job = {.log = log, .whole = whole};
    if (log_faulted(log))
        return -EMBAR_EFAULTED;
    uint64_t freed = extents_freed(log->extents);
    int rc = begin(&job, want, whole, aside);
    if (rc == 0)
        rc = copy(&job);
    if (rc == 0)
        rc = commit(&job, aside);
    bool planned = rc == 0;
    bool rewritten = job.rewrite;
    m->spent += job.rewritten;
    job_end(&job);
    job = (struct move_job){.log = log, .whole = whole, .rewrite = rewritten};
    if (planned) {
        rc = finish(&job, aside);
        atomic_fetch_add_explicit(&log->moves, 1, memory_order_relaxed);
    } else {
        extents_unhold(log->extents);
    }
    if (rc == 0 && extents_holding(log->extents))
        rc = -EBUSY; /* it is being read: its last reader frees it */
    m->failed = rc != 0;
    m->busy = rc == -EBUSY;
    m->freed = planned ? extents_freed(log->extents) : freed;
    m->wait = rc == 0 ? 0 : m->wait == 0 ? RETRY_NS : m->wait * 2;
    m->wait = m->wait < RETRY_MOST_NS ? m->wait : RETRY_MOST_NS;
    m->retry = now_monotonic() + m->wait;
    return rc;
}
