/* Reading a topic: bytes by offset, batches by cursor, seeks (step 9).
 *
 * A view pins the extents its pieces stand in: the topic's lock is held only while it is made up,
 * never while bytes are copied or sent. Committed bytes never change, so a view needs no second
 * look; a trim drops the runs, and the pins keep the blocks until the last view is released.
 */
#include "core/log_state.h"

static void view_add(struct read_view *v, struct topic *t, const struct run *r, uint64_t at,
                     uint64_t n)
{
    struct log *log = t->log;
    struct extent *e = extent_find(log->extents, r->payload, r->order);
    extent_ref(e);
    v->iov[v->pieces] = (struct iovec){pool_at(&log->pool, at), n};
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
        if (r->flags)
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
    return damaged ? -EMBAR_ECORRUPT : 0;
}

void read_release(struct read_view *v)
{
    for (int i = 0; i < v->pieces; i++)
        extent_put(v->log->extents, v->pins[i]);
    v->pieces = 0;
}

/* Where a walk stands: batch `index` of run `run`, whose side header is at `side`. */
struct walk {
    size_t run;
    unsigned index;
    uint64_t side, offset, message;
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
    return i < t->run_count && topic_run(t, i)->batches == 0 && topic_run(t, i)->flags == 0 &&
           topic_run(t, i)->payload == w->s.run1 && topic_run(t, i)->order == w->s.order1 &&
           topic_run(t, i)->offset == w->offset + w->s.run0_length &&
           topic_run_end(t, i) == w->offset + w->s.length;
}

/* The checked side record where the walk stands; its batch must lie where the run says. */
static int walk_read(const struct topic *t, struct walk *w)
{
    const struct run *r = topic_run(t, w->run);
    if (r->flags)
        return -EMBAR_ECORRUPT;
    int rc = side_read(&t->log->pool, w->side, &w->s);
    if (rc)
        return rc;
    if (w->s.topic != t->id || w->s.run0 != r->payload + (w->offset - r->offset) ||
        w->s.run0_length > topic_run_end(t, w->run) - w->offset || (w->s.run1 && !walk_part(t, w)))
        return -EMBAR_ECORRUPT;
    return 0;
}

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
        w->side = c->hint[2];
        w->offset = c->offset;
        w->message = c->message;
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
        return rc;
    }
    const struct run *r = topic_run(t, w.run);
    view->offset = w.offset;
    view->message = w.message;
    view->time = w.s.time;
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
    c->hint[2] = w.side;
    pthread_mutex_unlock(&t->lock);
    return 1;
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
    if (r->flags && n == r->message) { /* of a damaged run only its begin is known */
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
    if (rc == 0) {
        uint64_t at = w.offset;
        for (uint64_t m = w.message; m < n; m++)
            at += w.s.lengths ? le32_get(w.s.lengths[m - w.message]) : w.s.length / w.s.count;
        *offset = at;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* Does run i begin before the moment? A damaged one has no time: as the one before it, and as old
 * when there is none. */
static int run_before(const struct topic *t, size_t i, uint64_t ns, bool *before)
{
    struct side s;
    while (i > 0 && topic_run(t, i)->flags)
        i--;
    *before = true;
    if (topic_run(t, i)->flags)
        return 0;
    int rc = side_read(&t->log->pool, topic_run(t, i)->side, &s);
    *before = rc == 0 && s.time < ns;
    return rc;
}

int topic_seek_time(struct topic *t, uint64_t ns, uint64_t *offset)
{
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    /* The last run that begins before the moment; index time never goes back. */
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
        size_t i = low - 1;
        while (i > 0 && topic_run(t, i)->batches == 0)
            i--;
        const struct run *r = topic_run(t, i);
        struct walk w = {.run = i, .side = r->side, .offset = r->offset, .message = r->message};
        if (r->flags)
            w.offset = topic_run_end(t, low - 1);
        while (rc == 0 && r->flags == 0 && w.index < r->batches) {
            rc = walk_read(t, &w);
            if (rc || w.s.time >= ns)
                break;
            walk_step(&w);
        }
        if (w.offset > at)
            at = w.offset;
    }
    pthread_mutex_unlock(&t->lock);
    *offset = at;
    return rc;
}
