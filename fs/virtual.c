/* .embar: what the mount says of itself (step 9). follow/ mirrors the tree of topics. Nothing in it
 * can be made, changed or removed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fs.h"

static const struct {
    const char *name;
    enum node_kind kind;
    mode_t mode;
} entries[] = {
    {"status", NODE_STATUS, S_IFREG | 0444},
    {"metrics", NODE_METRICS, S_IFREG | 0444},
    {"token", NODE_TOKEN, S_IFREG | 0600},
    {"follow", NODE_FOLLOW_DIR, S_IFDIR | 0555},
};
#define ENTRIES (sizeof entries / sizeof entries[0])

/* The top bit, which no topic's st_ino has. */
uint64_t virtual_ino(enum node_kind kind)
{
    return 1ull << 63 | (uint64_t)kind << 32;
}

const char *virtual_list(const struct node *dir, size_t i, enum node_kind *kind)
{
    if (dir->kind != NODE_VIRTUAL || i >= ENTRIES)
        return NULL;
    *kind = entries[i].kind;
    return entries[i].name;
}

/* "topic@offset", when no topic has that very name. */
static int follow_at(struct fs *fs, const struct node *parent, const char *name,
                     struct node_stat *st, uint64_t *offset)
{
    const char *at = strrchr(name, '@');
    if (!at || at == name || at[1] < '0' || at[1] > '9')
        return -ENOENT;
    char *end;
    errno = 0;
    *offset = strtoull(at + 1, &end, 10);
    if (errno || *end || *offset == FOLLOW_END)
        return -ENOENT;
    int rc = log_lookup(fs->log, parent->id, name, (size_t)(at - name), st);
    return rc == 0 && S_ISDIR(st->mode) ? -ENOENT : rc;
}

static int follow_lookup(struct fs *fs, const struct node *parent, const char *name,
                         struct node **out)
{
    struct node_stat st;
    uint64_t offset = FOLLOW_END;
    size_t n = strlen(name);
    int rc = n > MEDIA_MAX_NAME ? -ENOENT : log_lookup(fs->log, parent->id, name, n, &st);
    if (rc)
        rc = follow_at(fs, parent, name, &st, &offset);
    if (rc)
        return rc == -EMBAR_ENAME || rc == -EMBAR_ERESERVED ? -ENOENT : rc;
    *out = S_ISDIR(st.mode) ? node_get(&fs->nodes, NODE_FOLLOW_DIR, st.id, 0)
                            : node_get(&fs->nodes, NODE_FOLLOW, st.id, offset);
    return *out ? 0 : -ENOMEM;
}

int virtual_lookup(struct fs *fs, const struct node *parent, const char *name, struct node **out)
{
    enum node_kind kind = NODE_VIRTUAL;
    if (parent->kind == NODE_FOLLOW_DIR)
        return follow_lookup(fs, parent, name, out);
    if (parent->kind == NODE_VIRTUAL) {
        size_t i = 0;
        while (i < ENTRIES && strcmp(entries[i].name, name) != 0)
            i++;
        if (i == ENTRIES)
            return -ENOENT;
        kind = entries[i].kind;
    } else if (parent->kind != NODE_DIR) {
        return -ENOTDIR;
    }
    *out = node_get(&fs->nodes, kind, kind == NODE_FOLLOW_DIR ? LOG_ROOT_ID : 0, 0);
    return *out ? 0 : -ENOMEM;
}

/* Who may read the topic may follow it. */
static int follow_attr(struct fs *fs, const struct node *node, struct stat *st)
{
    struct node_stat log;
    int rc = attr_log(fs, node, &log);
    if (rc < 0)
        return rc;
    st->st_mode = S_ISDIR(log.mode) ? S_IFDIR | (log.mode & 0555) : S_IFREG | (log.mode & 0444);
    st->st_uid = log.uid;
    st->st_gid = log.gid;
    return 0;
}

int virtual_attr(struct fs *fs, const struct node *node, struct stat *st)
{
    st->st_ino = node->ino;
    st->st_nlink = 1;
    st->st_blksize = FS_IO_SIZE;
    st->st_uid = fs->uid;
    st->st_gid = fs->gid;
    st->st_mode = S_IFDIR | 0555;
    clock_gettime(CLOCK_REALTIME, &st->st_mtim);
    st->st_ctim = st->st_atim = st->st_mtim;
    if (node->kind == NODE_FOLLOW || (node->kind == NODE_FOLLOW_DIR && node->id != LOG_ROOT_ID))
        return follow_attr(fs, node, st);
    for (size_t i = 0; i < ENTRIES; i++)
        if (entries[i].kind == node->kind)
            st->st_mode = entries[i].mode;
    return 0;
}
