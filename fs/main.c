/* embarfs: the program. The command line, and the order of starting and ending: whatever can be
 * refused without touching anything is refused first, and the pool is closed before the mount
 * point is given back.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "core/plain.h"
#include "fs/fs.h"
#include "net/mounts.h"
#include "net/program.h"
#include "net/server/server.h"

#define WRITE_WAIT 30 /* seconds */

const char *argp_program_version = "embarfs " EMBAR_VERSION;

enum key {
    KEY_CXL = 256,
    KEY_SIZE,
    KEY_DURABILITY,
    KEY_FLUSH,
    KEY_LISTEN,
    KEY_SOCKET,
    KEY_WORKERS,
    KEY_PIN,
    KEY_STAGING,
    KEY_NO_AUTO_CREATE,
    KEY_INSECURE,
    KEY_WRITE_WAIT,
    KEY_HOLD,
    KEY_SESSIONS,
    KEY_SESSION_LIFETIME
};

static const struct argp_option options[] = {
    {"cxl", KEY_CXL, "SPEC", 0,
     "The pool's memory: /dev/daxX.Y, a file's path, mem:SIZE or node:N[:SIZE] (default: a file in "
     "the state directory)",
     0},
    {"size", KEY_SIZE, "N", 0, "Size of a pool that is made, like 64M or 2GiB", 0},
    {"durability", KEY_DURABILITY, "process|machine", 0,
     "What an ack survives (default: what the memory gives by itself)", 0},
    {"flush", KEY_FLUSH, "auto|none|clwb|clflushopt|nt", 0, "How stores are written back", 0},
    {"listen", KEY_LISTEN, "ADDR:PORT", 0,
     "Where clients connect (default: 127.0.0.1:7447, or a free port when that is taken)", 0},
    {"socket", KEY_SOCKET, "PATH", 0,
     "The Unix socket (default: in $XDG_RUNTIME_DIR/embar, /run/embar or /run/user/UID/embar)", 0},
    {"workers", KEY_WORKERS, "N", 0, "Threads that serve the network (default: by processors)", 0},
    {"pin", KEY_PIN, "auto|none|LIST", 0,
     "Processors of these threads, like 0,2-5 (default: auto: near the pool's memory)", 0},
    {"staging", KEY_STAGING, "N", 0,
     "Memory for batches that arrive slowly (default: by the machine's memory)", 0},
    {"no-auto-create", KEY_NO_AUTO_CREATE, NULL, 0, "Publishing over the network makes no topics",
     0},
    {"insecure", KEY_INSECURE, NULL, 0, "Allow --listen on an address that is not loopback", 0},
    {"write-wait", KEY_WRITE_WAIT, "SECONDS", 0,
     "How long a write to a full pool waits before ENOSPC (default: 30)", 0},
    {"hold", KEY_HOLD, "MS", 0,
     "How long a session's later batches wait for one that is missing (default: 2000)", 0},
    {"sessions", KEY_SESSIONS, "N", 0, "Sessions that the pool keeps at most (default: 65536)", 0},
    {"session-lifetime", KEY_SESSION_LIFETIME, "SECONDS", 0,
     "Idle for longer, a session may make room for a new one (default: 86400)", 0},
    {"foreground", 'f', NULL, 0, "Stay in the foreground", 0},
    {"debug", 'd', NULL, 0, "Show every request; implies -f", 0},
    {NULL, 'o', "OPTS", 0, "Mount options, as mount.fuse3(8) has them", 0},
    {0}};

static unsigned number_parse(struct argp_state *state, const char *what, const char *text,
                             unsigned long max)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno || *text < '0' || *text > '9' || *end || n > max)
        argp_error(state, "%s is a number from 0 to %lu, not \"%s\".", what, max, text);
    return (unsigned)n;
}

static int durability_parse(struct argp_state *state, const char *text)
{
    if (strcmp(text, "machine") == 0)
        return MEDIA_DURABLE_MACHINE;
    if (strcmp(text, "process") != 0)
        argp_error(state, "--durability is process or machine, not \"%s\".", text);
    return MEDIA_DURABLE_PROCESS;
}

/* A pool's file is named from the caller's directory, which the daemon leaves; the table of mounts and
 * .embar/status tell it to others. */
static const char *spec_parse(struct argp_state *state, const char *arg)
{
    char here[PATH_MAX], *path;
    bool is_path = *arg && strncmp(arg, "mem:", 4) != 0 && strncmp(arg, "node:", 5) != 0;
    if (!is_path || *arg == '/')
        return arg;
    if (getcwd(here, sizeof here) && asprintf(&path, "%s/%s", here, arg) >= 0)
        return path;
    argp_failure(state, EXIT_FAILURE, errno, "--cxl %s", arg);
    return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct fs *fs = state->input;
    struct fs_options *o = &fs->opt;
    struct embar_error err;
    switch (key) {
    case KEY_CXL: o->spec = spec_parse(state, arg); return 0;
    case KEY_SIZE:
        if (size_parse(arg, &o->size) || o->size == 0)
            argp_error(state, "--size is a number of bytes like 64M or 2GiB, not \"%s\".", arg);
        return 0;
    case KEY_DURABILITY: o->durability = durability_parse(state, arg); return 0;
    case KEY_FLUSH:
        if (flush_mode_parse(arg, &o->flush))
            argp_error(state, "--flush is auto, none, clwb, clflushopt or nt, not \"%s\".", arg);
        return 0;
    case KEY_LISTEN: o->listen = arg; return 0;
    case KEY_SOCKET: o->socket = arg; return 0;
    case KEY_WORKERS: o->workers = number_parse(state, "--workers", arg, 64); return 0;
    case KEY_PIN:
        if (pin_parse(arg, &o->pin, &err))
            argp_error(state, "%s", err.text);
        return 0;
    case KEY_STAGING:
        if (size_parse(arg, &o->staging) || o->staging < STAGING_MIN || o->staging > STAGING_MAX)
            argp_error(state, "--staging is a number of bytes from 2M to 64G, not \"%s\".", arg);
        return 0;
    case KEY_NO_AUTO_CREATE: o->no_auto_create = true; return 0;
    case KEY_INSECURE: o->insecure = true; return 0;
    case KEY_WRITE_WAIT:
        o->write_wait = number_parse(state, "--write-wait", arg, 1000000);
        return 0;
    case KEY_HOLD: o->hold_ms = number_parse(state, "--hold", arg, 3600000); return 0;
    case KEY_SESSIONS: o->sessions = number_parse(state, "--sessions", arg, 1u << 24); return 0;
    case KEY_SESSION_LIFETIME:
        o->session_lifetime_s = number_parse(state, "--session-lifetime", arg, 1u << 30);
        return 0;
    case 'f': o->foreground = true; return 0;
    case 'd': o->foreground = o->debug = true; return 0;
    case 'o':
        return fuse_opt_add_arg(&fs->fuse_args, "-o") || fuse_opt_add_arg(&fs->fuse_args, arg)
                   ? ENOMEM
                   : 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one mount point, please: \"%s\" is one too many.", arg);
        o->mountpoint = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->mountpoint)
            argp_error(state, "name the mount point: embarfs MOUNTPOINT.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MOUNTPOINT",
    .doc = "Mount a log over CXL memory: topics are append-only files, a broker serves the network."
           "\vReturns when the mount answers. Unmount with umount or fusermount3 -u. "
           "See embarfs(8)."};

static int exit_status(int code)
{
    switch (-code) {
    case EMBAR_ENOTPOOL:
    case EMBAR_EVERSION:
    case EMBAR_EFEATURE:
    case EMBAR_ECORRUPT:
    case EMBAR_EINCARNATION: return EX_DATAERR;
    case ENOENT:
    case EISDIR:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG: return EX_NOINPUT;
    case EMBAR_EBUSY:
    case EBUSY:
    case ENXIO:
    case EEXIST:
    case EADDRINUSE:
    case EADDRNOTAVAIL: return EX_UNAVAILABLE;
    case ECANCELED: return EX_TEMPFAIL;
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EFBIG: return EX_CANTCREAT;
    case EPERM:
    case EACCES: return EX_NOPERM;
    case EMBAR_ESPEC:
    case EMBAR_ESIZE:
    case EMBAR_ETOOSMALL:
    case EMBAR_EINVALID: return EX_USAGE;
    case EIO:
    case EMBAR_EFAULTED: return EX_IOERR;
    default: return EX_OSERR;
    }
}

/* ---- Starting ------------------------------------------------------------------------------- */

static void show_progress(void *arg, uint64_t done, uint64_t total)
{
    unsigned *last = arg;
    unsigned percent = total ? (unsigned)(done * 100 / total) : 100;
    if (percent == *last)
        return;
    *last = percent;
    dprintf(STDERR_FILENO, "\rembarfs: preparing memory: %3u %%%s", percent,
            percent == 100 ? "\n" : "");
}

static int open_region(struct fs *fs, struct embar_error *err)
{
    struct region_options ro = {.spec = fs->opt.spec,
                                .size = fs->opt.size,
                                .create = true,
                                .flush = fs->opt.flush,
                                .durability = fs->opt.durability};
    if (!ro.spec)
        made_expect(&fs->made);
    int rc = region_open(&fs->region, &ro, err);
    if (rc)
        return rc;
    made_region(&fs->made, &fs->region);
    unsigned percent = 100;
    bool large = fs->region.size >= 256u << 20;
    region_prefault(&fs->region, large && isatty(STDERR_FILENO) ? show_progress : NULL, &percent);
    return 0;
}

static void note(void *arg, const char *text)
{
    (void)arg;
    daemon_note("%s", text);
}

static int open_log(struct fs *fs, struct embar_error *err)
{
    struct log_options lo = {.region = &fs->region,
                             .hold_ms = fs->opt.hold_ms,
                             .sessions = fs->opt.sessions,
                             .session_lifetime_s = fs->opt.session_lifetime_s,
                             .fault = note};
    struct mounts_wait wait = {0};
    for (;;) {
        int rc = log_open(&fs->log, &lo, err);
        if (rc != -EMBAR_EBUSY || !mounts_wait(&wait, fs->region.spec, err->text, note, NULL))
            return rc;
        rc = daemon_awaited(err);
        if (rc)
            return rc;
    }
}

/* The replies thread, between tasks. */
static uint64_t tick(void *arg, uint64_t now)
{
    struct fs *fs = arg;
    uint64_t due = park_tick(&fs->park, now), next = locks_tick(&fs->locks, now);
    due = next < due ? next : due;
    next = answer_tick(now);
    return next < due ? next : due;
}

static int start_threads(struct fs *fs, struct embar_error *err)
{
    fs->producer = log_producer(fs->log, FS_PRODUCER);
    int rc = park_init(&fs->park, fs);
    locks_init(&fs->locks);
    if (rc == 0)
        rc = tasks_start(&fs->replies, "replies", tick, fs);
    if (rc == 0)
        rc = tasks_start(&fs->notify, "notify", NULL, NULL);
    return rc ? embar_fail(err, rc, "The threads of the mount could not be started") : 0;
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* What was made for nothing is taken away again. */
static void __attribute__((noreturn)) give_up(struct fs *fs, int rc, const struct embar_error *err)
{
    broker_stop(fs);
    tasks_stop(&fs->notify);
    tasks_stop(&fs->replies);
    if (fs->log) {
        park_destroy(&fs->park);
        log_close(fs->log);
    }
    made_undo(&fs->made);
    region_close(&fs->region);
    daemon_fail(exit_status(rc), "%s", *err->text ? err->text : embar_strerror(rc));
}

static void start(struct fs *fs)
{
    struct embar_error err = {0};
    int rc = mount_signals(fs, &err);
    if (rc == 0)
        rc = mount_prepare(fs, &err);
    if (rc == 0)
        rc = mount_session(fs, NULL, &err);
    if (rc == 0)
        rc = broker_check(fs, &err);
    if (rc == 0)
        rc = open_region(fs, &err);
    if (rc == 0)
        rc = open_log(fs, &err);
    if (rc == 0)
        rc = start_threads(fs, &err);
    if (rc == 0)
        rc = broker_start(fs, &err);
    if (rc == 0)
        rc = mount_session(fs, fs->region.spec, &err);
    if (rc == 0)
        rc = daemon_awaited(&err);
    if (rc == 0)
        rc = mount_attach(fs, &err);
    if (rc)
        give_up(fs, rc, &err);
}

/* ---- Ending ---------------------------------------------------------------------------------- */

/* Whatever is under way is answered: nothing waits for space any more, and commits come. */
static void drain(struct fs *fs)
{
    while (atomic_load_explicit(&fs->outstanding, memory_order_acquire) > 0) {
        log_commit(fs->log);
        usleep(1000);
    }
}

static void stop(struct fs *fs)
{
    tasks_stop(&fs->notify);
    broker_stop(fs);
    park_close(&fs->park);
    handles_close_all(fs);
    drain(fs);
    tasks_stop(&fs->replies);
    park_destroy(&fs->park);
    locks_destroy(&fs->locks);
    log_close(fs->log);
    region_close(&fs->region);
    mount_detach(fs);
    fuse_session_destroy(fs->session);
    nodes_destroy(&fs->nodes);
    fuse_opt_free_args(&fs->fuse_args);
    pthread_mutex_destroy(&fs->producer_lock);
    pthread_mutex_destroy(&fs->handles_lock);
    free(fs->mountpoint);
}

int main(int argc, char **argv)
{
    static struct fs fs = {.opt = {.durability = -1, .write_wait = WRITE_WAIT},
                           .producer_lock = PTHREAD_MUTEX_INITIALIZER,
                           .handles_lock = PTHREAD_MUTEX_INITIALIZER};
    plain_stderr();
    program_begins("embarfs", EX_IOERR);
    fs.uid = geteuid();
    fs.gid = getegid();
    fs.started = now_ns();
    if (fuse_opt_add_arg(&fs.fuse_args, "embarfs") || nodes_init(&fs.nodes)) {
        fprintf(stderr, "embarfs: %s\n", embar_strerror(ENOMEM));
        return EX_OSERR;
    }
    argp_err_exit_status = EX_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &fs);
    daemon_start(fs.opt.foreground);
    raise_file_limit();
    start(&fs);
    int rc = mount_serve(&fs);
    stop(&fs);
    if (rc)
        daemon_fail(EX_OSERR, "the session ended early: %s", embar_strerror(rc));
    return 0;
}
