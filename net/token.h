/* Where the token of a broker on TCP stands for the clients of the same user on this machine: one file
 * an address, in a folder that only this user (or root) makes.
 *
 * Clients look there, not into mounts: a mount whose daemon does not answer would keep them waiting, and
 * no signal ends such a wait. No state; every function from any thread.
 */
#ifndef NET_TOKEN_H
#define NET_TOKEN_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Bytes of such a folder's path: the name of a Unix socket in it, of 16 digits and ".sock", has the
 * system's limit, and all stands in one folder. */
#define TOKEN_FOLDER_MAX                                                                           \
    (sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/0123456789abcdef.sock"))

/* The folders where a user's daemons keep what clients find them by, best first: $XDG_RUNTIME_DIR/embar
 * where that directory is the user's own and not too long, then /run/embar for root,
 * /run/user/UID/embar for others. False behind the last; an empty path for one that cannot be used. It
 * need not exist. */
bool token_folder(unsigned i, char *path, size_t size);
/* The first of them that is there or can be made: false when there is none. */
bool token_home(char *path, size_t size);

/* A token's file is locked by its daemon for as long as that lives. */
struct token_left {
    char path[PATH_MAX]; /* empty: none */
    int fd;
};

/* The daemon: leave the token for an address as it is told ("127.0.0.1:7447", "[::1]:7447"), in place
 * of an older one, 0600, and take away what daemons that were killed have left in that folder, their
 * sockets too. 0, or a
 * negative errno (-ENOENT: there is no such folder) and an empty path. */
int token_leave(const char *address, const void *token, size_t n, struct token_left *left)
    __attribute__((warn_unused_result));
/* Take it away, before the listener is closed. None is fine. */
void token_withdraw(struct token_left *left);

/* The client: the file for the address that it has reached, the newest where there are several: only one of
 * those who left them listens there. One whose daemon lives comes first; *gone: there is no such one. A name
 * has several addresses, with a daemon each perhaps, and an address many spellings: so it is the peer of
 * a socket that counts. The file's owner is the caller's user. False when there is none. */
bool token_find(const struct sockaddr *peer, char *path, size_t size, bool *gone);

#endif
