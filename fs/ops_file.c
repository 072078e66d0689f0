/* Opening, reading and closing files (step 9). All but sealed pieces are direct_io: a growing file in
 * the page cache shows NUL bytes to concurrent readers.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/fs.h"

/* Like a file with the append-only attribute, but that an empty one may be filled from 0. */
static int write_allowed(const struct topic *t, int flags)
{
    bool empty = topic_end(t) == topic_base(t);
    if (!empty && ((flags & O_TRUNC) || !(flags & O_APPEND)))
        return -EPERM;
    return 0;
}

static int open_topic(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
    bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
    bool reads = (fi->flags & O_ACCMODE) != O_WRONLY;
    struct topic *t = log_topic_held(fs->log, node->id); /* removed: by way of /proc/PID/fd */
    if (!t)
        return -ESTALE;
    int rc = writes || (fi->flags & O_TRUNC) ? write_allowed(t, fi->flags) : 0;
    /* Trimmed between lookup and open: the kernel looks the name up again and finds the new node. */
    if (rc == 0 && reads && topic_base(t) != node->base)
        rc = -ESTALE;
    struct handle *h = rc ? NULL : handle_new(fs, node, t, writes);
    if (!h) {
        topic_put(t);
        return rc ? rc : -ENOMEM;
    }
    h->sequential = fi->flags & O_APPEND ? NOWHERE : 0;
    h->position = node->base;
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->direct_io = 1;
    fi->noflush = 1; /* FLUSH does nothing here: see op_flush */
    return 0;
}

static int open_follow(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
    if ((fi->flags & O_ACCMODE) != O_RDONLY)
        return -EPERM;
    struct topic *t = log_topic(fs->log, node->id);
    if (!t)
        return -ESTALE;
    struct handle *h = handle_new(fs, node, t, false);
    if (!h) {
        topic_put(t);
        return -ENOMEM;
    }
    h->position = node->base == FOLLOW_END ? topic_end(t) : node->base;
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->direct_io = 1;
    fi->nonseekable = 1;
    fi->noflush = 1;
    return 0;
}

static int open_part(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
    if ((fi->flags & O_ACCMODE) != O_RDONLY)
        return -EPERM;
    struct topic *t = log_topic(fs->log, node->id);
    struct handle *h = t ? handle_new(fs, node, t, false) : NULL;
    if (!h) {
        if (t)
            topic_put(t);
        return t ? -ENOMEM : -ESTALE;
    }
    h->position = node->base;
    h->length = node->length;
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->direct_io = node->kind == NODE_SINCE;
    fi->keep_cache = node->kind == NODE_SEGMENT; /* it never changes */
    fi->noflush = 1;
    return 0;
}

static int open_text(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
    if ((fi->flags & O_ACCMODE) != O_RDONLY)
        return -EPERM;
    char *text = node->kind == NODE_STATUS    ? status_json(fs)
                 : node->kind == NODE_METRICS ? status_metrics(fs)
                                              : status_token(fs);
    struct handle *h = text ? handle_new(fs, node, NULL, false) : NULL;
    if (!h) {
        free(text);
        return -ENOMEM;
    }
    h->text = text;
    h->length = strlen(text);
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->direct_io = 1;
    fi->noflush = 1;
    return 0;
}

int open_node(struct fs *fs, struct node *node, struct fuse_file_info *fi)
{
    switch (node->kind) {
    case NODE_TOPIC: return open_topic(fs, node, fi);
    case NODE_FOLLOW: return open_follow(fs, node, fi);
    case NODE_SINCE:
    case NODE_SEGMENT: return open_part(fs, node, fi);
    case NODE_STATUS:
    case NODE_METRICS:
    case NODE_TOKEN: return open_text(fs, node, fi);
    case NODE_DIR:
    case NODE_VIRTUAL:
    case NODE_FOLLOW_DIR:
    case NODE_SINCE_ROOT:
    case NODE_SINCE_DIR:
    case NODE_SEGMENTS_DIR:
    case NODE_SEGMENTS: break;
    }
    return -EISDIR;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fuse_req_userdata(req);
    int rc = open_node(fs, node_of(fs, ino), fi);
    if (rc)
        fuse_reply_err(req, embar_to_errno(rc));
    else if (fuse_reply_open(req, fi))
        handle_close(handle_of(fi));
}

static void read_topic(struct handle *h, fuse_req_t req, size_t size, off_t off)
{
    uint64_t offset;
    if (off < 0 || __builtin_add_overflow(h->base, (uint64_t)off, &offset))
        fuse_reply_err(req, EINVAL);
    else
        reply_bytes(h, req, offset, size);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *h = handle_of(fi);
    handle_ref(h); /* the answer lets the reader close it */
    if (is_topic_file(h->kind)) {
        read_topic(h, req, size, off);
    } else if (h->kind == NODE_SEGMENT) {
        segment_read(h, req, size, off);
    } else if (h->kind == NODE_FOLLOW) {
        follow_read(h, req, size, fi->flags & O_NONBLOCK);
    } else {
        size_t at = off < 0 || (uint64_t)off > h->length ? h->length : (size_t)off;
        size_t n = h->length - at;
        fuse_reply_buf(req, h->text + at, n < size ? n : size);
    }
    handle_put(h);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    (void)fi;
    struct fs *fs = fuse_req_userdata(req);
    struct stat st;
    int rc = attr_fill(fs, node_of(fs, ino), &st);
    if (rc == 0 && (off < 0 || off >= st.st_size))
        rc = -ENXIO;
    if (rc)
        fuse_reply_err(req, embar_to_errno(rc));
    else if (whence == SEEK_DATA || whence == SEEK_HOLE)
        fuse_reply_lseek(req, whence == SEEK_DATA ? off : st.st_size);
    else
        fuse_reply_err(req, EINVAL);
}

static unsigned readiness(struct handle *h)
{
    unsigned events = h->writable ? POLLOUT | POLLWRNORM : 0;
    bool data = !h->topic || topic_end(h->topic) > h->position ||
                topic_base(h->topic) > h->position ||
                (h->kind == NODE_FOLLOW && topic_deleted(h->topic));
    return events | (data ? POLLIN | POLLRDNORM : 0);
}

void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
    (void)ino;
    struct handle *h = handle_of(fi);
    struct fuse_pollhandle *old = NULL;
    pthread_mutex_lock(&h->lock);
    if (ph) {
        old = h->poll;
        h->poll = ph;
        handle_watch(h);
        /* Acquire and release: pairs with is_wanted in handle_fire. */
        (void)atomic_exchange_explicit(&h->want_poll, true, memory_order_acq_rel);
    }
    unsigned events = readiness(h);
    pthread_mutex_unlock(&h->lock);
    if (old)
        fuse_pollhandle_destroy(old);
    fuse_reply_poll(req, events);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    handle_close(handle_of(fi));
    fuse_reply_err(req, 0);
}
