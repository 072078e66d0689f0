/* Peers that send too slowly: they lose their pool space to staging and go on there, others do not
 * notice them, and what staging cannot hold is refused with a sentence. A tick of the server is
 * short here, so that its limits come soon.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

struct slow {
    int fd;
    struct batch_bytes b;
    size_t sent;
    uint8_t *data;
    uint32_t size;
    char path[16];
};

/* A publisher of one batch of which `first` bytes are sent. */
static struct slow slow_open(const struct rig *r, unsigned i, uint32_t size, bool lengths,
                             size_t first)
{
    struct slow s = {.fd = peer(r, i % 2), .size = size, .sent = first, .data = malloc(size)};
    enum { MOST = 40000 };
    uint32_t *each = calloc(MOST, sizeof(*each));
    assert_true(s.data && each);
    snprintf(s.path, sizeof(s.path), "slow%u", i);
    fill(s.data, size, i + 100);
    for (unsigned k = 0; k < MOST; k++)
        each[k] = size / MOST;
    each[MOST - 1] += size % MOST;
    s.b = batch_make(1, 1, 0, s.data, size, lengths ? each : NULL, lengths ? MOST : 1);
    if (i % 2)
        batch_sum_behind(&s.b);
    open_topic(s.fd, s.path, 1, WIRE_S_NONE, 0);
    send_bytes(s.fd, s.b.p, first);
    free(each);
    return s;
}

static void slow_send(struct slow *s, size_t n)
{
    send_bytes(s->fd, s->b.p + s->sent, n);
    s->sent += n;
}

static void slow_check(const struct rig *r, const struct slow *s)
{
    struct stream t = read_topic(r, s->path);
    assert_int_equal(t.size, s->size);
    assert_memory_equal(t.buf, s->data, s->size);
    free(t.buf);
}

static void slow_close(struct slow *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->b.p);
    free(s->data);
}

struct wanted {
    const struct rig *rig;
    uint64_t moved;
};

static bool have_moved(void *arg)
{
    const struct wanted *w = arg;
    struct server_stat st;
    struct log_stat ls;
    server_stat(w->rig->server, &st);
    log_stat_all(w->rig->log, &ls);
    return st.moved >= w->moved && ls.reserved == 0;
}

static bool nothing_staged(void *arg)
{
    const struct rig *r = arg;
    struct server_stat st;
    server_stat(r->server, &st);
    return st.staged == 0 && st.waiting == 0;
}

/* Ten tricklers want all pool space that may be reserved; publishers beside them go on, and the
 * tricklers' batches arrive whole in the end. */
static void tricklers(void **state)
{
    (void)state;
    enum { N = 10, SIZE = 700001, FIRST = 200000, FAST = 60, FAST_SIZE = 50000 };
    struct rig r = {.tick_ms = 40, .spec = "mem:64M"};
    struct slow s[N];
    uint8_t *data = malloc(FAST_SIZE);
    rig_start(&r);
    for (unsigned i = 0; i < N; i++)
        s[i] = slow_open(&r, i, SIZE, i % 3 == 0, FIRST);
    int fd = peer(&r, false);
    open_topic(fd, "fast", 1, WIRE_S_NONE, 0);
    for (unsigned k = 0; k < FAST; k++) {
        fill(data, FAST_SIZE, k);
        publish(fd, 1, k + 1, 0, data, FAST_SIZE, NULL, 1);
        for (unsigned i = 0; i < N; i++)
            slow_send(&s[i], 1);
    }
    await_ack(fd, 1, FAST);
    until(have_moved, &(struct wanted){&r, N});
    struct stream t = read_topic(&r, "fast");
    assert_int_equal(t.size, FAST * FAST_SIZE);
    for (unsigned k = 0; k < FAST; k++) {
        fill(data, FAST_SIZE, k);
        assert_memory_equal(t.buf + (size_t)k * FAST_SIZE, data, FAST_SIZE);
    }
    free(t.buf);
    for (unsigned i = 0; i < N; i++) {
        slow_send(&s[i], 100000 + i);
        slow_send(&s[i], s[i].b.n - s[i].sent);
    }
    for (unsigned i = 0; i < N; i++) {
        await_ack(s[i].fd, 1, 1);
        slow_check(&r, &s[i]);
    }
    /* The next batch of each begins in staging, whole or in parts, until one was fast. */
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < 3; k++)
            publish(s[i].fd, 1, 2 + k, 0, s[i].data, SIZE - k, NULL, 1);
    for (unsigned i = 0; i < N; i++) {
        await_ack(s[i].fd, 1, 4);
        t = read_topic(&r, s[i].path);
        assert_int_equal(t.size, 4 * SIZE - 3);
        for (unsigned k = 0; k < 3; k++)
            assert_memory_equal(t.buf + SIZE + k * SIZE - (k > 1), s[i].data, SIZE - k);
        free(t.buf);
        slow_close(&s[i]);
    }
    until(nothing_staged, &r);
    close(fd);
    free(data);
    rig_stop(&r);
}

/* The beginning of a batch that takes its time goes on as a slow one, one after the other. */
static void slow_beginning(void **state)
{
    (void)state;
    struct rig r = {.tick_ms = 20};
    rig_start(&r);
    for (unsigned i = 0; i < 3; i++) {
        struct slow s = slow_open(&r, i, 150000, true, 9000);
        until(have_moved, &(struct wanted){&r, i + 1});
        while (s.sent + 10000 < s.b.n)
            slow_send(&s, 10000);
        slow_send(&s, s.b.n - s.sent);
        await_ack(s.fd, 1, 1);
        slow_check(&r, &s);
        slow_close(&s);
        until(nothing_staged, &r);
    }
    rig_stop(&r);
}

static bool some_beginning(void *arg)
{
    const struct rig *r = arg;
    struct server_stat st;
    server_stat(r->server, &st);
    return st.staged > 0;
}

static bool some_reserved(void *arg)
{
    const struct rig *r = arg;
    struct log_stat st;
    log_stat_all(r->log, &st);
    return st.reserved > 0;
}

static bool some_staged(void *arg)
{
    const struct rig *r = arg;
    struct server_stat st;
    server_stat(r->server, &st);
    return st.staged >= 3 * 65536;
}

static bool staged_or_reserved(void *arg)
{
    return some_staged(arg) || some_reserved(arg);
}

/* Twice to the worker and back: what its clock told it before is done. */
static void round_trips(int fd)
{
    for (uint64_t i = 1; i <= 2; i++) {
        struct got g;
        send_frame(fd, WIRE_PING, 0, i, NULL, 0);
        expect(fd, WIRE_OK, &g);
        got_free(&g);
    }
}

/* Whose batch was slow begins the next in staging, until one of them came fast enough: ours do as soon
 * as we are let run for a tick. */
static void a_suspect(void **state)
{
    (void)state;
    enum { SIZE = 300000, FIRST = 200000, MOST = 50 };
    struct rig r = {.tick_ms = 100, .workers = 1};
    rig_start(&r);
    int other = peer(&r, false);
    struct slow s = slow_open(&r, 0, SIZE, false, FIRST);
    until(have_moved, &(struct wanted){&r, 1});
    struct timespec ticks = {.tv_nsec = 300000000};
    nanosleep(&ticks, NULL); /* so that it was late at one of them */
    round_trips(other);
    slow_send(&s, s.b.n - s.sent);
    await_ack(s.fd, 1, 1);
    unsigned sent = 0;
    for (bool believed = false; !believed; sent++) {
        assert_true(sent < MOST);
        struct batch_bytes b = batch_make(1, 2 + sent, 0, s.data, SIZE, NULL, 1);
        send_bytes(s.fd, b.p, FIRST);
        until(staged_or_reserved, &r);
        believed = some_reserved(&r);
        struct server_stat st;
        server_stat(r.server, &st);
        if (sent == 0) {
            assert_false(believed);
            assert_int_equal(st.moved, 1); /* it did not come there out of the pool */
        }
        send_bytes(s.fd, b.p + FIRST, b.n - FIRST);
        await_ack(s.fd, 1, 2 + sent);
        free(b.p);
    }
    struct stream t = read_topic(&r, s.path);
    assert_int_equal(t.size, (size_t)(1 + sent) * SIZE);
    for (size_t i = 0; i <= sent; i++)
        assert_memory_equal(t.buf + i * SIZE, s.data, SIZE);
    free(t.buf);
    slow_close(&s);
    close(other);
    until(nothing_staged, &r);
    rig_stop(&r);
}

/* Where a piece of staging ends within the checksum behind the payload. */
static void a_sum_in_two_pieces(void **state)
{
    (void)state;
    struct rig r = {.tick_ms = 20};
    rig_start(&r);
    for (uint32_t i = 1; i < 4; i++) {
        struct slow s = slow_open(&r, 2 * i + 1, 3 * 65536 - i, false, 70000);
        until(have_moved, &(struct wanted){&r, i});
        slow_send(&s, s.b.n - s.sent);
        await_ack(s.fd, 1, 1);
        slow_check(&r, &s);
        slow_close(&s);
    }
    until(nothing_staged, &r);
    rig_stop(&r);
}

/* The topic goes while a batch for it is half here: that is the channel's end and nobody else's. */
static void gone_meanwhile(void **state)
{
    (void)state;
    struct rig r = {.workers = 1};
    rig_start(&r);
    int control = peer(&r, true);
    struct slow s = slow_open(&r, 0, 100000, false, 9000);
    until(some_beginning, &r);
    assert_int_equal(admin(control, WIRE_V_REMOVE, s.path, NULL, 0, 0, 0, NULL, NULL), 0);
    slow_send(&s, s.b.n - s.sent);
    assert_int_equal(expect_error(s.fd), EMBAR_EGONE);
    struct got g;
    send_frame(s.fd, WIRE_PING, 0, 3, NULL, 0);
    expect(s.fd, WIRE_OK, &g);
    got_free(&g);
    until(nothing_staged, &r);
    slow_close(&s);
    close(control);
    rig_stop(&r);
}

/* Cut while it is in staging: nothing stays. */
static void cut(void **state)
{
    (void)state;
    struct rig r = {.tick_ms = 20};
    rig_start(&r);
    for (unsigned i = 0; i < 6; i++) {
        struct slow s = slow_open(&r, i, 400000, i % 3 == 0, 70000 + 60000 * i);
        until(have_moved, &(struct wanted){&r, i + 1});
        slow_send(&s, 5000);
        slow_close(&s);
    }
    until(nothing_staged, &r);
    rig_stop(&r);
}

static void too_large(void **state)
{
    (void)state;
    struct rig r = {.tick_ms = 20, .staging = 2u << 20};
    rig_start(&r);
    struct slow in_pool = slow_open(&r, 0, 600000, false, 200000);
    assert_int_equal(expect_refusal(in_pool.fd), ETIMEDOUT);
    struct slow beginning = slow_open(&r, 1, 600000, false, 9000);
    assert_int_equal(expect_refusal(beginning.fd), ETIMEDOUT);
    struct server_stat st;
    server_stat(r.server, &st);
    assert_int_equal(st.moved, 0); /* not even begun with */
    in_pool.fd = beginning.fd = -1;
    slow_close(&in_pool);
    slow_close(&beginning);
    until(nothing_staged, &r);
    rig_stop(&r);
}

static void mute(void **state)
{
    (void)state;
    struct rig r = {.tick_ms = 20};
    rig_start(&r);
    struct slow s = slow_open(&r, 0, 400000, false, 200000);
    assert_int_equal(expect_refusal(s.fd), ETIMEDOUT);
    s.fd = -1;
    slow_close(&s);
    until(nothing_staged, &r);
    rig_stop(&r);
}

static bool nobody_there(void *arg)
{
    const struct rig *r = arg;
    struct server_stat st;
    server_stat(r->server, &st);
    return st.connections == 0;
}

/* Refused, told so, and it stays: it does not keep its place. */
static void refused_and_stays(void **state)
{
    (void)state;
    struct rig r = {.tick_ms = 20};
    struct got g;
    rig_start(&r);
    int fd = dial_tcp(&r);
    send_bytes(fd, "GET / HTTP/1.1\r\n", 16);
    assert_true(receive(fd, &g));
    assert_int_equal(g.f.type, WIRE_ERROR);
    got_free(&g);
    until(nobody_there, &r);
    close(fd);
    rig_stop(&r);
}

/* Answer of one slow publisher: true: its batch was acked, false: refused for want of staging, so. */
static bool answer(struct slow *s, const char *why)
{
    struct got g;
    assert_true(receive(s->fd, &g));
    bool acked = g.f.type == WIRE_ACK;
    if (!acked) {
        struct wire_error e;
        assert_int_equal(g.f.type, WIRE_ERROR);
        assert_true(g.length >= sizeof(e));
        memcpy(&e, g.body, sizeof(e));
        assert_int_equal(le32_get(e.code), ETIMEDOUT);
        assert_non_null(strstr((const char *)g.body + sizeof(e), why));
    }
    got_free(&g);
    return acked;
}

/* More slow batches than staging holds: some give up, so that the others get through, rather than
 * all wait for each other; whoever is fast never notices. */
static void exhausted(void **state)
{
    (void)state;
    enum { N = 10, SIZE = 400000, FIRST = 100000 };
    struct rig r = {.tick_ms = 20, .staging = 2u << 20, .workers = 1};
    struct slow s[N];
    rig_start(&r);
    /* Eight hold two pieces each, which is all that one principal may have. */
    for (unsigned i = 0; i < 8; i++)
        s[i] = slow_open(&r, i, SIZE, false, FIRST);
    until(have_moved, &(struct wanted){&r, 8});
    for (unsigned i = 8; i < N; i++)
        s[i] = slow_open(&r, i, SIZE, false, FIRST);
    for (unsigned i = 8; i < N; i++)
        assert_false(answer(&s[i], "came slower"));
    int fd = peer(&r, true);
    open_topic(fd, "fast", 1, WIRE_S_NONE, 0);
    publish(fd, 1, 1, 0, s[0].data, SIZE, NULL, 1);
    await_ack(fd, 1, 1);
    for (unsigned i = 0; i < 8; i++)
        slow_send(&s[i], s[i].b.n - s[i].sent);
    unsigned acked = 0;
    for (unsigned i = 0; i < 8; i++)
        if (answer(&s[i], "found no staging memory")) {
            slow_check(&r, &s[i]);
            acked++;
        }
    assert_in_range(acked, 2, 7);
    for (unsigned i = 0; i < N; i++)
        slow_close(&s[i]);
    until(nothing_staged, &r);
    /* And it is all there again. */
    s[0] = slow_open(&r, 0, SIZE, false, FIRST);
    struct server_stat st;
    server_stat(r.server, &st);
    until(have_moved, &(struct wanted){&r, st.moved + 1});
    slow_send(&s[0], s[0].b.n - s[0].sent);
    await_ack(s[0].fd, 1, 1);
    slow_close(&s[0]);
    close(fd);
    rig_stop(&r);
}

/* ---- Many, with the largest batches -------------------------------------------------------- */

enum { CROWD = 40, LARGEST = (16 << 20) - (128 << 10), CROWD_FIRST = 1 << 20 };

struct crowd {
    const struct rig *rig;
    unsigned index;
    atomic_bool *over;
    unsigned batches;
    pthread_t thread;
};

static void fast_bytes(uint8_t *data, unsigned index, unsigned k)
{
    enum { FAST_SIZE = 60000 };
    fill(data, FAST_SIZE, 1000u * (index + 1) + k % 32);
}

/* As fast as it is acked, until told to end; and so many batches at least. */
static void *publish_fast(void *arg)
{
    struct crowd *w = arg;
    enum { FAST_SIZE = 60000, LEAST = 32, MOST = 160, WINDOW = 8 };
    uint8_t *data = malloc(FAST_SIZE);
    uint64_t acked = 0;
    char path[16];
    int fd = peer(w->rig, w->index % 2);
    snprintf(path, sizeof(path), "fast%u", w->index);
    open_topic(fd, path, 1, WIRE_S_NONE, 0);
    for (; w->batches < LEAST || (w->batches < MOST && !*w->over); w->batches++) {
        fast_bytes(data, w->index, w->batches);
        publish(fd, 1, w->batches + 1, 0, data, FAST_SIZE, NULL, 1);
        if (w->batches >= acked + WINDOW)
            acked = le64_get(await_ack(fd, 1, w->batches + 1 - WINDOW).sequence);
    }
    if (acked < w->batches)
        await_ack(fd, 1, w->batches);
    close(fd);
    free(data);
    return NULL;
}

static void fast_check(const struct rig *r, const struct crowd *w)
{
    enum { FAST_SIZE = 60000 };
    uint8_t *data = malloc(FAST_SIZE);
    char path[16];
    snprintf(path, sizeof(path), "fast%u", w->index);
    struct stream t = read_topic(r, path);
    assert_int_equal(t.size, (size_t)w->batches * FAST_SIZE);
    for (unsigned k = 0; k < w->batches; k++) {
        fast_bytes(data, w->index, k);
        assert_memory_equal(t.buf + (size_t)k * FAST_SIZE, data, FAST_SIZE);
    }
    free(t.buf);
    free(data);
}

/* One byte more of each that was not refused; how many go on. What is reserved stays in its bound. */
static unsigned trickle(const struct rig *r, int fd[CROWD], const struct batch_bytes *b, size_t *at)
{
    struct log_stat st;
    unsigned alive = 0;
    log_stat_all(r->log, &st);
    assert_true(st.reserved <= st.data / 8);
    for (unsigned i = 0; i < CROWD; i++) {
        uint8_t first;
        if (fd[i] < 0)
            continue;
        if (recv(fd[i], &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
            assert_int_equal(expect_refusal(fd[i]), ETIMEDOUT);
            fd[i] = -1;
            continue;
        }
        if (send(fd[i], b->p + *at, 1, MSG_NOSIGNAL) == 1)
            alive++;
        else
            assert_true(errno == EPIPE || errno == ECONNRESET); /* refused just now: told above */
    }
    ++*at;
    return alive;
}

/* Forty batches of nearly 16 MiB, of each a mebibyte and then a byte a tick: all the space that may be
 * reserved, twenty times, and more than staging gives one principal. Some are refused, the others go
 * on; who publishes beside them does all the while. */
static void crowded(void **state)
{
    (void)state;
    struct rig r = {
        .tick_ms = 20, .spec = "mem:256M", .staging = 64u << 20, .geo = {.max_order = 13}};
    int fd[CROWD];
    uint8_t *data = malloc(LARGEST);
    atomic_bool over = false;
    struct crowd fast[2];
    size_t at = CROWD_FIRST;
    fill(data, LARGEST, 99);
    struct batch_bytes b = batch_make(1, 1, 0, data, LARGEST, NULL, 1);
    rig_start(&r);
    for (unsigned i = 0; i < 2; i++) {
        fast[i] = (struct crowd){.rig = &r, .index = i, .over = &over};
        assert_int_equal(pthread_create(&fast[i].thread, NULL, publish_fast, &fast[i]), 0);
    }
    /* Who gets no space is not read: so each sends its mebibyte as far as it is taken. */
    size_t sent[CROWD] = {0};
    struct server_stat st;
    for (unsigned i = 0; i < CROWD; i++) {
        char path[16];
        fd[i] = peer(&r, i % 2);
        snprintf(path, sizeof(path), "slow%u", i);
        open_topic(fd[i], path, 1, WIRE_S_NONE, 0);
    }
    time_t end = time(NULL) + 120;
    for (unsigned whole = 0; whole < CROWD;) {
        assert_true(time(NULL) < end);
        struct log_stat ls;
        log_stat_all(r.log, &ls);
        assert_true(ls.reserved <= ls.data / 8);
        whole = 0;
        for (unsigned i = 0; i < CROWD; i++) {
            uint8_t first;
            if (fd[i] >= 0 && recv(fd[i], &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
                assert_int_equal(expect_refusal(fd[i]), ETIMEDOUT);
                fd[i] = -1;
            }
            ssize_t n = fd[i] < 0 || sent[i] == CROWD_FIRST
                            ? 0
                            : send(fd[i], b.p + sent[i], CROWD_FIRST - sent[i],
                                   MSG_NOSIGNAL | MSG_DONTWAIT);
            sent[i] += n > 0 ? (size_t)n : 0;
            whole += fd[i] < 0 || sent[i] == CROWD_FIRST;
        }
        struct timespec nap = {.tv_nsec = 1000000};
        nanosleep(&nap, NULL);
    }
    unsigned alive = CROWD;
    for (unsigned k = 0; k < 40; k++) {
        struct timespec nap = {.tv_nsec = 10000000};
        alive = trickle(&r, fd, &b, &at);
        nanosleep(&nap, NULL);
    }
    server_stat(r.server, &st);
    assert_true(st.moved >= alive);
    assert_true(st.staged <= st.staging / 2); /* of one principal */
    assert_in_range(alive, 1, CROWD - 1);
    over = true;
    /* Those that are left, but one, go; that one comes to its end, before it counts as gone silent. */
    int last = -1;
    unsigned which = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        if (fd[i] < 0)
            continue;
        if (last >= 0)
            close(last);
        last = fd[i];
        which = i;
    }
    send_bytes(last, b.p + at, b.n - at);
    await_ack(last, 1, 1);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(fast[i].thread, NULL);
        fast_check(&r, &fast[i]);
    }
    char path[16];
    snprintf(path, sizeof(path), "slow%u", which);
    struct stream t = read_topic(&r, path);
    assert_int_equal(t.size, LARGEST);
    assert_memory_equal(t.buf, data, LARGEST);
    free(t.buf);
    close(last);
    until(nothing_staged, &r);
    free(b.p);
    free(data);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tricklers),
        cmocka_unit_test(slow_beginning),
        cmocka_unit_test(cut),
        cmocka_unit_test(a_suspect),
        cmocka_unit_test(a_sum_in_two_pieces),
        cmocka_unit_test(gone_meanwhile),
        cmocka_unit_test(refused_and_stays),
        cmocka_unit_test(too_large),
        cmocka_unit_test(mute),
        cmocka_unit_test(exhausted),
        cmocka_unit_test(crowded),
    };
    return cmocka_run_group_tests_name("server slow", tests, NULL, NULL);
}
