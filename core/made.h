/* What a start makes for a pool, the file and the default pool's directories, and takes away again when it
 * comes to nothing. Serves no step of a batch. Must never take away what was there before.
 */
#ifndef CORE_MADE_H
#define CORE_MADE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct region;

struct made {     /* zeros: nothing; to the end of the process, or made_free */
    char *pool;   /* the default pool's path */
    size_t there; /* bytes of that part of it which was there */
    atomic_bool
        expect;       /* both are known: release; pairs with the load in made_undo, on any thread */
    const char *file; /* the region's own */
    atomic_bool filed; /* it is known: as expect */
};

/* Before the default pool is opened: what of its path is not there is made by this start. */
void made_expect(struct made *m);
/* The region is open: its file is to go, too, if the opening made it. For as long as the region is. */
void made_region(struct made *m, const struct region *r);
/* The file, and the directories that are empty then. Any thread, once. */
void made_undo(struct made *m);
void made_free(struct made *m);

#endif
