/* The server of the plain-socket baselines: a process with one thread a connection. Must do nothing
 * between two receives that the mode does not name: it is what others are compared with.
 *
 * Threads: main accepts; each connection's thread owns its socket and its slice of the memory. The
 * process ends by signal (its parent's end, or peer_stop).
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/crc.h"
#include "core/region.h"
#include "tests/bench/peer_server.h"
#include "tests/bench/peer_wire.h"

static struct region region;

struct slice {
    char *base;
    size_t size, at;
};

static struct slice slice_of(const struct peer_hello *hello)
{
    size_t each = region.size / hello->slices & ~(size_t)4095;
    return (struct slice){region.base + each * hello->slice, each, 0};
}

/* The whole baseline: receive into the next bytes of the slice, round and round. */
static int receive(int fd, const struct peer_hello *hello, struct peer_reply *reply)
{
    struct slice s = slice_of(hello);
    for (;;) {
        size_t room = s.size - s.at;
        ssize_t n = recv(fd, s.base + s.at, room < hello->recv_size ? room : hello->recv_size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        if (hello->mode == PEER_WORK) {
            reply->crc = crc32c(reply->crc, s.base + s.at, (size_t)n);
            flush_writeback(&region.flush, s.base + s.at, (size_t)n);
        }
        reply->bytes += (uint64_t)n;
        s.at += (size_t)n;
        if (s.at == s.size)
            s.at = 0;
    }
    if (hello->mode == PEER_WORK)
        flush_drain(&region.flush);
    return io_send(fd, reply, sizeof(*reply));
}

static int send_source(int fd, const struct peer_hello *hello)
{
    struct slice s = slice_of(hello);
    for (uint64_t left = hello->bytes; left > 0;) {
        size_t n = s.size - s.at;
        n = n < hello->recv_size ? n : hello->recv_size;
        n = n < left ? n : (size_t)left;
        int rc = io_send(fd, s.base + s.at, n);
        if (rc)
            return rc;
        left -= n;
        s.at += n;
        if (s.at == s.size)
            s.at = 0;
    }
    return 0;
}

static int echo(int fd, const struct peer_hello *hello)
{
    char *message = malloc(hello->message);
    int rc = message ? 0 : -ENOMEM;
    while (rc == 0) {
        rc = io_recv(fd, message, hello->message);
        if (rc == 0)
            rc = io_send(fd, message, hello->message);
    }
    free(message);
    return rc;
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    struct peer_hello hello;
    struct peer_reply reply = {0};
    if (io_recv(fd, &hello, sizeof(hello)) == 0 && hello.magic == PEER_MAGIC && hello.slices > 0 &&
        hello.slice < hello.slices && region.size / hello.slices >= 4096 &&
        io_send(fd, &reply, sizeof(reply)) == 0) {
        int rc = 0;
        switch (hello.mode) {
        case PEER_RAW:
        case PEER_WORK: rc = receive(fd, &hello, &reply); break;
        case PEER_SOURCE: rc = send_source(fd, &hello); break;
        case PEER_ECHO: rc = echo(fd, &hello); break;
        default: break;
        }
        (void)rc; /* the client sees the socket close early, and says so */
    }
    (void)close(fd);
    return NULL;
}

int peer_serve(int listener, int ready, const struct peer_options *options)
{
    struct embar_error err = {0};
    char spec[48];
    (void)snprintf(spec, sizeof(spec), "mem:%llu", (unsigned long long)options->memory);
    struct region_options ro = {.spec = spec, .flush = options->flush, .durability = -1};
    struct peer_started started = {0};
    started.error.code = region_open(&region, &ro, &err);
    if (started.error.code == 0) {
        region_prefault(&region, NULL, NULL);
        (void)snprintf(started.flush, sizeof(started.flush), "%s", region.flush.ops->name);
    } else {
        started.error = err;
    }
    if (write(ready, &started, sizeof(started)) != (ssize_t)sizeof(started) || started.error.code)
        return 1;
    (void)close(ready);
    pthread_attr_t attr;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            return 1;
        if (socket_tune(fd, options) != 0) {
            (void)close(fd);
            continue;
        }
        pthread_t id;
        if (pthread_create(&id, &attr, serve, (void *)(intptr_t)fd) != 0)
            (void)close(fd);
    }
}
