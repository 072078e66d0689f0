/* Reading input into blocks and blocks into batches. Serves step 2 from the publisher's side.
 * Must never count as published what the library has not taken, nor touch a block that is on its
 * way.
 */
#include "net/cmd/feed.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "net/cmd/cmd.h"
#include "net/cmd/lines.h"

#define SHOW_NS   200000000ull /* between two looks of the progress line */
#define LOOK_NS   1000000000ull
#define STALL_NS  5000000000ull /* without an ack, while there is a connection */
#define PIPE_SIZE (1 << 20)
#define FULL_MS   5 /* the window is full: batches smaller than blocks wake nobody */

uint64_t feed_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int feed_open(struct feed *f)
{
    pthread_mutex_init(&f->lock, NULL);
    f->started = feed_clock();
    f->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->lengths = malloc(f->max_messages * sizeof(*f->lengths));
    if (f->done_fd < 0)
        return -errno;
    return f->lengths ? 0 : -ENOMEM;
}

static void block_free(struct feed_block *b)
{
    if (b)
        free(b->data);
    free(b);
}

void feed_close(struct feed *f)
{
    while (f->free) {
        struct feed_block *b = f->free;
        f->free = b->next;
        block_free(b);
    }
    block_free(f->block);
    free(f->lengths);
    if (f->done_fd >= 0)
        close(f->done_fd);
    pthread_mutex_destroy(&f->lock);
}

/* One batch of a block is done, or its cutting: the last one gives the block back. Returns whether
 * it did. Under the lock. */
static bool block_release(struct feed_block *b)
{
    struct feed *f = b->feed;
    if (--b->batches > 0)
        return false;
    f->busy--;
    b->next = f->free;
    f->free = b;
    return true;
}

/* The publisher's thread: a batch is done or has failed. */
static void feed_done(void *arg, const struct embar_error *err)
{
    struct feed_block *b = arg;
    struct feed *f = b->feed;
    pthread_mutex_lock(&f->lock);
    if (err && f->failed.code == 0)
        f->failed = *err;
    bool woken = block_release(b) || err;
    int fd = f->done_fd;
    pthread_mutex_unlock(&f->lock);
    if (woken) {
        uint64_t one = 1;
        ssize_t n = write(fd, &one, sizeof(one));
        (void)n; /* a full counter wakes as well */
    }
}

static void show(struct feed *f)
{
    uint64_t now = feed_clock();
    if (!f->progress || now - f->shown < SHOW_NS)
        return;
    f->shown = now;
    struct embar_publisher_info info;
    embar_publisher_info(f->pub, &info);
    double s = (double)(now - f->started) / 1e9;
    dprintf(STDERR_FILENO, "\r%" PRIu64 " messages, %.1f MB, %.1f MB/s \033[K", info.done_messages,
            (double)info.done_bytes / 1e6, (double)info.done_bytes / 1e6 / (s > 0 ? s : 1));
}

static unsigned busy(struct feed *f)
{
    pthread_mutex_lock(&f->lock);
    unsigned n = f->busy;
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* A full pool lets a publisher wait for as long as it is full: whoever looks on should know. */
static void look_for_stall(struct feed *f)
{
    uint64_t now = feed_clock();
    if (!f->remarks || now - f->stall.looked < LOOK_NS)
        return;
    f->stall.looked = now;
    struct embar_publisher_info info;
    embar_publisher_info(f->pub, &info);
    /* Without a connection that is what is said. */
    if (info.in_flight == 0 || info.connected == 0 || info.done_messages != f->stall.done ||
        f->stall.since == 0) {
        f->stall.since = now;
        f->stall.done = info.done_messages;
        f->stall.told = false;
    } else if (!f->stall.told && now - f->stall.since >= STALL_NS) {
        f->stall.told = true;
        if (f->progress)
            dprintf(STDERR_FILENO, "\r\033[K");
        cmd_say(f->name,
                "nothing was acknowledged for %u s; waiting on. Is the pool full (df, embar stat)? "
                "embar rm or embar trim makes room",
                (unsigned)(STALL_NS / 1000000000u));
    }
}

/* Wait up to ms (-1: for ever) for input on fd (-1: none), for a batch, or for a signal.
 * 1: input; 0: something else or the time is up; -EINTR: a signal; else the publisher's failure. */
static int wait_for(struct feed *f, int fd, int ms, struct embar_error *err)
{
    show(f);
    look_for_stall(f);
    struct pollfd p[3] = {{.fd = f->done_fd, .events = POLLIN},
                          {.fd = f->signals, .events = POLLIN},
                          {.fd = fd, .events = POLLIN}};
    int tick = f->progress ? (int)(SHOW_NS / 1000000u) : -1;
    if (tick < 0 && f->remarks && busy(f) > 0)
        tick = (int)(LOOK_NS / 1000000u);
    if (tick >= 0 && (ms < 0 || ms > tick))
        ms = tick;
    if (poll(p, 3, ms) < 0 && errno != EINTR)
        return embar_fail(err, -errno, "Waiting for input failed");
    if (p[1].revents)
        return embar_fail(err, -EINTR, "Interrupted.");
    if (p[0].revents) {
        uint64_t count;
        ssize_t n = read(f->done_fd, &count, sizeof(count));
        (void)n; /* that it was readable is all it says */
    }
    pthread_mutex_lock(&f->lock);
    struct embar_error failed = f->failed;
    pthread_mutex_unlock(&f->lock);
    if (failed.code != 0) {
        if (err)
            *err = failed;
        return failed.code;
    }
    return p[2].revents != 0;
}

/* An empty block to fill, waiting for one when all are on their way. */
static int block_get(struct feed *f, struct embar_error *err)
{
    while (!f->block) {
        pthread_mutex_lock(&f->lock);
        struct feed_block *b = f->free;
        bool more = f->blocks < f->limit;
        if (b)
            f->free = b->next;
        else if (more)
            f->blocks++;
        pthread_mutex_unlock(&f->lock);
        if (!b && more) {
            b = calloc(1, sizeof(*b));
            if (b)
                b->data = malloc(f->batch);
            if (!b || !b->data) {
                block_free(b);
                return embar_fail(err, -ENOMEM, "No memory for %zu bytes of input", f->batch);
            }
            b->capacity = f->batch;
            b->feed = f;
        }
        if (!b) {
            int rc = wait_for(f, -1, -1, err);
            if (rc < 0)
                return rc;
            continue;
        }
        f->block = b;
        f->used = 0;
    }
    return 0;
}

static int block_grow(struct feed_block *b, size_t size, struct embar_error *err)
{
    unsigned char *data = realloc(b->data, size);
    if (!data)
        return embar_fail(err, -ENOMEM, "No memory for a line of %zu bytes", size);
    b->data = data;
    b->capacity = size;
    return 0;
}

/* One batch of messages that stand in a block; drops those that are committed already. */
static int publish(struct feed *f, struct feed_block *b, unsigned char *at, const uint32_t *lengths,
                   uint32_t count, struct embar_error *err)
{
    uint32_t drop = f->skip < count ? (uint32_t)f->skip : count;
    f->skip -= drop;
    for (uint32_t i = 0; i < drop; i++)
        at += lengths[i];
    if (drop == count)
        return 0;
    size_t total = 0;
    for (uint32_t i = drop; i < count; i++)
        total += lengths[i];
    struct iovec iov = {at, total};
    pthread_mutex_lock(&f->lock);
    b->batches++;
    pthread_mutex_unlock(&f->lock);
    int rc;
    do {
        rc = embar_publish_batch(f->pub, &iov, 1, lengths + drop, count - drop, feed_done, b);
        if (rc == 0)
            return 0;
        if (rc == -EAGAIN && (rc = wait_for(f, -1, FULL_MS, err)) == 0)
            rc = -EAGAIN;
    } while (rc == -EAGAIN);
    pthread_mutex_lock(&f->lock);
    b->batches--;
    pthread_mutex_unlock(&f->lock);
    if (rc == -EINTR)
        return rc;
    /* A publisher that ended tells why better than the code does. */
    struct embar_error why = {.code = 0};
    if (embar_flush(f->pub, 0, &why) == rc && why.code == rc) {
        *err = why;
        return rc;
    }
    return embar_fail(err, rc, "A batch was not taken");
}

/* Publish the first n bytes of the block being filled: whole lines, or with `rest` also what stands
 * behind them as a message of its own. What follows n moves to a new block. */
static int cut(struct feed *f, size_t n, bool rest, struct embar_error *err)
{
    struct feed_block *b = f->block;
    unsigned char *tail = b->data + n;
    size_t tail_length = f->used - n;
    pthread_mutex_lock(&f->lock);
    b->batches = 1; /* ours, so that it stays while we cut */
    f->busy++;
    pthread_mutex_unlock(&f->lock);
    f->block = NULL;
    f->used = 0;
    int rc = 0;
    size_t at = 0;
    while (rc == 0 && at < n) {
        /* A batch ends with the broker's bound on bytes, too: a block may have grown beyond it. */
        size_t room = n - at < f->max_batch ? n - at : f->max_batch;
        uint32_t count;
        size_t covered = lines_cut(b->data + at, room, f->lengths, f->max_messages, &count);
        if (count == 0) {
            if (!rest)
                abort(); /* whole lines were asked for and none is there */
            f->lengths[0] = (uint32_t)room;
            covered = room;
            count = 1;
        }
        rc = publish(f, b, b->data + at, f->lengths, count, err);
        at += covered;
    }
    if (rc == 0 && tail_length > 0) {
        rc = block_get(f, err);
        if (rc == 0 && tail_length > f->block->capacity)
            rc = block_grow(f->block, b->capacity, err);
        if (rc == 0) {
            memcpy(f->block->data, tail, tail_length);
            f->used = tail_length;
        }
    }
    pthread_mutex_lock(&f->lock);
    (void)block_release(b);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* The block is full and holds no newline: make it as large as a batch may be, or split the line. */
static int grow_or_split(struct feed *f, struct embar_error *err)
{
    struct feed_block *b = f->block;
    if (b->capacity < f->max_batch)
        return block_grow(b, b->capacity * 2 < f->max_batch ? b->capacity * 2 : f->max_batch, err);
    if (!f->split_told) {
        f->split_told = true;
        cmd_say(f->name, "A line is longer than a batch (%" PRIu32 " bytes): it is split.",
                f->max_batch);
    }
    return cut(f, f->used, true, err);
}

/* What is begun and ends with a newline goes out. */
static int send_whole_lines(struct feed *f, struct embar_error *err)
{
    size_t n = lines_whole(f->block->data, f->used);
    return n > 0 ? cut(f, n, false, err) : 0;
}

/* For input that trickles: may the lines there are wait for more? Returns ms to wait; 0: send. */
static int patience(struct feed *f, uint64_t since)
{
    if (f->used == 0 || !memrchr(f->block->data, '\n', f->used))
        return -1;
    if (busy(f) == 0)
        return 0;
    uint64_t now = feed_clock(), due = since + f->linger_ns;
    return now >= due ? 0 : (int)((due - now + 999999u) / 1000000u);
}

int feed_lines(struct feed *f, int fd, struct embar_error *err)
{
    struct stat st;
    bool file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (!file)
        (void)fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE); /* a hint: fewer and larger reads */
    else
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    uint64_t since = 0;
    for (;;) {
        int rc = block_get(f, err);
        if (rc == 0 && f->used == f->block->capacity) {
            rc = send_whole_lines(f, err);
            if (rc == 0 && f->block && f->used == f->block->capacity)
                rc = grow_or_split(f, err);
            if (rc < 0)
                return rc;
            continue;
        }
        if (rc < 0)
            return rc;
        rc = wait_for(f, fd, 0, err);
        if (rc < 0)
            return rc;
        if (rc == 0 && !file) {
            int ms = patience(f, since);
            if (ms == 0) {
                rc = send_whole_lines(f, err);
            } else {
                rc = wait_for(f, fd, ms, err);
            }
            if (rc < 0)
                return rc;
            if (rc == 0)
                continue;
        }
        bool fresh = f->used == 0;
        ssize_t n = read(fd, f->block->data + f->used, f->block->capacity - f->used);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return embar_fail(err, -errno, "Reading the input failed");
        if (n == 0)
            break;
        if (fresh)
            since = feed_clock();
        f->used += (size_t)n;
    }
    int rc = send_whole_lines(f, err);
    if (rc == 0 && f->block && f->used > 0)
        rc = cut(f, f->used, true, err);
    return rc;
}

int feed_whole(struct feed *f, int fd, const char *what, struct embar_error *err)
{
    int rc;
    for (;;) {
        rc = block_get(f, err);
        if (rc < 0)
            return rc;
        if (f->used == f->block->capacity) {
            if (f->used == f->max_batch) {
                unsigned char byte;
                ssize_t n = read(fd, &byte, 1);
                if (n == 0)
                    break;
                if (n > 0) {
                    f->used = 0;
                    return embar_fail(err, -EMBAR_ETOOBIG,
                                      "%s is larger than one message may be (%" PRIu32 " bytes).",
                                      what, f->max_batch);
                }
            } else {
                rc = grow_or_split(f, err);
                if (rc < 0)
                    return rc;
            }
        }
        rc = wait_for(f, fd, -1, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        ssize_t n = read(fd, f->block->data + f->used, f->block->capacity - f->used);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return embar_fail(err, -errno, "Reading %s failed", what);
        if (n == 0)
            break;
        f->used += (size_t)n;
    }
    if (f->used == 0) {
        cmd_say(f->name, "%s is empty: an empty message has no place in a topic; skipped.", what);
        return 0;
    }
    struct feed_block *b = f->block;
    uint32_t length = (uint32_t)f->used;
    f->block = NULL;
    f->used = 0;
    pthread_mutex_lock(&f->lock);
    b->batches = 1;
    f->busy++;
    pthread_mutex_unlock(&f->lock);
    rc = publish(f, b, b->data, &length, 1, err);
    pthread_mutex_lock(&f->lock);
    (void)block_release(b);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

int feed_finish(struct feed *f, struct embar_error *err)
{
    while (busy(f) > 0) {
        int rc = wait_for(f, -1, -1, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
