/* `embar bench cat`: reading a topic through the mount, against the null direct_io FUSE server and a
 * tmpfs file of the same size: read(2) of 128 KiB and 1 MiB, and the program cat itself. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/keeper.h"
#include "tests/bench/null_fuse.h"
#include "tests/bench/source.h"

extern char **environ;

struct cat_load {
    const char *path;
    uint64_t size;    /* of the file, which must come whole */
    size_t read_size; /* 0: the program cat */
};

static int read_open(struct load_worker *w)
{
    const struct cat_load *load = w->load->arg;
    size_t size = load->read_size;
    w->own = source_make(&size, size, 0); /* prefaulted */
    return w->own ? 0 : embar_fail(&w->report->error, -ENOMEM, "memory to read into");
}

static int read_run(struct load_worker *w)
{
    const struct cat_load *load = w->load->arg;
    int fd = open(load->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return embar_fail(&w->report->error, -errno, "opening %s", load->path);
    ssize_t n;
    while ((n = read(fd, w->own, load->read_size)) > 0)
        w->report->bytes += (uint64_t)n;
    int rc = n < 0 ? -errno : 0;
    (void)close(fd);
    if (rc)
        return embar_fail(&w->report->error, rc, "reading %s", load->path);
    if (w->report->bytes != load->size)
        return embar_fail(&w->report->error, -EIO, "%s gave %llu bytes instead of %llu.",
                          load->path, (unsigned long long)w->report->bytes,
                          (unsigned long long)load->size);
    return 0;
}

static void read_close(struct load_worker *w)
{
    const struct cat_load *load = w->load->arg;
    source_free(w->own, load->read_size);
}

static int cat_run(struct load_worker *w)
{
    const struct cat_load *load = w->load->arg;
    char program[] = "cat";
    char option[] = "--";
    char *path = strdup(load->path);
    if (!path)
        return -ENOMEM;
    char *argv[] = {program, option, path, NULL};
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    pid_t pid;
    int rc = -posix_spawnp(&pid, "cat", &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(path);
    if (rc)
        return embar_fail(&w->report->error, rc, "starting cat");
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return embar_fail(&w->report->error, -errno, "waiting for cat");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return embar_fail(&w->report->error, -EIO, "cat %s failed.", load->path);
    w->report->bytes = load->size;
    return 0;
}

static const struct load_ops read_ops = {.open = read_open, .run = read_run, .close = read_close};
static const struct load_ops cat_ops = {.run = cat_run};

static int make_tmpfs_file(char *path, size_t size, uint64_t bytes, struct embar_error *err)
{
    char dir[128];
    int rc = keeper_make_directory(dir, sizeof(dir), 1);
    if (rc)
        return embar_fail(err, rc, "a directory in /dev/shm");
    (void)snprintf(path, size, "%s/file", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    size_t n = (size_t)1 << 20;
    char *text = source_make(&n, n, 1);
    rc = fd < 0 ? -errno : text ? 0 : -ENOMEM;
    for (uint64_t at = 0; rc == 0 && at < bytes;) {
        size_t want = bytes - at < n ? (size_t)(bytes - at) : n;
        ssize_t done = write(fd, text, want);
        if (done < 0)
            rc = -errno;
        else
            at += (uint64_t)done;
    }
    source_free(text, n);
    if (fd >= 0)
        (void)close(fd);
    return rc ? embar_fail(err, rc, "filling %s", path) : 0;
}

static int compare(const struct bench_options *o, struct report *r, const struct daemon *daemon,
                   const struct null_fuse *null, const char *tmpfs, uint64_t size,
                   struct embar_error *err)
{
    static const struct {
        const char *name;
        size_t size;
    } ways[] = {{"read 128 KiB", 128 << 10}, {"read 1 MiB", 1 << 20}, {"cat > /dev/null", 0}};
    enum { WAYS = sizeof(ways) / sizeof(ways[0]), FILES = 3 };
    static const char *const names[FILES] = {"topic", "null FUSE", "tmpfs"};
    struct cat_load loads[WAYS * FILES];
    struct contestant c[WAYS * FILES];
    char topic[512];
    char name[64];
    (void)snprintf(topic, sizeof(topic), "%s/%s", daemon->mount, o->topic);
    const char *const paths[FILES] = {topic, null->path, tmpfs};
    const pid_t servers[FILES] = {daemon->pid, null->pid, 0};
    unsigned n = 0;
    for (unsigned w = 0; w < WAYS; w++)
        for (unsigned f = 0; f < FILES; f++, n++) {
            loads[n] = (struct cat_load){paths[f], size, ways[w].size};
            (void)snprintf(name, sizeof(name), "%s: %s", names[f], ways[w].name);
            c[n] = (struct contestant){.series = report_series(r, name, "GB/s", 0),
                                       .load = {ways[w].size ? &read_ops : &cat_ops, &loads[n],
                                                o->connections, o->processes, servers[f], 300000}};
        }
    int rc = rounds_run(c, n, o, err);
    for (unsigned w = 0; w < WAYS && rc == 0; w++) {
        report_ratio(r, c[w * FILES].series, c[w * FILES + 1].series);
        report_ratio(r, c[w * FILES].series, c[w * FILES + 2].series);
    }
    return rc;
}

int bench_cat(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    struct null_fuse null;
    char tmpfs[160];
    char a[32];
    uint64_t size = 0;
    int rc = bench_daemon(&daemon, o, err);
    if (rc == 0 && !*daemon.mount)
        rc = embar_fail(err, -EMBAR_EINVALID,
                        "Reading through the mount needs the mount: name it with --mount.");
    if (rc == 0)
        rc = bench_fill(&daemon, o, o->bytes, &size, err);
    if (rc == 0)
        rc = null_fuse_start(&null, size, err);
    if (rc == 0)
        rc = make_tmpfs_file(tmpfs, sizeof(tmpfs), size, err);
    if (rc)
        return rc;
    bench_describe(r, o, &daemon);
    report_fact(r, "a round", "%u readers, each reads all %s", o->connections, bytes_text(size, a));
    report_fact(r, "null FUSE",
                "low-level libfuse, direct_io, max_read 1 MiB, thread pool as "
                "embarfs's, replies from %s of prefaulted memory",
                bytes_text(size, a));
    report_caveat(r, "The null FUSE server does nothing for a read but reply: it is the limit of "
                     "any direct_io file system in user space here. cat reads st_blksize (1 MiB) "
                     "from both mounts and 128 KiB from tmpfs.");
    rc = compare(o, r, &daemon, &null, tmpfs, size, err);
    null_fuse_stop(&null);
    if (rc == 0)
        rc = daemon_remove(&daemon, o->topic, err);
    daemon_close(&daemon);
    return rc;
}
