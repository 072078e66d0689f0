/* The memory-model shadow: memory that forgets what was not written back and drained.
 *
 * A pool's region is backed by a *view* (what all threads load and store: the caches) and a *media*
 * image (what is left when the power goes). Only the flush layer moves lines from one to the other:
 *   write-back   notes each line with its present content as pending, for the calling thread
 *   drain        moves the calling thread's pending lines, and nobody else's, to the media
 * A crash image is the media, plus any subset of the pending lines, plus any subset of the lines
 * whose view differs from the media (a cache may write back any line at any time), where a line may
 * also be torn into aligned 8-byte words. That is a superset of what hardware allows.
 *
 * Another host sees the pool through a *far* view: what its cache holds, of whatever age. A line of it
 * changes only when that host invalidates it, or by chance (shadow_refresh), and then to what the
 * media holds; the media in turn may get lines that nobody has drained yet (shadow_leak).
 *
 * Threads: flush calls from any. One at a time for everything else; events are told under the
 * shadow's lock, so that other threads' flushes wait while an image is examined (their stores do
 * not, so harnesses that want exact repeats use one thread).
 */
#ifndef TESTS_CRASH_SHADOW_H
#define TESTS_CRASH_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/region.h"

struct shadow;

enum shadow_event {
    SHADOW_WRITEBACK, /* lines were noted as pending */
    SHADOW_DRAIN,     /* a drain begins: this thread's pending lines are still in flight */
    SHADOW_DRAINED,   /* they are on the media */
};

enum shadow_mode {
    SHADOW_ALL_OLD, /* the media alone: nothing that was not drained */
    SHADOW_PENDING, /* and every line that was written back, as it was then */
    SHADOW_ALL_NEW, /* the view: nothing was lost */
    SHADOW_RANDOM,  /* any subset, by the seed; some of the lines torn */
    SHADOW_UNTORN,  /* the same, and none torn */
};

/* size is a multiple of the page size. NULL when there is no memory. View and media are zeros. */
struct shadow *shadow_create(size_t size);
void shadow_destroy(struct shadow *s);
/* Begin again with these bytes in view and media, nothing pending (a crash during recovery: load
 * an image of another shadow). */
void shadow_load(struct shadow *s, const void *bytes);
/* The process died and the machine goes on: nobody waits for what its threads had pending, and what
 * the caches hold stays in them. */
void shadow_forget(struct shadow *s);
/* The region whose base is the view and whose flush is this shadow's. */
void shadow_region(struct shadow *s, struct region *r);

/* Call `tell` at each event, numbered from 1. NULL: nobody. */
void shadow_on_event(struct shadow *s,
                     void (*tell)(void *arg, enum shadow_event event, uint64_t number), void *arg);

/* Call `moment` after each write-back and around each drain, with no lock held: another thread may flush
 * in it, while the one that flushes waits. NULL: nobody. */
void shadow_on_moment(struct shadow *s, void (*moment)(void *arg), void *arg);

/* A crash image of this moment. It may be written to (recovery does); it is good until the next
 * call. The work is proportional to what differs, not to the size; within one event the comparison
 * of view and media is done once for all images. */
char *shadow_image(struct shadow *s, uint64_t seed, enum shadow_mode mode);
/* The same as a region that needs no flushing but stands for durable memory. */
void shadow_image_region(struct shadow *s, uint64_t seed, enum shadow_mode mode, struct region *r);

/* ---- Another host -------------------------------------------------------------------------- */

/* The region whose base is the far view, for reading only: whoever writes back through it aborts. What
 * the view held stays in it from one call to the next. */
void shadow_far_region(struct shadow *s, struct region *r);
/* The media, to be looked at and damaged by tests. */
void shadow_media_region(struct shadow *s, struct region *r);
/* Call `tell` before each invalidation of the far host. NULL: nobody. */
void shadow_on_invalidate(struct shadow *s, void (*tell)(void *arg), void *arg);
/* Some lines that differ leave the near caches by themselves, some of them half stored. */
void shadow_leak(struct shadow *s, uint64_t seed);
/* The far cache drops some lines and fetches them again. */
void shadow_refresh(struct shadow *s, uint64_t seed);

/* ---- Mutations: does anything notice when one flush is missing? ---------------------------- */

enum shadow_call { SHADOW_CALL_WRITEBACK, SHADOW_CALL_DRAIN, SHADOW_CALL_INVALIDATE };

/* Calls of write-back (or copy), drain and invalidate so far; the first is 1. */
uint64_t shadow_calls(const struct shadow *s);
/* Do nothing at call number k (0: none is skipped). A skipped copy still copies. */
void shadow_skip_call(struct shadow *s, uint64_t k);
/* Call sites seen so far, by the address they return to, in order of appearance, at most 256. */
unsigned shadow_sites(const struct shadow *s);
/* Do nothing at any call of this site, as at those named before (SHADOW_SKIPS at most); address as
 * shadow_site told (offsets repeat over runs of one binary, appearance may not). */
#define SHADOW_SKIPS 8u
void shadow_skip_site(struct shadow *s, uintptr_t offset);
/* A list of such sites; the page model has one too. */
struct skips {
    uintptr_t site[SHADOW_SKIPS];
    unsigned n;
};
void skips_add(struct skips *l, uintptr_t offset);
bool skips_have(const struct skips *l, uintptr_t offset);
/* Offset of site i in its binary (for addr2line), its calls, and which kind of call it is. */
uintptr_t shadow_site(const struct shadow *s, unsigned i, uint64_t *calls, enum shadow_call *what);

#endif
