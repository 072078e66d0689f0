/* Listeners: TCP sockets of one address, one a worker (SO_REUSEPORT), and one Unix socket that all
 * workers share (EPOLLEXCLUSIVE) (step 1).
 *
 * The kernel spreads TCP connections by hash; with few of them one worker may get several, so a
 * new connection is handed to the worker that has the fewest. SO_REUSEPORT would let a second daemon
 * of the same user take the same port silently: the first socket is bound without it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "net/server/internal.h"

#define BACKLOG      1024
#define ACCEPT_BATCH 64
#define NOTE_EVERY   60 /* seconds */
#define AWAY_READS   4 /* of SCRATCH_SIZE: more than anybody says before an answer to its greeting */

static bool is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24 == 127;
    if (sa->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
    return false;
}

/* "host:port" or "[v6]:port" into a socket address. */
static int resolve(const char *spec, struct sockaddr_storage *sa, socklen_t *length,
                   struct embar_error *err)
{
    char host[256];
    const char *colon = strrchr(spec, ':');
    size_t n = colon ? (size_t)(colon - spec) : 0;
    const char *from = spec;
    if (n >= 2 && spec[0] == '[' && spec[n - 1] == ']') {
        from++;
        n -= 2;
    }
    char *end;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    if (!colon || n == 0 || n >= sizeof(host) || colon[1] < '0' || colon[1] > '9' || *end ||
        port > 65535)
        return embar_fail(err, -EMBAR_ESPEC,
                          "cannot read the address '%s' to listen on; give host:port, as in "
                          "127.0.0.1:9000 or [::1]:9000.",
                          spec);
    memcpy(host, from, n);
    host[n] = '\0';
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc)
        return embar_fail(err, -EMBAR_ESPEC, "cannot find the address '%s' to listen on: %s.", spec,
                          gai_strerror(rc));
    memcpy(sa, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int bind_one(const struct sockaddr *sa, socklen_t length, bool first, bool *tells)
{
    int one = 1, none = 0;
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* What is accepted has these from the listener, without a call each. A peer whose machine is gone is
     * noticed within two minutes: it may have been one that waits, with others behind it. */
    int idle = 60, interval = 10, probes = 5;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    /* [::] is IPv4's addresses too, whatever the system's default: clients take it so (token.c). */
    if (sa->sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &none, sizeof(none));
    *tells = setsockopt(fd, IPPROTO_TCP, TCP_INQ, &one, sizeof(one)) == 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        (!first && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one))) ||
        bind(fd, sa, length) ||
        (first && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)))) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static void address_text(struct server *s, const struct sockaddr_storage *sa)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(s->address, sizeof(s->address), "%s:%u", host, ntohs(in->sin_port));
    } else {
        const struct sockaddr_in6 *in = (const void *)sa;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host));
        snprintf(s->address, sizeof(s->address), "[%s]:%u", host, ntohs(in->sin6_port));
    }
}

int listener_tcp(struct server *s, struct embar_error *err)
{
    struct sockaddr_storage sa = {0};
    socklen_t length = 0;
    int rc = resolve(s->opt.listen, &sa, &length, err);
    if (rc)
        return rc;
    if (!is_loopback((struct sockaddr *)&sa) && !s->opt.insecure)
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s is not a loopback address, and what goes over it would be readable "
                          "to others; listen on 127.0.0.1, or say --insecure to do it anyway.",
                          s->opt.listen);
    /* All are bound before any listens, so that no connection meets a set that still grows. */
    for (unsigned i = 0; i < s->workers; i++) {
        int fd = bind_one((struct sockaddr *)&sa, length, i == 0, &s->tells);
        if (fd < 0)
            return embar_fail(err, fd, "cannot listen on %s", s->opt.listen);
        s->worker[i].listen_fd = fd;
        if (i == 0 && getsockname(fd, (struct sockaddr *)&sa, &length))
            return embar_fail(err, -errno, "cannot listen on %s", s->opt.listen);
    }
    for (unsigned i = 0; i < s->workers; i++)
        if (listen(s->worker[i].listen_fd, BACKLOG)) {
            return embar_fail(err, -errno, "cannot listen on %s", s->opt.listen);
        }
    address_text(s, &sa);
    return 0;
}

/* A socket file that nobody serves is what a killed daemon left. */
static int unlink_stale(const struct sockaddr_un *un, struct embar_error *err)
{
    struct stat st;
    if (lstat(un->sun_path, &st))
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return embar_fail(err, -EEXIST, "%s exists and is not a socket; it is left alone.",
                          un->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return embar_fail(err, -errno, "cannot make a socket");
    int rc = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 ? 0 : errno;
    close(fd);
    if (rc != ECONNREFUSED && rc != ENOENT)
        return embar_fail(err, -EADDRINUSE, "another daemon listens on %s; stop it first.",
                          un->sun_path);
    if (unlink(un->sun_path) && errno != ENOENT)
        return embar_fail(err, -errno, "cannot remove the stale socket %s", un->sun_path);
    return 0;
}

int listener_unix(struct server *s, struct embar_error *err)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = strlen(s->opt.unix_path);
    if (n == 0 || n >= sizeof(un.sun_path))
        return embar_fail(err, -EMBAR_ESPEC,
                          "the socket path '%s' is not 1 to %zu bytes long; give a shorter one.",
                          s->opt.unix_path, sizeof(un.sun_path) - 1);
    memcpy(un.sun_path, s->opt.unix_path, n);
    int rc = unlink_stale(&un, err);
    if (rc)
        return rc;
    s->unix_path = strdup(s->opt.unix_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct stat st;
    /* Anyone may connect: the kernel says who it is, and the topics' modes rule. */
    if (!s->unix_path || fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) ||
        chmod(un.sun_path, 0666) || listen(fd, BACKLOG) || lstat(un.sun_path, &st)) {
        rc = s->unix_path ? -errno : -ENOMEM;
        if (fd >= 0)
            close(fd);
        return embar_fail(err, rc, "cannot listen on %s", s->opt.unix_path);
    }
    s->unix_fd = fd;
    s->unix_dev = st.st_dev;
    s->unix_ino = st.st_ino;
    return 0;
}

void listener_close(struct server *s)
{
    struct stat st;
    for (unsigned i = 0; i < s->workers; i++) {
        if (s->worker[i].listen_fd >= 0)
            close(s->worker[i].listen_fd);
        s->worker[i].listen_fd = -1;
    }
    if (s->unix_fd >= 0) {
        close(s->unix_fd);
        /* Unless somebody put another one there since. */
        if (lstat(s->unix_path, &st) == 0 && st.st_dev == s->unix_dev && st.st_ino == s->unix_ino)
            unlink(s->unix_path);
    }
    s->unix_fd = -1;
    free(s->unix_path);
    s->unix_path = NULL;
}

void listener_arm(struct worker *w, bool on)
{
    struct server *s = w->server;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &w->listen_fd};
    struct epoll_event un = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &s->unix_fd};
    int op = on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL;
    if (w->listeners_off == !on)
        return;
    w->listeners_off = !on;
    if (w->listen_fd >= 0 && epoll_ctl(w->epoll_fd, op, w->listen_fd, &ev))
        w->listeners_off = true;
    if (s->unix_fd >= 0 && epoll_ctl(w->epoll_fd, op, s->unix_fd, &un))
        w->listeners_off = true;
    if (w->listeners_off && !w->stopping)
        worker_timer(w);
}

/* Open channels first: a client keeps an idle connection beside its publishers', and counting that
 * would put two publishers on one worker and none on another. Then connections, also those that
 * are on their way there. */
static uint64_t load_of(struct worker *w)
{
    return atomic_load_explicit(&w->count.channels, memory_order_relaxed) << 32 |
           atomic_load_explicit(&w->placed, memory_order_relaxed);
}

static struct worker *least_loaded(struct worker *w)
{
    struct worker *best = w;
    uint64_t least = load_of(w);
    for (unsigned i = 0; i < w->server->workers; i++) {
        struct worker *other = &w->server->worker[i];
        uint64_t n = load_of(other);
        if (n < least) {
            best = other;
            least = n;
        }
    }
    return best;
}

static void turn_away(struct worker *w, int fd, const char *why)
{
    struct {
        struct wire_frame f;
        struct wire_error e;
        char text[256];
    } m;
    uint16_t length = (uint16_t)strnlen(why, sizeof(m.text));
    m.f = wire_frame_of(WIRE_ERROR, 0, 0, 0, (uint32_t)sizeof(m.e) + length);
    m.e = (struct wire_error){.code = le32_of(EMBAR_ELIMIT), .text = le16_of(length)};
    memcpy(m.text, why, length);
    ssize_t n = send(fd, &m, sizeof(m.f) + sizeof(m.e) + length, MSG_NOSIGNAL | MSG_DONTWAIT);
    /* A courtesy; and what it has said already would reset the connection, and take the answer with it.
     * Who goes on talking does not keep the others on this worker waiting. */
    shutdown(fd, SHUT_WR);
    for (unsigned i = 0; n > 0 && i < AWAY_READS; i++)
        n = recv(fd, w->scratch, SCRATCH_SIZE, MSG_DONTWAIT);
    count_add(&w->count.refused, 1);
    close(fd);
}

static void admit(struct worker *w, int fd, bool local)
{
    struct server *s = w->server;
    const char *why = "the broker has no memory for another connection; try again later";
    struct conn *c = conn_new(s, fd, local);
    if (!c) {
        turn_away(w, fd, why);
        return;
    }
    if (local) {
        struct ucred cred;
        socklen_t n = sizeof(cred);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0) {
            c->uid = cred.uid;
            c->gid = cred.gid;
        } else {
            c->uid = c->gid = STRANGER; /* nobody in particular: what everyone may */
        }
    }
    c->tells = !local && s->tells;
    if (!conn_join(c, s, local ? c->uid : STRANGER, &why)) {
        conn_free(s, c);
        turn_away(w, fd, why);
        return;
    }
    count_add(&w->count.accepted, 1);
    c->mail.deliver = conn_adopt;
    struct worker *to = least_loaded(w);
    atomic_fetch_add_explicit(&to->placed, 1, memory_order_relaxed);
    if (to == w)
        conn_adopt(w, &c->mail);
    else
        mail_push(&to->box, &c->mail);
}

/* Who waits to be accepted waits on, in the kernel's queue, and is told nothing: so the log is. */
static void put_off(struct worker *w, int code)
{
    struct server *s = w->server;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec + 1,
             last = atomic_load_explicit(&s->put_off_at, memory_order_relaxed);
    count_add(&w->count.put_off, 1);
    if (!s->opt.note || (last && now - last < NOTE_EVERY) ||
        !atomic_compare_exchange_strong_explicit(&s->put_off_at, &last, now, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    char text[300];
    const char *remedy =
        code == EMFILE ? "raise the limit of descriptors (LimitNOFILE= of the unit, ulimit -n of a "
                         "shell), or close clients"
        : code == ENFILE ? "the system has too many files open; close some, or raise fs.file-max"
                         : "the system has no memory for another socket; free some";
    snprintf(text, sizeof(text),
             "new connections wait and are not served (%s; %u are open): %s. This is said once a "
             "minute at most.",
             strerror(code), atomic_load_explicit(&s->connections, memory_order_relaxed), remedy);
    s->opt.note(s->opt.note_arg, text);
}

void listener_accept(struct worker *w, int fd, bool local)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (got >= 0) {
            admit(w, got, local);
            continue;
        }
        int code = errno;
        if (code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM) {
            put_off(w, code);
            listener_arm(w,
                         false); /* the queue would wake us for nothing; see tick and conn_close */
        }
        if (code != EINTR && code != ECONNABORTED)
            return;
    }
}
