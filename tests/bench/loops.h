/* `embar bench loops`, inside: one server thread of which only the way of waiting, receiving, sending or
 * accepting differs; the same clients. loops.c makes the rounds, loops_recv.c, loops_send.c and
 * loops_accept.c are the server. Everything of a round belongs to one thread of one process. */
#ifndef BENCH_LOOPS_H
#define BENCH_LOOPS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/region.h"
#include "tests/bench/hist.h"

#define LOOPS_PIECE   (256u << 10) /* bytes of a receive, of a client's send in bulk */
#define LOOPS_SLICE   (64u << 20)  /* of the region, a connection */
#define LOOPS_SMALL   1024u
#define LOOPS_REPLY   48u
#define LOOPS_MOST    64u /* connections */
#define LOOPS_BACKLOG 4096u
#define LOOPS_EVENTS  64

enum loops_kind {
    LOOPS_BULK,       /* connections send all the time */
    LOOPS_SMALLS,     /* each sends 1 KiB, waits for 48 bytes, and sends again */
    LOOPS_ANSWERS,    /* the server sends out of the region, as to subscribers */
    LOOPS_CONNECTIONS /* clients connect one after the other; each connection is registered */
};

/* Of receiving. */
enum loops_recv {
    RECV_EPOLL,
    RECV_PREFETCH,  /* the next piece's lines are prefetched */
    RECV_URING,     /* one receive in place each, submitted together */
    RECV_MULTISHOT, /* into provided buffers, and a copy to its place */
    RECV_BUNDLE,    /* the same, several buffers a completion */
};

/* Of sending. */
enum loops_send { SEND_EPOLL, SEND_URING, SEND_ZC };

/* Of accepting. */
enum loops_accept {
    ACCEPT_EPOLL,   /* accept4, epoll_ctl each */
    ACCEPT_BATCHED, /* accept4, the epoll_ctl of up to 64 submitted together */
    ACCEPT_URING,   /* multishot accept, the receives of up to 64 submitted together */
};

struct loops_shared {
    double cpu;              /* seconds of the server's process within the run */
    uint64_t copied, zeroed; /* SEND_ZC: sends of which the kernel says that it copied, and not */
    struct hist rtt[LOOPS_MOST];
};

struct loops_load {
    enum loops_kind kind;
    unsigned way;
    int listener;
    struct sockaddr_in address;
    uint64_t each;  /* of a client: bytes, or connections */
    uint32_t piece; /* answers: bytes of a send */
    unsigned connections;
    struct region *region;
    struct loops_shared *shared;
};

struct loops_one {
    int fd;
    char *base;
    size_t at;
    uint32_t part;     /* small: bytes of the message at hand */
    uint64_t left;     /* answers: bytes not yet given to the kernel */
    unsigned notified; /* SEND_ZC: sends whose memory the kernel still holds */
    uint32_t crc;
};

struct loops_server {
    struct loops_one one[LOOPS_MOST];
    unsigned open;
    char reply[LOOPS_REPLY];
};

/* The server until its clients have had all: 0 or -errno. */
int loops_receive(const struct loops_load *load, struct loops_server *s)
    __attribute__((warn_unused_result));
int loops_answer(const struct loops_load *load, struct loops_server *s)
    __attribute__((warn_unused_result));
int loops_admit(const struct loops_load *load) __attribute__((warn_unused_result));

#endif
