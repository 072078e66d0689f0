/* In front of the calls that can be made to fail (fault.h).
 *
 * One source, two ways in: with FAULT_WRAP the linker puts __wrap_NAME in front of what a test and the
 * libraries it links call (no sanitizer minds); without, this is a library for LD_PRELOAD, in front
 * of everything that a program and its libraries call.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tests/fault/fault.h"

#ifdef FAULT_WRAP
#define REAL(result, name, ...)                                                                    \
    result __real_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__);                                                             \
    result __wrap_##name(__VA_ARGS__)
#define CALL(name, ...)               __real_##name(__VA_ARGS__)
#define LIBC(result, name, libc, ...) REAL(result, name, __VA_ARGS__)
#define LIBC_CALL(name, libc, ...)    __real_##name(__VA_ARGS__)
#else
#define REAL(result, name, ...)                                                                    \
    typedef result (*name##_type)(__VA_ARGS__);                                                    \
    result name(__VA_ARGS__)
#define CALL(name, ...) ((name##_type)dlsym(RTLD_NEXT, #name))(__VA_ARGS__)
/* dlsym may allocate: the allocators are called by the C library's own other names. */
#define LIBC(result, name, libc, ...)                                                              \
    result libc(__VA_ARGS__);                                                                      \
    result name(__VA_ARGS__)
#define LIBC_CALL(name, libc, ...) libc(__VA_ARGS__)
#endif

/* Fails, with errno as the call leaves it. */
#define FAIL(name, answer)                                                                         \
    do {                                                                                           \
        int error = fault_error(FAULT_##name);                                                     \
        if (error) {                                                                               \
            errno = error;                                                                         \
            return answer;                                                                         \
        }                                                                                          \
    } while (0)

LIBC(void *, malloc, __libc_malloc, size_t n)
{
    FAIL(malloc, NULL);
    return LIBC_CALL(malloc, __libc_malloc, n);
}

LIBC(void *, calloc, __libc_calloc, size_t n, size_t size)
{
    FAIL(calloc, NULL);
    return LIBC_CALL(calloc, __libc_calloc, n, size);
}

LIBC(void *, realloc, __libc_realloc, void *p, size_t n)
{
    FAIL(realloc, NULL);
    return LIBC_CALL(realloc, __libc_realloc, p, n);
}

LIBC(void *, aligned_alloc, __libc_memalign, size_t align, size_t n)
{
    FAIL(aligned_alloc, NULL);
    return LIBC_CALL(aligned_alloc, __libc_memalign, align, n);
}

REAL(void *, reallocarray, void *p, size_t n, size_t size)
{
    FAIL(reallocarray, NULL);
    return CALL(reallocarray, p, n, size);
}

REAL(int, posix_fallocate, int fd, off_t at, off_t n)
{
    int error = fault_error(FAULT_posix_fallocate);
    return error ? error : CALL(posix_fallocate, fd, at, n);
}

REAL(int, ftruncate, int fd, off_t n)
{
    FAIL(ftruncate, -1);
    return CALL(ftruncate, fd, n);
}

/* Eight bytes may be an event counter, which is written whole. */
static size_t shorter(int error, size_t n)
{
    return error == FAULT_SHORT && n > 8 ? n / 2 : n;
}

REAL(ssize_t, write, int fd, const void *p, size_t n)
{
    int error = fault_error(FAULT_write);
    if (error && error != FAULT_SHORT) {
        errno = error;
        return -1;
    }
    return CALL(write, fd, p, shorter(error, n));
}

REAL(ssize_t, writev, int fd, const struct iovec *iov, int count)
{
    FAIL(writev, -1);
    return CALL(writev, fd, iov, count);
}

REAL(ssize_t, pwrite, int fd, const void *p, size_t n, off_t at)
{
    int error = fault_error(FAULT_pwrite);
    if (error && error != FAULT_SHORT) {
        errno = error;
        return -1;
    }
    return CALL(pwrite, fd, p, shorter(error, n), at);
}

#ifndef FAULT_WRAP
/* As when a thread has no turn, or no read does what it is asked for. */
REAL(ssize_t, read, int fd, void *p, size_t n)
{
    int error = fault_error(FAULT_read);
    if (error && error != FAULT_LATE) {
        errno = error;
        return -1;
    }
    ssize_t got = CALL(read, fd, p, n);
    int keep = errno;
    if (error && got > 0)
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    errno = keep;
    return got;
}
#endif

REAL(int, fdatasync, int fd)
{
    FAIL(fdatasync, -1);
#ifdef FAULT_WRAP
    (void)fd;
    return 0; /* nobody pulls a plug: the disk need not spin */
#else
    return CALL(fdatasync, fd);
#endif
}

REAL(int, fsync, int fd)
{
    FAIL(fsync, -1);
    return CALL(fsync, fd);
}

REAL(void *, mmap, void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    FAIL(mmap, MAP_FAILED);
    return CALL(mmap, at, n, prot, flags, fd, offset);
}

REAL(int, madvise, void *at, size_t n, int advice)
{
    FAIL(madvise, -1);
    return CALL(madvise, at, n, advice);
}

REAL(int, pthread_create, pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    int error = fault_error(FAULT_pthread_create);
    return error ? error : CALL(pthread_create, t, a, f, arg);
}

REAL(int, eventfd, unsigned n, int flags)
{
    FAIL(eventfd, -1);
    return CALL(eventfd, n, flags);
}

REAL(int, timerfd_create, int clock, int flags)
{
    FAIL(timerfd_create, -1);
    return CALL(timerfd_create, clock, flags);
}

REAL(int, epoll_create1, int flags)
{
    FAIL(epoll_create1, -1);
    return CALL(epoll_create1, flags);
}

REAL(int, epoll_ctl, int fd, int op, int what, struct epoll_event *ev)
{
    FAIL(epoll_ctl, -1);
    return CALL(epoll_ctl, fd, op, what, ev);
}

REAL(int, accept4, int fd, struct sockaddr *a, socklen_t *n, int flags)
{
    FAIL(accept4, -1);
    return CALL(accept4, fd, a, n, flags);
}

REAL(ssize_t, getrandom, void *p, size_t n, unsigned flags)
{
    FAIL(getrandom, -1);
    return CALL(getrandom, p, n, flags);
}
