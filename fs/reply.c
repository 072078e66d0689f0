/* Answering a read with a topic's bytes (step 9): from pool memory, pinned only while they are sent.
 *
 * One answer is one writev, and that takes at most IOV_MAX pieces: beyond it the kernel refuses the
 * answer and the reader waits for ever. A topic of many small batches that do not adjoin has more,
 * so what the pieces do not reach is copied: a read is as long as that of any file.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "fs/fs.h"

/* libfuse adds a header, and one more piece is for what is copied. */
#define REPLY_VIEWS ((IOV_MAX - 2) / READ_PIECES)

/* Memory that is gone raises no signal in the kernel: writing the answer fails. */
static bool pool_is_gone(int rc)
{
    return rc == -EFAULT || rc == -EHWPOISON;
}

int copy_bytes(struct handle *h, char *to, uint64_t offset, size_t size, size_t *copied)
{
    int rc = 0;
    *copied = 0;
    while (rc == 0 && *copied < size) {
        struct read_view v;
        rc = topic_read(h->topic, offset + *copied, size - *copied, &v);
        size_t n = 0;
        for (int i = 0; rc == 0 && i < v.pieces; i++) {
            rc = guard_copy(&h->fs->region, to + *copied + n, v.iov[i].iov_base, v.iov[i].iov_len);
            n += rc ? 0 : v.iov[i].iov_len;
        }
        *copied += n;
        read_release(&v);
        if (n == 0)
            break;
    }
    return rc;
}

/* The reader did not get what is behind `offset`. Who polls in the meantime was told of too little. */
static void take_back(struct handle *h, uint64_t offset)
{
    pthread_mutex_lock(&h->lock);
    if (h->position > offset)
        h->position = offset;
    if (h->poll && !h->closing)
        tasks_push(&h->fs->notify, &h->poll_task);
    pthread_mutex_unlock(&h->lock);
}

void reply_bytes(struct handle *h, fuse_req_t req, uint64_t offset, size_t size)
{
    struct fs *fs = h->fs;
    struct read_view views[REPLY_VIEWS];
    struct iovec iov[REPLY_VIEWS * READ_PIECES + 1];
    int count = 0, used = 0, rc = 0;
    size_t bytes = 0;
    char *rest = NULL;
    while (bytes < size && used < REPLY_VIEWS) {
        rc = topic_read(h->topic, offset + bytes, size - bytes, &views[used]);
        if (rc || views[used].bytes == 0)
            break;
        memcpy(iov + count, views[used].iov, (size_t)views[used].pieces * sizeof *iov);
        count += views[used].pieces;
        bytes += views[used++].bytes;
    }
    if (used == REPLY_VIEWS && bytes < size && (rest = malloc(size - bytes))) {
        size_t n;
        (void)copy_bytes(h, rest, offset + bytes, size - bytes, &n); /* who reads on is told */
        iov[count++] = (struct iovec){rest, n};
        bytes += n;
    }
    /* Before the answer: it lets the reader ask again, or poll. */
    pthread_mutex_lock(&h->lock);
    if (h->position < offset + bytes)
        h->position = offset + bytes;
    pthread_mutex_unlock(&h->lock);
    count_add(&fs->count.reads, 1);
    count_add(&fs->count.read_bytes, bytes);
    if (rc && bytes == 0) {
        fuse_reply_err(req, embar_to_errno(rc));
    } else {
        rc = fuse_reply_iov(req, iov, count);
        rc = rc ? rc : answer_outcome();
        if (pool_is_gone(rc))
            log_fault(fs->log, -EMBAR_EFAULTED); /* and the kernel has answered EIO */
        if (rc)
            take_back(h, offset);
    }
    while (used > 0)
        read_release(&views[--used]);
    free(rest);
}
