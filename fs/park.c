/* Writes that wait for pool space (step 3's back-pressure for writers through the mount).
 *
 * A parked write ends on commit, on interrupt (EINTR) or after --write-wait (ENOSPC). The log
 * tells when space was freed or the producer's ring has moved; the replies thread then tries the parked
 * jobs, oldest first, until one finds none: those behind it wait for it, so that no large write waits
 * for ever for the sake of small ones, and many who wait cost no more than a few. New writes and those who wait
 * through the network leave it what the first needs, and it leaves them what those before it need: core/places.c. It never tries without
 * that, but for each job once by itself when it comes, since something may have been freed since it was
 * refused, or it may need nothing. What is to be written to a removed topic
 * waits as any other: it lives until its last close.
 * Must never be entered with a lock held that the park's or the queue's lock is inside of.
 */
#include <errno.h>

#include "fs/fs.h"

void park_retry(struct park *p)
{
    pthread_mutex_lock(&p->lock);
    p->retry = true;
    pthread_mutex_unlock(&p->lock);
    tasks_push(&p->fs->replies, &p->wake);
}

static void park_fire(struct watcher *w)
{
    park_retry((struct park *)((char *)w - offsetof(struct park, space)));
}

/* The tick that follows does the work. */
static void park_wake(struct task *task)
{
    (void)task;
}

int park_init(struct park *p, struct fs *fs)
{
    p->fs = fs;
    pthread_mutex_init(&p->lock, NULL);
    p->head = NULL;
    p->tail = &p->head;
    p->space.fire = park_fire;
    p->wake.run = park_wake;
    p->line = log_space_line(fs->log, &p->space);
    return p->line ? 0 : -EMBAR_ELIMIT;
}

void park_destroy(struct park *p)
{
    if (p->line)
        log_space_line_end(p->fs->log, p->line);
    pthread_mutex_destroy(&p->lock);
}

/* Called by libfuse with the request's lock held: nothing may be answered here. */
static void park_interrupt(fuse_req_t req, void *data)
{
    (void)req;
    struct job *job = data;
    atomic_store_explicit(&job->interrupted, true, memory_order_relaxed);
    tasks_push(&job->fs->replies, &job->fs->park.wake);
}

static void park_append(struct park *p, struct job *job)
{
    pthread_mutex_lock(&p->lock);
    job->next = NULL;
    *p->tail = job;
    p->tail = &job->next;
    pthread_mutex_unlock(&p->lock);
}

static void park_enter(struct park *p, struct job *job)
{
    struct fs *fs = p->fs;
    job->deadline = now_ns() + (uint64_t)fs->opt.write_wait * 1000000000u;
    job->parked_once = job->fresh = true;
    count_add(&fs->count.parked_now, 1);
    if (job->req)
        node_parked(&fs->nodes, job->handle->node);
    /* An interrupt that came already is told from inside this call. */
    if (job->req)
        fuse_req_interrupt_func(job->req, park_interrupt, job);
    park_append(p, job);
    tasks_push(&fs->replies, &p->wake);
}

void park_job(struct park *p, struct job *job)
{
    count_add(&p->fs->count.parked, 1);
    park_enter(p, job);
}

void park_resume(struct park *p, struct job *job)
{
    park_enter(p, job);
}

/* What is told of the line: its first one's place, and need. Replies thread. */
static void say(struct park *p, const struct job *first)
{
    struct log *log = p->fs->log;
    if (first)
        log_space_say(log, p->line, first->place, first->space);
    else
        log_space_say(log, p->line, SPACE_NOBODY, 0);
}

int park_reserve(struct park *p, struct job *job)
{
    struct log *log = p->fs->log;
    const struct batch *b = &job->batch;
    uint64_t place = job->place ? job->place : SPACE_NOBODY, owed = 0;
    if (!log_space_quiet(log)) /* as a rule nobody waits */
        owed =
            log_space_owed(log, p->line, place) + (job->first ? 0 : log_space_said(p->line, place));
    int rc = log_reserve_behind(log, &job->batch, owed, &job->behind);
    if (rc == -EMBAR_EFULL) {
        job->space = log_space_need(log, b->length, b->count, b->equal);
        if (!job->place)
            job->place = log_space_place(log);
        return rc;
    }
    if (job->first)
        say(p, NULL); /* until the end of this tick, which says who is next */
    job->first = false;
    job->place = 0;
    return rc;
}

/* One job's turn: true when it has left the park. It may be gone then. *in_vain: it left, and took nothing. */
static bool park_turn(struct park *p, struct job *job, uint64_t now, bool retry, bool first,
                      bool closed, bool *in_vain)
{
    struct fs *fs = p->fs;
    if (atomic_load_explicit(&job->interrupted, memory_order_relaxed)) {
        *in_vain = true;
        count_add(&fs->count.interrupted, 1);
        publish_fail(job, -EINTR);
        return true;
    }
    if (retry) {
        job->fresh = false;
        job->first = first;
        count_add(&fs->count.park_tries, 1);
        if (publish_step(job))
            return true;
    }
    if (now < job->deadline && !closed)
        return false;
    *in_vain = true;
    count_add(&fs->count.no_space, 1);
    publish_fail(job, -ENOSPC);
    return true;
}

/* Something was freed: is it enough for those before the job and itself? Who is first of all looks in any case, for
 * what it finds missing is what the log makes room for. To look in vain would fire all who wait. */
static bool may_look(struct park *p, const struct job *job)
{
    struct log *log = p->fs->log;
    uint64_t owed = job->place ? log_space_owed(log, p->line, job->place) : 0;
    if (owed == 0)
        return true;
    uint64_t room = log_space_room(log);
    return room > owed && room - owed >= job->space;
}

/* It just came; or it is nobody's any more, and takes nothing. */
static bool tried_anyway(const struct job *job)
{
    return job->fresh || (job->kind == JOB_CLOSE && topic_is_last(job->handle->topic));
}

uint64_t park_tick(struct park *p, uint64_t now)
{
    pthread_mutex_lock(&p->lock);
    struct job *job = p->head;
    bool retry = p->retry, closed = p->closed;
    p->head = NULL;
    p->tail = &p->head;
    p->retry = false;
    pthread_mutex_unlock(&p->lock);
    if (!job)
        return NEVER;
    uint64_t due = NEVER;
    bool in_vain = false, left = false;
    const struct job *first = NULL; /* that waits on, for space */
    bool late = false;
    for (struct job *next; job; job = next) {
        next = job->next;
        uint64_t deadline = job->deadline, place = job->place;
        struct node *node = job->req ? job->handle->node : NULL;
        bool look = closed || tried_anyway(job) || (retry && may_look(p, job));
        if (park_turn(p, job, now, look, !first, closed, &in_vain)) {
            left |= place != 0;
            count_sub(&p->fs->count.parked_now, 1);
            if (node)
                node_unparked(&p->fs->nodes, node);
            continue;
        }
        retry = false; /* those behind wait for it */
        left |= place != 0 && job->place != place;
        if (!first && job->place) {
            first = job;
            say(p, first);
            /* Who was before it may have left since it looked, and not seen that somebody waits here. */
            late = job->behind && log_space_owed(p->fs->log, p->line, job->place) == 0;
        }
        park_append(p, job);
        due = deadline < due ? deadline : due;
    }
    if (!first)
        say(p, NULL);
    if (left)
        log_space_tell(p->fs->log);
    log_commit(p->fs->log);
    if (in_vain || late)
        park_retry(p); /* it may have been what the others waited for */
    return due;
}

void park_close(struct park *p)
{
    pthread_mutex_lock(&p->lock);
    p->closed = p->retry = true;
    pthread_mutex_unlock(&p->lock);
    tasks_push(&p->fs->replies, &p->wake);
}
