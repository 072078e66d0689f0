/* The null direct_io FUSE server: one file `data`, low-level libfuse, a thread pool and limits as
 * embarfs has them, each read answered straight from prefaulted memory of the file's whole size, each
 * write taken and forgotten. Must do nothing else: it is what `cat TOPIC` and `>> TOPIC` are compared
 * with.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/region.h"
#include "tests/bench/clock.h"
#include "tests/bench/keeper.h"
#include "tests/bench/null_fuse.h"

#define IO_SIZE  (1u << 20) /* one read's and st_blksize, as embarfs has it */
#define FILE_INO 2u
#define START_MS 60000u

static struct region region;
static uint64_t file_size;

static void fill(fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){.st_ino = ino, .st_blksize = IO_SIZE, .st_uid = geteuid()};
    st->st_mode = ino == FILE_INO ? S_IFREG | 0644 : S_IFDIR | 0555;
    st->st_nlink = ino == FILE_INO ? 1 : 2;
    st->st_size = ino == FILE_INO ? (off_t)file_size : 0;
}

static void on_init(void *arg, struct fuse_conn_info *conn)
{
    (void)arg;
    conn->max_write = IO_SIZE;
    conn->max_read = IO_SIZE;
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {.ino = FILE_INO};
    if (parent != FUSE_ROOT_ID || strcmp(name, "data") != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fill(FILE_INO, &e.attr);
    fuse_reply_entry(req, &e);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;
    (void)fi;
    fill(ino, &st);
    fuse_reply_attr(req, &st, 0);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fi->direct_io = 1;
    fi->noflush = 1;
    fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    uint64_t at = off < 0 || (uint64_t)off > file_size ? file_size : (uint64_t)off;
    uint64_t left = file_size - at;
    fuse_reply_buf(req, region.base + at, left < size ? (size_t)left : size);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    (void)ino;
    (void)buf;
    (void)off;
    (void)fi;
    fuse_reply_write(req, size);
}

static const struct fuse_lowlevel_ops ops = {
    .init = on_init,
    .lookup = on_lookup,
    .getattr = on_getattr,
    .open = on_open,
    .read = on_read,
    .write = on_write,
};

static int serve(const char *mount)
{
    char max_read[32];
    char spec[48];
    (void)snprintf(max_read, sizeof(max_read), "-omax_read=%u", IO_SIZE);
    (void)snprintf(spec, sizeof(spec), "mem:%llu", (unsigned long long)file_size);
    struct embar_error err = {0};
    struct region_options ro = {.spec = spec, .flush = FLUSH_NONE, .durability = -1};
    if (region_open(&region, &ro, &err)) {
        (void)fprintf(stderr, "embar bench: %s\n", err.text);
        return 1;
    }
    region_prefault(&region, NULL, NULL);
    for (uint64_t at = 0; at < file_size; at++)
        region.base[at] = (char)('a' + at % 26);
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    if (fuse_opt_add_arg(&args, "embar-bench") || fuse_opt_add_arg(&args, max_read) ||
        fuse_opt_add_arg(&args, "-ofsname=embar-bench,subtype=null,default_permissions"))
        return 1;
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
    if (!session)
        return 1;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int rc = 1;
    if (config && fuse_set_signal_handlers(session) == 0 &&
        fuse_session_mount(session, mount) == 0) {
        fuse_loop_cfg_set_clone_fd(config, 0);
        fuse_loop_cfg_set_max_threads(config, cores < 4 ? 8 : (unsigned)cores * 2);
        rc = fuse_session_loop_mt(session, config);
        fuse_session_unmount(session);
    }
    fuse_loop_cfg_destroy(config);
    fuse_session_destroy(session);
    fuse_opt_free_args(&args);
    return rc == 0 ? 0 : 1;
}

int null_fuse_start(struct null_fuse *null, uint64_t size, struct embar_error *err)
{
    memset(null, 0, sizeof(*null));
    file_size = size;
    int rc = keeper_make_directory(null->mount, sizeof(null->mount), 0);
    if (rc == 0)
        rc = keeper_mount(null->mount);
    if (rc)
        return embar_fail(err, rc, "a mount point for the null FUSE server");
    (void)snprintf(null->path, sizeof(null->path), "%s/data", null->mount);
    null->pid = proc_fork();
    if (null->pid == 0)
        _exit(serve(null->mount));
    if (null->pid < 0)
        return embar_fail(err, -errno, "starting the null FUSE server");
    uint64_t deadline = clock_ns() + START_MS * UINT64_C(1000000);
    struct stat st;
    while (stat(null->path, &st) < 0) {
        int status;
        if (proc_wait(null->pid, 0, &status) == 0) {
            null->pid = 0;
            return embar_fail(err, -EIO,
                              "The null FUSE server could not mount %s: is /dev/fuse there and "
                              "fusermount3 installed?",
                              null->mount);
        }
        if (clock_ns() > deadline) {
            null_fuse_stop(null);
            return embar_fail(err, -ETIMEDOUT, "The null FUSE server did not start.");
        }
        clock_sleep(2000000);
    }
    return 0;
}

void null_fuse_stop(struct null_fuse *null)
{
    if (null->pid > 0) {
        mount_remove(null->mount);
        proc_end(null->pid, 5000);
    }
    null->pid = 0;
}
