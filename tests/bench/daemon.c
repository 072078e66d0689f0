/* The broker under test (daemon.h). Must never touch a daemon or topic that it did not make, but
 * for measuring it. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/bench/clock.h"
#include "tests/bench/daemon.h"
#include "tests/bench/keeper.h"

#define START_MS 120000u
#define SPACE_MS 20000u

static void take(char *to, size_t size, const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    (void)snprintf(to, size, "%s", text ? text : "");
}

static uint64_t number(const json_t *o, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(o, key));
    return n > 0 ? (uint64_t)n : 0;
}

/* What the mount says about its daemon; NULL when it does not answer. */
static json_t *read_status(const struct daemon *d)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/.embar/status", d->mount);
    FILE *f = fopen(path, "re");
    if (!f)
        return NULL;
    json_t *o = json_loadf(f, 0, NULL);
    (void)fclose(f);
    return o;
}

/* From the mount: who serves it, and where. */
static int adopt_mount(struct daemon *d, bool unix_socket, struct embar_error *err)
{
    json_t *o = read_status(d);
    if (!o)
        return embar_fail(err, -EMBAR_ENOSERVER,
                          "%s/.embar/status cannot be read: name the mount of a running embarfs.",
                          d->mount);
    d->pid = (pid_t)number(o, "pid");
    take(d->pool, sizeof(d->pool), o, "pool");
    take(d->flush, sizeof(d->flush), o, "flush");
    take(d->durability, sizeof(d->durability), o, "durability");
    take(d->server, sizeof(d->server), o, unix_socket ? "socket" : "listen");
    d->size = number(o, "size");
    d->free = number(o, "free");
    json_decref(o);
    if (!*d->server)
        return embar_fail(err, -EMBAR_ENOSERVER, "The daemon of %s does not listen on %s.",
                          d->mount, unix_socket ? "a Unix socket" : "TCP");
    return 0;
}

static const char *find_program(const struct daemon_options *options, char *buf, size_t size)
{
    if (options->program)
        return options->program;
    ssize_t n = readlink("/proc/self/exe", buf, size - 1);
    if (n > 0) {
        buf[n] = '\0';
        char *slash = strrchr(buf, '/');
        if (slash && (size_t)(slash + 1 - buf) + sizeof("embarfs") <= size) {
            memcpy(slash + 1, "embarfs", sizeof("embarfs"));
            if (access(buf, X_OK) == 0)
                return buf;
        }
    }
    return "embarfs";
}

static void __attribute__((noreturn))
become_daemon(const struct daemon *d, const struct daemon_options *options, const char *program,
              const char *socket_path)
{
    char spec[PATH_MAX];
    char workers[16];
    const char *argv[24];
    int n = 0;
    argv[n++] = program;
    argv[n++] = d->mount;
    argv[n++] = "-f";
    argv[n++] = "--listen";
    argv[n++] = "127.0.0.1:0";
    argv[n++] = "--socket";
    argv[n++] = socket_path;
    argv[n++] = "--cxl";
    (void)snprintf(spec, sizeof(spec), "mem:%llu", (unsigned long long)options->size);
    argv[n++] = options->spec ? options->spec : spec;
    if (options->spec && !strchr(options->spec, ':') &&
        strncmp(options->spec, "/dev/dax", 8) != 0) {
        (void)snprintf(spec, sizeof(spec), "%llu", (unsigned long long)options->size);
        argv[n++] = "--size";
        argv[n++] = spec;
    }
    if (options->flush) {
        argv[n++] = "--flush";
        argv[n++] = options->flush;
    }
    if (options->workers) {
        (void)snprintf(workers, sizeof(workers), "%u", options->workers);
        argv[n++] = "--workers";
        argv[n++] = workers;
    }
    argv[n] = NULL;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int log = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (null >= 0)
        (void)dup2(null, 0);
    if (log >= 0) {
        (void)dup2(log, 1);
        (void)dup2(log, 2);
    }
    (void)signal(SIGINT, SIG_IGN); /* it is ended by SIGTERM, after the clients */
    execvp(program, (char *const *)(uintptr_t)argv);
    (void)fprintf(stderr, "%s cannot be started: %s. Name it with --embarfs.\n", program,
                  strerror(errno));
    _exit(127);
}

/* The daemon's own last line is the best explanation there is. */
static void last_words(const struct daemon *d, char *text, size_t size)
{
    text[0] = '\0';
    FILE *f = fopen(d->log, "re");
    if (!f)
        return;
    char line[512];
    while (fgets(line, sizeof(line), f))
        if (line[0] != '\n')
            (void)snprintf(text, size, "%s", line);
    (void)fclose(f);
    size_t n = strcspn(text, "\n");
    while (n > 0 && text[n - 1] == '.')
        n--;
    text[n] = '\0';
}

static int await_mount(struct daemon *d, struct embar_error *err)
{
    uint64_t deadline = clock_ns() + START_MS * UINT64_C(1000000);
    char said[512];
    for (;;) {
        json_t *o = read_status(d);
        if (o) {
            json_decref(o);
            return 0;
        }
        int status;
        if (proc_wait(d->pid, 0, &status) == 0) {
            d->pid = 0;
            last_words(d, said, sizeof(said));
            return embar_fail(err, -EMBAR_ENOSERVER, "embarfs did not start: %s.",
                              *said ? said : "it said nothing");
        }
        if (clock_ns() > deadline)
            return embar_fail(err, -ETIMEDOUT, "embarfs did not mount %s within %u s.", d->mount,
                              START_MS / 1000);
        clock_sleep(5000000);
    }
}

static int start_own(struct daemon *d, const struct daemon_options *options,
                     struct embar_error *err)
{
    char buf[PATH_MAX];
    char dir[128];
    char socket_path[160];
    const char *program = find_program(options, buf, sizeof(buf));
    int rc = keeper_make_directory(dir, sizeof(dir), 0);
    if (rc == 0) {
        (void)snprintf(d->log, sizeof(d->log), "%s/log", dir);
        (void)snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
        rc = keeper_make_directory(d->mount, sizeof(d->mount), 0);
    }
    if (rc == 0)
        rc = keeper_mount(d->mount);
    if (rc)
        return embar_fail(err, rc, "a private directory for embarfs");
    d->ours = true;
    d->pid = proc_fork();
    if (d->pid == 0)
        become_daemon(d, options, program, socket_path);
    if (d->pid < 0)
        return embar_fail(err, -errno, "starting embarfs");
    return await_mount(d, err);
}

int daemon_open(struct daemon *d, const struct daemon_options *options, struct embar_error *err)
{
    memset(d, 0, sizeof(*d));
    int rc = 0;
    struct stat st;
    const char *mount = options->mount;
    if (!mount && options->server && stat(options->server, &st) == 0 && S_ISDIR(st.st_mode))
        mount = options->server;
    if (options->server && !mount) {
        (void)snprintf(d->server, sizeof(d->server), "%s", options->server);
        d->token_file = options->token_file;
        return daemon_refresh(d, err);
    }
    if (mount) {
        char *real = realpath(mount, NULL);
        if (!real || strlen(real) >= sizeof(d->mount)) {
            free(real);
            return embar_fail(err, -errno, "The mount point %s", mount);
        }
        (void)snprintf(d->mount, sizeof(d->mount), "%s", real);
        free(real);
    } else {
        rc = start_own(d, options, err);
    }
    if (rc == 0)
        rc = adopt_mount(d, options->unix_socket, err);
    if (rc)
        daemon_close(d);
    return rc;
}

void daemon_close(struct daemon *d)
{
    if (d->ours && d->pid > 0) {
        proc_end(d->pid, 30000);
        mount_remove(d->mount);
    }
    d->pid = 0;
    d->ours = false;
}

int daemon_connect(const struct daemon *d, struct embar_client **client, struct embar_error *err)
{
    char token[PATH_MAX];
    struct embar_options o = {.server = d->server, .token_file = d->token_file};
    if (!o.token_file && *d->mount) {
        (void)snprintf(token, sizeof(token), "%s/.embar/token", d->mount);
        o.token_file = token;
    }
    return embar_connect(client, &o, err);
}

int daemon_refresh(struct daemon *d, struct embar_error *err)
{
    struct embar_client *client = NULL;
    char *text = NULL;
    int rc = daemon_connect(d, &client, err);
    if (rc == 0)
        rc = embar_stat(client, NULL, &text, err);
    if (rc == 0) {
        json_t *o = json_loads(text, 0, NULL);
        const json_t *pool = json_object_get(o, "pool");
        d->size = number(pool, "size");
        d->free = number(pool, "free");
        if (!*d->durability)
            take(d->durability, sizeof(d->durability), o, "durability");
        json_decref(o);
    }
    free(text);
    embar_disconnect(client);
    return rc;
}

int daemon_remove(struct daemon *d, const char *topic, struct embar_error *err)
{
    struct embar_client *client = NULL;
    uint64_t before = d->free;
    int rc = daemon_connect(d, &client, err);
    if (rc == 0)
        rc = embar_remove(client, topic, err);
    embar_disconnect(client);
    if (rc == -ENOENT)
        return 0;
    /* Space comes back when the last pin is gone. */
    uint64_t deadline = clock_ns() + SPACE_MS * UINT64_C(1000000);
    while (rc == 0) {
        rc = daemon_refresh(d, err);
        if (rc || d->free + (d->size >> 5) >= before || clock_ns() > deadline)
            break;
        clock_sleep(5000000);
    }
    return rc;
}
