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

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/flush.h"
#include "core/media.h"
#include "embar/error.h"

enum region_kind { REGION_DEVDAX, REGION_FILE, REGION_MEM, REGION_NODE };
/* Does the memory keep its content without power? What the system says, not what it may be. */
enum region_persistence { REGION_UNKNOWN, REGION_VOLATILE, REGION_PERSISTENT };

struct region_options {
    const char *spec; /* NULL: the default pool file */
    uint64_t size;    /* 0: the existing size, or 1 GiB for a new default pool */
    bool create;      /* make the file when absent */
    bool exclusive;   /* fail with EEXIST when it is there */
    bool readonly;    /* map for reading only; nothing is written, no lock is taken */
    enum flush_mode flush;
    int durability; /* enum media_durability, or -1: what the region gives by itself */
};

struct region_backing;

struct region {
    char *base;
    uint64_t size;
    enum region_kind kind;
    bool is_volatile; /* gone with the process (mem:, node:) */
    bool created;     /* this call made the file: it is all zeros */
    bool readonly;
    bool needs_sync; /* an ordinary file: durable across machine crashes only by region_sync. An
                          ack waits for it when durability is machine; else it is background */
    enum media_durability durability; /* what an ack stands for here */
    bool durability_given;            /* asked for by the caller, rather than the region's own */
    bool can_machine;                 /* machine durability is possible here */
    enum region_persistence persistence;
    uint64_t align; /* a device's: the bytes that one fault maps; 0: pages */
    struct flush flush;
    /* Set by the guard where memory was found gone: its offset plus one. Relaxed: see guard.c. */
    atomic_uint_fast64_t fault;
    int fd;                         /* -1 for anonymous memory */
    char *spec;                     /* as resolved; owned */
    struct region_backing *backing; /* the kind's own; NULL when wrapped */
};

int region_open(struct region *r, const struct region_options *opt, struct embar_error *err)
    __attribute__((warn_unused_result));
/* Unmaps and closes (dropping locks). Safe on a zeroed region. */
void region_close(struct region *r);

#define REGION_FAULT_SOMEWHERE UINT64_MAX

/* Was some of its memory found gone (core/guard.h)? It does not come back while this is open. */
static inline bool region_faulted(const struct region *r)
{
    return atomic_load_explicit(&r->fault, memory_order_relaxed) != 0;
}

/* Touch every page for reading (files) or writing (memory, devices) without changing it, in
 * parallel; `progress` (may be NULL) hears bytes done, from the calling thread. */
void region_prefault(struct region *r, void (*progress)(void *arg, uint64_t done, uint64_t total),
                     void *arg);

/* Exclusive OFD lock on slot's byte; -EMBAR_EBUSY (with the holder's pid in err where known). No-op on
 * anonymous memory. Held until region_close. */
int region_lock_slot(struct region *r, unsigned slot, struct embar_error *err)
    __attribute__((warn_unused_result));

/* The same, shared: others may look, nobody may serve. */
int region_lock_look(struct region *r, unsigned slot, struct embar_error *err)
    __attribute__((warn_unused_result));

/* True when somebody else holds slot's lock at this moment. */
bool region_slot_held(const struct region *r, unsigned slot);

/* Make all stores so far (those named to flush_writeback) durable across a machine crash: fdatasync
 * of a file region, nothing elsewhere. 0 or -errno: an error is final, what was dirty may be lost,
 * and every later call answers the same. */
int region_sync(struct region *r) __attribute__((warn_unused_result));

/* Zero [at, at+n), write it back and drain. The space stays allocated (format and tests only).
 * 0 or -EMBAR_EFAULTED. */
int region_zero(struct region *r, uint64_t at, uint64_t n) __attribute__((warn_unused_result));

/* The default pool's path, malloc'd, or NULL when no home is known: $XDG_STATE_HOME/embar/pool when
 * that is set, else /var/lib/embar/pool for root and ~/.local/state/embar/pool for others. Makes
 * parent directories when `make`. */
char *region_default_spec(bool make);

/* "4096", "10M", "2GiB": bytes, or -EMBAR_ESPEC. K, M, G, T, P (either case, "iB" may follow) are
 * powers of 1024. No sign, no space, no overflow, no trailing text. */
int size_parse(const char *text, uint64_t *bytes);

/* Wrap memory that the caller owns (tests, shadow); region_close leaves it and what the flush state
 * points to alone. flush NULL: none. Durability is machine with a flush, else process. */
void region_wrap(struct region *r, void *base, uint64_t size, const struct flush *flush);

#endif
