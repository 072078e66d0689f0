/* The network front end: what the daemon's main sees of it (steps 1 to 6 and 9 of a batch).
 *
 * It accepts TCP and Unix connections, receives batches straight into the pool, hands them to the
 * log, acks them, and serves subscribers from pool memory. net/PROTOCOL.md says what it speaks.
 *
 * Threads: start and stop by one thread; address and stat by any. The log must outlive the server.
 */
#ifndef NET_SERVER_SERVER_H
#define NET_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/log.h"
#include "embar/error.h"
#include "net/server/topology.h"

struct server;

#define STAGING_MIN (2u << 20)
#define STAGING_MAX (64ull << 30)

struct server_options {
    struct log *log;
    const char *listen;      /* "host:port" or "[v6]:port", port 0: a free one; NULL: no TCP */
    const char *unix_path;   /* NULL: no Unix socket. A stale socket file is replaced */
    const uint8_t *token;    /* WIRE_TOKEN bytes; required with listen */
    unsigned workers;        /* threads, at most 64; 0: as many as processors, at most 8 */
    struct pin pin;          /* where they run */
    uint64_t staging;        /* bytes of memory for what comes slowly; 0: staging.c says */
    unsigned first_producer; /* worker i uses log_producer(log, first_producer + i) */
    unsigned tick_ms;        /* tests: length of the tick that time limits count in; 0: 1 s */
    bool auto_create;        /* publishing creates the topic and its parents */
    uint32_t ack_max;        /* highest ack level that can be promised */
    bool insecure;           /* allow a TCP address beyond loopback, without encryption */
    /* A remark for the log, a sentence; by any worker. NULL: nobody listens. */
    void (*note)(void *arg, const char *text);
    void *note_arg;
};

/* 0, or a code with a sentence in err: address in use or not understood, not loopback, no token. */
int server_start(struct server **out, const struct server_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));

/* Stops accepting and reading, waits until everything announced is committed and acked, tells the
 * clients (EMBAR_ESHUTDOWN; a second for those that do not read), joins the workers. NULL is fine. */
void server_stop(struct server *s);

/* "127.0.0.1:PORT" as bound, "" without TCP. Lives as long as the server. */
const char *server_address(const struct server *s);

struct server_stat {
    uint64_t workers;
    uint64_t connections;       /* now */
    uint64_t channels;          /* now: publishers and subscriptions */
    uint64_t subscriptions;     /* now */
    uint64_t waiting;           /* now: connections not read because the pool or staging is full */
    uint64_t staging, staged;   /* bytes of staging memory; now: in use */
    uint64_t moved;             /* batches that were too slow for the pool and moved there */
    uint64_t accepted, refused; /* since start; refused: over a bound, or a bad handshake */
    uint64_t put_off;           /* times that there was no descriptor (or memory) for who waits */
    uint64_t errors;            /* connections closed for what the peer did */
    uint64_t batches, bytes_in; /* payload announced */
    uint64_t duplicates;        /* recognised by their header */
    uint64_t acks, bytes_out;   /* ACK frames; bytes sent to subscribers */
};
void server_stat(struct server *s, struct server_stat *st);

#endif
