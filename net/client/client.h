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

/* A time without a connection. Its handle's thread alone touches it. */
struct outage {
    uint64_t since; /* 0: there is none */
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

/* Find the broker again and connect: a socket past its handshake with the same pool as ever. */
int client_dial(struct embar_client *c, const atomic_bool *cancel, int *fd, struct link_peer *peer,
                struct embar_error *err) __attribute__((warn_unused_result));

/* The last connection broke; it cannot be made again, for this reason; there is one. Whoever asked for it is
 * told of an outage that lasts, and of its end. With no lock held. */
void outage_begins(struct outage *o);
void outage_lasts(struct outage *o, struct embar_client *c, const struct embar_error *why);
void outage_ends(struct outage *o, struct embar_client *c);

/* A topic path's bounds; the broker checks the rest. */
int client_check_path(const char *path, size_t *length, struct embar_error *err)
    __attribute__((warn_unused_result));

#endif
