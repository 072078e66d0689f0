/* Peers that misbehave, and who may do what: each gets a code and a sentence, and the server goes on
 * as if nothing had been.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc.h"
#include "tests/unit/server/rig.h"

static struct rig r;

static struct {
    pthread_mutex_t lock;
    unsigned count;
    char text[400];
} noted = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(void *arg, const char *text)
{
    (void)arg;
    pthread_mutex_lock(&noted.lock);
    noted.count++;
    snprintf(noted.text, sizeof(noted.text), "%s", text);
    pthread_mutex_unlock(&noted.lock);
}

static int setup(void **state)
{
    (void)state;
    r.note = note;
    rig_start(&r);
    return 0;
}

/* After each: the server still serves, and nothing of what was refused is stored. */
static int teardown(void **state)
{
    (void)state;
    int fd = peer(&r, true);
    open_topic(fd, "sound", 1, WIRE_S_NONE, 0);
    publish(fd, 1, 1, 0, "sound", 5, NULL, 1);
    await_ack(fd, 1, 1);
    close(fd);
    struct stream s = read_topic(&r, "sound");
    int rc = s.size == 5 && memcmp(s.buf, "sound", 5) == 0 ? 0 : -1;
    free(s.buf);
    struct node_stat st;
    if (log_resolve(r.log, "t", &st) == 0 && st.end != 0)
        rc = -1;
    rig_stop(&r);
    return rc;
}

static int refused_hello(size_t at, uint8_t with, bool tcp)
{
    uint8_t b[128];
    size_t n = hello_bytes(&r, b, tcp);
    b[at] = with;
    int fd = tcp ? dial_tcp(&r) : dial_unix(&r);
    send_bytes(fd, b, n);
    return expect_refusal(fd);
}

static void hello(void **state)
{
    (void)state;
    uint8_t b[128];
    assert_int_equal(refused_hello(16, 'X', true), EMBAR_EPROTO); /* magic */
    assert_int_equal(refused_hello(20, 0, true), EMBAR_EVERSION); /* version 0 */
    assert_int_equal(refused_hello(20, 1, true), EMBAR_EVERSION); /* and 1 */
    assert_int_equal(refused_hello(20, 2, true), EMBAR_EVERSION); /* and 2 */
    assert_int_equal(refused_hello(22, 9, true), EMBAR_EVERSION); /* oldest 9 */
    assert_int_equal(refused_hello(24, 1, true), EMBAR_EPROTO);   /* features */
    assert_int_equal(refused_hello(28, 31, true), EMBAR_EPROTO);  /* token length */
    assert_int_equal(refused_hello(32, 99, true), EMBAR_EINCARNATION);
    assert_int_equal(refused_hello(40, 99, true), EMBAR_EINCARNATION); /* uuid */
    for (unsigned i = 0; i < WIRE_TOKEN; i++)
        assert_int_equal(refused_hello(56 + i, (uint8_t)~r.token[i], true), EMBAR_EAUTH);
    int fd = dial_tcp(&r);
    send_bytes(fd, b, hello_bytes(&r, b, false)); /* no token over TCP */
    assert_int_equal(expect_refusal(fd), EMBAR_EAUTH);
    fd = dial_tcp(&r);
    send_bytes(fd, "GET / HTTP/1.1\r\n", 16);
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    fd = dial_tcp(&r);
    send_frame(fd, WIRE_PING, 0, 1, NULL, 0); /* before HELLO */
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    fd = peer(&r, false);
    send_bytes(fd, b, hello_bytes(&r, b, true)); /* twice */
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
}

static void frames(void **state)
{
    (void)state;
    struct wire_frame f;
    int fd = peer(&r, true);
    send_frame(fd, 99, 0, 1, NULL, 0);
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    fd = peer(&r, true);
    f = wire_frame_of(WIRE_ADMIN, 0, 0, 1, UINT32_MAX);
    send_bytes(fd, &f, sizeof(f));
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    fd = peer(&r, true);
    f = wire_frame_of(WIRE_PING, 0x40, 0, 1, 0);
    send_bytes(fd, &f, sizeof(f));
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    static const uint8_t types[] = {WIRE_OPEN,  WIRE_CLOSE, WIRE_SUBSCRIBE,
                                    WIRE_ADMIN, WIRE_PING,  WIRE_CANCEL};
    for (unsigned i = 0; i < sizeof(types); i++) { /* bodies of the wrong size */
        fd = peer(&r, true);
        send_frame(fd, types[i], 1, 1, "xyz", 3);
        assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    }
    /* Strings that do not fill their frame. */
    uint8_t b[256];
    size_t n = open_bytes(b, "topic", 1, WIRE_S_NONE, 0, 1);
    b[16 + 16] = 200;
    fd = peer(&r, true);
    send_bytes(fd, b, n);
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
    n = subscribe_bytes(b, "topic", 1, 0, 0, 0, 0);
    b[16 + 18] = 4;
    fd = peer(&r, true);
    send_bytes(fd, b, n);
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO);
}

enum field { COUNT, PAYLOAD, LENGTH, PAYLOAD_CRC, LENGTHS_CRC, CRC, SUM, SEQUENCE, CHANNEL };

static int refused_batch(enum field what, uint32_t value)
{
    uint8_t data[100];
    uint32_t lengths[2] = {40, 60};
    fill(data, sizeof(data), 1);
    int fd = peer(&r, what % 2);
    open_topic(fd, "t", 1, WIRE_S_NONE, 0);
    if (what == SUM)
        lengths[1] = value;
    struct batch_bytes b = batch_make(what == CHANNEL ? 2 : 1, what == SEQUENCE ? value : 1, 0,
                                      data, sizeof(data), lengths, 2);
    struct wire_publish p;
    struct wire_frame f;
    memcpy(&f, b.p, sizeof(f));
    memcpy(&p, b.p + 16, sizeof(p));
    switch (what) {
    case COUNT: p.count = le32_of(value); break;
    case PAYLOAD: p.payload = le32_of(value); break;
    case LENGTH: f.length = le32_of(value); break;
    case PAYLOAD_CRC: p.payload_crc = le32_of(value); break;
    case LENGTHS_CRC: p.lengths_crc = le32_of(value); break;
    default: break;
    }
    memcpy(b.p, &f, sizeof(f));
    memcpy(b.p + 16, &p, sizeof(p));
    batch_seal(&b);
    if (what == CRC)
        b.p[16 + 28] ^= 1;
    send_bytes(fd, b.p, b.n);
    free(b.p);
    return expect_refusal(fd);
}

static void batches(void **state)
{
    (void)state;
    assert_int_equal(refused_batch(COUNT, 0), EMBAR_EINVALID);
    assert_int_equal(refused_batch(COUNT, 3), EMBAR_EPROTO);
    assert_int_equal(refused_batch(COUNT, 65537), EMBAR_ETOOBIG);
    assert_int_equal(refused_batch(COUNT, UINT32_MAX), EMBAR_ETOOBIG);
    assert_int_equal(refused_batch(PAYLOAD, 0), EMBAR_EINVALID);
    assert_int_equal(refused_batch(PAYLOAD, 99), EMBAR_EPROTO);
    assert_int_equal(refused_batch(PAYLOAD, UINT32_MAX), EMBAR_ETOOBIG);
    assert_int_equal(refused_batch(LENGTH, 0), EMBAR_EPROTO);
    assert_int_equal(refused_batch(LENGTH, UINT32_MAX), EMBAR_EPROTO);
    assert_int_equal(refused_batch(PAYLOAD_CRC, 1), EMBAR_ECRC);
    assert_int_equal(refused_batch(LENGTHS_CRC, 1), EMBAR_ECRC);
    assert_int_equal(refused_batch(CRC, 0), EMBAR_ECRC);
    assert_int_equal(refused_batch(SUM, 59), EMBAR_EPROTO);
    assert_int_equal(refused_batch(SUM, UINT32_MAX - 39), EMBAR_EPROTO);
    assert_int_equal(refused_batch(SEQUENCE, 0), EMBAR_EINVALID);
    assert_int_equal(refused_batch(SEQUENCE, 2), EMBAR_EPROTO);
    assert_int_equal(refused_batch(CHANNEL, 0), EMBAR_EPROTO);
}

/* The checksum behind the payload: wrong, there twice, left out, cut off. */
static int refused_sum(size_t flip, bool both, int longer)
{
    uint8_t data[100];
    fill(data, sizeof(data), 1);
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    struct batch_bytes b = batch_make(1, 1, le32_get(o.epoch), data, sizeof(data), NULL, 1);
    struct wire_frame f;
    batch_sum_behind(&b);
    memcpy(&f, b.p, sizeof(f));
    f.length = le32_of((uint32_t)((int)le32_get(f.length) + longer));
    memcpy(b.p, &f, sizeof(f));
    if (both)
        b.p[16 + offsetof(struct wire_publish, payload_crc)] = 1;
    batch_seal(&b);
    b.p[flip / 8] ^= (uint8_t)(1u << flip % 8);
    send_bytes(fd, b.p, b.n);
    free(b.p);
    return expect_refusal(fd);
}

static void sums(void **state)
{
    (void)state;
    for (size_t bit = 0; bit < 32; bit++)
        assert_int_equal(refused_sum(8 * (64 + 100) + bit, false, 0), EMBAR_ECRC);
    assert_int_equal(refused_sum(8 * (64 + 50), false, 0), EMBAR_ECRC); /* the payload */
    assert_int_equal(refused_sum(8 * 5 + 2, false, 0), EMBAR_ECRC);     /* the flag itself */
    assert_int_equal(refused_sum(8 * 64, true, 0), EMBAR_EPROTO);
    assert_int_equal(refused_sum(8 * 64, false, -4), EMBAR_EPROTO);
    assert_int_equal(refused_sum(8 * 64, false, 4), EMBAR_EPROTO);
    assert_int_equal(refused_sum(8 * 64, false, -1), EMBAR_EPROTO);
}

static void far_early(void **state)
{
    (void)state;
    struct got g;
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    publish(fd, 1, WIRE_WINDOW + 1, le32_get(o.epoch), "early", 5, NULL, 1);
    assert_int_equal(expect_error(fd), EMBAR_ELIMIT);
    publish(fd, 1, 1, le32_get(o.epoch), "late", 4, NULL, 1); /* the channel is broken: dropped */
    send_frame(fd, WIRE_PING, 0, 3, NULL, 0);                 /* the connection lives */
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    close(fd);
}

static void channels(void **state)
{
    (void)state;
    uint8_t b[256];
    int fd = peer(&r, true);
    open_topic(fd, "t", 1, WIRE_S_NONE, 0);
    send_bytes(fd, b, open_bytes(b, "t", 1, WIRE_S_NONE, 0, 1));
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO); /* in use */
    fd = peer(&r, true);
    send_bytes(fd, b, open_bytes(b, "t", 0, WIRE_S_NONE, 0, 1));
    assert_int_equal(expect_refusal(fd), EMBAR_EPROTO); /* no channel */
    fd = peer(&r, true);
    send_bytes(fd, b, open_bytes(b, "t", 1, WIRE_S_RESUME, 12345, 1));
    assert_int_equal(expect_error(fd), EMBAR_ESESSION);
    static const char *const names[] = {"a//b", "a/", "..", "a/../b", ".", "a\nb", ""};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        send_bytes(fd, b, open_bytes(b, names[i], 1, WIRE_S_NONE, 0, 1));
        assert_int_equal(expect_error(fd), EMBAR_ENAME);
    }
    send_bytes(fd, b, open_bytes(b, ".embar/x", 1, WIRE_S_NONE, 0, 1));
    assert_int_equal(expect_error(fd), EMBAR_ERESERVED);
    open_topic(fd, "file", 1, WIRE_S_NONE, 0);
    send_bytes(fd, b, open_bytes(b, "file/x", 2, WIRE_S_NONE, 0, 1));
    assert_int_equal(expect_error(fd), ENOTDIR);
    close(fd);
}

/* Many asks at once, whose answers are not read until later: all are answered, in order. */
static void pipelined(void **state)
{
    (void)state;
    enum { N = 20000 };
    int fd = peer(&r, false);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (uint64_t i = 1; i <= N; i++)
            send_frame(fd, WIRE_PING, 0, i, NULL, 0);
        _exit(0);
    }
    struct timespec nap = {.tv_nsec = 50000000};
    nanosleep(&nap, NULL);
    for (uint64_t i = 1; i <= N; i++) {
        struct got g;
        expect(fd, WIRE_OK, &g);
        assert_int_equal(le64_get(g.f.ref), i);
        got_free(&g);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    close(fd);
}

static bool nothing_reserved(void *arg)
{
    struct log_stat st;
    (void)arg;
    log_stat_all(r.log, &st);
    return st.reserved == 0;
}

/* Who sends no handshake is sent away; who stops amid a batch that holds pool space loses that. */
static void too_slow(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    uint8_t *data = calloc(1, SIZE);
    int mute = dial_tcp(&r), stuck = peer(&r, false);
    open_topic(stuck, "late", 1, WIRE_S_NONE, 0);
    struct batch_bytes b = batch_make(1, 1, 0, data, SIZE, NULL, 1);
    send_bytes(stuck, b.p, 100000);
    until(nothing_reserved, NULL);
    send_bytes(stuck, b.p + 100000, b.n - 100000);
    await_ack(stuck, 1, 1);
    close(stuck);
    assert_int_equal(expect_refusal(mute), ETIMEDOUT);
    free(b.p);
    free(data);
}

/* ---- No descriptors left --------------------------------------------------------------------- */

enum { SPARE = 12 };

/* In a process of its own, which has descriptors: the server takes SPARE connections at most. */
static int crowd(const struct rlimit *all)
{
    int in[SPARE / 2], waiting[SPARE];
    uint8_t b[128];
    if (setrlimit(RLIMIT_NOFILE, all))
        return 1;
    for (unsigned i = 0; i < SPARE / 2; i++)
        in[i] = peer(&r, false);
    size_t n = hello_bytes(&r, b, true);
    for (unsigned i = 0; i < SPARE; i++) {
        waiting[i] = dial_tcp(&r);
        send_bytes(waiting[i], b, n);
    }
    /* Who is in is served. */
    open_topic(in[0], "crowded", 1, WIRE_S_NONE, 0);
    publish(in[0], 1, 1, 0, "served", 6, NULL, 1);
    await_ack(in[0], 1, 1);
    for (unsigned i = 0; i < SPARE / 2; i++)
        close(in[i]);
    /* And who waited comes in, as soon as others have left. */
    for (unsigned i = 0; i < SPARE; i++) {
        struct got g;
        expect(waiting[i], WIRE_HELLO, &g);
        got_free(&g);
        close(waiting[i]);
    }
    return 0;
}

/* Who waits is counted each time, and said once in a while. */
static void is_noted(time_t since)
{
    struct server_stat st;
    server_stat(r.server, &st);
    assert_true(st.put_off > 0);
    pthread_mutex_lock(&noted.lock);
    assert_in_range(noted.count, 1, 1 + (time(NULL) - since) / 60);
    assert_non_null(strstr(noted.text, "LimitNOFILE"));
    pthread_mutex_unlock(&noted.lock);
}

static void no_descriptors(void **state)
{
    (void)state;
    struct rlimit all, few;
    time_t since = time(NULL);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    int lowest = dup(0);
    assert_true(lowest >= 0);
    close(lowest);
    few = all;
    few.rlim_cur = (rlim_t)lowest + SPARE;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(crowd(&all));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_int_equal(status, 0);
    is_noted(since);
}

/* Descriptors that come with bytes are not taken, and who sends them is not served: a receive ends
 * behind them, so that what follows would have to be looked for. */
static void passed_descriptors(void **state)
{
    (void)state;
    struct wire_frame f = wire_frame_of(WIRE_PING, 0, 0, 7, 0);
    struct iovec iov = {&f, sizeof(f)};
    int fd = peer(&r, true), ends[2];
    assert_int_equal(pipe(ends), 0);
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr first;
    } control = {.first = {.cmsg_len = CMSG_LEN(sizeof(int)),
                           .cmsg_level = SOL_SOCKET,
                           .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.first), &ends[1], sizeof(int));
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    assert_int_equal(sendmsg(fd, &m, 0), sizeof(f));
    close(ends[1]);
    struct got g;
    char byte;
    assert_false(receive(fd, &g));
    assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody holds the other end */
    close(ends[0]);
    close(fd);
}

/* ---- Another user ---------------------------------------------------------------------------- */

/* Runs f as uid 65534, and in these groups, too, with a connection over the Unix socket. */
static void as_nobody(int (*f)(int fd), size_t n, const gid_t *groups)
{
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(r.dir, 0711), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (setgroups(n, groups) || setgid(65534) || setuid(65534))
            _exit(99);
        _exit(f(peer(&r, true)));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int fails(int fd, const void *b, size_t n)
{
    send_bytes(fd, b, n);
    return expect_error(fd);
}

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "line %d: %s\n", __LINE__, #x);                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static int nobody(int fd)
{
    uint8_t b[256];
    CHECK(fails(fd, b, open_bytes(b, "mine", 1, WIRE_S_NONE, 0, 1)) == EACCES);
    CHECK(fails(fd, b, open_bytes(b, "dir/new", 1, WIRE_S_NONE, 0, 1)) == EACCES);
    CHECK(fails(fd, b, open_bytes(b, "readable", 1, WIRE_S_NONE, 0, 1)) == EACCES);
    CHECK(fails(fd, b, subscribe_bytes(b, "secret", 1, 0, 0, 0, 0)) == EACCES);
    CHECK(fails(fd, b, subscribe_bytes(b, "closed/t", 1, 0, 0, 0, 0)) == EACCES);
    subscribe(fd, "readable", 1, 0, 0, 0, 1);
    CHECK(admin(fd, WIRE_V_REMOVE, "readable", NULL, 0, 0, 0, NULL, NULL) == EACCES);
    CHECK(admin(fd, WIRE_V_RENAME, "readable", "open/x", 0, 0, 0, NULL, NULL) == EACCES);
    CHECK(admin(fd, WIRE_V_TRIM, "readable", NULL, WIRE_FROM_LATEST, 0, 0, NULL, NULL) == EACCES);
    open_topic(fd, "open/theirs", 2, WIRE_S_NEW, 0);
    publish(fd, 2, 1, 1, "theirs", 6, NULL, 1);
    await_ack(fd, 2, 1);
    /* A sticky directory: what is one's own, and nothing else, goes or is replaced. */
    CHECK(admin(fd, WIRE_V_CREATE, "sticky/own", NULL, 0, 0, 0, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_REMOVE, "sticky/roots", NULL, 0, 0, 0, NULL, NULL) == EPERM);
    CHECK(admin(fd, WIRE_V_RENAME, "sticky/roots", "open/x", 0, 0, 0, NULL, NULL) == EPERM);
    CHECK(admin(fd, WIRE_V_RENAME, "sticky/own", "sticky/roots", 0, 0, 0, NULL, NULL) == EPERM);
    CHECK(admin(fd, WIRE_V_RENAME, "sticky/own", "sticky/mine", 0, 0, 0, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_REMOVE, "sticky/mine", NULL, 0, 0, 0, NULL, NULL) == 0);
    /* A directory that gets another parent is changed itself; in place it is not. */
    CHECK(admin(fd, WIRE_V_RENAME, "open/roots", "open/sub/x", 0, 0, 0, NULL, NULL) == EACCES);
    CHECK(admin(fd, WIRE_V_RENAME, "open/roots", "open/still", 0, 0, 0, NULL, NULL) == 0);
    /* Settings take write, a mode its owner, who need not be able to write. */
    CHECK(admin(fd, WIRE_V_ATTR, "readable", NULL, 0, 9, MEDIA_A_BYTES, NULL, NULL) == EACCES);
    CHECK(admin(fd, WIRE_V_ATTR, "open/everyones", NULL, 0, 9, MEDIA_A_BYTES, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_ATTR, "open/everyones", NULL, 0, 0, MEDIA_A_MODE, NULL, NULL) == EPERM);
    CHECK(admin(fd, WIRE_V_ATTR, "open/theirs", NULL, 0, 0, MEDIA_A_MODE, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_ATTR, "open/theirs", NULL, 0, 9, MEDIA_A_BYTES, NULL, NULL) == EACCES);
    CHECK(admin(fd, WIRE_V_ATTR, "open/theirs", NULL, 0, 0, MEDIA_A_MODE, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_LIST, "closed", NULL, 0, 0, 0, NULL, NULL) == EACCES);
    CHECK(admin(fd, WIRE_V_CREATE, "readonly/x", NULL, 0, 0, 0, NULL, NULL) == EACCES);
    /* The group of a directory that hands it down, though it is not the maker's. */
    CHECK(admin(fd, WIRE_V_CREATE, "group/t", NULL, 0, 0, 0, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_MKDIR, "group/d", NULL, 0, 0, 0, NULL, NULL) == 0);
    return 0;
}

/* Through the log itself: the protocol has no chown. */
static uint32_t own(enum media_control_kind kind, uint32_t parent, const char *name, uint32_t mode,
                    uint32_t gid)
{
    struct control c = {
        .kind = kind, .parent = parent, .mode = mode, .gid = gid, .order = 5, .ack = 1};
    struct commit commit;
    snprintf(c.name, sizeof c.name, "%s", name);
    assert_int_equal(log_control_wait(r.log, &c, &commit), 0);
    return commit.id;
}

static void permissions(void **state)
{
    (void)state;
    int fd = peer(&r, true);
    assert_int_equal(admin(fd, WIRE_V_CREATE, "readable", NULL, 0, 0, 0, NULL, NULL), 0);
    assert_int_equal(admin(fd, WIRE_V_MKDIR, "dir", NULL, 0, 0, 0, NULL, NULL), 0);
    struct wire_admin a = {.verb = WIRE_V_CREATE, .order = WIRE_ANY, .ack = WIRE_ANY};
    struct {
        const char *path;
        uint8_t verb;
        uint32_t mode;
    } made[] = {{"secret", WIRE_V_CREATE, 0600},
                {"closed", WIRE_V_MKDIR, 0700},
                {"open", WIRE_V_MKDIR, 0777}};
    for (unsigned i = 0; i < 3; i++) {
        uint8_t b[64];
        struct got g;
        a.verb = made[i].verb;
        a.mode = le32_of(made[i].mode);
        a.path = le16_of((uint16_t)strlen(made[i].path));
        memcpy(b, &a, sizeof(a));
        memcpy(b + sizeof(a), made[i].path, strlen(made[i].path));
        send_frame(fd, WIRE_ADMIN, 0, 4, b, sizeof(a) + strlen(made[i].path));
        expect(fd, WIRE_OK, &g);
        got_free(&g);
    }
    assert_int_equal(admin(fd, WIRE_V_CREATE, "closed/t", NULL, 0, 0, 0, NULL, NULL), 0);
    struct node_stat st;
    assert_int_equal(log_resolve(r.log, "open", &st), 0);
    own(MEDIA_C_MKDIR, st.id, "roots", 0755, 0);
    own(MEDIA_C_MKDIR, st.id, "sub", 0777, 0);
    own(MEDIA_C_CREATE, st.id, "everyones", 0666, 0);
    own(MEDIA_C_CREATE, own(MEDIA_C_MKDIR, LOG_ROOT_ID, "sticky", 01777, 0), "roots", 0666, 0);
    own(MEDIA_C_MKDIR, LOG_ROOT_ID, "readonly", 0755, 0);
    own(MEDIA_C_MKDIR, LOG_ROOT_ID, "group", 02777, 77);
    as_nobody(nobody, 0, NULL);
    assert_int_equal(log_resolve(r.log, "sticky/roots", &st), 0);
    assert_int_equal(log_resolve(r.log, "open/still", &st), 0);
    assert_int_equal(log_resolve(r.log, "group/t", &st), 0);
    assert_int_equal(st.gid, 77);
    assert_int_equal(st.mode, S_IFREG | 0644);
    assert_int_equal(log_resolve(r.log, "group/d", &st), 0);
    assert_int_equal(st.gid, 77);
    assert_int_equal(st.mode, S_IFDIR | 02755);
    assert_int_equal(log_resolve(r.log, "open/theirs", &st), 0);
    assert_int_equal(st.uid, 65534);
    assert_int_equal(log_resolve(r.log, "mine", &st), -ENOENT);
    /* Their session is not ours to resume, whoever we are. */
    uint8_t b[256];
    struct session_stat ss;
    uint64_t id = 0;
    for (uint64_t i = 1; i < 200 && !id; i++)
        if (log_session(r.log, i, &ss) == 0)
            id = i;
    assert_true(id > 0);
    assert_int_equal(ss.principal, 65534);
    assert_int_equal(fails(fd, b, open_bytes(b, "open/theirs", 1, WIRE_S_RESUME, id, 1)),
                     EMBAR_EAUTH);
    close(fd);
}

static int one_of_the_group(int fd)
{
    uint8_t b[256];
    CHECK(admin(fd, WIRE_V_ATTR, "groups", NULL, 0, 9, MEDIA_A_BYTES, NULL, NULL) == 0);
    CHECK(admin(fd, WIRE_V_ATTR, "others", NULL, 0, 9, MEDIA_A_BYTES, NULL, NULL) == EACCES);
    CHECK(fails(fd, b, open_bytes(b, "others", 1, WIRE_S_NONE, 0, 1)) == EACCES);
    return 0;
}

/* Whoever is in very many groups is in each of them. */
static void many_groups(void **state)
{
    (void)state;
    enum { FIRST = 60000, GROUPS = 3000 };
    gid_t groups[GROUPS];
    for (unsigned i = 0; i < GROUPS; i++)
        groups[i] = FIRST + i;
    own(MEDIA_C_CREATE, LOG_ROOT_ID, "groups", 0060, FIRST + GROUPS - 1);
    own(MEDIA_C_CREATE, LOG_ROOT_ID, "others", 0060, FIRST + GROUPS);
    as_nobody(one_of_the_group, GROUPS, groups);
}

/* The server's end of a connection: it is in this process, too. */
static int end_of_server(int fd)
{
    struct sockaddr_storage mine, theirs;
    socklen_t n = sizeof(mine);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&mine, &n), 0);
    for (int other = 0; other < 1024; other++) {
        socklen_t m = sizeof(theirs);
        if (getpeername(other, (struct sockaddr *)&theirs, &m) == 0 && m == n &&
            memcmp(&mine, &theirs, n) == 0)
            return other;
    }
    fail_msg("the server has no such connection");
    return -1;
}

static void machine_gone(void **state)
{
    (void)state;
    int fd = peer(&r, false), on = 0;
    int end = end_of_server(fd);
    socklen_t n = sizeof(on);
    assert_int_equal(getsockopt(end, SOL_SOCKET, SO_KEEPALIVE, &on, &n), 0);
    assert_int_equal(on, 1);
    int idle = 0;
    assert_int_equal(getsockopt(end, IPPROTO_TCP, TCP_KEEPIDLE, &idle, &n), 0);
    assert_true(idle <= 60);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hello, setup, teardown),
        cmocka_unit_test_setup_teardown(frames, setup, teardown),
        cmocka_unit_test_setup_teardown(batches, setup, teardown),
        cmocka_unit_test_setup_teardown(sums, setup, teardown),
        cmocka_unit_test_setup_teardown(far_early, setup, teardown),
        cmocka_unit_test_setup_teardown(channels, setup, teardown),
        cmocka_unit_test_setup_teardown(pipelined, setup, teardown),
        cmocka_unit_test_setup_teardown(too_slow, setup, teardown),
        cmocka_unit_test_setup_teardown(no_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(passed_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(many_groups, setup, teardown),
        cmocka_unit_test_setup_teardown(machine_gone, setup, teardown),
    };
    return cmocka_run_group_tests_name("server peer", tests, NULL, NULL);
}
