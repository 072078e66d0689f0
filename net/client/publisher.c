/* The publisher's public calls: open, publish, flush, close. Serves step 1 and 9 from the client's
 * side. Threads and ownership: publisher.h. Must never wait with the I/O thread depending on it.
 */
#include "net/client/publisher.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DEFAULT_BATCH  (2u << 20)
#define DEFAULT_LINGER 1000u
#define DEFAULT_WINDOW (32u << 20)
#define CLOSE_REF      3u

static void publisher_free(struct embar_publisher *p)
{
    for (unsigned i = 0; p->conns && i < p->connections; i++)
        pub_conn_close(&p->conns[i]);
    pub_lanes_free(p);
    while (p->free) {
        struct pub_batch *b = p->free;
        p->free = b->next;
        pub_batch_free(b);
    }
    if (p->epoll >= 0)
        close(p->epoll);
    if (p->wake >= 0)
        close(p->wake);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->room);
    pthread_cond_destroy(&p->free_again);
    pthread_mutex_destroy(&p->lock);
    if (p->client)
        client_put(p->client);
    free(p->conns);
    free(p->topic);
    free(p);
}

static int check_options(struct embar_publisher_options *o, struct embar_error *err)
{
    if (o->ack != EMBAR_ANY && (o->ack < 0 || o->ack > 2))
        return embar_fail(err, -EMBAR_EACK, "There is no ack level %d: 0, 1 and 2 are.", o->ack);
    if (o->order != EMBAR_ANY && o->order != 0 && o->order != 2 && o->order != 5)
        return embar_fail(err, -EMBAR_EORDER, "There is no order %d: 0, 2 and 5 are.", o->order);
    if (o->session > EMBAR_SESSION_NONE)
        return embar_fail(err, -EMBAR_EINVALID, "That is no session mode.");
    if (o->ack == 0 && (o->session == EMBAR_SESSION_NEW || o->session == EMBAR_SESSION_RESUME))
        return embar_fail(err, -EMBAR_EACK,
                          "Ack 0 has no session: nothing would tell what of it was committed. Use "
                          "ack 1, or no session.");
    if (o->session == EMBAR_SESSION_RESUME && o->session_id == 0)
        return embar_fail(err, -EMBAR_ESESSION, "Session 0 is none and cannot be resumed.");
    if (o->zerocopy > EMBAR_ZEROCOPY_NEVER)
        return embar_fail(err, -EMBAR_EINVALID,
                          "That is no way to send: it is always, never or auto.");
    if (o->connections > PUB_MAX_CONNECTIONS)
        return embar_fail(err, -EMBAR_EINVALID, "A publisher has at most %u connections.",
                          PUB_MAX_CONNECTIONS);
    if (o->batch_bytes == 0)
        o->batch_bytes = DEFAULT_BATCH;
    if (o->linger_us == 0)
        o->linger_us = DEFAULT_LINGER;
    if (o->connections == 0)
        o->connections = 1;
    if (o->window == 0)
        o->window = DEFAULT_WINDOW;
    return 0;
}

static int publisher_start(struct embar_publisher *p, struct embar_error *err)
{
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN};
    if (p->epoll < 0 || p->wake < 0 || epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &ev) < 0)
        return embar_fail(err, -errno, "A publisher cannot be set up");
    int rc = pub_conn_open(&p->conns[0], err);
    if (rc < 0)
        return rc;
    if (p->opt.batch_bytes > p->peer.max_batch)
        p->opt.batch_bytes = p->peer.max_batch;
    /* Two buffers at least: one filled while the other is on its way. */
    if (p->opt.window < 2 * p->opt.batch_bytes)
        p->opt.window = 2 * p->opt.batch_bytes;
    /* Signals are the program's business, not this thread's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = -pthread_create(&p->thread, NULL, pub_thread, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc < 0)
        return embar_fail(err, rc, "A publisher's thread cannot be started");
    return 0;
}

int embar_publisher_open(struct embar_publisher **pub, struct embar_client *client,
                         const char *topic, const struct embar_publisher_options *opt,
                         struct embar_error *err)
{
    static const struct embar_publisher_options defaults = EMBAR_PUBLISHER_OPTIONS;
    *pub = NULL;
    struct embar_publisher_options o = opt ? *opt : defaults;
    size_t length;
    int rc = client_check_path(topic, &length, err);
    if (rc == 0)
        rc = check_options(&o, err);
    if (rc < 0)
        return rc;
    struct embar_publisher *p = calloc(1, sizeof(*p));
    if (!p)
        return embar_fail(err, -ENOMEM, "No memory for a publisher");
    static atomic_uint_fast64_t publishers; /* so far: it only has to differ each time */
    p->id = 1 + atomic_fetch_add_explicit(&publishers, 1, memory_order_relaxed);
    p->epoll = p->wake = -1;
    p->opt = o;
    p->has_session = o.session != EMBAR_SESSION_NONE && o.ack != 0; /* the topic's ack may be 0 */
    atomic_init(&p->cancel, false);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->room, &monotonic);
    pthread_cond_init(&p->idle, &monotonic);
    pthread_cond_init(&p->free_again, &monotonic);
    pthread_condattr_destroy(&monotonic);
    p->client = client_ref(client);
    p->outage.client = p->client;
    p->topic = strdup(topic);
    p->topic_length = length;
    p->conns = calloc(o.connections, sizeof(*p->conns));
    p->connections = p->conns ? o.connections : 0;
    for (unsigned i = 0; i < p->connections; i++) {
        p->conns[i].pub = p;
        p->conns[i].fd = -1;
    }
    rc = p->topic && p->conns ? publisher_start(p, err)
                              : embar_fail(err, -ENOMEM, "No memory for a publisher");
    if (rc < 0) {
        publisher_free(p);
        return rc;
    }
    *pub = p;
    return 0;
}

/* Called by its own I/O thread, that is, from a callback. */
static bool from_callback(const struct embar_publisher *p)
{
    return pthread_equal(pthread_self(), p->thread);
}

int embar_publish(struct embar_publisher *p, const void *data, size_t length, embar_done done,
                  void *arg)
{
    if (from_callback(p))
        return -EDEADLK;
    if (length == 0)
        return -EMBAR_EINVALID; /* it would have no place in the topic's bytes */
    struct pub_lane *l = pub_lane_own(p);
    return l ? pub_lane_append(p, l, data, length, done, arg) : -ENOMEM;
}

int embar_publish_batch(struct embar_publisher *p, const struct iovec *iov, int pieces,
                        const uint32_t *lengths, uint32_t count, embar_done done, void *arg)
{
    if (from_callback(p))
        return -EDEADLK;
    pthread_mutex_lock(&p->lock);
    uint32_t max_batch = p->peer.max_batch, max_messages = p->peer.max_messages;
    int rc = p->failed.code;
    pthread_mutex_unlock(&p->lock);
    if (rc < 0)
        return rc;
    if (count > max_messages)
        return -EMBAR_ETOOBIG;
    if (pieces < 1 || pieces > PUB_MAX_PIECES)
        return -EMBAR_EINVALID;
    /* Copies the lengths before the lock: several threads may. */
    struct embar_error why;
    struct pub_batch *b = pub_foreign(iov, pieces, lengths, count, max_batch, &why);
    if (!b)
        return why.code;
    if (done) {
        b->told = malloc(sizeof(*b->told));
        if (!b->told) {
            pub_batch_free(b);
            return -ENOMEM;
        }
        b->told[0] = (struct pub_told){done, arg};
        b->told_count = b->told_capacity = 1;
    }
    struct pub_lane *l = pub_lane_own(p);
    if (!l) {
        pub_batch_free(b);
        return -ENOMEM;
    }
    pub_lane_hold(l);
    pthread_mutex_lock(&p->lock);
    pub_lane_seal(p, l); /* what this thread began before goes first */
    pub_lane_give(l);
    for (;;) {
        rc = p->failed.code;
        if (rc == 0)
            rc = pub_enqueue(p, b);
        if (rc != -EAGAIN || p->opt.nonblocking)
            break;
        p->hungry = true;
        pub_kick(p);
        pub_wake(p);
        pthread_cond_wait(&p->room, &p->lock);
    }
    pub_kick(p);
    pthread_mutex_unlock(&p->lock);
    if (rc < 0)
        pub_batch_free(b);
    return rc;
}

/* Wait until every batch up to `ticket` is off the live list. Holds the lock. */
static int wait_done(struct embar_publisher *p, uint64_t ticket, int timeout_ms)
{
    uint64_t until = clock_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000000u : 0);
    struct timespec ts = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    while (p->head && p->head->ticket <= ticket) {
        if (timeout_ms < 0)
            pthread_cond_wait(&p->idle, &p->lock);
        else if (pthread_cond_timedwait(&p->idle, &p->lock, &ts) == ETIMEDOUT)
            return p->head && p->head->ticket <= ticket ? -ETIMEDOUT : 0;
    }
    return 0;
}

/* Drops the lock while it waits. */
static int flush_locked(struct embar_publisher *p, int timeout_ms, struct embar_error *err)
{
    pub_kick(p);
    int rc = wait_done(p, p->ticket, timeout_ms);
    if (p->failed.code != 0) {
        if (err)
            *err = p->failed;
        rc = p->failed.code;
    } else if (rc == -ETIMEDOUT) {
        (void)embar_fail(err, rc, "Batches are still on their way after %d ms.", timeout_ms);
    }
    return rc;
}

int embar_flush(struct embar_publisher *p, int timeout_ms, struct embar_error *err)
{
    if (from_callback(p))
        return embar_fail(err, -EDEADLK, "A callback cannot wait for its own publisher.");
    pub_lanes_seal(p);
    pthread_mutex_lock(&p->lock);
    int rc = flush_locked(p, timeout_ms, err);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int embar_publish_wait(struct embar_publisher *p, const void *data, size_t length,
                       struct embar_error *err)
{
    int rc = embar_publish(p, data, length, NULL, NULL);
    if (rc == 0)
        return embar_flush(p, -1, err);
    pthread_mutex_lock(&p->lock);
    struct embar_error failed = p->failed;
    uint32_t max = p->peer.max_batch;
    pthread_mutex_unlock(&p->lock);
    if (rc == -EMBAR_ETOOBIG)
        return embar_fail(err, rc, "A message has at most %u bytes here; this one has %zu.", max,
                          length);
    if (rc == -EMBAR_EINVALID)
        return embar_fail(err, rc, "A message has at least one byte.");
    if (failed.code == 0)
        return embar_fail(err, rc, "The message was not taken");
    if (err)
        *err = failed;
    return rc;
}

void embar_publisher_info(struct embar_publisher *p, struct embar_publisher_info *info)
{
    pub_lanes_info(p, info);
}

/* End the session for good. The I/O thread is gone: a connection may be asked directly. */
static int forget(struct embar_publisher *p, struct embar_error *err)
{
    struct pub_conn *c = NULL;
    for (unsigned i = 0; i < p->connections; i++) {
        struct pub_conn *it = &p->conns[i];
        if (!c && it->fd >= 0 && it->in_have == 0 && !it->writing)
            c = it;
        else
            pub_conn_close(it);
    }
    if (!c) {
        c = &p->conns[0];
        int rc = pub_conn_open(c, err);
        if (rc < 0)
            return rc;
    }
    struct wire_close body = {.forget = 1};
    struct iovec iov = {&body, sizeof(body)};
    struct link_reply r = {.body = NULL};
    struct link_limit limit = link_within(p->client->timeout_ms, NULL);
    int rc = link_ask(c->fd, WIRE_CLOSE, PUB_CHANNEL, CLOSE_REF, &iov, 1, &r, PUB_IN, &limit, err);
    free(r.body);
    return rc;
}

int embar_publisher_close(struct embar_publisher *p, enum embar_close how, struct embar_error *err)
{
    if (!p)
        return 0;
    if (from_callback(p))
        return embar_fail(err, -EDEADLK, "A callback cannot close its own publisher.");
    int rc = 0;
    if (how != EMBAR_CLOSE_NOW)
        rc = embar_flush(p, -1, err);
    else
        atomic_store_explicit(&p->cancel, true, memory_order_release);
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pub_wake(p);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    if (how == EMBAR_CLOSE_NOW) {
        struct embar_error why;
        (void)embar_fail(&why, -ECANCELED, "The publisher was closed before this was done.");
        bool pending = p->head || pub_lanes_begun(p);
        pub_fail(p, &why);
        if (pending)
            rc = p->failed.code;
        if (rc < 0 && err)
            *err = p->failed;
    } else if (rc == 0 && p->has_session &&
               (how == EMBAR_CLOSE_FORGET || p->opt.session == EMBAR_SESSION_AUTO)) {
        rc = forget(p, how == EMBAR_CLOSE_FORGET ? err : NULL);
        if (how != EMBAR_CLOSE_FORGET)
            rc = 0; /* all is committed; the session ends by its lifetime instead */
    }
    publisher_free(p);
    return rc;
}
