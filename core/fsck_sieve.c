/* Which batches may still be of an entry that is lost (recovery): gap after gap, those that cannot be any more are
 * left out for good, and those that a line behind the gap names are not let in yet. So a batch is looked at when it
 * may be meant, and once more, however many gaps there are. Never writes to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/bits.h"
#include "core/fsck_gap.h"

struct sieve {
    struct bits left[SIEVES]; /* by their numbers among all orphans */
    struct orphan **named;    /* those that lines name, in the order of these; owned */
    size_t count, in;         /* of those the first `in` were let in */
};

static int by_named(const void *a, const void *b)
{
    const struct orphan *x = *(struct orphan *const *)a, *y = *(struct orphan *const *)b;
    return x->named < y->named ? -1 : x->named > y->named;
}

static uint32_t number_of(const struct salvage *v, const struct orphan *o)
{
    return (uint32_t)(o - v->f->orphan);
}

static struct orphan *orphan_of(const struct salvage *v, uint32_t number)
{
    return number == BITS_NONE ? NULL : &v->f->orphan[number];
}

static void let_in(struct salvage *v, const struct orphan *o)
{
    for (unsigned i = 0; i < SIEVES; i++)
        bits_add(&v->sieve->left[i], number_of(v, o));
}

static int sieve_make(struct salvage *v)
{
    struct fsck *f = v->f;
    if (f->orphans >= BITS_NONE)
        return -ENOMEM;
    struct sieve *s = v->sieve = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < SIEVES; i++)
        rc = bits_create(&s->left[i], (uint32_t)f->orphans + 1);
    s->named = malloc((f->orphans + 1) * sizeof(struct orphan *));
    if (rc || !s->named)
        return -ENOMEM;
    for (size_t i = 0; i < f->orphans; i++)
        if (f->orphan[i].named)
            s->named[s->count++] = &f->orphan[i];
        else
            let_in(v, &f->orphan[i]);
    if (s->count > 1)
        qsort(s->named, s->count, sizeof(struct orphan *), by_named);
    return 0;
}

void salvage_sieve_drop(struct salvage *v)
{
    struct sieve *s = v->sieve;
    if (!s)
        return;
    for (unsigned i = 0; i < SIEVES; i++)
        bits_destroy(&s->left[i]);
    free(s->named);
    free(s);
    v->sieve = NULL;
}

int gap_sieve(struct salvage *v, const struct gap *g)
{
    int rc = fsck_orphans(v->f, v->log);
    if (rc == 0 && !v->sieve)
        rc = sieve_make(v);
    if (rc)
        return rc;
    struct sieve *s = v->sieve;
    while (s->in < s->count && s->named[s->in]->named < g->to)
        let_in(v, s->named[s->in++]);
    const struct orphan *half;
    for (size_t i = 0; g->half && (half = fsck_orphan_there(v->f, g->half_side, i)); i++)
        let_in(v, half);
    return 0;
}

void salvage_came(struct salvage *v, uint32_t topic)
{
    struct sieve *s = v->sieve;
    struct orphans own = fsck_orphans_of(v->f, topic);
    uint64_t least = s && s->in < s->count ? s->named[s->in]->named : UINT64_MAX;
    for (size_t i = 0; s && i < own.count; i++)
        if (own.at[i]->named < least)
            let_in(v, own.at[i]);
}

void salvage_made(struct salvage *v, const struct entry *e)
{
    struct control c;
    if (v->sieve && e->kind == MEDIA_CONTROL &&
        control_decode(pool_at(&v->log->pool, e->payload), e->length, &c) == 0 &&
        (c.kind == MEDIA_C_CREATE || c.kind == MEDIA_C_MKDIR))
        salvage_came(v, c.id);
}

struct orphan *sieve_next(const struct salvage *v, enum sieve_kind kind, const struct orphan *o)
{
    v->f->report->compared++;
    return orphan_of(v, bits_next(&v->sieve->left[kind], o ? number_of(v, o) + 1 : 0));
}

struct orphan *sieve_before(const struct salvage *v, enum sieve_kind kind, const struct orphan *o)
{
    v->f->report->compared++;
    return orphan_of(v, bits_before(&v->sieve->left[kind], number_of(v, o)));
}

const struct orphan *sieve_end(const struct salvage *v, uint64_t time)
{
    const struct fsck *f = v->f;
    size_t low = 0, high = f->orphans;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (f->orphan[mid].s.time < time)
            low = mid + 1;
        else
            high = mid;
    }
    return &f->orphan[low];
}

void sieve_out(struct salvage *v, enum sieve_kind kind, const struct orphan *o)
{
    bits_remove(&v->sieve->left[kind], number_of(v, o));
}
