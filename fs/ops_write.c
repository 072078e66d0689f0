/* write(2), fsync(2) and close(2) on a topic (steps 2 to 8 by way of publish.c). */
#include <errno.h>
#include <fcntl.h>

#include "fs/fs.h"

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
              struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *h = handle_of(fi);
    if (h->kind != NODE_TOPIC || !h->writable) {
        fuse_reply_err(req, EBADF);
        return;
    }
    /* O_APPEND may have been set or cleared since the open. With it the offset is the kernel's
     * guess and means nothing; without it a file that was opened so, and empty, is filled from 0 in
     * order. */
    if (!(fi->flags & O_APPEND)) {
        pthread_mutex_lock(&h->lock);
        bool in_order = off >= 0 && (uint64_t)off == h->sequential;
        pthread_mutex_unlock(&h->lock);
        if (!in_order) {
            fuse_reply_err(req, EPERM);
            return;
        }
    }
    count_add(&h->fs->count.writes, 1);
    count_add(&h->fs->count.write_bytes, size);
    /* The kernel sets it for a single synchronous write (RWF_DSYNC), too. */
    enum job_kind kind = fi->flags & O_DSYNC ? JOB_WRITE_SYNC : JOB_WRITE;
    publish_start(h, kind, req, buf, size);
}

/* Shells close duplicates of a descriptor between the fragments of one line: a flush publishes
 * nothing. Kernels that know FOPEN_NOFLUSH do not even ask: they would take the inode's lock first, and
 * whoever closes a file would wait for a write that is parked. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    locks_flush(handle_of(fi), fi->lock_owner);
    fuse_reply_err(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    struct handle *h = handle_of(fi);
    if (h->kind == NODE_TOPIC && h->writable)
        publish_start(h, JOB_SYNC, req, NULL, 0);
    else
        fuse_reply_err(req, 0);
}
