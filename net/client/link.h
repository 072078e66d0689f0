/* One connection to the broker: dialling, the handshake, whole frames within a deadline.
 *
 * Used by every client room: requests and subscriptions keep to these blocking calls; a publisher
 * shakes hands with them and then drives the socket itself through link_write. Sockets are always
 * non-blocking; waiting is poll(2) in slices, so that `cancel` is seen soon.
 */
#ifndef NET_CLIENT_LINK_H
#define NET_CLIENT_LINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "embar/error.h"
#include "net/client/address.h"
#include "net/wire.h"

/* How long a call may take, who may end it before, and who is told that it takes long. */
struct link_limit {
    uint64_t deadline;         /* clock_ns; 0: none */
    const atomic_bool *cancel; /* NULL: nobody. Pairs with the store of whoever stops us */
    uint64_t slow_at;          /* clock_ns: from then on slow is called, perhaps again; 0: never */
    void (*slow)(void *arg);
    void *slow_arg;
};

/* CLOCK_MONOTONIC, ns. */
uint64_t clock_ns(void);
struct link_limit link_within(unsigned timeout_ms, const atomic_bool *cancel);

/* A connected socket: *fd. */
int link_dial(const struct address *to, const struct link_limit *limit, int *fd,
              struct embar_error *err) __attribute__((warn_unused_result));

/* What the broker said of itself. */
struct link_peer {
    uint32_t max_batch, max_messages, window;
    bool durable_machine;
    uint64_t incarnation;
    uint8_t uuid[16];
};

/* HELLO and WELCOME. `known` (may be NULL): the pool as met before; -EMBAR_EINCARNATION when it is
 * another one now. */
int link_hello(int fd, const struct address *to, const struct link_peer *known,
               struct link_peer *peer, const struct link_limit *limit, struct embar_error *err)
    __attribute__((warn_unused_result));

/* The one place where bytes leave: as many of iov as the socket takes now. Bytes, -EAGAIN, -errno.
 * Raises no signal. flags: of sendmsg, beside its own. */
ssize_t link_write(int fd, const struct iovec *iov, int pieces, int flags);

int link_send(int fd, struct iovec *iov, int pieces, const struct link_limit *limit,
              struct embar_error *err) __attribute__((warn_unused_result));

/* A received frame. body grows as needed, is kept for the next one, and freed by the owner. */
struct link_reply {
    struct wire_frame frame;
    unsigned char *body;
    size_t length, capacity;
};
/* -EMBAR_EPROTO when its length is above max. */
int link_receive(int fd, struct link_reply *r, size_t max, const struct link_limit *limit,
                 struct embar_error *err) __attribute__((warn_unused_result));

/* Send a request of two or three pieces and wait for the frame with its ref; an ERROR becomes err
 * and its code (its body stays in r). */
int link_ask(int fd, enum wire_type type, uint16_t channel, uint64_t ref, const struct iovec *body,
             int pieces, struct link_reply *r, size_t max, const struct link_limit *limit,
             struct embar_error *err) __attribute__((warn_unused_result));

/* Put what an ask was about in front of its refusal: "NAME: sentence". */
void link_name(struct embar_error *err, const char *name);

/* An ERROR frame's body: its code (negative), with its text in err; *detail may be NULL. */
int link_refusal(const void *body, size_t length, struct wire_error *detail,
                 struct embar_error *err);

/* True when trying again later may help: the connection broke or the broker is restarting. */
bool link_transient(int code);

#endif
