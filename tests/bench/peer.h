/* The baselines that speak plain sockets: one server process with a thread a connection, and the
 * client workers against it. They do what any server of bytes must do at least, and nothing more.
 *
 *   raw    recv loop into prefaulted memory                   the limit of publishing
 *   work   the same, with CRC32C of what came and write-back  the limit of publishing safely
 *   source send loop out of prefaulted memory                 the limit of subscribing
 *   echo   whole messages go back                             the limit of latency
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "core/flush.h"
#include "tests/bench/load.h"

enum peer_mode { PEER_RAW, PEER_WORK, PEER_SOURCE, PEER_ECHO };

struct peer_options {
    bool unix_socket;      /* else TCP on 127.0.0.1 */
    uint64_t memory;       /* bytes, prefaulted, shared out among the connections of a load */
    enum flush_mode flush; /* of `work` */
    int sockbuf;           /* SO_SNDBUF and SO_RCVBUF of both ends, 0: the system's */
};

struct peer {
    pid_t pid;
    struct peer_options options;
    struct sockaddr_storage address;
    socklen_t address_size;
    char directory[128]; /* holds the unix socket; empty: none */
    char flush[32];      /* the variant in force, by its name */
};

/* Forks the server and waits until its memory is there. */
int peer_start(struct peer *peer, const struct peer_options *options, struct embar_error *err)
    __attribute__((warn_unused_result));
void peer_stop(struct peer *peer);

/* argument of the load operations below */
struct peer_load {
    const struct peer *peer;
    enum peer_mode mode;
    uint64_t bytes;     /* of a connection; echo: ignored */
    uint64_t seconds;   /* raw, work: instead of bytes, when not 0 */
    uint32_t send_size; /* bytes given to one send(2): the subject's batch */
    uint32_t recv_size; /* bytes asked of one recv(2), the server's (source: the client's) */
};
extern const struct load_ops peer_stream_ops; /* raw, work and source */

/* A connection in `mode`, greeted: the socket, or a negative code. */
int peer_connect(const struct peer_load *load, unsigned slice, unsigned slices, uint64_t bytes,
                 struct embar_error *err) __attribute__((warn_unused_result));

/* All of it; -errno, or -EPIPE at an early end. */
int io_send(int fd, const void *data, size_t n) __attribute__((warn_unused_result));
int io_recv(int fd, void *data, size_t n) __attribute__((warn_unused_result));

#endif
