/* Who stands where a batch is said to stand (recovery): older batches had given up their place, by an action
 * that is damaged. Only into a log that nobody serves; never writes to the pool.
 *
 * What the topics say of it changes with each entry, and is asked for each: it is kept by place. A place is of a
 * batch that was folded, or of a run as it was; what was trimmed, moved or given up since is left in until it is met.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_place.h"
#include "core/fsck_salvage.h"

struct standing {
    places places;
    struct place **
        crossing; /* those that share a byte with one of these, as a damaged table may say; owned */
    size_t count, capacity;
};

static struct topic *topic_of(const struct salvage *v, uint32_t id)
{
    return id ? names_id(&v->log->names, id) : v->log->control;
}

bool salvage_stands(const struct salvage *v, const struct place *p, struct topic **t, size_t *i)
{
    *t = topic_of(v, p->topic);
    if (!*t || (*t)->run_count == 0 || p->offset < topic_run(*t, 0)->offset)
        return false;
    *i = topic_run_find(*t, p->offset);
    const struct run *r = topic_run(*t, *i);
    return !(r->flags & MEDIA_RUN_LOST) && p->offset < topic_run_end(*t, *i) &&
           r->payload + (p->offset - r->offset) == p->from;
}

static int crossing_push(struct standing *all, struct place *p)
{
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 16;
        struct place **grown = realloc(all->crossing, capacity * sizeof(struct place *));
        if (!grown)
            return -ENOMEM;
        all->crossing = grown;
        all->capacity = capacity;
    }
    all->crossing[all->count++] = p;
    return 0;
}

static int place_add(struct salvage *v, struct place place)
{
    struct standing *all = v->standing;
    struct topic *t;
    size_t i;
    v->f->report->compared++;
    if (place.from >= place.to)
        return 0;
    struct place *p = malloc(sizeof *p), *there;
    if (!p)
        return -ENOMEM;
    *p = place;
    while ((there = places_add(&all->places, p)) && there != p &&
           !salvage_stands(v, there, &t, &i)) {
        places_take(&all->places, there);
        free(there);
    }
    int rc = !there ? -ENOMEM : there != p ? crossing_push(all, p) : 0;
    if (rc)
        free(p);
    return rc;
}

static int places_topic(struct salvage *v, const struct topic *t)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        if (!(r->flags & MEDIA_RUN_LOST))
            rc = place_add(v, (struct place){.from = r->payload,
                                             .to = r->payload + (topic_run_end(t, i) - r->offset),
                                             .offset = r->offset,
                                             .topic = t->id});
    }
    return rc;
}

static int places_make(struct salvage *v)
{
    v->standing = calloc(1, sizeof *v->standing);
    if (!v->standing)
        return -ENOMEM;
    int rc = places_topic(v, v->log->control);
    for (struct topic *t = v->log->names.by_id; rc == 0 && t; t = t->by_id.next)
        rc = places_topic(v, t);
    return rc;
}

int salvage_place(struct salvage *v, uint32_t topic, const struct entry *e)
{
    int rc = salvage_movable(v, topic, e->offset);
    return rc || !v->standing ? rc
                              : place_add(v, (struct place){.from = e->payload,
                                                            .to = e->payload + e->length,
                                                            .offset = e->offset,
                                                            .topic = topic});
}

void salvage_places_drop(struct salvage *v)
{
    struct standing *all = v->standing;
    if (!all)
        return;
    places_drop(&all->places);
    for (size_t i = 0; i < all->count; i++)
        free(all->crossing[i]);
    free(all->crossing);
    free(all);
    v->standing = NULL;
}

void salvage_run_evict(struct salvage *v, struct topic *t, size_t i)
{
    struct run *r = topic_run(t, i);
    struct extent *x = extent_find(v->log->extents, r->payload, r->order);
    if (x)
        extent_put(v->log->extents, x);
    *r = (struct run){.offset = r->offset,
                      .message = r->message,
                      .batches = r->batches,
                      .flags = MEDIA_RUN_LOST | RUN_GIVEN};
    v->f->state_damaged = true;
    if (t->id != 0)
        table_rewrite(v->log, t);
}

/* It shares a byte with what goes, and is not met again. */
static void place_evict(struct salvage *v, struct place *p)
{
    struct topic *t;
    size_t i;
    if (salvage_stands(v, p, &t, &i))
        salvage_run_evict(v, t, i);
    free(p);
}

/* Without bytes an entry stands between two places, or within one. */
static bool is_hit(const struct entry *e, const struct place *p)
{
    return p->from < e->payload + e->length && p->to > e->payload;
}

int salvage_evict(struct salvage *v, const struct entry *e)
{
    int rc = v->standing ? 0 : places_make(v);
    struct standing *all = v->standing;
    const struct place key = {.from = e->payload, .to = e->payload + (e->length ? e->length : 1)};
    struct place *p;
    v->f->report->compared += 1 + (all ? all->count : 0);
    while (rc == 0 && (p = places_find(&all->places, &key)) && is_hit(e, p)) {
        places_take(&all->places, p);
        place_evict(v, p);
    }
    for (size_t i = 0; rc == 0 && i < all->count; i++) {
        p = all->crossing[i];
        if (!is_hit(e, p))
            continue;
        all->crossing[i--] = all->crossing[--all->count];
        place_evict(v, p);
    }
    return rc;
}

static void evict_overlapping(struct salvage *v, struct topic *t, uint64_t low, uint64_t high)
{
    const struct pool *p = &v->log->pool;
    v->f->report->compared += t->run_count;
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        uint64_t base = pool_extent_base(p, r->payload, r->order);
        if (!(r->flags & MEDIA_RUN_LOST) && base < high &&
            base + (1ull << (r->order + p->geo.block_shift)) > low)
            salvage_run_evict(v, t, i);
    }
}

void salvage_evict_extent(struct salvage *v, const struct entry *e)
{
    const struct pool *p = &v->log->pool;
    uint64_t low = pool_extent_base(p, e->payload, e->order);
    uint64_t high = low + (1ull << (e->order + p->geo.block_shift));
    evict_overlapping(v, v->log->control, low, high);
    for (struct topic *t = v->log->names.by_id; t; t = t->by_id.next)
        evict_overlapping(v, t, low, high);
}
