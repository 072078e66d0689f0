/* `embar bench append`: write(2) with O_APPEND through the mount, 4 KiB and 1 MiB of whole lines a
 * call, against the null FUSE server, which takes each write and does nothing with it, and a file
 * on tmpfs. A topic's write returns when its lines are committed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/keeper.h"
#include "tests/bench/null_fuse.h"
#include "tests/bench/source.h"

enum { SIZES = 2, FILES = 3, SOURCE = 16u << 20 };

struct append_load {
    const char *path;
    uint64_t bytes; /* of a worker */
    size_t write_size, message;
};

struct append_source {
    char *text;
    size_t size;
    int fd;
};

static int append_open(struct load_worker *w)
{
    const struct append_load *load = w->load->arg;
    struct append_source *s = calloc(1, sizeof(*s));
    if (!s)
        return embar_fail(&w->report->error, -ENOMEM, "a writer");
    w->own = s;
    s->size = SOURCE;
    s->text = source_make(&s->size, load->message, w->index);
    s->fd = open(load->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (!s->text)
        return embar_fail(&w->report->error, -ENOMEM, "memory to write from");
    return s->fd < 0 ? embar_fail(&w->report->error, -errno, "opening %s", load->path) : 0;
}

static int append_run(struct load_worker *w)
{
    const struct append_load *load = w->load->arg;
    const struct append_source *s = w->own;
    size_t size = load->write_size / load->message * load->message; /* whole lines */
    size_t at = 0;
    while (w->report->bytes < load->bytes) {
        if (at + size > s->size)
            at = 0;
        ssize_t n = write(s->fd, s->text + at, size);
        if (n != (ssize_t)size)
            return embar_fail(&w->report->error, n < 0 ? -errno : -EIO, "writing %s", load->path);
        w->report->bytes += size;
        w->report->messages += size / load->message;
        at += size;
    }
    return 0;
}

static void append_close(struct load_worker *w)
{
    struct append_source *s = w->own;
    if (!s)
        return;
    if (s->fd >= 0)
        (void)close(s->fd);
    source_free(s->text, s->size);
    free(s);
}

static const struct load_ops append_ops = {
    .open = append_open, .run = append_run, .close = append_close};

/* Before a round on tmpfs: as empty as the topic is. */
static int empty_file(void *arg, struct embar_error *err)
{
    const char *path = arg;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return embar_fail(err, -errno, "making %s", path);
    (void)close(fd);
    return 0;
}

static int compare(const struct bench_options *o, struct report *r, struct daemon *daemon,
                   const struct null_fuse *null, char *tmpfs, struct embar_error *err)
{
    static const struct {
        const char *name;
        size_t size;
    } sizes[SIZES] = {{"4 KiB", 4 << 10}, {"1 MiB", 1 << 20}};
    static const char *const names[FILES] = {"topic", "null FUSE", "tmpfs"};
    struct append_load loads[SIZES * FILES];
    struct contestant c[SIZES * FILES];
    struct bench_subject subject = {daemon, o};
    char topic[512];
    char name[64];
    (void)snprintf(topic, sizeof(topic), "%s/%s", daemon->mount, o->topic);
    const char *const paths[FILES] = {topic, null->path, tmpfs};
    const pid_t servers[FILES] = {daemon->pid, null->pid, 0};
    unsigned n = 0;
    for (unsigned s = 0; s < SIZES; s++)
        for (unsigned f = 0; f < FILES; f++, n++) {
            loads[n] = (struct append_load){paths[f], o->bytes / o->connections, sizes[s].size,
                                            o->message_size};
            (void)snprintf(name, sizeof(name), "%s: write %s", names[f], sizes[s].name);
            c[n] = (struct contestant){
                .series = report_series(r, name, "GB/s", 0),
                .load = {&append_ops, &loads[n], o->connections, o->processes, servers[f], 300000}};
            if (f == 0) {
                c[n].before = subject_topic;
                c[n].after = subject_drop;
                c[n].arg = &subject;
            } else if (f == 2) {
                c[n].before = c[n].after = empty_file;
                c[n].arg = tmpfs;
            }
        }
    int rc = rounds_run(c, n, o, err);
    for (unsigned s = 0; s < SIZES && rc == 0; s++) {
        report_ratio(r, c[s * FILES].series, c[s * FILES + 1].series);
        report_ratio(r, c[s * FILES].series, c[s * FILES + 2].series);
    }
    return rc;
}

int bench_append(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    struct daemon daemon;
    struct null_fuse null;
    char dir[128];
    char tmpfs[160];
    char a[32];
    if (o->message_size > 4096)
        return embar_fail(err, -EMBAR_EINVALID,
                          "append writes whole lines, 4 KiB at a time: --message-size is 4096 at "
                          "most.");
    int rc = bench_daemon(&daemon, o, err);
    if (rc == 0 && !*daemon.mount)
        rc = embar_fail(err, -EMBAR_EINVALID,
                        "Writing through the mount needs the mount: name it with --mount.");
    if (rc == 0)
        rc = null_fuse_start(&null, 4u << 20, err);
    if (rc == 0) {
        rc = keeper_make_directory(dir, sizeof(dir), 1);
        rc = rc ? embar_fail(err, rc, "a directory in /dev/shm") : 0;
    }
    if (rc)
        return rc;
    (void)snprintf(tmpfs, sizeof(tmpfs), "%s/file", dir);
    bench_describe(r, o, &daemon);
    report_fact(r, "a round",
                "%u writers append %s in lines of %u bytes, each to an open file of "
                "its own",
                o->connections, bytes_text(o->bytes, a), o->message_size);
    report_caveat(r, "The null FUSE server does nothing for a write but reply: it is the limit of "
                     "any file system in user space here that does not cache writes. tmpfs commits "
                     "nothing.");
    rc = compare(o, r, &daemon, &null, tmpfs, err);
    null_fuse_stop(&null);
    daemon_close(&daemon);
    return rc;
}
