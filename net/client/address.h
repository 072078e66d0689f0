/* Where the broker is and what opens it: from an option, the environment or the mounts there are.
 * Reads files only; connects to nothing. No state; every function from any thread.
 */
#ifndef NET_CLIENT_ADDRESS_H
#define NET_CLIENT_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "embar/error.h"

#define ADDRESS_TOKEN 64u /* bytes of a token at most */

/* What the user said. Kept, so that each reconnect looks again: a restarted daemon may listen
 * elsewhere and has a new token. */
struct address_source {
    char *server;     /* NULL: $EMBAR_SERVER, else the one mount of this user or root */
    char *token_file; /* NULL: the mount's, or what the daemon left for the address (net/token.h) */
    unsigned char token[ADDRESS_TOKEN];
    size_t token_length; /* > 0: the token itself was given */
    const char *mounts;  /* the mount table; "/proc/self/mounts" but in tests */
};

struct address {
    char name[300]; /* for people */
    bool local;     /* a Unix socket: path; else host and port */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char host[256], port[16];
    unsigned char token[ADDRESS_TOKEN];
    size_t token_length; /* 0: none found */
    bool looks;          /* a token is still to be looked for: address_reached */
    char gone[256]; /* the file of that token, when the daemon that left it is gone; else empty */
};

/* -EMBAR_ENOSERVER, -EMBAR_ESPEC, -EMBAR_EAUTH (token file unreadable), -errno. */
int address_find(const struct address_source *src, struct address *out, struct embar_error *err)
    __attribute__((warn_unused_result));
/* A host and port were given and no token: that which the daemon behind `peer` has left, if it has. */
void address_reached(struct address *a, const struct sockaddr *peer);

#endif
