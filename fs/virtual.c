/* .embar: what the mount says of itself (step 9). follow/, since/<when>/ and segments/ mirror the tree of
 * topics. Nothing in it can be made, changed or removed.
 *
 * since/10m stays one directory while time goes on: the moment is reckoned when a topic below it is
 * looked up, and what was opened keeps the beginning that it got.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/when.h"
#include "fs/fs.h"

static const struct {
    const char *name;
    enum node_kind kind;
    mode_t mode;
} entries[] = {
    {"status", NODE_STATUS, S_IFREG | 0444},    {"metrics", NODE_METRICS, S_IFREG | 0444},
    {"token", NODE_TOKEN, S_IFREG | 0600},      {"follow", NODE_FOLLOW_DIR, S_IFDIR | 0555},
    {"since", NODE_SINCE_ROOT, S_IFDIR | 0555}, {"segments", NODE_SEGMENTS_DIR, S_IFDIR | 0555},
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

static uint64_t realtime_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* since/<when>: 10m, 1h30m, @1700000000, 2026-01-31, 2026-01-31T12:00:00Z. */
static int since_when(struct fs *fs, const char *name, struct node **out)
{
    uint64_t when;
    if (when_duration(name, &when))
        when = (when < SINCE_RELATIVE ? when : SINCE_RELATIVE - 1) | SINCE_RELATIVE;
    else if (!when_time(name, 0, &when) || when >= SINCE_RELATIVE)
        return -ENOENT;
    *out = node_get(&fs->nodes, NODE_SINCE_DIR, LOG_ROOT_ID, when);
    return *out ? 0 : -ENOMEM;
}

/* Log offset of the topic's first batch of that time or later. */
static int since_offset(struct fs *fs, uint32_t id, uint64_t when, uint64_t *offset)
{
    if (when & SINCE_RELATIVE) {
        uint64_t now = realtime_ns(), ago = when & ~SINCE_RELATIVE;
        when = ago < now ? now - ago : 0;
    }
    struct topic *t = log_topic(fs->log, id);
    if (!t)
        return -ENOENT;
    int rc = topic_seek_time(t, when, offset);
    topic_put(t);
    return rc;
}

static int since_lookup(struct fs *fs, const struct node *parent, const char *name,
                        struct node **out)
{
    struct node_stat st;
    uint64_t offset;
    size_t n = strlen(name);
    int rc = n > MEDIA_MAX_NAME ? -ENOENT : log_lookup(fs->log, parent->id, name, n, &st);
    if (rc)
        return rc == -EMBAR_ENAME || rc == -EMBAR_ERESERVED ? -ENOENT : rc;
    if (S_ISDIR(st.mode)) {
        *out = node_get(&fs->nodes, NODE_SINCE_DIR, st.id, parent->base);
    } else {
        rc = since_offset(fs, st.id, parent->base, &offset);
        *out = rc ? NULL : node_get(&fs->nodes, NODE_SINCE, st.id, offset);
    }
    return rc ? rc : *out ? 0 : -ENOMEM;
}

int virtual_lookup(struct fs *fs, const struct node *parent, const char *name, struct node **out)
{
    enum node_kind kind = NODE_VIRTUAL;
    if (parent->kind == NODE_FOLLOW_DIR)
        return follow_lookup(fs, parent, name, out);
    if (parent->kind == NODE_SEGMENTS_DIR || parent->kind == NODE_SEGMENTS)
        return segments_lookup(fs, parent, name, out);
    if (parent->kind == NODE_SINCE_ROOT)
        return since_when(fs, name, out);
    if (parent->kind == NODE_SINCE_DIR)
        return since_lookup(fs, parent, name, out);
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
    *out = node_get(&fs->nodes, kind, is_mirror(kind) ? LOG_ROOT_ID : 0, 0);
    return *out ? 0 : -ENOMEM;
}

/* Who may read the topic may follow it, and read a part. */
static int mirror_attr(struct fs *fs, const struct node *node, struct stat *st)
{
    struct node_stat log;
    int rc = attr_log(fs, node, &log);
    if (rc < 0)
        return rc;
    st->st_mode = S_ISDIR(log.mode) ? S_IFDIR | (log.mode & 0555) : S_IFREG | (log.mode & 0444);
    st->st_uid = log.uid;
    st->st_gid = log.gid;
    if (node->kind == NODE_SINCE) {
        st->st_size = (off_t)(log.end > node->base ? log.end - node->base : 0);
        st->st_blocks = (st->st_size + 511) / 512;
        st->st_mtim = st->st_atim = time_of(log.modified);
        st->st_ctim = time_of(log.altered);
    } else if (node->kind == NODE_SEGMENT) {
        st->st_size = (off_t)node->length;
        st->st_blocks = (st->st_size + 511) / 512;
        st->st_mtim = st->st_ctim = st->st_atim = time_of(node->time);
    } else if (node->kind == NODE_SEGMENTS) { /* who may read it may enter it */
        st->st_mode = S_IFDIR | (log.mode & 0444) | (log.mode & 0444) >> 2;
    }
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
    if (node->kind == NODE_SINCE_DIR)
        st->st_mode = S_IFDIR | 0555;
    if (node->kind == NODE_FOLLOW || node->kind == NODE_SINCE || node->kind == NODE_SEGMENTS ||
        node->kind == NODE_SEGMENT || (is_mirror(node->kind) && node->id != LOG_ROOT_ID))
        return mirror_attr(fs, node, st);
    for (size_t i = 0; i < ENTRIES; i++)
        if (entries[i].kind == node->kind)
            st->st_mode = entries[i].mode;
    return 0;
}
