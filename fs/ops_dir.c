/* Listing directories (step 9). Offsets of a listing are node ids, which are never reused, so a
 * listing stays right while names come and go.
 *
 * A listing that is followed by looks at its files (ls -l) brings their nodes along (readdirplus),
 * and their names hold for LIST_SECONDS: one question a file instead of two. Attributes are asked
 * for each time all the same, so that no size is ever an old one; a node that was removed or trimmed
 * meanwhile answers ESTALE, whereupon the kernel looks the name up anew. The names of files that
 * somebody has open do not hold, since their nodes have to answer.
 *
 * .embar is not listed: find, grep -r and cp -r would walk into streams that never end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

#define DOTS       2u /* "." and ".." have the offsets 1 and 2 */
#define LIST_CHUNK 32

/* Enough for a reader to look at all that one getdents(2) gave it. */
#define LIST_SECONDS 0.05

struct listing {
    fuse_req_t req;
    bool plus;
    char *buf;
    size_t size, used;
};

static bool fits(struct listing *l, size_t n)
{
    if (n > l->size - l->used)
        return false;
    l->used += n;
    return true;
}

/* False when the buffer is full. Without a node (plus): the kernel looks it up when it wants to. */
static bool add(struct listing *l, const char *name, uint64_t ino, mode_t mode, off_t next)
{
    struct fuse_entry_param e = {.attr = {.st_ino = ino, .st_mode = mode}};
    char *to = l->buf + l->used;
    size_t room = l->size - l->used;
    return fits(l, l->plus ? fuse_add_direntry_plus(l->req, to, room, name, &e, next)
                           : fuse_add_direntry(l->req, to, room, name, &e.attr, next));
}

/* The same with the child's node, which has one more lookup then. */
static bool add_node(struct fs *fs, struct listing *l, const struct node_stat *st, off_t next)
{
    struct fuse_entry_param e;
    struct node *node = node_get_child(&fs->nodes, st);
    if (!node || attr_entry(fs, node, &e)) {
        if (node)
            node_forget(&fs->nodes, node, 1);
        return add(l, st->name, node_list_ino(&fs->nodes, st), st->mode, next);
    }
    e.entry_timeout = node_is_open(&fs->nodes, node) ? 0 : LIST_SECONDS;
    bool room = fits(
        l, fuse_add_direntry_plus(l->req, l->buf + l->used, l->size - l->used, st->name, &e, next));
    if (!room)
        node_forget(&fs->nodes, node, 1);
    return room;
}

static uint64_t mirror_ino(enum node_kind dir, const struct node_stat *st)
{
    enum node_kind file = dir == NODE_FOLLOW_DIR  ? NODE_FOLLOW
                          : dir == NODE_SINCE_DIR ? NODE_SINCE
                                                  : NODE_SEGMENTS;
    return virtual_ino(S_ISDIR(st->mode) ? dir : file) | st->id;
}

static int list_children(struct fs *fs, const struct node *dir, struct listing *l, uint32_t after)
{
    struct node_stat *st = malloc(LIST_CHUNK * sizeof *st);
    if (!st)
        return -ENOMEM;
    int n;
    bool room = true;
    do {
        n = log_list(fs->log, dir->id, after, st, LIST_CHUNK);
        for (int i = 0; i < n && room; i++) {
            after = st[i].id;
            off_t next = (off_t)DOTS + (off_t)after;
            if (is_mirror(dir->kind))
                room = add(l, st[i].name, mirror_ino(dir->kind, &st[i]),
                           dir->kind == NODE_SEGMENTS_DIR ? S_IFDIR : st[i].mode, next);
            else if (l->plus)
                room = add_node(fs, l, &st[i], next);
            else
                room = add(l, st[i].name, node_list_ino(&fs->nodes, &st[i]), st[i].mode, next);
        }
    } while (n == LIST_CHUNK && room);
    free(st);
    return n < 0 ? n : 0;
}

static bool add_piece(void *arg, const char *name, uint64_t next)
{
    return add(arg, name, virtual_ino(NODE_SEGMENT) | next, S_IFREG, (off_t)(DOTS + next));
}

static void list_virtual(const struct node *dir, struct listing *l, size_t from)
{
    enum node_kind kind = NODE_VIRTUAL;
    const char *name;
    for (size_t i = from; (name = virtual_list(dir, i, &kind)) != NULL; i++) {
        bool directory = is_mirror(kind) || kind == NODE_SINCE_ROOT;
        mode_t mode = directory ? S_IFDIR : S_IFREG;
        if (!add(l, name, virtual_ino(kind), mode, (off_t)(DOTS + i + 1)))
            return;
    }
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fuse_reply_open(req, fi);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *dir = node_of(fs, ino);
    struct listing l = {.req = req, .plus = plus, .buf = malloc(size ? size : 1), .size = size};
    int rc = l.buf ? 0 : -ENOMEM;
    uint64_t from = off < 0 ? 0 : (uint64_t)off;
    bool room = rc == 0;
    if (room && from < 1)
        room = add(&l, ".", dir->ino, S_IFDIR, 1);
    if (room && from < DOTS)
        room = add(&l, "..", dir->ino, S_IFDIR, DOTS);
    from = from < DOTS ? 0 : from - DOTS;
    if (room && dir->kind == NODE_VIRTUAL)
        list_virtual(dir, &l, from);
    else if (room && dir->kind == NODE_SEGMENTS)
        rc = segments_list(fs, dir, from, add_piece, &l);
    else if (room && from < UINT32_MAX && dir->kind != NODE_SINCE_ROOT)
        rc = list_children(fs, dir, &l, (uint32_t)from);
    if (rc && l.used == 0)
        fuse_reply_err(req, embar_to_errno(rc));
    else
        fuse_reply_buf(req, l.buf,
                       l.used); /* fails when the mount is gone, and its nodes with it */
    free(l.buf);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, off, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, off, true);
}
