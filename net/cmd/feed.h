/* From a file descriptor into batches, without copying more than the line that is cut.
 *
 * read(2) stores straight into a block of a batch's size; its whole lines are handed to the
 * publisher where they stand (embar_publish_batch), and only the begun last line moves to the next
 * block. A block is used again when all its batches are done.
 *
 * Threads: the command's thread does everything but feed_done, which the publisher's thread calls;
 * `lock` guards what both touch: the free list, the counts of blocks, and the first failure.
 */
#ifndef NET_CMD_FEED_H
#define NET_CMD_FEED_H

#include <pthread.h>
#include <stdbool.h>

#include "embar/embar.h"

struct feed_block {
    struct feed_block *next; /* free list */
    struct feed *feed;
    unsigned char *data;
    size_t capacity;
    unsigned batches; /* on their way, under the lock; one more while it is being cut */
};

struct feed {
    const char *name; /* of the command, for messages */
    struct embar_publisher *pub;
    size_t batch;       /* bytes of a block */
    uint32_t max_batch; /* of the broker: a longer line is split */
    uint32_t max_messages;
    uint64_t linger_ns;
    uint64_t skip;     /* messages of the input that are committed already */
    bool progress;     /* show one line on the terminal */
    bool remarks;      /* say when nothing is acknowledged for long */
    int signals;       /* signalfd of what interrupts; -1 */
    int done_fd;       /* eventfd: a batch was done */
    uint32_t *lengths; /* scratch of max_messages */
    unsigned limit;    /* blocks there may be */
    bool split_told;
    uint64_t started, shown; /* CLOCK_MONOTONIC ns */
    struct {
        uint64_t looked, since, done; /* ns; since when so many messages are done */
        bool told;
    } stall;

    struct feed_block *block; /* being filled; [0, used) */
    size_t used;

    pthread_mutex_t lock;
    struct feed_block *free;
    unsigned blocks, busy;     /* made; with batches on their way */
    struct embar_error failed; /* code 0: none */
};

/* Fields before `block` are the caller's to set (but lengths, done_fd). 0 or -errno. */
int feed_open(struct feed *f) __attribute__((warn_unused_result));
/* After the publisher was closed: nothing calls feed_done any more. */
void feed_close(struct feed *f);

/* Publish the lines of fd to its end; an unended last line too. 0; -EINTR: a signal came; else err. */
int feed_lines(struct feed *f, int fd, struct embar_error *err) __attribute__((warn_unused_result));
/* Publish all of fd as one message. `what` names it in err. */
int feed_whole(struct feed *f, int fd, const char *what, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Wait until everything is done. As feed_lines. */
int feed_finish(struct feed *f, struct embar_error *err) __attribute__((warn_unused_result));

uint64_t feed_clock(void);

#endif
