/* One connection of a publisher: opening it, taking in acks and errors; pub_send.c writes to it. Serves
 * steps 1 and 9 from the client's side. Only the connections' owner comes here (and the opening thread
 * before there is one). Must never trust a length before its bound was checked.
 */
#include "net/client/publisher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define OPEN_REF    2u
#define CRC_RETRIES 4u

/* Is it the session (or none) that was asked for? */
static bool session_as_asked(const struct embar_publisher *p, bool first,
                             const struct wire_opened *o)
{
    uint64_t session = le64_get(o->session);
    if (!first)
        return session == p->info.session;
    switch (p->opt.session) {
    case EMBAR_SESSION_AUTO: return (session != 0) == (o->ack != 0);
    case EMBAR_SESSION_NEW: return session != 0;
    case EMBAR_SESSION_RESUME: return session == p->opt.session_id;
    case EMBAR_SESSION_NONE: break;
    }
    return session == 0;
}

static int take_opened(struct pub_conn *c, const struct link_reply *r, bool first,
                       struct embar_error *err)
{
    struct embar_publisher *p = c->pub;
    struct wire_opened o;
    if (r->frame.type != WIRE_OPEN || r->length < sizeof(o))
        return embar_fail(err, -EMBAR_EPROTO, "The broker did not answer an OPEN as such.");
    memcpy(&o, r->body, sizeof(o));
    uint32_t epoch = le32_get(o.epoch);
    struct pub_mark m = {
        .sequence = le64_get(o.sequence), .messages = le64_get(o.messages), .end = le64_get(o.end)};
    pthread_mutex_lock(&p->lock);
    bool asked = session_as_asked(p, first, &o);
    p->info.order = o.order;
    p->info.ack = o.ack;
    if (m.end > p->info.end)
        p->info.end = m.end;
    uint64_t committed = p->committed;
    if (first && asked) {
        p->opt.ack = o.ack; /* what was left to the topic is settled */
        p->has_session = le64_get(o.session) != 0;
        p->info.session = le64_get(o.session);
    }
    if (first && p->has_session) {
        p->info.epoch = epoch;
        p->info.sequence = p->sequence = p->committed = m.sequence;
        p->info.messages = p->info.resumed = m.messages;
    }
    uint32_t known = p->info.epoch;
    pthread_mutex_unlock(&p->lock);
    if (!asked)
        return embar_fail(err, -EMBAR_EPROTO, "The broker opened another session than asked for.");
    if (first || !p->has_session)
        return 0;
    if (m.sequence < committed)
        return embar_fail(err, -EMBAR_ESESSION,
                          "The broker's session stands at batch %llu where it had acknowledged "
                          "%llu: its pool lost data.",
                          (unsigned long long)m.sequence, (unsigned long long)committed);
    if (epoch != known)
        pub_fenced(p, epoch, m.sequence, m.messages);
    else
        pub_acked(p, c, &m);
    pthread_mutex_lock(&p->lock);
    struct embar_error failed = p->failed;
    pthread_mutex_unlock(&p->lock);
    if (failed.code != 0)
        *err = failed;
    return failed.code;
}

/* OPEN on a connection just dialled. -EMBAR_EFENCED with the session's epoch in *epoch. */
static int open_channel(struct pub_conn *c, int fd, bool first, uint32_t *epoch,
                        struct embar_error *err)
{
    struct embar_publisher *p = c->pub;
    bool resume = p->has_session && (!first || p->opt.session == EMBAR_SESSION_RESUME);
    pthread_mutex_lock(&p->lock);
    uint64_t session = first ? p->opt.session_id : p->info.session;
    pthread_mutex_unlock(&p->lock);
    struct wire_open o = {
        .session = le64_of(resume ? session : 0),
        .epoch = le32_of(resume ? *epoch : 0),
        .mode = resume                                 ? WIRE_S_RESUME
                : !p->has_session                      ? WIRE_S_NONE
                : p->opt.session == EMBAR_SESSION_AUTO ? WIRE_S_AUTO
                                                       : WIRE_S_NEW,
        .order = p->opt.order == EMBAR_ANY ? (uint8_t)WIRE_ANY : (uint8_t)p->opt.order,
        .ack = p->opt.ack == EMBAR_ANY ? (uint8_t)WIRE_ANY : (uint8_t)p->opt.ack,
        .create = first && !p->opt.no_create,
        .path = le16_of((uint16_t)p->topic_length),
    };
    struct iovec body[2] = {{&o, sizeof(o)}, {p->topic, p->topic_length}};
    struct link_reply r = {.body = NULL};
    struct link_limit limit = client_limit(p->client, &p->cancel, &p->outage);
    int rc = link_ask(fd, WIRE_OPEN, PUB_CHANNEL, OPEN_REF, body, 2, &r, PUB_IN, &limit, err);
    struct wire_error detail;
    if (rc == 0) {
        rc = take_opened(c, &r, first, err);
    } else if (rc == -EMBAR_EFENCED && r.length >= sizeof(detail)) {
        memcpy(&detail, r.body, sizeof(detail));
        if (le32_get(detail.epoch) < *epoch)
            rc = embar_fail(err, -EMBAR_ESESSION,
                            "The broker's session stands in epoch %u where it had told %u: its "
                            "pool lost data.",
                            le32_get(detail.epoch), *epoch);
        *epoch = le32_get(detail.epoch);
    }
    if (rc < 0 && r.frame.type == WIRE_ERROR && le16_get(r.frame.channel) != 0)
        link_name(err, p->topic);
    free(r.body);
    return rc;
}

int pub_conn_open(struct pub_conn *c, struct embar_error *err)
{
    struct embar_publisher *p = c->pub;
    struct link_peer peer;
    int fd;
    int rc = client_dial(p->client, &p->cancel, &p->outage, &fd, &peer, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&p->lock);
    bool first = p->peer.max_batch == 0;
    uint32_t epoch = p->info.epoch;
    pthread_mutex_unlock(&p->lock);
    rc = open_channel(c, fd, first, &epoch, err);
    if (rc == -EMBAR_EFENCED)
        rc = open_channel(c, fd, first, &epoch, err);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (rc == 0 && epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
        rc = embar_fail(err, -errno, "A connection cannot be watched");
    if (rc < 0) {
        close(fd);
        return rc;
    }
    c->fd = fd;
    c->blocked = false;
    c->writing = NULL;
    c->in_have = 0;
    c->sequence = c->acked = 0;
    c->up_since = clock_ns();
    pub_zero_open(c);
    pthread_mutex_lock(&p->lock);
    p->peer = peer;
    p->info.max_batch = peer.max_batch;
    p->info.max_messages = peer.max_messages;
    p->info.connected++;
    pthread_mutex_unlock(&p->lock);
    return 0;
}

void pub_conn_close(struct pub_conn *c)
{
    if (c->fd < 0)
        return;
    pub_zero_close(c);
    close(c->fd);
    c->fd = -1;
    if (c->writing)
        pub_written(c->pub, c, false);
    pthread_mutex_lock(&c->pub->lock);
    c->pub->info.connected--;
    pthread_mutex_unlock(&c->pub->lock);
}

/* Damaged on its way: sent again, but not for ever, for the caller may have changed its bytes. */
static bool damaged(struct embar_publisher *p, const struct wire_frame *f,
                    const struct embar_error *why)
{
    return why->code == -EMBAR_ECRC && le16_get(f->channel) == 0 && ++p->crc_errors < CRC_RETRIES;
}

/* One whole frame. False: the connection is closed now. */
static bool take_frame(struct pub_conn *c, const struct wire_frame *f, const unsigned char *body,
                       size_t length)
{
    struct embar_publisher *p = c->pub;
    struct embar_error why;
    struct wire_error detail;
    struct wire_ack a;
    switch (f->type) {
    case WIRE_ACK:
        if (length < sizeof(a))
            break;
        memcpy(&a, body, sizeof(a));
        if (wire_ack_check(&a, length) < 0)
            break;
        struct pub_mark m = {.sequence = le64_get(a.sequence),
                             .messages = le64_get(a.messages),
                             .end = le64_get(a.offset),
                             .words = le32_get(a.words)};
        memcpy(m.ahead, body + sizeof(a), length - sizeof(a));
        pub_acked(p, c, &m);
        return c->fd >= 0;
    case WIRE_ERROR:
        (void)link_refusal(body, length, &detail, &why);
        if (why.code == -EMBAR_EFENCED) {
            pub_fenced(p, le32_get(detail.epoch), le64_get(detail.sequence),
                       le64_get(detail.messages));
            pub_lost(c, &why); /* the channel is broken: RESUME in the new epoch */
            c->retry_at = 0;
        } else if (link_transient(why.code) || damaged(p, f, &why)) {
            pub_lost(c, &why);
        } else {
            pub_fail(p, &why);
        }
        return false;
    case WIRE_OK: return true;
    default: break;
    }
    (void)embar_fail(&why, -EMBAR_EPROTO, "The broker sent a frame that does not belong here.");
    pub_fail(p, &why);
    return false;
}

/* The whole frames in the buffer. False: the connection is closed now. */
static bool take_frames(struct pub_conn *c)
{
    size_t at = 0;
    struct wire_frame f;
    while (c->in_have - at >= sizeof(f)) {
        memcpy(&f, c->in + at, sizeof(f));
        size_t n = le32_get(f.length);
        if (n > PUB_IN - sizeof(f)) {
            struct embar_error why;
            (void)embar_fail(&why, -EMBAR_EPROTO, "The broker sent a frame of %zu bytes here.", n);
            pub_fail(c->pub, &why);
            return false;
        }
        if (c->in_have - at < sizeof(f) + n)
            break;
        if (!take_frame(c, &f, c->in + at + sizeof(f), n))
            return false;
        at += sizeof(f) + n;
    }
    c->in_have -= at;
    memmove(c->in, c->in + at, c->in_have);
    return true;
}

void pub_conn_read(struct pub_conn *c)
{
    pub_zero_read(c);
    while (c->fd >= 0) {
        ssize_t n = recv(c->fd, c->in + c->in_have, PUB_IN - c->in_have, MSG_DONTWAIT);
        if (n > 0) {
            c->in_have += (size_t)n;
            if (!take_frames(c))
                return;
            continue;
        }
        int code = n == 0 ? -ECONNRESET : -errno;
        if (code == -EINTR)
            continue;
        if (code == -EAGAIN)
            return;
        struct embar_error why;
        (void)embar_fail(&why, code, "The broker closed the connection.");
        pub_lost(c, &why);
    }
}
