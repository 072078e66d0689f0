/* `embar append`: publish lines straight into a pool that no daemon serves. Serves steps 3 to 8 in
 * one process: reserve, store, write back, announce, commit. Must never take a pool that is served.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/crc.h"
#include "net/cmd/cmd.h"
#include "net/cmd/lines.h"
#include "net/cmd/pool_topic.h"

#define BATCH (2u << 20)

struct append_args {
    const char *pool, *topic;
    char **files;
    int count;
    bool quiet;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct append_args *a = state->input;
    switch (key) {
    case 'q': a->quiet = true; return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num >= 2)
            return ARGP_ERR_UNKNOWN; /* the rest is asked for as ARGP_KEY_ARGS */
        *(state->arg_num ? &a->topic : &a->pool) = arg;
        return 0;
    case ARGP_KEY_ARGS:
        a->files = state->argv + state->next;
        a->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_END:
        if (!a->topic)
            argp_error(state, "name the pool and the topic.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

struct append {
    const char *name;
    struct pool_topic *pt;
    unsigned char *buf; /* capacity bytes: the largest batch */
    uint32_t *lengths;
    size_t capacity;
    bool split_told;
    uint64_t messages, bytes;
};

/* A batch's end, told by whichever thread ran the epoch. */
struct waiter {
    struct completion completion; /* first: done() gets it */
    sem_t done;
    struct commit commit;
};

static void wake(struct completion *self, const struct commit *commit)
{
    struct waiter *w = (struct waiter *)(void *)self;
    w->commit = *commit;
    sem_post(&w->done);
}

/* Store and commit `length` bytes that hold `count` messages. */
static int commit_batch(struct append *a, const unsigned char *p, uint32_t length, uint32_t count,
                        struct embar_error *err)
{
    struct log *log = a->pt->log;
    struct waiter w = {.completion = {.done = wake}};
    struct batch b = {.topic = a->pt->topic,
                      .length = length,
                      .count = count,
                      .equal = count == 1,
                      .payload_crc = crc32c(0, p, length),
                      .completion = &w.completion};
    int rc = log_reserve(log, &b);
    if (rc < 0)
        return embar_fail(err, rc, "No room for %" PRIu32 " bytes", length);
    rc = log_store(log, &b, 0, p, length, NULL);
    for (uint32_t i = 0; rc == 0 && !b.equal && i < count; i++) {
        le32 n = le32_of(a->lengths[i]);
        rc = log_store_lengths(log, &b, i * 4, &n, sizeof(n));
    }
    sem_init(&w.done, 0, 0);
    if (rc == 0)
        rc = log_announce(log_producer(log, 0), &b);
    if (rc == 0) {
        log_commit(log);
        while (sem_wait(&w.done) < 0)
            ;
        rc = w.commit.status;
    } else {
        log_abandon(log, &b);
    }
    sem_destroy(&w.done);
    if (rc < 0)
        return embar_fail(err, rc, "A batch was not committed");
    a->messages += count;
    a->bytes += length;
    return 0;
}

/* Commit the whole lines among n bytes; with `rest`, what follows them too. Returns how many bytes
 * that were, or the failure. */
static ssize_t commit_lines(struct append *a, size_t n, bool rest, struct embar_error *err)
{
    size_t at = 0;
    while (at < n) {
        uint32_t count;
        size_t covered = lines_cut(a->buf + at, n - at, a->lengths, MEDIA_MAX_MESSAGES, &count);
        if (count == 0) {
            if (!rest)
                break;
            covered = n - at;
            count = 1;
        }
        int rc = commit_batch(a, a->buf + at, (uint32_t)covered, count, err);
        if (rc < 0)
            return rc;
        at += covered;
    }
    return (ssize_t)at;
}

static int append_fd(struct append *a, int fd, const char *what, struct embar_error *err)
{
    size_t used = 0, limit = a->capacity < BATCH ? a->capacity : BATCH;
    for (;;) {
        ssize_t n = used < limit ? read(fd, a->buf + used, limit - used) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return embar_fail(err, -errno, "%s cannot be read: %s.", what, strerror(errno));
        bool end = n == 0 && used < limit;
        used += (size_t)n;
        if (!end && used < limit && !lines_whole(a->buf, used))
            continue;
        bool full = used == a->capacity && !lines_whole(a->buf, used);
        if (full && !a->split_told) {
            a->split_told = true;
            cmd_say(a->name, "A line is longer than a batch (%zu bytes): it is split.",
                    a->capacity);
        }
        ssize_t done = commit_lines(a, used, end || full, err);
        if (done < 0)
            return (int)done;
        used -= (size_t)done;
        memmove(a->buf, a->buf + done, used);
        if (end)
            return 0;
        /* A long line: take in as much of it as a batch may hold. */
        limit = used < BATCH && BATCH < a->capacity ? BATCH : a->capacity;
    }
}

int cmd_append(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"quiet", 'q', NULL, 0, "No summary", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "POOL TOPIC [FILE...]",
        .doc = "Publish the lines of standard input or of files straight into a pool (a file or a "
               "device) that nobody serves, one message a line. The topic is made when it is not "
               "there.\vWhile a daemon serves the pool this is refused: use embar pub.",
    };
    struct append_args args = {.pool = NULL};
    cmd_parse(&argp, argc, argv, &args);
    struct embar_error err;
    struct pool_topic pt;
    if (pool_topic_open(&pt, argv[0], args.pool, args.topic, false, &err) < 0)
        return cmd_fail(argv[0], &err);
    struct append a = {.name = argv[0], .pt = &pt, .capacity = log_pool(pt.log)->max_batch};
    a.buf = malloc(a.capacity);
    a.lengths = malloc(MEDIA_MAX_MESSAGES * sizeof(*a.lengths));
    int rc = a.buf && a.lengths ? 0 : embar_fail(&err, -ENOMEM, "No memory for a batch");
    char *const none[] = {NULL};
    char *const *files = args.count ? args.files : none;
    for (int i = 0; rc == 0 && i < (args.count ? args.count : 1); i++) {
        bool in = !files[i] || strcmp(files[i], "-") == 0;
        int fd = in ? STDIN_FILENO : open(files[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            rc = embar_fail(&err, -errno, "%s cannot be read: %s.", files[i], strerror(errno));
        else
            rc = append_fd(&a, fd, in ? "Standard input" : files[i], &err);
        if (fd > STDIN_FILENO)
            close(fd);
    }
    free(a.buf);
    free(a.lengths);
    pool_topic_close(&pt);
    if (rc < 0)
        cmd_fail(argv[0], &err);
    if (!args.quiet || rc < 0)
        cmd_say(argv[0], "%" PRIu64 " messages, %" PRIu64 " bytes committed", a.messages, a.bytes);
    return rc < 0 ? CMD_FAILURE : CMD_OK;
}
