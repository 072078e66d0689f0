/* Which batches were committed for sure, though nothing tells where (recovery).
 *
 * The sequencer takes what a producer announces in that order, and refuses nothing that has no session but what
 * is of a topic that was removed. So of two such batches that one producer announced in one term the earlier one
 * was committed if the later one was. A term ends with all that was announced in it; a record names an entry that it is
 * behind, and with that its term. Changes nothing but what it noted itself.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_salvage.h"

/* The latest batch without a session that a producer is known to have had committed in a term. */
struct heard {
    struct {
        uint32_t term, producer;
    } key;
    uint64_t time;
    UT_hash_handle hh;
};

/* The first entry that is known of a term. */
struct begin {
    uint32_t term;
    uint64_t from;
};

struct hearsay {
    struct heard *heard;
    struct begin *begin; /* in their order; owned */
    size_t count, capacity;
};

static int begin_push(struct hearsay *all, const struct begin *begin)
{
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 16;
        struct begin *grown = realloc(all->begin, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        all->begin = grown;
        all->capacity = capacity;
    }
    all->begin[all->count++] = *begin;
    return 0;
}

static int heard_put(struct hearsay *all, uint32_t term, const struct side *s)
{
    const struct heard key = {.key = {term, s->producer}};
    struct heard *h;
    HASH_FIND(hh, all->heard, &key.key, sizeof key.key, h);
    if (h) {
        h->time = s->time > h->time ? s->time : h->time;
        return 0;
    }
    h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    h->key = key.key;
    h->time = s->time;
    HASH_ADD(hh, all->heard, key, sizeof h->key, h);
    if (is_hashed(h, hh))
        return 0;
    free(h);
    return -ENOMEM;
}

int salvage_hear(struct salvage *v, const struct entry *e)
{
    struct side s;
    if (!v->hearsay)
        v->hearsay = calloc(1, sizeof *v->hearsay);
    struct hearsay *all = v->hearsay;
    if (!all)
        return -ENOMEM;
    /* The checkpoint is of the term that goes on behind it; the newest one's claim tells. */
    uint64_t from = all->count == 0 && e->term == v->term ? v->start : e->number;
    const struct begin begin = {e->term,
                                e->term == v->begun_term && v->begun < from ? v->begun : from};
    int rc = 0;
    if (all->count == 0 || all->begin[all->count - 1].term < e->term)
        rc = begin_push(all, &begin);
    if (rc || e->kind != MEDIA_BATCH || e->session || side_read(&v->log->pool, e->side, &s) != 0 ||
        !fsck_names(e, &s) || s.session || s.producer == 0)
        return rc;
    return heard_put(all, e->term, &s);
}

bool salvage_is_sure(const struct salvage *v, const struct orphan *o)
{
    const struct hearsay *all = v->hearsay;
    size_t i = all ? all->count : 0;
    uint64_t after = fsck_after(v->trusted, &o->s);
    if (o->s.session || o->s.producer == 0)
        return false;
    while (i > 0 && all->begin[i - 1].from > after)
        i--;
    if (i == 0)
        return false;
    const struct heard key = {.key = {all->begin[i - 1].term, o->s.producer}};
    const struct heard *h;
    HASH_FIND(hh, all->heard, &key.key, sizeof key.key, h);
    return h && h->time > o->s.time;
}

void salvage_hearsay_drop(struct salvage *v)
{
    struct hearsay *all = v->hearsay;
    if (!all)
        return;
    for (struct heard *h = all->heard, *next; h; h = next) {
        next = h->hh.next;
        HASH_DELETE(hh, all->heard, h);
        free(h);
    }
    free(all->begin);
    free(all);
    v->hearsay = NULL;
}
