/* The flush variant of ordinary files: stores into the mapping are in the page cache at once and
 * survive the process; only region_sync takes them to the disk. Steps 5, 6 and 8 call it, so it
 * must never enter the kernel: starting the disk's write-back from here (sync_file_range) blocks
 * behind a busy device's queue.
 *
 * What is remembered is one number: how many write-backs there were. fdatasync knows the dirty
 * pages better than any list of ranges kept here, but not that there are none: an unmoved count
 * lets region_sync skip it, so that an idle pool costs nothing.
 *
 * Atomics: `noted` is incremented (sequentially consistent) after the stores it stands for, and
 * pairs with flush_file_noted's load before fdatasync: a count that the load has seen covers
 * stores that the fdatasync sees.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/flush_variants.h"

struct flush_file {
    _Alignas(64) atomic_uint_fast64_t noted;
};

static void file_writeback(struct flush *f, const void *p, size_t n)
{
    (void)p;
    struct flush_file *file = f->state;
    if (n > 0)
        atomic_fetch_add_explicit(&file->noted, 1, memory_order_seq_cst);
}

static void file_drain(struct flush *f)
{
    (void)f;
}

static void file_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    file_writeback(f, dst, n);
}

static const struct flush_ops file_ops = {
    .name = "file",
    .writeback = file_writeback,
    .drain = file_drain,
    .copy = file_copy,
};

int flush_file_init(struct flush *f)
{
    struct flush_file *file = aligned_alloc(64, sizeof(*file));
    if (!file)
        return -ENOMEM;
    atomic_init(&file->noted, 0);
    *f = (struct flush){.ops = &file_ops, .state = file};
    return 0;
}

void flush_file_release(struct flush *f)
{
    if (f->ops == &file_ops)
        free(f->state);
}

bool flush_file_noted(const struct flush *f, uint64_t *noted)
{
    if (f->ops != &file_ops)
        return false;
    struct flush_file *file = f->state;
    *noted = atomic_load_explicit(&file->noted, memory_order_seq_cst);
    return true;
}
