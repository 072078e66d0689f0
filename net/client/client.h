/* libembar's own view of a client: what publishers and subscriptions need of it.
 *
 * A client is counted: embar_connect holds one reference, each publisher and subscription one.
 * `lock` guards everything below it; it is never held while another lock of the library is taken.
 */
#ifndef NET_CLIENT_CLIENT_H
#define NET_CLIENT_CLIENT_H

#include <pthread.h>

#include "embar/embar.h"
#include "net/client/link.h"

/* A time without a connection that serves. Its handle's thread alone touches it. */
struct outage {
    struct embar_client *client;
    uint64_t since; /* 0: there is none */
    uint64_t
        up; /* since then there is a connection, which has not shown yet that it lasts; 0: none */
    bool told;
};

struct embar_client {
    atomic_uint refs; /* the last put's acq_rel pairs with every earlier put */
    struct address_source source;
    unsigned timeout_ms, reconnect_ms;
    void (*outage)(void *arg, const char *address, const struct embar_error *why);
    void *outage_arg;

    pthread_mutex_t lock;
    struct address address; /* as last found */
    struct link_peer peer;  /* as first met */
    int fd;                 /* for requests; -1: to be dialled again */
    uint64_t ref;           /* of the newest request */
    struct link_reply reply;
};

struct embar_client *client_ref(struct embar_client *c);
void client_put(struct embar_client *c);

/* Find the broker again and connect: a socket past its handshake with the same pool as ever. o: the outage that
 * this is to end; NULL: none. */
int client_dial(struct embar_client *c, const atomic_bool *cancel, struct outage *o, int *fd,
                struct link_peer *peer, struct embar_error *err)
    __attribute__((warn_unused_result));
/* For a request of c's, which o waits for too. */
struct link_limit client_limit(const struct embar_client *c, const atomic_bool *cancel,
                               struct outage *o);

/* When to dial again after *backoff_ms was in vain (0: after something that was of use): 10 ms, then twice as
 * long each time, a second at most; up to a quarter sooner, so that those whom a broker lost at once do
 * not all come back at once. */
#define CLIENT_BACKOFF_MAX 1000u /* ms */
uint64_t client_retry_at(unsigned *backoff_ms);

/* Whoever asked for it is told of an outage that lasts, and of its end. With no lock held.
 * The last connection broke; there is still none, for this reason; there is one. */
void outage_begins(struct outage *o);
void outage_lasts(struct outage *o, const struct embar_error *why);
void outage_pauses(struct outage *o);
/* The connection serves: the outage is over. */
void outage_ends(struct outage *o);
/* The same when it has stood for as long as an outage lasts before it is told. Until when it is to be
 * asked again; UINT64_MAX: not at all. */
uint64_t outage_due(struct outage *o);

/* A topic path's bounds; the broker checks the rest. */
int client_check_path(const char *path, size_t *length, struct embar_error *err)
    __attribute__((warn_unused_result));

#endif
