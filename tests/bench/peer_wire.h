/* What client and server of the plain-socket baselines tell each other before and after the bytes.
 * Both are this program on this machine: native order. */
#ifndef BENCH_PEER_WIRE_H
#define BENCH_PEER_WIRE_H

#include <stdint.h>

#define PEER_MAGIC 0x62656e63u

struct peer_hello {
    uint32_t magic, mode;
    uint32_t slice, slices; /* which part of the memory */
    uint32_t recv_size;     /* the server asks for this much at a time; source: sends */
    uint32_t message;       /* echo: bytes of a message */
    uint64_t bytes;         /* source: how much */
};

/* Server: after hello ("ready", bytes 0) and, in raw and work, after the client's last byte. */
struct peer_reply {
    uint64_t bytes;
    uint32_t crc, error;
};

#endif
