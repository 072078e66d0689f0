/* `embar bench loops`, inside: one server thread of which only the way of waiting, receiving, sending or
 * accepting differs; the same clients. loops.c makes the rounds, loops_recv.c, loops_send.c,
 * loops_accept.c and what the first two have in common, loops_wait.c, are the server. Everything of a round belongs to one thread of one process. */
#ifndef BENCH_LOOPS_H
#define BENCH_LOOPS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/region.h"
#include "tests/bench/hist.h"
#include "tests/bench/uring.h"

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
    RECV_PLACES,    /* a recvmsg into four places, which lie one behind the other */
    RECV_MMSG,      /* a recvmmsg of four messages, one into each of them */
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
    uint32_t part; /* small: bytes of the message at hand */
    uint64_t left; /* answers: bytes not yet given to the kernel */
    uint32_t crc;
};

struct loops_server {
    struct loops_one one[LOOPS_MOST];
    unsigned open;
    unsigned held;                 /* SEND_ZC: sends whose memory is not free yet */
    struct uring_buffers *buffers; /* RECV_MULTISHOT, RECV_BUNDLE: what the kernel receives into */
    char reply[LOOPS_REPLY];
};

/* What is done with a connection that can go on: 1: it did, 0: it is at its end, or -errno. */
typedef int loops_turn(const struct loops_load *load, struct loops_server *s, struct loops_one *o);
/* And with a completion: 0 or -errno. It queues two operations at most. */
typedef int loops_completed(const struct loops_load *load, struct loops_server *s, struct uring *u,
                            const struct io_uring_cqe *cqe);
/* loops_wait.c: turns by epoll's `events`, or completions, until all are at their end. */
int loops_poll(const struct loops_load *load, struct loops_server *s, uint32_t events,
               loops_turn *turn) __attribute__((warn_unused_result));
int loops_complete(const struct loops_load *load, struct loops_server *s, struct uring *u,
                   loops_completed *completed) __attribute__((warn_unused_result));

/* The server until its clients have had all: 0 or -errno. */
int loops_receive(const struct loops_load *load, struct loops_server *s)
    __attribute__((warn_unused_result));
int loops_answer(const struct loops_load *load, struct loops_server *s)
    __attribute__((warn_unused_result));
int loops_admit(const struct loops_load *load) __attribute__((warn_unused_result));

#endif
