/* What the publisher's tests share: a client of the misbehaving broker, messages that tell their
 * number, and callbacks that are counted. Failures are cmocka's.
 */
#ifndef TESTS_TOLD_H
#define TESTS_TOLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "embar/embar.h"
#include "peer.h"

struct told {
    atomic_uint good, bad;
    atomic_uint next; /* the number that must be told next */
    atomic_bool disorder;
    _Atomic(int) code;
};
struct one {
    struct told *told;
    unsigned number;
    unsigned times; /* told: the publisher's thread's, until it was closed */
};

struct embar_client *connect_to(const struct peer *p, unsigned reconnect_ms);
struct embar_publisher *open_on(struct embar_client *c, const struct embar_publisher_options *o);
/* An embar_done; arg is a struct one. */
void on_done(void *arg, const struct embar_error *err);
/* Message number i into buf, which holds 512 bytes; its length. */
size_t message(char *buf, unsigned i);
/* Messages 0..count-1; ones holds count of them and outlives the publisher. */
void publish_all(struct embar_publisher *pub, struct told *told, struct one *ones, unsigned count);
/* Until the peer has so many bytes, and no more. */
void wait_for_bytes(struct peer *p, size_t want);
/* All there are. What was committed is told to who comes again, even if the peer is mute. */
void break_connections(struct peer *p);

#endif
