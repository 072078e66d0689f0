/* Finding the broker: option, then $EMBAR_SERVER, then the one fuse.embarfs mount.
 * Serves step 1 from the client's side. Must never connect, never guess between two mounts, and never
 * look into a mount that was not named or is another user's: whose daemon does not answer keeps the
 * caller waiting, against any signal.
 */
#include "net/client/address.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/token.h"
#include "net/wire.h"

#define SMALL_FILE 65536u /* status and token are far smaller */

/* The whole of a small file into buf, NUL-terminated; bytes read or -errno. */
static ssize_t read_small(const char *path, char *buf, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t have = 0;
    while (have < size - 1) {
        ssize_t n = read(fd, buf + have, size - 1 - have);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            int code = -errno;
            close(fd);
            return code;
        }
        if (n == 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    buf[have] = '\0';
    return (ssize_t)have;
}

/* A file's token: its bytes, or its text without the white space that ends it. */
static int read_token(const char *path, struct address *out, struct embar_error *err)
{
    char buf[ADDRESS_TOKEN + 16];
    ssize_t n = read_small(path, buf, sizeof(buf));
    if (n < 0)
        return embar_fail(err, -EMBAR_EAUTH, "The token file %s cannot be read: %s.", path,
                          strerror((int)-n));
    while (n > 0 && n != WIRE_TOKEN && strchr(" \t\r\n", buf[n - 1]))
        n--;
    if (n == 0 || (size_t)n > ADDRESS_TOKEN)
        return embar_fail(err, -EMBAR_EAUTH,
                          "The token file %s holds no token (1 to %u bytes are expected).", path,
                          ADDRESS_TOKEN);
    memcpy(out->token, buf, (size_t)n);
    out->token_length = (size_t)n;
    return 0;
}

static int set_local(struct address *out, const char *path, struct embar_error *err)
{
    size_t n = strlen(path);
    if (n >= sizeof(out->path))
        return embar_fail(err, -EMBAR_ESPEC,
                          "The socket path %s is too long: %zu bytes are the system's limit.", path,
                          sizeof(out->path) - 1);
    out->local = true;
    memcpy(out->path, path, n + 1);
    snprintf(out->name, sizeof(out->name), "%s", path);
    return 0;
}

/* host:port or [v6]:port. */
static int set_inet(struct address *out, const char *text, struct embar_error *err)
{
    const char *host = text, *colon = strrchr(text, ':');
    if (!colon)
        return embar_fail(err, -EMBAR_ESPEC,
                          "\"%s\" is no server: give host:port, the path of a socket, or a mount "
                          "point of embarfs.",
                          text);
    size_t n = (size_t)(colon - text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        host++;
        n -= 2;
    } else if (memchr(text, ':', n)) {
        return embar_fail(err, -EMBAR_ESPEC, "\"%s\": write an IPv6 address as [address]:port.",
                          text);
    }
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || port < 1 || port > 65535)
        return embar_fail(err, -EMBAR_ESPEC,
                          "\"%s\": after the colon stands a port number from 1 to 65535.", text);
    if (n >= sizeof(out->host))
        return embar_fail(err, -EMBAR_ESPEC, "The host name in \"%s\" is too long.", text);
    if (n == 0)
        memcpy(out->host, "localhost", sizeof("localhost"));
    else {
        memcpy(out->host, host, n);
        out->host[n] = '\0';
    }
    out->local = false;
    snprintf(out->port, sizeof(out->port), "%lu", port);
    snprintf(out->name, sizeof(out->name), "%.256s:%s", out->host, out->port);
    return 0;
}

/* The status document of a mount. NULL with the reason in err. */
static json_t *mount_status(const char *mount, struct embar_error *err)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/.embar/status", mount);
    char *text = malloc(SMALL_FILE);
    if (!text) {
        (void)embar_fail(err, -ENOMEM, "No memory to read %s", path);
        return NULL;
    }
    ssize_t n = read_small(path, text, SMALL_FILE);
    if (n == -ENOTCONN) {
        (void)embar_fail(err, -EMBAR_ENOSERVER,
                         "The daemon behind the mount %s is gone: start embarfs there again.",
                         mount);
    } else if (n < 0) {
        (void)embar_fail(err, -EMBAR_ENOSERVER,
                         "%s is not a mount of embarfs: %s cannot be read (%s).", mount, path,
                         strerror((int)-n));
    }
    json_t *doc = NULL;
    if (n >= 0) {
        doc = json_loadb(text, (size_t)n, 0, NULL);
        if (!json_is_object(doc)) {
            json_decref(doc);
            doc = NULL;
            (void)embar_fail(err, -EMBAR_ENOSERVER,
                             "%s does not hold the JSON object that tells where the broker is.",
                             path);
        }
    }
    free(text);
    return doc;
}

static int mount_token(const char *mount, struct address *out, struct embar_error *err)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/.embar/token", mount);
    return read_token(path, out, err);
}

/* The broker behind a mount: its socket where that can be reached, else its TCP address. */
static int set_mount(struct address *out, const char *mount, bool want_token,
                     struct embar_error *err)
{
    struct embar_error why = {.code = -EMBAR_ENOSERVER};
    json_t *doc = mount_status(mount, &why);
    if (!doc) {
        if (err)
            *err = why;
        return why.code;
    }
    const char *sock = json_string_value(json_object_get(doc, "socket"));
    const char *listen = json_string_value(json_object_get(doc, "listen"));
    int rc;
    if (sock && *sock && access(sock, R_OK | W_OK) == 0) {
        rc = set_local(out, sock, err);
    } else if (listen && *listen) {
        rc = set_inet(out, listen, err);
        if (rc == 0 && want_token)
            rc = mount_token(mount, out, err);
    } else if (sock && *sock) {
        rc = embar_fail(err, -errno, "The broker of %s listens on %s only, which is closed to you",
                        mount, sock);
    } else {
        rc = embar_fail(err, -EMBAR_ENOSERVER,
                        "The mount %s does not listen for clients: start it with --listen or "
                        "--socket.",
                        mount);
    }
    json_decref(doc);
    return rc;
}

/* Undo the mount table's \ooo in place. */
static void unescape(char *s)
{
    char *to = s;
    while (*s) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 4;
        } else {
            *to++ = *s++;
        }
    }
    *to = '\0';
}

/* Did this user or root mount it? The kernel says who did, in the mount's options. */
static bool is_trusted(const char *options)
{
    static const char key[] = "user_id=";
    const char *at = options;
    while (at && strncmp(at, key, strlen(key)) != 0) {
        at = strchr(at, ',');
        at += at != NULL;
    }
    unsigned long uid = at ? strtoul(at + strlen(key), NULL, 10) : ULONG_MAX;
    return uid == 0 || uid == geteuid();
}

struct found {
    char first[4097];
    char list[400];
    unsigned count;
};

/* The mounts of embarfs that this user or root made. */
static void find_mounts(const char *table, struct found *f)
{
    FILE *in = fopen(table ? table : "/proc/self/mounts", "re");
    if (!in)
        return;
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, in) > 0) {
        char *save = NULL;
        const char *source = strtok_r(line, " \n", &save);
        char *mount = source ? strtok_r(NULL, " \n", &save) : NULL;
        const char *type = mount ? strtok_r(NULL, " \n", &save) : NULL;
        const char *options = type ? strtok_r(NULL, " \n", &save) : NULL;
        if (!options || strcmp(type, "fuse.embarfs") != 0 || !is_trusted(options))
            continue;
        unescape(mount);
        if (f->count++ == 0)
            snprintf(f->first, sizeof(f->first), "%s", mount);
        size_t n = strlen(f->list);
        snprintf(f->list + n, sizeof(f->list) - n, "%s%s", n ? ", " : "", mount);
    }
    free(line);
    fclose(in);
}

static int find_server(const struct address_source *src, bool want_token, struct address *out,
                       struct embar_error *err)
{
    const char *server = src->server;
    if (!server || !*server)
        server = getenv("EMBAR_SERVER");
    if (!server || !*server) {
        struct found f = {.count = 0};
        find_mounts(src->mounts, &f);
        if (f.count == 0)
            return embar_fail(
                err, -EMBAR_ENOSERVER,
                "No broker was found: nothing of embarfs is mounted here by you or root. "
                "Start one (embarfs MOUNTPOINT) or name one with -s or "
                "EMBAR_SERVER.");
        if (f.count > 1)
            return embar_fail(err, -EMBAR_ENOSERVER,
                              "There are %u mounts of embarfs (%s): choose one with -s or "
                              "EMBAR_SERVER.",
                              f.count, f.list);
        return set_mount(out, f.first, want_token, err);
    }
    struct stat st;
    if (stat(server, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return set_mount(out, server, want_token, err);
        if (S_ISSOCK(st.st_mode))
            return set_local(out, server, err);
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s is neither a socket nor a mount point of embarfs: give one of these "
                          "or host:port.",
                          server);
    }
    int code = -errno;
    if (code == -ENOTCONN)
        return embar_fail(err, -EMBAR_ENOSERVER,
                          "The daemon behind the mount %s is gone: start embarfs there again.",
                          server);
    if (strchr(server, '/'))
        return embar_fail(err, code, "There is no broker at %s", server);
    out->looks = want_token;
    return set_inet(out, server, err);
}

void address_reached(struct address *a, const struct sockaddr *peer)
{
    char path[sizeof(a->gone)];
    bool gone;
    a->gone[0] = '\0';
    if (!a->looks || !token_find(peer, path, sizeof(path), &gone))
        return;
    (void)read_token(path, a, NULL); /* taken away meanwhile: none */
    if (gone)
        memcpy(a->gone, path, sizeof(path));
}

int address_find(const struct address_source *src, struct address *out, struct embar_error *err)
{
    memset(out, 0, sizeof(*out));
    bool given = src->token_length > 0 || src->token_file;
    int rc = find_server(src, !given, out, err);
    if (rc < 0)
        return rc;
    if (src->token_length > 0) {
        memcpy(out->token, src->token, src->token_length);
        out->token_length = src->token_length;
    } else if (src->token_file && !out->local) {
        rc = read_token(src->token_file, out, err);
    }
    return rc;
}
