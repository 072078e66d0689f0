/* The manifest: what a checkpoint tells of names, topics, sessions and grants (step 8).
 *
 * A stack of pieces, each in an extent of its own and never written again. A checkpoint adds a
 * piece (or some, where space is in pieces too) that tells of what changed since the last one and
 * takes in those below it that are no larger: so its cost follows what changed, and few pieces are
 * to be read. All nodes and all sessions stand in two lists by their last change, so that what a
 * piece has to tell of is the end of a list. What is gone is told of as long as an older piece tells of
 * it as there: who came and went between two checkpoints leaves no trace, and when a piece that told of
 * somebody is taken in, his end is forgotten with him. So the dead are no more than the records of who
 * is there and of what the next merge gives up.
 *
 * Planned first (extents taken, nothing changed), then written. Called with the sequencer's role.
 * Writes back, never drains. Must never write to an extent that a root names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/log_state.h"
#include "core/sane.h"

#define HEAD          sizeof(struct media_manifest)
#define RECORD_MOST   (sizeof(struct media_node) + MEDIA_MAX_NAME + 1)
#define PIECE_LARGEST (1ull << 30)

void manifest_init(struct manifest *m)
{
    TAILQ_INIT(&m->nodes);
    TAILQ_INIT(&m->sessions);
}

void manifest_destroy(struct log *log)
{
    struct manifest *m = &log->manifest;
    for (size_t i = 0; i < m->count; i++)
        if (m->piece[i].extent)
            extent_put(log->extents, m->piece[i].extent);
    free(m->piece);
    free(m->gone);
}

size_t manifest_node_size(size_t name_length)
{
    return sizeof(struct media_node) + (name_length + 7) / 8 * 8;
}

uint32_t manifest_crc(const struct media_manifest *h, const void *records)
{
    struct media_manifest copy = *h;
    copy.crc = le32_of(0);
    return crc32c(crc32c(0, &copy, sizeof copy), records, le32_get(h->size));
}

/* ---- What changed ------------------------------------------------------------------------- */

void manifest_touch(struct log *log, struct topic *t)
{
    struct manifest *m = &log->manifest;
    uint64_t generation = log->root_generation + 1;
    if (t->changed == generation)
        return;
    t->changed = generation;
    if (t->told == 0)
        t->told = generation;
    TAILQ_REMOVE(&m->nodes, t, changed_link);
    TAILQ_INSERT_TAIL(&m->nodes, t, changed_link);
}

void manifest_touch_session(struct log *log, struct session *s)
{
    struct manifest *m = &log->manifest;
    uint64_t generation = log->root_generation + 1;
    if (s->changed == generation)
        return;
    s->changed = generation;
    if (s->told == 0)
        s->told = generation;
    TAILQ_REMOVE(&m->sessions, s, changed_link);
    TAILQ_INSERT_TAIL(&m->sessions, s, changed_link);
}

int manifest_gone(struct manifest *m, const struct gone *g)
{
    if (m->gone_count == m->gone_capacity) {
        size_t capacity = m->gone_capacity ? m->gone_capacity * 2 : 64;
        struct gone *grown = realloc(m->gone, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        m->gone = grown;
        m->gone_capacity = capacity;
    }
    m->gone[m->gone_count++] = *g;
    return 0;
}

static void drop(struct log *log, bool session, uint64_t id, uint64_t told)
{
    struct manifest *m = &log->manifest;
    struct gone g = {
        .generation = log->root_generation + 1, .told = told, .id = id, .session = session};
    if (told < g.generation && manifest_gone(m, &g))
        m->whole = true; /* cannot be told of: so the next one tells of all that is there */
}

void manifest_drop(struct log *log, struct topic *t)
{
    TAILQ_REMOVE(&log->manifest.nodes, t, changed_link);
    drop(log, false, t->id, t->told);
}

void manifest_drop_session(struct log *log, struct session *s)
{
    TAILQ_REMOVE(&log->manifest.sessions, s, changed_link);
    drop(log, true, s->id, s->told);
}

/* Of everything, since anything may change before the next one. */
uint64_t manifest_need(const struct log *log)
{
    uint64_t nodes = (uint64_t)log->names.topics + log->names.directories;
    uint64_t bytes = nodes * RECORD_MOST + log->sessions.count * sizeof(struct media_session) +
                     log->sessions.ahead * sizeof(struct media_ahead) +
                     log->manifest.gone_count * sizeof(le64) +
                     log->grant_count * sizeof(struct media_grant);
    return bytes / (checkpoint_room(1ull << log->pool.geo.block_shift) - HEAD - RECORD_MOST) + 1;
}

/* ---- Planning ----------------------------------------------------------------------------- */

/* What a piece has to tell of, from the newest change back. */
struct sweep {
    const struct topic *node;
    const struct session *session;
    uint64_t bytes, gone; /* gone: of who is, in it */
};

static void sweep_begin(const struct log *log, struct sweep *s)
{
    const struct manifest *m = &log->manifest;
    *s = (struct sweep){.node = TAILQ_LAST(&m->nodes, node_list),
                        .session = TAILQ_LAST(&m->sessions, session_list)};
}

static bool is_since(uint64_t changed, const uint64_t *floor)
{
    return !floor || changed > *floor;
}

/* On to all that changed after generation *floor; NULL: to all. */
static void sweep_on(const struct log *log, struct sweep *s, const uint64_t *floor)
{
    const struct manifest *m = &log->manifest;
    for (; s->node && is_since(s->node->changed, floor);
         s->node = TAILQ_PREV(s->node, node_list, changed_link))
        s->bytes += manifest_node_size(s->node->name_length);
    for (; s->session && is_since(s->session->changed, floor);
         s->session = TAILQ_PREV(s->session, session_list, changed_link))
        s->bytes +=
            sizeof(struct media_session) + s->session->ahead_count * sizeof(struct media_ahead);
    s->bytes -= s->gone;
    s->gone = 0;
    for (size_t i = m->gone_count; i > 0 && is_since(m->gone[i - 1].generation, floor); i--)
        s->gone += is_since(m->gone[i - 1].told, floor) ? 0 : sizeof(le64);
    s->bytes += s->gone;
}

static const uint64_t *floor_of(const struct manifest *m, size_t keep)
{
    return keep > 0 ? &m->piece[keep - 1].generation : NULL;
}

/* The first of the pieces that the checkpoint before `end` wrote, and their bytes. */
static size_t pieces_of(const struct manifest *m, size_t end, uint64_t *bytes)
{
    size_t first = end - 1;
    *bytes = m->piece[first].extent->size;
    while (first > 0 && m->piece[first - 1].generation == m->piece[first].generation)
        *bytes += m->piece[--first].extent->size;
    return first;
}

/* Would telling of everything cost little more, or rid us of much that is told of twice? */
static bool is_stale(const struct log *log, uint64_t dirty)
{
    const struct manifest *m = &log->manifest;
    uint64_t held = 0, all = ((uint64_t)log->names.topics + log->names.directories) *
                                 (sizeof(struct media_node) + 32) +
                             log->sessions.count * sizeof(struct media_session) +
                             log->sessions.ahead * sizeof(struct media_ahead);
    for (size_t i = 0; i < m->count; i++)
        held += m->piece[i].extent->size;
    /* Each stands twice. */
    return all <= dirty || held > 8 * all + (32ull << log->pool.geo.block_shift);
}

/* How many pieces stay, and in s->bytes what is to be told of beside them. */
static size_t plan_keep(const struct log *log, bool merge, struct sweep *s)
{
    const struct manifest *m = &log->manifest;
    size_t keep = m->whole ? 0 : m->count;
    sweep_on(log, s, floor_of(m, keep));
    while (merge && keep > 0) {
        uint64_t bytes, block = 1ull << log->pool.geo.block_shift;
        size_t first = pieces_of(m, keep, &bytes);
        if (bytes > (block << checkpoint_order(log, HEAD + s->bytes)))
            break;
        keep = first;
        sweep_on(log, s, floor_of(m, keep));
    }
    if (merge && keep > 0 && is_stale(log, s->bytes)) {
        keep = 0;
        sweep_on(log, s, NULL);
    }
    return keep;
}

static int plan_push(struct manifest *m, struct extent *e)
{
    size_t at = m->count + m->planned;
    if (at == m->capacity) {
        size_t capacity = at ? at * 2 : 16;
        struct manifest_piece *grown = realloc(m->piece, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        m->piece = grown;
        m->capacity = capacity;
    }
    m->piece[at] = (struct manifest_piece){.extent = e};
    m->planned++;
    return 0;
}

void manifest_unplan(struct log *log)
{
    struct manifest *m = &log->manifest;
    while (m->planned > 0)
        extent_put_now(log->extents, m->piece[m->count + --m->planned].extent);
}

int manifest_plan(struct log *log, bool merge)
{
    struct manifest *m = &log->manifest;
    struct sweep s;
    sweep_begin(log, &s);
    m->keep = plan_keep(log, merge, &s);
    uint64_t left = s.bytes + log->grant_count * sizeof(struct media_grant);
    unsigned most = log->pool.geo.max_order;
    while (most > 0 && 1ull << (most + log->pool.geo.block_shift) > PIECE_LARGEST)
        most--;
    for (bool more = true; more;) {
        unsigned order = checkpoint_order(log, HEAD + left);
        order = order < most ? order : most;
        struct extent *e = extent_new(log->extents, order, EXTENT_META);
        while (!e && order > 0)
            e = extent_new(log->extents, --order, EXTENT_META);
        int rc = e ? plan_push(m, e) : -EMBAR_EFULL;
        if (rc) {
            if (e)
                extent_put_now(log->extents, e);
            manifest_unplan(log);
            return rc;
        }
        /* The record that does not fit any more goes into the next. */
        uint64_t all = checkpoint_room(e->size) - HEAD, room = all - RECORD_MOST;
        more = left > all;
        left = more && left > room ? left - room : 0;
    }
    return 0;
}

/* ---- Writing ------------------------------------------------------------------------------ */

struct writer {
    struct log *log;
    uint64_t generation;
    size_t at; /* piece that is being written */
    size_t grants;
    char *to, *end;
    struct { /* in it */
        uint32_t grants, gone_nodes, gone_sessions, sessions, ahead, nodes;
    } n;
};

static char *records_of(const struct writer *w)
{
    return (char *)pool_at(&w->log->pool, w->log->manifest.piece[w->at].extent->base) + HEAD;
}

static void piece_begin(struct writer *w)
{
    const struct manifest *m = &w->log->manifest;
    if (w->at >= m->count + m->planned)
        __builtin_trap(); /* the plan has counted what it takes */
    w->to = records_of(w);
    w->end = w->to + (checkpoint_room(m->piece[w->at].extent->size) - HEAD);
    memset(&w->n, 0, sizeof w->n);
}

static void piece_end(struct writer *w)
{
    struct manifest *m = &w->log->manifest;
    struct manifest_piece *p = &m->piece[w->at];
    /* The planned ones stand behind those that they replace. */
    size_t depth = m->keep + (w->at - m->count);
    size_t below = w->at > m->count ? w->at - 1 : m->keep - 1;
    struct media_manifest h = {.magic = le32_of(MEDIA_MANIFEST_MAGIC),
                               .depth = le32_of((uint32_t)depth),
                               .generation = le64_of(w->generation),
                               .size = le32_of((uint32_t)(w->to - records_of(w))),
                               .grants = le32_of(w->n.grants),
                               .gone_nodes = le32_of(w->n.gone_nodes),
                               .gone_sessions = le32_of(w->n.gone_sessions),
                               .sessions = le32_of(w->n.sessions),
                               .nodes = le32_of(w->n.nodes),
                               .ahead = le32_of(w->n.ahead)};
    if (depth > 0) {
        h.before = le64_pack(m->piece[below].extent->base, m->piece[below].extent->order);
        h.before_crc = le32_of(m->piece[below].crc);
    }
    p->generation = w->generation;
    p->grants = w->grants;
    p->crc = manifest_crc(&h, records_of(w));
    h.crc = le32_of(p->crc);
    void *at = pool_at(&w->log->pool, p->extent->base);
    memcpy(at, &h, sizeof h);
    size_t size = (size_t)(w->to - (char *)at);
    flush_writeback(w->log->pool.flush, at, size);
    checkpoint_copy(w->log, p->extent, size);
    w->at++;
}

/* Room for a record, in the next piece where this one has none. */
static char *record(struct writer *w, size_t size)
{
    if (size > (size_t)(w->end - w->to)) {
        piece_end(w);
        piece_begin(w);
    }
    char *at = w->to;
    w->to += size;
    return at;
}

void manifest_node(const struct topic *t, struct media_node *m)
{
    *m = (struct media_node){
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
        .time = le64_of(t->time),
        .policy = t->policy,
        .altered = le64_of(t->altered),
        .run_count = le32_of((uint32_t)t->run_count),
        .side_tail = le64_pack(t->side_tail, (uint16_t)(t->side_tail_below / MEDIA_LINE)),
    };
}

static void node_put(struct writer *w, const struct topic *t)
{
    struct media_node m;
    manifest_node(t, &m);
    table_node(t, &m);
    size_t size = manifest_node_size(t->name_length);
    char *at = record(w, size);
    memset(at + sizeof m, 0, size - sizeof m);
    memcpy(at, &m, sizeof m);
    memcpy(at + sizeof m, t->key.name, t->name_length);
    w->n.nodes++;
}

static void session_put(struct writer *w, const struct session *s)
{
    struct media_session m = {.id = le64_of(s->id),
                              .topic = le32_of(s->topic),
                              .epoch = le32_of(s->epoch),
                              .sequence = le64_of(s->sequence),
                              .messages = le64_of(s->messages),
                              .time = le64_of(s->time),
                              .principal = le32_of(s->principal)};
    memcpy(record(w, sizeof m), &m, sizeof m);
    w->n.sessions++;
}

/* Committed batches above the mark. */
static void ahead_put(struct writer *w, const struct session *s)
{
    for (uint32_t i = 2, n = 0; n < s->ahead_count; i++) {
        uint32_t messages = s->ahead[(s->sequence + i) % MEDIA_WINDOW];
        if (messages == 0)
            continue;
        struct media_ahead m = {
            .session = le64_of(s->id), .above = le32_of(i), .messages = le32_of(messages)};
        memcpy(record(w, sizeof m), &m, sizeof m);
        w->n.ahead++;
        n++;
    }
}

static void gone_put(struct writer *w, bool sessions)
{
    const struct manifest *m = &w->log->manifest;
    const uint64_t *floor = floor_of(m, m->keep);
    for (size_t i = m->gone_count; floor && i > 0 && is_since(m->gone[i - 1].generation, floor);
         i--) {
        le64 id = le64_of(m->gone[i - 1].id);
        if (m->gone[i - 1].session != sessions || is_since(m->gone[i - 1].told, floor))
            continue;
        memcpy(record(w, sizeof id), &id, sizeof id);
        w->n.gone_sessions += sessions;
        w->n.gone_nodes += !sessions;
    }
}

static void records_put(struct writer *w)
{
    const struct log *log = w->log;
    const struct manifest *m = &log->manifest;
    const uint64_t *floor = floor_of(m, m->keep);
    for (w->grants = floor ? m->piece[m->keep - 1].grants : 0; w->grants < log->grant_count;) {
        memcpy(record(w, sizeof *log->grant), &log->grant[w->grants], sizeof *log->grant);
        w->grants++;
        w->n.grants++;
    }
    gone_put(w, false);
    gone_put(w, true);
    const struct session *last = TAILQ_LAST(&m->sessions, session_list);
    for (const struct session *s = last; s && is_since(s->changed, floor);
         s = TAILQ_PREV(s, session_list, changed_link))
        session_put(w, s);
    for (const struct session *s = last; s && is_since(s->changed, floor);
         s = TAILQ_PREV(s, session_list, changed_link))
        ahead_put(w, s);
    for (const struct topic *t = TAILQ_LAST(&m->nodes, node_list); t && is_since(t->changed, floor);
         t = TAILQ_PREV(t, node_list, changed_link))
        node_put(w, t);
}

/* Who is told of by none of the pieces that stay is forgotten. */
static void gone_forget(struct manifest *m)
{
    const uint64_t *floor = floor_of(m, m->keep);
    size_t left = 0;
    for (size_t i = 0; i < m->gone_count; i++)
        if (!is_since(m->gone[i].told, floor))
            m->gone[left++] = m->gone[i];
    m->gone_count = left;
}

void manifest_write(struct log *log, uint64_t generation)
{
    struct manifest *m = &log->manifest;
    struct writer w = {.log = log, .generation = generation, .at = m->count};
    piece_begin(&w);
    records_put(&w);
    piece_end(&w);
    gone_forget(m);
    size_t written = w.at - m->count;
    for (size_t i = written; i < m->planned; i++)
        extent_put_now(log->extents, m->piece[m->count + i].extent);
    for (size_t i = m->keep; i < m->count; i++)
        checkpoint_retire(log, m->piece[i].extent);
    memmove(m->piece + m->keep, m->piece + m->count, written * sizeof *m->piece);
    m->count = m->keep + written;
    m->planned = 0;
    m->whole = false;
    m->runs = 0;
}
