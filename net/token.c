/* Where a broker's token stands for clients on TCP: see token.h (step 1, on both sides).
 * Must never follow what another user may have put in the way, nor look into a mount.
 */
#include "net/token.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SUFFIX       ".token"
#define SOCKET       ".sock"
#define LOCK         "lock"
#define LOCK_TRIES   40
#define LOCK_PAUSE   25000 /* us */
#define SOCKET_YOUNG 60    /* s */

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

/* Does the daemon that left it live? What cannot be asked counts as if it did. */
static bool is_held(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    if (fd < 0)
        return true;
    bool held = fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
    close(fd);
    return held;
}

static bool is_own_file(const char *path, struct stat *st)
{
    return lstat(path, st) == 0 && S_ISREG(st->st_mode) && st->st_uid == geteuid();
}

/* A socket of the user's that nobody serves. One that was just made may not listen yet. */
static bool is_dead_socket(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct stat st;
    size_t n = strlen(path);
    if (n >= sizeof(un.sun_path) || n < strlen(SOCKET) ||
        strcmp(path + n - strlen(SOCKET), SOCKET) != 0 || lstat(path, &st) ||
        !S_ISSOCK(st.st_mode) || st.st_uid != geteuid() || time(NULL) - st.st_mtime < SOCKET_YOUNG)
        return false;
    memcpy(un.sun_path, path, n + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool dead = fd >= 0 && connect(fd, (const struct sockaddr *)&un, sizeof(un)) != 0 &&
                errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return dead;
}

static bool is_address(const char *text, size_t n)
{
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
    struct in6_addr any;
    bool six = n > 2 && text[0] == '[' && text[n - 1] == ']';
    if (six) {
        text++;
        n -= 2;
    }
    if (n >= sizeof(host))
        return false;
    memcpy(host, text, n);
    host[n] = '\0';
    if (six)
        host[strcspn(host, "%")] = '\0'; /* the scope */
    return inet_pton(six ? AF_INET6 : AF_INET, host, &any) == 1;
}

/* ADDRESS:PORT.token as daemons name it; one that was killed while it wrote left a number behind that. The
 * folder may hold files of the user's own. */
static bool is_token_name(const char *name)
{
    static const char digits[] = "0123456789";
    const char *suffix = strstr(name, SUFFIX);
    if (!suffix)
        return false;
    const char *rest = suffix + strlen(SUFFIX),
               *colon = memrchr(name, ':', (size_t)(suffix - name));
    if (!colon || colon + 1 == suffix || colon + 1 + strspn(colon + 1, digits) != suffix)
        return false;
    if (*rest && (*rest != '.' || !rest[1] || rest[1 + strspn(rest + 1, digits)]))
        return false;
    return is_address(name, (size_t)(colon - name));
}

/* Under the folder's lock: nobody puts a token there meanwhile. */
static void sweep(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *e;
    while (dir && (e = readdir(dir))) {
        char path[PATH_MAX];
        struct stat st;
        PATH_PRINT(path, sizeof(path), "%s/%s", folder, e->d_name);
        bool dead = *path && is_token_name(e->d_name) ? is_own_file(path, &st) && !is_held(path)
                                                      : *path && is_dead_socket(path);
        if (dead)
            (void)unlink(path);
    }
    if (dir)
        closedir(dir);
}

/* A whole file takes the place of the older one, locked already: nobody reads half a token, nor takes it
 * for a dead daemon's. */
static int replace(struct token_left *left, const void *token, size_t n)
{
    char fresh[PATH_MAX];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    PATH_PRINT(fresh, sizeof(fresh), "%s.%ld", left->path, (long)getpid());
    if (!*fresh)
        return -ENAMETOOLONG;
    (void)unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    (void)fcntl(fd, F_OFD_SETLK,
                &lock); /* where there are no locks, nobody can ask for them either */
    ssize_t wrote = write(fd, token, n);
    int rc = wrote < 0 ? -errno : (size_t)wrote < n ? -ENOSPC : 0;
    if (rc == 0 && rename(fresh, left->path))
        rc = -errno;
    if (rc) {
        (void)unlink(fresh);
        close(fd);
        return rc;
    }
    left->fd = fd;
    return 0;
}

/* Whoever sweeps or puts a file there has the folder to itself. It takes a moment: who keeps it for longer
 * was stopped, and is not waited for. The folder itself could be locked by anybody who may look into it;
 * a file that only its user can open, by nobody else. It stays: who took it away would lock one that others
 * no longer find. -1: not locked. */
static int lock_folder(const char *folder)
{
    char path[PATH_MAX];
    PATH_PRINT(path, sizeof(path), "%s/" LOCK, folder);
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    for (unsigned i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        usleep(LOCK_PAUSE);
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

int token_leave(const char *address, const void *token, size_t n, struct token_left *left)
{
    char folder[PATH_MAX];
    int rc = -ENOENT;
    left->path[0] = '\0';
    left->fd = -1;
    if (token_home(folder, sizeof(folder))) {
        int lock = lock_folder(folder);
        if (lock >= 0)
            sweep(folder);
        PATH_PRINT(left->path, sizeof(left->path), "%s/%s" SUFFIX, folder, address);
        rc = *left->path ? replace(left, token, n) : -ENAMETOOLONG;
        if (lock >= 0)
            close(lock);
    }
    if (rc)
        left->path[0] = '\0';
    return rc;
}

void token_withdraw(struct token_left *left)
{
    if (!*left->path)
        return;
    (void)unlink(left->path);
    close(left->fd);
    left->path[0] = '\0';
}

static bool is_newer(const struct stat *a, const struct stat *b)
{
    return a->st_mtim.tv_sec > b->st_mtim.tv_sec ||
           (a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec > b->st_mtim.tv_nsec);
}

struct search {
    char *path;
    size_t size;
    bool found, held; /* held: its daemon lives */
    struct stat best;
};

static void look_for(struct search *s, const char *host, unsigned port)
{
    char folder[PATH_MAX], path[PATH_MAX];
    struct stat st;
    for (unsigned i = 0; token_folder(i, folder, sizeof(folder)); i++) {
        PATH_PRINT(path, sizeof(path), "%s/%s:%u" SUFFIX, folder, host, port);
        if (!*folder || !*path || strlen(path) >= s->size || !is_own_file(path, &st))
            continue;
        bool held = is_held(path);
        if (!s->found || held > s->held || (held == s->held && is_newer(&st, &s->best))) {
            memcpy(s->path, path, strlen(path) + 1);
            s->found = true;
            s->held = held;
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

bool token_find(const struct sockaddr *peer, char *path, size_t size, bool *gone)
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
    *gone = s.found && !s.held;
    return s.found;
}
