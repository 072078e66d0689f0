/* A pool: a region with a checked superblock, and where everything stands in it. */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include <string.h>

#include "core/region.h"

#define POOL_MIN_SIZE (4ull << 20)

/* Zero fields take defaults derived from the size (pool_plan). Tests use tiny rings. */
struct pool_geometry {
    unsigned slots;
    unsigned producers;
    unsigned descriptors;   /* power of two */
    uint64_t index_entries; /* power of two */
    unsigned block_shift;
    unsigned max_order;
    unsigned regions;
    unsigned brokers;
};

struct pool {
    struct region *region;
    char *base;
    struct flush *flush; /* the region's */
    uint64_t size;
    uint8_t uuid[16];
    uint64_t incarnation;
    uint32_t side_magic, side_seed; /* of side records, by the pool's secret */
    enum media_durability durability;
    struct pool_geometry geo;
    uint64_t slot_base, slot_stride;
    uint64_t data_base, data_size; /* data_size is a multiple of geo.regions times the block: region
                                      i is [i, i+1) * data_size / regions. Extents are aligned to
                                      their size from data_base, so one may span regions, but only
                                      of the same slot */
    uint8_t boot_id[16];           /* this host's, now (tests set another) */
    uint64_t max_batch;            /* payload bytes: min(MEDIA_MAX_BATCH, what an extent holds) */
};

/* Fill every zero field of geo for a pool of this size. -EMBAR_ETOOSMALL / -EMBAR_EINVALID. */
int pool_plan(uint64_t size, struct pool_geometry *geo, struct embar_error *err)
    __attribute__((warn_unused_result));

/* Void the old superblocks, zero all slot areas, then write fresh superblocks (the primary last). The
 * region's old content, if any, is lost: callers have asked pool_is_blank. geo NULL: all defaults. */
int pool_format(struct region *r, const struct pool_geometry *geo, struct embar_error *err)
    __attribute__((warn_unused_result));

/* Check the superblock (falling back to its copy) and all bounds in it. Writes nothing to the media;
 * settles durability, here and in r: what the pool was made for, unless r was opened with another
 * or cannot give it. */
int pool_attach(struct pool *p, struct region *r, struct embar_error *err)
    __attribute__((warn_unused_result));

/* Look at one superblock by itself, 0 the primary or 1 the copy, into p (its places only). 0;
 * -EMBAR_ENOTPOOL: no magic; -EMBAR_EVERSION; -EMBAR_ECORRUPT: its checksum or a bound (*bad says
 * which); -EMBAR_EFEATURE. */
int pool_super(struct pool *p, struct region *r, unsigned which, const char **bad)
    __attribute__((warn_unused_result));

/* A file of `is` bytes (r->fd, not mapped yet) that begins as a larger pool did was truncated: that is
 * said, with -EMBAR_ECORRUPT. 0: nothing speaks for that. */
int pool_check_length(const struct region *r, uint64_t is, struct embar_error *err)
    __attribute__((warn_unused_result));

/* True when nothing was ever stored: an existing file is looked at whole, anything else at its first
 * and last MiB, where partition tables and filesystems put their marks. What cannot be read is not
 * blank. */
bool pool_is_blank(struct region *r);

/* Places. Nothing is checked: callers pass numbers below the geometry's. */
struct media_claim *pool_claim(const struct pool *p, unsigned slot);
struct media_heartbeat *pool_heartbeat(const struct pool *p, unsigned slot);
/* which: 0 or 1. */
struct media_watermark *pool_watermark(const struct pool *p, unsigned slot, unsigned which);
struct media_watermark *pool_synced(const struct pool *p, unsigned slot, unsigned which);
struct media_root *pool_root(const struct pool *p, unsigned slot, unsigned which);
/* The root's copy. */
struct media_root *pool_root_copy(const struct pool *p, unsigned slot, unsigned which);
struct media_entry *pool_descriptor(const struct pool *p, unsigned slot, unsigned producer,
                                    uint64_t number);
struct media_entry *pool_entry(const struct pool *p, unsigned slot, uint64_t number);

/* Under a guard: store a record of n bytes and begin to write it back. 0. Inline, so that each kind of
 * record has a write-back of its own, which can be left out by itself to see who notices. */
struct pool_record {
    const struct pool *pool;
    void *at;
    const void *from;
    size_t n;
};
static inline __attribute__((always_inline)) int pool_put(const struct pool_record *r)
{
    memcpy(r->at, r->from, r->n);
    flush_writeback(r->pool->flush, r->at, r->n);
    return 0;
}

/* [at, at+n) lies in the data area. */
bool pool_in_data(const struct pool *p, uint64_t at, uint64_t n);
static inline void *pool_at(const struct pool *p, uint64_t at)
{
    return p->base + at;
}
/* Start of the extent of 2^order blocks around `at`. */
uint64_t pool_extent_base(const struct pool *p, uint64_t at, unsigned order);

/* This host's boot id and machine id (zeros where unknown). */
void host_boot_id(uint8_t id[16]);
void host_machine_id(uint8_t id[16]);

#endif
