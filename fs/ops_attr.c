/* Attributes: stat, chmod, chown, touch, truncate refused, df (step 9). Sizes come from the log at
 * each call: a topic's size is never cached and never ahead of what can be read.
 */
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/fs.h"

struct timespec time_of(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
}

int attr_log(struct fs *fs, const struct node *node, struct node_stat *st)
{
    int rc = log_stat(fs->log, node->id, st);
    if (rc && rc != -EMBAR_EGONE)
        return rc == -ENOENT ? -ESTALE : rc;
    if (node->kind == NODE_TOPIC && node->base != st->base && !node_is_open(&fs->nodes, node))
        return -ESTALE;
    return rc ? 1 : 0;
}

int attr_fill(struct fs *fs, const struct node *node, struct stat *st)
{
    memset(st, 0, sizeof *st);
    if (node->kind != NODE_DIR && node->kind != NODE_TOPIC)
        return virtual_attr(fs, node, st);
    struct node_stat log;
    int rc = attr_log(fs, node, &log);
    if (rc < 0)
        return rc;
    st->st_ino = node->ino;
    st->st_mode = log.mode;
    st->st_uid = log.uid;
    st->st_gid = log.gid;
    st->st_nlink = rc == 1 ? 0 : 1; /* directories too: "do not infer subdirectories from it" */
    st->st_blksize = node->kind == NODE_DIR ? FS_DIR_SIZE : FS_IO_SIZE;
    st->st_mtim = st->st_atim = time_of(log.modified);
    st->st_ctim = time_of(log.altered);
    if (node->kind == NODE_TOPIC) {
        /* A node's base is never above the end that some lookup saw. */
        st->st_size = (off_t)(log.end - node->base);
        st->st_blocks = (st->st_size + 511) / 512;
    }
    return 0;
}

/* A sealed piece changes in nothing but its mode, and is asked for it at each read from the cache. */
static double attr_seconds(const struct node *node)
{
    return node->kind == NODE_SEGMENT ? 1 : 0;
}

int attr_entry(struct fs *fs, struct node *node, struct fuse_entry_param *e)
{
    /* Timeouts of 0: names and sizes change over the network too. */
    memset(e, 0, sizeof *e);
    e->attr_timeout = attr_seconds(node);
    e->ino = node_handle(fs, node);
    return attr_fill(fs, node, &e->attr);
}

static void reply_attr(struct fs *fs, fuse_req_t req, fuse_ino_t ino)
{
    struct stat st;
    int rc = attr_fill(fs, node_of(fs, ino), &st);
    if (rc)
        fuse_reply_err(req, embar_to_errno(rc));
    else
        fuse_reply_attr(req, &st, attr_seconds(node_of(fs, ino)));
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    reply_attr(fuse_req_userdata(req), req, ino);
}

static void answer_attr(struct action *a)
{
    if (a->commit.status)
        action_answer_error(a);
    else
        reply_attr(a->fs, a->req, a->ino);
}

static uint64_t mtime_asked(const struct stat *attr, int to_set)
{
    struct timespec ts = attr->st_mtim;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW)
        clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec < 0 ? 0 : (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* No topic changes its length but by appending: truncate to what it is, or EPERM. */
static int size_allowed(struct fs *fs, const struct node *node, off_t size)
{
    struct stat now;
    int rc = attr_fill(fs, node, &now);
    return rc ? rc : now.st_size == size ? 0 : -EPERM;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                struct fuse_file_info *fi)
{
    (void)fi;
    struct fs *fs = fuse_req_userdata(req);
    struct node *node = node_of(fs, ino);
    int rc = 0;
    if (node->kind != NODE_DIR && node->kind != NODE_TOPIC)
        rc = -EPERM;
    else if (to_set & FUSE_SET_ATTR_SIZE)
        rc = size_allowed(fs, node, attr->st_size);
    unsigned flags = 0;
    flags |= to_set & FUSE_SET_ATTR_MODE ? MEDIA_A_MODE : 0;
    flags |= to_set & FUSE_SET_ATTR_UID ? MEDIA_A_OWNER : 0;
    flags |= to_set & FUSE_SET_ATTR_GID ? MEDIA_A_GROUP : 0;
    flags |= to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW) ? MEDIA_A_TIMES : 0;
    if (rc) {
        fuse_reply_err(req, embar_to_errno(rc));
        return;
    }
    /* There is no access time but the modification time: who sets it alters the topic all the same. */
    if (!flags && !(to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))) {
        reply_attr(fs, req, ino);
        return;
    }
    struct action *a = action_new(fs, req, MEDIA_C_ATTR, answer_attr);
    if (!a)
        return;
    a->ino = ino;
    a->control.id = node->id;
    a->control.flags = (uint16_t)flags;
    a->control.mode = attr->st_mode & 07777u;
    a->control.uid = attr->st_uid;
    a->control.gid = attr->st_gid;
    a->control.time = mtime_asked(attr, to_set);
    action_send(a);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void)ino;
    struct fs *fs = fuse_req_userdata(req);
    struct log_stat log;
    log_stat_all(fs->log, &log);
    struct statvfs st = {.f_bsize = 4096,
                         .f_frsize = 4096,
                         .f_blocks = log.data / 4096,
                         .f_bfree = log.free / 4096,
                         .f_bavail = log.free / 4096,
                         .f_files = log.max_nodes,
                         .f_ffree = log.max_nodes - log.topics - log.directories,
                         .f_favail = log.max_nodes - log.topics - log.directories,
                         .f_namemax = MEDIA_MAX_NAME};
    fuse_reply_statfs(req, &st);
}
