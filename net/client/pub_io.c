/* A publisher's I/O thread: connections up, batches out, acks in, callbacks told, and what happens
 * when a connection breaks, the session is fenced, or all hope is gone. Serves step 9 from the
 * client's side. Must never call a callback with the lock held.
 */
#include "net/client/publisher.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define MS        1000000ull  /* ns */
#define STEADY    (5000 * MS) /* a connection that stood this long begins a new outage */
#define EVENTS    (PUB_MAX_CONNECTIONS + 1)
#define FOREVER   UINT64_MAX
#define DRIVE_MAX (64u << 10) /* bytes */

static unsigned up(const struct embar_publisher *p)
{
    return p->info.connected;
}

void pub_tell(struct embar_publisher *p, const struct embar_error *why)
{
    pthread_mutex_lock(&p->lock);
    for (struct pub_batch *b = p->head, *next; b; b = next) {
        if (p->has_session && b->sequence > p->acked_top)
            break;
        if (b->acked && b->pins > 0 && p->info.order == 5)
            break; /* the callbacks' order */
        if (!b->acked || b->writers > 0 || b->pins > 0) {
            next = b->next;
            continue;
        }
        /* It stays on the list meanwhile, so that a flush waits for its callbacks too. */
        pthread_mutex_unlock(&p->lock);
        for (uint32_t i = 0; i < b->told_count; i++)
            b->told[i].done(b->told[i].arg, why);
        pthread_mutex_lock(&p->lock);
        next = b->next;
        pub_recycle(p, b, why == NULL);
        pthread_cond_broadcast(&p->room);
        pthread_cond_broadcast(&p->idle);
    }
    pthread_mutex_unlock(&p->lock);
}

void pub_fail(struct embar_publisher *p, const struct embar_error *why)
{
    pub_tell(p, NULL); /* what was done before is not lost by this */
    pthread_mutex_lock(&p->lock);
    if (p->failed.code == 0)
        p->failed = *why;
    struct embar_error told = p->failed;
    pthread_mutex_unlock(&p->lock);
    pub_lanes_seal(p); /* from here on none is begun */
    for (unsigned i = 0; i < p->connections; i++)
        pub_conn_close(&p->conns[i]);
    pthread_mutex_lock(&p->lock);
    for (struct pub_batch *b = p->head; b; b = b->next)
        b->acked = b->taken = true;
    p->acked_top = p->sequence;
    pthread_mutex_unlock(&p->lock);
    pub_tell(p, &told);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->room);
    pthread_cond_broadcast(&p->idle);
    pthread_mutex_unlock(&p->lock);
}

/* No connection serves, for longer than one is waited for. */
static bool fail_late(struct embar_publisher *p, uint64_t now, const struct embar_error *why)
{
    pthread_mutex_lock(&p->lock);
    if (!p->head && !pub_lanes_begun(p))
        p->down_since = now; /* nobody waits: no deadline runs */
    bool over =
        up(p) == 0 && p->down_since != 0 && now - p->down_since > p->client->reconnect_ms * MS;
    pthread_mutex_unlock(&p->lock);
    if (!over)
        return false;
    struct embar_error last;
    (void)embar_fail(&last, -ETIMEDOUT, "The broker could not be reached again for %u ms. %s",
                     p->client->reconnect_ms, why->text);
    pub_fail(p, &last);
    return true;
}

void pub_lost(struct pub_conn *c, const struct embar_error *why)
{
    struct embar_publisher *p = c->pub;
    struct pub_batch *half = c->writing;
    uint64_t now = clock_ns();
    bool steady = now - c->up_since > STEADY;
    pub_conn_close(c);
    /* Dialled and opened is not yet of use: that is one that was acked on, or stood. */
    if (steady)
        c->backoff_ms = 0;
    c->retry_at = client_retry_at(&c->backoff_ms);
    unsigned unknown = 0;
    pthread_mutex_lock(&p->lock);
    if (up(p) == 0 && (steady || p->down_since == 0))
        p->down_since = now;
    bool none = up(p) == 0;
    for (struct pub_batch *b = p->head; b; b = b->next) {
        if (b->owner != c || b->acked || !b->taken)
            continue;
        if (p->has_session || p->opt.ack == 0 || b == half)
            pub_requeue(p, b);
        else
            unknown++;
    }
    pthread_mutex_unlock(&p->lock);
    if (none) {
        outage_begins(&p->outage);
        outage_lasts(&p->outage, why);
    }
    if (unknown > 0) {
        struct embar_error lost;
        (void)embar_fail(&lost, why->code,
                         "The connection broke with %u batches in flight; without a session it is "
                         "not known whether they were committed. %s",
                         unknown, why->text);
        pub_fail(p, &lost);
    } else if (none) {
        (void)fail_late(p, now, why);
    }
}

static bool bit_of(const struct pub_mark *m, uint64_t i)
{
    return i < 64ull * m->words && (le64_get(m->ahead[i / 64]) >> (i % 64) & 1);
}

/* Above the newest batch that there is no bit. */
static bool bits_end(const struct pub_mark *m, uint64_t newest)
{
    for (uint64_t i = newest - m->sequence; i < 64ull * m->words; i++)
        if (bit_of(m, i))
            return false;
    return true;
}

static void batch_acked(struct embar_publisher *p, struct pub_batch *b)
{
    b->acked = b->taken = true;
    if (p->has_session && b->sequence > p->acked_top)
        p->acked_top = b->sequence;
    p->down_since = 0; /* the next outage is a new one */
}

/* Does the mark cover this batch, or a bit name it? */
static bool is_named(const struct pub_mark *m, const struct pub_batch *b)
{
    return b->sequence <= m->sequence || bit_of(m, b->sequence - m->sequence - 1);
}

static bool is_beyond(const struct pub_mark *m, const struct pub_batch *b)
{
    return b->sequence > m->sequence + 64ull * m->words;
}

/* Why an ACK cannot be: NULL when it can. */
static const char *session_wrong(const struct embar_publisher *p, const struct pub_conn *c,
                                 const struct pub_mark *m)
{
    if (m->sequence > p->sequence || !bits_end(m, p->sequence))
        return "The broker acknowledged what was never sent.";
    uint64_t messages = p->info.messages;
    for (const struct pub_batch *b = p->head; b && !is_beyond(m, b); b = b->next) {
        if (b->sequence <= m->sequence)
            messages += b->sequence > p->committed ? b->count : 0;
        else if (is_named(m, b) && !b->acked && (!b->taken || b->owner != c || c->writing == b))
            return "The broker acknowledged a batch that this connection did not send.";
    }
    /* At order 5 all of these were on the list: what else the session counts is somebody else's. */
    if (p->info.order == 5 && !p->ahead && m->sequence > p->committed && messages != m->messages)
        return "Another publisher sends batches in this session as well: what each of them sent "
               "may "
               "be missing. Give each publisher a session of its own.";
    return NULL;
}

static const char *session_acked(struct embar_publisher *p, const struct pub_conn *c,
                                 const struct pub_mark *m, bool *progress)
{
    p->ahead |= m->words > 0;
    const char *wrong = session_wrong(p, c, m);
    if (wrong)
        return wrong;
    for (struct pub_batch *b = p->head; b && !is_beyond(m, b); b = b->next) {
        if (!is_named(m, b))
            continue;
        *progress |= !b->acked;
        batch_acked(p, b);
    }
    if (m->sequence > p->committed) {
        p->committed = p->info.sequence = m->sequence;
        p->info.messages = m->messages;
    }
    return NULL;
}

static const char *counted_acked(struct embar_publisher *p, struct pub_conn *c,
                                 const struct pub_mark *m, bool *progress)
{
    if (m->sequence > c->sequence || m->words > 0)
        return "The broker acknowledged what was never sent.";
    if (m->sequence > c->acked)
        c->acked = m->sequence;
    for (struct pub_batch *b = p->head; b; b = b->next) {
        if (b->owner != c || !b->taken || b->sequence > m->sequence)
            continue;
        *progress |= !b->acked;
        batch_acked(p, b);
    }
    return NULL;
}

void pub_acked(struct embar_publisher *p, struct pub_conn *c, const struct pub_mark *m)
{
    bool progress = false;
    pthread_mutex_lock(&p->lock);
    const char *wrong =
        p->has_session ? session_acked(p, c, m, &progress) : counted_acked(p, c, m, &progress);
    if (m->end > p->info.end)
        p->info.end = m->end;
    pthread_mutex_unlock(&p->lock);
    if (wrong) {
        struct embar_error why;
        (void)embar_fail(&why, -EMBAR_EPROTO, "%s", wrong);
        pub_fail(p, &why);
        return;
    }
    if (progress) {
        c->backoff_ms = 0;
        p->crc_errors = 0;
        outage_ends(&p->outage);
    }
    pub_tell(p, NULL);
}

/* Who still has something of the old epoch on its way will hear of the fence for it, if it ever gets
 * there: perhaps this is the connection that stands still and made the gap. All of them are dialled
 * anew, so that nothing waits for an outdated frame. */
static void renew_conns(struct embar_publisher *p)
{
    struct embar_error why;
    (void)embar_fail(&why, -EMBAR_EFENCED, NULL);
    for (unsigned i = 0; i < p->connections; i++) {
        struct pub_conn *c = &p->conns[i];
        pthread_mutex_lock(&p->lock);
        bool busy = c->writing != NULL;
        for (struct pub_batch *b = p->head; b && !busy; b = b->next)
            busy = b->owner == c && b->taken && !b->acked;
        pthread_mutex_unlock(&p->lock);
        if (c->fd < 0 || !busy)
            continue;
        pub_lost(c, &why);
        c->retry_at = 0;
    }
}

/* Is everything up to the fence's mark committed? Numbers go on above all that ever was; its messages
 * are those before the first gap. Where the topic's order was not always 5 it may stand above batches
 * that never came, and of those that were told ahead of a gap we do not know the counts any more.
 * Where it was, pub_acked compares. */
static bool fence_is_whole(const struct embar_publisher *p, uint64_t sequence, uint64_t messages)
{
    uint64_t count = p->info.messages;
    if (p->info.order == 5 && !p->ahead)
        return true;
    for (const struct pub_batch *b = p->head; b && b->sequence <= sequence; b = b->next)
        count += b->sequence > p->committed ? b->count : 0;
    return p->acked_top <= p->committed && count == messages;
}

void pub_fenced(struct embar_publisher *p, uint32_t epoch, uint64_t sequence, uint64_t messages)
{
    pthread_mutex_lock(&p->lock);
    /* Every batch that was on its way in the old epoch is refused: the first refusal tells all. */
    bool news = epoch > p->info.epoch, whole = fence_is_whole(p, sequence, messages);
    if (news) {
        p->info.epoch = epoch;
        p->info.fences++;
    }
    pthread_mutex_unlock(&p->lock);
    if (!news)
        return;
    if (!whole) {
        struct embar_error why;
        (void)embar_fail(
            &why, -EMBAR_EFENCED,
            "The session was fenced with batches committed behind a gap, so that it is "
            "not known which are; what was not acknowledged may be missing.");
        pub_fail(p, &why);
        return;
    }
    struct pub_mark m = {.sequence = sequence, .messages = messages};
    pub_acked(p, &p->conns[0], &m);
    renew_conns(p);
    pthread_mutex_lock(&p->lock);
    for (struct pub_batch *b = p->head; b; b = b->next)
        if (!b->acked)
            pub_requeue(p, b);
    pthread_mutex_unlock(&p->lock);
}

void pub_written(struct embar_publisher *p, struct pub_conn *c, bool whole)
{
    struct pub_batch *b = c->writing;
    c->writing = NULL;
    pthread_mutex_lock(&p->lock);
    b->writers--;
    if (whole && p->opt.ack == 0)
        b->acked = true;
    bool tell = b->acked && b->writers == 0;
    pthread_mutex_unlock(&p->lock);
    if (tell && whole)
        pub_tell(p, NULL);
}

/* Bring a connection up when it is time. Returns when to look again. */
static uint64_t redial(struct pub_conn *c, uint64_t now)
{
    struct embar_publisher *p = c->pub;
    if (now < c->retry_at)
        return c->retry_at;
    bool again = c->up_since != 0;
    struct embar_error why = {.code = 0};
    int rc = pub_conn_open(c, &why);
    if (rc == 0) {
        pthread_mutex_lock(&p->lock);
        p->info.reconnects += again;
        pthread_mutex_unlock(&p->lock);
        outage_pauses(&p->outage);
        return now;
    }
    if (rc == -ECANCELED)
        return FOREVER;
    if (!link_transient(rc)) {
        pub_fail(p, &why);
        return FOREVER;
    }
    c->retry_at = client_retry_at(&c->backoff_ms);
    if (fail_late(p, clock_ns(), &why))
        return FOREVER;
    pthread_mutex_lock(&p->lock);
    bool none = up(p) == 0;
    pthread_mutex_unlock(&p->lock);
    if (none)
        outage_lasts(&p->outage, &why);
    return c->retry_at;
}

static int wait_events(int epoll, struct epoll_event *ev, uint64_t now, uint64_t until)
{
    if (until == FOREVER)
        return epoll_wait(epoll, ev, EVENTS, -1);
    uint64_t ns = until > now ? until - now : 0;
    struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    int n = epoll_pwait2(epoll, ev, EVENTS, &ts, NULL);
    if (n < 0 && errno == ENOSYS) {
        uint64_t ms = (ns + MS - 1) / MS;
        n = epoll_wait(epoll, ev, EVENTS, ms > 60000 ? 60000 : (int)ms);
    }
    return n;
}

/* Send on what has waited long enough, and say until when there is nothing to do. */
static uint64_t send_due(struct embar_publisher *p, uint64_t now, bool *stop, bool *dead,
                         uint64_t *ticket)
{
    pthread_mutex_lock(&p->lock);
    uint64_t until = pub_lanes_due(p, now);
    *stop = p->stop;
    *dead = p->failed.code != 0;
    *ticket = p->ticket;
    pthread_mutex_unlock(&p->lock);
    return until;
}

/* ---- A user thread writes ----------------------------------------------------------------- */

/* One small batch and nothing else on its way: to wake the I/O thread would take longer than to write
 * it. Larger ones are that thread's, so that the next is filled meanwhile. */
static bool may_drive(const struct embar_publisher *p)
{
    if (!p->asleep || p->driven || p->opt.ack == 0 || !p->head || p->head != p->tail ||
        p->head->length > DRIVE_MAX)
        return false;
    for (unsigned i = 0; i < p->connections; i++) {
        const struct pub_conn *c = &p->conns[i];
        if (c->fd < 0 || c->blocked || c->writing)
            return false;
    }
    return true;
}

void pub_kick(struct embar_publisher *p)
{
    bool broken = false;
    while (p->sealed && !broken && may_drive(p)) {
        p->sealed = false;
        p->driven = true;
        pthread_mutex_unlock(&p->lock);
        for (unsigned i = 0; i < p->connections && !broken; i++) {
            int rc;
            while ((rc = pub_conn_write(&p->conns[i])) > 0)
                ;
            broken = rc < 0;
        }
        pthread_mutex_lock(&p->lock);
        p->driven = false;
        pthread_cond_signal(&p->free_again);
    }
    if (p->sealed || broken)
        pub_wake(p);
    p->sealed = false;
}

/* ---- The I/O thread ----------------------------------------------------------------------- */

void *pub_thread(void *arg)
{
    struct embar_publisher *p = arg;
    struct epoll_event ev[EVENTS];
    for (;;) {
        uint64_t now = clock_ns();
        bool stop, dead;
        uint64_t ticket, until = send_due(p, now, &stop, &dead, &ticket);
        if (stop)
            return NULL;
        bool busy = false;
        uint64_t told = outage_due(&p->outage);
        until = told < until ? told : until;
        for (unsigned i = 0; i < p->connections; i++) {
            struct pub_conn *c = &p->conns[i];
            if (c->fd >= 0) {
                busy |= pub_conn_pump(c);
            } else if (!dead) {
                uint64_t at = redial(c, now);
                until = at < until ? at : until;
            }
        }
        pthread_mutex_lock(&p->lock);
        /* Batches begun or sealed since send_due: look again before sleeping. */
        uint64_t due = pub_lanes_due(p, now);
        until = due < until ? due : until;
        bool more = p->stop || p->ticket != ticket;
        p->asleep = !busy && !more;
        bool doze = p->asleep;
        pthread_mutex_unlock(&p->lock);
        int n = wait_events(p->epoll, ev, now, doze ? until : now);
        pthread_mutex_lock(&p->lock);
        while (p->driven)
            pthread_cond_wait(&p->free_again, &p->lock);
        p->asleep = false;
        pthread_mutex_unlock(&p->lock);
        for (int i = 0; i < n; i++) {
            struct pub_conn *c = ev[i].data.ptr;
            if (!c) {
                uint64_t count;
                ssize_t got = read(p->wake, &count, sizeof(count));
                (void)got; /* the wake-up is all it says */
                continue;
            }
            c->blocked = false;
            if (c->fd >= 0 && (ev[i].events & ~(uint32_t)EPOLLOUT))
                pub_conn_read(c);
        }
    }
}
