/* Paths and permissions: what a network principal may reach (steps 2 and 9).
 *
 * A path is walked component by component, each directory passed must let the principal through,
 * as in any filesystem. Making what is missing takes one control action a component, each answered
 * when committed; between them the walk starts anew, so others may make or remove things meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "net/server/internal.h"

#define GROUPS_USUAL 256 /* the kernel allows 65,536 */

static bool in_group(const struct conn *c, uint32_t gid)
{
    if (c->gid == gid)
        return true;
    if (!c->local)
        return false;
    gid_t usual[GROUPS_USUAL], *groups = usual, *more = NULL;
    socklen_t size = sizeof(usual);
    int rc = getsockopt(c->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size);
    if (rc && errno == ERANGE) { /* size says how many there are: as they were when it connected */
        groups = more = malloc(size);
        rc = more ? getsockopt(c->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) : -1;
    }
    bool found = false;
    for (size_t i = 0; rc == 0 && !found && i < size / sizeof(groups[0]); i++)
        found = groups[i] == gid;
    free(more);
    return found;
}

static bool is_privileged(const struct conn *c)
{
    return c->uid == 0 || c->uid == c->worker->server->uid;
}

bool may(const struct conn *c, const struct node_stat *st, unsigned bits)
{
    if (is_privileged(c))
        return true;
    unsigned mode = st->mode;
    if (c->uid == st->uid)
        mode >>= 6;
    else if (in_group(c, st->gid))
        mode >>= 3;
    return (mode & bits) == bits;
}

bool owns(const struct conn *c, const struct node_stat *st)
{
    return is_privileged(c) || c->uid == st->uid;
}

int may_take(const struct conn *c, const struct node_stat *dir, const struct node_stat *st)
{
    if (!may(c, dir, 3))
        return -EACCES;
    return (dir->mode & S_ISVTX) && !owns(c, st) && !owns(c, dir) ? -EPERM : 0;
}

uint32_t mode_given(const struct conn *c, const struct node_stat *st, uint32_t mode)
{
    mode &= 07777u;
    return is_privileged(c) || in_group(c, st->gid) ? mode : mode & ~(uint32_t)S_ISGID;
}

int walk(const struct conn *c, const char *path, size_t length, struct walked *out)
{
    struct log *log = c->worker->log;
    memset(out, 0, sizeof(*out));
    if (length > MEDIA_MAX_PATH)
        return -EMBAR_ENAME;
    int rc = log_stat(log, LOG_ROOT_ID, &out->node);
    if (rc)
        return rc;
    out->dir = out->node;
    size_t at = length > 0 && path[0] == '/';
    while (at < length) {
        const char *name = path + at;
        const char *slash = memchr(name, '/', length - at);
        size_t n = slash ? (size_t)(slash - name) : length - at;
        rc = name_check(name, n);
        if (rc)
            return rc;
        at += n + (slash != NULL);
        if (slash && at == length)
            return -EMBAR_ENAME; /* an empty component ends it */
        if (!S_ISDIR(out->node.mode))
            return -ENOTDIR;
        if (out->node.id == LOG_ROOT_ID && n == 6 && memcmp(name, ".embar", 6) == 0)
            return -EMBAR_ERESERVED;
        if (!may(c, &out->node, 1))
            return -EACCES;
        out->name = name;
        out->name_length = n;
        out->more = at < length;
        struct node_stat child;
        rc = log_lookup(log, out->node.id, name, n, &child);
        if (rc)
            return rc;
        out->dir = out->node;
        out->node = child;
    }
    return 0;
}

enum { STAGE_PARENT = 1, STAGE_LAST = 2 };

int make_path(struct conn *c, const char *path, size_t length, const struct making *how,
              struct walked *out, bool *made)
{
    struct ask *a = c->ask;
    *made = false;
    if (a && a->result.status && a->result.status != -EEXIST)
        return a->result.status;
    int rc = path_check(path, length); /* none is made where another cannot be */
    if (rc == 0)
        rc = walk(c, path, length, out);
    if (rc == 0) {
        *made = a && a->stage == STAGE_LAST && a->result.status == 0;
        return 0;
    }
    if (rc != -ENOENT || !out->name || (out->more && !how->parents))
        return rc;
    if (!may(c, &out->node, 2))
        return -EACCES;
    bool dir = how->directory || out->more;
    rc = ask_begin(c, out->more ? STAGE_PARENT : STAGE_LAST, &a);
    if (rc)
        return rc;
    struct control *k = &a->control;
    k->kind = dir ? MEDIA_C_MKDIR : MEDIA_C_CREATE;
    k->parent = out->node.id;
    k->uid = c->uid;
    k->gid = c->gid;
    k->mode = out->more || how->mode == 0 ? (dir ? 0755 : 0644) : how->mode & 07777u;
    k->order = how->order == WIRE_ANY ? 5 : how->order;
    k->ack = how->ack == WIRE_ANY ? 1 : how->ack;
    if (!dir) {
        k->policy = how->policy;
        k->value = how->keep_bytes;
        k->value2 = how->keep_age;
    }
    memcpy(k->name, out->name, out->name_length);
    ask_submit(c);
    return 1;
}
