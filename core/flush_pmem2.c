/* The flush variant of what libpmem2 maps at cache-line granularity (devdax, fsdax): its functions
 * for this mapping, which know the processor and whether its caches are flushed on power failure.
 * Serves steps 5, 6 and 8. Must never be used for page granularity, where the same functions call
 * msync and abort on its errors.
 */
#include <errno.h>
#include <libpmem2.h>
#include <stdlib.h>
#include <string.h>

#include "core/flush_variants.h"

struct flush_pmem2 {
    pmem2_flush_fn flush;
    pmem2_drain_fn drain;
    pmem2_memcpy_fn copy;
};

static void pmem2_writeback(struct flush *f, const void *p, size_t n)
{
    const struct flush_pmem2 *fn = f->state;
    fn->flush(p, n);
}

static void pmem2_drain(struct flush *f)
{
    const struct flush_pmem2 *fn = f->state;
    fn->drain();
}

static void pmem2_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    const struct flush_pmem2 *fn = f->state;
    fn->copy(dst, src, n, PMEM2_F_MEM_NODRAIN);
}

/* One table for each instruction that the library may have chosen, so that a name can be shown. */
enum { NO_FLUSH, CLWB, CLFLUSHOPT, CLFLUSH };
#define OPS(text)                                                                                  \
    {                                                                                              \
        .name = (text), .writeback = pmem2_writeback, .drain = pmem2_drain, .copy = pmem2_copy     \
    }
static const struct flush_ops pmem2_ops[] = {[NO_FLUSH] = OPS("pmem2-none"),
                                             [CLWB] = OPS("pmem2-clwb"),
                                             [CLFLUSHOPT] = OPS("pmem2-clflushopt"),
                                             [CLFLUSH] = OPS("pmem2-clflush")};

static bool forbidden(const char *variable)
{
    const char *value = getenv(variable);
    return value && strcmp(value, "1") == 0;
}

/* libpmem2 does not tell what it chose; this is its own rule, the documented variables included
 * (libpmem2(7)). Byte granularity: the caches themselves are persistent. */
static const struct flush_ops *name_choice(struct pmem2_map *map)
{
    if (pmem2_map_get_store_granularity(map) == PMEM2_GRANULARITY_BYTE)
        return &pmem2_ops[NO_FLUSH];
    if (flush_instruction(FLUSH_CLWB) && !forbidden("PMEM_NO_CLWB"))
        return &pmem2_ops[CLWB];
    if (flush_instruction(FLUSH_CLFLUSHOPT) && !forbidden("PMEM_NO_CLFLUSHOPT"))
        return &pmem2_ops[CLFLUSHOPT];
    return &pmem2_ops[CLFLUSH];
}

int flush_pmem2_init(struct flush *f, struct pmem2_map *map)
{
    if (pmem2_map_get_store_granularity(map) == PMEM2_GRANULARITY_PAGE)
        return -EINVAL;
    struct flush_pmem2 *fn = malloc(sizeof(*fn));
    if (!fn)
        return -ENOMEM;
    fn->flush = pmem2_get_flush_fn(map);
    fn->drain = pmem2_get_drain_fn(map);
    fn->copy = pmem2_get_memcpy_fn(map);
    *f = (struct flush){.ops = name_choice(map), .state = fn};
    return 0;
}

void flush_pmem2_release(struct flush *f)
{
    if (f->ops && f->ops->drain == pmem2_drain)
        free(f->state);
}
