/* As many connections as there may be, and fewer descriptors than that: who comes next is told so, or waits
 * until there are some again; nobody who is there notices. The server may have few files here, and the
 * peers are a process of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

enum {
    FILES = 200,
    KEPT = 64,           /* for everything that is not a connection: FILES_KEPT */
    MOST = FILES - KEPT, /* connections */
    SOME = 20,
    READS = 4, /* of what somebody says who is turned away: AWAY_READS */
};

/* Reads of what was said by those who are turned away; to the daemon there seems to be more each time.
 * They are bounded here: a daemon that goes on for ever is to be told so, not waited for. */
static atomic_uint reads;

ssize_t __real_recv(int fd, void *to, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *to, size_t n, int flags);

ssize_t __wrap_recv(int fd, void *to, size_t n, int flags)
{
    ssize_t got = __real_recv(fd, to, n, flags);
    if (!(flags & MSG_DONTWAIT) || atomic_fetch_add(&reads, 1) >= 100000)
        return got;
    return (ssize_t)n;
}

static struct rig r = {.workers = 2, .tick_ms = 20};

static void is_served(int fd)
{
    struct got g;
    send_frame(fd, WIRE_PING, 0, 3, NULL, 0);
    expect(fd, WIRE_OK, &g);
    got_free(&g);
}

/* The answer to a greeting. */
static bool is_welcome(int fd)
{
    struct got g;
    bool welcome = receive(fd, &g) && g.f.type == WIRE_HELLO;
    got_free(&g);
    return welcome;
}

static void is_turned_away(int fd)
{
    struct got g;
    struct wire_error e;
    assert_true(receive(fd, &g));
    assert_int_equal(g.f.type, WIRE_ERROR);
    memcpy(&e, g.body, sizeof(e));
    assert_int_equal(le32_get(e.code), EMBAR_ELIMIT);
    got_free(&g);
    assert_false(receive(fd, &g));
    close(fd);
}

static bool there_is_room(void *unused)
{
    uint8_t b[128];
    (void)unused;
    int fd = dial_tcp(&r);
    (void)send(fd, b, hello_bytes(&r, b, true), MSG_NOSIGNAL); /* it may be closed already */
    bool welcome = is_welcome(fd);
    close(fd);
    return welcome;
}

static void too_many(void)
{
    int fd[MOST];
    for (unsigned i = 0; i < MOST; i++)
        fd[i] = peer(&r, i % 2);
    for (unsigned i = 0; i < SOME; i++)
        is_turned_away(i % 2 ? dial_unix(&r) : dial_tcp(&r));
    for (unsigned i = 0; i < MOST; i++)
        is_served(fd[i]);
    close(fd[7]);
    until(there_is_room, NULL);
    for (unsigned i = 0; i < MOST; i++)
        if (i != 7)
            close(fd[i]);
}

/* Half of them find no descriptor; they are greeted when the daemon has some again. */
static void no_files(int go)
{
    enum { N = MOST - SOME };
    int fd[N];
    uint8_t b[128];
    for (unsigned i = 0; i < N; i++) {
        fd[i] = i % 2 ? dial_unix(&r) : dial_tcp(&r);
        send_bytes(fd[i], b, hello_bytes(&r, b, i % 2 == 0));
    }
    /* Which of them found the descriptors is for the workers to say. */
    struct pollfd any[N];
    for (unsigned i = 0; i < N; i++)
        any[i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
    assert_true(poll(any, N, -1) > 0);
    assert_int_equal(write(go, "x", 1), 1);
    for (unsigned i = 0; i < N; i++)
        assert_true(is_welcome(fd[i]));
    for (unsigned i = 0; i < N; i++) {
        is_served(fd[i]);
        close(fd[i]);
    }
}

static pid_t start_peers(bool many, int go)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    /* A failure in here ends this process: it must not go on with the tests of the one it left. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (many)
        too_many();
    else
        no_files(go);
    _exit(0);
}

static void ends_well(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void told_so(void **state)
{
    (void)state;
    struct server_stat st;
    ends_well(start_peers(true, -1));
    until(nobody_is_there, &r);
    server_stat(r.server, &st);
    assert_in_range(st.refused, SOME, UINT64_MAX);
    assert_in_range(st.accepted, MOST + 1, UINT64_MAX);
    /* Each worker may have somebody who is not counted yet. */
    assert_in_range(atomic_load(&reads), 1, READS * (st.refused + r.workers));
}

static void until_there_are_some(void **state)
{
    (void)state;
    enum { TAKEN = FILES };
    int taken[TAKEN], go[2];
    unsigned n = 0, left = 30;
    char x;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    pid_t child = start_peers(false, go[1]);
    close(go[1]); /* a child that is gone says nothing, and is not waited for */
    while (n < TAKEN && (taken[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    while (left-- > 0 && n > 0)
        close(taken[--n]);
    assert_int_equal(read(go[0], &x, 1), 1);
    while (n > 0)
        close(taken[--n]);
    ends_well(child);
    close(go[0]);
    until(nobody_is_there, &r);
}

static int setup(void **state)
{
    (void)state;
    const struct rlimit few = {FILES, FILES};
    if (setrlimit(RLIMIT_NOFILE, &few))
        return -1;
    rig_start(&r);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_stop(&r);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(told_so),
        cmocka_unit_test(until_there_are_some),
    };
    return cmocka_run_group_tests_name("server full", tests, setup, teardown);
}
