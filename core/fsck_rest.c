/* Whole batches behind all that the index tells of their topics, where entries are missing (recovery).
 *
 * No entry and no trim follows that would say how much the topic held. A batch is put behind the topic's last
 * one when nothing can have come between them, or when what is left is just what is missing; all others have no
 * place, and go aside. Folds into a log that nobody serves; never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_salvage.h"

static bool is_left(const struct salvage *v, const struct orphan *o)
{
    struct topic *t = o->s.topic ? names_id(&v->log->names, o->s.topic) : NULL;
    return t && !names_is_dir(t) && !o->taken && o->s.time > salvage_newer_than(v, t->id) &&
           o->s.time < v->missing_before && !salvage_is_not_missing(v, o) &&
           !salvage_is_taken(v, &o->s);
}

/* What the topic holds last, by its record. */
static bool tail_read(const struct topic *t, struct side *s)
{
    if (t->run_count == 0)
        return false;
    const struct run *r = topic_run(t, t->run_count - 1);
    return !(r->flags & MEDIA_RUN_LOST) && r->batches > 0 &&
           side_read(&t->log->pool, t->side_tail, s) == 0 && s->topic == t->id;
}

/* Who published in a topic, by what stands of it. */
struct source {
    uint32_t topic;
    bool several;
    uint64_t session;
    UT_hash_handle hh;
};

static int source_note(struct source **all, uint32_t topic, uint64_t session)
{
    struct source *s;
    HASH_FIND(hh, *all, &topic, sizeof topic, s);
    if (s) {
        s->several = s->several || s->session != session;
        return 0;
    }
    s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->topic = topic;
    s->session = session;
    HASH_ADD(hh, *all, topic, sizeof s->topic, s);
    if (is_hashed(s, hh))
        return 0;
    free(s);
    return -ENOMEM;
}

static int sources_find(struct salvage *v)
{
    int rc = 0;
    for (const struct session *s = v->log->sessions.by_id; s && rc == 0; s = s->hh.next)
        rc = source_note(&v->source, s->topic, s->id);
    for (size_t i = 0; i < v->f->orphans && rc == 0; i++)
        rc = source_note(&v->source, v->f->orphan[i].s.topic, v->f->orphan[i].s.session);
    return rc;
}

static void sources_free(struct salvage *v)
{
    for (struct source *s = v->source, *next; s; s = next) {
        next = s->hh.next;
        HASH_DELETE(hh, v->source, s);
        free(s);
    }
}

/* Its session's number before it says what came before it in the topic. */
static bool is_only_source(const struct salvage *v, const struct orphan *o)
{
    const struct source *s;
    HASH_FIND(hh, v->source, &o->s.topic, sizeof o->s.topic, s);
    return o->s.session && o->s.fifo && s && !s->several;
}

/* Batches of its session that are missing before it: 0 when it is the next one, UINT64_MAX when nothing
 * tells. */
static uint64_t session_skips(const struct salvage *v, const struct topic *t,
                              const struct orphan *o)
{
    struct side last;
    const struct session *s = o->s.session ? session_find(v->log, o->s.session) : NULL;
    uint64_t before = UINT64_MAX;
    if (s)
        before = s->ordered;
    else if (o->s.session && tail_read(t, &last) && last.session == o->s.session)
        before = last.sequence;
    return before < o->s.sequence ? o->s.sequence - before - 1 : UINT64_MAX;
}

/* Does it begin its extent? */
static bool is_bottom(const struct topic *t, const struct orphan *o)
{
    uint64_t base = pool_extent_base(&t->log->pool, o->s.run0, o->s.order0);
    return o->s.run0 == base &&
           o->at + MEDIA_LINE == base + (1ull << (o->s.order0 + t->log->pool.geo.block_shift));
}

/* Can nothing have come between the topic's last batch and this one, but what is damaged itself:
 * *lost bytes? It is the next one of the only session; or between them in one extent is what that misses. */
static bool rest_follows(const struct salvage *v, const struct topic *t, const struct orphan *o,
                         uint64_t *lost)
{
    uint64_t skips = session_skips(v, t, o);
    bool told = skips != UINT64_MAX;
    *lost = 0;
    if (t->run_count == 0)
        return topic_end(t) == 0 && (told ? skips == 0 : o->s.sequence == 1) &&
               is_only_source(v, o) && is_bottom(t, o);
    const struct run *r = topic_run(t, t->run_count - 1);
    uint64_t end = r->payload + (topic_end(t) - r->offset), low = t->side_tail - t->side_tail_below;
    if (r->flags & MEDIA_RUN_LOST)
        return false;
    if (!is_only_source(v, o))
        return false;
    if (skips == 0)
        return true;
    if (!told || r->batches == 0 || r->order != o->s.order0 ||
        pool_extent_base(&t->log->pool, r->payload, r->order) !=
            pool_extent_base(&t->log->pool, o->s.run0, o->s.order0))
        return false;
    *lost = o->s.run0 - end;
    return o->s.run0 > end && o->at + MEDIA_LINE < low;
}

static int rest_fold(struct salvage *v, struct orphan *o, bool counted)
{
    struct topic *t = names_id(&v->log->names, o->s.topic);
    uint64_t lost;
    int rc = 0;
    bool committed = counted || v->f->watermark_damaged || salvage_is_sure(v, o);
    if (o->close || !committed || (!rest_follows(v, t, o, &lost) && !counted)) {
        t->ordered_time = UINT64_MAX; /* nor is the place known of what follows */
        return 0;
    }
    if (lost && !counted)
        rc = salvage_lose(v, t, topic_end(t) + lost, v->number);
    return rc ? rc : salvage_put(v, t, o, v->number);
}

/* Made behind the checkpoint and not removed, but by an action that is lost? */
static bool is_nameless(const struct salvage *v, const struct orphan *o)
{
    return !o->taken && o->whole && o->s.topic > LOG_ROOT_ID && o->s.topic >= v->next_id &&
           o->s.topic < UINT32_MAX && o->s.time > v->time &&
           !names_id(&v->log->names, o->s.topic) && !salvage_is_removed(v, o->s.topic);
}

static int nameless_adopt(struct salvage *v)
{
    struct fsck *f = v->f;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->orphans; i++) {
        struct topic *t;
        if (!is_nameless(v, &f->orphan[i]))
            continue;
        rc = fsck_adopt(f, v->log, f->orphan[i].s.topic, 0, &t);
        if (rc == 0)
            fsck_say(
                f,
                &(struct finding){
                    .kind = FSCK_NODE, .severity = FSCK_ERROR, .action = FSCK_ADOPT, .id = t->id},
                "The record that made the topic with number %u is damaged, and with it its name "
                "and attributes; it is called %s now, and belongs to the owner of the pool's "
                "root directory.",
                t->id, t->key.name);
    }
    return rc;
}

/* By session, of each in the order of their times, in which they stand. */
static int by_session(const void *a, const void *b)
{
    const struct orphan *x = *(struct orphan *const *)a, *y = *(struct orphan *const *)b;
    if (x->s.session != y->s.session)
        return x->s.session < y->s.session ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Is each of `n` that are left the next of its session? For what was held no entry is missing. False as well
 * without memory. */
static bool none_is_ahead(const struct salvage *v, uint64_t n)
{
    struct orphan **left = malloc((n + 1) * sizeof(struct orphan *));
    size_t count = 0;
    for (size_t i = 0; left && i < v->f->orphans && count < n; i++)
        if (is_left(v, &v->f->orphan[i]))
            left[count++] = &v->f->orphan[i];
    if (left && count > 1)
        qsort(left, count, sizeof *left, by_session);
    bool all = left;
    for (size_t i = 0; all && i < count; i++) {
        const struct side *o = &left[i]->s, *before = i > 0 ? &left[i - 1]->s : NULL;
        bool same = before && before->session == o->session;
        const struct topic *t = names_id(&v->log->names, o->topic);
        all = salvage_is_next(v->log, t, o, same ? before->sequence : 0);
    }
    free(left);
    return all;
}

int salvage_rest(struct salvage *v)
{
    struct fsck *f = v->f;
    uint64_t left = 0;
    if (v->missing == 0)
        return 0;
    int rc = fsck_orphans(f, v->log);
    if (rc == 0)
        rc = nameless_adopt(v);
    if (rc == 0)
        rc = sources_find(v);
    if (rc == 0)
        rc = salvage_close(v);
    for (size_t i = 0; rc == 0 && i < f->orphans; i++)
        left += is_left(v, &f->orphan[i]) ? (f->orphan[i].s.run1 ? 2u : 1u) : 0;
    /* Just as many as are missing: none is damaged itself, unless the chain said so of some. */
    bool counted = rc == 0 && left == v->missing && v->strange == 0 && none_is_ahead(v, left);
    size_t placed = v->placed;
    /* More than were lost: some were not committed, and nothing tells which. */
    bool many = !f->watermark_damaged && left > v->missing;
    for (size_t i = 0; rc == 0 && !many && i < f->orphans; i++)
        if (is_left(v, &f->orphan[i]))
            rc = rest_fold(v, &f->orphan[i], counted);
    sources_free(v);
    if (rc || v->placed == placed)
        return rc;
    f->state_damaged = true;
    fsck_say(
        f, &(struct finding){.kind = FSCK_ENTRY, .severity = FSCK_WARNING, .action = FSCK_REBUILD},
        "%zu whole batches stand behind all that the index tells of their topics; they are what "
        "came last.%s",
        v->placed - placed,
        f->watermark_damaged ? " The watermark that would tell whether they were acknowledged "
                               "is damaged, so they are kept."
                             : "");
    return 0;
}
