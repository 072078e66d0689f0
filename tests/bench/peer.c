/* Starting the plain-socket baselines' server, and their clients. The clients send from caller-owned
 * memory, as the subject's do; in `work` each CRCs what it sends, once, as libembar must. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/crc.h"
#include "tests/bench/clock.h"
#include "tests/bench/keeper.h"
#include "tests/bench/peer_server.h"
#include "tests/bench/peer_wire.h"
#include "tests/bench/source.h"

/* Above the 36 MiB last-level cache of common servers with 4 connections: the sender reads memory. */
#define SOURCE_SIZE ((size_t)16 << 20)
#define PIECE       ((size_t)256 << 10)

int io_send(int fd, const void *data, size_t n)
{
    const char *at = data;
    while (n > 0) {
        ssize_t done = send(fd, at, n, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

int io_recv(int fd, void *data, size_t n)
{
    char *at = data;
    while (n > 0) {
        ssize_t done = recv(fd, at, n, 0);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0)
            return -EPIPE;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

int socket_tune(int fd, const struct peer_options *options)
{
    int one = 1;
    if (!options->unix_socket && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        return -errno;
    int size = options->sockbuf;
    if (size > 0 && (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0 ||
                     setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0))
        return -errno;
    return 0;
}

static int listen_on(struct peer *peer)
{
    int family = peer->options.unix_socket ? AF_UNIX : AF_INET;
    if (peer->options.unix_socket) {
        int rc = keeper_make_directory(peer->directory, sizeof(peer->directory), 0);
        if (rc)
            return rc;
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/peer", peer->directory);
        if (n < 0 || (size_t)n >= sizeof(un.sun_path))
            return -ENAMETOOLONG;
        memcpy(&peer->address, &un, sizeof(un));
        peer->address_size = sizeof(un);
    } else {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        memcpy(&peer->address, &in, sizeof(in));
        peer->address_size = sizeof(in);
    }
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* The port is the kernel's choice: ask which. */
    if (bind(fd, (struct sockaddr *)&peer->address, peer->address_size) < 0 ||
        listen(fd, SOMAXCONN) < 0 ||
        (family == AF_INET &&
         getsockname(fd, (struct sockaddr *)&peer->address, &peer->address_size) < 0)) {
        int rc = -errno;
        (void)close(fd);
        return rc;
    }
    return fd;
}

int peer_start(struct peer *peer, const struct peer_options *options, struct embar_error *err)
{
    memset(peer, 0, sizeof(*peer));
    peer->options = *options;
    int listener = listen_on(peer);
    if (listener < 0)
        return embar_fail(err, listener, "listening for the baselines");
    int ready[2];
    if (pipe(ready) < 0) {
        (void)close(listener);
        return embar_fail(err, -errno, "a pipe");
    }
    peer->pid = proc_fork();
    if (peer->pid == 0) {
        (void)close(ready[0]);
        _exit(peer_serve(listener, ready[1], options));
    }
    (void)close(listener);
    (void)close(ready[1]);
    struct peer_started started = {
        .error = {.code = -EPIPE, .text = "The baselines' server died."}};
    if (peer->pid > 0)
        (void)!read(ready[0], &started, sizeof(started));
    (void)close(ready[0]);
    if (peer->pid < 0)
        return embar_fail(err, -errno, "starting the baselines' server");
    if (started.error.code) {
        peer_stop(peer);
        *err = started.error;
        return err->code;
    }
    memcpy(peer->flush, started.flush, sizeof(peer->flush));
    return 0;
}

void peer_stop(struct peer *peer)
{
    if (peer->pid > 0)
        proc_end(peer->pid, 2000);
    peer->pid = 0;
}

int peer_connect(const struct peer_load *load, unsigned slice, unsigned slices, uint64_t bytes,
                 struct embar_error *err)
{
    const struct peer *peer = load->peer;
    int fd = socket(peer->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return embar_fail(err, -errno, "a socket");
    if (load->mode == PEER_SOURCE) { /* all read the same, as subscribers of one topic do */
        slice = 0;
        slices = 1;
    }
    struct peer_hello hello = {.magic = PEER_MAGIC,
                               .mode = load->mode,
                               .slice = slice,
                               .slices = slices,
                               .recv_size = load->recv_size,
                               .message = load->send_size,
                               .bytes = bytes};
    struct peer_reply reply;
    int rc = socket_tune(fd, &peer->options);
    if (rc == 0 && connect(fd, (const struct sockaddr *)&peer->address, peer->address_size) < 0)
        rc = -errno;
    if (rc == 0)
        rc = io_send(fd, &hello, sizeof(hello));
    if (rc == 0)
        rc = io_recv(fd, &reply, sizeof(reply));
    if (rc) {
        (void)close(fd);
        return embar_fail(err, rc, "connecting to the baselines' server");
    }
    return fd;
}

struct stream {
    int fd;
    char *buffer;
    size_t size;
};

static int stream_open(struct load_worker *w)
{
    const struct peer_load *load = w->load->arg;
    struct stream *s = calloc(1, sizeof(*s));
    if (!s)
        return embar_fail(&w->report->error, -ENOMEM, "opening a connection");
    s->size = load->mode == PEER_SOURCE ? load->recv_size : SOURCE_SIZE;
    if (s->size < load->send_size)
        s->size = load->send_size;
    s->buffer =
        source_make(&s->size, load->mode == PEER_SOURCE ? s->size : load->send_size, w->index);
    s->fd = s->buffer
                ? peer_connect(load, w->index, w->load->workers, load->bytes, &w->report->error)
                : embar_fail(&w->report->error, -ENOMEM, "memory to send from");
    if (s->fd < 0) {
        int rc = s->fd;
        source_free(s->buffer, s->size);
        free(s);
        return rc;
    }
    w->own = s;
    return 0;
}

/* The CRC in the cheapest place: of each piece just before it is sent, so that both read it hot. */
static int send_batch(const struct stream *s, enum peer_mode mode, size_t at, size_t n,
                      uint32_t *crc)
{
    if (mode != PEER_WORK)
        return io_send(s->fd, s->buffer + at, n);
    for (size_t done = 0; done < n;) {
        size_t piece = n - done < PIECE ? n - done : PIECE;
        *crc = crc32c_cold(*crc, s->buffer + at + done, piece);
        int rc = io_send(s->fd, s->buffer + at + done, piece);
        if (rc)
            return rc;
        done += piece;
    }
    return 0;
}

static int stream_send(struct load_worker *w, const struct stream *s)
{
    const struct peer_load *load = w->load->arg;
    uint64_t until = load->seconds ? clock_ns() + load->seconds * 1000000000u : 0;
    uint64_t sent = 0;
    uint32_t crc = 0;
    for (size_t at = 0; until ? clock_ns() < until : sent < load->bytes;) {
        size_t n = load->send_size;
        if (!until && n > load->bytes - sent)
            n = (size_t)(load->bytes - sent);
        int rc = send_batch(s, load->mode, at, n, &crc);
        if (rc)
            return embar_fail(&w->report->error, rc, "sending to the baselines' server");
        sent += n;
        at = at + 2 * (size_t)load->send_size > s->size ? 0 : at + load->send_size;
    }
    struct peer_reply reply;
    if (shutdown(s->fd, SHUT_WR) < 0)
        return embar_fail(&w->report->error, -errno, "ending the stream");
    int rc = io_recv(s->fd, &reply, sizeof(reply));
    if (rc)
        return embar_fail(&w->report->error, rc, "waiting for the baselines' server");
    if (reply.bytes != sent || reply.crc != crc)
        return embar_fail(&w->report->error, -EMBAR_ECRC,
                          "The baselines' server received other bytes than were sent.");
    w->report->bytes = reply.bytes;
    return 0;
}

static int stream_receive(struct load_worker *w, const struct stream *s)
{
    const struct peer_load *load = w->load->arg;
    while (w->report->bytes < load->bytes) {
        ssize_t n = recv(s->fd, s->buffer, load->recv_size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return embar_fail(&w->report->error, n < 0 ? -errno : -EPIPE,
                              "receiving from the baselines' server");
        w->report->bytes += (uint64_t)n;
    }
    return 0;
}

static int stream_run(struct load_worker *w)
{
    const struct peer_load *load = w->load->arg;
    return load->mode == PEER_SOURCE ? stream_receive(w, w->own) : stream_send(w, w->own);
}

static void stream_close(struct load_worker *w)
{
    struct stream *s = w->own;
    (void)close(s->fd);
    source_free(s->buffer, s->size);
    free(s);
}

const struct load_ops peer_stream_ops = {
    .open = stream_open, .run = stream_run, .close = stream_close};
