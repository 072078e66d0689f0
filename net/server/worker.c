/* Workers: one thread each, with its own epoll, listener, timer and mailbox.
 *
 * A round: what epoll tells, the mail, one turn for each ready connection, then one log_commit for
 * all that was announced in it. Acks of that epoch are mail for the next round, which follows at
 * once. A connection that could bring more than its share in a turn goes on the bulk list: these get a
 * turn when the others had theirs and their acks are out, as many turns as make them equal, so that
 * somebody who sends little waits for one short turn of somebody who sends much, and never for all
 * of them. Last come those who wait for staging memory and may look for it in the next round. How long a worker looks for more before it blocks, wait.h says; an
 * idle one sleeps in epoll_wait without a timeout, and its timer is armed only while some
 * connection waits for something that time decides.
 *
 * Stop. server_stop sets the flag and wakes each worker. It then reads no more, gives
 * half-received batches up, runs rounds until every completion it waits for has come, sends what is
 * due and ESHUTDOWN, and leaves after at most STOP_NS more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "net/server/internal.h"
#include "net/server/wait.h"

#define EVENTS  64
#define STOP_NS 1000000000ull

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void timer_set(struct worker *w, bool on)
{
    unsigned ms = w->server->opt.tick_ms ? w->server->opt.tick_ms : 1000;
    struct itimerspec t = {0};
    if (on)
        t.it_interval = (struct timespec){ms / 1000, (long)(ms % 1000) * 1000000};
    t.it_value = t.it_interval;
    if (w->timer_armed != on && timerfd_settime(w->timer_fd, 0, &t, NULL) == 0)
        w->timer_armed = on;
}

void worker_timer(struct worker *w)
{
    timer_set(w, true); /* tick() takes it back when it finds nothing to do */
}

/* A batch that is too slow loses its space at once when others have none. */
static bool somebody_waits(struct server *s)
{
    for (unsigned i = 0; i < s->workers; i++)
        if (atomic_load_explicit(&s->worker[i].count.waiting, memory_order_relaxed) > 0)
            return true;
    return false;
}

static void tick(struct worker *w)
{
    uint64_t times;
    if (read(w->timer_fd, &times, sizeof(times)) != (ssize_t)sizeof(times))
        return;
    w->hurry = somebody_waits(w->server);
    struct conn *c, *next;
    for (c = TAILQ_FIRST(&w->timed); c && (next = TAILQ_NEXT(c, timed_link), true); c = next)
        conn_tick(c);
    if (space_waits(w))
        space_tick(w);
    stage_tick(w);
    if (w->listeners_off && !w->stopping)
        listener_arm(w, true);
    if (TAILQ_EMPTY(&w->timed) && !space_waits(w) && !line_waits(w) && !w->listeners_off)
        timer_set(w, false);
}

static void on_event(struct worker *w, const struct epoll_event *ev)
{
    struct server *s = w->server;
    if (ev->data.ptr == &w->timer_fd) {
        tick(w);
    } else if (ev->data.ptr == &w->box) {
        uint64_t n;
        ssize_t r = read(w->box.wake_fd, &n, sizeof(n));
        (void)r; /* the mail itself is what counts */
    } else if (ev->data.ptr == &w->listen_fd) {
        if (!w->stopping)
            listener_accept(w, w->listen_fd, false);
    } else if (ev->data.ptr == &s->unix_fd) {
        if (!w->stopping)
            listener_accept(w, s->unix_fd, true);
    } else {
        struct conn *c = ev->data.ptr;
        if (c->closed)
            return;
        if (ev->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            c->hup = c->readable = c->came = true;
        if (ev->events & EPOLLIN)
            c->readable = c->came = true;
        if (ev->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
            c->writable = true;
        conn_ready(c);
    }
}

/* One turn for each connection that is ready now; what becomes ready meanwhile is for the next. *little
 * grows by what those brought that have no more than their share. */
static unsigned turns(struct worker *w, uint64_t *little)
{
    unsigned n = 0;
    struct conn *last = TAILQ_LAST(&w->ready, conn_list), *c;
    while (last && (c = TAILQ_FIRST(&w->ready))) {
        bool end = c == last;
        TAILQ_REMOVE(&w->ready, c, ready_link);
        c->ready = false;
        uint64_t before = w->brought;
        conn_turn(c);
        if (!c->bulk)
            *little += w->brought - before;
        n++;
        if (end)
            break;
    }
    return n;
}

static void bury(struct worker *w)
{
    struct conn *c;
    while ((c = TAILQ_FIRST(&w->dead))) {
        TAILQ_REMOVE(&w->dead, c, ready_link);
        conn_free(w->server, c);
    }
}

static unsigned commit(struct worker *w)
{
    if (w->todo == 0)
        return 0;
    w->todo = 0;
    log_commit(w->log);
    return 1;
}

/* Turns of those that could bring more than their share: as much together as the others brought in
 * this round, but one turn at least. */
static unsigned bulk_turns(struct worker *w, uint64_t little)
{
    unsigned n = 0;
    struct conn *last = TAILQ_LAST(&w->bulk, conn_list), *c;
    uint64_t from = w->brought;
    while (last && (c = TAILQ_FIRST(&w->bulk))) {
        bool end = c == last;
        if (!w->cycle_end)
            w->cycle_end = last;
        bool round = c == w->cycle_end;
        conn_unready(c);
        /* What it brings now counts for the next time round, and what it had too much of. */
        c->used = c->used < TURN_SHARED        ? 0
                  : c->used < 2u * TURN_SHARED ? c->used - TURN_SHARED
                                               : TURN_SHARED;
        c->cycle = w->cycle + 1;
        conn_turn(c);
        n++;
        if (round) {
            w->cycle++;
            w->cycle_end = NULL;
        }
        if (end || w->brought - from >= little)
            break;
    }
    return n;
}

/* Everything there is to do now; how much it was. */
static unsigned round_of(struct worker *w, int timeout)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(w->epoll_fd, ev, EVENTS, timeout);
    if (timeout != 0)
        mail_awake(&w->box);
    for (int i = 0; i < n; i++)
        on_event(w, &ev[i]);
    uint64_t little = 0;
    unsigned did = (n > 0 ? (unsigned)n : 0) + mail_drain(w) + turns(w, &little);
    did += commit(w);
    if (TAILQ_EMPTY(&w->bulk)) {
        w->cycle++;
    } else {
        if (mail_drain(w) > 0) /* acks of what was just committed do not wait for it */
            turns(w, &little);
        did += bulk_turns(w, little);
        (void)commit(w);
    }
    bury(w);
    stage_tell(w);
    line_call(w);
    return did;
}

static uint64_t preempted(void)
{
    struct rusage u;
    return getrusage(RUSAGE_THREAD, &u) == 0 ? (uint64_t)u.ru_nivcsw : 0;
}

/* May epoll_wait block? */
static int patience(struct worker *w, struct wait *wait, unsigned did)
{
    bool busy = did > 0 || !TAILQ_EMPTY(&w->ready) || !TAILQ_EMPTY(&w->bulk);
    uint64_t now = wait_wants_time(wait, busy) ? now_ns() : 0;
    if (!wait_round(wait, busy, now, preempted))
        return 0;
    return mail_sleep(&w->box) ? -1 : 0;
}

static void stop(struct worker *w)
{
    struct conn *c, *next;
    w->stopping = true;
    listener_arm(w, false);
    for (c = TAILQ_FIRST(&w->all); c && (next = TAILQ_NEXT(c, all_link), true); c = next)
        publish_drop(c);
    struct wait wait = WAIT_NEW;
    unsigned did = 1;
    while (w->outstanding > 0)
        did = round_of(w, patience(w, &wait, did));
    for (c = TAILQ_FIRST(&w->all); c && (next = TAILQ_NEXT(c, all_link), true); c = next) {
        conn_ready(c);
        if (c->hello)
            conn_fail(c, -EMBAR_ESHUTDOWN, NULL);
        else
            conn_close(c);
    }
    uint64_t until = now_ns() + STOP_NS;
    while (!TAILQ_EMPTY(&w->all) && now_ns() < until)
        round_of(w, TAILQ_EMPTY(&w->ready) && TAILQ_EMPTY(&w->bulk) ? 10 : 0);
    while ((c = TAILQ_FIRST(&w->all)))
        conn_close(c);
    bury(w);
}

/* Where it was told to run: a place that is refused is only slower. */
static void settle(struct worker *w)
{
    char name[16];
    cpu_set_t set;
    (void)snprintf(name, sizeof(name), "embar-net-%u", w->index);
    pthread_setname_np(pthread_self(), name);
    if (pin_choose(&w->server->opt.pin, w->index, pool_at(log_pool(w->log), 0), &set))
        (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    settle(w);
    struct wait wait = WAIT_NEW;
    unsigned did = 1;
    while (!atomic_load_explicit(&w->server->stop, memory_order_acquire))
        did = round_of(w, patience(w, &wait, did));
    stop(w);
    return NULL;
}

static void wake_deliver(struct worker *w, struct mail *m)
{
    (void)w;
    free(m);
}

void worker_wake(struct worker *w)
{
    struct mail *m = malloc(sizeof(*m));
    if (m) {
        m->deliver = wake_deliver;
        mail_push(&w->box, m);
        return;
    }
    uint64_t one = 1;
    ssize_t n = write(w->box.wake_fd, &one, sizeof(one));
    (void)n;
}

/* ---- Space was freed ----------------------------------------------------------------------- */

static void space_deliver(struct worker *w, struct mail *m)
{
    (void)m;
    /* Cleared before the retry: what is freed from here on fires again. */
    atomic_store_explicit(&w->space_queued, false, memory_order_seq_cst);
    space_call(w);
}

static void space_fire(struct watcher *self)
{
    struct worker *w = container_of(self, struct worker, space);
    if (!atomic_exchange_explicit(&w->space_queued, true, memory_order_seq_cst))
        mail_push(&w->box, &w->space_mail);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static int watch_fd(struct worker *w, int fd, void *key)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = key};
    return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

static int open_all(struct worker *w)
{
    int rc = mailbox_init(&w->box);
    if (rc)
        return rc;
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (w->epoll_fd < 0 || w->timer_fd < 0)
        return -errno;
    w->scratch = malloc(SCRATCH_SIZE);
    w->gather = gather_new();
    if (!w->scratch || !w->gather || line_init(w))
        return -ENOMEM;
    rc = watch_fd(w, w->box.wake_fd, &w->box);
    if (rc == 0)
        rc = watch_fd(w, w->timer_fd, &w->timer_fd);
    return rc;
}

int worker_open(struct worker *w, struct embar_error *err)
{
    TAILQ_INIT(&w->all);
    TAILQ_INIT(&w->ready);
    TAILQ_INIT(&w->bulk);
    TAILQ_INIT(&w->timed);
    TAILQ_INIT(&w->dead);
    TAILQ_INIT(&w->pub_free);
    w->listeners_off = true;
    w->space_mail.deliver = space_deliver;
    w->space.fire = space_fire;
    stage_init(w);
    int rc = open_all(w);
    if (rc)
        return embar_fail(err, rc, "cannot set up a network worker");
    w->opened = true;
    return 0;
}

int worker_start(struct worker *w, struct embar_error *err)
{
    listener_arm(w, true);
    w->line = log_space_line(w->log, &w->space);
    int rc = w->line ? -pthread_create(&w->thread, NULL, run, w) : -EMBAR_ELIMIT;
    if (rc) {
        if (w->line)
            log_space_line_end(w->log, w->line);
        return embar_fail(err, rc, "cannot start a network worker");
    }
    w->started = true;
    return 0;
}

void worker_destroy(struct worker *w)
{
    if (w->started)
        log_space_line_end(w->log, w->line);
    w->stopping = true;
    if (w->opened) {
        mail_drain(w); /* connections handed over after it had left, or before it came; wake-ups */
        bury(w);
    }
    struct pub *p;
    while (w->pub_free.tqh_last && (p = TAILQ_FIRST(&w->pub_free))) {
        TAILQ_REMOVE(&w->pub_free, p, link);
        free(p);
    }
    free(w->lines);
    free(w->gather);
    free(w->scratch);
    if (w->timer_fd >= 0)
        close(w->timer_fd);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    mailbox_destroy(&w->box);
}
