/* What a repair goes by stays as it is until its root is durable (recovery): cut off before that, it is made again
 * and needs all of it once more. Records that nobody serves any more prove what lost lines of the index said, and
 * their places are as free as others to the checkpoint that it writes. They are given to nobody meanwhile, where
 * there is space enough without them. Must never write to the pool.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_state.h"

/* The free extent at `at`. 1: it is not free as such. */
static int extent_hold(struct fsck *f, uint64_t at, unsigned order)
{
    struct extents *x = f->log->extents;
    struct extent *e = extent_find(x, at, order);
    if (e && e->order == order)
        return 0; /* somebody's, or held */
    if (f->held_count == f->held_capacity) {
        size_t capacity = f->held_capacity ? f->held_capacity * 2 : 64;
        struct extent **grown = realloc(f->held, capacity * sizeof(struct extent *));
        if (!grown)
            return -ENOMEM;
        f->held = grown;
        f->held_capacity = capacity;
    }
    if (extent_claim(x, at, order, &e) != 0)
        return 1;
    f->held[f->held_count++] = e;
    return 0;
}

/* The blocks of these bytes that are free. */
static int blocks_hold(struct fsck *f, uint64_t from, uint64_t to)
{
    int rc = 0;
    for (uint64_t at = pool_extent_base(&f->pool, from, 0); rc >= 0 && at < to;
         at += 1ull << f->pool.geo.block_shift)
        rc = extent_hold(f, at, 0);
    return rc < 0 ? rc : 0;
}

/* Its extent, or where newer ones have other bounds what is free of it. */
static int record_hold(void *arg, uint64_t at, const struct side *s)
{
    struct fsck *f = arg;
    uint64_t end = at + MEDIA_LINE;
    int rc = extent_hold(f, s->run0, s->order0);
    if (rc > 0) {
        rc = blocks_hold(f, s->run0, s->run0 + s->run0_length);
        rc = rc ? rc : blocks_hold(f, end - side_size(s->count, s->equal), end);
    }
    if (rc == 0 && s->run1)
        rc = extent_hold(f, s->run1, s->order1);
    return rc > 0 ? blocks_hold(f, s->run1, s->run1 + (s->length - s->run0_length)) : rc;
}

int fsck_hold(struct fsck *f)
{
    return fsck_records(f, f->log, record_hold, f);
}

bool fsck_release(struct fsck *f)
{
    bool any = f->held_count > 0;
    while (f->held_count > 0)
        extent_put_now(f->log->extents, f->held[--f->held_count]);
    free(f->held);
    f->held = NULL;
    f->held_capacity = 0;
    return any;
}
