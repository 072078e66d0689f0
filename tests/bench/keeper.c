/* The keeper process (keeper.h). Must never signal a process that the benchmark did not start: it
 * holds a pidfd of each, taken while the benchmark could not have reaped it yet.
 *
 * Design. The benchmark and the keeper share a SOCK_SEQPACKET pair: a request is one packet (kind,
 * pid or path), answered by one int. The keeper leaves its loop when the benchmark's pidfd says
 * that it ended, or on STOP. It has a session of its own, so that Ctrl-C does not reach it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/keeper.h"

#define MAX_KEPT 256
#define GRACE_MS 3000

enum kind { K_NONE, K_PID, K_MOUNT, K_DIRECTORY, K_FILE, K_FORGET_PID, K_FORGET_PATH, K_STOP };

struct request {
    enum kind kind;
    pid_t pid;
    char path[PATH_MAX];
};

struct kept {
    enum kind kind;
    pid_t pid;
    int fd; /* K_PID: a pidfd */
    char *path;
};

static int keeper_socket = -1;
static pid_t keeper_process;
static pid_t keeper_owner; /* who may talk to it: a forked child that inherits this is not */

static int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int pidfd_signal(int fd, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
}

static bool pidfd_ended(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) == 1;
}

/* Runs argv and waits for it; its words go nowhere. */
static void run(const char *const argv[])
{
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
            (void)dup2(null, 0);
            (void)dup2(null, 1);
            (void)dup2(null, 2);
        }
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

static bool is_mounted(const char *path)
{
    FILE *f = fopen("/proc/self/mounts", "re");
    if (!f)
        return false;
    char line[PATH_MAX + 512];
    bool found = false;
    size_t n = strlen(path);
    while (!found && fgets(line, sizeof(line), f)) {
        const char *at = strchr(line, ' ');
        found = at && strncmp(at + 1, path, n) == 0 && at[1 + n] == ' ';
    }
    (void)fclose(f);
    return found;
}

void mount_remove(const char *path)
{
    const char *const gently[] = {"fusermount3", "-u", "-q", path, NULL};
    const char *const lazily[] = {"fusermount3", "-u", "-q", "-z", path, NULL};
    if (is_mounted(path))
        run(gently);
    if (is_mounted(path))
        run(lazily);
    if (is_mounted(path))
        (void)umount2(path, MNT_DETACH);
}

/* One level of files: what the benchmark puts into its private directories. */
static void remove_tree(const char *path)
{
    const char *const argv[] = {"rm", "-rf", "--one-file-system", "--", path, NULL};
    run(argv);
}

static void tidy(struct kept *kept, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (kept[i].kind == K_PID)
            (void)pidfd_signal(kept[i].fd, SIGTERM);
    for (size_t i = n; i-- > 0;) {
        if (kept[i].kind != K_PID)
            continue;
        if (!pidfd_ended(kept[i].fd, GRACE_MS)) {
            (void)pidfd_signal(kept[i].fd, SIGKILL);
            (void)pidfd_ended(kept[i].fd, GRACE_MS);
        }
    }
    for (size_t i = n; i-- > 0;) {
        switch (kept[i].kind) {
        case K_MOUNT: mount_remove(kept[i].path); break;
        case K_DIRECTORY: remove_tree(kept[i].path); break;
        case K_FILE: (void)unlink(kept[i].path); break;
        default: break;
        }
    }
}

static int answer(struct kept *kept, size_t *n, const struct request *r)
{
    if (r->kind == K_FORGET_PID || r->kind == K_FORGET_PATH) {
        for (size_t i = 0; i < *n; i++) {
            bool same = r->kind == K_FORGET_PID
                            ? kept[i].kind == K_PID && kept[i].pid == r->pid
                            : kept[i].kind != K_PID && strcmp(kept[i].path, r->path) == 0;
            if (!same)
                continue;
            if (kept[i].kind == K_PID)
                (void)close(kept[i].fd);
            free(kept[i].path);
            memmove(&kept[i], &kept[i + 1], (*n - i - 1) * sizeof(*kept));
            --*n;
            break;
        }
        return 0;
    }
    if (*n == MAX_KEPT)
        return -ENOSPC;
    struct kept k = {.kind = r->kind, .pid = r->pid, .fd = -1};
    if (r->kind == K_PID) {
        k.fd = pidfd_of(r->pid);
        if (k.fd < 0)
            return -errno;
    } else {
        k.path = strdup(r->path);
        if (!k.path)
            return -ENOMEM;
    }
    kept[(*n)++] = k;
    return 0;
}

static void keep(int fd, int owner)
{
    static struct kept kept[MAX_KEPT];
    static struct request r;
    size_t n = 0;
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = owner, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        if (p[0].revents & POLLIN) {
            if (recv(fd, &r, sizeof(r), 0) != (ssize_t)sizeof(r))
                break;
            int rc = r.kind == K_STOP ? 0 : answer(kept, &n, &r);
            if (r.kind == K_STOP)
                break;
            (void)send(fd, &rc, sizeof(rc), MSG_NOSIGNAL);
        } else if (p[1].revents || p[0].revents) {
            break;
        }
    }
    tidy(kept, n);
}

int keeper_start(void)
{
    int pair[2];
    if (keeper_socket >= 0)
        return 0;
    int owner = pidfd_of(getpid());
    if (owner < 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        int rc = -errno;
        (void)close(owner);
        return rc;
    }
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(pair[0]);
        (void)setsid();
        (void)signal(SIGINT, SIG_IGN);
        (void)signal(SIGTERM, SIG_IGN);
        (void)signal(SIGHUP, SIG_IGN);
        (void)prctl(PR_SET_NAME, "bench-keeper");
        /* A pipe that reads our output must see its end when the benchmark has ended. */
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
            (void)dup2(null, 0);
            (void)dup2(null, 1);
            (void)dup2(null, 2);
        }
        keep(pair[1], owner);
        _exit(0);
    }
    int rc = pid < 0 ? -errno : 0;
    (void)close(owner);
    (void)close(pair[1]);
    if (pid < 0) {
        (void)close(pair[0]);
        return rc;
    }
    keeper_socket = pair[0];
    keeper_process = pid;
    keeper_owner = getpid();
    return 0;
}

static int ask(enum kind kind, pid_t pid, const char *path)
{
    static struct request r;
    if (keeper_socket < 0 || getpid() != keeper_owner)
        return -EBADF;
    r.kind = kind;
    r.pid = pid;
    if (path && strlen(path) >= sizeof(r.path))
        return -ENAMETOOLONG;
    (void)snprintf(r.path, sizeof(r.path), "%s", path ? path : "");
    if (send(keeper_socket, &r, sizeof(r), MSG_NOSIGNAL) < 0)
        return -errno;
    if (kind == K_STOP)
        return 0;
    int rc = 0;
    ssize_t n;
    do
        n = recv(keeper_socket, &rc, sizeof(rc), 0);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(rc) ? rc : -EPIPE;
}

void keeper_stop(void)
{
    if (keeper_socket < 0 || getpid() != keeper_owner)
        return;
    (void)ask(K_STOP, 0, NULL);
    while (waitpid(keeper_process, NULL, 0) < 0 && errno == EINTR)
        ;
    (void)close(keeper_socket);
    keeper_socket = -1;
}

int keeper_pid(pid_t pid)
{
    return ask(K_PID, pid, NULL);
}

int keeper_mount(const char *path)
{
    return ask(K_MOUNT, 0, path);
}

int keeper_directory(const char *path)
{
    return ask(K_DIRECTORY, 0, path);
}

int keeper_file(const char *path)
{
    return ask(K_FILE, 0, path);
}

void keeper_forget_pid(pid_t pid)
{
    (void)ask(K_FORGET_PID, pid, NULL);
}

void keeper_forget_path(const char *path)
{
    (void)ask(K_FORGET_PATH, 0, path);
}
