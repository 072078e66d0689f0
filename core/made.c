/* What a start made and takes away again: see made.h.
 */
#include "core/made.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/region.h"

void made_expect(struct made *m)
{
    m->pool = region_default_spec(false);
    if (!m->pool)
        return;
    for (char *slash = strchr(m->pool + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool found = access(m->pool, F_OK) == 0;
        *slash = '/';
        if (!found)
            break;
        m->there = (size_t)(slash - m->pool);
    }
    atomic_store_explicit(&m->expect, true, memory_order_release);
}

void made_region(struct made *m, const struct region *r)
{
    if (!r->created || r->kind != REGION_FILE)
        return;
    m->file = r->spec;
    atomic_store_explicit(&m->filed, true, memory_order_release);
}

void made_undo(struct made *m)
{
    if (atomic_load_explicit(&m->filed, memory_order_acquire))
        unlink(m->file);
    if (!atomic_load_explicit(&m->expect, memory_order_acquire))
        return;
    char *path = strdup(m->pool), *slash;
    /* One that somebody put something into meanwhile stays, and so do those above. */
    while (path && (slash = strrchr(path, '/')) && (size_t)(slash - path) > m->there) {
        *slash = '\0';
        if (rmdir(path))
            break;
    }
    free(path);
}

void made_free(struct made *m)
{
    free(m->pool);
    m->pool = NULL;
}
