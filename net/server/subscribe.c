/* SUBSCRIBE: batches from pool memory to the socket, by cursor (step 9).
 *
 * Nothing is copied for a subscriber: each send gathers frame headers (made here), lengths and
 * payload (in the pool), up to GATHER_BATCHES batches. Extents are pinned for the length of that one
 * call. A frame that is sent in part is remembered as a byte count; the next send looks the batch
 * up again, which gives the same bytes, for batches never change. Was it trimmed in between, the
 * frame cannot be finished and the connection is reset.
 *
 * Following: the topic's watcher pushes the channel's mail (once until it is delivered), whose
 * delivery makes the subscription active; it reads until the end and is inactive again. `queued`
 * is cleared before reading, so nothing that is committed later goes unnoticed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "net/server/internal.h"

#define GATHER_BATCHES 16
#define GATHER_BYTES   (512u << 10) /* no further batch is added beyond this */

#define GATHER_IOV 1024 /* what one sendmsg takes */
#define FRAME_IOV  (READ_PIECES + 2)
_Static_assert(GATHER_IOV >= 2 * FRAME_IOV, "more than one batch fits a send");

struct head {
    struct wire_frame f;
    struct wire_data d;
};
_Static_assert(sizeof(struct head) == 64, "a DATA frame's headers");

/* One send's worth; a worker has one. */
struct gather {
    struct batch_view view[GATHER_BATCHES];
    struct batch_cursor after[GATHER_BATCHES];
    struct head head[GATHER_BATCHES];
    uint64_t size[GATHER_BATCHES];
    uint32_t count[GATHER_BATCHES];
    struct iovec iov[GATHER_IOV];
};

struct gather *gather_new(void)
{
    return malloc(sizeof(struct gather));
}

static void activate(struct channel *ch)
{
    if (ch->active || ch->dead)
        return;
    ch->active = true;
    TAILQ_INSERT_TAIL(&ch->conn->active, ch, active_link);
    conn_ready(ch->conn);
}

static void deactivate(struct channel *ch)
{
    if (ch->active)
        TAILQ_REMOVE(&ch->conn->active, ch, active_link);
    ch->active = false;
}

static void deliver(struct worker *w, struct mail *m)
{
    struct channel *ch = container_of(m, struct channel, mail);
    (void)w;
    /* seq_cst with the exchange in fire: what it tells of is read after this. */
    atomic_store_explicit(&ch->queued, false, memory_order_seq_cst);
    if (ch->dead)
        channel_drop(ch);
    else if (!ch->error_due && !ch->end_due && !ch->cancel)
        activate(ch);
}

/* Under the topic's watch lock, on any thread. */
static void fire(struct watcher *self)
{
    struct channel *ch = container_of(self, struct channel, watcher);
    if (!atomic_exchange_explicit(&ch->queued, true, memory_order_seq_cst))
        mail_push(&ch->worker->box, &ch->mail);
}

static int pieces(struct iovec *iov, const struct batch_view *v, uint64_t skip, uint64_t n)
{
    int k = 0;
    for (int i = 0; i < v->data.pieces && n > 0; i++) {
        size_t length = v->data.iov[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        size_t here = length - skip < n ? length - skip : (size_t)n;
        iov[k++] = (struct iovec){(char *)v->data.iov[i].iov_base + skip, here};
        skip = 0;
        n -= here;
    }
    return k;
}

/* Batch i of a send: the frame for its messages from `message` on, at most `limit`. Adds to iov,
 * returns its pieces or an error. */
static int frame(struct channel *ch, struct gather *g, int i, struct iovec *iov, uint64_t message,
                 uint64_t limit)
{
    struct batch_view *v = &g->view[i];
    uint64_t skip = message > v->message ? message - v->message : 0;
    if (skip >= v->count)
        return -EMBAR_ECORRUPT;
    uint32_t from = (uint32_t)skip;
    uint32_t count = v->count - from;
    if (limit && count > limit)
        count = (uint32_t)limit;
    bool whole = from == 0 && count == v->count;
    uint64_t before = 0, bytes = v->length;
    int rc = from == 0 ? 0 : view_bytes(v, 0, from, &before);
    if (rc == 0 && !whole)
        rc = view_bytes(v, from, from + count, &bytes);
    if (rc)
        return rc;
    if (before > v->length || bytes > v->length - before)
        return -EMBAR_ECORRUPT;
    uint32_t lengths = v->lengths ? 4 * count : 0;
    uint64_t body = sizeof(struct wire_data) + lengths + bytes;
    struct head *h = &g->head[i];
    h->f = wire_frame_of(WIRE_DATA, v->lengths ? 0 : WIRE_F_EQUAL, ch->id, ch->sub_ref,
                         (uint32_t)body);
    h->d = (struct wire_data){.offset = le64_of(v->offset + before),
                              .message = le64_of(v->message + from),
                              .time = le64_of(v->time),
                              .count = le32_of(count),
                              .payload = le32_of((uint32_t)bytes),
                              .crc = le32_of(whole ? v->payload_crc : 0),
                              .whole = whole};
    int n = 0;
    iov[n++] = (struct iovec){h, sizeof(*h)};
    if (lengths)
        iov[n++] = (struct iovec){(void *)(uintptr_t)(v->lengths + from), lengths};
    n += pieces(iov + n, v, before, bytes);
    g->size[i] = sizeof(struct wire_frame) + body;
    g->count[i] = count;
    if (count != v->count - from) /* the limit: the end stands inside this batch */
        g->after[i].offset = v->offset + before + bytes;
    return n;
}

/* Look up what comes next: number of batches, with *rc why there are not more (0: the end). */
static int collect(struct channel *ch, struct gather *g, int *iovs, uint64_t *bytes, int *rc)
{
    struct batch_cursor cursor = ch->cursor;
    uint64_t message = ch->message, left = ch->limit;
    int n = 0;
    *iovs = 0;
    *bytes = 0;
    *rc = 1;
    while (n < GATHER_BATCHES && *bytes < GATHER_BYTES && *iovs + FRAME_IOV <= GATHER_IOV &&
           (!ch->limited || left > 0)) {
        *rc = topic_next(ch->topic, &cursor, &g->view[n]);
        if (*rc <= 0)
            break;
        g->after[n] = cursor;
        int k = frame(ch, g, n, g->iov + *iovs, message, ch->limited ? left : 0);
        if (k < 0) {
            read_release(&g->view[n].data);
            *rc = k;
            break;
        }
        *iovs += k;
        *bytes += g->size[n];
        message = le64_get(g->head[n].d.message) + g->count[n];
        if (ch->limited)
            left -= g->count[n];
        n++;
        if (ch->cancel)
            break; /* only the frame that is begun */
    }
    return n;
}

/* Leave out what of the first frame was sent before. Returns the first piece. */
static int skip_sent(struct iovec *iov, int iovs, uint64_t sent)
{
    int i = 0;
    while (i < iovs && sent >= iov[i].iov_len)
        sent -= iov[i++].iov_len;
    if (i < iovs) {
        iov[i].iov_base = (char *)iov[i].iov_base + sent;
        iov[i].iov_len -= sent;
    }
    return i;
}

/* n more bytes are out: move behind the frames that are whole. */
static void account(struct channel *ch, struct gather *g, int frames, uint64_t n)
{
    ch->sent += n;
    for (int i = 0; i < frames && ch->sent >= g->size[i]; i++) {
        ch->sent -= g->size[i];
        ch->cursor = g->after[i];
        ch->message = le64_get(g->head[i].d.message) + g->count[i];
        if (ch->limited)
            ch->limit -= g->count[i];
    }
    ch->conn->mid = ch->sent > 0 ? ch : NULL;
}

/* What is gone is told with what is left. */
static const char *gone_text(struct log *log, int rc, uint32_t id, char *text, size_t size)
{
    struct node_stat st;
    if (rc != -EMBAR_ETRIMMED || log_stat(log, id, &st))
        return NULL;
    snprintf(text, size,
             "that part of the topic was trimmed away: offset %" PRIu64 " (message %" PRIu64
             ") is the oldest that is kept",
             st.base, st.first);
    return text;
}

/* Nothing to send: why? */
static int ended(struct channel *ch, int rc, bool deleted)
{
    if (rc < 0 && ch->sent > 0) {
        conn_close(ch->conn); /* half a frame is out and its rest is gone */
        return -1;
    }
    deactivate(ch);
    if (rc < 0) {
        char text[sizeof(ch->error.text)];
        channel_error(ch, rc, ch->sub_ref, 0,
                      gone_text(ch->worker->log, rc, topic_id(ch->topic), text, sizeof(text)));
    } else if (deleted && ch->follow) {
        channel_error(ch, -EMBAR_EGONE, ch->sub_ref, 0, NULL);
    } else if (!ch->follow || (ch->limited && ch->limit == 0)) {
        ch->end_due = true;
        channel_dirty(ch);
    }
    return 0;
}

int subscribe_send(struct channel *ch, size_t *budget)
{
    struct conn *c = ch->conn;
    struct gather *g = ch->worker->gather;
    bool deleted = topic_deleted(ch->topic); /* before the look for more: nothing follows it */
    int iovs, rc;
    uint64_t bytes;
    int n = collect(ch, g, &iovs, &bytes, &rc);
    if (n == 0)
        return ended(ch, rc > 0 ? 0 : rc, deleted);
    int first = skip_sent(g->iov, iovs, ch->sent);
    ssize_t out = conn_send(c, g->iov + first, iovs - first);
    for (int i = 0; i < n; i++)
        read_release(&g->view[i].data);
    if (out == -EMBAR_EFAULTED)
        return ended(ch, -EMBAR_EFAULTED, deleted);
    if (out < 0)
        return -1;
    if (out > 0)
        account(ch, g, n, (uint64_t)out);
    count_add(&ch->worker->count.bytes_out, (uint64_t)out);
    *budget -= (size_t)out < *budget ? (size_t)out : *budget;
    if (c->mid != ch) {
        if (ch->cancel || ch->error_due) {
            deactivate(ch);
            channel_dirty(ch);
        } else if (ch->limited && ch->limit == 0) {
            return ended(ch, 0, false);
        }
    }
    return c->writable;
}

/* ---- Frames -------------------------------------------------------------------------------- */

/* Offset and number of the message that holds `offset`. */
static int locate(struct topic *t, const struct node_stat *st, uint64_t offset, uint64_t *at,
                  uint64_t *message)
{
    *at = offset;
    *message = st->messages;
    if (offset > st->end)
        return -EMBAR_EINVALID;
    if (offset == st->end)
        return 0;
    struct batch_cursor cursor = {.offset = offset};
    struct batch_view v;
    int rc = topic_next(t, &cursor, &v);
    if (rc <= 0)
        return rc ? rc : -EMBAR_ETRIMMED;
    uint32_t i = 0;
    rc = view_message(&v, offset, &i, at);
    read_release(&v.data);
    *message = v.message + i;
    return rc;
}

static int begin(struct topic *t, const struct node_stat *st, const struct wire_subscribe *s,
                 uint64_t *at, uint64_t *message)
{
    uint64_t value = le64_get(s->value);
    int rc = 0;
    *at = st->end;
    *message = st->messages;
    switch (s->from) {
    case WIRE_FROM_EARLIEST:
        *at = st->base;
        *message = st->first;
        return 0;
    case WIRE_FROM_LATEST: return 0;
    case WIRE_FROM_OFFSET: return locate(t, st, value, at, message);
    case WIRE_FROM_MESSAGE: *message = value; return topic_seek_message(t, value, at);
    case WIRE_FROM_TIME:
        rc = topic_seek_time(t, value, &value);
        if (rc == 0 && value < st->end)
            return locate(t, st, value, at, message);
        return rc; /* nothing that new: the end */
    default: return -EMBAR_EINVALID;
    }
}

static int subscribe(struct conn *c, const struct wire_frame *f, const struct wire_subscribe *s,
                     const struct walked *w)
{
    struct log *log = c->worker->log;
    struct node_stat st;
    if (S_ISDIR(w->node.mode))
        return -EISDIR;
    if (!may(c, &w->node, 4))
        return -EACCES;
    struct topic *t = log_topic(log, w->node.id);
    if (!t)
        return -ENOENT;
    int rc = log_stat(log, w->node.id, &st);
    uint64_t at, message;
    if (rc == 0)
        rc = begin(t, &st, s, &at, &message);
    struct channel *ch = NULL;
    if (rc == 0)
        ch = channel_new(c, le16_get(f->channel), CHANNEL_SUBSCRIBE, &rc);
    if (!ch) {
        topic_put(t);
        return rc;
    }
    ch->topic = t;
    ch->follow = s->follow;
    ch->limit = le64_get(s->limit);
    ch->limited = ch->limit > 0;
    ch->sub_ref = le64_get(f->ref);
    ch->cursor.offset = at;
    ch->message = ch->cursor.message = message;
    ch->mail.deliver = deliver;
    struct wire_subscribed r = {.offset = le64_of(at),
                                .message = le64_of(message),
                                .base = le64_of(st.base),
                                .end = le64_of(st.end),
                                .topic = le32_of(st.id),
                                .incarnation = le64_of(log_pool(log)->incarnation)};
    conn_put(c, WIRE_SUBSCRIBE, ch->id, ch->sub_ref, &r, sizeof(r));
    if (ch->follow) {
        ch->watcher.fire = fire;
        topic_watch(t, &ch->watcher);
    }
    activate(ch); /* what came before the watch is found by looking */
    return 0;
}

enum turn subscribe_frame(struct conn *c, const struct wire_frame *f, const uint8_t *body)
{
    struct wire_subscribe s;
    uint32_t length = le32_get(f->length);
    if (length < sizeof(s)) {
        conn_fail(c, -EMBAR_EPROTO, "a SUBSCRIBE of the wrong size");
        return TURN_WAIT;
    }
    memcpy(&s, body, sizeof(s));
    if (length != sizeof(s) + le16_get(s.path) || le16_get(f->channel) == 0 ||
        s.from > WIRE_FROM_TIME || s.follow > 1) {
        conn_fail(c, -EMBAR_EPROTO, "a SUBSCRIBE with a field outside its bounds");
        return TURN_WAIT;
    }
    if (channel_find(c, le16_get(f->channel))) {
        conn_fail(c, -EMBAR_EPROTO, "a SUBSCRIBE on a channel that is in use");
        return TURN_WAIT;
    }
    struct walked w = {.node.id = LOG_ROOT_ID};
    int rc = le16_get(s.path) == 0 ? -EMBAR_ENAME
                                   : walk(c, (const char *)body + sizeof(s), le16_get(s.path), &w);
    if (rc == 0)
        rc = subscribe(c, f, &s, &w);
    if (rc) {
        char text[160];
        conn_refuse(c, f, rc, gone_text(c->worker->log, rc, w.node.id, text, sizeof(text)));
    }
    return TURN_NEXT;
}

enum turn cancel_frame(struct conn *c, const struct wire_frame *f)
{
    struct channel *ch = channel_find(c, le16_get(f->channel));
    if (le32_get(f->length) != 0 || (ch && ch->kind != CHANNEL_SUBSCRIBE)) {
        conn_fail(c, -EMBAR_EPROTO, "a CANCEL of a channel that does not subscribe");
        return TURN_WAIT;
    }
    if (!ch) {
        conn_ok(c, f, 0); /* it crossed END or ERROR */
        return TURN_NEXT;
    }
    ch->cancel = true;
    ch->cancel_ref = le64_get(f->ref);
    if (c->mid != ch) {
        deactivate(ch);
        channel_dirty(ch);
    }
    return TURN_NEXT;
}
