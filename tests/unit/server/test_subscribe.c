/* Subscribing: where it begins and ends, following, slow and absent readers, trims and deletions
 * under a reader. Content is compared with what was published.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

/* Publish n batches of the data over a session; waits for the acks. */
static void feed(const struct rig *r, const char *path, const uint8_t *data, uint32_t size,
                 unsigned n)
{
    int fd = peer(r, false);
    struct wire_opened o = open_topic(fd, path, 1, WIRE_S_NEW, 0);
    for (unsigned i = 0; i < n; i++) {
        publish(fd, 1, i + 1, le32_get(o.epoch), data + (size_t)i * size, size, NULL, 1);
        if (i % 500 == 499)
            await_ack(fd, 1, i + 1);
    }
    await_ack(fd, 1, n);
    close(fd);
}

static struct wire_end expect_end(int fd, struct stream *s)
{
    struct got g;
    struct wire_end e;
    for (;;) {
        assert_true(receive(fd, &g));
        if (g.f.type == WIRE_END)
            break;
        stream_add(s, &g);
        got_free(&g);
    }
    memcpy(&e, g.body, sizeof(e));
    got_free(&g);
    assert_int_equal(le64_get(e.offset), s->offset);
    assert_int_equal(le64_get(e.message), s->message);
    return e;
}

/* Three batches of messages of 10, 20, 30 bytes; from everywhere, with every limit. */
static void begins_and_ends(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    uint8_t data[180];
    uint32_t lengths[3] = {10, 20, 30};
    uint64_t starts[10];
    fill(data, sizeof(data), 2);
    for (unsigned i = 0; i < 10; i++)
        starts[i] = i / 3 * 60 + (i % 3 > 0 ? 10 : 0) + (i % 3 > 1 ? 20 : 0);
    int fd = peer(&r, false);
    open_topic(fd, "t", 1, WIRE_S_NONE, 0);
    for (unsigned i = 0; i < 3; i++)
        publish(fd, 1, i + 1, 0, data + 60 * i, 60, lengths, 3);
    await_ack(fd, 1, 3);
    int sub = peer(&r, true);
    for (unsigned from = 0; from <= 9; from++) {
        for (unsigned limit = 0; limit <= 10; limit++) {
            struct stream s = {.offset = starts[from], .message = from};
            struct wire_subscribed a = subscribe(sub, "t", 4, WIRE_FROM_MESSAGE, from, limit, 0);
            assert_int_equal(le64_get(a.offset), starts[from]);
            assert_int_equal(le64_get(a.message), from);
            assert_int_equal(le64_get(a.end), 180);
            expect_end(sub, &s);
            unsigned last = limit == 0 || from + limit > 9 ? 9 : from + limit;
            assert_int_equal(s.message, last);
            assert_int_equal(s.size, starts[last] - starts[from]);
            assert_memory_equal(s.buf ? s.buf : data, data + starts[from], s.size);
            free(s.buf);
        }
    }
    for (unsigned offset = 0; offset <= 180; offset++) {
        struct wire_subscribed a = subscribe(sub, "t", 4, WIRE_FROM_OFFSET, offset, 1, 0);
        unsigned m = 0;
        while (m < 9 && starts[m + 1] <= offset)
            m++;
        assert_int_equal(le64_get(a.message), m);
        assert_int_equal(le64_get(a.offset), starts[m]);
        struct stream s = {.offset = starts[m], .message = m};
        expect_end(sub, &s);
        free(s.buf);
    }
    struct wire_subscribed a = subscribe(sub, "t", 4, WIRE_FROM_LATEST, 0, 0, 0);
    struct stream s = {.offset = 180, .message = 9};
    assert_int_equal(le64_get(a.offset), 180);
    expect_end(sub, &s);
    assert_int_equal(s.size, 0);
    a = subscribe(sub, "t", 4, WIRE_FROM_TIME, 1, 0, 0);
    assert_int_equal(le64_get(a.offset), 0);
    s = (struct stream){0};
    expect_end(sub, &s);
    assert_memory_equal(s.buf, data, 180);
    free(s.buf);
    a = subscribe(sub, "t", 4, WIRE_FROM_TIME, UINT64_MAX / 2, 0, 0);
    assert_int_equal(le64_get(a.offset), 180);
    s = (struct stream){.offset = 180, .message = 9};
    expect_end(sub, &s);
    uint8_t b[256];
    send_bytes(sub, b, subscribe_bytes(b, "t", 4, WIRE_FROM_OFFSET, 181, 0, 0));
    assert_int_equal(expect_error(sub), EMBAR_EINVALID);
    send_bytes(sub, b, subscribe_bytes(b, "none", 4, WIRE_FROM_EARLIEST, 0, 0, 0));
    assert_int_equal(expect_error(sub), ENOENT);
    close(sub);
    close(fd);
    rig_stop(&r);
}

/* A follower gets everything that comes later, several of them the same bytes. */
static void follow(void **state)
{
    (void)state;
    struct rig r = {.spec = "mem:128M"};
    rig_start(&r);
    enum { N = 300, SIZE = 20011 };
    uint8_t *data = malloc((size_t)N * SIZE);
    fill(data, (size_t)N * SIZE, 21);
    feed(&r, "t", data, SIZE, 3);
    int sub[3];
    struct stream s[3] = {{0}};
    for (unsigned i = 0; i < 3; i++) {
        sub[i] = peer(&r, i % 2);
        subscribe(sub[i], "t", 3, WIRE_FROM_EARLIEST, 0, i == 2 ? N : 0, 1);
    }
    int fd = peer(&r, false);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    for (unsigned i = 3; i < N; i++)
        publish(fd, 1, i - 2, le32_get(o.epoch), data + (size_t)i * SIZE, SIZE, NULL, 1);
    for (unsigned i = 0; i < 3; i++) {
        struct got g;
        while (s[i].size < (size_t)N * SIZE) {
            expect(sub[i], WIRE_DATA, &g);
            stream_add(&s[i], &g);
            got_free(&g);
        }
        assert_memory_equal(s[i].buf, data, (size_t)N * SIZE);
        free(s[i].buf);
        if (i == 2) { /* its limit is reached */
            expect(sub[i], WIRE_END, &g);
            got_free(&g);
        } else {
            send_frame(sub[i], WIRE_CANCEL, 3, 44, NULL, 0);
            expect(sub[i], WIRE_OK, &g);
            assert_int_equal(le64_get(g.f.ref), 44);
            got_free(&g);
        }
        close(sub[i]);
    }
    close(fd);
    free(data);
    rig_stop(&r);
}

/* A reader that does not read neither stops publishers nor other readers, and misses nothing. */
static void slow(void **state)
{
    (void)state;
    struct rig r = {.spec = "mem:128M", .workers = 1};
    rig_start(&r);
    enum { N = 40, SIZE = 1000003 };
    uint8_t *data = malloc((size_t)N * SIZE);
    fill(data, (size_t)N * SIZE, 31);
    int lazy = peer(&r, false);
    assert_int_equal(admin(lazy, WIRE_V_CREATE, "t", NULL, 0, 0, 0, NULL, NULL), 0);
    subscribe(lazy, "t", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
    feed(&r, "t", data, SIZE, N);
    struct stream s = read_topic(&r, "t");
    assert_int_equal(s.size, (size_t)N * SIZE);
    assert_memory_equal(s.buf, data, s.size);
    free(s.buf);
    /* CANCEL in the middle of a frame: the frame is finished first. */
    struct stream l = {0};
    struct got g;
    send_frame(lazy, WIRE_CANCEL, 1, 8, NULL, 0);
    for (;;) {
        assert_true(receive(lazy, &g));
        if (g.f.type == WIRE_OK)
            break;
        stream_add(&l, &g);
        got_free(&g);
    }
    got_free(&g);
    assert_memory_equal(l.buf, data, l.size);
    /* And on from there. */
    struct wire_subscribed a = subscribe(lazy, "t", 1, WIRE_FROM_OFFSET, l.offset, 0, 0);
    assert_int_equal(le64_get(a.offset), l.offset);
    expect_end(lazy, &l);
    assert_int_equal(l.size, (size_t)N * SIZE);
    assert_memory_equal(l.buf, data, l.size);
    free(l.buf);
    close(lazy);
    free(data);
    rig_stop(&r);
}

/* One connection with a publisher and many subscriptions. */
static void many_channels(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    enum { SUBS = 255, N = 20 };
    uint8_t data[N * 50];
    fill(data, sizeof(data), 1);
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    for (unsigned i = 0; i < SUBS; i++)
        subscribe(fd, "t", (uint16_t)(60000 - i), WIRE_FROM_EARLIEST, 0, 0, 1);
    uint8_t b[256];
    send_bytes(fd, b, subscribe_bytes(b, "t", 9, WIRE_FROM_EARLIEST, 0, 0, 1));
    assert_int_equal(expect_error(fd), EMBAR_ELIMIT);
    for (unsigned i = 0; i < N; i++)
        publish(fd, 1, i + 1, le32_get(o.epoch), data + 50 * i, 50, NULL, 2);
    static struct stream s[SUBS];
    unsigned whole = 0;
    while (whole < SUBS) {
        struct got g;
        expect(fd, WIRE_DATA, &g);
        struct stream *to = &s[60000 - le16_get(g.f.channel)];
        stream_add(to, &g);
        whole += to->size == sizeof(data);
        got_free(&g);
    }
    for (unsigned i = 0; i < SUBS; i++) {
        assert_memory_equal(s[i].buf, data, sizeof(data));
        free(s[i].buf);
    }
    close(fd);
    rig_stop(&r);
}

static void trimmed(void **state)
{
    (void)state;
    struct rig r = {.spec = "mem:64M"};
    rig_start(&r);
    enum { N = 20, SIZE = 1000000 };
    uint8_t *data = malloc((size_t)N * SIZE);
    uint8_t b[256];
    fill(data, (size_t)N * SIZE, 41);
    int lazy = peer(&r, false), idle = peer(&r, true), control = peer(&r, true);
    feed(&r, "t", data, SIZE, N);
    subscribe(lazy, "t", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
    uint64_t base;
    assert_int_equal(
        admin(control, WIRE_V_TRIM, "t", NULL, WIRE_FROM_OFFSET, 18 * SIZE + 5, 0, &base, NULL), 0);
    assert_int_equal(base, 18 * SIZE); /* a message is trimmed whole or not at all */
    send_bytes(idle, b, subscribe_bytes(b, "t", 1, WIRE_FROM_OFFSET, 5, 0, 0));
    assert_int_equal(expect_error(idle), EMBAR_ETRIMMED);
    send_bytes(idle, b, subscribe_bytes(b, "t", 1, WIRE_FROM_MESSAGE, 17, 0, 0));
    assert_int_equal(expect_error(idle), EMBAR_ETRIMMED);
    struct wire_subscribed a = subscribe(idle, "t", 1, WIRE_FROM_EARLIEST, 0, 0, 0);
    assert_int_equal(le64_get(a.offset), 18 * SIZE);
    assert_int_equal(le64_get(a.message), 18);
    struct stream s = {.offset = 18 * SIZE, .message = 18};
    expect_end(idle, &s);
    assert_memory_equal(s.buf, data + 18 * SIZE, 2 * SIZE);
    free(s.buf);
    /* The lazy one gets what the socket held, then a word (or a reset amid a frame); all right. */
    struct stream l = {0};
    struct got g;
    while (receive(lazy, &g)) {
        if (g.f.type == WIRE_ERROR) {
            struct wire_error e;
            memcpy(&e, g.body, sizeof(e));
            assert_int_equal(le32_get(e.code), EMBAR_ETRIMMED);
            got_free(&g);
            break;
        }
        stream_add(&l, &g);
        got_free(&g);
    }
    assert_true(l.size < 18 * (size_t)SIZE + 1);
    assert_memory_equal(l.buf ? l.buf : data, data, l.size);
    free(l.buf);
    close(lazy);
    close(idle);
    close(control);
    free(data);
    rig_stop(&r);
}

static void deleted(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    uint8_t data[5000];
    fill(data, sizeof(data), 51);
    int fd = peer(&r, false), control = peer(&r, true), writer = peer(&r, true);
    feed(&r, "d/t", data, 1000, 5);
    subscribe(fd, "d/t", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
    open_topic(writer, "d/t", 1, WIRE_S_NONE, 0);
    assert_int_equal(admin(control, WIRE_V_REMOVE, "d", NULL, 0, 0, 0, NULL, NULL), ENOTEMPTY);
    assert_int_equal(admin(control, WIRE_V_REMOVE, "d/t", NULL, 0, 0, 0, NULL, NULL), 0);
    struct stream s = {0};
    struct got g;
    for (;;) {
        assert_true(receive(fd, &g));
        if (g.f.type == WIRE_ERROR)
            break;
        stream_add(&s, &g);
        got_free(&g);
    }
    struct wire_error e;
    memcpy(&e, g.body, sizeof(e));
    assert_int_equal(le32_get(e.code), EMBAR_EGONE);
    assert_int_equal(le16_get(g.f.channel), 1);
    got_free(&g);
    assert_int_equal(s.size, sizeof(data));
    assert_memory_equal(s.buf, data, sizeof(data));
    free(s.buf);
    publish(writer, 1, 1, 0, "into nothing", 12, NULL, 1);
    assert_int_equal(expect_error(writer), EMBAR_EGONE);
    /* The same name is another topic. */
    struct wire_close k = {0};
    send_frame(writer, WIRE_CLOSE, 1, 3, &k, sizeof(k));
    expect(writer, WIRE_OK, &g);
    got_free(&g);
    struct wire_opened o = open_topic(writer, "d/t", 1, WIRE_S_NONE, 0);
    assert_int_equal(le64_get(o.end), 0);
    close(fd);
    close(control);
    close(writer);
    rig_stop(&r);
}

/* Connections come and go while data flows: nobody's mail or memory outlives them. */
static void come_and_go(void **state)
{
    (void)state;
    struct rig r = {.workers = 3};
    rig_start(&r);
    uint8_t data[400];
    fill(data, sizeof(data), 61);
    int fd = peer(&r, false);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_NEW, 0);
    for (unsigned i = 0; i < 300; i++) {
        int sub = peer(&r, i % 2);
        subscribe(sub, "t", 1, WIRE_FROM_EARLIEST, 0, 0, 1);
        publish(fd, 1, i + 1, le32_get(o.epoch), data, sizeof(data), NULL, 4);
        close(sub);
        int pub = peer(&r, i % 2);
        open_topic(pub, "u", 1, WIRE_S_NONE, 0);
        publish(pub, 1, 1, 0, data, sizeof(data), NULL, 4);
        close(pub);
    }
    await_ack(fd, 1, 300);
    close(fd);
    struct stream s = read_topic(&r, "t");
    assert_int_equal(s.size, 300 * sizeof(data));
    for (unsigned i = 0; i < 300; i++)
        assert_memory_equal(s.buf + i * sizeof(data), data, sizeof(data));
    free(s.buf);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_and_ends), cmocka_unit_test(follow),  cmocka_unit_test(slow),
        cmocka_unit_test(many_channels),   cmocka_unit_test(trimmed), cmocka_unit_test(deleted),
        cmocka_unit_test(come_and_go),
    };
    return cmocka_run_group_tests_name("server subscribe", tests, NULL, NULL);
}
