/* The namespace: directories and topics by id and by (parent, name).
 *
 * Changed only by the fold, with names.lock held for writing; anybody reads under it. A removed node
 * moves to a table of its own until its last reference goes (topic_put), so that an open file can
 * still be asked about.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log_state.h"
#include "core/plain.h"

static unsigned key_size(size_t length)
{
    return (unsigned)(offsetof(struct node_key, name) + length);
}

int name_check(const char *name, size_t length)
{
    if (length == 0 || length > MEDIA_MAX_NAME)
        return -EMBAR_ENAME;
    if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
        return -EMBAR_ENAME;
    for (size_t i = 0, n; i < length; i += n) {
        n = plain_step(name + i, length - i);
        if (n == 0 || name[i] == '/')
            return -EMBAR_ENAME;
    }
    return 0;
}

int path_check(const char *path, size_t length)
{
    size_t at = length > 0 && path[0] == '/';
    if (length > MEDIA_MAX_PATH)
        return -EMBAR_ENAME;
    if (at == length)
        return 0;
    for (;;) {
        const char *slash = memchr(path + at, '/', length - at);
        size_t n = slash ? (size_t)(slash - (path + at)) : length - at;
        int rc = name_check(path + at, n);
        if (rc || !slash)
            return rc;
        at += n + 1;
    }
}

int names_init(struct log *log)
{
    struct names *n = &log->names;
    struct topic *root;
    int rc = topic_create(log, LOG_ROOT_ID, &root);
    if (rc)
        return rc;
    pthread_rwlock_init(&n->lock, NULL);
    watch_init(&n->watch);
    n->next_id = LOG_ROOT_ID + 1;
    root->mode = S_IFDIR | 0755;
    root->uid = (uint32_t)geteuid();
    root->gid = (uint32_t)getegid();
    root->created = root->modified = root->altered = now_realtime();
    HASH_ADD(by_id, n->by_id, id, sizeof root->id, root);
    if (!is_hashed(root, by_id)) {
        topic_destroy(root);
        pthread_rwlock_destroy(&n->lock);
        pthread_mutex_destroy(&n->watch.lock);
        return -ENOMEM;
    }
    TAILQ_INSERT_TAIL(&log->manifest.nodes, root, changed_link);
    n->directories = 1;
    return 0;
}

void names_destroy(struct log *log)
{
    struct names *n = &log->names;
    struct topic *t, *next;
    HASH_CLEAR(by_name, n->by_name);
    HASH_ITER(by_id, n->by_id, t, next)
    {
        HASH_DELETE(by_id, n->by_id, t);
        topic_destroy(t);
    }
    HASH_ITER(by_id, n->removed, t, next)
    {
        HASH_DELETE(by_id, n->removed, t);
        topic_destroy(t);
    }
    pthread_rwlock_destroy(&n->lock);
    pthread_mutex_destroy(&n->watch.lock);
}

struct topic *names_id(struct names *n, uint32_t id)
{
    struct topic *t;
    HASH_FIND(by_id, n->by_id, &id, sizeof id, t);
    return t;
}

struct topic *names_removed(struct names *n, uint32_t id)
{
    struct topic *t;
    HASH_FIND(by_id, n->removed, &id, sizeof id, t);
    return t;
}

struct topic *names_child(struct names *n, uint32_t parent, const char *name, size_t length)
{
    struct node_key key = {.parent = parent};
    struct topic *t;
    if (length > MEDIA_MAX_NAME)
        return NULL;
    memcpy(key.name, name, length);
    HASH_FIND(by_name, n->by_name, &key, key_size(length), t);
    return t;
}

bool names_is_dir(const struct topic *t)
{
    return S_ISDIR(t->mode);
}

/* Index of the first child of d with an id >= `id`. */
static uint32_t child_position(const struct topic *d, uint32_t id)
{
    uint32_t low = 0, high = d->child_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (d->children[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static int child_add(struct topic *d, uint32_t id)
{
    if (d->child_count == d->child_capacity) {
        uint32_t capacity = d->child_capacity ? d->child_capacity * 2 : 8;
        uint32_t *children = realloc(d->children, capacity * sizeof *children);
        if (!children)
            return -ENOMEM;
        d->children = children;
        d->child_capacity = capacity;
    }
    uint32_t at = child_position(d, id);
    memmove(d->children + at + 1, d->children + at, (d->child_count - at) * sizeof *d->children);
    d->children[at] = id;
    d->child_count++;
    return 0;
}

static void child_drop(struct topic *d, uint32_t id)
{
    uint32_t at = child_position(d, id);
    if (at < d->child_count && d->children[at] == id) {
        d->child_count--;
        memmove(d->children + at, d->children + at + 1,
                (d->child_count - at) * sizeof *d->children);
    }
}

/* Into a directory's children and the name index. */
int names_link(struct names *n, struct topic *t, uint32_t parent, const char *name, size_t length)
{
    struct topic *d = names_id(n, parent);
    if (!d || !names_is_dir(d) || length > MEDIA_MAX_NAME || names_child(n, parent, name, length))
        return -EMBAR_ECORRUPT;
    int rc = child_add(d, t->id);
    if (rc)
        return rc;
    memset(&t->key, 0, sizeof t->key);
    t->key.parent = parent;
    memcpy(t->key.name, name, length);
    t->name_length = (uint16_t)length;
    HASH_ADD(by_name, n->by_name, key, key_size(length), t);
    if (is_hashed(t, by_name))
        return 0;
    child_drop(d, t->id);
    return -ENOMEM;
}

static void unlink_node(struct names *n, struct topic *t)
{
    struct topic *d = names_id(n, t->key.parent);
    if (d)
        child_drop(d, t->id);
    HASH_DELETE(by_name, n->by_name, t);
}

int names_add(struct names *n, struct topic *t)
{
    HASH_ADD(by_id, n->by_id, id, sizeof t->id, t);
    if (!is_hashed(t, by_id))
        return -ENOMEM;
    if (names_is_dir(t))
        n->directories++;
    else
        n->topics++;
    if (t->id >= n->next_id)
        n->next_id = t->id + 1;
    return 0;
}

int names_insert(struct names *n, struct topic *t, uint32_t parent, const char *name, size_t length)
{
    int rc = names_link(n, t, parent, name, length);
    if (rc)
        return rc;
    rc = names_add(n, t);
    if (rc)
        unlink_node(n, t);
    return rc;
}

void names_remove(struct names *n, struct topic *t)
{
    unlink_node(n, t);
    survey_forget(t->log, t);
    HASH_DELETE(by_id, n->by_id, t);
    HASH_ADD(by_id, n->removed, id, sizeof t->id, t); /* without memory log_stat knows it no more */
    if (names_is_dir(t))
        n->directories--;
    else
        n->topics--;
}

int names_move(struct names *n, struct topic *t, uint32_t parent, const char *name, size_t length)
{
    const struct topic *d = names_id(n, parent);
    /* Everything that names_link refuses, before the node is out of its old place. */
    if (t->id == LOG_ROOT_ID || !d || !names_is_dir(d) || names_child(n, parent, name, length))
        return -EMBAR_ECORRUPT;
    for (const struct topic *up = d; up; up = names_id(n, up->key.parent))
        if (up == t)
            return -EMBAR_ECORRUPT; /* below itself */
    unlink_node(n, t);
    unsigned tries = 0;
    int rc;
    do
        rc = names_link(n, t, parent, name, length);
    while (rc == -ENOMEM && fold_patience(&tries));
    return rc;
}

/* ---- What others ask ---------------------------------------------------------------------- */

static void stat_fill(struct topic *t, struct node_stat *st)
{
    memset(st, 0, sizeof *st);
    st->id = t->id;
    st->parent = t->key.parent;
    st->mode = t->mode;
    st->uid = t->uid;
    st->gid = t->gid;
    st->order = atomic_load_explicit(&t->topic_order, memory_order_relaxed);
    st->ack = t->ack;
    st->policy = t->policy;
    st->created = t->created;
    st->keep_bytes = t->keep_bytes;
    st->keep_age = t->keep_age;
    st->children = t->child_count;
    memcpy(st->name, t->key.name, t->name_length);
    pthread_mutex_lock(&t->lock);
    st->base = topic_base(t);
    st->end = topic_end(t);
    st->first = t->first_message;
    st->messages = t->last_message_end;
    st->modified = t->modified;
    st->altered = t->time > t->altered ? t->time : t->altered;
    st->batches = t->batches;
    st->generation = atomic_load_explicit(&t->generation, memory_order_relaxed);
    pthread_mutex_unlock(&t->lock);
}

int log_lookup(struct log *log, uint32_t parent, const char *name, size_t length,
               struct node_stat *st)
{
    struct names *n = &log->names;
    int rc = name_check(name, length);
    if (rc)
        return rc;
    pthread_rwlock_rdlock(&n->lock);
    struct topic *d = names_id(n, parent);
    struct topic *t = d && names_is_dir(d) ? names_child(n, parent, name, length) : NULL;
    if (t)
        stat_fill(t, st);
    else
        rc = d && !names_is_dir(d) ? -ENOTDIR : -ENOENT;
    pthread_rwlock_unlock(&n->lock);
    return rc;
}

int log_resolve(struct log *log, const char *path, struct node_stat *st)
{
    int rc = log_stat(log, LOG_ROOT_ID, st);
    if (*path == '/')
        path++;
    if (strlen(path) > MEDIA_MAX_PATH)
        return -EMBAR_ENAME;
    while (rc == 0 && *path) {
        size_t length = strcspn(path, "/");
        rc = log_lookup(log, st->id, path, length, st);
        path += length;
        if (rc == 0 && *path == '/' && *++path == 0)
            rc = -EMBAR_ENAME;
    }
    return rc;
}

int log_stat(struct log *log, uint32_t id, struct node_stat *st)
{
    struct names *n = &log->names;
    int rc = -ENOENT;
    pthread_rwlock_rdlock(&n->lock);
    struct topic *t = names_id(n, id);
    if (!t)
        t = names_removed(n, id);
    if (t) {
        stat_fill(t, st);
        rc = topic_deleted(t) ? -EMBAR_EGONE : 0;
    }
    pthread_rwlock_unlock(&n->lock);
    return rc;
}

int log_path(struct log *log, uint32_t id, char *buf, size_t size)
{
    struct names *n = &log->names;
    char path[MEDIA_MAX_PATH + 1];
    size_t at = sizeof path - 1;
    int rc = 0;
    path[at] = 0;
    pthread_rwlock_rdlock(&n->lock);
    while (rc == 0 && id != LOG_ROOT_ID) {
        struct topic *t = names_id(n, id);
        if (!t) {
            rc = -ENOENT;
        } else if (t->name_length + (t->key.parent == LOG_ROOT_ID ? 0u : 1u) > at) {
            rc = -EMBAR_ENAME;
        } else {
            at -= t->name_length;
            memcpy(path + at, t->key.name, t->name_length);
            id = t->key.parent;
            if (id != LOG_ROOT_ID)
                path[--at] = '/';
        }
    }
    pthread_rwlock_unlock(&n->lock);
    if (rc == 0 && sizeof path - at > size)
        rc = -EMBAR_ENAME;
    if (rc == 0)
        memcpy(buf, path + at, sizeof path - at);
    return rc;
}

int log_list(struct log *log, uint32_t parent, uint32_t after, struct node_stat *st, unsigned count)
{
    struct names *n = &log->names;
    int rc = 0;
    pthread_rwlock_rdlock(&n->lock);
    struct topic *d = names_id(n, parent);
    if (!d || !names_is_dir(d)) {
        rc = d ? -ENOTDIR : -ENOENT;
    } else {
        uint32_t at = after == UINT32_MAX ? d->child_count : child_position(d, after + 1);
        for (; (unsigned)rc < count && at < d->child_count; at++) {
            struct topic *t = names_id(n, d->children[at]);
            if (t)
                stat_fill(t, &st[rc++]);
        }
    }
    pthread_rwlock_unlock(&n->lock);
    return rc;
}

struct topic *log_topic(struct log *log, uint32_t id)
{
    struct names *n = &log->names;
    pthread_rwlock_rdlock(&n->lock);
    struct topic *t = names_id(n, id);
    if (t && (names_is_dir(t) || topic_deleted(t)))
        t = NULL;
    if (t)
        topic_ref(t);
    pthread_rwlock_unlock(&n->lock);
    return t;
}

struct topic *log_topic_held(struct log *log, uint32_t id)
{
    struct names *n = &log->names;
    struct topic *t = log_topic(log, id);
    if (t)
        return t;
    pthread_rwlock_rdlock(&n->lock);
    t = names_removed(n, id);
    /* The last reference may be on its way out: who drops it waits for the lock to unhash it. */
    if (t && (names_is_dir(t) || !topic_ref_held(t)))
        t = NULL;
    pthread_rwlock_unlock(&n->lock);
    return t;
}
