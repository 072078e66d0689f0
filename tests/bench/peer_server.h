/* Between peer.c and its server process. */
#ifndef BENCH_PEER_SERVER_H
#define BENCH_PEER_SERVER_H

#include "tests/bench/peer.h"

/* What the server writes to its pipe once, when its memory is there or could not be had. */
struct peer_started {
    struct embar_error error; /* code 0: it listens */
    char flush[32];
};

/* The server process; does not return while all is well. */
int peer_serve(int listener, int ready, const struct peer_options *options);

/* TCP_NODELAY and the buffer sizes, the same at both ends. 0 or -errno. */
int socket_tune(int fd, const struct peer_options *options) __attribute__((warn_unused_result));

#endif
