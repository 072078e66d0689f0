/* Loading a manifest: from its newest piece back, each record once (recovery).
 *
 * Everything is checked before it is used: each piece by its CRC, which the next newer one (or the
 * root) knows; every field of a record that others rely on without looking; the sums by the root's.
 * Reads only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/guard.h"
#include "core/log_state.h"
#include "core/sane.h"

struct loader {
    struct log *log;
    size_t count; /* of pieces */
    const struct media_root *root;
    struct piece {
        struct media_manifest head;
        char *copy; /* for who only looks; owned */
        const char *grants, *gone, *sessions, *ahead, *nodes, *end;
    } * piece;         /* oldest first, as in log->manifest */
    struct gone *gone; /* sorted by what is gone */
    size_t gone_count;
    bool has_root;
};

/* ---- Pieces ------------------------------------------------------------------------------- */

/* Where the records of a piece stand; its nodes take what is left. */
static int piece_map(struct piece *p, const char *records)
{
    const struct media_manifest *h = &p->head;
    uint64_t grants = (uint64_t)le32_get(h->grants) * sizeof(struct media_grant);
    uint64_t gone = ((uint64_t)le32_get(h->gone_nodes) + le32_get(h->gone_sessions)) * sizeof(le64);
    uint64_t sessions = (uint64_t)le32_get(h->sessions) * sizeof(struct media_session);
    uint64_t ahead = (uint64_t)le32_get(h->ahead) * sizeof(struct media_ahead);
    if (grants + gone + sessions + ahead > le32_get(h->size))
        return -EMBAR_ECORRUPT;
    p->grants = records;
    p->gone = p->grants + grants;
    p->sessions = p->gone + gone;
    p->ahead = p->sessions + sessions;
    p->nodes = p->ahead + ahead;
    p->end = records + le32_get(h->size);
    return 0;
}

/* The records of a piece. Another process may give their place away while we look: then they are
 * copied, and the copy is what is checked. */
static int piece_fetch(const struct loader *l, struct piece *p, const char **records)
{
    const struct pool *pool = &l->log->pool;
    uint32_t size = le32_get(p->head.size);
    flush_invalidate(pool->flush, *records, size);
    if (!l->log->readonly)
        return 0;
    free(p->copy);
    p->copy = malloc(size + 1ull);
    if (!p->copy)
        return -ENOMEM;
    memcpy(p->copy, *records, size);
    *records = p->copy;
    return 0;
}

/* One of its two places, in each of which there is room for so many bytes. */
static int piece_read_at(const struct loader *l, size_t i, uint64_t at, uint64_t room, uint32_t crc,
                         uint64_t generation)
{
    struct piece *p = &l->piece[i];
    const struct media_manifest *h = &p->head;
    const char *records = pool_at(&l->log->pool, at);
    flush_invalidate(l->log->pool.flush, records, sizeof p->head);
    memcpy(&p->head, records, sizeof p->head);
    records += sizeof p->head;
    /* The link knows the checksum: the header's own word for it adds nothing. */
    if (le32_get(h->magic) != MEDIA_MANIFEST_MAGIC || le32_get(h->depth) != i ||
        le64_get(h->generation) > generation || room < sizeof *h + le32_get(h->size))
        return -EMBAR_ECORRUPT;
    int rc = piece_fetch(l, p, &records);
    if (rc)
        return rc;
    if (manifest_crc(h, records) != crc)
        return -EMBAR_ECORRUPT;
    l->log->manifest.piece[i] =
        (struct manifest_piece){.generation = le64_get(h->generation), .crc = crc};
    return piece_map(p, records);
}

static int piece_read(const struct loader *l, size_t i, le64 where, uint32_t crc,
                      uint64_t generation)
{
    const struct pool *pool = &l->log->pool;
    uint64_t at = le64_low48(where);
    if (!checkpoint_extent(pool, at, le64_high16(where), sizeof(struct media_manifest)))
        return -EMBAR_ECORRUPT;
    uint64_t room = checkpoint_room(1ull << (le64_high16(where) + pool->geo.block_shift));
    int rc = piece_read_at(l, i, at, room, crc, generation);
    if (rc != -EMBAR_ECORRUPT || !l->log->by_copy)
        return rc;
    rc = piece_read_at(l, i, at + room, room, crc, generation);
    l->log->manifest.piece[i].by_copy = rc == 0;
    return rc;
}

/* From the root's piece down: each knows how many are below it, so no chain loops. */
static int pieces_read(const struct loader *l, size_t count)
{
    le64 where = l->root->manifest;
    uint32_t crc = le32_get(l->root->manifest_crc);
    uint64_t generation = le64_get(l->root->generation);
    for (size_t i = count; i-- > 0;) {
        int rc = piece_read(l, i, where, crc, generation);
        if (rc)
            return rc;
        where = l->piece[i].head.before;
        crc = le32_get(l->piece[i].head.before_crc);
        generation = le64_get(l->piece[i].head.generation);
    }
    return 0;
}

/* Grants first, in their order: all else claims extents in what was granted. */
static int grants_load(const struct loader *l, size_t count)
{
    struct log *log = l->log;
    for (size_t i = 0; i < count; i++) {
        for (const char *at = l->piece[i].grants; at < l->piece[i].gone;
             at += sizeof(struct media_grant)) {
            struct media_grant m;
            memcpy(&m, at, sizeof m);
            int rc = fold_grant(log, le32_get(m.slot), le32_get(m.first), le32_get(m.count));
            if (rc)
                return rc;
        }
        log->manifest.piece[i].grants = log->grant_count;
    }
    return log->grant_count == le32_get(l->root->grants) ? 0 : -EMBAR_ECORRUPT;
}

static int pieces_claim(const struct loader *l, size_t count)
{
    le64 where = l->root->manifest;
    for (size_t i = count; i-- > 0; where = l->piece[i].head.before) {
        int rc = extent_claim_sole(l->log->extents, le64_low48(where), le64_high16(where),
                                   &l->log->manifest.piece[i].extent);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- What is gone ------------------------------------------------------------------------- */

static int by_gone(const void *a, const void *b)
{
    const struct gone *x = a, *y = b;
    if (x->session != y->session)
        return x->session ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static struct gone *gone_find(const struct loader *l, bool session, uint64_t id)
{
    struct gone key = {.id = id, .session = session};
    return l->gone_count > 0 ? bsearch(&key, l->gone, l->gone_count, sizeof *l->gone, by_gone)
                             : NULL;
}

/* Told of as there by a piece that is older than those that were looked at before. */
static bool is_gone(const struct loader *l, bool session, uint64_t id, uint64_t generation)
{
    struct gone *g = gone_find(l, session, id);
    if (g)
        g->told = generation;
    return g;
}

/* The oldest piece that tells of each is known by now. */
static void gone_told(const struct loader *l)
{
    struct manifest *m = &l->log->manifest;
    for (size_t i = 0; i < m->gone_count; i++) {
        const struct gone *g = gone_find(l, m->gone[i].session, m->gone[i].id);
        m->gone[i].told = g->told;
    }
}

static int gone_load(struct loader *l, size_t count)
{
    struct manifest *m = &l->log->manifest;
    for (size_t i = 0; i < count; i++) {
        const char *at = l->piece[i].gone;
        uint32_t nodes = le32_get(l->piece[i].head.gone_nodes);
        for (uint32_t n = 0; at < l->piece[i].sessions; at += sizeof(le64), n++) {
            le64 id;
            memcpy(&id, at, sizeof id);
            struct gone g = {.generation = m->piece[i].generation,
                             .told = UINT64_MAX,
                             .id = le64_get(id),
                             .session = n >= nodes};
            int rc = manifest_gone(m, &g);
            if (rc)
                return rc;
        }
    }
    if (m->gone_count == 0)
        return 0;
    l->gone = malloc(m->gone_count * sizeof *l->gone);
    if (!l->gone)
        return -ENOMEM;
    memcpy(l->gone, m->gone, m->gone_count * sizeof *l->gone);
    l->gone_count = m->gone_count;
    qsort(l->gone, l->gone_count, sizeof *l->gone, by_gone);
    return 0;
}

/* ---- Nodes -------------------------------------------------------------------------------- */

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
    t->altered = le64_get(m->altered);
    t->keep_bytes = le64_get(m->keep_bytes);
    t->keep_age = le64_get(m->keep_age);
    t->time = le64_get(m->time);
    t->side_tail = le64_low48(m->side_tail);
    t->side_tail_below = (uint64_t)le64_high16(m->side_tail) * MEDIA_LINE;
    t->key.parent = le32_get(m->parent);
    t->name_length = le16_get(m->name_length);
    memcpy(t->key.name, name, t->name_length);
}

bool manifest_node_sane(const struct media_node *m, const char *name)
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

static int node_load(struct loader *l, const struct media_node *m, const char *name,
                     uint64_t generation)
{
    struct log *log = l->log;
    uint32_t id = le32_get(m->id);
    struct topic *t = names_id(&log->names, id);
    bool root = id == LOG_ROOT_ID;
    if (root ? l->has_root : t || is_gone(l, false, id, generation)) {
        if (t)
            t->told = generation;
        return 0; /* told of by a newer piece */
    }
    if (!manifest_node_sane(m, name))
        return -EMBAR_ECORRUPT;
    if (!root) {
        int rc = topic_create(log, id, &t);
        if (rc)
            return rc;
    }
    node_fill(t, m, name);
    t->changed = t->told = generation;
    if (root) {
        l->has_root = true;
        TAILQ_REMOVE(&log->manifest.nodes, t, changed_link);
    } else {
        int rc = names_add(&log->names, t);
        if (rc) {
            topic_destroy(t);
            return rc;
        }
    }
    TAILQ_INSERT_HEAD(&log->manifest.nodes, t, changed_link);
    return table_load(log, t, m);
}

static int piece_nodes(struct loader *l, const struct piece *p)
{
    const char *at = p->nodes;
    for (uint32_t i = 0; i < le32_get(p->head.nodes); i++) {
        struct media_node m;
        if ((size_t)(p->end - at) < sizeof m)
            return -EMBAR_ECORRUPT;
        memcpy(&m, at, sizeof m);
        size_t length = le16_get(m.name_length);
        if (length > MEDIA_MAX_NAME || (size_t)(p->end - at) < manifest_node_size(length))
            return -EMBAR_ECORRUPT;
        int rc = node_load(l, &m, at + sizeof m, le64_get(p->head.generation));
        if (rc)
            return rc;
        at += manifest_node_size(length);
    }
    return at == p->end ? 0 : -EMBAR_ECORRUPT;
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

static int by_id(const void *a, const void *b)
{
    const struct topic *x = *(struct topic *const *)a, *y = *(struct topic *const *)b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Into their directories, which keep their children by id. */
static int nodes_link(struct names *n)
{
    size_t count = (size_t)n->topics + n->directories, i = 0;
    struct topic **all = malloc(count * sizeof *all);
    if (!all)
        return -ENOMEM;
    for (struct topic *t = n->by_id; t; t = t->by_id.next)
        all[i++] = t;
    qsort(all, count, sizeof *all, by_id);
    int rc = 0;
    for (i = 0; rc == 0 && i < count; i++) {
        struct topic *t = all[i];
        if (t->id == LOG_ROOT_ID)
            continue;
        struct node_key key = t->key;
        if (!node_hangs(n, t))
            rc = -EMBAR_ECORRUPT;
        else
            rc = names_link(n, t, key.parent, key.name, t->name_length);
    }
    free(all);
    return rc;
}

/* ---- Sessions ----------------------------------------------------------------------------- */

static int piece_sessions(struct loader *l, const struct piece *p)
{
    struct log *log = l->log;
    for (const char *at = p->sessions; at < p->ahead; at += sizeof(struct media_session)) {
        struct media_session m;
        memcpy(&m, at, sizeof m);
        struct session s = {.id = le64_get(m.id),
                            .topic = le32_get(m.topic),
                            .epoch = le32_get(m.epoch),
                            .sequence = le64_get(m.sequence),
                            .messages = le64_get(m.messages),
                            .time = le64_get(m.time),
                            .principal = le32_get(m.principal),
                            .changed = le64_get(p->head.generation),
                            .told = le64_get(p->head.generation)};
        struct session *there = session_find(log, s.id);
        if (there)
            there->told = s.told;
        if (there || is_gone(l, true, s.id, s.told))
            continue; /* told of by a newer piece */
        int rc = s.sequence > MASK48 ? -EMBAR_ECORRUPT : session_add(log, &s);
        if (rc)
            return rc;
    }
    return 0;
}

/* What is ahead of a session's mark is told of together with it. */
static int piece_ahead(const struct loader *l, const struct piece *p)
{
    for (const char *at = p->ahead; at < p->nodes; at += sizeof(struct media_ahead)) {
        struct media_ahead m;
        memcpy(&m, at, sizeof m);
        struct session *s = session_find(l->log, le64_get(m.session));
        uint32_t above = le32_get(m.above), messages = le32_get(m.messages);
        if (!s || s->changed != le64_get(p->head.generation))
            continue; /* gone, or told of by a newer piece */
        if (above < 2 || above > MEDIA_WINDOW || messages == 0 || messages > MEDIA_MAX_MESSAGES ||
            session_taken(s, s->sequence + above))
            return -EMBAR_ECORRUPT;
        int rc = session_take(l->log, s, s->sequence + above, messages);
        if (rc)
            return rc;
    }
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const struct session *x = *(struct session *const *)a, *y = *(struct session *const *)b;
    return x->time < y->time ? -1 : x->time > y->time;
}

/* Longest idle first. */
static int sessions_age(struct sessions *all)
{
    struct session **s = malloc((all->count + 1) * sizeof(struct session *));
    size_t n = 0;
    if (!s)
        return -ENOMEM;
    for (struct session *at = all->by_id; at; at = at->hh.next)
        s[n++] = at;
    qsort(s, n, sizeof *s, by_time);
    TAILQ_INIT(&all->by_age);
    for (size_t i = 0; i < n; i++)
        TAILQ_INSERT_TAIL(&all->by_age, s[i], age_link);
    free(s);
    return 0;
}

/* Under a guard: nothing is held where the pool is looked at. */
static int load(void *arg)
{
    struct loader *l = arg;
    struct log *log = l->log;
    size_t count = l->count;
    int rc = pieces_read(l, count);
    if (rc == 0)
        rc = grants_load(l, count);
    if (rc == 0)
        rc = pieces_claim(l, count);
    if (rc == 0)
        rc = gone_load(l, count);
    for (size_t i = count; rc == 0 && i-- > 0;)
        rc = piece_nodes(l, &l->piece[i]);
    if (rc == 0)
        rc = nodes_link(&log->names);
    for (size_t i = count; rc == 0 && i-- > 0;)
        rc = piece_sessions(l, &l->piece[i]);
    for (size_t i = count; rc == 0 && i-- > 0;)
        rc = piece_ahead(l, &l->piece[i]);
    if (rc == 0)
        rc = sessions_age(&log->sessions);
    if (rc == 0)
        gone_told(l);
    if (rc == 0 && (log->names.topics + log->names.directories != le32_get(l->root->nodes) ||
                    log->sessions.count != le32_get(l->root->sessions)))
        rc = -EMBAR_ECORRUPT;
    return rc;
}

int manifest_load(struct log *log, const struct media_root *root)
{
    struct manifest *m = &log->manifest;
    struct loader l = {.log = log, .root = root};
    size_t count = le32_get(root->pieces);
    if (count == 0 || count > log->pool.data_size >> log->pool.geo.block_shift)
        return -EMBAR_ECORRUPT;
    struct piece *piece = l.piece = calloc(count, sizeof *piece);
    m->piece = calloc(count, sizeof *m->piece);
    m->count = m->capacity = m->piece ? count : 0;
    l.count = count;
    int rc = piece && m->piece ? guard_run(log->region, load, &l) : -ENOMEM;
    free(l.gone);
    for (size_t i = 0; piece && i < count; i++)
        free(piece[i].copy);
    free(piece);
    return rc;
}
