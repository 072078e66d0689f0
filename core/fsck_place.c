/* A balanced tree of places, where those that share a byte are equal (recovery). See fsck_place.h. Knows nothing of
 * the log: <search.h> has names of its own for what the log calls otherwise.
 */
#include "core/fsck_place.h"

#include <search.h>
#include <stdlib.h>

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->to <= y->from ? -1 : x->from >= y->to;
}

struct place *places_add(places *all, struct place *p)
{
    struct place *const *at = tsearch(p, all, by_place);
    return at ? *at : NULL;
}

struct place *places_find(const places *all, const struct place *p)
{
    struct place *const *at = tfind(p, all, by_place);
    return at ? *at : NULL;
}

void places_take(places *all, const struct place *p)
{
    (void)tdelete(p, all, by_place);
}

void places_drop(places *all)
{
    tdestroy(*all, free);
    *all = NULL;
}
