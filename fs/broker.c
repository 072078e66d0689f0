/* The network side of the daemon: where it listens, and who may talk to it (step 1). The token is
 * made at each start and shown to the mount's owner alone: in .embar/token, and in a file by the
 * address that clients of the same user find by themselves (net/token.h).
 */
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/fs.h"
#include "net/server/server.h"
#include "net/token.h"

#define DEFAULT_LISTEN "127.0.0.1:7447"
#define ANY_LISTEN     "127.0.0.1:0"

/* 32 letters of 64: 192 random bits that survive a shell. */
static int make_token(struct fs *fs, struct embar_error *err)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char random[WIRE_TOKEN];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return embar_fail(err, -EIO, "The system gave no random numbers for the token");
    for (size_t i = 0; i < sizeof random; i++)
        fs->token[i] = letters[random[i] % 64];
    return 0;
}

/* "host:port", "[v6]:port": 0 and a list to free, or -EMBAR_ESPEC. */
static int address_parse(const char *text, struct addrinfo **list, struct embar_error *err)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    const char *from = text;
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        from++;
        n -= 2;
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int rc = EAI_NONAME;
    if (colon && n > 0 && n < sizeof host) {
        memcpy(host, from, n);
        host[n] = '\0';
        rc = getaddrinfo(host, colon + 1, &hints, list);
    }
    if (rc)
        return embar_fail(err, -EMBAR_ESPEC,
                          "--listen %s cannot be used (%s): give ADDRESS:PORT, like 127.0.0.1:7447 "
                          "or [::1]:0.",
                          text, gai_strerror(rc));
    return 0;
}

/* Workers share their port by SO_REUSEPORT, and so would another daemon of the same user: only a
 * bind without it tells whether somebody is there. */
static int address_probe(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int one = 1;
    /* Connections of an earlier daemon that still time out do not count. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int rc = bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 1) ? -errno : 0;
    close(fd);
    return rc;
}

int broker_check(struct fs *fs, struct embar_error *err)
{
    const char *text = fs->opt.listen ? fs->opt.listen : DEFAULT_LISTEN;
    struct addrinfo *list = NULL;
    int rc = address_parse(text, &list, err);
    if (!list)
        return rc;
    rc = address_probe(list);
    freeaddrinfo(list);
    if (rc == -EADDRINUSE && !fs->opt.listen) {
        rc = 0;
        text = ANY_LISTEN;
    }
    snprintf(fs->listen, sizeof fs->listen, "%s", text);
    if (rc == -EADDRINUSE)
        return embar_fail(err, rc,
                          "Another program listens on %s: stop it, or choose another port with "
                          "--listen (port 0: a free one).",
                          text);
    if (rc)
        return embar_fail(err, rc, "--listen %s", text);
    return 0;
}

/* The socket of a pool has a name of its own, so that many mounts live side by side. */
static int default_socket(struct fs *fs)
{
    char folder[TOKEN_FOLDER_MAX + 1];
    if (!token_home(folder, sizeof folder))
        return 0; /* nowhere to put it: TCP is enough */
    const uint8_t *u = log_pool(fs->log)->uuid;
    snprintf(fs->socket, sizeof fs->socket, "%s/%02x%02x%02x%02x%02x%02x%02x%02x.sock", folder,
             u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]);
    return 0;
}

/* Made absolute: the daemon leaves its directory, and .embar/status tells the path to others. */
static int chosen_socket(struct fs *fs, struct embar_error *err)
{
    char here[PATH_MAX] = "";
    const char *path = fs->opt.socket;
    if (*path && *path != '/' && !getcwd(here, sizeof here))
        return embar_fail(err, -errno, "The directory of --socket %s", path);
    int n = snprintf(fs->socket, sizeof fs->socket, "%s%s%s", here, *here ? "/" : "", path);
    if (n <= 0 || (size_t)n >= sizeof fs->socket)
        return embar_fail(err, -EMBAR_ESPEC,
                          "--socket %s is not a path of 1 to %zu bytes, its directory included: "
                          "give another one.",
                          path, sizeof fs->socket - 1);
    return 0;
}

/* Without it clients are told to name the mount, or .embar/token: no reason not to serve. */
static void leave_token(struct fs *fs)
{
    int rc = token_leave(fs->listen, fs->token, WIRE_TOKEN, &fs->token_left);
    if (rc && rc != -ENOENT)
        daemon_note("clients do not find the token for %s by themselves, for no file could be made "
                    "for it: %s",
                    fs->listen, embar_strerror(rc));
}

static void note(void *arg, const char *text)
{
    (void)arg;
    daemon_note("%s", text);
}

int broker_start(struct fs *fs, struct embar_error *err)
{
    int rc = make_token(fs, err);
    if (rc)
        return rc;
    rc = fs->opt.socket ? chosen_socket(fs, err) : default_socket(fs);
    if (rc)
        return rc;
    struct server_options so = {.log = fs->log,
                                .listen = fs->listen,
                                .unix_path = *fs->socket ? fs->socket : NULL,
                                .token = (const uint8_t *)fs->token,
                                .workers = fs->opt.workers,
                                .pin = fs->opt.pin,
                                .staging = fs->opt.staging,
                                .first_producer = FS_PRODUCER + 1,
                                .auto_create = !fs->opt.no_auto_create,
                                .ack_max = FS_ACK_MAX,
                                .insecure = fs->opt.insecure,
                                .note = note};
    rc = server_start(&fs->server, &so, err);
    if (rc == -EADDRINUSE && !fs->opt.listen) { /* taken since it was looked at */
        so.listen = ANY_LISTEN;
        rc = server_start(&fs->server, &so, err);
    }
    if (rc == 0) {
        snprintf(fs->listen, sizeof fs->listen, "%s", server_address(fs->server));
        leave_token(fs);
    }
    return rc;
}

void broker_stop(struct fs *fs)
{
    /* Before the address is free for another daemon, which leaves its own. */
    token_withdraw(&fs->token_left);
    server_stop(fs->server);
    fs->server = NULL;
}
