/* Memory of connections (step 1): see slab.h.
 *
 * Spare objects stand on a stack (stack.h) that all workers share, since one accepts and another one frees.
 * When it is empty, the newest block has some that were never used, or another block is mapped. Objects are not
 * rounded up to pages, so that their heads do not all compete for the same lines of the cache; of the pages
 * of one only those that are all its own are given back. Must never unmap a block while anybody may pop.
 */
#include "net/server/slab.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

struct slab_block {
    _Alignas(64) struct slab_block *next;
    size_t bytes;
    atomic_uint used; /* objects that were ever taken, or more: relaxed */
};

void slab_init(struct slab *s, size_t size)
{
    s->size = (size + 63) / 64 * 64;
}

static void unmap(struct slab_block *b)
{
    ASAN_UNPOISON_MEMORY_REGION(b, b->bytes);
    (void)munmap(b, b->bytes);
}

/* A block more, unless somebody else made one meanwhile. */
static int grow(struct slab *s, struct slab_block *newest)
{
    size_t bytes = sizeof(struct slab_block) + SLAB_BLOCK * s->size;
    struct slab_block *b = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b == MAP_FAILED)
        return -ENOMEM;
    /* Of most objects only the first pages are ever touched. */
    (void)madvise(b, bytes, MADV_NOHUGEPAGE);
    b->bytes = bytes;
    b->next = newest;
    ASAN_POISON_MEMORY_REGION(b + 1, bytes - sizeof(*b));
    if (!atomic_compare_exchange_strong_explicit(&s->blocks, &newest, b, memory_order_release,
                                                 memory_order_relaxed))
        unmap(b);
    return 0;
}

/* One that was never used. */
static struct slab_item *fresh(struct slab *s)
{
    for (;;) {
        struct slab_block *b = atomic_load_explicit(&s->blocks, memory_order_acquire);
        unsigned n = b ? atomic_fetch_add_explicit(&b->used, 1, memory_order_relaxed) : SLAB_BLOCK;
        if (n < SLAB_BLOCK)
            return (struct slab_item *)(void *)((char *)(b + 1) + n * s->size);
        if (grow(s, b))
            return NULL;
    }
}

void *slab_take(struct slab *s)
{
    struct ck_stack_entry *e = stack_pop(&s->spare);
    struct slab_item *item =
        e ? (struct slab_item *)(void *)((char *)e - offsetof(struct slab_item, entry)) : fresh(s);
    if (e)
        atomic_fetch_sub_explicit(&s->count, 1, memory_order_relaxed);
    if (item)
        ASAN_UNPOISON_MEMORY_REGION(item, s->size);
    return item;
}

/* The pages that are all of this object's, and not its head's. */
static void release_pages(const struct slab *s, struct slab_item *item)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)(item + 1) + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)item + s->size) / page * page;
    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void slab_give(struct slab *s, void *object)
{
    struct slab_item *item = object;
    if (atomic_load_explicit(&s->count, memory_order_relaxed) >= SLAB_KEPT)
        release_pages(s, item);
    ASAN_POISON_MEMORY_REGION(item + 1, s->size - sizeof(*item));
    atomic_fetch_add_explicit(&s->count, 1, memory_order_relaxed);
    stack_push(&s->spare, &item->entry);
}

void slab_end(struct slab *s)
{
    struct slab_block *b = atomic_exchange_explicit(&s->blocks, NULL, memory_order_acquire);
    while (b) {
        struct slab_block *next = b->next;
        unmap(b);
        b = next;
    }
}
