/* Records that are newer than what names their place (recovery): its batch had been trimmed, by an action that is
 * damaged, and the place was given to one that was perhaps never committed. As records go it fits there, for it is of
 * the same topic, and stands where the other did; but it says which entry was committed when it was announced. Only
 * into a log that nobody serves; never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_place.h"
#include "core/fsck_salvage.h"

/* Where a topic ended at the checkpoint. */
struct ended {
    uint32_t topic;
    uint64_t end;
};

/* What an entry named, in whose place another's record stands. */
struct other {
    struct place place;
    uint64_t number; /* of the entry */
    uint64_t side;
};

struct since {
    uint64_t clock;      /* the time of the newest batch in the checkpoint */
    struct ended *ended; /* by topic; owned */
    size_t topics;
    struct other *other; /* owned */
    size_t count, capacity;
};

static int by_topic(const void *a, const void *b)
{
    const struct ended *x = a, *y = b;
    return x->topic < y->topic ? -1 : x->topic > y->topic;
}

int salvage_since(struct salvage *v, uint64_t clock)
{
    const struct names *names = &v->log->names;
    struct since *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    v->since = s;
    s->clock = clock;
    size_t nodes = 1;
    for (const struct topic *t = names->by_id; t; t = t->by_id.next)
        nodes++;
    s->ended = calloc(nodes, sizeof *s->ended);
    if (!s->ended)
        return -ENOMEM;
    for (const struct topic *t = names->by_id; t; t = t->by_id.next)
        if (!names_is_dir(t))
            s->ended[s->topics++] = (struct ended){t->id, topic_end(t)};
    if (s->topics > 1)
        qsort(s->ended, s->topics, sizeof *s->ended, by_topic);
    return 0;
}

void salvage_since_drop(struct salvage *v)
{
    if (!v->since)
        return;
    free(v->since->ended);
    free(v->since->other);
    free(v->since);
    v->since = NULL;
}

/* Is the record at `side` of a batch that begins at `payload`, of the topic? */
static bool fits(const struct salvage *v, uint32_t topic, uint64_t side, uint64_t payload,
                 struct side *s)
{
    return side_read(&v->log->pool, side, s) == 0 && s->topic == topic && s->run0 == payload;
}

int salvage_other(struct salvage *v, const struct entry *e)
{
    struct since *all = v->since;
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 16;
        struct other *grown = realloc(all->other, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        all->other = grown;
        all->capacity = capacity;
    }
    all->other[all->count++] = (struct other){
        .place = {.from = e->payload, .to = e->payload, .offset = e->offset, .topic = e->topic},
        .number = e->number,
        .side = e->side};
    return 0;
}

/* Had the entry been committed when the batch was announced? Then it is of none up to that. */
static bool is_since(const struct salvage *v, const struct side *s, uint64_t number)
{
    uint64_t ahead = (s->after - number) & ((1ull << MEDIA_AFTER_BITS) - 1);
    return ahead <= v->number - number;
}

/* Does one stand in the run that came when the checkpoint had been written, although that told of it? */
static bool run_is_older(const struct salvage *v, const struct topic *t, size_t i, uint64_t end)
{
    const struct run *r = topic_run(t, i);
    uint64_t at = r->side, offset = r->offset;
    struct side s;
    for (unsigned b = 0; b < r->batches && offset < end &&
                         fits(v, t->id, at, r->payload + (offset - r->offset), &s);
         b++) {
        if (s.time > v->since->clock && is_since(v, &s, v->start))
            return true;
        at -= side_size(s.count, s.equal);
        offset += s.run0_length;
    }
    return false;
}

static void topic_settle(struct salvage *v, struct topic *t)
{
    const struct ended key = {.topic = t->id}, *was;
    was = bsearch(&key, v->since->ended, v->since->topics, sizeof key, by_topic);
    for (size_t i = 0; was && i < t->run_count; i++)
        if (!(topic_run(t, i)->flags & MEDIA_RUN_LOST) && run_is_older(v, t, i, was->end))
            salvage_run_evict(v, t, i);
}

void salvage_since_settle(struct salvage *v)
{
    struct side s;
    struct topic *t;
    size_t run;
    if (!v->damaged)
        return;
    for (t = v->log->names.by_id; t; t = t->by_id.next)
        if (!names_is_dir(t))
            topic_settle(v, t);
    for (size_t i = 0; i < v->since->count; i++) {
        const struct other *o = &v->since->other[i];
        if (o->number <= v->number && fits(v, o->place.topic, o->side, o->place.from, &s) &&
            is_since(v, &s, o->number) && salvage_stands(v, &o->place, &t, &run))
            salvage_run_evict(v, t, run);
    }
}
