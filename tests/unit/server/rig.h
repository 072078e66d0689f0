/* A server in this process on a memory pool, and a client made of raw frames: what the tests of the
 * network front end stand on. Every receive has a deadline; failures are cmocka's.
 */
#ifndef TESTS_UNIT_SERVER_RIG_H
#define TESTS_UNIT_SERVER_RIG_H

#include "core/log.h"
#include "net/server/server.h"
#include "net/wire.h"

struct rig {
    struct region region;
    struct log *log;
    struct server *server;
    char dir[200], socket[256], file[256];
    uint8_t token[WIRE_TOKEN];
    /* Set before rig_start. */
    const char *spec; /* NULL: mem:64M */
    unsigned workers; /* 0: 2 */
    unsigned tick_ms; /* of the server: its limits are in ticks. 0: 1 s */
    uint64_t staging; /* 0: the default */
    unsigned hold_ms;
    unsigned sessions;        /* bound of their table; 0: the default */
    uint64_t file_size;       /* a file pool of this size that is durable across machine crashes */
    struct pool_geometry geo; /* zeros: defaults */
    bool no_auto_create;
    void (*note)(void *arg, const char *text); /* arg: the rig */
};

void rig_start(struct rig *r);
void rig_stop(struct rig *r);

/* A frame as received. */
struct got {
    struct wire_frame f;
    uint8_t *body; /* free with got_free */
    uint32_t length;
};
void got_free(struct got *g);

int dial_tcp(const struct rig *r);
int dial_unix(const struct rig *r);
/* Connected and greeted; local: over the Unix socket. */
int peer(const struct rig *r, bool local);

void send_bytes(int fd, const void *p, size_t n);
void send_frame(int fd, enum wire_type type, uint16_t channel, uint64_t ref, const void *body,
                size_t length);
/* The next frame. False at the end of the stream (a reset counts). */
bool receive(int fd, struct got *g);
/* The next frame, which must be of this type; others but ACK fail the test. Frees the ACKs. */
void expect(int fd, enum wire_type type, struct got *g);
/* An ERROR: its code. */
int expect_error(int fd);
/* The server closes: ERROR with channel and ref 0, then the end; its code. */
int expect_refusal(int fd);

size_t hello_bytes(const struct rig *r, uint8_t *out, bool token);
size_t open_bytes(uint8_t *out, const char *path, uint16_t channel, uint8_t mode, uint64_t session,
                  uint8_t ack);
struct wire_opened open_topic(int fd, const char *path, uint16_t channel, uint8_t mode,
                              uint64_t session);
/* RESUME under a known epoch, as a publisher's further connections do. */
struct wire_opened join_session(int fd, const char *path, uint16_t channel, uint64_t session,
                                uint32_t epoch);

/* A batch of n messages in one buffer, as it goes over the wire. lengths NULL: equal parts. */
struct batch_bytes {
    uint8_t *p;
    size_t n;
};
struct batch_bytes batch_make(uint16_t channel, uint64_t sequence, uint32_t epoch, const void *data,
                              uint32_t size, const uint32_t *lengths, uint32_t count);
/* Move the payload's checksum from the header to behind the payload. */
void batch_sum_behind(struct batch_bytes *b);
/* Compute the header's checksum again after fields were changed. */
void batch_seal(struct batch_bytes *b);
void publish(int fd, uint16_t channel, uint64_t sequence, uint32_t epoch, const void *data,
             uint32_t size, const uint32_t *lengths, uint32_t count);
/* Read ACKs of the channel until one covers `sequence`. */
struct wire_ack await_ack(int fd, uint16_t channel, uint64_t sequence);

size_t subscribe_bytes(uint8_t *out, const char *path, uint16_t channel, uint8_t from,
                       uint64_t value, uint64_t limit, uint8_t follow);
struct wire_subscribed subscribe(int fd, const char *path, uint16_t channel, uint8_t from,
                                 uint64_t value, uint64_t limit, uint8_t follow);
/* Append the payload of a DATA frame to *buf (grown), checking order, lengths and checksum. */
struct stream {
    uint8_t *buf;
    size_t size;
    uint64_t offset, message; /* of what comes next */
};
void stream_add(struct stream *s, const struct got *g);
/* The whole topic, by a subscription of its own that stops at the end. */
struct stream read_topic(const struct rig *r, const char *path);

/* ADMIN: code of the answer (0: OK or TEXT, which `text` gets when not NULL). */
int admin(int fd, uint8_t verb, const char *path, const char *second, uint8_t from, uint64_t value,
          uint16_t flags, uint64_t *ok, char **text);

/* Bytes that look alike nowhere. */
void fill(uint8_t *p, size_t n, uint64_t seed);
/* Wait (120 s at most) until `f` answers true. */
void until(bool (*f)(void *arg), void *arg);
/* Wait until so many bytes are staged, and so many connections wait for memory or space. */
void until_staged(const struct rig *r, uint64_t bytes, uint64_t waiting);
/* No connection is left at the server of this rig. */
bool nobody_is_there(void *rig);

#endif
