/* As many connections as there may be, of all and of one principal, and fewer descriptors than that: who comes
 * next is told so, or waits until there are some again; nobody who is there notices. The server may have few
 * files here, and the peers are a process of their own. Principals are made up: what a Unix socket says of its
 * peer is the test's own, by the linker's --wrap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/server/internal.h"
#include "tests/unit/server/rig.h"

enum {
    FILES = 200,
    KEPT = 64,             /* for everything that is not a connection: FILES_KEPT */
    MOST = FILES - KEPT,   /* connections */
    OWN = MOST - MOST / 8, /* of one principal */
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

/* Users, beside the daemon's own. */
enum { ANNA = 1001, BERT };

static atomic_uint *user; /* who connects next, for the server's process; 0: who it is */

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length);

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    int rc = __real_getsockopt(fd, level, name, value, length);
    if (rc == 0 && level == SOL_SOCKET && name == SO_PEERCRED && atomic_load(user))
        ((struct ucred *)value)->uid = atomic_load(user);
    return rc;
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

static void is_turned_away(int fd, const char *words)
{
    struct got g;
    struct wire_error e;
    assert_true(receive(fd, &g));
    assert_int_equal(g.f.type, WIRE_ERROR);
    memcpy(&e, g.body, sizeof(e));
    assert_int_equal(le32_get(e.code), EMBAR_ELIMIT);
    assert_non_null(memmem(g.body, g.length, words, strlen(words)));
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
    atomic_store(user, ANNA);
    for (unsigned i = 0; i < MOST; i++)
        fd[i] = peer(&r, i % 2);
    for (unsigned i = 0; i < SOME; i++)
        is_turned_away(i % 2 ? dial_unix(&r) : dial_tcp(&r), "the broker has as many");
    for (unsigned i = 0; i < MOST; i++)
        is_served(fd[i]);
    close(fd[7]);
    until(there_is_room, NULL);
    for (unsigned i = 0; i < MOST; i++)
        if (i != 7)
            close(fd[i]);
}

static bool has_room_of_her_own(void *unused)
{
    uint8_t b[128];
    (void)unused;
    int fd = dial_unix(&r);
    (void)send(fd, b, hello_bytes(&r, b, false), MSG_NOSIGNAL);
    bool welcome = is_welcome(fd);
    close(fd);
    return welcome;
}

/* However many one user has, the last ones are for others. */
static void too_many_of_one(void)
{
    int anna[OWN], bert[MOST - OWN];
    atomic_store(user, ANNA);
    for (unsigned i = 0; i < OWN; i++)
        anna[i] = peer(&r, true);
    is_turned_away(dial_unix(&r), "one user has as many");
    atomic_store(user, BERT);
    for (unsigned i = 0; i + 1 < MOST - OWN; i++)
        bert[i] = peer(&r, true);
    bert[MOST - OWN - 1] = peer(&r, false);
    is_turned_away(dial_unix(&r), "the broker has as many");
    for (unsigned i = 0; i < MOST - OWN; i++) {
        is_served(bert[i]);
        close(bert[i]);
    }
    atomic_store(user, ANNA);
    is_turned_away(dial_unix(&r), "one user has as many");
    close(anna[7]);
    until(has_room_of_her_own, NULL);
    for (unsigned i = 0; i < OWN; i++)
        if (i != 7)
            close(anna[i]);
}

/* All that show the token on TCP are one. */
static void too_many_known(void)
{
    int fd[OWN];
    uint8_t b[128];
    for (unsigned i = 0; i < OWN; i++)
        fd[i] = peer(&r, false);
    int more = dial_tcp(&r);
    send_bytes(more, b, hello_bytes(&r, b, true));
    is_turned_away(more, "one user has as many");
    atomic_store(user, ANNA);
    int anna = peer(&r, true);
    is_served(anna);
    close(anna);
    for (unsigned i = 0; i < OWN; i++) {
        is_served(fd[i]);
        close(fd[i]);
    }
}

/* And all that have not yet. */
static void too_many_strangers(void)
{
    enum { N = OWN + MOST / 8 };
    int fd[N];
    struct pollfd any[N];
    uint8_t b[128];
    for (unsigned i = 0; i < N; i++) {
        fd[i] = dial_tcp(&r);
        any[i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
    }
    /* Which of them came first is for the workers to say. */
    for (unsigned away = 0; away < N - OWN;) {
        assert_true(poll(any, N, -1) > 0);
        for (unsigned i = 0; i < N; i++) {
            if (any[i].fd < 0 || !any[i].revents)
                continue;
            is_turned_away(fd[i], "not shown the token");
            any[i].fd = fd[i] = -1;
            away++;
        }
    }
    int mine = peer(&r, true);
    is_served(mine);
    close(mine);
    for (unsigned i = 0; i < N; i++) {
        if (fd[i] < 0)
            continue;
        send_bytes(fd[i], b, hello_bytes(&r, b, true));
        assert_true(is_welcome(fd[i]));
        close(fd[i]);
    }
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

static pid_t start_peers(void (*peers)(void), int go)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    /* A failure in here ends this process: it must not go on with the tests of the one it left. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (peers)
        peers();
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
    ends_well(start_peers(too_many, -1));
    until(nobody_is_there, &r);
    server_stat(r.server, &st);
    assert_in_range(st.refused, SOME, UINT64_MAX);
    assert_in_range(st.accepted, MOST + 1, UINT64_MAX);
    /* Each worker may have somebody who is not counted yet. */
    assert_in_range(atomic_load(&reads), 1, READS * (st.refused + r.workers));
}

static bool has_nothing(void *tenant)
{
    struct tenant *t = tenant;
    return atomic_load(&t->open) == 0 && atomic_load(&t->channels) == 0 &&
           atomic_load(&t->text) == 0;
}

/* Of those that were refused, too, nothing stays counted. */
static void nothing_stays(void (*peers)(void))
{
    const uint32_t who[] = {ANNA, BERT, geteuid(), STRANGER};
    ends_well(start_peers(peers, -1));
    until(nobody_is_there, &r);
    for (unsigned i = 0; i < sizeof(who) / sizeof(who[0]); i++) {
        struct tenant *t = staging_tenant(r.server->staging, who[i]);
        until(has_nothing, t);
        staging_leave(r.server->staging, t);
    }
}

static void each_its_share(void **state)
{
    (void)state;
    nothing_stays(too_many_of_one);
    nothing_stays(too_many_known);
    nothing_stays(too_many_strangers);
}

/* What they have otherwise, too: channels, and answers that wait for them. */
static void of_other_things(void **state)
{
    (void)state;
    uint8_t b[256];
    char *text = NULL;
    struct got g;
    atomic_store(user, ANNA);
    int anna = peer(&r, true);
    atomic_store(user, BERT);
    int bert = peer(&r, true);
    atomic_store(user, 0);
    int own = peer(&r, true);
    assert_int_equal(admin(own, WIRE_V_CREATE, "topic", NULL, 0, 0, 0, NULL, NULL), 0);
    struct tenant *t = staging_tenant(r.server->staging, ANNA);
    const uint32_t channels = SERVER_CHANNELS - SERVER_CHANNELS / 8,
                   texts = SERVER_TEXT - SERVER_TEXT / 8;
    atomic_fetch_add(&t->channels, channels - 1);
    (void)subscribe(anna, "topic", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
    send_bytes(anna, b, subscribe_bytes(b, "topic", 2, WIRE_FROM_EARLIEST, 0, 0, 1));
    assert_int_equal(expect_error(anna), EMBAR_ELIMIT);
    (void)subscribe(bert, "topic", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
    send_frame(anna, WIRE_CANCEL, 1, 9, NULL, 0);
    expect(anna, WIRE_OK, &g);
    got_free(&g);
    (void)subscribe(anna, "topic", 2, WIRE_FROM_EARLIEST, 0, 0, 1);
    atomic_fetch_sub(&t->channels, channels - 1);
    assert_int_equal(atomic_load(&t->channels), 1);
    atomic_fetch_add(&t->text, texts - 10);
    assert_int_equal(admin(anna, WIRE_V_LIST, "", NULL, 0, 0, 0, NULL, NULL), EMBAR_ELIMIT);
    assert_int_equal(admin(bert, WIRE_V_LIST, "", NULL, 0, 0, 0, NULL, &text), 0);
    assert_non_null(strstr(text, "topic"));
    free(text);
    atomic_fetch_sub(&t->text, texts - 10);
    assert_int_equal(admin(anna, WIRE_V_LIST, "", NULL, 0, 0, 0, NULL, &text), 0);
    free(text);
    close(anna);
    close(bert);
    close(own);
    until(has_nothing, t);
    staging_leave(r.server->staging, t);
}

static void until_there_are_some(void **state)
{
    (void)state;
    enum { TAKEN = FILES };
    int taken[TAKEN], go[2];
    unsigned n = 0, left = 30;
    char x;
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    pid_t child = start_peers(NULL, go[1]);
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
    atomic_store(user, 0);
    rig_start(&r);
    return 0;
}

/* Nobody has too little time to say who it is. */
static int setup_timeless(void **state)
{
    r.tick_ms = 600000;
    return setup(state);
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
        cmocka_unit_test_setup_teardown(told_so, setup, teardown),
        cmocka_unit_test_setup_teardown(until_there_are_some, setup, teardown),
        cmocka_unit_test_setup_teardown(each_its_share, setup_timeless, teardown),
        cmocka_unit_test_setup_teardown(of_other_things, setup_timeless, teardown),
    };
    user = mmap(NULL, sizeof(*user), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (user == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests_name("server full", tests, NULL, NULL);
}
