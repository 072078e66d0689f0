/* Who holds a pool that a command wants for itself: a daemon that was just unmounted is waited for, nobody else.
 * Serves no step of a batch. Must never write to the pool.
 */
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "core/pool.h"
#include "net/cmd/cmd.h"
#include "net/mounts.h"

/* Is it a daemon, as far as this process can see it? */
static bool may_be_daemon(unsigned pid)
{
    char path[32], name[32] = "";
    (void)snprintf(path, sizeof(path), "/proc/%u/comm", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return true;
    bool known = fgets(name, sizeof(name), f) != NULL;
    (void)fclose(f);
    return !known || strcmp(name, "embarfs\n") == 0;
}

/* What a daemon's claim says last is that it has none any more, before it gives its lock back. */
static bool may_be_closing(struct region *r)
{
    struct pool pool;
    if (pool_attach(&pool, r, NULL) != 0)
        return false;
    for (unsigned slot = 0; slot < pool.geo.slots; slot++) {
        struct media_claim claim;
        if (!region_slot_held(r, slot))
            continue;
        if (guard_copy(r, &claim, pool_claim(&pool, slot), sizeof(claim)) != 0 ||
            !may_be_daemon(le32_get(claim.pid)))
            return false;
    }
    return true;
}

static void say(void *arg, const char *text)
{
    const char *const *name = arg;
    cmd_say(*name, "%s", text);
}

bool held_wait(struct mounts_wait *w, const char *name, struct region *r,
               const struct embar_error *why)
{
    return may_be_closing(r) && mounts_wait(w, r->spec, why->text, say, &name);
}
