/* A subscription: frames from the socket into one buffer, messages out of it without copies.
 *
 * Serves step 9 for subscribers. One thread at a time; no lock. The buffer holds at most one large
 * frame and a little of the next: a large frame is read exactly to its end, so that little is ever
 * moved. What was received whole before a connection broke is still delivered; then the broker is
 * asked again from the next offset. Must never deliver a byte twice, out of place, or unchecked.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/crc.h"
#include "net/client/client.h"

#define CHANNEL    1u
#define FIRST      (1u << 20) /* bytes of the buffer to begin with */
#define READ_AHEAD (256u << 10)
#define MS         1000000ull /* ns */

struct embar_subscription {
    struct embar_client *client;
    char *topic;
    size_t topic_length;
    struct embar_subscribe_options opt;
    int fd, epoll, timer;
    unsigned char *buf;
    size_t capacity, at, have; /* [at, have) is not yet parsed */
    struct link_peer peer;
    struct embar_error failed; /* code 0: alive */
    bool ended;                /* the broker said END, or the limit is reached */
    uint64_t retry_at;
    uint64_t wake; /* what the timer is set to; UINT64_MAX: nothing */
    struct outage outage;
    struct embar_error lost; /* why the last connection broke */
    unsigned backoff_ms;
    struct embar_sub_info info; /* offset, message: what the next frame must begin with */
    uint64_t received;          /* messages in whole frames so far */

    /* The batch that is being handed out. */
    const unsigned char *payload, *lengths; /* lengths: le32, maybe unaligned; NULL: all equal */
    uint32_t count, next, each;
    size_t left;
    uint64_t offset, message, time;
    uint32_t *aligned; /* lengths in host order for embar_next_batch */
    uint32_t aligned_capacity;
};

static void drop_connection(struct embar_subscription *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->at = s->have = 0;
}

void embar_unsubscribe(struct embar_subscription *s)
{
    if (!s)
        return;
    drop_connection(s);
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->timer >= 0)
        close(s->timer);
    client_put(s->client);
    free(s->aligned);
    free(s->buf);
    free(s->topic);
    free(s);
}

/* Connect and SUBSCRIBE: the first time as asked, later from the next offset. */
static int attach(struct embar_subscription *s, bool again, struct embar_error *err)
{
    int fd;
    int rc = client_dial(s->client, NULL, &s->outage, &fd, &s->peer, err);
    if (rc < 0)
        return rc;
    struct wire_subscribe w = {
        .value = le64_of(again ? s->info.offset : s->opt.value),
        .limit = le64_of(s->opt.limit ? s->opt.limit - s->received : 0),
        .from = again ? WIRE_FROM_OFFSET : (uint8_t)s->opt.from,
        .follow = s->opt.follow,
        .path = le16_of((uint16_t)s->topic_length),
    };
    struct iovec body[2] = {{&w, sizeof(w)}, {s->topic, s->topic_length}};
    struct link_reply r = {.body = NULL};
    struct link_limit limit = client_limit(s->client, NULL, &s->outage);
    struct wire_subscribed d;
    rc = link_ask(fd, WIRE_SUBSCRIBE, CHANNEL, 2, body, 2, &r, WIRE_MAX_ASK, &limit, err);
    if ((rc == -EINVAL || rc == -EMBAR_EINVALID) && !again)
        (void)embar_fail(err, rc, "%s %llu is beyond the end of %s.",
                         s->opt.from == EMBAR_MESSAGE ? "Message" : "Offset",
                         (unsigned long long)s->opt.value, s->topic);
    else if (rc < 0 && r.frame.type == WIRE_ERROR)
        link_name(err, s->topic);
    if (rc == 0 && (r.frame.type != WIRE_SUBSCRIBE || r.length < sizeof(d)))
        rc = embar_fail(err, -EMBAR_EPROTO, "The broker did not answer a SUBSCRIBE as such.");
    if (rc == 0) {
        memcpy(&d, r.body, sizeof(d));
        uint64_t offset = le64_get(d.offset), message = le64_get(d.message);
        if (again && (offset != s->info.offset || message != s->info.message))
            rc = embar_fail(err, -EMBAR_EINCARNATION,
                            "After the connection broke the topic %s does not go on where it "
                            "stood: it was removed and made again, or its pool was replaced.",
                            s->topic);
        s->info.offset = offset;
        s->info.message = message;
        s->info.base = le64_get(d.base);
        s->info.end = le64_get(d.end);
    }
    free(r.body);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP};
    if (rc == 0 && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
        rc = embar_fail(err, -errno, "A subscription cannot be watched");
    if (rc < 0) {
        close(fd);
        return rc;
    }
    s->fd = fd;
    return 0;
}

int embar_subscribe(struct embar_subscription **sub, struct embar_client *client, const char *topic,
                    const struct embar_subscribe_options *opt, struct embar_error *err)
{
    static const struct embar_subscribe_options defaults;
    *sub = NULL;
    size_t length;
    int rc = client_check_path(topic, &length, err);
    if (rc < 0)
        return rc;
    struct embar_subscription *s = calloc(1, sizeof(*s));
    if (!s)
        return embar_fail(err, -ENOMEM, "No memory for a subscription");
    s->client = client_ref(client);
    s->outage.client = s->client;
    s->opt = opt ? *opt : defaults;
    s->wake = UINT64_MAX;
    s->fd = -1;
    s->topic = strdup(topic);
    s->topic_length = length;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN};
    if (s->epoll < 0 || s->timer < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->timer, &ev) < 0)
        rc = embar_fail(err, -errno, "A subscription cannot be set up");
    s->buf = malloc(FIRST);
    s->capacity = FIRST;
    if (rc == 0 && (!s->topic || !s->buf))
        rc = embar_fail(err, -ENOMEM, "No memory for a subscription");
    if (rc == 0)
        rc = attach(s, false, err);
    if (rc < 0) {
        embar_unsubscribe(s);
        return rc;
    }
    *sub = s;
    return 0;
}

static int end_with(struct embar_subscription *s, const struct embar_error *why,
                    struct embar_error *err)
{
    s->failed = *why;
    drop_connection(s);
    if (err)
        *err = *why;
    return why->code;
}

/* ---- Reconnecting ------------------------------------------------------------------------- */

/* Let the poll descriptor say when it is so late; UINT64_MAX: never. */
static void wake_at(struct embar_subscription *s, uint64_t ns)
{
    struct itimerspec at = {.it_value = {0, 0}};
    if (ns != UINT64_MAX)
        at.it_value = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    (void)timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &at, NULL);
    s->wake = ns;
}

/* The connection broke: try again at retry_at. */
static void lose(struct embar_subscription *s, const struct embar_error *why)
{
    uint64_t before = s->outage.since;
    drop_connection(s);
    outage_begins(&s->outage);
    if (s->outage.since != before)
        s->backoff_ms = 0; /* nothing may have come for long, but the connection stood */
    outage_lasts(&s->outage, why);
    s->lost = *why;
    s->retry_at = client_retry_at(&s->backoff_ms);
    wake_at(s, s->retry_at);
}

/* There has been no connection of use for too long: how it ends; else 0. */
static int give_up(struct embar_subscription *s, struct embar_error *err)
{
    struct embar_error last;
    if (clock_ns() - s->outage.since <= s->client->reconnect_ms * MS)
        return 0;
    (void)embar_fail(&last, -ETIMEDOUT, "The broker could not be reached again for %u ms. %s",
                     s->client->reconnect_ms, s->lost.text);
    return end_with(s, &last, err);
}

static int reattach(struct embar_subscription *s, struct embar_error *err)
{
    struct embar_error why;
    wake_at(s, UINT64_MAX);
    int rc = attach(s, true, &why);
    if (rc == 0) {
        s->info.reconnects++;
        outage_pauses(&s->outage);
        wake_at(s, outage_due(&s->outage));
        return 0;
    }
    if (!link_transient(rc))
        return end_with(s, &why, err);
    lose(s, &why);
    return give_up(s, err);
}

/* ---- Receiving ---------------------------------------------------------------------------- */

/* Room for `need` bytes at s->at, moving what is there to the front when it does not fit. */
static int make_room(struct embar_subscription *s, size_t need, struct embar_error *err)
{
    if (s->at == s->have)
        s->at = s->have = 0;
    if (need <= s->capacity - s->at)
        return 0;
    if (s->at > 0) {
        memmove(s->buf, s->buf + s->at, s->have - s->at);
        s->have -= s->at;
        s->at = 0;
    }
    if (need > s->capacity) {
        size_t size = need + READ_AHEAD;
        unsigned char *more = realloc(s->buf, size);
        if (!more)
            return embar_fail(err, -ENOMEM, "No memory for a batch of %zu bytes", need);
        s->buf = more;
        s->capacity = size;
    }
    return 0;
}

/* One recv. Bytes; 0: nothing there now; -errno: the connection broke. */
static ssize_t receive_some(struct embar_subscription *s, size_t missing)
{
    size_t room = s->capacity - s->have;
    size_t want = missing > READ_AHEAD ? missing : READ_AHEAD;
    for (;;) {
        ssize_t n = recv(s->fd, s->buf + s->have, want < room ? want : room, MSG_DONTWAIT);
        if (n > 0) {
            s->have += (size_t)n;
            return n;
        }
        if (n == 0)
            return -ECONNRESET;
        if (errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    }
}

static int take_data(struct embar_subscription *s, const struct wire_frame *f,
                     const unsigned char *body, size_t length, struct embar_error *err)
{
    struct wire_data d;
    if (length < sizeof(d))
        return embar_fail(err, -EMBAR_EPROTO, "The broker sent a DATA frame that is too short.");
    memcpy(&d, body, sizeof(d));
    if (wire_data_check(f, &d, s->peer.max_batch, s->peer.max_messages) < 0)
        return embar_fail(err, -EMBAR_EPROTO, "The broker sent a DATA frame out of bounds.");
    uint32_t count = le32_get(d.count), payload = le32_get(d.payload);
    size_t lengths = f->flags & WIRE_F_EQUAL ? 0 : (size_t)count * sizeof(le32);
    const unsigned char *at = body + sizeof(d);
    uint64_t sum = 0;
    for (size_t i = 0; i < lengths; i += sizeof(le32)) {
        le32 one;
        memcpy(&one, at + i, sizeof(one));
        sum += le32_get(one);
    }
    if (lengths > 0 && sum != payload)
        return embar_fail(err, -EMBAR_EPROTO,
                          "The broker sent a DATA frame whose message lengths do not add up.");
    if (le64_get(d.offset) != s->info.offset || le64_get(d.message) != s->info.message)
        return embar_fail(err, -EMBAR_EPROTO,
                          "The broker skipped from offset %llu to %llu of %s: refusing to go on.",
                          (unsigned long long)s->info.offset,
                          (unsigned long long)le64_get(d.offset), s->topic);
    if (d.whole && crc32c(0, at + lengths, payload) != le32_get(d.crc))
        return embar_fail(err, -EMBAR_ECRC, "The batch at offset %llu of %s",
                          (unsigned long long)s->info.offset, s->topic);
    s->lengths = lengths ? at : NULL;
    s->payload = at + lengths;
    s->each = payload / count;
    s->count = count;
    s->next = 0;
    s->left = payload;
    s->offset = s->info.offset;
    s->message = s->info.message;
    s->time = le64_get(d.time);
    s->info.offset += payload;
    s->info.message += count;
    s->received += count;
    s->backoff_ms = 0;
    outage_ends(&s->outage);
    return 1;
}

/* A whole frame. 1: a batch is ready; 0: look on; else how the subscription ends. */
static int take_frame(struct embar_subscription *s, const struct wire_frame *f,
                      const unsigned char *body, size_t length, struct embar_error *err)
{
    switch (f->type) {
    case WIRE_DATA: return take_data(s, f, body, length, err);
    case WIRE_END: s->ended = true; return 0;
    case WIRE_ERROR: {
        int rc = link_refusal(body, length, NULL, err);
        if (!link_transient(rc))
            return rc;
        lose(s, err);
        return 0;
    }
    default:
        return embar_fail(err, -EMBAR_EPROTO, "The broker sent a frame that does not belong here.");
    }
}

/* Parse or receive until a batch is ready (1), nothing is there now (0), or the end by failure. */
static int advance(struct embar_subscription *s, struct embar_error *why)
{
    size_t max = sizeof(struct wire_data) + s->peer.max_messages * sizeof(le32) + s->peer.max_batch;
    while (s->fd >= 0 && !s->ended) {
        struct wire_frame f;
        size_t have = s->have - s->at, need = sizeof(f);
        if (have >= sizeof(f)) {
            memcpy(&f, s->buf + s->at, sizeof(f));
            size_t n = le32_get(f.length);
            if (n > max)
                return embar_fail(why, -EMBAR_EPROTO, "The broker announced a frame of %zu bytes.",
                                  n);
            need += n;
            if (have >= need) {
                const unsigned char *body = s->buf + s->at + sizeof(f);
                s->at += need;
                int rc = take_frame(s, &f, body, n, why);
                if (rc != 0)
                    return rc;
                continue;
            }
        }
        int rc = make_room(s, need, why);
        if (rc < 0)
            return rc;
        ssize_t n = receive_some(s, need - have);
        if (n == 0)
            return 0;
        if (n < 0) {
            (void)embar_fail(why, (int)n, "The connection to the broker broke (%s).",
                             strerror((int)-n));
            lose(s, why);
        }
    }
    return 0;
}

static int milliseconds(uint64_t ns)
{
    uint64_t ms = (ns + MS - 1) / MS;
    return ms > 60000 ? 60000 : (int)ms;
}

/* Make sure that a message is at hand. As embar_next. */
static int ready(struct embar_subscription *s, int timeout_ms, struct embar_error *err)
{
    uint64_t until = timeout_ms > 0 ? clock_ns() + (unsigned)timeout_ms * MS : 0;
    for (;;) {
        if (s->next < s->count)
            return 1;
        if (s->failed.code != 0) {
            if (err)
                *err = s->failed;
            return s->failed.code;
        }
        if (s->ended || (s->opt.limit && s->received >= s->opt.limit)) {
            s->ended = true;
            return 0;
        }
        uint64_t now = clock_ns();
        if (s->fd < 0 && now >= s->retry_at) {
            int rc = reattach(s, err);
            if (rc < 0)
                return rc;
            now = clock_ns();
        }
        if (s->fd >= 0 && now >= s->wake)
            wake_at(s, outage_due(&s->outage));
        struct embar_error why;
        int rc = advance(s, &why);
        if (rc < 0)
            return end_with(s, &why, err);
        if (rc > 0 || s->ended || (s->fd < 0 && now >= s->retry_at))
            continue;
        /* Also where it is reached each time and breaks at once, many times over: whoever does not ask for long
         * has not tried meanwhile. */
        if (s->fd < 0 && s->backoff_ms == CLIENT_BACKOFF_MAX) {
            rc = give_up(s, err);
            if (rc < 0)
                return rc;
        }
        if (timeout_ms == 0 || (timeout_ms > 0 && now >= until))
            return embar_fail(err, -ETIMEDOUT, "No message came in time.");
        int ms = timeout_ms > 0 ? milliseconds(until - now) : -1;
        if (s->wake != UINT64_MAX) {
            int wait = milliseconds(s->wake > now ? s->wake - now : 0);
            ms = ms < 0 || wait < ms ? wait : ms;
        }
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, s->fd >= 0, ms) < 0)
            return embar_fail(err, -errno, "The wait for messages was interrupted");
    }
}

/* ---- Handing out -------------------------------------------------------------------------- */

static uint32_t length_at(const struct embar_subscription *s, uint32_t i)
{
    le32 one;
    if (!s->lengths)
        return s->each;
    memcpy(&one, s->lengths + i * sizeof(one), sizeof(one));
    return le32_get(one);
}

int embar_next(struct embar_subscription *s, struct embar_message *msg, int timeout_ms,
               struct embar_error *err)
{
    int rc = ready(s, timeout_ms, err);
    if (rc <= 0)
        return rc;
    uint32_t n = length_at(s, s->next);
    *msg = (struct embar_message){s->payload, n, s->offset, s->message, s->time};
    s->payload += n;
    s->left -= n;
    s->offset += n;
    s->message++;
    s->next++;
    return 1;
}

int embar_next_batch(struct embar_subscription *s, struct embar_batch *batch, int timeout_ms,
                     struct embar_error *err)
{
    int rc = ready(s, timeout_ms, err);
    if (rc <= 0)
        return rc;
    uint32_t count = s->count - s->next;
    if (s->lengths) {
        if (count > s->aligned_capacity) {
            uint32_t *more = realloc(s->aligned, count * sizeof(*more));
            if (!more)
                return embar_fail(err, -ENOMEM, "No memory for the lengths of %u messages", count);
            s->aligned = more;
            s->aligned_capacity = count;
        }
        for (uint32_t i = 0; i < count; i++)
            s->aligned[i] = length_at(s, s->next + i);
    }
    *batch = (struct embar_batch){
        s->payload, s->left, s->lengths ? s->aligned : NULL, count, s->offset, s->message, s->time};
    s->payload += s->left;
    s->offset += s->left;
    s->message += count;
    s->left = 0;
    s->next = s->count;
    return 1;
}

int embar_sub_fd(const struct embar_subscription *s)
{
    return s->epoll;
}

void embar_sub_info(const struct embar_subscription *s, struct embar_sub_info *info)
{
    *info = s->info;
    if (s->next < s->count) {
        info->offset = s->offset;
        info->message = s->message;
    }
}
