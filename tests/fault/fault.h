/* Faults by name: which calls of the system or the allocator fail, decided by fault.c; inject.c stands
 * in front of the calls. Tests only; the product knows nothing of it. */
#ifndef TESTS_FAULT_FAULT_H
#define TESTS_FAULT_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* The calls, as they are named. */
#define FAULT_NAMES(X)                                                                             \
    X(malloc)                                                                                      \
    X(calloc)                                                                                      \
    X(realloc)                                                                                     \
    X(reallocarray)                                                                                \
    X(aligned_alloc)                                                                               \
    X(posix_fallocate)                                                                             \
    X(ftruncate)                                                                                   \
    X(write)                                                                                       \
    X(writev)                                                                                      \
    X(pwrite)                                                                                      \
    X(fdatasync)                                                                                   \
    X(fsync)                                                                                       \
    X(mmap)                                                                                        \
    X(madvise)                                                                                     \
    X(pthread_create)                                                                              \
    X(eventfd)                                                                                     \
    X(timerfd_create)                                                                              \
    X(epoll_create1)                                                                               \
    X(epoll_ctl)                                                                                   \
    X(accept4)                                                                                     \
    X(getrandom)                                                                                   \
    X(read)

enum fault_name {
#define X(name) FAULT_##name,
    FAULT_NAMES(X)
#undef X
    /* Every name that allocates. */
    FAULT_ALLOCATORS,
    FAULT_COUNT
};

#define FAULT_SHORT (-1) /* write, pwrite: half of it is written */
#define FAULT_LATE  (-2) /* read: its answer comes 50 ms late (not where the linker wraps) */

/* From the n-th call on (1: the next), `times` calls of `name` fail with `error`. 0 times: none any
 * more. FAULT_ALLOCATORS counts all allocators together. */
void fault_set(enum fault_name name, uint64_t n, uint64_t times, int error);
/* How many calls failed since. */
uint64_t fault_hits(void);
/* Asked by a call in front: 0, or the error that it fails with. */
int fault_error(enum fault_name name);
/* The name as text. */
const char *fault_text(enum fault_name name);

#endif
