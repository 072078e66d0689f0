/* The mount point and the session that serves it (step 9): checks, stale mounts of crashed daemons,
 * signals, and the end. Must never touch the pool.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "fs/fs.h"
#include "net/mounts.h"

/* What libfuse said last: it prints where we want a sentence. Only used while starting. */
static char fuse_said[512];

static void hear_fuse(enum fuse_log_level level, const char *fmt, va_list args)
{
    static bool heard;
    char text[512];
    vsnprintf(text, sizeof text, fmt, args);
    bool whole = strchr(text, '\n') != NULL;
    text[strcspn(text, "\n")] = '\0';
    if (level > FUSE_LOG_WARNING) {
        fprintf(stderr, "%s\n", text);
    } else if (!heard) {
        size_t n = strlen(fuse_said); /* a sentence may come in pieces */
        snprintf(fuse_said + n, sizeof fuse_said - n, "%s", text);
        heard = whole;
    }
}

static void hear_fuse_serving(enum fuse_log_level level, const char *fmt, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    if (level > FUSE_LOG_WARNING)
        fprintf(stderr, "%s\n", text); /* only with -d, which implies -f */
    else
        daemon_note("%s", text);
}

static bool is_at(const struct mntent *m, const void *path)
{
    return strcmp(m->mnt_dir, path) == 0;
}

static int run_fusermount(const char *path)
{
    pid_t child = fork();
    if (child == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", path, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 ? 0 : -EPERM;
}

/* The daemon behind `path` is gone: take its mount away. */
static int clean_stale(const char *path, struct embar_error *err)
{
    int rc = umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) ? run_fusermount(path) : 0;
    if (rc)
        return embar_fail(err, rc,
                          "%s is the mount of a daemon that is gone, and it cannot be unmounted: "
                          "run `fusermount3 -u %s` as its owner or `umount %s` as root.",
                          path, path, path);
    daemon_note("unmounted %s: the daemon that served it is gone.", path);
    return 0;
}

static int is_free(const struct fs *fs, struct embar_error *err)
{
    if (mounts_any(is_at, fs->mountpoint))
        return embar_fail(err, -EMBAR_EBUSY,
                          "%s is an embarfs mount already, and its daemon is alive: unmount it "
                          "first (umount %s), or choose another mount point.",
                          fs->mountpoint, fs->mountpoint);
    return 0;
}

int mount_prepare(struct fs *fs, struct embar_error *err)
{
    const char *path = fs->opt.mountpoint;
    struct stat st;
    int rc = stat(path, &st) ? -errno : 0;
    if (rc == -ENOTCONN || rc == -ECONNABORTED) {
        rc = clean_stale(path, err);
        if (rc)
            return rc;
        rc = stat(path, &st) ? -errno : 0;
    }
    if (rc == -ENOENT)
        return embar_fail(err, rc, "The mount point %s does not exist: make it (mkdir %s).", path,
                          path);
    if (rc)
        return embar_fail(err, rc, "The mount point %s cannot be used", path);
    if (!S_ISDIR(st.st_mode))
        return embar_fail(err, -ENOTDIR,
                          "The mount point %s is not a directory: name one, and it need not be "
                          "empty.",
                          path);
    fs->mountpoint = realpath(path, NULL);
    if (!fs->mountpoint)
        return embar_fail(err, -errno, "The mount point %s cannot be resolved", path);
    if (strcmp(fs->mountpoint, "/") == 0)
        return embar_fail(err, -EMBAR_EINVALID,
                          "The mount point is the root directory, which everything else stands "
                          "in: name another one.");
    return is_free(fs, err);
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->max_write = FS_IO_SIZE;
    conn->max_read = FS_IO_SIZE;
    conn->want |= conn->capable & (FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS |
                                   FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
    /* Splicing costs here, and nothing is cached that could be invalidated. */
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                              FUSE_CAP_HANDLE_KILLPRIV);
    daemon_ready();
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .poll = op_poll,
    .lseek = op_lseek,
    .getlk = op_getlk,
    .setlk = op_setlk,
    .flock = op_flock,
};

/* Others may look in when that is allowed: always as root, else by /etc/fuse.conf. */
static bool others_allowed(void)
{
    if (geteuid() == 0)
        return true;
    FILE *f = fopen("/etc/fuse.conf", "re");
    char line[256];
    bool allowed = false;
    while (f && !allowed && fgets(line, sizeof line, f)) {
        const char *p = line + strspn(line, " \t");
        size_t n = strcspn(p, " \t\r\n#");
        allowed = n == strlen("user_allow_other") && strncmp(p, "user_allow_other", n) == 0;
    }
    if (f)
        fclose(f);
    return allowed;
}

/* A comma in a value would begin another option. */
static int add_source(struct fuse_args *args, const char *source)
{
    char *escaped = NULL, option[PATH_MAX + 8];
    if ((size_t)snprintf(option, sizeof option, "fsname=%s", source) >= sizeof option)
        return -1;
    int rc = fuse_opt_add_opt_escaped(&escaped, option);
    rc = rc || fuse_opt_add_arg(args, "-o") || fuse_opt_add_arg(args, escaped);
    free(escaped);
    return rc;
}

int mount_session(struct fs *fs, const char *source, struct embar_error *err)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    char max_read[32];
    snprintf(max_read, sizeof max_read, "-omax_read=%u", FS_IO_SIZE);
    int bad = 0;
    for (int i = 0; i < fs->fuse_args.argc; i++)
        bad |= fuse_opt_add_arg(&args, fs->fuse_args.argv[i]);
    bad |= add_source(&args, source ? source : "embarfs");
    bad |= fuse_opt_add_arg(&args, max_read);
    bad |= fuse_opt_add_arg(&args, "-osubtype=embarfs,default_permissions");
    if (others_allowed())
        bad |= fuse_opt_add_arg(&args, "-oallow_other");
    if (fs->opt.debug)
        bad |= fuse_opt_add_arg(&args, "-d");
    fuse_set_log_func(hear_fuse);
    struct fuse_session *session =
        bad ? NULL : fuse_session_new(&args, &operations, sizeof operations, fs);
    fuse_opt_free_args(&args);
    if (!session)
        return embar_fail(err, -EMBAR_ESPEC, "%s; see embarfs(8) and mount.fuse3(8) for -o.",
                          *fuse_said ? fuse_said : "The mount options were not accepted");
    if (source)
        fs->session = session;
    else
        fuse_session_destroy(session);
    return 0;
}

/* libfuse answers -1 for whatever it was, and tells the reason in words alone. */
static int refusal(const char *said)
{
    static const int reasons[] = {EMFILE, ENFILE, ENOMEM, ENODEV, ENXIO, ENOENT};
    if (strstr(said, "device not found"))
        return -ENXIO;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (strstr(said, strerror(reasons[i])))
            return reasons[i] == ENODEV || reasons[i] == ENOENT ? -ENXIO : -reasons[i];
    return -EPERM;
}

static int not_mounted(const struct fs *fs, struct embar_error *err)
{
    const char *said = *fuse_said ? fuse_said : "no reason was given";
    int rc = refusal(fuse_said);
    if (rc == -EPERM || rc == -ENXIO)
        return embar_fail(err, rc, "%s could not be mounted (%s).", fs->mountpoint, said);
    return embar_fail(err, rc, "%s could not be mounted (%s)", fs->mountpoint, said);
}

int mount_attach(struct fs *fs, struct embar_error *err)
{
    /* Somebody else may have mounted there while this one waited for its pool. */
    int rc = is_free(fs, err);
    if (rc)
        return rc;
    if (fuse_session_mount(fs->session, fs->mountpoint))
        return not_mounted(fs, err);
    fuse_set_log_func(hear_fuse_serving);
    rc = answer_through(fs->session, &fs->replies);
    if (rc)
        return embar_fail(err, rc, "%s could not be mounted", fs->mountpoint);
    return 0;
}

/* ---- Serving: the main thread waits for those that serve (session.c), one of ours for signals. ---- */

enum phase { STARTING, SERVING, ENDED };

static struct {
    struct fs *fs;
    pthread_t thread;
    atomic_int phase;
} ender;

static void *wait_for_signal(void *arg)
{
    const sigset_t *set = arg;
    int which;
    while (sigwait(set, &which) != 0)
        ;
    int starting = STARTING;
    if (atomic_compare_exchange_strong(&ender.phase, &starting, ENDED)) {
        made_undo(&ender.fs->made);
        daemon_fail(EX_TEMPFAIL, "told to end (signal %d, %s) while starting.", which,
                    strsignal(which));
    }
    session_end(ender.fs->session);
    return NULL;
}

int mount_signals(struct fs *fs, struct embar_error *err)
{
    static sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* all threads inherit it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* the call that meets ulimit -f says so */
    ender.fs = fs;
    int rc = -pthread_create(&ender.thread, NULL, wait_for_signal, &set);
    return rc ? embar_fail(err, rc, "No thread for signals could be made") : 0;
}

int mount_serve(struct fs *fs)
{
    int starting = STARTING;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!atomic_compare_exchange_strong(&ender.phase, &starting, SERVING))
        pause(); /* the signal thread is ending the process */
    /* No handler waits, so that a few more than there are cores are enough. */
    int rc = session_serve(fs->session, cores < 4 ? 8 : (unsigned)cores * 2);
    atomic_store_explicit(&ender.phase, ENDED, memory_order_release);
    pthread_kill(ender.thread, SIGHUP); /* it only waits for signals */
    pthread_join(ender.thread, NULL);
    return rc;
}

void mount_detach(struct fs *fs)
{
    fuse_session_unmount(fs->session);
}
