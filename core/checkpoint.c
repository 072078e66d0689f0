/* Checkpoints: the state as of one entry, so that the index is needed only from there (step 8).
 *
 * Written with the sequencer's role, between epochs. Each topic whose runs changed gets a new run
 * table in an extent of its own; the manifest names all nodes with their tables, the sessions and the
 * grants; the root names the manifest. Ordering rule "checkpoint": tables and manifest are written
 * back and drained, then the root goes into the older of the two areas and is drained, and only then
 * are the extents that only the overwritten root named, and topic 0's records, free for reuse and
 * the ring's older entries void. On an ordinary file a sync stands for each of the two drains; the
 * background thread then gives the role back meanwhile, so that publishers go on (one job at a time).
 *
 * Must never touch an extent that the newest valid root names.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/crc.h"
#include "core/log_state.h"

static uint32_t root_crc(const struct media_root *r)
{
    struct media_root copy = *r;
    copy.crc = le32_of(0);
    return crc32c(0, &copy, sizeof copy);
}

static bool root_valid(const struct media_root *r)
{
    return le32_get(r->magic) == MEDIA_ROOT_MAGIC && root_crc(r) == le32_get(r->crc);
}

bool checkpoint_extent(const struct pool *p, uint64_t at, unsigned order, uint64_t need)
{
    if (order > p->geo.max_order)
        return false;
    uint64_t size = 1ull << (order + p->geo.block_shift);
    return need <= size && pool_in_data(p, at, size) && pool_extent_base(p, at, order) == at;
}

void checkpoint_retire(struct log *log, struct extent *e)
{
    if (log->retired_count == log->retired_capacity) {
        size_t capacity = log->retired_capacity ? log->retired_capacity * 2 : 64;
        struct extent **grown = realloc(log->retired, capacity * sizeof *grown);
        if (!grown)
            return; /* its blocks stay taken until the next open: never reused too early */
        log->retired = grown;
        log->retired_capacity = capacity;
    }
    log->retired[log->retired_count++] = e;
}

static size_t node_size(size_t name_length)
{
    return sizeof(struct media_node) + (name_length + 7) / 8 * 8;
}

static char *node_put(char *at, const struct topic *t)
{
    struct media_node m = {
        .id = le32_of(t->id),
        .parent = le32_of(t->key.parent),
        .mode = le32_of(t->mode),
        .uid = le32_of(t->uid),
        .gid = le32_of(t->gid),
        .name_length = le16_of(t->name_length),
        .order = atomic_load_explicit(&t->topic_order, memory_order_relaxed),
        .ack = t->ack,
        .base = le64_of(topic_base(t)),
        .end = le64_of(topic_end(t)),
        .messages = le64_of(t->last_message_end),
        .first = le64_of(t->first_message),
        .created = le64_of(t->created),
        .modified = le64_of(t->modified),
        .keep_bytes = le64_of(t->keep_bytes),
        .keep_age = le64_of(t->keep_age),
        .runs = t->table.count ? le64_pack(t->table.extent[0]->base, t->table.extent[0]->order)
                               : le64_of(0),
        .run_count = le32_of(t->table.runs),
        .run_crc = le32_of(t->table.crc),
        .policy = t->policy,
        .side_tail = le64_pack(t->side_tail, (uint16_t)(t->side_tail_below / MEDIA_LINE)),
    };
    memcpy(at, &m, sizeof m);
    memset(at + sizeof m, 0, node_size(t->name_length) - sizeof m);
    memcpy(at + sizeof m, t->key.name, t->name_length);
    return at + node_size(t->name_length);
}

/* Longest idle first, as loading them keeps them. */
static char *sessions_put(char *at, const struct log *log)
{
    for (const struct session *s = TAILQ_FIRST(&log->sessions.by_age); s;
         s = TAILQ_NEXT(s, age_link)) {
        struct media_session m = {.id = le64_of(s->id),
                                  .topic = le32_of(s->topic),
                                  .epoch = le32_of(s->epoch),
                                  .sequence = le64_of(s->sequence),
                                  .messages = le64_of(s->messages),
                                  .time = le64_of(s->time),
                                  .principal = le32_of(s->principal)};
        memcpy(at, &m, sizeof m);
        at += sizeof m;
    }
    return at;
}

static char *ahead_put(char *at, const struct log *log)
{
    for (const struct session *s = TAILQ_FIRST(&log->sessions.by_age); s;
         s = TAILQ_NEXT(s, age_link)) {
        for (uint32_t i = 2, n = 0; n < s->ahead_count; i++) {
            uint32_t messages = s->ahead[(s->sequence + i) % MEDIA_WINDOW];
            if (messages == 0)
                continue;
            struct media_ahead m = {
                .session = le64_of(s->id), .above = le32_of(i), .messages = le32_of(messages)};
            memcpy(at, &m, sizeof m);
            at += sizeof m;
            n++;
        }
    }
    return at;
}

static uint64_t manifest_size(const struct log *log, uint32_t *nodes)
{
    uint64_t size = log->sessions.count * sizeof(struct media_session) +
                    log->sessions.ahead * sizeof(struct media_ahead) +
                    log->grant_count * sizeof(struct media_grant);
    *nodes = 0;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next, ++*nodes)
        size += node_size(t->name_length);
    return size;
}

/* The area to overwrite: an invalid one, else the older. */
static struct media_root *root_older(struct log *log)
{
    struct media_root *a = pool_root(&log->pool, log->slot, 0);
    struct media_root *b = pool_root(&log->pool, log->slot, 1);
    if (!root_valid(a) || !root_valid(b))
        return root_valid(a) ? b : a;
    return le64_get(a->generation) < le64_get(b->generation) ? a : b;
}

/* Step one: the state as of the last entry, beside everything the newest root names. */
static int checkpoint_begin(struct log *log)
{
    struct checkpoint_job *job = &log->job;
    if (atomic_load_explicit(&log->faulted, memory_order_relaxed))
        return -EMBAR_EFAULTED;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next) {
        int rc = table_write(log, t);
        if (rc)
            return rc;
    }
    uint32_t nodes;
    uint64_t size = manifest_size(log, &nodes);
    struct extent *e = extent_new(log->extents, extents_order(log->extents, size), EXTENT_META);
    if (!e)
        return -EMBAR_EFULL;
    char *manifest = pool_at(&log->pool, e->base), *at = manifest;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next)
        at = node_put(at, t);
    at = sessions_put(at, log);
    at = ahead_put(at, log);
    memcpy(at, log->grant, log->grant_count * sizeof *log->grant);
    flush_writeback(log->pool.flush, manifest, size);
    flush_drain(log->pool.flush);

    job->manifest = e;
    job->control_messages = log->control->last_message_end;
    if (log->manifest)
        checkpoint_retire(log, log->manifest);
    log->manifest = NULL;
    job->retired = log->retired_count;
    job->mark = extents_mark(log->extents);
    job->root = (struct media_root){
        .magic = le32_of(MEDIA_ROOT_MAGIC),
        .number = le64_of(log->seq.next - 1),
        .term = le32_of(log->term),
        .chain = le32_of(log->seq.chain),
        .generation = le64_of(++log->root_generation),
        .manifest = le64_pack(e->base, e->order),
        .manifest_size = le64_of(size),
        .manifest_crc = le32_of(crc32c(0, manifest, size)),
        .next_id = le32_of(log->names.next_id),
        .control_end = le64_of(topic_end(log->control)),
        .nodes = le32_of(nodes),
        .sessions = le32_of(log->sessions.count),
        .ahead = le32_of((uint32_t)log->sessions.ahead),
        .grants = le32_of((uint32_t)log->grant_count),
        .time = le64_of(now_realtime()),
    };
    job->root.crc = le32_of(root_crc(&job->root));
    job->active = true;
    return 0;
}

/* Step two, ordering rule "root": all that it names is durable before it. */
static void checkpoint_root(struct log *log)
{
    struct media_root *at = root_older(log);
    *at = log->job.root;
    flush_writeback(log->pool.flush, at, sizeof *at);
    flush_drain(log->pool.flush);
}

/* Its writer may have died before the drain: the root that recovery went by is written back again,
 * for the caller to drain before anything is stored where only its predecessor was needed. */
void checkpoint_harden(struct log *log)
{
    for (unsigned which = 0; which < 2; which++)
        flush_writeback(log->pool.flush, pool_root(&log->pool, log->slot, which),
                        sizeof(struct media_root));
}

/* Step three: the root is durable, so what only the overwritten one needed is free. */
static void checkpoint_end(struct log *log)
{
    struct checkpoint_job *job = &log->job;
    log->manifest = job->manifest;
    atomic_store_explicit(&log->checkpoint, le64_get(job->root.number), memory_order_release);
    topic_trim(log->control, le64_get(job->root.control_end), job->control_messages);
    for (size_t i = 0; i < job->retired; i++)
        extent_put_now(log->extents, log->retired[i]);
    log->retired_count -= job->retired;
    if (log->retired_count > 0)
        memmove(log->retired, log->retired + job->retired,
                log->retired_count * sizeof *log->retired);
    job->active = false;
    extents_settle(log->extents, job->mark);
}

/* An ordinary file keeps no order between pages: a sync stands where a drain stands elsewhere. */
static int checkpoint_sync(struct log *log)
{
    if (!log->region->needs_sync)
        return 0;
    int rc = region_sync(log->region);
    if (rc) {
        log_fault(log, rc);
        return -EMBAR_EFAULTED;
    }
    return 0;
}

int checkpoint_write(struct log *log)
{
    if (log->job.active)
        return -EBUSY;
    int rc = checkpoint_begin(log);
    if (rc == 0)
        rc = checkpoint_sync(log);
    if (rc)
        return rc;
    checkpoint_root(log);
    rc = checkpoint_sync(log);
    if (rc == 0)
        checkpoint_end(log);
    return rc;
}

int checkpoint_write_aside(struct log *log)
{
    seq_take_wait(log);
    int rc = log->job.active ? -EBUSY : checkpoint_begin(log);
    log->job.failed = rc != 0;
    seq_give(log);
    if (rc == 0)
        rc = checkpoint_sync(log);
    if (rc)
        return rc;
    seq_take_wait(log);
    checkpoint_root(log);
    seq_give(log);
    rc = checkpoint_sync(log);
    if (rc)
        return rc;
    seq_take_wait(log);
    checkpoint_end(log);
    seq_give(log);
    return 0;
}

int log_checkpoint(struct log *log)
{
    int rc;
    if (log->readonly)
        return -EROFS;
    do {
        seq_take_wait(log);
        rc = checkpoint_write(log);
        seq_give(log);
    } while (rc == -EBUSY && sched_yield() == 0);
    log_commit(log);
    return rc;
}

/* ---- Loading ------------------------------------------------------------------------------ */

const struct media_root *checkpoint_newest(struct log *log, struct media_root *copy)
{
    bool found = false;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++)
        for (unsigned which = 0; which < 2; which++) {
            struct media_root r = *pool_root(&log->pool, slot, which);
            if (!root_valid(&r))
                continue;
            if (le64_get(r.generation) > log->root_generation)
                log->root_generation = le64_get(r.generation);
            if (!found || le64_get(r.number) > le64_get(copy->number) ||
                (le64_get(r.number) == le64_get(copy->number) &&
                 le64_get(r.generation) > le64_get(copy->generation)))
                *copy = r;
            found = true;
        }
    return found ? copy : NULL;
}

static void node_fill(struct topic *t, const struct media_node *m, const char *name)
{
    t->mode = le32_get(m->mode);
    t->uid = le32_get(m->uid);
    t->gid = le32_get(m->gid);
    t->ack = m->ack;
    t->policy = m->policy;
    atomic_init(&t->topic_order, m->order);
    atomic_init(&t->base, le64_get(m->base));
    atomic_init(&t->end, le64_get(m->end));
    t->last_message_end = le64_get(m->messages);
    t->first_message = le64_get(m->first);
    t->created = le64_get(m->created);
    t->modified = le64_get(m->modified);
    t->keep_bytes = le64_get(m->keep_bytes);
    t->keep_age = le64_get(m->keep_age);
    t->side_tail = le64_low48(m->side_tail);
    t->side_tail_below = (uint64_t)le64_high16(m->side_tail) * MEDIA_LINE;
    t->key.parent = le32_get(m->parent);
    t->name_length = le16_get(m->name_length);
    memcpy(t->key.name, name, t->name_length);
}

/* Every field of a node that others rely on without looking. */
static bool node_sane(const struct media_node *m, const char *name)
{
    uint32_t id = le32_get(m->id), mode = le32_get(m->mode);
    size_t length = le16_get(m->name_length);
    bool root = id == LOG_ROOT_ID;
    return id != 0 && id != UINT32_MAX && (S_ISDIR(mode) || (S_ISREG(mode) && !root)) &&
           (root ? length == 0 && le32_get(m->parent) == 0 : name_check(name, length) == 0) &&
           le64_get(m->base) <= le64_get(m->end) && le64_get(m->first) <= le64_get(m->messages) &&
           (m->order == 0 || m->order == 2 || m->order == 5) && m->ack <= 2 && m->policy <= 1 &&
           (S_ISREG(mode) || le32_get(m->run_count) == 0);
}

/* One node record; *at moves behind it. Linked into its directory by the caller afterwards. */
static int node_load(struct log *log, const char **at, const char *end)
{
    struct media_node m;
    if ((size_t)(end - *at) < sizeof m)
        return -EMBAR_ECORRUPT;
    memcpy(&m, *at, sizeof m);
    size_t length = le16_get(m.name_length);
    const char *name = *at + sizeof m;
    if (length > MEDIA_MAX_NAME || (size_t)(end - *at) < node_size(length))
        return -EMBAR_ECORRUPT;
    *at += node_size(length);
    uint32_t id = le32_get(m.id);
    struct topic *t = names_id(&log->names, id);
    bool root = id == LOG_ROOT_ID;
    if ((t != NULL) != root || !node_sane(&m, name))
        return -EMBAR_ECORRUPT;
    if (!root) {
        int rc = topic_create(log, id, &t);
        if (rc)
            return rc;
    }
    node_fill(t, &m, name);
    if (!root)
        names_add(&log->names, t);
    return table_load(log, t, &m);
}

/* No node is below itself: whoever climbs from it arrives. */
static bool node_hangs(struct names *n, const struct topic *t)
{
    for (unsigned depth = 0; t && depth <= MEDIA_MAX_PATH / 2 + 1; depth++) {
        if (t->id == LOG_ROOT_ID)
            return true;
        t = names_id(n, t->key.parent);
    }
    return false;
}

static int nodes_link(struct names *n)
{
    for (struct topic *t = n->by_id; t; t = t->by_id.next) {
        if (t->id == LOG_ROOT_ID)
            continue;
        struct node_key key = t->key;
        if (!node_hangs(n, t))
            return -EMBAR_ECORRUPT;
        int rc = names_link(n, t, key.parent, key.name, t->name_length);
        if (rc)
            return rc;
    }
    return 0;
}

static int session_load(struct log *log, const char *at)
{
    struct media_session m;
    memcpy(&m, at, sizeof m);
    struct session s = {.id = le64_get(m.id),
                        .topic = le32_get(m.topic),
                        .epoch = le32_get(m.epoch),
                        .sequence = le64_get(m.sequence),
                        .messages = le64_get(m.messages),
                        .time = le64_get(m.time),
                        .principal = le32_get(m.principal)};
    return s.sequence > MASK48 ? -EMBAR_ECORRUPT : session_add(log, &s);
}

static int ahead_load(struct log *log, const char *at)
{
    struct media_ahead m;
    memcpy(&m, at, sizeof m);
    struct session *s = session_find(log, le64_get(m.session));
    uint32_t above = le32_get(m.above), messages = le32_get(m.messages);
    if (!s || above < 2 || above > MEDIA_WINDOW || messages == 0 || messages > MEDIA_MAX_MESSAGES ||
        session_taken(s, s->sequence + above))
        return -EMBAR_ECORRUPT;
    return session_take(log, s, s->sequence + above, messages);
}

static int manifest_load(struct log *log, const struct media_root *root, const char *at,
                         uint64_t size)
{
    const char *end = at + size;
    uint64_t grants = (uint64_t)le32_get(root->grants) * sizeof(struct media_grant);
    uint64_t sessions = (uint64_t)le32_get(root->sessions) * sizeof(struct media_session);
    uint64_t ahead = (uint64_t)le32_get(root->ahead) * sizeof(struct media_ahead);
    if (grants + sessions + ahead > size)
        return -EMBAR_ECORRUPT;
    /* Grants first: nodes claim extents in what was granted. */
    int rc = 0;
    for (const char *g = end - grants; rc == 0 && g < end; g += sizeof(struct media_grant)) {
        struct media_grant m;
        memcpy(&m, g, sizeof m);
        rc = fold_grant(log, le32_get(m.slot), le32_get(m.first), le32_get(m.count));
    }
    if (rc == 0)
        rc = extent_claim(log->extents, le64_low48(root->manifest), le64_high16(root->manifest),
                          &log->manifest);
    const char *limit = end - grants - ahead - sessions;
    for (uint32_t i = 0; rc == 0 && i < le32_get(root->nodes); i++)
        rc = node_load(log, &at, limit);
    if (rc == 0 && at != limit)
        rc = -EMBAR_ECORRUPT;
    if (rc == 0)
        rc = nodes_link(&log->names);
    for (; rc == 0 && at < limit + sessions; at += sizeof(struct media_session))
        rc = session_load(log, at);
    for (; rc == 0 && at < end - grants; at += sizeof(struct media_ahead))
        rc = ahead_load(log, at);
    return rc;
}

int checkpoint_load(struct log *log, const struct media_root *root, struct embar_error *err)
{
    uint64_t at = le64_low48(root->manifest), size = le64_get(root->manifest_size);
    int rc = -EMBAR_ECORRUPT;
    /* Numbers count up from 0: one in the upper half would wrap. */
    if (le64_get(root->number) <= INT64_MAX && le64_get(root->generation) <= INT64_MAX &&
        checkpoint_extent(&log->pool, at, le64_high16(root->manifest), size) &&
        crc32c(0, pool_at(&log->pool, at), size) == le32_get(root->manifest_crc))
        rc = manifest_load(log, root, pool_at(&log->pool, at), size);
    if (rc)
        return embar_fail(err, rc, "the checkpoint as of entry %llu cannot be loaded",
                          (unsigned long long)le64_get(root->number));
    if (le32_get(root->next_id) > log->names.next_id)
        log->names.next_id = le32_get(root->next_id);
    struct topic *control = log->control;
    atomic_init(&control->base, le64_get(root->control_end));
    atomic_init(&control->end, le64_get(root->control_end));
    return 0;
}
