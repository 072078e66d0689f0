/* The records that stand where those of one run do, in whatever order (recovery). See fsck_walk.h. They are
 * read once, and each one's payload at most once. A worker's; never writes.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/fsck_walk.h"

struct record {
    uint64_t at, from, to; /* its place, and its payload's */
    uint32_t size;
    bool reaches;     /* the first of those that go on, one behind the other, to the run's end */
    bool read, whole; /* whole: its payload is, when it was read */
};

struct records {
    const struct pool *p;
    struct record *at; /* by payload; of those with one payload the highest first; owned */
    size_t count, capacity;
};

static int record_push(struct records *all, const struct record *r)
{
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 64;
        struct record *grown = realloc(all->at, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        all->at = grown;
        all->capacity = capacity;
    }
    all->at[all->count++] = *r;
    return 0;
}

/* Does a record stand at `at` that may be one of the run? */
static bool record_there(const struct pool *p, const struct topic *t, unsigned order, uint64_t at,
                         struct side *s)
{
    return side_begins(p, at) && side_read(p, at, s) == 0 && s->topic == t->id &&
           s->order0 == order && !s->run1;
}

static int highest_first(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    return x->at > y->at ? -1 : x->at < y->at;
}

static int by_payload(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return highest_first(a, b);
}

/* They stand highest first: what comes next in a run stands below. */
static void records_reach(struct records *all, uint64_t end)
{
    for (size_t i = all->count; i-- > 0;) {
        struct record *r = &all->at[i];
        const struct record key = {.at = r->at - r->size};
        const struct record *next = bsearch(&key, all->at, all->count, sizeof key, highest_first);
        r->reaches = r->to == end || (r->to < end && next && next->from == r->to && next->reaches);
    }
}

int records_find(struct records **out, const struct topic *t, const struct run *r, uint64_t end)
{
    const struct pool *p = &t->log->pool;
    struct records *all = calloc(1, sizeof *all);
    struct side s;
    int rc = all ? 0 : -ENOMEM;
    for (uint64_t at = r->side + MEDIA_LINE; rc == 0 && at >= end + MEDIA_LINE;) {
        at -= MEDIA_LINE;
        if (record_there(p, t, r->order, at, &s))
            rc = record_push(all, &(struct record){.at = at,
                                                   .from = s.run0,
                                                   .to = s.run0 + s.run0_length,
                                                   .size = (uint32_t)side_size(s.count, s.equal)});
    }
    *out = all;
    if (rc)
        return rc;
    all->p = p;
    records_reach(all, end);
    if (all->count > 1)
        qsort(all->at, all->count, sizeof *all->at, by_payload);
    return 0;
}

void records_drop(struct records *all)
{
    if (all)
        free(all->at);
    free(all);
}

uint64_t records_count(const struct records *all)
{
    return all->count;
}

/* The first whose payload begins at `from` or behind. */
static size_t record_behind(const struct records *all, uint64_t from)
{
    size_t low = 0, high = all->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (all->at[mid].from < from)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_whole(const struct records *all, struct record *r)
{
    struct side s;
    if (!r->read)
        r->whole = side_read(all->p, r->at, &s) == 0 && side_payload_whole(all->p, &s);
    r->read = true;
    return r->whole;
}

bool records_next(struct records *all, const struct record_place *after, uint64_t told,
                  uint64_t end, struct record_place *out)
{
    for (size_t i = record_behind(all, after->payload + 1); i < all->count; i++) {
        struct record *r = &all->at[i];
        if (r->from >= end)
            return false;
        bool reaches = r->at < after->side && r->reaches, behind = r->from >= told;
        if ((behind && reaches) || ((behind || reaches) && is_whole(all, r))) {
            *out = (struct record_place){r->at, r->from};
            return true;
        }
    }
    return false;
}

bool records_moved(struct records *all, uint64_t payload, uint64_t end, uint64_t *side)
{
    for (size_t i = record_behind(all, payload); i < all->count && all->at[i].from == payload; i++)
        if (all->at[i].to <= end && is_whole(all, &all->at[i])) {
            *side = all->at[i].at;
            return true;
        }
    return false;
}
