/* A write(2) becomes batches, by the same path as the network's (steps 3 to 8).
 *
 * A job is one write, one fsync or one last close. Its stream is the open file's unfinished line,
 * then the new bytes. Whole lines are cut into batches of up to 65,536 messages; the rest becomes
 * the unfinished line, or the last message when the job is an fsync, a synchronous write or a close.
 *
 * Who has the job. Batches announced together are concurrent to the sequencer, which may arrange
 * them; so one batch of a job is under way at a time. Whoever builds (a handler, or the replies
 * thread) announces a batch and, when it is not the last one, swaps `turn` to LEFT once it has
 * nothing more to do; the completion swaps it to COMMITTED. Whoever comes second goes on with the
 * job. With the last batch the job is the completion's alone: it finishes it, exactly once.
 * One job at a time is its handle's `busy` one; only it touches the unfinished line.
 *
 * Must never wait: without pool space, or without a place in the producer's ring, a job is parked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

enum turn { BUILDING, LEFT, COMMITTED };

static bool is_write(const struct job *job)
{
    return job->kind == JOB_WRITE || job->kind == JOB_WRITE_SYNC;
}

static size_t stream_size(const struct job *job)
{
    return job->held + job->size;
}

/* The bytes of the stream from `at` that stand together; *n: how many. */
static const char *stream_at(const struct job *job, size_t at, size_t *n)
{
    if (at < job->held) {
        *n = job->held - at;
        return job->handle->line.text + at;
    }
    *n = stream_size(job) - at;
    return job->data + (at - job->held);
}

/* Bytes up to and with the next newline; 0 when there is none. The unfinished line has none. */
static size_t line_length(const struct job *job, size_t at)
{
    size_t from = at < job->held ? job->held : at;
    size_t n;
    const char *p = stream_at(job, from, &n);
    const char *newline = n ? memchr(p, '\n', n) : NULL;
    return newline ? from - at + (size_t)(newline - p) + 1 : 0;
}

/* One message of the stream from `at`: its length, or 0 when what is left is not to be published
 * yet. Lines longer than a batch are split. */
static size_t message_length(const struct job *job, size_t at, size_t max)
{
    size_t rest = stream_size(job) - at;
    size_t length = rest ? line_length(job, at) : 0;
    if (length == 0 && (rest >= max || job->kind != JOB_WRITE))
        length = rest;
    return length < max ? length : max;
}

/* The next batch of the stream: sets length, count and equal. False when nothing is left. */
static bool batch_cut(const struct job *job, struct batch *b)
{
    size_t max = log_pool(job->fs->log)->max_batch;
    size_t total = 0, first = 0;
    uint32_t count = 0;
    bool equal = true;
    while (count < MEDIA_MAX_MESSAGES) {
        size_t length = message_length(job, job->taken + total, max);
        if (length == 0 || total + length > max)
            break;
        if (count == 0)
            first = length;
        equal = equal && length == first;
        total += length;
        count++;
    }
    b->length = (uint32_t)total;
    b->count = count;
    b->equal = equal;
    return count > 0;
}

/* Lengths are stored this many at a time. */
#define LENGTHS 256u

static int lengths_fill(const struct job *job, const struct batch *b)
{
    le32 some[LENGTHS];
    struct log *log = job->fs->log;
    size_t max = log_pool(log)->max_batch, at = job->taken;
    int rc = 0;
    for (uint32_t i = 0, n = 0; rc == 0 && i < b->count; i++) {
        size_t length = message_length(job, at, max);
        some[n++] = le32_of((uint32_t)length);
        at += length;
        if (n == LENGTHS || i + 1 == b->count) {
            rc = log_store_lengths(log, b, (i + 1 - n) * 4, some, n * 4);
            n = 0;
        }
    }
    return rc;
}

/* Store the batch's bytes and lengths where they were reserved. */
static int batch_fill(const struct job *job, struct batch *b)
{
    struct log *log = job->fs->log;
    uint32_t crc = 0;
    for (uint32_t at = 0; at < b->length;) {
        size_t have;
        const char *from = stream_at(job, job->taken + at, &have);
        uint32_t n = b->length - at;
        n = n < have ? n : (uint32_t)have;
        int rc = log_store(log, b, at, from, n, &crc);
        if (rc)
            return rc;
        at += n;
    }
    b->payload_crc = crc;
    return b->equal ? 0 : lengths_fill(job, b);
}

static void job_finish(struct job *job);

static void batch_done(struct completion *self, const struct commit *commit)
{
    struct job *job = (struct job *)((char *)self - offsetof(struct job, completion));
    struct fs *fs = job->fs;
    job->status = commit->status;
    if (commit->status == 0)
        job->good = job->taken;
    if (job->last)
        job_finish(job);
    /* Release: what stands above is before the builder's next step; pairs with its acquire. After
     * BUILDING the job is the builder's again. */
    else if (atomic_exchange_explicit(&job->turn, COMMITTED, memory_order_acq_rel) == LEFT)
        tasks_push(&fs->replies, &job->task);
}

static void line_free(struct fs *fs, struct line *line)
{
    count_sub(&fs->count.held_bytes, line->capacity);
    free(line->text);
    *line = (struct line){0};
}

static int line_reserve(struct fs *fs, struct line *line, size_t want)
{
    if (line->text && want <= line->capacity)
        return 0;
    size_t capacity = want < 256 ? 256 : want + want / 2;
    uint64_t all = atomic_load_explicit(&fs->count.held_bytes, memory_order_relaxed);
    char *bigger = all + capacity > FS_HELD_MAX ? NULL : realloc(line->text, capacity);
    if (!bigger)
        return -ENOMEM;
    count_add(&fs->count.held_bytes, capacity - line->capacity);
    line->text = bigger;
    line->capacity = capacity;
    return 0;
}

/* What no batch took becomes the unfinished line. The one before is still what the stream begins
 * with, for as long as its batch may be refused: then it is left alone and `old` gets it. */
static int hold_rest(struct job *job, struct line *old)
{
    struct handle *h = job->handle;
    size_t skip = job->taken > job->held ? job->taken - job->held : 0;
    size_t add = job->size - skip;
    size_t keep = job->taken == 0 ? job->held : 0;
    *old = (struct line){.held = h->line.held};
    if (add && h->line.held > keep) {
        *old = h->line;
        h->line = (struct line){0};
    }
    if (add > 0) {
        int rc = line_reserve(job->fs, &h->line, keep + add);
        if (rc)
            return rc;
        memcpy(h->line.text + keep, job->data + skip, add);
    }
    h->line.held = keep + add;
    return 0;
}

/* The batch was refused: the unfinished line is again the one that it was. */
static void hold_undo(struct job *job, struct line *old)
{
    struct handle *h = job->handle;
    if (old->text) {
        line_free(job->fs, &h->line);
        h->line = *old;
    }
    h->line.held = old->held;
}

/* An idle open file keeps no large buffer. */
static void line_clear(struct handle *h)
{
    h->line.held = 0;
    if (h->line.capacity > 4096)
        line_free(h->fs, &h->line);
}

/* The handler's buffer ends with the handler. */
static int job_keep(struct job *job)
{
    if (job->own || job->size == 0)
        return 0;
    job->own = malloc(job->size);
    if (!job->own)
        return -ENOMEM;
    memcpy(job->own, job->data, job->size);
    job->data = job->own;
    return 0;
}

/* Announce the batch that was cut. 1: it was the last one, what comes after it is held, and the
 * job is its completion's. 0: there is more. Or a negative code, and nothing was announced:
 * -EMBAR_EFULL without space in the pool or a place in the producer's ring. */
static int batch_publish(struct job *job)
{
    struct fs *fs = job->fs;
    struct batch *b = &job->batch;
    int rc = park_reserve(&fs->park, job);
    if (rc)
        return rc;
    size_t before = job->taken;
    rc = batch_fill(job, b);
    job->taken += b->length;
    bool last = message_length(job, job->taken, log_pool(fs->log)->max_batch) == 0;
    job->last = last;
    struct line old = {.held = job->handle->line.held};
    if (rc == 0)
        rc = last ? hold_rest(job, &old) : job_keep(job);
    if (rc == 0) {
        pthread_mutex_lock(&fs->producer_lock);
        rc = log_announce(fs->producer, b);
        pthread_mutex_unlock(&fs->producer_lock);
    }
    if (rc == 0) {
        line_free(fs, &old); /* of the job nothing may be touched any more if it was the last */
        return last;
    }
    hold_undo(job, &old);
    log_abandon(fs->log, b);
    job->taken = before;
    return rc == -EAGAIN ? -EMBAR_EFULL : rc; /* its ring is full: parked like any other */
}

/* Is the batch under way committed? If not, its completion goes on with the job. */
static bool batch_committed(struct job *job)
{
    if (atomic_exchange_explicit(&job->turn, LEFT, memory_order_acq_rel) != COMMITTED)
        return false;
    atomic_store_explicit(&job->turn, BUILDING, memory_order_relaxed);
    return true;
}

bool publish_step(struct job *job)
{
    struct fs *fs = job->fs;
    if (job->kind == JOB_CLOSE && topic_is_last(job->handle->topic))
        job->status =
            -EMBAR_EGONE; /* nobody will ever read it: it takes no space, nor waits for any */
    while (job->status == 0) {
        job->batch = (struct batch){.topic = job->handle->topic,
                                    .past_removal = true, /* it lives until its last close */
                                    .completion = &job->completion};
        if (!batch_cut(job, &job->batch)) {
            struct line old;
            job->status = hold_rest(job, &old);
            line_free(fs, &old);
            break;
        }
        int rc = batch_publish(job);
        if (rc == -EMBAR_EFULL)
            return false;
        if (rc == 1)
            return true;
        if (rc == 0) {
            log_commit(fs->log);
            if (!batch_committed(job))
                return true;
        } else {
            job->status = rc;
        }
    }
    job_finish(job);
    return true;
}

/* The batch before was committed after its builder had left. */
static void job_resume(struct task *task)
{
    struct job *job = (struct job *)((char *)task - offsetof(struct job, task));
    struct fs *fs = job->fs;
    atomic_store_explicit(&job->turn, BUILDING, memory_order_relaxed);
    if (!publish_step(job))
        park_job(&fs->park, job);
    log_commit(fs->log);
}

void publish_fail(struct job *job, int status)
{
    job->status = status;
    job_finish(job);
}

/* The handle's next job, if any, becomes the busy one. */
static void job_next(struct job *job)
{
    struct handle *h = job->handle;
    pthread_mutex_lock(&h->lock);
    struct job *next = h->waiting;
    if (next) {
        h->waiting = next->next;
        if (!h->waiting)
            h->waiting_tail = &h->waiting;
        next->held = h->line.held;
    }
    h->busy = next;
    pthread_mutex_unlock(&h->lock);
    if (next)
        park_resume(&job->fs->park, next);
}

static void note_lost(struct fs *fs, size_t held, int status)
{
    count_add(&fs->count.lost_fragments, 1);
    daemon_note("an unfinished last line of %zu bytes was not published at close: %s", held,
                embar_strerror(status));
}

static void job_answer(struct job *job, int status, size_t good)
{
    struct fs *fs = job->fs;
    if (job->kind == JOB_CLOSE && status && status != -EMBAR_EGONE)
        note_lost(fs, job->held, status);
    if (!job->req)
        return;
    if (job->parked_once) /* waits for an interrupt that is being delivered */
        fuse_req_interrupt_func(job->req, NULL, NULL);
    if (is_write(job) && (status == 0 || good > 0))
        fuse_reply_write(job->req, status == 0 ? job->size : good);
    else
        fuse_reply_err(job->req, embar_to_errno(status));
}

static void job_finish(struct job *job)
{
    struct handle *h = job->handle;
    struct fs *fs = job->fs;
    /* What was committed of a write that then failed is a short write. */
    size_t good = job->good > job->held ? job->good - job->held : 0;
    int status = job->status;
    if (status == 0)
        good = job->size;
    if (job->taken > 0 && (status || job->taken == stream_size(job)))
        line_clear(h);
    pthread_mutex_lock(&h->lock);
    if (is_write(job) && h->sequential != NOWHERE)
        h->sequential += good;
    pthread_mutex_unlock(&h->lock);
    job_next(job);
    job_answer(job, status, good);
    free(job->own);
    free(job);
    handle_put(h);
    atomic_fetch_sub_explicit(&fs->outstanding, 1, memory_order_release);
}

/* 0: the job is its handle's busy one. 1: others are before it. -ENOMEM: neither. */
static int job_queue(struct job *job)
{
    struct handle *h = job->handle;
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    if (!h->busy) {
        h->busy = job;
        job->held = h->line.held;
    } else if (job_keep(job) == 0) {
        *h->waiting_tail = job;
        h->waiting_tail = &job->next;
        rc = 1;
    } else {
        rc = -ENOMEM;
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

static struct job *job_new(struct handle *h, enum job_kind kind, fuse_req_t req, const char *data,
                           size_t size, bool *mine)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->fs = h->fs;
    job->handle = h;
    job->kind = kind;
    job->req = req;
    job->data = data;
    job->size = size;
    job->completion.done = batch_done;
    job->task.run = job_resume;
    int rc = job_queue(job);
    *mine = rc == 0;
    if (rc >= 0)
        return job; /* not mine: it may be gone already */
    free(job);
    return NULL;
}

void publish_start(struct handle *h, enum job_kind kind, fuse_req_t req, const char *data,
                   size_t size)
{
    struct fs *fs = h->fs;
    handle_ref(h);
    atomic_fetch_add_explicit(&fs->outstanding, 1, memory_order_relaxed);
    bool mine;
    struct job *job = job_new(h, kind, req, data, size, &mine);
    if (!job) {
        if (req)
            fuse_reply_err(req, ENOMEM);
        else if (h->line.held > 0) /* the last close: nobody else has the handle */
            note_lost(fs, h->line.held, -ENOMEM);
        handle_put(h);
        atomic_fetch_sub_explicit(&fs->outstanding, 1, memory_order_release);
        return;
    }
    if (!mine)
        return;
    if (!publish_step(job)) {
        if (job_keep(job))
            publish_fail(job, -ENOMEM);
        else
            park_job(&fs->park, job);
    }
    log_commit(fs->log); /* also of the batches before one that found no space */
}
