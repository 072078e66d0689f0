/* Prefaulting: every page of a region is mapped before step 1, for a first touch inside recv costs
 * a third of its speed. Must never change a byte, nor dirty a file's pages (populating a file for
 * writing would write all of it back to the disk).
 *
 * Threads: workers and the caller take pieces by the atomic `next`; only the caller reports.
 * Atomics: `next` hands out pieces, `done` counts them; both relaxed, for nothing else is
 * published by them: pthread_join orders the rest.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "core/region.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#define PIECE       (32ull << 20)
#define MAX_THREADS 8

struct prefault {
    struct region *region;
    bool write;
    atomic_uint_fast64_t next;
    atomic_uint_fast64_t done;
};

/* A kernel without MADV_POPULATE, or a mapping it does not know how to populate. Memory of our own
 * is touched by an add of nothing; a device is only read, for a line of it may be another host's
 * and must not be written by this one. */
struct piece {
    char *at;
    uint64_t n, step;
    bool add;
};

static int touch(void *arg)
{
    const struct piece *p = arg;
    for (uint64_t i = 0; i < p->n; i += p->step) {
        if (p->add)
            (void)__atomic_fetch_add(p->at + i, 0, __ATOMIC_RELAXED);
        else
            (void)*(volatile char *)(p->at + i);
    }
    return 0;
}

static bool one_piece(struct prefault *p)
{
    struct region *r = p->region;
    uint64_t at = atomic_fetch_add_explicit(&p->next, PIECE, memory_order_relaxed);
    if (at >= r->size)
        return false;
    uint64_t n = r->size - at < PIECE ? r->size - at : PIECE;
    int advice = p->write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    int rc;
    do
        rc = madvise(r->base + at, n, advice);
    while (rc < 0 && errno == EINTR);
    /* Any other failure is one that touching would turn into a signal. */
    if (rc < 0 && errno == EINVAL) {
        struct piece piece = {
            .at = r->base + at,
            .n = n,
            /* One fault maps a device's whole alignment, and a read of far memory is not cheap. */
            .step = r->align > MEDIA_PAGE ? r->align : MEDIA_PAGE,
            .add = p->write && r->is_volatile};
        /* What is gone is told when it is used. */
        (void)!guard_run(r, touch, &piece);
    }
    atomic_fetch_add_explicit(&p->done, n, memory_order_relaxed);
    return true;
}

static void *worker(void *arg)
{
    while (one_piece(arg))
        ;
    return NULL;
}

void region_prefault(struct region *r, void (*progress)(void *arg, uint64_t done, uint64_t total),
                     void *arg)
{
    struct prefault p = {
        .region = r,
        .write = r->kind != REGION_FILE && !r->readonly,
    };
    atomic_init(&p.next, 0);
    atomic_init(&p.done, 0);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t threads[MAX_THREADS];
    unsigned n = 0;
    uint64_t pieces = (r->size + PIECE - 1) / PIECE;
    while (n < MAX_THREADS && (long)n + 1 < cores && n + 1 < pieces) {
        /* Fewer threads are only slower. */
        if (pthread_create(&threads[n], NULL, worker, &p) != 0)
            break;
        n++;
    }
    while (one_piece(&p))
        if (progress)
            progress(arg, atomic_load_explicit(&p.done, memory_order_relaxed), r->size);
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(threads[i], NULL);
    if (progress)
        progress(arg, r->size, r->size);
}
