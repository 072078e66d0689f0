/* Dialling, handshake and whole frames, waiting within a limit. Serves steps 1 and 9 from the
 * client's side. Must never raise SIGPIPE, never trust a length before its bound was checked.
 */
#include "net/client/link.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLICE_MS    50        /* how late a cancel may be seen */
#define ASK_PIECES  4         /* iovecs of a request's body */
#define UNIX_BUFFER (4 << 20) /* a Unix socket's buffer is not grown by the kernel */
#define DEAD_PEER   20000     /* ms of unanswered TCP data until the kernel gives up */

uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct link_limit link_within(unsigned timeout_ms, const atomic_bool *cancel)
{
    return (struct link_limit){.deadline = clock_ns() + (uint64_t)timeout_ms * 1000000u,
                               .cancel = cancel};
}

/* The milliseconds until `at`, where that is sooner than ms (-1: never, as 0 of `at` is). */
static int sooner(int ms, uint64_t now, uint64_t at)
{
    if (at == 0)
        return ms;
    uint64_t left = at > now ? (at - now + 999999u) / 1000000u : 0;
    if (ms >= 0 && left >= (uint64_t)ms)
        return ms;
    return left > 60000 ? 60000 : (int)left;
}

/* Wait for the socket. 0, -ETIMEDOUT, -ECANCELED, -errno. */
static int wait_ready(int fd, short events, const struct link_limit *limit)
{
    uint64_t slow_at = limit->slow_at;
    for (;;) {
        if (limit->cancel && atomic_load_explicit(limit->cancel, memory_order_acquire))
            return -ECANCELED;
        int ms = limit->cancel ? SLICE_MS : -1;
        uint64_t now = clock_ns();
        if (slow_at && now >= slow_at) {
            slow_at = 0;
            limit->slow(limit->slow_arg);
        }
        if (limit->deadline && now >= limit->deadline)
            return -ETIMEDOUT;
        ms = sooner(ms, now, slow_at);
        ms = sooner(ms, now, limit->deadline);
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, ms);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

static int dial_one(int family, const struct sockaddr *sa, socklen_t length,
                    const struct link_limit *limit, int *out)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int rc = connect(fd, sa, length) == 0 ? 0 : -errno;
    if (rc == -EAGAIN)
        rc = -ECONNREFUSED; /* a Unix socket whose backlog is full: try again later */
    if (rc == -EINPROGRESS || rc == -EINTR) {
        rc = wait_ready(fd, POLLOUT, limit);
        int so = 0;
        socklen_t n = sizeof(so);
        if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &so, &n) == 0)
            rc = -so;
    }
    if (rc < 0) {
        close(fd);
        return rc;
    }
    /* Hints: a kernel that refuses them is only slower. */
    int one = 1, buffer = UNIX_BUFFER, dead = DEAD_PEER;
    if (family == AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    } else {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof(dead));
    }
    *out = fd;
    return 0;
}

int link_dial(const struct address *to, const struct link_limit *limit, int *fd,
              struct embar_error *err)
{
    int rc;
    if (to->local) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        memcpy(un.sun_path, to->path, sizeof(un.sun_path));
        rc = dial_one(AF_UNIX, (struct sockaddr *)&un, sizeof(un), limit, fd);
        if (rc == -ENOENT)
            rc = -ECONNREFUSED; /* the daemon makes it anew when it starts */
    } else {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
        int gai = getaddrinfo(to->host, to->port, &hints, &list);
        if (gai != 0)
            return embar_fail(err, -EMBAR_ESPEC, "The host \"%s\" cannot be found: %s.", to->host,
                              gai_strerror(gai));
        rc = -ECONNREFUSED;
        for (struct addrinfo *a = list; a; a = a->ai_next) {
            rc = dial_one(a->ai_family, a->ai_addr, a->ai_addrlen, limit, fd);
            if (rc == 0 || rc == -ECANCELED || rc == -ETIMEDOUT)
                break;
        }
        freeaddrinfo(list);
    }
    if (rc == -ECONNREFUSED)
        return embar_fail(err, rc,
                          "No broker answers at %s: start embarfs, or name the right one with -s.",
                          to->name);
    if (rc < 0)
        return embar_fail(err, rc, "Connecting to %s failed", to->name);
    return 0;
}

ssize_t link_write(int fd, const struct iovec *iov, int pieces, int flags)
{
    union {
        const struct iovec *in;
        struct iovec *out;
    } u = {.in = iov}; /* sendmsg does not write to it */
    struct msghdr m = {.msg_iov = u.out, .msg_iovlen = (size_t)pieces};
    for (;;) {
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT | flags);
        if (n >= 0)
            return n;
        if (errno != EINTR)
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
}

static int lost(int rc, struct embar_error *err)
{
    if (rc == -ETIMEDOUT)
        return embar_fail(err, rc,
                          "The broker did not answer in time: it may be stopped or overloaded; try "
                          "again.");
    if (rc == -ECANCELED)
        return embar_fail(err, rc, "The wait for the broker was ended by closing the handle.");
    return embar_fail(err, rc, "The connection to the broker broke (%s).", strerror(-rc));
}

int link_send(int fd, struct iovec *iov, int pieces, const struct link_limit *limit,
              struct embar_error *err)
{
    while (pieces > 0) {
        ssize_t n = link_write(fd, iov, pieces, 0);
        if (n == -EAGAIN) {
            int rc = wait_ready(fd, POLLOUT, limit);
            if (rc < 0)
                return lost(rc, err);
            continue;
        }
        if (n < 0)
            return lost((int)n, err);
        size_t done = (size_t)n;
        while (pieces > 0 && done >= iov->iov_len) {
            done -= iov->iov_len;
            iov++;
            pieces--;
        }
        if (pieces > 0) {
            iov->iov_base = (char *)iov->iov_base + done;
            iov->iov_len -= done;
        }
    }
    return 0;
}

static int receive_all(int fd, void *buf, size_t n, const struct link_limit *limit)
{
    unsigned char *to = buf;
    while (n > 0) {
        ssize_t got = recv(fd, to, n, MSG_DONTWAIT);
        if (got == 0)
            return -ECONNRESET;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                return -errno;
            int rc = wait_ready(fd, POLLIN, limit);
            if (rc < 0)
                return rc;
            continue;
        }
        to += got;
        n -= (size_t)got;
    }
    return 0;
}

int link_receive(int fd, struct link_reply *r, size_t max, const struct link_limit *limit,
                 struct embar_error *err)
{
    int rc = receive_all(fd, &r->frame, sizeof(r->frame), limit);
    if (rc < 0)
        return lost(rc, err);
    size_t n = le32_get(r->frame.length);
    if (n > max)
        return embar_fail(err, -EMBAR_EPROTO,
                          "The broker announced a frame of %zu bytes where at most %zu can stand.",
                          n, max);
    if (n > r->capacity) {
        unsigned char *body = realloc(r->body, n);
        if (!body)
            return embar_fail(err, -ENOMEM, "No memory for an answer of %zu bytes", n);
        r->body = body;
        r->capacity = n;
    }
    r->length = n;
    rc = receive_all(fd, r->body, n, limit);
    return rc < 0 ? lost(rc, err) : 0;
}

void link_name(struct embar_error *err, const char *name)
{
    enum { LONGEST = 160 }; /* a path may have 1,024 bytes: its end tells most */
    size_t n = strlen(name);
    if (!err || n == 0)
        return;
    struct embar_error why = *err;
    size_t end = strlen(why.text);
    const char *from = n > LONGEST ? name + n - LONGEST : name;
    while (from > name && ((unsigned char)*from & 0xc0) == 0x80)
        from++; /* whole characters */
    (void)embar_fail(err, why.code, "%s%s: %.*s.", from > name ? "..." : "", from,
                     (int)(end > 0 && why.text[end - 1] == '.' ? end - 1 : end), why.text);
}

int link_refusal(const void *body, size_t length, struct wire_error *detail,
                 struct embar_error *err)
{
    struct wire_error e = {0};
    if (length < sizeof(e))
        return embar_fail(err, -EMBAR_EPROTO, "The broker sent an error frame that is too short.");
    memcpy(&e, body, sizeof(e));
    if (detail)
        *detail = e;
    uint32_t code = le32_get(e.code);
    size_t n = le16_get(e.text);
    if (n > length - sizeof(e) || code == 0 || code > 65535)
        return embar_fail(err, -EMBAR_EPROTO, "The broker sent an error frame out of bounds.");
    if (n == 0)
        return embar_fail(err, -(int)code, "The broker refused it");
    const char *text = (const char *)body + sizeof(e);
    return embar_fail(err, -(int)code, "%.*s.", (int)(text[n - 1] == '.' ? n - 1 : n), text);
}

int link_ask(int fd, enum wire_type type, uint16_t channel, uint64_t ref, const struct iovec *body,
             int pieces, struct link_reply *r, size_t max, const struct link_limit *limit,
             struct embar_error *err)
{
    struct wire_frame head;
    struct iovec iov[1 + ASK_PIECES] = {{&head, sizeof(head)}};
    size_t total = 0;
    if (pieces > ASK_PIECES)
        abort(); /* a caller of ours */
    for (int i = 0; i < pieces; i++) {
        iov[1 + i] = body[i];
        total += body[i].iov_len;
    }
    head = wire_frame_of(type, 0, channel, ref, (uint32_t)total);
    int rc = link_send(fd, iov, 1 + pieces, limit, err);
    /* A server that refuses the connection answers before it reads: its reason is worth more than
     * our broken pipe. */
    if (rc == -ETIMEDOUT || rc == -ECANCELED)
        return rc;
    int sent = rc;
    struct embar_error late;
    for (;;) {
        rc = link_receive(fd, r, max, limit, sent < 0 ? &late : err);
        if (rc < 0)
            return sent < 0 ? sent : rc;
        uint64_t got = le64_get(r->frame.ref);
        if (r->frame.type == WIRE_ERROR && (got == ref || got == 0))
            return link_refusal(r->body, r->length, NULL, err);
        if (got == ref)
            return 0;
    }
}

int link_hello(int fd, const struct address *to, const struct link_peer *known,
               struct link_peer *peer, const struct link_limit *limit, struct embar_error *err)
{
    struct address at = *to; /* with what only the connection tells */
    struct sockaddr_storage sa;
    socklen_t length = sizeof(sa);
    if (getpeername(fd, (struct sockaddr *)&sa, &length) == 0)
        address_reached(&at, (struct sockaddr *)&sa);
    struct wire_hello h = {
        .magic = le32_of(WIRE_MAGIC),
        .version = le16_of(WIRE_VERSION),
        .oldest = le16_of(WIRE_VERSION),
        .token = le32_of((uint32_t)at.token_length),
    };
    if (known) {
        h.incarnation = le64_of(known->incarnation);
        memcpy(h.uuid, known->uuid, sizeof(h.uuid));
    }
    struct iovec body[2] = {{&h, sizeof(h)}, {at.token, at.token_length}};
    struct link_reply r = {.body = NULL};
    int rc = link_ask(fd, WIRE_HELLO, 0, 1, body, 2, &r, WIRE_MAX_ASK, limit, err);
    struct wire_welcome w;
    if (rc == 0 && (r.frame.type != WIRE_HELLO || r.length < sizeof(w))) {
        rc = embar_fail(err, -EMBAR_EPROTO, "What answers at %s is not an embarfs broker.",
                        to->name);
    } else if (rc == 0) {
        memcpy(&w, r.body, sizeof(w));
        peer->max_batch = le32_get(w.max_batch);
        peer->max_messages = le32_get(w.max_messages);
        peer->window = le32_get(w.window);
        peer->durable_machine = le32_get(w.durability) != 0;
        peer->incarnation = le64_get(w.incarnation);
        memcpy(peer->uuid, w.uuid, sizeof(w.uuid));
        if (le32_get(w.magic) != WIRE_MAGIC || peer->max_batch == 0 || peer->max_messages == 0 ||
            peer->window == 0)
            rc = embar_fail(err, -EMBAR_EPROTO, "What answers at %s is not an embarfs broker.",
                            to->name);
        else if (le16_get(w.version) != WIRE_VERSION)
            rc = embar_fail(err, -EMBAR_EVERSION, "The broker at %s speaks protocol version %u",
                            to->name, le16_get(w.version));
    }
    if (rc == -EMBAR_EAUTH && at.token_length == 0 && !at.local)
        rc = embar_fail(err, rc,
                        "The broker at %s wants a token and none was found: give --token-file, or "
                        "its mount point or socket instead of its TCP address.",
                        to->name);
    else if (rc == -EMBAR_EAUTH && *at.gone)
        rc = embar_fail(err, rc,
                        "The broker at %s does not accept the token that was found for it: %s was "
                        "left by a daemon that was killed, and another one listens there now. "
                        "Give --token-file, or its mount point or socket instead of its TCP "
                        "address.",
                        to->name, at.gone);
    if (rc == 0 && known &&
        (known->incarnation != peer->incarnation ||
         memcmp(known->uuid, peer->uuid, sizeof(peer->uuid)) != 0))
        rc = embar_fail(err, -EMBAR_EINCARNATION,
                        "The broker at %s serves another pool than before, or it was restored: "
                        "positions and sessions of the former one mean nothing there.",
                        to->name);
    free(r.body);
    return rc;
}

bool link_transient(int code)
{
    switch (-code) {
    case EMBAR_EAUTH: /* the restarted daemon's token may not stand in its file yet */
    case EMBAR_ENOSERVER:
    case EMBAR_ESHUTDOWN:
    case EMBAR_ELIMIT:
    case EMBAR_EBUSY:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case ENETRESET:
    case EPIPE:
    case ENOTCONN:
    case EAGAIN: return true;
    default: return false;
    }
}
