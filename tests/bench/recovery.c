/* `embar bench recovery`: how long a pool takes to open, by the number of batches in it: killed
 * without a checkpoint, so that the whole index is replayed, and closed, so that none of it is.
 *
 * A child fills a pool in shared memory and dies; each round opens its own private copy of that.
 * Everything is in core memory and mapped before the clock starts: what is measured is the work of
 * recovery. Two shapes: batches of one publisher a topic, which merge into long runs; and batches
 * none of which is adjacent to another, which is the worst there is. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log.h"
#include "tests/bench/bench.h"
#include "tests/bench/clock.h"

#define GROUP 256u /* batches announced before an epoch */

struct scene {
    const struct bench_options *o;
    uint64_t batches, size;
    unsigned topics;
    bool apart;
    int fd;
};

struct figures {
    double replay, load, checkpoint; /* seconds */
    double bytes;                    /* DRAM */
    uint64_t entries;
};

/* ---- Filling ------------------------------------------------------------------------------ */

struct waiting {
    struct completion completion;
    struct batch batch;
    unsigned *failed;
};

static void waited(struct completion *self, const struct commit *commit)
{
    struct waiting *w = (struct waiting *)self;
    *w->failed += commit->status != 0;
}

static int make_topic(struct log *log, unsigned i, struct topic **t)
{
    struct control c = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = 5};
    struct commit commit;
    (void)snprintf(c.name, sizeof c.name, "t%u", i);
    int rc = log_control_wait(log, &c, &commit);
    *t = rc ? NULL : log_topic(log, commit.id);
    return rc;
}

/* One batch of one message; `apart`: with a hole behind it, given back when the next one stands. */
static int put_batch(struct log *log, struct waiting *w, const struct scene *s, struct topic *t,
                     struct batch *hole)
{
    struct batch next = {.topic = t, .length = 64, .count = 1, .equal = true};
    w->completion.done = waited;
    w->batch = (struct batch){.topic = t,
                              .length = s->o->message_size,
                              .count = 1,
                              .equal = true,
                              .completion = &w->completion};
    int rc = log_reserve(log, &w->batch);
    if (rc)
        return rc;
    if (s->apart) {
        rc = log_reserve(log, &next);
        if (rc)
            return rc;
        if (hole->topic)
            log_abandon(log, hole);
        *hole = next;
    }
    uint32_t n;
    for (uint32_t at = 0; at < w->batch.length; at += n) {
        void *to = log_span(log, &w->batch, at, &n);
        memset(to, 'e', n);
    }
    rc = log_announce(log_producer(log, 0), &w->batch);
    return rc;
}

static int fill(struct log *log, const struct scene *s)
{
    static struct waiting w[GROUP];
    static struct batch hole[1000];
    struct topic *t[1000];
    unsigned failed = 0;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < s->topics; i++)
        rc = make_topic(log, i, &t[i]);
    for (uint64_t i = 0; rc == 0 && i < s->batches; i++) {
        /* Some batches of a topic in a row, as they come from its connection. */
        w[i % GROUP].failed = &failed;
        unsigned k = (unsigned)(i / 16 % s->topics);
        rc = put_batch(log, &w[i % GROUP], s, t[k], &hole[k]);
        if ((i + 1) % GROUP == 0 || i + 1 == s->batches)
            log_commit(log);
    }
    return rc ? rc : failed ? -EIO : 0;
}

static void wrap(struct region *r, void *memory, const struct scene *s)
{
    region_wrap(r, memory, s->size, NULL);
}

static struct log_options options_of(const struct scene *s, struct region *r)
{
    struct log_options o = {.region = r, .manual = true};
    o.geo.slots = 2;
    o.geo.producers = 4;
    o.geo.descriptors = 1024;
    o.geo.block_shift = 12;
    o.geo.index_entries = 1024;
    /* All of it fits the ring: then no checkpoint comes by itself. */
    while (o.geo.index_entries < s->batches + 4096)
        o.geo.index_entries *= 2;
    return o;
}

static uint64_t pool_size(const struct scene *s, const struct log_options *o)
{
    uint64_t each = ((s->o->message_size + 63) / 64 + 1) * 64 + (s->apart ? 128 : 0);
    uint64_t data = s->batches * each * 3 / 2 + (256ull << 20) + s->topics * (1ull << 20);
    uint64_t rings = o->geo.index_entries * 64 * o->geo.slots + (64ull << 20);
    return (data + rings + 0xfffff) & ~0xfffffull;
}

/* In a child, which dies of it: nothing is closed. */
static int scene_fill(struct scene *s, struct embar_error *err)
{
    struct region r;
    struct log_options o = options_of(s, &r);
    s->size = pool_size(s, &o);
    s->fd = memfd_create("embar-bench", MFD_CLOEXEC);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)s->size) != 0)
        return embar_fail(err, -errno, "memory for a pool");
    pid_t child = fork();
    if (child == 0) {
        struct log *log;
        void *memory = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
        if (memory == MAP_FAILED)
            _exit(1);
        wrap(&r, memory, s);
        int rc = log_open(&log, &o, err);
        if (rc == 0)
            rc = fill(log, s);
        if (rc)
            (void)fprintf(stderr, "filling the pool: %d %s\n", rc, err->text);
        _exit(rc != 0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return embar_fail(err, -EIO, "filling a pool with %llu batches",
                          (unsigned long long)s->batches);
    return 0;
}

/* ---- Opening ------------------------------------------------------------------------------ */

static uint64_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static int open_timed(struct log **log, const struct log_options *o, double *seconds,
                      struct embar_error *err)
{
    uint64_t begun = clock_cpu(0);
    int rc = log_open(log, o, err);
    *seconds = (double)(clock_cpu(0) - begun) / 1e9;
    return rc;
}

static int measure(const struct scene *s, void *memory, struct figures *f, struct embar_error *err)
{
    struct region r;
    struct log_options o = options_of(s, &r);
    struct log *log;
    struct log_stat st;
    wrap(&r, memory, s);
    uint64_t before = heap_bytes();
    int rc = open_timed(&log, &o, &f->replay, err);
    if (rc)
        return rc;
    f->bytes = (double)(heap_bytes() - before);
    log_stat_all(log, &st);
    f->entries = st.recovered;
    uint64_t begun = clock_cpu(0);
    rc = log_checkpoint(log);
    f->checkpoint = (double)(clock_cpu(0) - begun) / 1e9;
    log_close(log);
    if (rc)
        return embar_fail(err, rc, "writing a checkpoint");
    wrap(&r, memory, s);
    rc = open_timed(&log, &o, &f->load, err);
    if (rc == 0) {
        log_stat_all(log, &st);
        if (st.recovered > 4)
            rc = embar_fail(err, -EIO, "%llu entries were replayed behind a checkpoint",
                            (unsigned long long)st.recovered);
        log_close(log);
    }
    return rc;
}

static int scene_round(const struct scene *s, struct figures *f, struct embar_error *err)
{
    void *memory = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, s->fd, 0);
    if (memory == MAP_FAILED)
        return embar_fail(err, -errno, "mapping a pool");
    if (madvise(memory, s->size, MADV_POPULATE_READ) != 0)
        for (uint64_t at = 0; at < s->size; at += 4096)
            (void)*(volatile char *)((char *)memory + at);
    int rc = measure(s, memory, f, err);
    (void)munmap(memory, s->size);
    return rc;
}

/* ---- All of it ---------------------------------------------------------------------------- */

struct rows {
    struct series *replay, *speed, *load, *checkpoint, *bytes;
};

static struct series *row(struct report *r, const struct scene *s, const char *what,
                          const char *unit)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%.0e %s: %s", (double)s->batches,
                   s->apart ? "apart" : "adjacent", what);
    return report_series(r, name, unit, 0);
}

static void rows_make(struct report *r, const struct scene *s, struct rows *rows)
{
    rows->replay = row(r, s, "killed", "ms");
    rows->speed = row(r, s, "replay", "million/core-s");
    rows->load = row(r, s, "closed", "ms");
    rows->checkpoint = row(r, s, "checkpoint", "ms");
    rows->bytes = row(r, s, "DRAM", "B/batch");
}

static int scene_run(struct scene *s, struct report *r, FILE *data, struct embar_error *err)
{
    struct rows rows;
    int rc = scene_fill(s, err);
    rows_make(r, s, &rows);
    for (unsigned i = 0; rc == 0 && i < s->o->rounds + s->o->warmup; i++) {
        struct figures f = {0};
        rc = scene_round(s, &f, err);
        if (rc || i < s->o->warmup)
            continue;
        double n = (double)s->batches;
        series_add(rows.replay, f.replay * 1e3);
        series_add(rows.speed, (double)f.entries / f.replay / 1e6);
        series_add(rows.load, f.load * 1e3);
        series_add(rows.checkpoint, f.checkpoint * 1e3);
        series_add(rows.bytes, f.bytes / n);
        if (data)
            (void)fprintf(data, "%llu %d %.6f %.6f %.6f %.0f %.2f\n",
                          (unsigned long long)s->batches, s->apart, f.replay, f.load, f.checkpoint,
                          (double)f.entries / f.replay, f.bytes / n);
    }
    if (s->fd >= 0)
        (void)close(s->fd);
    return rc;
}

int bench_recovery(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    FILE *data;
    int rc = bench_data_open(o, &data, err);
    if (rc)
        return rc;
    if (data)
        (void)fprintf(data, "# batches apart open_replay_s open_checkpoint_s checkpoint_s "
                            "entries_per_s dram_bytes_a_batch\n");
    report_machine(r);
    report_fact(r, "a batch", "one message of %u bytes; %u topics", o->message_size,
                o->connections);
    report_fact(r, "killed", "opened without a checkpoint; replay: its entries per core-second");
    report_fact(r, "closed", "opened with a fresh checkpoint; checkpoint: writing all of it");
    report_caveat(r, "Opening is one thread's work: times are its processor time, which is what it "
                     "takes on a quiet machine. The pool is shared memory that is mapped and "
                     "populated before; a device or a file adds its own time.");
    report_caveat(r, "DRAM a batch is all that the open log holds on the heap, so that few batches "
                     "carry the tables of the pool's blocks.");
    for (uint64_t n = 10000; rc == 0 && n <= o->batches; n *= 10)
        for (int apart = 0; rc == 0 && apart < 2; apart++) {
            struct scene s = {
                .o = o, .batches = n, .topics = o->connections, .apart = apart, .fd = -1};
            rc = scene_run(&s, r, data, err);
        }
    return bench_data_close(o, data, rc, err);
}
