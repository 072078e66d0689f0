/* libembar's publisher against the real server when its session is fenced at order 5: because a foreign
 * connection, or a connection of its own that stands still, leaves a gap. The stream arrives exactly
 * once, and other sessions do not wait for any of it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "embar/embar.h"
#include "tests/unit/server/rig.h"

enum { MESSAGE = 1000 };

static struct embar_publisher *publisher_on(const char *socket, const char *topic,
                                            unsigned connections, struct embar_client **c)
{
    struct embar_error err = {.code = 0};
    struct embar_options o = {.server = socket};
    struct embar_publisher_options po = EMBAR_PUBLISHER_OPTIONS;
    struct embar_publisher *pub = NULL;
    po.batch_bytes = 10 * MESSAGE;
    po.connections = connections;
    po.window = 2 << 20;
    if (embar_connect(c, &o, &err) < 0 || embar_publisher_open(&pub, *c, topic, &po, &err) < 0)
        fail_msg("%s", err.text);
    return pub;
}

static void publish_some(struct embar_publisher *pub, unsigned from, unsigned to)
{
    uint8_t data[MESSAGE];
    for (unsigned i = from; i < to; i++) {
        fill(data, MESSAGE, i);
        assert_int_equal(embar_publish(pub, data, MESSAGE, NULL, NULL), 0);
    }
}

static void flush_all(struct embar_publisher *pub)
{
    struct embar_error err = {.code = 0};
    if (embar_flush(pub, 120000, &err) < 0)
        fail_msg("%s", err.text);
}

static void make_topic(const struct rig *r, uint8_t order)
{
    struct commit commit;
    struct control k = {.kind = MEDIA_C_CREATE,
                        .parent = LOG_ROOT_ID,
                        .mode = 0644,
                        .order = order,
                        .ack = 1,
                        .name = "t"};
    assert_int_equal(log_control_wait(r->log, &k, &commit), 0);
}

static void topic_has(const struct rig *r, const char *topic, unsigned count)
{
    uint8_t data[MESSAGE];
    struct stream s = read_topic(r, topic);
    assert_int_equal(s.size, (size_t)count * MESSAGE);
    for (unsigned i = 0; i < count; i++) {
        fill(data, MESSAGE, i);
        assert_memory_equal(s.buf + (size_t)i * MESSAGE, data, MESSAGE);
    }
    free(s.buf);
}

static struct session_stat session_of(const struct rig *r, struct embar_publisher *pub)
{
    struct embar_publisher_info info;
    struct session_stat st;
    embar_publisher_info(pub, &info);
    assert_int_equal(log_session(r->log, info.session, &st), 0);
    return st;
}

static bool is_held(void *arg)
{
    const struct rig *r = arg;
    struct log_stat st;
    log_stat_all(r->log, &st);
    return st.held > 0;
}

static bool is_fenced(void *arg)
{
    const struct rig *r = arg;
    struct log_stat st;
    log_stat_all(r->log, &st);
    return st.fenced > 0;
}

/* A foreign connection of the same principal joins the session and sends what leaves a gap. */
static void a_foreign_gap(void **state)
{
    (void)state;
    struct rig r = {.hold_ms = 3600000}; /* so nothing here happens because time passes */
    rig_start(&r);
    struct embar_client *c, *d, *e;
    struct embar_publisher *pub = publisher_on(r.socket, "t", 2, &c);
    struct embar_publisher *other = publisher_on(r.socket, "t", 1, &d);
    struct embar_publisher *else_ = publisher_on(r.socket, "u", 1, &e);
    publish_some(pub, 0, 100);
    flush_all(pub);
    struct session_stat st = session_of(&r, pub);
    int fd = peer(&r, true);
    join_session(fd, "t", 1, st.id, st.epoch);
    publish(fd, 1, st.sequence + 500, st.epoch, "foreign", 7, NULL, 1);
    until(is_held, &r);
    /* The gap is there and stays: nobody else waits, on this topic or another. */
    uint8_t text[MESSAGE];
    fill(text, MESSAGE, 12345);
    for (unsigned i = 0; i < 20; i++) {
        struct embar_error err = {.code = 0};
        assert_int_equal(embar_publish_wait(other, text, MESSAGE, &err), 0);
    }
    publish_some(else_, 0, 200);
    flush_all(else_);
    topic_has(&r, "u", 200);
    /* Nor does the publisher itself, below the gap. */
    publish_some(pub, 100, 200);
    flush_all(pub);
    /* More than a session may hold: it is fenced, at once. */
    enum { BIG = 1 << 20 };
    uint8_t *big = calloc(1, BIG);
    for (unsigned i = 0; i < 4; i++)
        publish(fd, 1, st.sequence + 501 + i, st.epoch, big, BIG, NULL, 1);
    free(big);
    until(is_fenced, &r);
    assert_int_equal(expect_error(fd), EMBAR_EFENCED);
    publish_some(pub, 200, 1000);
    flush_all(pub);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.fences, 1);
    assert_int_equal(info.messages, 1000);
    struct embar_error err = {.code = 0};
    assert_int_equal(embar_publisher_close(other, EMBAR_CLOSE_KEEP, &err), 0);
    assert_int_equal(embar_publisher_close(else_, EMBAR_CLOSE_KEEP, &err), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    embar_disconnect(d);
    embar_disconnect(e);
    close(fd);
    /* Of "t": what pub sent, in order, with other's 20 among it. */
    struct stream s = read_topic(&r, "t");
    assert_int_equal(s.size, 1020 * MESSAGE);
    uint8_t data[MESSAGE];
    unsigned next = 0, foreign = 0;
    for (size_t at = 0; at < s.size; at += MESSAGE) {
        fill(data, MESSAGE, next);
        if (memcmp(s.buf + at, data, MESSAGE) == 0) {
            next++;
            continue;
        }
        assert_memory_equal(s.buf + at, text, MESSAGE);
        foreign++;
    }
    assert_int_equal(next, 1000);
    assert_int_equal(foreign, 20);
    free(s.buf);
    rig_stop(&r);
}

/* Somebody else in the session sends a batch under a number that the publisher gives to one of its
 * own: that cannot go well, and is said instead of acknowledged. */
static void a_foreign_batch(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    struct embar_client *c;
    struct embar_publisher *pub = publisher_on(r.socket, "t", 1, &c);
    publish_some(pub, 0, 10);
    flush_all(pub);
    struct session_stat st = session_of(&r, pub);
    int fd = peer(&r, true);
    join_session(fd, "t", 1, st.id, st.epoch);
    publish(fd, 1, st.sequence + 1, st.epoch, "foreign", 7, NULL, 7);
    await_ack(fd, 1, st.sequence + 1);
    publish_some(pub, 10, 11);
    struct embar_error err = {.code = 0};
    assert_int_equal(embar_flush(pub, 120000, &err), -EMBAR_EPROTO);
    assert_non_null(strstr(err.text, "Another publisher"));
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, NULL), 0);
    embar_disconnect(c);
    close(fd);
    rig_stop(&r);
}

/* A process that resumes the session ends the one that had it, at any order: were that to go on, each
 * would be told that the other's batches are its own, which no count of messages shows here. */
static void taken_over_at(uint8_t order, unsigned connections)
{
    struct rig r = {0};
    rig_start(&r);
    make_topic(&r, order);
    struct embar_client *c;
    struct embar_publisher *pub = publisher_on(r.socket, "t", connections, &c);
    publish_some(pub, 0, 100);
    flush_all(pub);
    struct session_stat st = session_of(&r, pub);
    int fd = peer(&r, true);
    struct wire_opened o = open_topic(fd, "t", 1, WIRE_S_RESUME, st.id);
    assert_int_equal(le64_get(o.messages), 100);
    /* Under the very number that the old one gives next, and with as many messages. */
    uint8_t data[MESSAGE], late[MESSAGE] = {0};
    fill(data, MESSAGE, 100);
    publish(fd, 1, le64_get(o.sequence) + 1, le32_get(o.epoch), data, MESSAGE, NULL, 1);
    await_ack(fd, 1, le64_get(o.sequence) + 1);
    assert_int_equal(embar_publish(pub, late, MESSAGE, NULL, NULL), 0);
    struct embar_error err = {.code = 0};
    assert_int_equal(embar_flush(pub, 120000, &err), -EMBAR_ETAKEN);
    assert_non_null(strstr(err.text, "nother process"));
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, NULL), 0);
    embar_disconnect(c);
    /* Nor does a connection get in again that knew the session before. */
    uint8_t b[256];
    struct wire_open again;
    size_t n = open_bytes(b, "t", 1, WIRE_S_RESUME, st.id, 1);
    memcpy(&again, b + sizeof(struct wire_frame), sizeof(again));
    again.epoch = le32_of(st.epoch);
    memcpy(b + sizeof(struct wire_frame), &again, sizeof(again));
    int old = peer(&r, false);
    struct got g;
    struct wire_error e;
    send_bytes(old, b, n);
    expect(old, WIRE_ERROR, &g);
    memcpy(&e, g.body, sizeof(e));
    got_free(&g);
    assert_int_equal(le32_get(e.code), EMBAR_ETAKEN);
    assert_int_equal(le32_get(e.epoch), 0); /* or it would come by that */
    close(old);
    close(fd);
    topic_has(&r, "t", 101);
    rig_stop(&r);
}

static void taken_over(void **state)
{
    (void)state;
    taken_over_at(0, 1); /* several connections would mix the batches below 5 */
    taken_over_at(2, 1);
    taken_over_at(5, 1);
    taken_over_at(5, 3);
}

/* ---- The topic's order changes meanwhile --------------------------------------------------- */

static void set_order(const struct rig *r, uint8_t order)
{
    struct node_stat st;
    struct commit commit;
    assert_int_equal(log_resolve(r->log, "t", &st), 0);
    struct control k = {.kind = MEDIA_C_ATTR, .id = st.id, .flags = MEDIA_A_ORDER, .order = order};
    assert_int_equal(log_control_wait(r->log, &k, &commit), 0);
}

/* Each message once, in any order. */
static void topic_has_each(const struct rig *r, const char *topic, unsigned count)
{
    struct stream s = read_topic(r, topic);
    uint8_t data[MESSAGE];
    bool *seen = calloc(count, sizeof(*seen));
    assert_int_equal(s.size, (size_t)count * MESSAGE);
    for (unsigned i = 0; i < count; i++) {
        unsigned at = 0;
        fill(data, MESSAGE, i);
        while (at < count && (seen[at] || memcmp(s.buf + (size_t)at * MESSAGE, data, MESSAGE) != 0))
            at++;
        assert_true(at < count);
        seen[at] = true;
    }
    free(seen);
    free(s.buf);
}

static void orders_change(unsigned connections)
{
    static const uint8_t orders[] = {0, 5, 2, 5, 0, 2};
    enum { EACH = 100, ROUNDS = 24 };
    struct rig r = {.hold_ms = 3600000};
    rig_start(&r);
    struct embar_client *c;
    struct embar_publisher *pub = publisher_on(r.socket, "t", connections, &c);
    for (unsigned i = 0; i < ROUNDS; i++) {
        publish_some(pub, i * EACH, (i + 1) * EACH);
        set_order(&r, orders[i % 6]);
    }
    flush_all(pub);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.messages, ROUNDS * EACH);
    assert_int_equal(info.fences, 0);
    struct embar_error err = {.code = 0};
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    if (connections == 1)
        topic_has(&r, "t", ROUNDS * EACH);
    else
        topic_has_each(&r, "t", ROUNDS * EACH);
    rig_stop(&r);
}

static void the_order_changes(void **state)
{
    (void)state;
    orders_change(1);
    orders_change(3);
}

/* To 5 with a batch behind a gap, and a second gap that nobody fills: the fence's number stands above
 * batches that never came. They must not pass for committed. */
static void the_order_changes_over_a_gap(void **state)
{
    (void)state;
    struct rig r = {.hold_ms = 50};
    rig_start(&r);
    struct embar_client *c;
    make_topic(&r, 0);
    struct embar_publisher *pub = publisher_on(r.socket, "t", 1, &c);
    publish_some(pub, 0, 100);
    flush_all(pub);
    struct session_stat st = session_of(&r, pub);
    int fd = peer(&r, true);
    uint8_t text[MESSAGE];
    fill(text, MESSAGE, 100);
    join_session(fd, "t", 1, st.id, st.epoch);
    publish(fd, 1, st.sequence + 3, st.epoch, text, MESSAGE, NULL, 1);
    struct got g;
    assert_true(receive(fd, &g)); /* its bit */
    assert_int_equal(g.f.type, WIRE_ACK);
    got_free(&g);
    set_order(&r, 5);
    publish(fd, 1, st.sequence + 5, st.epoch, text, MESSAGE, NULL, 1);
    assert_int_equal(expect_error(fd), EMBAR_EFENCED);
    for (unsigned i = 0; i < 10; i++) {
        struct iovec iov = {text, MESSAGE};
        int rc = embar_publish_batch(pub, &iov, 1, NULL, 1, NULL, NULL);
        assert_true(rc == 0 || rc == -EMBAR_EFENCED);
    }
    struct embar_error err = {.code = 0};
    assert_int_equal(embar_flush(pub, 120000, &err), -EMBAR_EFENCED);
    assert_non_null(strstr(err.text, "behind a gap"));
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.done_messages, 100);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, NULL), 0);
    embar_disconnect(c);
    close(fd);
    topic_has(&r, "t", 101);
    rig_stop(&r);
}

/* ---- A connection that stands still -------------------------------------------------------- */

/* Between the publisher and the server; its second connection stops being read after a while. */
struct between {
    const struct rig *rig;
    char path[256];
    int listener;
    pthread_t thread;
    struct pipe_ {
        int from, to;
        bool stops;
        unsigned batches;
        pthread_t thread;
    } pipes[64];
    unsigned count;
};

static bool take_all(int fd, uint8_t *b, size_t n)
{
    return recv(fd, b, n, MSG_WAITALL) == (ssize_t)n;
}

/* One frame on. False: there is none. */
static bool copy_frame(struct pipe_ *p, uint8_t *b, size_t size)
{
    struct wire_frame f;
    if (!take_all(p->from, b, sizeof(f)))
        return false;
    memcpy(&f, b, sizeof(f));
    size_t n = le32_get(f.length);
    assert_true(sizeof(f) + n <= size);
    if (!take_all(p->from, b + sizeof(f), n))
        return false;
    p->batches += f.type == WIRE_PUBLISH;
    send_bytes(p->to, b, sizeof(f) + n);
    return true;
}

static void *copy_on(void *arg)
{
    struct pipe_ *p = arg;
    uint8_t b[65536];
    ssize_t n = 1;
    while (p->stops && copy_frame(p, b, sizeof(b)))
        if (p->batches == 2)
            return NULL; /* between two frames; both sides stay open */
    while (!p->stops && (n = recv(p->from, b, sizeof(b), 0)) > 0)
        send_bytes(p->to, b, (size_t)n);
    shutdown(p->to, SHUT_RDWR);
    shutdown(p->from, SHUT_RDWR);
    return NULL;
}

static void *accept_on(void *arg)
{
    struct between *w = arg;
    for (unsigned n = 0;; n++) {
        int from = accept(w->listener, NULL, NULL);
        if (from < 0)
            return NULL;
        int to = dial_unix(w->rig);
        struct timeval never = {0};
        setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never));
        assert_true(w->count + 2 <= sizeof(w->pipes) / sizeof(w->pipes[0]));
        /* The first is the client's own, the second and third the publisher's. */
        for (unsigned way = 0; way < 2; way++) {
            struct pipe_ *p = &w->pipes[w->count++];
            p->from = way ? to : from;
            p->to = way ? from : to;
            p->stops = n == 2 && way == 0;
            assert_int_equal(pthread_create(&p->thread, NULL, copy_on, p), 0);
        }
    }
}

static void between_start(struct between *w, const struct rig *r)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    w->rig = r;
    assert_true(snprintf(w->path, sizeof(w->path), "%s/between", r->dir) <
                (int)sizeof(un.sun_path));
    memcpy(un.sun_path, w->path, strlen(w->path) + 1);
    w->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(w->listener, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(w->listener, 64), 0);
    assert_int_equal(pthread_create(&w->thread, NULL, accept_on, w), 0);
}

static void between_stop(struct between *w)
{
    shutdown(w->listener, SHUT_RDWR);
    pthread_join(w->thread, NULL);
    close(w->listener);
    for (unsigned i = 0; i < w->count; i++)
        shutdown(w->pipes[i].from, SHUT_RDWR);
    for (unsigned i = 0; i < w->count; i++)
        pthread_join(w->pipes[i].thread, NULL);
    for (unsigned i = 0; i < w->count; i += 2) {
        close(w->pipes[i].from);
        close(w->pipes[i].to);
    }
    assert_int_equal(unlink(w->path), 0);
}

static void a_connection_that_stands_still(void **state)
{
    (void)state;
    struct rig r = {.hold_ms = 200, .spec = "mem:256M"};
    struct between w = {.count = 0};
    rig_start(&r);
    between_start(&w, &r);
    struct embar_client *c;
    struct embar_publisher *pub = publisher_on(w.path, "t", 2, &c);
    /* Until it has happened; the window stops us while the gap is there. */
    struct embar_publisher_info info = {.fences = 0};
    unsigned count = 0;
    while (info.fences == 0) {
        assert_true(count < 1000000);
        publish_some(pub, count, count + 100);
        count += 100;
        embar_publisher_info(pub, &info);
    }
    publish_some(pub, count, count + 1000);
    count += 1000;
    flush_all(pub);
    struct embar_error err = {.code = 0};
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    topic_has(&r, "t", count);
    between_stop(&w);
    rig_stop(&r);
}

/* Nobody takes a session over any more when its epochs are used up: that is said to who asks, its owner
 * goes on, and there are other sessions. */
static void taken_over_too_often(void **state)
{
    (void)state;
    struct rig r = {0};
    rig_start(&r);
    int fd = peer(&r, true), other = peer(&r, true);
    uint64_t id = le64_get(open_topic(fd, "t", 1, WIRE_S_NEW, 0).session);
    seq_take_wait(r.log);
    session_fence(r.log, session_find(r.log, id), UINT32_MAX);
    seq_give(r.log);
    uint8_t b[256];
    size_t n = open_bytes(b, "t", 1, WIRE_S_RESUME, id, 1);
    for (unsigned i = 0; i < 2; i++) {
        send_bytes(other, b, n);
        assert_int_equal(expect_error(other), EMBAR_ELIMIT);
    }
    join_session(other, "t", 1, id, UINT32_MAX);
    publish(other, 1, 1, UINT32_MAX, "one", 3, NULL, 1);
    await_ack(other, 1, 1);
    (void)open_topic(other, "t", 2, WIRE_S_NEW, 0);
    struct stream bytes = read_topic(&r, "t");
    assert_int_equal(bytes.size, 3);
    assert_memory_equal(bytes.buf, "one", 3);
    free(bytes.buf);
    close(fd);
    close(other);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_foreign_gap),
        cmocka_unit_test(a_foreign_batch),
        cmocka_unit_test(taken_over),
        cmocka_unit_test(taken_over_too_often),
        cmocka_unit_test(the_order_changes),
        cmocka_unit_test(the_order_changes_over_a_gap),
        cmocka_unit_test(a_connection_that_stands_still),
    };
    return cmocka_run_group_tests_name("server fence", tests, NULL, NULL);
}
