/* The flush variant of coherent memory whose stores outlive the process by themselves (durability
 * process): nothing to do. Must never be used where losing power must not lose data.
 *
 * No fence either: stores are ordered for other threads and processes by the release store of the
 * word that publishes them, which every user of the flush layer needs anyway.
 */
#include <string.h>

#include "core/flush_variants.h"

static void none_writeback(struct flush *f, const void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
}

static void none_drain(struct flush *f)
{
    (void)f;
}

static void none_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    (void)f;
    memcpy(dst, src, n);
}

const struct flush_ops flush_none_ops = {
    .name = "none",
    .writeback = none_writeback,
    .drain = none_drain,
    .copy = none_copy,
};
