/* The fold: what a committed entry does to names, topics and sessions (step 8, and recovery).
 *
 * The one place where that state changes, called with the sequencer's role in the order of the
 * index, when an entry was committed and when it is replayed; both must give the same state. So
 * nothing here may look at anything but the state and the entry, and nothing may write to the pool.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/log_state.h"

bool fold_patience(unsigned *tries)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    nanosleep(&moment, NULL);
    return ++*tries < 10000;
}

int fold_batch(struct log *log, struct topic *t, struct session *s, const struct placed *p)
{
    uint64_t runs = t->run_dropped + t->run_count;
    int rc = topic_append(t, p);
    if (rc)
        return rc;
    /* Topic 0 is in no checkpoint: it is replayed and trimmed. A removed topic is in none any more. */
    if (t != log->control && !topic_deleted(t)) {
        manifest_touch(log, t);
        log->manifest.runs += t->run_dropped + t->run_count - runs;
    }
    if (s) {
        manifest_touch_session(log, s);
        session_commit(log, s, p->time);
    }
    return 0;
}

static int fold_create(struct log *log, const struct control *c)
{
    struct names *n = &log->names;
    struct topic *t;
    if (c->id == 0 || c->id == UINT32_MAX || names_id(n, c->id) ||
        name_check(c->name, strlen(c->name)))
        return -EMBAR_ECORRUPT;
    int rc = topic_create(log, c->id, &t);
    if (rc)
        return rc;
    t->mode = (c->mode & 07777u) | (c->kind == MEDIA_C_MKDIR ? S_IFDIR : S_IFREG);
    t->uid = c->uid;
    t->gid = c->gid;
    t->ack = c->ack;
    atomic_init(&t->topic_order, c->order);
    t->created = t->modified = t->altered = c->time;
    t->keep_bytes = c->value;
    t->keep_age = c->value2;
    t->policy = c->policy;
    rc = names_insert(n, t, c->parent, c->name, strlen(c->name));
    if (rc) {
        topic_destroy(t);
        return rc;
    }
    TAILQ_INSERT_TAIL(&log->manifest.nodes, t, changed_link);
    manifest_touch(log, t);
    return 0;
}

static void fold_altered(struct topic *t, uint64_t time)
{
    pthread_mutex_lock(&t->lock);
    t->altered = time;
    pthread_mutex_unlock(&t->lock);
}

/* A directory changes with its children. */
static void fold_modified(struct log *log, uint32_t id, uint64_t time)
{
    struct topic *d = names_id(&log->names, id);
    if (!d)
        return;
    manifest_touch(log, d);
    pthread_mutex_lock(&d->lock);
    d->modified = d->altered = time;
    pthread_mutex_unlock(&d->lock);
}

/* Out of the namespace. Returns the node, whose reference the caller drops with no lock held. */
static struct topic *fold_remove(struct log *log, uint32_t id, uint64_t time)
{
    struct topic *t = names_id(&log->names, id);
    if (!t || topic_deleted(t) || id == LOG_ROOT_ID || t->child_count > 0)
        return NULL;
    fold_altered(t, time);
    retain_forget(log, t);
    t->retained = false; /* open files may write on */
    names_remove(&log->names, t);
    atomic_store_explicit(&t->deleted, true, memory_order_release);
    table_retire(log, t);
    manifest_drop(log, t);
    for (struct session *s; (s = LIST_FIRST(&t->sessions));) {
        order_release(log, s, -EMBAR_EGONE);
        session_drop(log, s);
    }
    return t;
}

static void fold_attr(struct log *log, struct topic *t, const struct control *c)
{
    if (c->flags & MEDIA_A_MODE)
        t->mode = (t->mode & (unsigned)S_IFMT) | (c->mode & 07777u);
    if (c->flags & MEDIA_A_OWNER)
        t->uid = c->uid;
    if (c->flags & MEDIA_A_GROUP)
        t->gid = c->gid;
    if (c->flags & MEDIA_A_ORDER) {
        atomic_store_explicit(&t->topic_order, c->order, memory_order_relaxed);
        order_changed(log, t);
    }
    if (c->flags & MEDIA_A_ACK)
        t->ack = c->ack;
    if (c->flags & MEDIA_A_BYTES)
        t->keep_bytes = c->value;
    if (c->flags & MEDIA_A_AGE)
        t->keep_age = c->value2;
    if (c->flags & MEDIA_A_FULL)
        t->policy = c->policy;
    fold_altered(t, c->altered);
    if (c->flags & MEDIA_A_TIMES) {
        pthread_mutex_lock(&t->lock);
        t->modified = c->time;
        pthread_mutex_unlock(&t->lock);
    }
}

int fold_removed_attr(struct log *log, struct control *c)
{
    struct names *n = &log->names;
    pthread_rwlock_wrlock(&n->lock);
    struct topic *t = names_removed(n, c->id);
    int rc = t ? control_attr(t, c) : -ENOENT;
    if (rc == 0)
        fold_attr(log, t, c);
    pthread_rwlock_unlock(&n->lock);
    return rc;
}

static int fold_rename(struct log *log, const struct control *c, struct topic *t,
                       struct topic **gone)
{
    struct names *n = &log->names;
    size_t length = strlen(c->name);
    uint32_t from = t->key.parent;
    const struct topic *there = names_child(n, c->parent, c->name, length);
    /* What is replaced is what stands there, and never what moves. */
    if (there == t || c->value != (there ? there->id : 0) || name_check(c->name, length))
        return -EMBAR_ECORRUPT;
    if (there) {
        *gone = fold_remove(log, there->id, c->time);
        if (!*gone)
            return -EMBAR_ECORRUPT;
    }
    int rc = names_move(n, t, c->parent, c->name, length);
    if (rc)
        return rc;
    manifest_touch(log, t);
    fold_altered(t, c->time);
    fold_modified(log, from, c->time);
    fold_modified(log, c->parent, c->time);
    return 0;
}

static int fold_names(struct log *log, const struct control *c, struct topic **gone)
{
    struct names *n = &log->names;
    struct topic *t = names_id(n, c->id);
    int rc;
    if (c->kind == MEDIA_C_MKDIR || c->kind == MEDIA_C_CREATE) {
        rc = fold_create(log, c);
        if (rc == 0)
            fold_modified(log, c->parent, c->time);
        return rc;
    }
    if (!t || topic_deleted(t))
        return -EMBAR_ECORRUPT;
    switch (c->kind) {
    case MEDIA_C_REMOVE:
        *gone = fold_remove(log, c->id, c->time);
        if (*gone)
            fold_modified(log, t->key.parent, c->time);
        return *gone ? 0 : -EMBAR_ECORRUPT;
    case MEDIA_C_RENAME: return fold_rename(log, c, t, gone);
    default:
        manifest_touch(log, t);
        fold_attr(log, t, c);
        return 0;
    }
}

static int fold_session(struct log *log, const struct control *c, uint64_t number,
                        struct commit *commit)
{
    if (c->kind == MEDIA_C_OPEN) {
        struct session s = {
            .id = number, .topic = c->id, .principal = c->uid, .epoch = 1, .time = c->time};
        commit->session = number;
        commit->epoch = 1;
        int rc = session_add(log, &s);
        if (rc == 0)
            manifest_touch_session(log, session_find(log, number));
        return rc;
    }
    struct session *s = session_find(log, c->value);
    if (!s)
        return -EMBAR_ECORRUPT;
    int why = log_fenced(s->epoch, c->epoch);
    if (c->kind == MEDIA_C_FENCE) {
        session_fence(log, s, c->epoch);
        manifest_touch_session(log, s);
    }
    commit->session = s->id;
    commit->sequence = s->sequence;
    commit->messages = s->messages;
    commit->epoch = c->epoch;
    if (c->kind == MEDIA_C_FENCE) {
        order_release(log, s, why);
    } else {
        order_release(log, s, -EMBAR_ESESSION);
        session_drop(log, s);
    }
    return 0;
}

int fold_grant(struct log *log, uint32_t slot, uint64_t first, uint64_t count)
{
    int rc = extents_grant(log->extents, first, count);
    if (rc)
        return rc;
    struct media_grant *grown = realloc(log->grant, (log->grant_count + 1) * sizeof *log->grant);
    if (!grown)
        return -ENOMEM;
    log->grant = grown;
    log->grant[log->grant_count++] = (struct media_grant){.first = le32_of((uint32_t)first),
                                                          .count = le32_of((uint32_t)count),
                                                          .slot = le32_of(slot)};
    return 0;
}

int fold_move(struct log *log, const struct entry *e)
{
    struct topic *t = names_id(&log->names, e->topic);
    struct extent *to;
    if (!t || names_is_dir(t) || topic_deleted(t) || t->run_count == 0)
        return -EMBAR_ECORRUPT;
    size_t i = topic_run_find(t, e->offset);
    const struct run *r = topic_run(t, i);
    unsigned batches = r->batches > 0 ? r->batches : 1;
    if (r->offset != e->offset || topic_run_end(t, i) - e->offset != e->length ||
        run_is_damaged(r) || batches != e->count || (r->batches == 0) != (e->side == 0))
        return -EMBAR_ECORRUPT;
    int rc = extent_claim(log->extents, e->payload, e->order, &to);
    if (rc)
        return rc;
    topic_run_move(t, i, e->payload, e->side, e->order);
    table_reopen(log, t, t->run_dropped + i);
    return 0;
}

/* Without it a full pool could not checkpoint, a full ring then not take the trim that would free
 * space. */
void fold_need(struct log *log)
{
    extents_need(log->extents, table_need(log) + manifest_need(log));
}

int fold_control(struct log *log, const struct control *c, uint64_t number, struct commit *commit)
{
    struct topic *gone = NULL, *t;
    int rc;
    commit->id = c->id;
    switch (c->kind) {
    case MEDIA_C_MKDIR:
    case MEDIA_C_CREATE:
    case MEDIA_C_REMOVE:
    case MEDIA_C_RENAME:
    case MEDIA_C_ATTR:
        pthread_rwlock_wrlock(&log->names.lock);
        rc = fold_names(log, c, &gone);
        pthread_rwlock_unlock(&log->names.lock);
        if (gone) {
            watch_fire(&gone->watch);
            topic_put(gone);
        }
        watch_fire(&log->names.watch);
        return rc;
    case MEDIA_C_TRIM:
        t = names_id(&log->names, c->id);
        if (!t || topic_deleted(t) || c->value > topic_end(t) || c->value < topic_base(t))
            return -EMBAR_ECORRUPT;
        commit->bytes = c->value - topic_base(t);
        topic_trim(t, c->value, c->value2);
        fold_altered(t, c->altered);
        manifest_touch(log, t);
        idle_give_up(t);
        atomic_fetch_add_explicit(&log->trims, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&log->trimmed, commit->bytes, memory_order_relaxed);
        commit->offset = c->value;
        watch_fire(&t->watch);
        watch_fire(&log->names.watch);
        return 0;
    case MEDIA_C_OPEN:
    case MEDIA_C_FENCE:
    case MEDIA_C_CLOSE: return fold_session(log, c, number, commit);
    }
    return -EMBAR_ECORRUPT;
}
