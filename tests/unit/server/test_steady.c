/* What a connection costs in system calls, and what a batch does while a publisher keeps the socket full: a receive each, which takes the
 * end of one batch and the head of the next, or less where they are small; an acknowledgement for all of
 * an epoch, and nothing else:
 * no question how much waits, no change of the epoll set, no memory from the allocator but for a new extent.
 * The calls are the test's own here, by the linker's --wrap; the worker is held before a receive until all
 * is in the socket.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

#define WARM   60u    /* floods: extents grow, and what is made once is there */
#define FLOODS 16u    /* that are counted: 128 batches, an extent or two */
#define LARGE  14000u /* more than is received ahead */
#define SMALL  4000u
#define HEAD   64u /* bytes of a batch before its payload */

static pthread_t tester;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards these two */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool held;        /* the worker's receives wait */
static int held_fd = -1; /* of the one that does */
static struct {
    atomic_uint receives, sends, questions, registrations, timers, allocations, maps, options;
} calls; /* of other threads than the tester's; read when these have answered */

static void forget(void)
{
    atomic_uint *all = (atomic_uint *)&calls;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*all); i++)
        atomic_store(&all[i], 0);
}

static void count(atomic_uint *n)
{
    if (!pthread_equal(pthread_self(), tester))
        atomic_fetch_add(n, 1);
}

ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_readv(int fd, const struct iovec *iov, int pieces);
ssize_t __wrap_readv(int fd, const struct iovec *iov, int pieces);
int __real_ioctl(int fd, unsigned long what, void *arg);
int __wrap_ioctl(int fd, unsigned long what, void *arg);
int __real_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
int __real_timerfd_settime(int fd, int flags, const struct itimerspec *t, struct itimerspec *old);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *t, struct itimerspec *old);
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t k, size_t n);
void *__wrap_calloc(size_t k, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length);

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
    if (!pthread_equal(pthread_self(), tester)) {
        pthread_mutex_lock(&lock);
        while (held) {
            held_fd = fd;
            pthread_cond_wait(&changed, &lock);
        }
        pthread_mutex_unlock(&lock);
    }
    count(&calls.receives);
    return __real_recvmsg(fd, m, flags);
}

ssize_t __wrap_readv(int fd, const struct iovec *iov, int pieces)
{
    count(&calls.receives);
    return __real_readv(fd, iov, pieces);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    count(&calls.sends);
    return __real_sendmsg(fd, m, flags);
}

int __wrap_ioctl(int fd, unsigned long what, void *arg)
{
    count(&calls.questions);
    return __real_ioctl(fd, what, arg);
}

int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
    count(&calls.registrations);
    return __real_epoll_ctl(ep, op, fd, ev);
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *t, struct itimerspec *old)
{
    count(&calls.timers);
    return __real_timerfd_settime(fd, flags, t, old);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    count(&calls.allocations);
    return __real_aligned_alloc(align, n);
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    count(&calls.maps);
    return __real_mmap(at, n, prot, flags, fd, offset);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    count(&calls.options);
    return __real_setsockopt(fd, level, name, value, length);
}

void *__wrap_malloc(size_t n)
{
    count(&calls.allocations);
    return __real_malloc(n);
}

void *__wrap_calloc(size_t k, size_t n)
{
    count(&calls.allocations);
    return __real_calloc(k, n);
}

void *__wrap_realloc(void *p, size_t n)
{
    count(&calls.allocations);
    return __real_realloc(p, n);
}

static void hold(bool on)
{
    pthread_mutex_lock(&lock);
    held = on;
    held_fd = -1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Are so many bytes in the socket of the receive that waits? */
static bool arrived(void *bytes)
{
    int n = 0;
    pthread_mutex_lock(&lock);
    if (held_fd >= 0)
        assert_int_equal(__real_ioctl(held_fd, FIONREAD, &n), 0);
    pthread_mutex_unlock(&lock);
    return n == *(int *)bytes;
}

struct sender {
    int fd;
    uint64_t sequence;
    uint32_t epoch;
    unsigned batches; /* of a flood: as many as the socket's buffer holds */
    uint32_t size;
    uint8_t data[LARGE];
};

/* Put a number of batches into the socket while nobody receives; then let them be received. */
static void flood(struct sender *s)
{
    hold(true);
    for (unsigned i = 0; i < s->batches; i++)
        publish(s->fd, 7, ++s->sequence, s->epoch, s->data, s->size, NULL, 1);
    int bytes = (int)(s->batches * (HEAD + s->size));
    until(arrived, &bytes);
    forget();
    hold(false);
    (void)await_ack(s->fd, 7, s->sequence);
}

static void steady(unsigned batches, uint32_t size, unsigned receives)
{
    struct rig r = {.workers = 1, .tick_ms = 60000};
    struct sender s = {.batches = batches, .size = size};
    tester = pthread_self();
    fill(s.data, sizeof(s.data), 1);
    rig_start(&r);
    s.fd = peer(&r, false);
    s.epoch = le32_get(open_topic(s.fd, "steady", 7, WIRE_S_NEW, 0).epoch);
    unsigned allocations = 0;
    for (unsigned i = 0; i < WARM + FLOODS; i++) {
        flood(&s);
        if (i < WARM)
            continue;
        assert_int_equal(calls.receives, receives);
        assert_int_equal(calls.sends, 1);
        assert_int_equal(calls.questions, 0);
        assert_int_equal(calls.registrations, 0);
        assert_int_equal(calls.timers, 0);
        allocations += calls.allocations;
    }
    assert_in_range(allocations, 0, FLOODS / 4);
    close(s.fd);
    struct stream all = read_topic(&r, "steady");
    assert_int_equal(all.size, s.sequence * size);
    for (uint64_t i = 0; i < s.sequence; i++)
        assert_memory_equal(all.buf + i * size, s.data, size);
    free(all.buf);
    rig_stop(&r);
}

static void a_receive_and_an_end_of_each(void **state)
{
    (void)state;
    steady(4, LARGE, 5);
}

static void small_ones_together(void **state)
{
    (void)state;
    steady(12, SMALL, 3);
}

struct arrivals {
    const struct rig *rig;
    uint64_t accepted;
};

static bool so_many_accepted(void *arg)
{
    const struct arrivals *a = arg;
    struct server_stat st;
    server_stat(a->rig->server, &st);
    return st.accepted == a->accepted && st.connections == a->accepted;
}

/* A connection: accepted, and added to its worker's set; nothing is asked or set, and no memory is got
 * but for many at once. A greeting is a receive and a send. */
static void connections(void **state)
{
    (void)state;
    enum { N = 200, GREETED = 20 };
    struct rig r = {.workers = 2, .tick_ms = 60000};
    int fd[N];
    tester = pthread_self();
    rig_start(&r);
    forget();
    for (unsigned i = 0; i < N; i++)
        fd[i] = dial_tcp(&r);
    until(so_many_accepted, &(struct arrivals){&r, N});
    assert_int_equal(calls.registrations, N);
    assert_int_equal(calls.options, 0);
    assert_int_equal(calls.receives, 0);
    assert_int_equal(calls.allocations, 0);
    assert_in_range(calls.maps, 1, 2); /* two, when both workers found that there is none */
    forget();
    for (unsigned i = 0; i < GREETED; i++) {
        uint8_t b[256];
        struct got g;
        send_bytes(fd[i], b, hello_bytes(&r, b, true));
        expect(fd[i], WIRE_HELLO, &g);
        got_free(&g);
    }
    assert_int_equal(calls.receives, GREETED);
    assert_int_equal(calls.sends, GREETED);
    assert_int_equal(calls.registrations, 0);
    assert_int_equal(calls.allocations, 0);
    assert_int_equal(calls.maps, 0);
    for (unsigned i = 0; i < N; i++)
        close(fd[i]);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(connections),
                                       cmocka_unit_test(a_receive_and_an_end_of_each),
                                       cmocka_unit_test(small_ones_together)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
