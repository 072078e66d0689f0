/* The flush layer: how stores to pool lines become durable (DESIGN I2; steps 5, 6 and 8).
 *
 * A variant is chosen once when a region is mapped and called through this table. Everything above
 * it writes pool lines with plain stores or flush_copy, names the range with flush_writeback, and
 * calls flush_drain before the word that says so. Nothing else may make a line durable.
 *
 * A drain covers the write-backs of the calling thread only, as sfence does; the memory-model
 * shadow holds callers to that.
 *
 * Variants: none (coherent memory, durability process), clwb / clflushopt / nt (libpmem2's
 * functions, or our loops over the same instructions), file (remembers the range, starts
 * writeback; region_sync makes it durable), reader (nothing is written; lines of a device are
 * invalidated before they are read), shadow (tests: a line reaches "media" only by write-back and
 * drain, and another host only after that).
 */
#ifndef CORE_FLUSH_H
#define CORE_FLUSH_H

#include <stdbool.h>
#include <stddef.h>

enum flush_mode { FLUSH_AUTO, FLUSH_NONE, FLUSH_CLWB, FLUSH_CLFLUSHOPT, FLUSH_NT };

struct flush;
struct flush_ops {
    const char *name;
    /* Begin writing back every line that [p, p+n) touches. */
    void (*writeback)(struct flush *, const void *p, size_t n);
    /* Wait until this thread's write-backs are durable (in the sense of the region). */
    void (*drain)(struct flush *);
    /* Copy into the pool and write back, by the fastest way this memory has. */
    void (*copy)(struct flush *, void *dst, const void *src, size_t n);
    /* Forget what this host has cached of the lines that [p, p+n) touches, so that the next loads
     * see what other hosts drained before. NULL: coherent, nothing to forget. */
    void (*invalidate)(struct flush *, const void *p, size_t n);
};

struct flush {
    const struct flush_ops *ops;
    void *state; /* the variant's own */
};

static inline void flush_writeback(struct flush *f, const void *p, size_t n)
{
    f->ops->writeback(f, p, n);
}
static inline void flush_drain(struct flush *f)
{
    f->ops->drain(f);
}
static inline void flush_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    f->ops->copy(f, dst, src, n);
}

/* Before reading what another host may have written (DESIGN I2). Two lines are never of one moment: what
 * is read must be checked by what stands in it, and a copy checked rather than the place. */
static inline void flush_invalidate(struct flush *f, const void *p, size_t n)
{
    if (f->ops->invalidate)
        f->ops->invalidate(f, p, n);
}

/* "auto", "none", "clwb", "clflushopt", "nt": 0 or -EMBAR_ESPEC. */
int flush_mode_parse(const char *text, enum flush_mode *mode);

/* True when write-backs do nothing, so that callers may skip walking ranges. */
bool flush_is_noop(const struct flush *f);

#endif
