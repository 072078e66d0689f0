/* Connections of raw frames: what a peer can do that libembar does not. One batch at a time on
 * channel 1, without a session. Thread-safe by having no state.
 */
#ifndef BENCH_RAW_H
#define BENCH_RAW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "embar/error.h"
#include "net/client/address.h"
#include "tests/bench/daemon.h"

#define RAW_HEAD 64u /* bytes of a batch before its payload */

/* Where the daemon listens; then a connection after its handshake: a descriptor or a code. */
int raw_find(const struct daemon *d, struct address *to, struct embar_error *err)
    __attribute__((warn_unused_result));
int raw_connect(const struct address *to, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Open the topic for publishing, making it. */
int raw_open(int fd, const char *topic, struct embar_error *err)
    __attribute__((warn_unused_result));
/* The head of a batch that is one message of n bytes whose CRC32C is crc. */
void raw_head(uint8_t head[RAW_HEAD], uint64_t sequence, uint32_t n, uint32_t crc);
/* What the socket takes now: bytes, -EAGAIN, -errno. */
ssize_t raw_write(int fd, const struct iovec *iov, int pieces);
/* As many descriptors as this process may have. */
void raw_raise_limit(void);

/* Counts batches by the ACKs that come back. */
struct raw_acks {
    uint8_t part[64]; /* of a frame */
    unsigned fill;
    uint64_t acked; /* batches */
};
/* Takes what is there without waiting. 0, or a code: the connection ended or an ERROR came. */
int raw_hear(int fd, struct raw_acks *a, struct embar_error *err)
    __attribute__((warn_unused_result));

#endif
