/* Where a broker's token stands for clients on TCP: see token.h (step 1, on both sides).
 * Must never follow what another user may have put in the way, nor look into a mount.
 */
#include "net/token.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* printf into a path: one that is too long is an empty one. */
#define PATH_PRINT(path, size, ...)                                                                \
    do {                                                                                           \
        int n_ = snprintf(path, size, __VA_ARGS__);                                                \
        if (n_ < 0 || (size_t)n_ >= (size))                                                        \
            (path)[0] = '\0';                                                                      \
    } while (0)

bool token_folder(unsigned i, char *path, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    path[0] = '\0';
    if (i == 0 && runtime && *runtime == '/' && stat(runtime, &st) == 0 && st.st_uid == geteuid())
        PATH_PRINT(path, size, "%s/embar", runtime);
    else if (i == 1 && geteuid() == 0)
        PATH_PRINT(path, size, "/run/embar");
    else if (i == 1)
        PATH_PRINT(path, size, "/run/user/%u/embar", (unsigned)geteuid());
    if (strlen(path) > TOKEN_FOLDER_MAX)
        path[0] = '\0';
    return i <= 1;
}

bool token_home(char *path, size_t size)
{
    struct stat st;
    for (unsigned i = 0; token_folder(i, path, size); i++)
        if (*path && (mkdir(path, 0755) == 0 || errno == EEXIST) && lstat(path, &st) == 0 &&
            S_ISDIR(st.st_mode) && st.st_uid == geteuid())
            return true;
    path[0] = '\0';
    return false;
}

/* A whole file takes the place of the older one: nobody reads half a token. */
static int replace(const char *path, const void *token, size_t n)
{
    char fresh[PATH_MAX];
    PATH_PRINT(fresh, sizeof(fresh), "%s.%ld", path, (long)getpid());
    if (!*fresh)
        return -ENAMETOOLONG;
    (void)unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t wrote = write(fd, token, n);
    int rc = wrote < 0 ? -errno : (size_t)wrote < n ? -ENOSPC : 0;
    close(fd);
    if (rc == 0 && rename(fresh, path))
        rc = -errno;
    if (rc)
        (void)unlink(fresh);
    return rc;
}

int token_leave(const char *address, const void *token, size_t n, char *path, size_t size)
{
    char folder[PATH_MAX];
    int rc = -ENOENT;
    path[0] = '\0';
    if (token_home(folder, sizeof(folder))) {
        PATH_PRINT(path, size, "%s/%s.token", folder, address);
        rc = *path ? replace(path, token, n) : -ENAMETOOLONG;
    }
    if (rc)
        path[0] = '\0';
    return rc;
}

static bool is_newer(const struct stat *a, const struct stat *b)
{
    return a->st_mtim.tv_sec > b->st_mtim.tv_sec ||
           (a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec > b->st_mtim.tv_nsec);
}

struct search {
    char *path;
    size_t size;
    bool found;
    struct stat best;
};

static void look_for(struct search *s, const char *host, unsigned port)
{
    char folder[PATH_MAX], path[PATH_MAX];
    struct stat st;
    for (unsigned i = 0; token_folder(i, folder, sizeof(folder)); i++) {
        PATH_PRINT(path, sizeof(path), "%s/%s:%u.token", folder, host, port);
        /* A daemon that was killed leaves its file: one of the same address is newer while it lives. */
        if (*folder && *path && strlen(path) < s->size && lstat(path, &st) == 0 &&
            S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
            (!s->found || is_newer(&st, &s->best))) {
            memcpy(s->path, path, strlen(path) + 1);
            s->found = true;
            s->best = st;
        }
    }
}

/* What listens on all addresses of this machine listens on its loopback, and [::] also for IPv4. No file
 * of theirs is for another address: that may be another machine's, which is told nothing. */
static void look_for_v4(struct search *s, const struct in_addr *in, unsigned port)
{
    char host[INET_ADDRSTRLEN];
    if (inet_ntop(AF_INET, in, host, sizeof(host)))
        look_for(s, host, port);
    if (ntohl(in->s_addr) >> 24 == IN_LOOPBACKNET) {
        look_for(s, "0.0.0.0", port);
        look_for(s, "[::]", port);
    }
}

static void look_for_v6(struct search *s, const struct in6_addr *in, unsigned port)
{
    char text[INET6_ADDRSTRLEN], host[INET6_ADDRSTRLEN + 2];
    if (inet_ntop(AF_INET6, in, text, sizeof(text))) {
        (void)snprintf(host, sizeof(host), "[%s]", text);
        look_for(s, host, port);
    }
    if (IN6_IS_ADDR_LOOPBACK(in))
        look_for(s, "[::]", port);
}

bool token_find(const struct sockaddr *peer, char *path, size_t size)
{
    struct search s = {.path = path, .size = size};
    if (peer->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)peer;
        look_for_v4(&s, &in->sin_addr, ntohs(in->sin_port));
    } else if (peer->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)peer;
        struct in_addr v4;
        memcpy(&v4, &in->sin6_addr.s6_addr[12], sizeof(v4));
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr))
            look_for_v4(&s, &v4, ntohs(in->sin6_port));
        else
            look_for_v6(&s, &in->sin6_addr, ntohs(in->sin6_port));
    }
    return s.found;
}
