/* A thread that runs small pieces of work one after another, so that handlers, completions and
 * watchers need not wait (step 9). Must never be stopped by a task of its own, nor keep its tick waiting
 * for a queue to become empty: what pushes tasks may never pause.
 */
#include <errno.h>
#include <time.h>

#include "fs/fs.h"

/* Tasks that a tick may wait for: one of them may have come to wake it. */
#define ROUND 64u

uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void wait_until(struct tasks *q, uint64_t due)
{
    if (due == NEVER) {
        pthread_cond_wait(&q->wake, &q->lock);
        return;
    }
    struct timespec ts = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
    pthread_cond_timedwait(&q->wake, &q->lock, &ts);
}

static void run_one(struct tasks *q)
{
    struct task *t = q->head;
    q->head = t->next;
    if (!q->head)
        q->tail = &q->head;
    t->queued = false;
    q->running = t;
    pthread_mutex_unlock(&q->lock);
    t->run(t); /* may free t */
    pthread_mutex_lock(&q->lock);
    q->running = NULL;
    pthread_cond_broadcast(&q->idle);
}

static void *serve(void *arg)
{
    struct tasks *q = arg;
    uint64_t due = NEVER;
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->head && !q->stop && now_ns() < due)
            wait_until(q, due);
        bool last = q->stop && !q->head;
        /* One at least: a tick that is always due keeps no task waiting either. */
        for (unsigned n = 0; q->head && n < ROUND && (n == 0 || now_ns() < due); n++)
            run_one(q);
        if (q->tick) {
            pthread_mutex_unlock(&q->lock);
            due = q->tick(q->arg, now_ns());
            pthread_mutex_lock(&q->lock);
        }
        if (last && !q->head)
            break;
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

int tasks_start(struct tasks *q, const char *name, uint64_t (*tick)(void *, uint64_t), void *arg)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->wake, &monotonic);
    pthread_cond_init(&q->idle, NULL);
    pthread_condattr_destroy(&monotonic);
    q->head = NULL;
    q->tail = &q->head;
    q->tick = tick;
    q->arg = arg;
    int rc = pthread_create(&q->thread, NULL, serve, q);
    if (rc)
        return -rc;
    pthread_setname_np(q->thread, name);
    q->started = true;
    return 0;
}

void tasks_push(struct tasks *q, struct task *t)
{
    pthread_mutex_lock(&q->lock);
    if (!t->queued) {
        t->queued = true;
        t->next = NULL;
        *q->tail = t;
        q->tail = &t->next;
        pthread_cond_signal(&q->wake);
    }
    pthread_mutex_unlock(&q->lock);
}

void tasks_cancel(struct tasks *q, struct task *t)
{
    pthread_mutex_lock(&q->lock);
    if (t->queued) {
        struct task **at = &q->head;
        while (*at != t)
            at = &(*at)->next;
        *at = t->next;
        if (q->tail == &t->next)
            q->tail = at;
        t->queued = false;
    }
    while (q->running == t && !pthread_equal(pthread_self(), q->thread))
        pthread_cond_wait(&q->idle, &q->lock);
    pthread_mutex_unlock(&q->lock);
}

void tasks_stop(struct tasks *q)
{
    if (!q->started)
        return;
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_signal(&q->wake);
    pthread_mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    q->started = false; /* the locks stay: watchers may push until they are taken away */
}
