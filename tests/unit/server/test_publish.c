/* Publishing over the network: content, splits, duplicates, several connections of a session,
 * connections that are cut. What a topic holds is compared byte by byte, by subscribing to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

static void topic_is(const struct rig *r, const char *path, const void *data, size_t n)
{
    struct stream s = read_topic(r, path);
    assert_int_equal(s.size, n);
    assert_memory_equal(s.buf, data, n);
    free(s.buf);
}

static void roundtrip(const struct rig *r, bool local)
{
    const char *topic = local ? "a/b/local" : "a/b/tcp";
    enum { N = 40 };
    uint32_t sizes[N];
    size_t total = 0;
    for (unsigned i = 0; i < N; i++)
        total += sizes[i] = i < 30 ? 1 + i * 577 : 100000 + i * 7919;
    uint8_t *all = malloc(total);
    fill(all, total, 5);
    int fd = peer(r, local);
    struct wire_opened o = open_topic(fd, topic, 7, WIRE_S_NEW, 0);
    assert_true(le64_get(o.session) > 0);
    assert_int_equal(o.order, 5);
    size_t at = 0;
    uint64_t messages = 0;
    for (unsigned i = 0; i < N; i++) {
        uint32_t lengths[3] = {sizes[i] / 2, 0, sizes[i] - sizes[i] / 2};
        bool three = i % 2 && sizes[i] >= 3;
        struct batch_bytes b = batch_make(7, i + 1, le32_get(o.epoch), all + at, sizes[i],
                                          three ? lengths : NULL, three ? 3 : 1);
        if (i % 3)
            batch_sum_behind(&b);
        send_bytes(fd, b.p, b.n);
        free(b.p);
        messages += three ? 3 : 1;
        at += sizes[i];
    }
    struct wire_ack a = await_ack(fd, 7, N);
    assert_int_equal(le64_get(a.messages), messages);
    assert_int_equal(le64_get(a.offset), total);
    topic_is(r, topic, all, total);
    close(fd);
    free(all);
}

static void content(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    roundtrip(&r, false);
    roundtrip(&r, true);
    rig_stop(&r);
}

/* HELLO, OPEN and two batches, cut in two at every byte. */
static void every_split(void **state)
{
    (void)state;
    struct rig r = {.workers = 1};
    rig_start(&r);
    uint8_t b[1024], data[90];
    uint32_t lengths[4] = {10, 0, 25, 5};
    fill(data, sizeof(data), 3);
    size_t n = hello_bytes(&r, b, true);
    n += open_bytes(b + n, "split", 3, WIRE_S_NONE, 0, 1);
    struct batch_bytes one = batch_make(3, 1, 0, data, 40, lengths, 4);
    struct batch_bytes two = batch_make(3, 2, 0, data + 40, 50, NULL, 5);
    batch_sum_behind(&one);
    memcpy(b + n, one.p, one.n);
    n += one.n;
    memcpy(b + n, two.p, two.n);
    n += two.n;
    for (size_t cut = 1; cut < n; cut++) {
        struct got g;
        int fd = cut % 2 ? dial_unix(&r) : dial_tcp(&r);
        send_bytes(fd, b, cut);
        /* Let it be read on its own, as often as not. */
        struct server_stat st;
        server_stat(r.server, &st);
        send_bytes(fd, b + cut, n - cut);
        expect(fd, WIRE_HELLO, &g);
        got_free(&g);
        expect(fd, WIRE_OPEN, &g);
        got_free(&g);
        await_ack(fd, 3, 2);
        close(fd);
    }
    struct stream s = read_topic(&r, "split");
    assert_int_equal(s.size, (n - 1) * sizeof(data));
    for (size_t i = 0; i < n - 1; i++)
        assert_memory_equal(s.buf + i * sizeof(data), data, sizeof(data));
    free(s.buf);
    free(one.p);
    free(two.p);
    rig_stop(&r);
}

/* One byte a send. */
static void byte_by_byte(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    uint8_t data[3000];
    fill(data, sizeof(data), 9);
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "slow", 1, WIRE_S_NEW, 0);
    struct batch_bytes b = batch_make(1, 1, le32_get(o.epoch), data, sizeof(data), NULL, 3);
    batch_sum_behind(&b);
    for (size_t i = 0; i < b.n; i++)
        send_bytes(fd, b.p + i, 1);
    await_ack(fd, 1, 1);
    topic_is(&r, "slow", data, sizeof(data));
    free(b.p);
    close(fd);
    rig_stop(&r);
}

static void duplicates(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    uint8_t data[4][70000];
    fill(data[0], sizeof(data), 1);
    int fd = peer(&r, false);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    uint32_t epoch = le32_get(o.epoch);
    for (unsigned i = 0; i < 3; i++)
        publish(fd, 1, i + 1, epoch, data[i], sizeof(data[i]), NULL, 7);
    await_ack(fd, 1, 3);
    /* Resent on the same connection: acked again, stored once. */
    publish(fd, 1, 2, epoch, data[1], sizeof(data[1]), NULL, 7);
    await_ack(fd, 1, 3);
    close(fd);
    /* Resent by a resumed session on another: the same, and it goes on. */
    fd = peer(&r, true);
    struct wire_opened again = join_session(fd, "t", 2, le64_get(o.session), epoch);
    assert_int_equal(le64_get(again.sequence), 3);
    assert_int_equal(le64_get(again.messages), 21);
    for (unsigned i = 0; i < 4; i++)
        publish(fd, 2, i + 1, epoch, data[i], sizeof(data[i]), NULL, 7);
    struct wire_ack a = await_ack(fd, 2, 4);
    assert_int_equal(le64_get(a.messages), 28);
    close(fd);
    topic_is(&r, "t", data, sizeof(data));
    struct server_stat st;
    server_stat(r.server, &st);
    assert_int_equal(st.duplicates, 4);
    assert_int_equal(st.batches, 4);
    rig_stop(&r);
}

/* A new process resumes while the old one's next batch is half sent: what it is told is the last
 * that the session will ever hold of the old one, whose batch must not take the new one's place. */
static void new_process_fences(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    int old = peer(&r, true), fd = peer(&r, true);
    struct wire_opened o = open_topic(old, "t", 1, WIRE_S_NEW, 0);
    publish(old, 1, 1, le32_get(o.epoch), "one", 3, NULL, 1);
    await_ack(old, 1, 1);
    struct batch_bytes b = batch_make(1, 2, le32_get(o.epoch), "old", 3, NULL, 1);
    send_bytes(old, b.p, b.n - 1);

    struct wire_opened n = open_topic(fd, "t", 1, WIRE_S_RESUME, le64_get(o.session));
    assert_int_equal(le64_get(n.sequence), 1);
    assert_int_equal(le64_get(n.messages), 1);
    assert_int_not_equal(le32_get(n.epoch), le32_get(o.epoch));
    send_bytes(old, b.p + b.n - 1, 1);
    assert_int_equal(expect_error(old), EMBAR_ETAKEN);
    publish(fd, 1, 2, le32_get(n.epoch), "new", 3, NULL, 1);
    await_ack(fd, 1, 2);
    topic_is(&r, "t", "onenew", 6);
    free(b.p);
    close(old);
    close(fd);
    rig_stop(&r);
}

/* Odd batches over one connection, even ones over another: one stream, in order. */
static void two_connections(void **state)
{
    (void)state;
    struct rig r = {.hold_ms = 20000};
    rig_start(&r);
    enum { N = 200, SIZE = 900 };
    uint8_t *data = malloc(N * SIZE);
    fill(data, N * SIZE, 8);
    int fd[2] = {peer(&r, false), peer(&r, true)};
    struct wire_opened o = open_topic(fd[0], "t", 1, WIRE_S_NEW, 0);
    join_session(fd[1], "t", 1, le64_get(o.session), le32_get(o.epoch));
    /* All even ones first: they are held. */
    for (unsigned i = 1; i < N; i += 2)
        publish(fd[1], 1, i + 1, le32_get(o.epoch), data + i * SIZE, SIZE, NULL, 1);
    for (unsigned i = 0; i < N; i += 2)
        publish(fd[0], 1, i + 1, le32_get(o.epoch), data + i * SIZE, SIZE, NULL, 1);
    await_ack(fd[0], 1, N - 1);
    await_ack(fd[1], 1, N);
    topic_is(&r, "t", data, N * SIZE);
    close(fd[0]);
    close(fd[1]);
    free(data);
    rig_stop(&r);
}

static bool nothing_reserved(void *arg)
{
    struct rig *r = arg;
    struct log_stat st;
    struct server_stat ss;
    log_stat_all(r->log, &st);
    server_stat(r->server, &ss);
    return st.reserved == 0 && ss.connections == 0;
}

/* Cut at every byte of a batch: nothing of it stays, its space is given back. */
static void cut_mid_batch(void **state)
{
    (void)state;
    struct rig r = {.workers = 1};
    rig_start(&r);
    uint8_t data[300];
    uint32_t lengths[2] = {100, 200};
    fill(data, sizeof(data), 4);
    struct batch_bytes b = batch_make(1, 1, 0, data, sizeof(data), lengths, 2);
    for (size_t cut = 0; cut < b.n; cut++) {
        int fd = peer(&r, cut % 2);
        open_topic(fd, "t", 1, WIRE_S_NONE, 0);
        send_bytes(fd, b.p, cut);
        close(fd);
    }
    until(nothing_reserved, &r);
    free(b.p);
    /* The same with a batch that has its place in the pool already. */
    enum { BIG = 300000 };
    uint8_t *big = malloc(BIG);
    fill(big, BIG, 6);
    b = batch_make(1, 1, 0, big, BIG, NULL, 1);
    for (size_t cut = 70000; cut < b.n; cut += 33333) {
        int fd = peer(&r, false);
        open_topic(fd, "t", 1, WIRE_S_NONE, 0);
        send_bytes(fd, b.p, cut);
        close(fd);
    }
    until(nothing_reserved, &r);
    int fd = peer(&r, false);
    open_topic(fd, "t", 1, WIRE_S_NONE, 0);
    send_bytes(fd, b.p, b.n);
    await_ack(fd, 1, 1);
    close(fd);
    topic_is(&r, "t", big, BIG);
    free(b.p);
    free(big);
    rig_stop(&r);
}

static bool is_waiting(void *arg)
{
    struct rig *r = arg;
    struct server_stat st;
    server_stat(r->server, &st);
    return st.waiting > 0;
}

/* More batches trickle in at once than there is staging for: those without wait, none is lost. With a
 * tick that never comes: they are told when some was given back. */
static void staging_at(unsigned tick_ms)
{
    enum { N = 100, SIZE = 20000, FIRST = 10000 };
    struct rig r = {.workers = 2, .staging = 2u << 20, .tick_ms = tick_ms};
    struct batch_bytes b[N];
    int fd[N];
    uint8_t data[SIZE];
    rig_start(&r);
    for (unsigned i = 0; i < N; i++) {
        char path[16];
        snprintf(path, sizeof(path), "t%u", i);
        fill(data, SIZE, i);
        b[i] = batch_make(1, 1, 0, data, SIZE, NULL, 1);
        fd[i] = peer(&r, i % 2);
        open_topic(fd[i], path, 1, WIRE_S_NONE, 0);
        send_bytes(fd[i], b[i].p, FIRST);
    }
    until(is_waiting, &r);
    for (unsigned i = 0; i < N; i++)
        send_bytes(fd[i], b[i].p + FIRST, b[i].n - FIRST);
    for (unsigned i = 0; i < N; i++) {
        char path[16];
        snprintf(path, sizeof(path), "t%u", i);
        await_ack(fd[i], 1, 1);
        fill(data, SIZE, i);
        topic_is(&r, path, data, SIZE);
        close(fd[i]);
        free(b[i].p);
    }
    struct server_stat st;
    server_stat(r.server, &st);
    assert_int_equal(st.waiting, 0);
    rig_stop(&r);
}

static void staging(void **state)
{
    (void)state;
    staging_at(1000);
    staging_at(3600000);
}

static void ack_levels(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    uint8_t b[256];
    struct got g;
    int fd = peer(&r, true);
    send_bytes(fd, b, open_bytes(b, "t", 1, WIRE_S_NONE, 0, 2));
    assert_int_equal(expect_error(fd), EMBAR_EACK);
    send_bytes(fd, b, open_bytes(b, "t", 1, WIRE_S_NONE, 0, 0));
    expect(fd, WIRE_OPEN, &g);
    got_free(&g);
    publish(fd, 1, 1, 0, "unacked", 7, NULL, 1);
    struct wire_close k = {0};
    send_frame(fd, WIRE_CLOSE, 1, 3, &k, sizeof(k));
    assert_true(receive(fd, &g)); /* no ACK comes before it */
    assert_int_equal(g.f.type, WIRE_OK);
    got_free(&g);
    topic_is(&r, "t", "unacked", 7);
    close(fd);
    rig_stop(&r);
}

static void forget(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    uint8_t b[256];
    struct got g;
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    publish(fd, 1, 1, le32_get(o.epoch), "x", 1, NULL, 1);
    struct wire_close k = {.forget = 1};
    send_frame(fd, WIRE_CLOSE, 1, 3, &k, sizeof(k));
    await_ack(fd, 1, 1);
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    send_bytes(fd, b, open_bytes(b, "t", 1, WIRE_S_RESUME, le64_get(o.session), 1));
    assert_int_equal(expect_error(fd), EMBAR_ESESSION);
    /* Of another topic: not this session either. */
    o = open_topic(fd, "u", 1, WIRE_S_NEW, 0);
    send_bytes(fd, b, open_bytes(b, "t", 2, WIRE_S_RESUME, le64_get(o.session), 1));
    assert_int_equal(expect_error(fd), EMBAR_ESESSION);
    close(fd);
    rig_stop(&r);
}

/* A gap that nobody fills fences the session; the publisher goes on above the mark. */
static void fenced(void **state)
{
    (void)state;
    struct rig r = {.hold_ms = 100};
    rig_start(&r);
    int fd = peer(&r, false);
    struct got g;
    struct wire_error e;
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    uint32_t epoch = le32_get(o.epoch);
    publish(fd, 1, 1, epoch, "one", 3, NULL, 1);
    await_ack(fd, 1, 1);
    publish(fd, 1, 3, epoch, "three", 5, NULL, 1);
    expect(fd, WIRE_ERROR, &g);
    memcpy(&e, g.body, sizeof(e));
    assert_int_equal(le32_get(e.code), EMBAR_EFENCED);
    assert_int_equal(le64_get(e.sequence), 1);
    assert_int_equal(le64_get(e.messages), 1);
    assert_int_not_equal(le32_get(e.epoch), epoch);
    got_free(&g);
    publish(fd, 1, 2, epoch, "late", 4, NULL, 1); /* dropped: the channel is broken */
    struct wire_close k = {0};
    send_frame(fd, WIRE_CLOSE, 1, 3, &k, sizeof(k));
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    struct wire_opened n = join_session(fd, "t", 1, le64_get(o.session), le32_get(e.epoch));
    assert_int_equal(le32_get(n.epoch), le32_get(e.epoch));
    publish(fd, 1, 2, epoch, "stale", 5, NULL, 1);
    assert_int_equal(expect_error(fd), EMBAR_EFENCED);
    send_frame(fd, WIRE_CLOSE, 1, 3, &k, sizeof(k));
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    join_session(fd, "t", 1, le64_get(o.session), le32_get(n.epoch));
    publish(fd, 1, 2, le32_get(n.epoch), "two", 3, NULL, 1);
    await_ack(fd, 1, 2);
    topic_is(&r, "t", "onetwo", 6);
    close(fd);
    rig_stop(&r);
}

struct stands {
    struct rig *r;
    uint64_t all;
};

/* The publisher waits for space, or all of its bytes are there. */
static bool stands_still(void *arg)
{
    const struct stands *s = arg;
    struct node_stat st;
    return is_waiting(s->r) || (log_resolve(s->r->log, "t", &st) == 0 && st.end == s->all);
}

/* A full pool holds publishers back, loses nothing, and lets them go on after a trim. */
static void full_pool(uint8_t mode)
{
    struct rig r = {.spec = "mem:8M", .tick_ms = 20};
    rig_start(&r);
    enum { SIZE = 100000, N = 120 };
    uint8_t *data = malloc((size_t)SIZE * N);
    fill(data, (size_t)SIZE * N, 12);
    int fd = peer(&r, false), other = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, mode, 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (unsigned i = 0; i < N; i++)
            publish(fd, 1, i + 1, le32_get(o.epoch), data + (size_t)i * SIZE, SIZE, NULL, 1);
        _exit(0);
    }
    /* Trim all each time it stands still; keep what was there. */
    struct stream s = {0};
    uint64_t acked = 0;
    struct got g;
    subscribe(other, "t", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
    int control = peer(&r, true);
    while (acked < N) {
        until(stands_still, &(struct stands){&r, (uint64_t)SIZE * N});
        struct timespec ticks = {.tv_nsec = acked == 0 ? 200000000 : 0};
        nanosleep(&ticks, NULL); /* who waits for us is not slow, however long */
        uint64_t end;
        struct node_stat st;
        assert_int_equal(log_resolve(r.log, "t", &st), 0);
        while (s.offset < st.end) {
            expect(other, WIRE_DATA, &g);
            stream_add(&s, &g);
            got_free(&g);
        }
        assert_int_equal(
            admin(control, WIRE_V_TRIM, "t", NULL, WIRE_FROM_OFFSET, s.offset, 0, &end, NULL), 0);
        assert_int_equal(end, s.offset);
        acked = s.offset / SIZE;
        if (N - acked <= 60)
            break;
    }
    while (s.offset < (uint64_t)SIZE * N) {
        expect(other, WIRE_DATA, &g);
        stream_add(&s, &g);
        got_free(&g);
        if (s.offset % (SIZE * 10ull) == 0)
            assert_int_equal(
                admin(control, WIRE_V_TRIM, "t", NULL, WIRE_FROM_OFFSET, s.offset, 0, NULL, NULL),
                0);
    }
    await_ack(fd, 1, N);
    assert_memory_equal(s.buf, data, (size_t)SIZE * N);
    free(s.buf);
    free(data);
    close(fd);
    close(other);
    close(control);
    rig_stop(&r);
}

static void full_pool_session(void **state)
{
    (void)state;
    full_pool(WIRE_S_NEW);
}

/* One channel keeps its order without a session, too. */
static void full_pool_none(void **state)
{
    (void)state;
    full_pool(WIRE_S_NONE);
}

/* What came over another connection already is acked by a full pool, too: it needs no space. */
static void full_pool_duplicate(void **state)
{
    (void)state;
    struct rig r = {.spec = "mem:8M"};
    rig_start(&r);
    enum { SIZE = 100000, N = 120 };
    uint8_t *data = calloc(1, SIZE);
    int first = peer(&r, true), second = peer(&r, true), filler = peer(&r, true);
    struct wire_opened o = open_topic(first, "t", 1, WIRE_S_NEW, 0);
    uint32_t epoch = le32_get(o.epoch);
    join_session(second, "t", 1, le64_get(o.session), epoch);
    publish(first, 1, 1, epoch, data, SIZE, NULL, 1);
    await_ack(first, 1, 1);
    open_topic(filler, "u", 1, WIRE_S_NONE, 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (unsigned i = 0; i < N; i++)
            publish(filler, 1, i + 1, 0, data, SIZE, NULL, 1);
        _exit(0);
    }
    until(is_waiting, &r);
    publish(second, 1, 1, epoch, data, SIZE, NULL, 1);
    await_ack(second, 1, 1);
    until(is_waiting, &r); /* still: between two tries it does not wait */
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    struct server_stat st;
    server_stat(r.server, &st);
    assert_int_equal(st.duplicates, 1);
    free(data);
    close(first);
    close(second);
    close(filler);
    rig_stop(&r);
}

/* Stopping commits and acks what was announced, and says so to everyone. */
static void stop_tells(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    int fd = peer(&r, false), idle = peer(&r, true);
    open_topic(fd, "t", 1, WIRE_S_NONE, 0);
    publish(fd, 1, 1, 0, "last", 4, NULL, 1);
    await_ack(fd, 1, 1);
    rig_stop(&r);
    assert_int_equal(expect_refusal(fd), EMBAR_ESHUTDOWN);
    assert_int_equal(expect_refusal(idle), EMBAR_ESHUTDOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content),         cmocka_unit_test(every_split),
        cmocka_unit_test(byte_by_byte),    cmocka_unit_test(duplicates),
        cmocka_unit_test(two_connections), cmocka_unit_test(new_process_fences),
        cmocka_unit_test(cut_mid_batch),   cmocka_unit_test(staging),
        cmocka_unit_test(ack_levels),      cmocka_unit_test(forget),
        cmocka_unit_test(fenced),          cmocka_unit_test(full_pool_session),
        cmocka_unit_test(full_pool_none),  cmocka_unit_test(full_pool_duplicate),
        cmocka_unit_test(stop_tells),
    };
    return cmocka_run_group_tests_name("server publish", tests, NULL, NULL);
}
