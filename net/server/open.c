/* OPEN and CLOSE: publishers, their sessions (steps 2 and 9; DESIGN I4).
 *
 * NEW and RESUME are different requests: a session that is not known is an error, never a silent
 * new one. A session belongs to one topic and is resumed only by the principal that opened it.
 *
 * Who resumes without an epoch is a new process: it goes on behind what is committed with batches
 * cut anew. Batches of the old one may still stand unread in a socket; committed after our answer
 * they would make the new ones look like duplicates. So such a RESUME fences first and is answered
 * when that is committed; further connections then join under the epoch they were told. The old process
 * is never told that epoch: it would number batches of its own like those of the new one, and each
 * would be told that the other's are committed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "net/server/internal.h"

enum { STAGE_SESSION = 10, STAGE_FORGET = 11 }; /* walk.c uses the low ones */

/* The ack in force. A session is asked for to hear what of it was committed. */
static uint8_t ack_of(const struct wire_open *o, const struct node_stat *node)
{
    if (o->ack != WIRE_ANY)
        return o->ack;
    bool session = o->mode == WIRE_S_NEW || o->mode == WIRE_S_RESUME;
    return session && node->ack == 0 ? 1 : node->ack;
}

static void opened(struct conn *c, const struct wire_frame *f, const struct wire_open *o,
                   const struct node_stat *node, const struct session_stat *st)
{
    uint16_t id = le16_get(f->channel);
    int rc;
    struct topic *t = log_topic(c->worker->log, node->id);
    struct channel *ch = t ? channel_new(c, id, CHANNEL_PUBLISH, &rc) : NULL;
    if (!ch) {
        if (t)
            topic_put(t);
        conn_refuse(c, f, t ? rc : -ENOENT, NULL);
        return;
    }
    uint8_t ack = ack_of(o, node);
    ch->topic = t;
    ch->ack = ack;
    ch->order = node->order;
    ch->session = st->id;
    ch->epoch = st->epoch;
    ch->mark = st->sequence;
    ch->messages = st->messages;
    ch->next = 1;
    struct wire_opened r = {.session = le64_of(st->id),
                            .sequence = le64_of(st->sequence),
                            .messages = le64_of(st->messages),
                            .end = le64_of(topic_end(t)),
                            .epoch = le32_of(st->epoch),
                            .topic = le32_of(node->id),
                            .order = node->order,
                            .ack = ack};
    conn_put(c, WIRE_OPEN, id, le64_get(f->ref), &r, sizeof(r));
}

/* EFENCED, with where the session stands. */
static void refuse_fenced(struct conn *c, const struct wire_frame *f, const struct session_stat *st)
{
    const char *text = embar_strerror(-EMBAR_EFENCED);
    struct {
        struct wire_error e;
        char text[256];
    } body;
    size_t n = strnlen(text, sizeof(body.text));
    body.e = (struct wire_error){.code = le32_of(EMBAR_EFENCED),
                                 .epoch = le32_of(st->epoch),
                                 .sequence = le64_of(st->sequence),
                                 .messages = le64_of(st->messages),
                                 .text = le16_of((uint16_t)n)};
    memcpy(body.text, text, n);
    conn_put(c, WIRE_ERROR, le16_get(f->channel), le64_get(f->ref), &body,
             (uint32_t)(sizeof(body.e) + n));
}

/* A control action on a session; open_session goes on when it is committed. */
static enum turn session_ask(struct conn *c, const struct wire_frame *f,
                             enum media_control_kind kind, uint32_t topic, uint64_t session)
{
    struct ask *a;
    int rc = ask_begin(c, STAGE_SESSION, &a);
    if (rc) {
        conn_refuse(c, f, rc, NULL);
        ask_end(c);
        return TURN_NEXT;
    }
    a->control.kind = kind;
    a->control.id = topic;
    a->control.value = session;
    a->control.taken = true;
    a->control.uid = c->uid;
    a->control.gid = c->gid;
    ask_submit(c);
    return TURN_WAIT;
}

static enum turn resume(struct conn *c, const struct wire_frame *f, const struct wire_open *o,
                        const struct node_stat *node)
{
    struct session_stat st;
    int rc = log_session(c->worker->log, le64_get(o->session), &st);
    if (rc)
        conn_refuse(c, f, rc, NULL);
    else if (st.principal != c->uid)
        conn_refuse(c, f, -EMBAR_EAUTH, "only who opened a session may resume it");
    else if (st.topic != node->id)
        conn_refuse(c, f, -EMBAR_ESESSION, "that session belongs to another topic");
    else if (le32_get(o->epoch) == 0)
        return session_ask(c, f, MEDIA_C_FENCE, node->id, st.id);
    else if (le32_get(o->epoch) == st.epoch)
        opened(c, f, o, node, &st);
    else if (log_fenced(le32_get(o->epoch), st.epoch) == -EMBAR_ETAKEN)
        conn_refuse(c, f, -EMBAR_ETAKEN, NULL);
    else
        refuse_fenced(c, f, &st);
    ask_end(c);
    return TURN_NEXT;
}

static int check(const struct conn *c, const struct wire_open *o, const struct node_stat *node,
                 const char **why)
{
    *why = NULL;
    if (S_ISDIR(node->mode))
        return -EISDIR;
    if (!may(c, node, 2))
        return -EACCES;
    if (o->order != WIRE_ANY && o->order != node->order)
        return -EMBAR_EORDER;
    if (ack_of(o, node) > c->worker->server->opt.ack_max) {
        *why = o->ack == WIRE_ANY ? "the topic asks for ack 2 and this broker has no replica: "
                                    "publish with ack 1, or set the topic's own ack to 1"
                                  : NULL;
        return -EMBAR_EACK;
    }
    return 0;
}

/* The topic is there: permissions, then the session. */
static enum turn open_topic(struct conn *c, const struct wire_frame *f, const struct wire_open *o,
                            const struct node_stat *node)
{
    const char *why;
    int rc = check(c, o, node, &why);
    if (rc) {
        conn_refuse(c, f, rc, why);
    } else if (o->mode == WIRE_S_NONE || (o->mode == WIRE_S_AUTO && ack_of(o, node) == 0)) {
        struct session_stat none = {0};
        opened(c, f, o, node, &none);
    } else if (o->mode == WIRE_S_RESUME) {
        return resume(c, f, o, node);
    } else {
        return session_ask(c, f, MEDIA_C_OPEN, node->id, 0);
    }
    ask_end(c);
    return TURN_NEXT;
}

/* The new session or the fence was committed, or refused. */
static enum turn open_session(struct conn *c, const struct wire_frame *f, const struct wire_open *o)
{
    struct commit r = c->ask->result;
    uint32_t topic = c->ask->control.id;
    struct node_stat node;
    struct session_stat st;
    ask_end(c);
    int rc = r.status;
    if (rc == 0)
        rc = log_session(c->worker->log, r.session, &st);
    if (rc == 0)
        rc = log_stat(c->worker->log, topic, &node);
    if (rc)
        conn_refuse(c, f, rc,
                    rc == -EMBAR_ELIMIT
                        ? "too many publishers' sessions are kept here; let some of yours end (a "
                          "clean close forgets an automatic one; idle ones expire), or publish "
                          "with ack 0, which needs none"
                        : NULL);
    else
        opened(c, f, o, &node, &st);
    return TURN_NEXT;
}

enum turn open_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body)
{
    struct wire_open o;
    uint32_t length = le32_get(f->length);
    if (length < sizeof(o)) {
        conn_fail(c, -EMBAR_EPROTO, "an OPEN of the wrong size");
        return TURN_WAIT;
    }
    memcpy(&o, body, sizeof(o));
    if (length != sizeof(o) + le16_get(o.path) || le16_get(f->channel) == 0 ||
        o.mode > WIRE_S_AUTO || o.create > 1 || (o.ack != WIRE_ANY && o.ack > 2) ||
        (o.order != WIRE_ANY && o.order != 0 && o.order != 2 && o.order != 5)) {
        conn_fail(c, -EMBAR_EPROTO, "an OPEN with a field outside its bounds");
        return TURN_WAIT;
    }
    if (channel_find(c, le16_get(f->channel))) {
        conn_fail(c, -EMBAR_EPROTO, "an OPEN of a channel that is in use");
        return TURN_WAIT;
    }
    if (c->ask && c->ask->stage == STAGE_SESSION)
        return open_session(c, f, &o);
    struct server *s = c->worker->server;
    if (o.ack != WIRE_ANY && o.ack > s->opt.ack_max) { /* before the topic is made */
        conn_refuse(c, f, -EMBAR_EACK, NULL);
        return TURN_NEXT;
    }
    struct walked w;
    bool made;
    const char *path = (const char *)body + sizeof(o);
    int rc = le16_get(o.path) == 0 ? -EMBAR_ENAME : 0;
    if (rc == 0 && o.create && s->opt.auto_create && o.mode != WIRE_S_RESUME)
        rc = make_path(c, path, le16_get(o.path),
                       &(struct making){.parents = true, .order = o.order, .ack = WIRE_ANY}, &w,
                       &made);
    else if (rc == 0)
        rc = walk(c, path, le16_get(o.path), &w);
    if (rc == 1)
        return TURN_WAIT;
    if (rc == 0)
        return open_topic(c, f, &o, &w.node);
    ask_end(c);
    conn_refuse(c, f, rc, NULL);
    return TURN_NEXT;
}

enum turn close_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body)
{
    struct wire_close k;
    struct channel *ch = channel_find(c, le16_get(f->channel));
    if (le32_get(f->length) != sizeof(k) || !ch || ch->kind != CHANNEL_PUBLISH) {
        conn_fail(c, -EMBAR_EPROTO, "a CLOSE of a channel that does not publish");
        return TURN_WAIT;
    }
    memcpy(&k, body, sizeof(k));
    if (ch->inflight > 0)
        return TURN_WAIT; /* the last completion makes the connection ready */
    if (ch->ack_due || ch->error_due)
        channel_collect(c);
    if (ch->ack_due || ch->error_due) {
        c->out_full = true;
        return TURN_WAIT; /* what the channel owes comes before the OK */
    }
    int rc = 0;
    if (c->ask) {
        rc = c->ask->result.status == -EMBAR_ESESSION ? 0 : c->ask->result.status;
    } else if (k.forget && ch->session) {
        struct ask *a;
        rc = ask_begin(c, STAGE_FORGET, &a);
        if (rc == 0) {
            a->control.kind = MEDIA_C_CLOSE;
            a->control.value = ch->session;
            ask_submit(c);
            return TURN_WAIT;
        }
    }
    ask_end(c);
    channel_drop(ch);
    if (rc)
        conn_refuse(c, f, rc, NULL);
    else
        conn_ok(c, f, 0);
    return TURN_NEXT;
}
