/* Reading a topic: bytes by offset, batches by cursor, seeks (step 9).
 *
 * A view pins the extents its pieces stand in: the topic's lock is held only while it is made up,
 * never while bytes are copied or sent. Committed bytes never change, so a view needs no second
 * look; a trim drops the runs, and the pins keep the blocks until the last view is released. Who
 * only looks at a pool that another process serves pins nothing there: log_settled (settle.c).
 */
#include "core/guard.h"
#include "core/log_state.h"

/* ---- What is still there ------------------------------------------------------------------ */

struct probe {
    const struct read_view *v;
    int piece;    /* of the first page that is gone, or behind the last piece */
    size_t there; /* bytes of it before that page */
};

static int probe(void *arg)
{
    struct probe *p = arg;
    for (p->piece = 0; p->piece < p->v->pieces; p->piece++) {
        const volatile char *at = p->v->iov[p->piece].iov_base;
        size_t length = p->v->iov[p->piece].iov_len;
        for (p->there = 0; p->there < length;) {
            (void)at[p->there];
            p->there += MEDIA_PAGE - (uintptr_t)(at + p->there) % MEDIA_PAGE;
        }
    }
    return 0;
}

/* Some of the pool is gone: leave of a view what stands before the first hole. */
static void view_cut(struct read_view *v)
{
    struct probe p = {.v = v};
    if (guard_run(v->log->region, probe, &p) == 0)
        return;
    for (int i = p.piece; i < v->pieces; i++)
        v->bytes -= v->iov[i].iov_len;
    v->bytes += p.there;
    v->iov[p.piece].iov_len = p.there;
    int keep = p.there > 0 ? p.piece + 1 : p.piece;
    for (int i = keep; i < v->pieces; i++)
        extent_put(v->log->extents, v->pins[i]);
    v->pieces = keep;
}

/* ---- Bytes -------------------------------------------------------------------------------- */

struct fresh {
    struct flush *flush;
    const struct iovec *piece;
};

static int piece_invalidate(void *arg)
{
    const struct fresh *f = arg;
    flush_invalidate(f->flush, f->piece->iov_base, f->piece->iov_len);
    return 0;
}

static void view_add(struct read_view *v, struct topic *t, const struct run *r, uint64_t at,
                     uint64_t n)
{
    struct log *log = t->log;
    struct extent *e = extent_find(log->extents, r->payload, r->order);
    extent_ref(e);
    v->iov[v->pieces] = (struct iovec){pool_at(&log->pool, at), n};
    if (log->pool.flush->ops->invalidate)
        /* What is gone is found by who reads it. */
        (void)!guard_run(log->region, piece_invalidate,
                         &(struct fresh){log->pool.flush, &v->iov[v->pieces]});
    v->pins[v->pieces++] = e;
    v->bytes += n;
}

int topic_read(struct topic *t, uint64_t offset, size_t max, struct read_view *v)
{
    v->pieces = 0;
    v->bytes = 0;
    v->log = t->log;
    pthread_mutex_lock(&t->lock);
    if (offset < topic_base(t)) {
        pthread_mutex_unlock(&t->lock);
        return -EMBAR_ETRIMMED;
    }
    uint64_t end = topic_end(t);
    size_t i = offset < end ? topic_run_find(t, offset) : 0;
    while (offset < end && v->bytes < max && v->pieces < READ_PIECES) {
        const struct run *r = topic_run(t, i);
        if (run_is_damaged(r))
            break;
        uint64_t into = offset - r->offset;
        uint64_t n = topic_run_end(t, i) - offset;
        if (n > max - v->bytes)
            n = max - v->bytes;
        view_add(v, t, r, r->payload + into, n);
        offset += n;
        i++;
    }
    bool damaged = offset < end && v->pieces == 0 && max > 0;
    pthread_mutex_unlock(&t->lock);
    if (v->pieces > 0 && region_faulted(t->log->region)) {
        view_cut(v);
        if (v->pieces == 0)
            return -EMBAR_EFAULTED;
    }
    return damaged ? -EMBAR_ECORRUPT : 0;
}

void read_release(struct read_view *v)
{
    for (int i = 0; i < v->pieces; i++)
        extent_put(v->log->extents, v->pins[i]);
    v->pieces = 0;
}

/* ---- Batches ------------------------------------------------------------------------------ */

/* Where a walk stands: batch `index` of run `run`, whose side header is at `side`. */
struct walk {
    size_t run;
    unsigned index;
    uint64_t side, offset, message;
    uint64_t time; /* index time: the largest so far */
    struct side s;
};

/* Step to the next batch header of the same run. */
static void walk_step(struct walk *w)
{
    w->side -= side_size(w->s.count, w->s.equal);
    w->offset += w->s.length;
    w->message += w->s.count;
    w->index++;
}

/* Is the next run the second part that the record speaks of, just as long? */
static bool walk_part(const struct topic *t, const struct walk *w)
{
    size_t i = w->run + 1;
    return i < t->run_count && topic_run(t, i)->batches == 0 && !run_is_damaged(topic_run(t, i)) &&
           topic_run(t, i)->payload == w->s.run1 && topic_run(t, i)->order == w->s.order1 &&
           topic_run(t, i)->offset == w->offset + w->s.run0_length &&
           topic_run_end(t, i) == w->offset + w->s.length;
}

/* The checked side record where the walk stands; its batch must lie where the run says. */
static int walk_read(const struct topic *t, struct walk *w)
{
    const struct run *r = topic_run(t, w->run);
    if (run_is_damaged(r))
        return -EMBAR_ECORRUPT;
    int rc = side_read(&t->log->pool, w->side, &w->s);
    if (rc)
        return rc;
    topic_part_place(t, w->run, &w->s);
    if (w->s.topic != t->id || w->s.run0 != r->payload + (w->offset - r->offset) ||
        w->s.run0_length > topic_run_end(t, w->run) - w->offset || (w->s.run1 && !walk_part(t, w)))
        return -EMBAR_ECORRUPT;
    if (w->s.time > w->time)
        w->time = w->s.time;
    return 0;
}

/* ---- Time ---------------------------------------------------------------------------------
 *
 * A batch's index time is the largest of its record's time and those of the retained batches before
 * it: it never goes back. Records of batches that were announced at once may: such a batch is late.
 * The first record of a run that does not begin with a late one is its index time; these runs are
 * what a search goes by, the late ones behind them are walked. */

/* The run to go by for run i: itself or the next one before it that is not late. The first of all is
 * not, whatever was before it. */
static size_t time_anchor(const struct topic *t, size_t i)
{
    while (i > 0 && (topic_run(t, i)->flags != 0 || topic_run(t, i)->batches == 0))
        i--;
    return i;
}

/* Walk run i up to the first batch at or after `ns`: 1, and w stands there. 0: none; a damaged rest
 * has no time. -EMBAR_EFAULTED. */
static int time_walk(const struct topic *t, size_t i, uint64_t ns, struct walk *w)
{
    const struct run *r = topic_run(t, i);
    *w = (struct walk){
        .run = i, .side = r->side, .offset = r->offset, .message = r->message, .time = w->time};
    int rc = 0;
    while (w->index < r->batches && (rc = walk_read(t, w)) == 0) {
        if (w->s.time >= ns)
            return 1;
        walk_step(w);
    }
    return rc == -EMBAR_EFAULTED ? rc : 0;
}

/* The index time before run i, where that is later than its first record. */
static uint64_t time_before(const struct topic *t, size_t i)
{
    struct walk w = {0};
    if (topic_run(t, i)->flags & MEDIA_RUN_LATE)
        for (size_t k = time_anchor(t, i); k < i; k++)
            (void)time_walk(t, k, UINT64_MAX, &w);
    return w.time;
}

uint64_t topic_time_scan(const struct topic *t)
{
    struct walk w = {0};
    if (t->run_count > 0)
        for (size_t k = time_anchor(t, t->run_count - 1); k < t->run_count; k++)
            (void)time_walk(t, k, UINT64_MAX, &w);
    return w.time;
}

/* ---- Batches ------------------------------------------------------------------------------ */

/* Walk from the start of the run (or from the cursor's hint) to the batch that holds `offset`. */
static int walk_to(const struct topic *t, const struct batch_cursor *c, struct walk *w)
{
    size_t i = topic_run_find(t, c->offset);
    while (i > 0 && topic_run(t, i)->batches == 0)
        i--;
    const struct run *r = topic_run(t, i);
    w->run = i;
    w->index = 0;
    w->side = r->side;
    w->offset = r->offset;
    w->message = r->message;
    if (c->hint[0] == t->run_dropped + i + 1 && c->hint[1] < r->batches && c->hint[1] > 0) {
        w->index = (unsigned)c->hint[1];
        w->side = r->side - c->hint[2];
        w->offset = c->offset;
        w->message = c->message;
        w->time = c->hint[3];
    } else {
        w->time = time_before(t, i);
    }
    for (;;) {
        int rc = walk_read(t, w);
        if (rc)
            return rc;
        if (c->offset < w->offset + w->s.length)
            return 0;
        if (w->index + 1u >= r->batches)
            return -EMBAR_ECORRUPT;
        walk_step(w);
    }
}

/* Behind the lock: the log learns of memory that is gone. */
static int told(struct topic *t, int rc)
{
    if (rc == -EMBAR_EFAULTED)
        log_fault(t->log, rc);
    return rc;
}

int topic_next(struct topic *t, struct batch_cursor *c, struct batch_view *view)
{
    struct walk w;
    view->data.pieces = 0;
    view->data.bytes = 0;
    view->data.log = t->log;
    pthread_mutex_lock(&t->lock);
    int rc = c->offset < topic_base(t) ? -EMBAR_ETRIMMED : 0;
    if (rc == 0 && c->offset >= topic_end(t)) {
        pthread_mutex_unlock(&t->lock);
        return 0;
    }
    if (rc == 0)
        rc = walk_to(t, c, &w);
    if (rc) {
        pthread_mutex_unlock(&t->lock);
        return told(t, rc);
    }
    const struct run *r = topic_run(t, w.run);
    view->offset = w.offset;
    view->message = w.message;
    view->time = w.time;
    view->length = w.s.length;
    view->count = w.s.count;
    view->payload_crc = w.s.payload_crc;
    view->lengths = w.s.lengths;
    view_add(&view->data, t, r, w.s.run0, w.s.run0_length);
    if (w.s.run1)
        view_add(&view->data, t, topic_run(t, w.run + 1), w.s.run1, w.s.length - w.s.run0_length);
    walk_step(&w);
    c->offset = w.offset;
    c->message = w.message;
    c->hint[0] = t->run_dropped + w.run + 1;
    c->hint[1] = w.index;
    c->hint[2] = r->side - w.side; /* it may be moved until then */
    c->hint[3] = w.time;
    pthread_mutex_unlock(&t->lock);
    if (region_faulted(t->log->region)) {
        view_cut(&view->data);
        if (view->data.bytes < view->length) {
            read_release(&view->data);
            return -EMBAR_EFAULTED;
        }
    }
    return 1;
}

struct sum {
    const le32 *lengths;
    uint32_t from, to;
    uint64_t until; /* stop before the message that goes beyond this */
    uint64_t bytes;
};

static int lengths_add(void *arg)
{
    struct sum *s = arg;
    for (; s->from < s->to; s->from++) {
        uint64_t n = le32_get(s->lengths[s->from]);
        if (s->bytes + n > s->until)
            break;
        s->bytes += n;
    }
    return 0;
}

int view_bytes(const struct batch_view *v, uint32_t from, uint32_t to, uint64_t *bytes)
{
    struct sum s = {.lengths = v->lengths, .from = from, .to = to, .until = UINT64_MAX};
    if (v->lengths) {
        int rc = guard_run(v->data.log->region, lengths_add, &s);
        *bytes = s.bytes;
        return rc ? rc : s.bytes <= v->length ? 0 : -EMBAR_ECORRUPT;
    }
    *bytes = (uint64_t)(v->length / v->count) * (to - from);
    return 0;
}

int view_message(const struct batch_view *v, uint64_t offset, uint32_t *index, uint64_t *at)
{
    struct sum s = {.lengths = v->lengths, .to = v->count, .until = offset - v->offset};
    if (v->lengths) {
        int rc = guard_run(v->data.log->region, lengths_add, &s);
        if (rc)
            return rc;
    } else {
        uint32_t each = v->length / v->count;
        s.from = (uint32_t)(s.until / each);
        s.bytes = (uint64_t)s.from * each;
    }
    *index = s.from;
    *at = v->offset + s.bytes;
    return s.from < v->count ? 0 : -EMBAR_ECORRUPT;
}

int topic_seek_message(struct topic *t, uint64_t n, uint64_t *offset)
{
    pthread_mutex_lock(&t->lock);
    uint64_t last = t->last_message_end, first = t->first_message;
    int rc = n > last ? -EMBAR_EINVALID : n < first ? -EMBAR_ETRIMMED : 0;
    if (rc || n == last || n == first) {
        *offset = n == last ? topic_end(t) : topic_base(t);
        pthread_mutex_unlock(&t->lock);
        return rc;
    }
    size_t low = 0, high = t->run_count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (topic_run(t, mid)->message <= n)
            low = mid;
        else
            high = mid;
    }
    while (low > 0 && topic_run(t, low)->batches == 0)
        low--;
    const struct run *r = topic_run(t, low);
    struct walk w = {.run = low, .side = r->side, .offset = r->offset, .message = r->message};
    if (run_is_damaged(r) && n == r->message) { /* of a damaged run only its begin is known */
        *offset = r->offset;
        pthread_mutex_unlock(&t->lock);
        return 0;
    }
    for (;;) {
        rc = walk_read(t, &w);
        if (rc || n < w.message + w.s.count)
            break;
        walk_step(&w);
        if (w.index >= r->batches) {
            rc = -EMBAR_ECORRUPT;
            break;
        }
    }
    /* A damaged pool's run may begin behind its own messages. */
    uint64_t behind = rc == 0 && n > w.message ? n - w.message : 0;
    if (rc == 0 && w.s.lengths) {
        struct sum s = {.lengths = w.s.lengths, .to = (uint32_t)behind, .until = UINT64_MAX};
        rc = guard_run(t->log->region, lengths_add, &s);
        *offset = w.offset + s.bytes;
    } else if (rc == 0) {
        *offset = w.offset + behind * (w.s.length / w.s.count);
    }
    pthread_mutex_unlock(&t->lock);
    return told(t, rc);
}

/* Does run i begin before the moment? A damaged one has no time: as the one before it, and as old
 * when there is none. */
static int run_before(const struct topic *t, size_t i, uint64_t ns, bool *before)
{
    struct side s;
    i = time_anchor(t, i);
    *before = true;
    if (run_is_damaged(topic_run(t, i)))
        return 0;
    int rc = side_read(&t->log->pool, topic_run(t, i)->side, &s);
    *before = rc == 0 && s.time < ns;
    return rc;
}

int topic_seek_time(struct topic *t, uint64_t ns, uint64_t *offset)
{
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    /* The first run that does not begin before the moment; index time never goes back. */
    size_t low = 0, high = t->run_count;
    while (rc == 0 && high > low) {
        size_t mid = low + (high - low) / 2;
        bool before = false;
        rc = run_before(t, mid, ns, &before);
        if (before)
            low = mid + 1;
        else
            high = mid;
    }
    uint64_t at = topic_base(t);
    if (rc == 0 && low > 0) {
        /* The moment is at its begin, or in what is before it, from the run that was gone by on. */
        struct walk w = {0};
        size_t i = time_anchor(t, low - 1);
        while (i < low && (rc = time_walk(t, i, ns, &w)) == 0)
            i++;
        rc = rc > 0 ? 0 : rc;
        uint64_t found = i < low ? w.offset : topic_run_end(t, low - 1);
        at = found > at ? found : at;
    }
    pthread_mutex_unlock(&t->lock);
    *offset = at;
    return told(t, rc);
}
