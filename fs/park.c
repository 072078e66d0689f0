/* Writes that wait for pool space (step 3's back-pressure for writers through the mount).
 *
 * A parked write ends on commit, on interrupt (EINTR) or after --write-wait (ENOSPC). The log
 * tells when space was freed or the producer's ring has moved; the replies thread then tries every
 * parked job once, oldest first. It never tries without that. What is to be written to a removed topic
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

void park_init(struct park *p, struct fs *fs)
{
    p->fs = fs;
    pthread_mutex_init(&p->lock, NULL);
    p->head = NULL;
    p->tail = &p->head;
    p->space.fire = park_fire;
    p->wake.run = park_wake;
    log_space_watch(fs->log, &p->space);
}

void park_destroy(struct park *p)
{
    log_space_unwatch(p->fs->log, &p->space);
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

static void park_append(struct park *p, struct job *job, bool retry)
{
    pthread_mutex_lock(&p->lock);
    job->next = NULL;
    *p->tail = job;
    p->tail = &job->next;
    p->retry = p->retry || retry;
    pthread_mutex_unlock(&p->lock);
}

/* Into the park, to be tried once at once: space may have been freed since the job was refused. */
static void park_enter(struct park *p, struct job *job)
{
    struct fs *fs = p->fs;
    job->deadline = now_ns() + (uint64_t)fs->opt.write_wait * 1000000000u;
    job->parked_once = true;
    count_add(&fs->count.parked_now, 1);
    if (job->req)
        node_parked(&fs->nodes, job->handle->node);
    /* An interrupt that came already is told from inside this call. */
    if (job->req)
        fuse_req_interrupt_func(job->req, park_interrupt, job);
    park_append(p, job, true);
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

/* One job's turn: true when it has left the park. It may be gone then. */
static bool park_turn(struct park *p, struct job *job, uint64_t now, bool retry, bool closed)
{
    struct fs *fs = p->fs;
    if (atomic_load_explicit(&job->interrupted, memory_order_relaxed)) {
        count_add(&fs->count.interrupted, 1);
        publish_fail(job, -EINTR);
        return true;
    }
    if (retry && publish_step(job))
        return true;
    if (now < job->deadline && !closed)
        return false;
    count_add(&fs->count.no_space, 1);
    publish_fail(job, -ENOSPC);
    return true;
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
    for (struct job *next; job; job = next) {
        next = job->next;
        uint64_t deadline = job->deadline;
        struct node *node = job->req ? job->handle->node : NULL;
        if (park_turn(p, job, now, retry, closed)) {
            count_sub(&p->fs->count.parked_now, 1);
            if (node)
                node_unparked(&p->fs->nodes, node);
            continue;
        }
        park_append(p, job, false);
        due = deadline < due ? deadline : due;
    }
    log_commit(p->fs->log);
    return due;
}

void park_close(struct park *p)
{
    pthread_mutex_lock(&p->lock);
    p->closed = p->retry = true;
    pthread_mutex_unlock(&p->lock);
    tasks_push(&p->fs->replies, &p->wake);
}
