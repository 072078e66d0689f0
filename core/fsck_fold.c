/* Entries into the state, whatever it takes (recovery): gaps in a topic, places that older batches
 * hold, topics without a name, sessions that do not add up. Folds into a log that nobody serves; never
 * writes to the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/fsck_salvage.h"

int fsck_adopt(struct fsck *f, struct log *log, uint32_t id, uint64_t base, struct topic **out)
{
    char name[MEDIA_MAX_NAME + 1];
    struct topic *t;
    int rc = topic_create(log, id, &t);
    if (rc)
        return rc;
    t->mode = S_IFREG | 0600;
    t->uid = log->names.by_id->uid;
    t->gid = log->names.by_id->gid;
    t->ack = 1;
    t->adopted = true;
    atomic_init(&t->topic_order, 5);
    t->created = now_realtime();
    atomic_init(&t->base, base);
    atomic_init(&t->end, base);
    snprintf(name, sizeof name, "lost+found-%u", id);
    for (unsigned i = 1; names_child(&log->names, LOG_ROOT_ID, name, strlen(name)); i++)
        snprintf(name, sizeof name, "lost+found-%u-%u", id, i);
    rc = names_insert(&log->names, t, LOG_ROOT_ID, name, strlen(name));
    if (rc) {
        topic_destroy(t);
        return rc;
    }
    TAILQ_INSERT_TAIL(&log->manifest.nodes, t, changed_link);
    manifest_touch(log, t);
    f->state_damaged = true;
    *out = t;
    return 0;
}

int fsck_lose(struct topic *t, uint64_t end)
{
    int rc = topic_runs_grow(t, 1);
    if (rc)
        return rc;
    t->run_count++;
    *topic_run(t, t->run_count - 1) = (struct run){.offset = topic_end(t),
                                                   .message = t->last_message_end,
                                                   .batches = 1,
                                                   .flags = MEDIA_RUN_LOST};
    atomic_fetch_add_explicit(&t->log->runs, 1, memory_order_relaxed);
    atomic_store_explicit(&t->end, end, memory_order_relaxed);
    if (t->id != 0)
        manifest_touch(t->log, t);
    return 0;
}

int salvage_lose(struct salvage *v, struct topic *t, uint64_t end, uint64_t number)
{
    uint64_t from = topic_end(t);
    uint64_t message;
    bool trimmed = end <= salvage_base(v, t, &message);
    v->f->state_damaged = true;
    if (t->id != 0 && !trimmed)
        fsck_say(v->f,
                 &(struct finding){.kind = FSCK_LOST,
                                   .severity = FSCK_ERROR,
                                   .action = FSCK_MARK,
                                   .id = t->id,
                                   .offsets = {from, end},
                                   .entries = one(number)},
                 "Bytes " U64 " up to " U64
                 " are lost: the index entries that said where they stand "
                 "are damaged, and they were not found by other traces. Reading them answers an "
                 "input/output error; what follows keeps its place.",
                 from, end);
    return fsck_lose(t, end);
}

void salvage_session_lose(struct salvage *v, uint64_t id, uint32_t topic, uint64_t number)
{
    struct session *s = session_find(v->log, id);
    v->f->state_damaged = true;
    v->unknown = id;
    fsck_say(v->f,
             &(struct finding){.kind = FSCK_SESSION,
                               .severity = FSCK_ERROR,
                               .action = FSCK_FORGET,
                               .id = topic,
                               .entries = one(number)},
             "What publisher session " U64 " sent so far cannot be counted any more. It is closed: "
             "its publisher is told so and has to find out what arrived before it goes on.",
             id);
    if (s)
        session_drop(v->log, s);
    recover_forget(v->replay);
}

/* Can the extents of the entry be claimed at all? */
static bool claimable(struct log *log, const struct entry *e, const struct entry *part)
{
    struct extent *x;
    if (extent_claim(log->extents, e->payload, e->order, &x))
        return false;
    extent_put(log->extents, x);
    if (!part)
        return true;
    if (extent_claim(log->extents, part->payload, part->order, &x))
        return false;
    extent_put(log->extents, x);
    return true;
}

static bool overlaps(const struct extent *e, uint64_t low, uint64_t high)
{
    return e->base < high && e->base + e->size > low;
}

/* A whole batch stands where pieces of the checkpoint did that was begun with: a newer one, which is
 * damaged, had given them up. What they say was loaded from their copies, or was found otherwise. */
static void evict_pieces(struct salvage *v, const struct entry *e)
{
    struct log *log = v->log;
    struct manifest *m = &log->manifest;
    uint64_t low = pool_extent_base(&log->pool, e->payload, e->order);
    uint64_t high = low + (1ull << (e->order + log->pool.geo.block_shift));
    size_t kept = 0;
    bool hit = false;
    for (struct topic *t = log->names.by_id; t; t = t->by_id.next) {
        bool its = false;
        for (size_t i = 0; i < t->table.count; i++)
            its = its || overlaps(t->table.piece[i].extent, low, high);
        if (its)
            table_rewrite(log, t);
    }
    for (size_t i = 0; i < m->count; i++)
        hit = hit || overlaps(m->piece[i].extent, low, high);
    for (size_t i = 0; hit && i < m->count; i++)
        checkpoint_retire(log, m->piece[i].extent);
    if (hit)
        m->count = 0;
    m->whole = m->whole || hit;
    for (size_t i = 0; i < log->retired_count; i++)
        if (overlaps(log->retired[i], low, high))
            extent_put_now(log->extents, log->retired[i]);
        else
            log->retired[kept++] = log->retired[i];
    v->f->state_damaged = v->f->state_damaged || kept < log->retired_count;
    log->retired_count = kept;
}

/* Kept in `ordered_time`, since nobody orders here: of the last batch whose record is still its own. */
uint64_t salvage_newer_than(const struct salvage *v, uint32_t topic)
{
    struct log *log = v->log;
    const struct topic *t = topic ? names_id(&log->names, topic) : log->control;
    uint64_t time = t ? t->ordered_time : v->time;
    return topic || time > v->time ? time : v->time;
}

void salvage_times(struct salvage *v)
{
    for (struct topic *t = v->log->names.by_id; t; t = t->by_id.next)
        t->ordered_time = t->time;
    v->log->control->ordered_time = v->time;
}

/* The place of its record may have been given away, to a batch of the same topic too. */
static int record_note(struct salvage *v, struct topic *t, const struct entry *e)
{
    struct side s;
    if (side_read(&v->log->pool, e->side, &s) != 0 || s.topic != t->id || s.run0 != e->payload)
        return 0;
    if (!fsck_names(e, &s))
        return e->kind == MEDIA_BATCH ? salvage_other(v, e) : 0;
    if (s.time > t->ordered_time)
        t->ordered_time = s.time;
    return 0;
}

static const char *control_name(const struct control *c)
{
    static const char *const names[] = {[MEDIA_C_MKDIR] = "making a directory",
                                        [MEDIA_C_CREATE] = "making a topic",
                                        [MEDIA_C_REMOVE] = "removing a topic or directory",
                                        [MEDIA_C_RENAME] = "renaming a topic or directory",
                                        [MEDIA_C_ATTR] = "changing attributes",
                                        [MEDIA_C_TRIM] = "trimming a topic",
                                        [MEDIA_C_OPEN] = "opening a publisher session",
                                        [MEDIA_C_FENCE] = "fencing a publisher session",
                                        [MEDIA_C_CLOSE] = "closing a publisher session"};
    unsigned kind = (unsigned)c->kind;
    return kind < sizeof names / sizeof names[0] && names[kind] ? names[kind] : "something unknown";
}

static int fold_control_failed(struct salvage *v, const struct entry *e)
{
    struct log *log = v->log;
    struct control c;
    bool whole = recover_whole(log, e, NULL) &&
                 control_decode(pool_at(&log->pool, e->payload), e->length, &c) == 0;
    v->f->state_damaged = true;
    v->damaged = true;
    fsck_say(v->f,
             &(struct finding){.kind = FSCK_CONTROL,
                               .severity = FSCK_ERROR,
                               .action = FSCK_FORGET,
                               .entries = one(e->number),
                               .place = {e->payload, e->payload + e->length}},
             whole ? "Index entry " U64
                     " stands for %s, which makes no sense with what is known; it "
                     "is left out."
                   : "The action of index entry " U64 " is damaged (%s): one change of names, "
                     "attributes or sessions, or one trim, is left out.",
             e->number, whole ? control_name(&c) : "its record fails its checksum");
    uint64_t end = e->offset + e->length;
    return topic_end(log->control) < end ? fsck_lose(log->control, end) : 0;
}

/* The gap before e in its topic: from batches that nothing names, or it is lost. */
static int gap_fill(struct salvage *v, struct topic *t, const struct entry *e)
{
    struct side s;
    uint64_t before = UINT64_MAX;
    if (side_read(&v->log->pool, e->side, &s) == 0 && s.topic == t->id && s.run0 == e->payload)
        before = s.time;
    return salvage_fill(
        v, t, &(struct hole){.end = e->offset, .before = before, .number = e->number, .behind = e});
}

/* What a trim's record says, before it is folded. */
static int trim_look(struct salvage *v, const struct entry *e)
{
    struct control c;
    struct side s;
    if (e->kind != MEDIA_CONTROL || !v->damaged || !recover_whole(v->log, e, NULL) ||
        side_read(&v->log->pool, e->side, &s) ||
        control_decode(pool_at(&v->log->pool, e->payload), e->length, &c) != 0)
        return 0;
    return salvage_trim(v, &c, s.time, e->number);
}

/* Of a run that a damaged table told? Then it is looked for when all is known (fsck_table.c). */
static bool move_is_lost(const struct salvage *v, const struct entry *e)
{
    const struct topic *t = names_id(&v->log->names, e->topic);
    return t && t->lost_table && t->run_count > 0 &&
           topic_run(t, topic_run_find(t, e->offset))->flags & MEDIA_RUN_LOST;
}

static int move_fold(struct salvage *v, const struct entry *e)
{
    if (move_is_lost(v, e))
        return 0;
    int rc = recover_fold(v->replay, e, NULL);
    if (rc != -EMBAR_ECORRUPT)
        return rc ? rc : salvage_place(v, e->topic, e);
    v->f->state_damaged = true;
    fsck_say(v->f,
             &(struct finding){.kind = FSCK_ENTRY,
                               .severity = FSCK_ERROR,
                               .action = FSCK_FORGET,
                               .id = e->topic,
                               .offsets = {e->offset, e->offset + e->length},
                               .entries = one(e->number)},
             "Index entry " U64 " says that bytes " U64 " up to " U64
             " were moved to another place, which does not fit what is known; it is left out.",
             e->number, e->offset, e->offset + e->length);
    return 0;
}

/* Fold one entry, whatever it takes. */
int salvage_fold(struct salvage *v, const struct entry *e, const struct entry *part)
{
    struct log *log = v->log;
    struct fsck *f = v->f;
    if (e->kind == MEDIA_TERM)
        return 0;
    int rc;
    if (e->kind == MEDIA_GRANT) {
        rc = recover_fold(v->replay, e, NULL);
        return rc == -ENOMEM ? rc : 0; /* granted before, when the checkpoint's were assumed */
    }
    if (e->kind == MEDIA_MOVE)
        return move_fold(v, e);
    struct entry mine = *e;
    struct topic *t = e->kind == MEDIA_CONTROL ? log->control : names_id(&log->names, e->topic);
    if (!t) {
        rc = fsck_adopt(f, log, e->topic, e->offset, &t);
        if (rc)
            return rc;
        salvage_came(v, e->topic);
        fsck_say(
            f,
            &(struct finding){.kind = FSCK_NODE,
                              .severity = FSCK_ERROR,
                              .action = FSCK_ADOPT,
                              .id = e->topic,
                              .offsets = {0, e->offset},
                              .entries = one(e->number)},
            "The topic with number %u lost its name and its attributes; it is called %s now, and "
            "belongs to the owner of the pool's root directory. What it held before byte " U64
            " is not known.",
            e->topic, t->key.name, e->offset);
    }
    uint64_t end = e->offset + e->length + (part ? part->length : 0);
    if (names_is_dir(t) || topic_end(t) > e->offset) {
        f->state_damaged = true;
        fsck_say(f,
                 &(struct finding){.kind = FSCK_ENTRY,
                                   .severity = FSCK_ERROR,
                                   .action = FSCK_FORGET,
                                   .id = e->topic,
                                   .offsets = {e->offset, end},
                                   .entries = one(e->number)},
                 "Index entry " U64 " says that a batch stands at bytes " U64 " up to " U64
                 " of a topic, where %s; it is left out.",
                 e->number, e->offset, end,
                 names_is_dir(t) ? "there is a directory" : "others stand already");
        return 0;
    }
    if (topic_end(t) < e->offset) {
        rc = gap_fill(v, t, e);
        if (rc)
            return rc;
    }
    rc = trim_look(v, e);
    if (rc)
        return rc;
    /* Without what is lost, a trim perhaps: what stood there may seem to be there still. */
    if (v->damaged && recover_whole(log, e, part)) {
        rc = salvage_evict(v, e);
        if (rc == 0 && part)
            rc = salvage_evict(v, part);
        if (rc)
            return rc;
        if (!claimable(log, e, NULL))
            salvage_evict_extent(v, e);
        if (part && !claimable(log, part, NULL))
            salvage_evict_extent(v, part);
    }
    bool blocked = !claimable(log, e, part);
    if (blocked && recover_whole(log, e, part)) {
        evict_pieces(v, e);
        if (part)
            evict_pieces(v, part);
        blocked = !claimable(log, e, part);
    }
    if (blocked) {
        v->damaged = true;
        fsck_say(f,
                 &(struct finding){.kind = FSCK_OVERLAP,
                                   .severity = FSCK_ERROR,
                                   .action = FSCK_MARK,
                                   .id = e->topic,
                                   .entries = one(e->number),
                                   .place = {e->payload, e->payload + e->length}},
                 "Index entry " U64 " names a place that something else holds, or that no slot was "
                 "granted.",
                 e->number);
        return salvage_lose(v, t, end, e->number);
    }
    if (mine.session && !session_find(log, mine.session)) {
        if (v->unknown != mine.session)
            salvage_session_lose(v, mine.session, e->topic, e->number);
        mine.session = 0;
    }
    rc = recover_fold(v->replay, &mine, part);
    if (rc == -EMBAR_ECORRUPT && e->kind == MEDIA_CONTROL)
        return fold_control_failed(v, e);
    if (rc == -EMBAR_ECORRUPT && mine.session) {
        salvage_session_lose(v, mine.session, e->topic, e->number);
        mine.session = 0;
        rc = recover_fold(v->replay, &mine, part);
    }
    if (rc == 0) {
        salvage_made(v, e);
        rc = record_note(v, t, e);
        rc = rc ? rc : salvage_place(v, t->id, e);
        rc = rc || !part ? rc : salvage_place(v, t->id, part);
        return rc;
    }
    return rc == -EMBAR_ECORRUPT ? salvage_lose(v, t, end, e->number) : rc;
}
