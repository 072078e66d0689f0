/* A region: the memory that a pool lives in, mapped, with its flush variant and its lock.
 *
 * Specs (--cxl): /dev/daxX.Y, a path (created with a size; fallocated, never sparse), mem:SIZE,
 * node:N[:SIZE]. Without a spec: region_default_spec(). libpmem2 maps devices and files and says
 * their granularity; mem: and node: are anonymous memory (libnuma binds node:).
 *
 * Threads: open, close and prefault by one thread; sync and lock by any.
 */
#ifndef CORE_REGION_H
#define CORE_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/flush.h"
#include "core/media.h"
#include "embar/error.h"

enum region_kind { REGION_DEVDAX, REGION_FILE, REGION_MEM, REGION_NODE };

struct region_options {
    const char *spec;  /* NULL: the default pool file */
    uint64_t size;     /* 0: the existing size, or 1 GiB for a new default pool */
    bool create;       /* make the file when absent */
    bool exclusive;    /* fail with EEXIST when it is there */
    bool readonly;     /* map for reading only; nothing is written, no lock is taken */
    enum flush_mode flush;
    int durability;    /* enum media_durability, or -1: what the region gives by itself */
};

struct region {
    char *base;
    uint64_t size;
    enum region_kind kind;
    bool is_volatile;  /* gone with the process (mem:, node:) */
    bool created;      /* this call made the file: it is all zeros */
    bool readonly;
    bool needs_sync;   /* an ordinary file: durable across machine crashes only by region_sync */
    enum media_durability durability; /* what an ack stands for here */
    struct flush flush;
    int fd;            /* -1 for anonymous memory */
    char *spec;        /* as resolved; owned */
    void *map;         /* the variant's own (struct pmem2_map *) */
};

int region_open(struct region *r, const struct region_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Unmaps and closes (dropping locks). Safe on a zeroed region. */
void region_close(struct region *r);

/* Touch every page for reading (files) or writing (memory, devices), in parallel; `progress`
 * (may be NULL) hears bytes done from one thread. */
void region_prefault(struct region *r, void (*progress)(void *arg, uint64_t done, uint64_t total),
                     void *arg);

/* Exclusive OFD lock on slot's byte; -EMBAR_EBUSY (with the holder's pid in err where known). No-op on
 * anonymous memory. Held until region_close. */
int region_lock_slot(struct region *r, unsigned slot, struct embar_error *err)
    __attribute__((warn_unused_result));

/* Make all stores so far durable across a machine crash (fdatasync/msync of a file region; nothing
 * elsewhere). 0 or -errno: an error is final, what was dirty may be lost. */
int region_sync(struct region *r) __attribute__((warn_unused_result));

/* Drop the backing of nothing; give [at, at+n) back as zeros (tests and format only). */
void region_zero(struct region *r, uint64_t at, uint64_t n);

/* The state directory's pool path: malloc'd, or NULL. Makes parent directories when `make`. */
char *region_default_spec(bool make);

/* "10M", "2GiB", "4096": bytes, or -EMBAR_ESPEC. No sign, no overflow, no trailing text. */
int size_parse(const char *text, uint64_t *bytes);

/* Wrap memory that the caller owns (tests, shadow); region_close leaves it alone. */
void region_wrap(struct region *r, void *base, uint64_t size, const struct flush *flush);

#endif
