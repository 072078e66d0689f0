/* Sending without a copy: over a real socket, and with a kernel that completes late, refuses, or says that it
 * copied (sendmsg and recvmsg are the test's own here, by the linker's --wrap). */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/errqueue.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "net/wire.h"
#include "peer.h"
#include "told.h"

#define SIZE   (600u << 10)
#define ROUNDS 10u

/* What the wrapped calls do. */
static enum { KERNEL, REFUSED, LATE } mode;
static atomic_uint flagged;  /* sends that asked for no copy */
static atomic_uint released; /* LATE: sends that may be told as completed, one at a time */
static atomic_uint told;     /* LATE: of them told */
static atomic_uint
    noise; /* LATE: messages of the error queue that are no completions, to be told first */
static atomic_size_t most;  /* LATE: bytes a send, 0: any */
static atomic_uint strange; /* LATE: sends without a copy of other bytes than these, or of few */
static const unsigned char *_Atomic from, *_Atomic to;

static void late(const unsigned char *bytes, size_t n)
{
    mode = LATE;
    flagged = released = told = noise = strange = 0;
    most = 0;
    from = bytes;
    to = bytes + n;
}

ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    if (!(flags & MSG_ZEROCOPY) || mode == KERNEL)
        return __real_sendmsg(fd, m, flags);
    if (mode == REFUSED) {
        flagged++;
        errno = ENOBUFS;
        return -1;
    }
    struct iovec first = m->msg_iov[0];
    struct msghdr part = *m;
    size_t all = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        const unsigned char *p = m->msg_iov[i].iov_base;
        strange += p < from || p + m->msg_iov[i].iov_len > to;
        all += m->msg_iov[i].iov_len;
    }
    strange += all < 64 << 10;
    if (most > 0 && first.iov_len > most) {
        first.iov_len = most;
        part.msg_iov = &first;
        part.msg_iovlen = 1;
    }
    ssize_t n = __real_sendmsg(fd, &part, flags & ~MSG_ZEROCOPY);
    flagged += n > 0;
    return n;
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
    if (!(flags & MSG_ERRQUEUE) || mode == KERNEL)
        return __real_recvmsg(fd, m, flags);
    struct sock_extended_err e = {.ee_origin = SO_EE_ORIGIN_ZEROCOPY, .ee_info = told};
    e.ee_data = e.ee_info;
    if (noise > 0) {
        noise--;
        e.ee_origin = noise % 2 ? SO_EE_ORIGIN_ICMP : SO_EE_ORIGIN_ZEROCOPY;
        e.ee_errno = noise % 2 ? 0 : ENOMEM;
        e.ee_info = 0;
        e.ee_data = UINT32_MAX;
    } else if (told >= released) {
        errno = EAGAIN;
        return -1;
    } else {
        told++;
    }
    struct cmsghdr *h = CMSG_FIRSTHDR(m);
    h->cmsg_level = SOL_IP;
    h->cmsg_type = IP_RECVERR;
    h->cmsg_len = CMSG_LEN(sizeof(e));
    memcpy(CMSG_DATA(h), &e, sizeof(e));
    m->msg_controllen = CMSG_SPACE(sizeof(e));
    return 0;
}

struct sent {
    unsigned char *bytes;
    atomic_bool done;
};

static void on_batch(void *arg, const struct embar_error *err)
{
    struct sent *s = arg;
    if (!err)
        memset(s->bytes, 0xee, SIZE); /* it is the caller's again */
    s->done = true;
}

static void fill(unsigned char *p, unsigned seed)
{
    uint64_t random = seed;
    for (size_t i = 0; i < SIZE; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        p[i] = (unsigned char)(random >> 56);
    }
}

/* Network namespaces at the two ends of a veth pair; -1: there are none. */
static int near = -1, far = -1;

static void enter(int ns)
{
    if (ns >= 0)
        assert_int_equal(setns(ns, CLONE_NEWNET), 0);
}

static struct embar_publisher_info send_rounds(struct peer *p, enum embar_zerocopy how,
                                               unsigned connections, uint64_t *after_first)
{
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    struct embar_publisher_info info;
    struct embar_error err = {.code = 0};
    struct sent s[ROUNDS];
    o.zerocopy = how;
    o.connections = connections;
    enter(p->at ? far : -1);
    peer_start(p);
    enter(p->at ? near : -1);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < ROUNDS; i++) {
        s[i].done = false;
        s[i].bytes = malloc(SIZE);
        fill(s[i].bytes, i);
        struct iovec iov[2] = {{s[i].bytes, 1000}, {s[i].bytes + 1000, SIZE - 1000}};
        assert_int_equal(embar_publish_batch(pub, iov, 2, NULL, 1, on_batch, &s[i]), 0);
        if (i == 0) {
            assert_int_equal(embar_flush(pub, -1, &err), 0);
            embar_publisher_info(pub, &info);
            *after_first = info.zerocopies;
        }
    }
    if (embar_flush(pub, -1, &err) < 0)
        fail_msg("%s", err.text);
    embar_publisher_info(pub, &info);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    size_t n;
    unsigned char *bytes = peer_bytes(p, &n);
    assert_int_equal(n, (size_t)ROUNDS * SIZE);
    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_true(s[i].done);
        fill(s[i].bytes, i);
        assert_memory_equal(bytes + (size_t)i * SIZE, s[i].bytes, SIZE);
        free(s[i].bytes);
    }
    free(bytes);
    peer_stop(p);
    return info;
}

static bool kernel_can(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    bool can = setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) == 0;
    close(fd);
    return can;
}

/* Loopback copies: after the first batch no send asks for it any more. */
static void it_ends_where_the_kernel_copies(void **state)
{
    (void)state;
    if (!kernel_can())
        skip();
    mode = KERNEL;
    uint64_t first;
    struct peer p = {.incarnation = 1, .tcp = true};
    struct embar_publisher_info info = send_rounds(&p, EMBAR_ZEROCOPY_AUTO, 1, &first);
    assert_true(first > 0);
    assert_true(info.zerocopies_copied > 0);
    assert_int_equal(info.zerocopies, first);
}

static int new_namespace(void)
{
    return unshare(CLONE_NEWNET) == 0 ? open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC) : -1;
}

static bool run(const char *command)
{
    return system(command) == 0; // NOLINT(cert-env33-c): the test's own words
}

/* False: this machine has no such devices, or does not let us. */
static bool veth_pair(void)
{
    char command[160];
    far = new_namespace();
    near = far < 0 ? -1 : new_namespace();
    (void)snprintf(command, sizeof(command),
                   "ip link add name near0 type veth peer name far0 netns /proc/%d/fd/%d",
                   (int)getpid(), far);
    if (near < 0 || !run(command) ||
        !run("ip addr add 10.0.0.1/24 dev near0 && ip link set near0 up"))
        return false;
    enter(far);
    bool up = run("ip addr add 10.0.0.2/24 dev far0 && ip link set far0 up");
    enter(near);
    return up;
}

/* So does what goes to another namespace of the machine: a receiver of its own never gets the
 * sender's pages. */
static void it_ends_between_namespaces(void **state)
{
    (void)state;
    int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    bool there = kernel_can() && geteuid() == 0 && veth_pair();
    if (there) {
        mode = KERNEL;
        uint64_t first;
        struct peer p = {.incarnation = 1, .tcp = true, .at = "10.0.0.2"};
        struct embar_publisher_info info = send_rounds(&p, EMBAR_ZEROCOPY_AUTO, 1, &first);
        assert_true(first > 0);
        assert_true(info.zerocopies_copied > 0);
        assert_in_range(info.zerocopies, first, first + 1);
    }
    enter(own);
    close(own);
    close(near); /* the pair goes with its namespaces */
    close(far);
    if (!there)
        skip();
}

static void it_goes_on_when_told_so(void **state)
{
    (void)state;
    if (!kernel_can())
        skip();
    mode = KERNEL;
    uint64_t first;
    struct peer p = {.incarnation = 1, .tcp = true};
    struct embar_publisher_info info = send_rounds(&p, EMBAR_ZEROCOPY_ALWAYS, 1, &first);
    assert_true(info.zerocopies > first);
    p = (struct peer){.incarnation = 1, .tcp = true, .break_every = 4};
    (void)send_rounds(&p, EMBAR_ZEROCOPY_ALWAYS, 3, &first);
}

static void never_is_never(void **state)
{
    (void)state;
    mode = REFUSED;
    flagged = 0;
    uint64_t first;
    struct peer p = {.incarnation = 1, .tcp = true};
    (void)send_rounds(&p, EMBAR_ZEROCOPY_NEVER, 1, &first);
    p = (struct peer){.incarnation = 1}; /* a Unix socket cannot */
    (void)send_rounds(&p, EMBAR_ZEROCOPY_ALWAYS, 1, &first);
    assert_int_equal(flagged, 0);
}

static void a_refused_send_is_copied(void **state)
{
    (void)state;
    if (!kernel_can())
        skip();
    mode = REFUSED;
    flagged = 0;
    uint64_t first;
    struct peer p = {.incarnation = 1, .tcp = true};
    struct embar_publisher_info info = send_rounds(&p, EMBAR_ZEROCOPY_AUTO, 1, &first);
    assert_true(flagged > ROUNDS);
    assert_int_equal(info.zerocopies, 0);
}

static bool settled(struct embar_publisher *pub, uint64_t sequence)
{
    struct embar_publisher_info info;
    time_t end = time(NULL) + 120;
    do {
        struct timespec nap = {.tv_nsec = 1000000};
        nanosleep(&nap, NULL);
        embar_publisher_info(pub, &info);
    } while (info.sequence < sequence && time(NULL) < end);
    return info.sequence >= sequence;
}

static void on_told(void *arg, const struct embar_error *err)
{
    atomic_bool *done = arg;
    *done = err == NULL;
}

/* Has the I/O thread look at its socket: an answer that nobody waits for. */
static void poke_once(struct peer *p)
{
    struct wire_ok ok = {.value = le64_of(0)};
    struct {
        struct wire_frame f;
        struct wire_ok ok;
    } frame = {wire_frame_of(WIRE_OK, 0, 1, 0, sizeof(ok)), ok};
    pthread_mutex_lock(&p->lock);
    assert_int_equal(send(p->fds[p->count - 1], &frame, sizeof(frame), MSG_NOSIGNAL),
                     sizeof(frame));
    pthread_mutex_unlock(&p->lock);
}

/* Until all that was released is told: a thread that is reading already takes the answer without a look at
 * the error queue, for which a kernel would wake it once more. */
static void poke(struct peer *p)
{
    time_t end = time(NULL) + 120;
    while (told < released && time(NULL) < end) {
        poke_once(p);
        for (unsigned i = 0; i < 100 && told < released; i++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_true(told >= released);
}

static bool is_done(atomic_bool *done)
{
    time_t end = time(NULL) + 120;
    while (!*done && time(NULL) < end) {
        struct timespec nap = {.tv_nsec = 1000000};
        nanosleep(&nap, NULL);
    }
    return *done;
}

/* Acknowledged, but the kernel still holds the memory, of which it sent a part at a time: nobody is told
 * before the last part is completed; nor, at order 5, who comes behind. */
static void held_memory(bool loose)
{
    struct peer p = {.incarnation = 1, .tcp = true, .loose = loose};
    struct sent s = {.bytes = malloc(SIZE)};
    struct embar_error err = {.code = 0};
    struct embar_publisher_info info;
    atomic_bool behind = false;
    fill(s.bytes, 3);
    late(s.bytes, SIZE);
    most = 100000;
    struct iovec iov = {s.bytes, SIZE};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, on_batch, &s), 0);
    assert_true(settled(pub, 1)); /* the ack is here */
    assert_int_equal(embar_publish(pub, "behind it", 9, on_told, &behind), 0);
    assert_true(settled(pub, 2));
    if (loose)
        assert_true(is_done(&behind));
    assert_int_equal(embar_flush(pub, 50, &err), -ETIMEDOUT);
    assert_true(flagged > 3);
    assert_int_equal(strange, 0);
    released = flagged - 1;
    noise = 4;
    poke(&p);
    assert_int_equal(embar_publish(pub, "more", 4, NULL, NULL), 0);
    assert_true(settled(pub, 3));
    assert_int_equal(embar_flush(pub, 50, &err), -ETIMEDOUT);
    assert_int_equal(told, flagged - 1);
    assert_int_equal(noise, 0);
    assert_false(s.done);
    assert_true(loose || !behind);
    released = flagged;
    poke(&p); /* no ack comes with it */
    assert_true(is_done(&s.done));
    assert_int_equal(embar_flush(pub, 120000, &err), 0);
    assert_true(behind);
    /* It did not copy: so it goes on. What is small is copied in any case. */
    unsigned before = flagged;
    assert_int_equal(
        embar_publish_batch(pub, &(struct iovec){s.bytes, 1000}, 1, NULL, 1, NULL, NULL), 0);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, NULL, NULL), 0);
    assert_true(settled(pub, 5));
    assert_true(flagged > before);
    released = flagged;
    poke(&p);
    assert_int_equal(embar_flush(pub, 120000, &err), 0);
    assert_int_equal(strange, 0);
    embar_publisher_info(pub, &info);
    assert_int_equal(info.zerocopies, flagged);
    assert_int_equal(info.zerocopies_copied, 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    peer_stop(&p);
    free(s.bytes);
}

static void memory_is_the_kernels_until_it_says_so(void **state)
{
    (void)state;
    if (!kernel_can())
        skip();
    held_memory(false);
    held_memory(true);
}

/* What a connection still held when it broke is held no longer, and the next one counts anew. */
static void a_new_connection_counts_anew(void **state)
{
    (void)state;
    if (!kernel_can())
        skip();
    struct peer p = {.incarnation = 1, .tcp = true};
    unsigned char *bytes = malloc(SIZE);
    struct embar_error err = {.code = 0};
    late(bytes, SIZE);
    fill(bytes, 5);
    struct iovec iov = {bytes, SIZE};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    for (unsigned i = 0; i < 3; i++) {
        atomic_bool done = false;
        assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, on_told, &done), 0);
        assert_true(settled(pub, i + 1));
        assert_false(done);
        if (i == 2) {
            released = flagged;
            poke(&p);
        } else {
            flagged = 0;
            pthread_mutex_lock(&p.lock);
            shutdown(p.fds[p.count - 1], SHUT_RDWR);
            pthread_mutex_unlock(&p.lock);
        }
        assert_true(is_done(&done));
    }
    assert_int_equal(embar_flush(pub, 120000, &err), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    size_t n;
    unsigned char *all = peer_bytes(&p, &n);
    assert_int_equal(n, 3 * SIZE);
    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(all + (size_t)i * SIZE, bytes, SIZE);
    free(all);
    peer_stop(&p);
    free(bytes);
}

/* A kernel that completes nothing is given so many sends, and then copies. */
static void what_is_held_is_bounded(void **state)
{
    (void)state;
    if (!kernel_can())
        skip();
    enum { SENDS = 1024, MORE = 20, PART = 64 << 10 };
    struct peer p = {.incarnation = 1, .tcp = true};
    unsigned char *bytes = malloc(SIZE);
    struct embar_error err = {.code = 0};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.window = (size_t)(SENDS + MORE + 1) * PART;
    late(bytes, SIZE);
    fill(bytes, 6);
    struct iovec iov = {bytes, PART};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < SENDS + MORE; i++)
        assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, NULL, NULL), 0);
    assert_true(settled(pub, SENDS + MORE));
    assert_int_equal(flagged, SENDS);
    released = SENDS;
    poke(&p);
    assert_int_equal(embar_flush(pub, 120000, &err), 0);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, NULL, NULL), 0);
    assert_true(settled(pub, SENDS + MORE + 1));
    assert_true(flagged > SENDS); /* there is room again */
    released = flagged;
    poke(&p);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    size_t n;
    unsigned char *all = peer_bytes(&p, &n);
    assert_int_equal(n, (size_t)(SENDS + MORE + 1) * PART);
    for (size_t at = 0; at < n; at += PART)
        assert_memory_equal(all + at, bytes, PART);
    free(all);
    peer_stop(&p);
    free(bytes);
}

/* What is never completed does not hold up a close. */
static void a_close_waits_for_nothing(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .tcp = true};
    struct sent s = {.bytes = malloc(SIZE)};
    fill(s.bytes, 3);
    late(s.bytes, SIZE);
    struct iovec iov = {s.bytes, SIZE};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, on_batch, &s), 0);
    assert_true(settled(pub, 1));
    (void)embar_publisher_close(pub, EMBAR_CLOSE_NOW, NULL);
    assert_true(s.done);
    embar_disconnect(c);
    peer_stop(&p);
    free(s.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_ends_where_the_kernel_copies),
        cmocka_unit_test(it_ends_between_namespaces),
        cmocka_unit_test(it_goes_on_when_told_so),
        cmocka_unit_test(never_is_never),
        cmocka_unit_test(a_refused_send_is_copied),
        cmocka_unit_test(memory_is_the_kernels_until_it_says_so),
        cmocka_unit_test(a_new_connection_counts_anew),
        cmocka_unit_test(what_is_held_is_bounded),
        cmocka_unit_test(a_close_waits_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
