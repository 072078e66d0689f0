/* Names: lookup, create, mkdir, rm, rmdir, mv, ls (control actions, steps 6 to 9). Every change is
 * answered when it is committed. Must never wait: see control.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

static int lookup_logged(struct fs *fs, const struct node *parent, const char *name,
                         struct node **out)
{
    struct node_stat st;
    size_t n = strlen(name);
    if (n > MEDIA_MAX_NAME)
        return -ENAMETOOLONG;
    int rc = log_lookup(fs->log, parent->id, name, n, &st);
    /* A name that cannot be is one that is not there; creating it says why. */
    if (rc == -EMBAR_ENAME || rc == -EMBAR_ERESERVED)
        rc = -ENOENT;
    if (rc)
        return rc;
    *out = node_get_child(&fs->nodes, &st);
    return *out ? 0 : -ENOMEM;
}

static bool is_reserved(const struct node *parent, const char *name)
{
    return parent->id == LOG_ROOT_ID && strcmp(name, VIRTUAL_NAME) == 0;
}

void op_lookup(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *parent = node_of(fs, ino);
    struct node *node = NULL;
    struct fuse_entry_param e;
    int rc = parent->kind != NODE_DIR || is_reserved(parent, name)
                 ? virtual_lookup(fs, parent, name, &node)
                 : lookup_logged(fs, parent, name, &node);
    if (rc == 0)
        rc = attr_entry(fs, node, &e);
    if (rc == 0 && fuse_reply_entry(req, &e) == 0)
        return;
    if (node)
        node_forget(&fs->nodes, node, 1);
    if (rc)
        fuse_reply_err(req, embar_to_errno(rc));
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
    struct fs *fs = fuse_req_userdata(req);
    node_forget(&fs->nodes, node_of(fs, ino), lookups);
    fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct fs *fs = fuse_req_userdata(req);
    for (size_t i = 0; i < count; i++)
        node_forget(&fs->nodes, node_of(fs, forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
}

/* May `name` come into being below `parent`? 0 or a negative errno. */
static int name_allowed(struct fs *fs, const struct node *parent, const char *name)
{
    char path[MEDIA_MAX_PATH + 2];
    size_t n = strlen(name);
    if (parent->kind != NODE_DIR || is_reserved(parent, name))
        return -EPERM;
    if (n > MEDIA_MAX_NAME)
        return -ENAMETOOLONG;
    if (name_check(name, n))
        return -EINVAL;
    int rc = log_path(fs->log, parent->id, path, sizeof path);
    if (rc)
        return rc == -ENOENT || rc == -EMBAR_EGONE ? -ENOENT : rc;
    return strlen(path) + 1 + n > MEDIA_MAX_PATH ? -ENAMETOOLONG : 0;
}

/* The made node's entry; the node has one more lookup then. */
static int entry_made(struct action *a, struct node **node, struct fuse_entry_param *e)
{
    struct fs *fs = a->fs;
    struct node_stat st;
    int rc = log_stat(fs->log, a->commit.id, &st);
    if (rc)
        return rc;
    *node = node_get_child(&fs->nodes, &st);
    if (!*node)
        return -ENOMEM;
    rc = attr_entry(fs, *node, e);
    if (rc)
        node_forget(&fs->nodes, *node, 1);
    return rc;
}

static void answer_entry(struct action *a)
{
    struct node *node;
    struct fuse_entry_param e;
    int rc = a->commit.status;
    if (rc == 0)
        rc = entry_made(a, &node, &e);
    if (rc)
        fuse_reply_err(a->req, embar_to_errno(rc));
    else if (fuse_reply_entry(a->req, &e))
        node_forget(&a->fs->nodes, node, 1);
}

static void answer_create(struct action *a)
{
    struct fs *fs = a->fs;
    struct node *node;
    struct fuse_entry_param e;
    /* Somebody else made it first: then this is an open. */
    int rc = a->commit.status == -EEXIST && !(a->fi.flags & O_EXCL) ? 0 : a->commit.status;
    if (rc == 0)
        rc = entry_made(a, &node, &e);
    if (rc) {
        fuse_reply_err(a->req, embar_to_errno(rc));
        return;
    }
    rc = open_node(fs, node, &a->fi);
    if (rc == 0 && fuse_reply_create(a->req, &e, &a->fi) == 0)
        return;
    if (rc)
        fuse_reply_err(a->req, embar_to_errno(rc));
    else
        handle_close(handle_of(&a->fi));
    node_forget(&fs->nodes, node, 1);
}

static struct action *make(fuse_req_t req, fuse_ino_t ino, const char *name, mode_t mode,
                           enum media_control_kind kind, void (*answer)(struct action *))
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *parent = node_of(fs, ino);
    int rc = name_allowed(fs, parent, name);
    if (rc) {
        fuse_reply_err(req, embar_to_errno(rc));
        return NULL;
    }
    struct action *a = action_new(fs, req, kind, answer);
    if (!a)
        return NULL;
    action_name(a, name);
    a->control.parent = parent->id;
    a->control.mode = mode & 07777u; /* the kernel applied the umask */
    a->control.uid = fuse_req_ctx(req)->uid;
    a->control.gid = fuse_req_ctx(req)->gid;
    a->control.order = 5;
    a->control.ack = 1;
    return a;
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    (void)rdev;
    if (!S_ISREG(mode)) {
        fuse_reply_err(req, EPERM);
        return;
    }
    struct action *a = make(req, parent, name, mode, MEDIA_C_CREATE, answer_entry);
    if (a)
        action_send(a);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
    struct action *a = make(req, parent, name, mode, MEDIA_C_CREATE, answer_create);
    if (!a)
        return;
    a->fi = *fi;
    action_send(a);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct action *a = make(req, parent, name, mode, MEDIA_C_MKDIR, answer_entry);
    if (a)
        action_send(a);
}

static void answer_done(struct action *a)
{
    fuse_reply_err(a->req, embar_to_errno(a->commit.status));
}

static void remove_node(fuse_req_t req, fuse_ino_t ino, const char *name, bool directory)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *parent = node_of(fs, ino);
    struct node_stat st;
    int rc = parent->kind != NODE_DIR || is_reserved(parent, name)
                 ? -EPERM
                 : log_lookup(fs->log, parent->id, name, strlen(name), &st);
    if (rc == 0 && directory != S_ISDIR(st.mode))
        rc = directory ? -ENOTDIR : -EISDIR;
    if (rc) {
        fuse_reply_err(req, embar_to_errno(rc));
        return;
    }
    struct action *a = action_new(fs, req, MEDIA_C_REMOVE, answer_done);
    if (!a)
        return;
    a->control.id = st.id;
    action_send(a);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_node(req, parent, name, false);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_node(req, parent, name, true);
}

void op_rename(fuse_req_t req, fuse_ino_t ino, const char *name, fuse_ino_t newino,
               const char *newname, unsigned flags)
{
    struct fs *fs = fuse_req_userdata(req);
    const struct node *parent = node_of(fs, ino), *newparent = node_of(fs, newino);
    struct node_stat source;
    int rc = 0;
    if (flags & ~(unsigned)RENAME_NOREPLACE)
        rc = -EINVAL;
    else if (parent->kind != NODE_DIR || is_reserved(parent, name))
        rc = -EPERM;
    if (rc == 0)
        rc = name_allowed(fs, newparent, newname);
    if (rc == 0)
        rc = log_lookup(fs->log, parent->id, name, strlen(name), &source);
    if (rc) {
        fuse_reply_err(req, embar_to_errno(rc));
        return;
    }
    struct action *a = action_new(fs, req, MEDIA_C_RENAME, answer_done);
    if (!a)
        return;
    action_name(a, newname);
    a->control.id = source.id;
    a->control.parent = newparent->id;
    a->control.flags = flags & RENAME_NOREPLACE ? LOG_RENAME_NOREPLACE : 0;
    action_send(a);
}

/* A topic is one file with one name: the log's directory entries are its nodes. */
void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link;
    (void)parent;
    (void)name;
    fuse_reply_err(req, EPERM);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
    (void)ino;
    (void)newparent;
    (void)newname;
    fuse_reply_err(req, EPERM);
}
