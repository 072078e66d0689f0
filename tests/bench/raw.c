/* Raw connections (raw.h), on libembar's own dialling and handshake. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/client/link.h"
#include "net/wire.h"
#include "tests/bench/raw.h"

#define LIMIT_MS 30000u

int raw_find(const struct daemon *d, struct address *to, struct embar_error *err)
{
    char token[PATH_MAX], server[sizeof(d->server)];
    memcpy(server, d->server, sizeof(server));
    (void)snprintf(token, sizeof(token), "%s", d->token_file ? d->token_file : "");
    if (!d->token_file && *d->mount)
        (void)snprintf(token, sizeof(token), "%s/.embar/token", d->mount);
    struct address_source from = {.server = server, .mounts = "/proc/self/mounts"};
    if (*token)
        from.token_file = token;
    return address_find(&from, to, err);
}

int raw_connect(const struct address *to, struct embar_error *err)
{
    struct link_limit limit = link_within(LIMIT_MS, NULL);
    struct link_peer peer;
    int fd = -1;
    int rc = link_dial(to, &limit, &fd, err);
    if (rc == 0)
        rc = link_hello(fd, to, NULL, &peer, &limit, err);
    if (rc && fd >= 0)
        (void)close(fd);
    return rc ? rc : fd;
}

int raw_open(int fd, const char *topic, struct embar_error *err)
{
    struct link_limit limit = link_within(LIMIT_MS, NULL);
    struct link_reply reply = {0};
    struct wire_open o = {.mode = WIRE_S_NONE,
                          .order = WIRE_ANY,
                          .ack = 1,
                          .create = 1,
                          .path = le16_of((uint16_t)strlen(topic))};
    struct iovec body[2] = {{&o, sizeof(o)}, {(void *)(uintptr_t)topic, strlen(topic)}};
    int rc = link_ask(fd, WIRE_OPEN, 1, 1, body, 2, &reply, 4096, &limit, err);
    free(reply.body);
    return rc;
}

void raw_head(uint8_t head[RAW_HEAD], uint64_t sequence, uint32_t n, uint32_t crc)
{
    struct wire_frame f = wire_frame_of(WIRE_PUBLISH, WIRE_F_EQUAL, 1, sequence,
                                        (uint32_t)sizeof(struct wire_publish) + n);
    struct wire_publish p = {.sequence = le64_of(sequence),
                             .count = le32_of(1),
                             .payload = le32_of(n),
                             .payload_crc = le32_of(crc)};
    p.crc = le32_of(wire_publish_crc(&f, &p));
    memcpy(head, &f, sizeof(f));
    memcpy(head + sizeof(f), &p, sizeof(p));
}

ssize_t raw_write(int fd, const struct iovec *iov, int pieces)
{
    return link_write(fd, iov, pieces, 0);
}

void raw_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int heard(struct raw_acks *a, struct embar_error *err)
{
    struct wire_frame f;
    struct wire_ack ack;
    memcpy(&f, a->part, sizeof(f));
    if (f.type != WIRE_ACK || le32_get(f.length) != sizeof(ack))
        return embar_fail(err, -EMBAR_EPROTO, "a frame of type %u came for an ACK", f.type);
    memcpy(&ack, a->part + sizeof(f), sizeof(ack));
    a->acked = le64_get(ack.sequence);
    return 0;
}

int raw_hear(int fd, struct raw_acks *a, struct embar_error *err)
{
    const unsigned whole = sizeof(struct wire_frame) + sizeof(struct wire_ack);
    for (;;) {
        ssize_t n = recv(fd, a->part + a->fill, whole - a->fill, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return embar_fail(err, n < 0 ? -errno : -EPIPE, "a raw connection");
        a->fill += (unsigned)n;
        if (a->fill < whole)
            continue;
        a->fill = 0;
        int rc = heard(a, err);
        if (rc)
            return rc;
    }
}
