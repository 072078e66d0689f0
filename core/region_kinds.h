/* What the kinds of region share with region.c. Not for anybody else. */
#ifndef CORE_REGION_KINDS_H
#define CORE_REGION_KINDS_H

#include <pthread.h>

#include "core/region.h"

struct pmem2_map;

struct region_backing {
    struct pmem2_map *map; /* files and devices */
    size_t mapped;         /* bytes at region.base that we mapped ourselves: mem:, node:, devices */
    pthread_mutex_t lock;  /* guards the two below and serialises fdatasync */
    uint64_t synced;       /* write-backs covered by the last sync; see flush_file_noted */
    int failed;            /* the sync error that was final, or 0 */
};

/* Each fills base, size, kind, fd, backing's first two and the facts about durability. On failure
 * region.c closes whatever was opened so far. spec is resolved and owned by r. */
int region_open_file(struct region *r, const struct region_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
int region_open_devdax(struct region *r, const struct region_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
int region_open_mem(struct region *r, const struct region_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));

/* Map r->fd whole through libpmem2, shared: sets base and backing->map. */
int region_map_fd(struct region *r, struct embar_error *err) __attribute__((warn_unused_result));

/* "64 MiB", or bytes when it is no whole number of a unit. */
const char *size_text(uint64_t bytes, char buf[32]);

#endif
