/* Where a broker's token stands for clients on TCP: see token.h (step 1, on both sides).
 * Must never follow what another user may have put in the way, nor look into a mount.
 */
#include "net/token.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

static void look_for(struct search *s, const char *host, const char *port)
{
    char folder[PATH_MAX], path[PATH_MAX];
    const char *open = strchr(host, ':') ? "[" : "", *close = *open ? "]" : "";
    struct stat st;
    for (unsigned i = 0; token_folder(i, folder, sizeof(folder)); i++) {
        PATH_PRINT(path, sizeof(path), "%s/%s%s%s:%s.token", folder, open, host, close, port);
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

bool token_find(const char *host, const char *port, char *path, size_t size)
{
    /* What listens on all addresses listens on these. */
    static const char *const also[][2] = {{"localhost", "127.0.0.1"}, {"localhost", "::1"},
                                          {"localhost", "0.0.0.0"},   {"localhost", "::"},
                                          {"127.0.0.1", "0.0.0.0"},   {"::1", "::"}};
    struct search s = {.path = path, .size = size};
    if (strchr(host, '/'))
        return false;
    look_for(&s, host, port);
    for (size_t i = 0; i < sizeof(also) / sizeof(also[0]); i++)
        if (strcmp(host, also[i][0]) == 0)
            look_for(&s, also[i][1], port);
    return s.found;
}
