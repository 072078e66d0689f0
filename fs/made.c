/* The directories of the default pool, which a start makes where they are not there: whoever starts nothing
 * leaves none of them behind. Serves no step of a batch. Must never take away what was there before.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/region.h"
#include "fs/fs.h"

static char *pool;         /* the default pool's path */
static size_t there;       /* bytes of that part of it which was there */
static atomic_bool expect; /* both are known: pairs with the load in made_undo, on any thread */

void made_expect(void)
{
    pool = region_default_spec(false);
    if (!pool)
        return;
    for (char *slash = strchr(pool + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool found = access(pool, F_OK) == 0;
        *slash = '/';
        if (!found)
            break;
        there = (size_t)(slash - pool);
    }
    atomic_store_explicit(&expect, true, memory_order_release);
}

void made_undo(const struct fs *fs)
{
    if (atomic_load(&fs->made))
        unlink(fs->region.spec);
    if (!atomic_load_explicit(&expect, memory_order_acquire))
        return;
    char *path = strdup(pool), *slash;
    /* One that somebody put something into meanwhile stays, and so do those above. */
    while (path && (slash = strrchr(path, '/')) && (size_t)(slash - path) > there) {
        *slash = '\0';
        if (rmdir(path))
            break;
    }
    free(path);
}
