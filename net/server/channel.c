/* Channels: the publishers and subscriptions of a connection, and what they owe it (step 9).
 *
 * What is due on a channel (an ACK, an ERROR, an END, the OK of a CANCEL) is a mark, not a frame: it
 * is put into the out-buffer when that has room, so acks coalesce and a peer that does not read
 * costs nothing more.
 *
 * A channel leaves its connection at once (channel_drop), but its memory stays until no batch under
 * way and no mail on the stack points to it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/server/internal.h"

/* Where `id` stands or would stand. */
static unsigned position(const struct conn *c, uint16_t id)
{
    unsigned low = 0, high = c->channel_count;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (c->channels[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct channel *channel_find(struct conn *c, uint16_t id)
{
    if (c->last_channel < c->channel_count && c->channels[c->last_channel]->id == id)
        return c->channels[c->last_channel];
    unsigned at = position(c, id);
    if (at == c->channel_count || c->channels[at]->id != id)
        return NULL;
    c->last_channel = at;
    return c->channels[at];
}

static int channels_grow(struct conn *c)
{
    if (c->channel_count < c->channel_capacity)
        return 0;
    if (c->channel_count == CONN_CHANNELS)
        return -EMBAR_ELIMIT;
    unsigned capacity = c->channel_capacity ? c->channel_capacity * 2 : 4;
    struct channel **list = realloc(c->channels, capacity * sizeof(struct channel *));
    if (!list)
        return -ENOMEM;
    c->channels = list;
    c->channel_capacity = capacity;
    return 0;
}

struct channel *channel_new(struct conn *c, uint16_t id, enum channel_kind kind, int *rc)
{
    struct worker *w = c->worker;
    struct server *s = w->server;
    *rc = -EMBAR_ELIMIT;
    if (share_take(&s->channels, &c->tenant->channels, 1, SERVER_CHANNELS) != SHARE_TAKEN)
        return NULL;
    *rc = channels_grow(c);
    struct channel *ch = *rc ? NULL : calloc(1, sizeof(*ch));
    if (!ch) {
        if (*rc == 0)
            *rc = -ENOMEM;
        share_give(&s->channels, &c->tenant->channels, 1);
        return NULL;
    }
    unsigned at = position(c, id);
    memmove(c->channels + at + 1, c->channels + at,
            (c->channel_count - at) * sizeof(struct channel *));
    c->channels[at] = ch;
    c->channel_count++;
    ch->conn = c;
    ch->worker = w;
    ch->id = id;
    ch->kind = (uint8_t)kind;
    TAILQ_INIT(&ch->pubs);
    count_add(&w->count.channels, 1);
    if (kind == CHANNEL_SUBSCRIBE)
        count_add(&w->count.subscriptions, 1);
    return ch;
}

void channel_drop(struct channel *ch)
{
    struct conn *c = ch->conn;
    struct worker *w = ch->worker;
    if (!ch->dead) {
        unsigned at = position(c, ch->id);
        c->channel_count--;
        memmove(c->channels + at, c->channels + at + 1,
                (c->channel_count - at) * sizeof(struct channel *));
        if (ch->dirty)
            TAILQ_REMOVE(&c->dirty, ch, dirty_link);
        if (ch->active)
            TAILQ_REMOVE(&c->active, ch, active_link);
        ch->dirty = ch->active = false;
        if (c->mid == ch)
            c->mid = NULL;
        if (ch->watcher.fire)
            topic_unwatch(ch->topic, &ch->watcher); /* from here on nobody pushes its mail */
        ch->dead = true;
        count_sub(&w->count.channels, 1);
        if (ch->kind == CHANNEL_SUBSCRIBE)
            count_sub(&w->count.subscriptions, 1);
        share_give(&w->server->channels, &c->tenant->channels, 1);
    }
    /* Acquire: what the pusher did to the mail is done. */
    if (ch->inflight > 0 || atomic_load_explicit(&ch->queued, memory_order_acquire))
        return; /* whoever brings the last of them calls again */
    topic_put(ch->topic);
    free(ch->ahead);
    free(ch);
}

void channel_dirty(struct channel *ch)
{
    if (ch->dead)
        return;
    if (!ch->dirty) {
        ch->dirty = true;
        TAILQ_INSERT_TAIL(&ch->conn->dirty, ch, dirty_link);
    }
    conn_ready(ch->conn);
}

void channel_error(struct channel *ch, int code, uint64_t ref, uint64_t sequence, const char *text)
{
    if (ch->error_due || (ch->kind == CHANNEL_PUBLISH && ch->broken))
        return; /* the first cause is told */
    ch->broken = true;
    ch->error_due = true;
    ch->error.code = code;
    ch->error.ref = ref;
    ch->error.sequence = sequence;
    snprintf(ch->error.text, sizeof(ch->error.text), "%s", text ? text : embar_strerror(code));
    channel_dirty(ch);
}

static void put_ack(struct channel *ch)
{
    struct {
        struct wire_ack a;
        le64 ahead[WIRE_AHEAD];
    } body;
    unsigned words = ahead_words(ch, body.ahead);
    body.a = (struct wire_ack){.sequence = le64_of(ch->mark),
                               .messages = le64_of(ch->messages),
                               .offset = le64_of(ch->offset),
                               .epoch = le32_of(ch->epoch),
                               .words = le32_of(words)};
    conn_put(ch->conn, WIRE_ACK, ch->id, 0, &body,
             (uint32_t)(sizeof(body.a) + words * sizeof(le64)));
    count_add(&ch->worker->count.acks, 1);
    ch->ack_due = false;
}

static void put_channel_error(struct channel *ch)
{
    struct {
        struct wire_error e;
        char text[sizeof(ch->error.text)];
    } body;
    size_t n = strnlen(ch->error.text, sizeof(body.text));
    body.e = (struct wire_error){.code = le32_of((uint32_t)-ch->error.code),
                                 .epoch = le32_of(ch->error.epoch),
                                 .sequence = le64_of(ch->error.sequence),
                                 .messages = le64_of(ch->error.messages),
                                 .text = le16_of((uint16_t)n)};
    memcpy(body.text, ch->error.text, n);
    conn_put(ch->conn, WIRE_ERROR, ch->id, ch->error.ref, &body, (uint32_t)(sizeof(body.e) + n));
    ch->error_due = false;
}

/* A subscription that has come to its end in one way or another; not in the middle of a frame. */
static void put_last(struct channel *ch)
{
    bool ended = ch->error_due || ch->end_due;
    if (ch->error_due) {
        put_channel_error(ch);
    } else if (ch->end_due) {
        struct wire_end end = {.offset = le64_of(ch->cursor.offset),
                               .message = le64_of(ch->message)};
        conn_put(ch->conn, WIRE_END, ch->id, ch->sub_ref, &end, sizeof(end));
    } else {
        struct wire_ok ok = {.value = le64_of(ch->cursor.offset)};
        conn_put(ch->conn, WIRE_OK, ch->id, ch->cancel_ref, &ok, sizeof(ok));
    }
    if (ch->cancel && ended) {
        struct wire_ok ok = {.value = le64_of(ch->cursor.offset)};
        conn_put(ch->conn, WIRE_OK, ch->id, ch->cancel_ref, &ok, sizeof(ok));
    }
    channel_drop(ch);
}

bool channel_collect(struct conn *c)
{
    bool any = false;
    struct channel *ch;
    while ((ch = TAILQ_FIRST(&c->dirty)) &&
           CONN_OUT - (c->out_to - c->out_from) >= CONN_OUT_KEEP + 512) {
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was dropped is not on the list any more
        ch->dirty = false;
        TAILQ_REMOVE(&c->dirty, ch, dirty_link);
        any = true;
        if (ch->kind == CHANNEL_SUBSCRIBE) {
            if (c->mid != ch)
                put_last(ch); /* else subscribe_send makes it dirty again */
            continue;
        }
        if (ch->ack_due)
            put_ack(ch);
        if (ch->error_due)
            put_channel_error(ch);
    }
    return any;
}
