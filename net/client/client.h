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

struct embar_client {
    atomic_uint refs; /* the last put's acq_rel pairs with every earlier put */
    struct address_source source;
    unsigned timeout_ms, reconnect_ms;

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

/* A topic path's bounds; the broker checks the rest. */
int client_check_path(const char *path, size_t *length, struct embar_error *err)
    __attribute__((warn_unused_result));

#endif
