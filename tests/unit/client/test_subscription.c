/* A subscription against a broker that cuts frames in half: every message once, in order, whole,
 * with its number and offset; and the end when the pool behind it is another one. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "peer.h"

#define MESSAGES 3000

static size_t message(char *buf, unsigned i)
{
    int n = sprintf(buf, "%u:", i);
    memset(buf + n, 'a' + (int)(i % 26), i * 7919 % 301);
    return (size_t)n + i * 7919 % 301;
}

static struct embar_client *start(struct peer *p)
{
    struct embar_client *c;
    struct embar_publisher *pub;
    struct embar_error err = {.code = 0};
    peer_start(p);
    struct embar_options o = {.server = p->path, .reconnect_ms = 120000};
    struct embar_publisher_options po = EMBAR_PUBLISHER_OPTIONS;
    po.batch_bytes = 3000;
    assert_int_equal(embar_connect(&c, &o, &err), 0);
    assert_int_equal(embar_publisher_open(&pub, c, "t", &po, &err), 0);
    char buf[512];
    for (unsigned i = 0; i < MESSAGES; i++)
        assert_int_equal(embar_publish(pub, buf, message(buf, i), NULL, NULL), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    return c;
}

static struct embar_subscription *subscribe(struct embar_client *c, bool follow)
{
    struct embar_subscription *s;
    struct embar_error err = {.code = 0};
    struct embar_subscribe_options o = {.follow = follow};
    if (embar_subscribe(&s, c, "t", &o, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

static void expect(const struct embar_message *m, unsigned i, uint64_t *offset)
{
    char buf[512];
    assert_int_equal(m->length, message(buf, i));
    assert_memory_equal(m->data, buf, m->length);
    assert_int_equal(m->message, i);
    assert_int_equal(m->offset, *offset);
    *offset += m->length;
}

static void read_all(struct peer *p)
{
    struct embar_client *c = start(p);
    struct embar_subscription *s = subscribe(c, false);
    struct embar_message m;
    struct embar_error err = {.code = 0};
    uint64_t offset = 0;
    for (unsigned i = 0; i < MESSAGES; i++) {
        if (embar_next(s, &m, -1, &err) != 1)
            fail_msg("message %u: %s", i, err.text);
        expect(&m, i, &offset);
    }
    assert_int_equal(embar_next(s, &m, -1, &err), 0);
    assert_int_equal(embar_next(s, &m, -1, &err), 0);
    struct embar_sub_info info;
    embar_sub_info(s, &info);
    assert_int_equal(info.offset, offset);
    assert_true(p->cut_data ? info.reconnects > 3 : info.reconnects == 0);
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(p);
}

static void messages_come_in_order(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    read_all(&p);
}

static void frames_cut_in_half_are_asked_for_again(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .cut_data = 17};
    read_all(&p);
}

static void batches_and_messages_mix(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .cut_data = 29};
    struct embar_client *c = start(&p);
    struct embar_subscription *s = subscribe(c, false);
    struct embar_message m;
    struct embar_batch b;
    struct embar_error err = {.code = 0};
    uint64_t offset = 0;
    unsigned i = 0;
    while (i < MESSAGES) {
        assert_int_equal(embar_next(s, &m, -1, &err), 1);
        expect(&m, i++, &offset);
        if (i == MESSAGES)
            break;
        assert_int_equal(embar_next_batch(s, &b, -1, &err), 1);
        const char *at = b.data;
        assert_int_equal(b.offset, offset);
        for (uint32_t k = 0; k < b.count; k++) {
            struct embar_message one = {at, b.lengths ? b.lengths[k] : b.length / b.count, offset,
                                        b.message + k, b.time};
            expect(&one, i++, &offset);
            at += one.length;
        }
        assert_int_equal(at - (const char *)b.data, b.length);
    }
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(&p);
}

static void the_poll_descriptor_leads_over_a_break(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .cut_data = 41};
    struct embar_client *c = start(&p);
    struct embar_subscription *s = subscribe(c, true);
    int fd = embar_sub_fd(s);
    struct embar_message m;
    struct embar_error err = {.code = 0};
    uint64_t offset = 0;
    for (unsigned i = 0; i < MESSAGES;) {
        int rc = embar_next(s, &m, 0, &err);
        if (rc == 1) {
            expect(&m, i++, &offset);
            continue;
        }
        assert_int_equal(rc, -ETIMEDOUT);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 120000), 1);
        assert_int_equal(embar_sub_fd(s), fd);
    }
    assert_int_equal(embar_next(s, &m, 30, &err), -ETIMEDOUT); /* following: no end */
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(&p);
}

static void another_pool_ends_it(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p);
    struct embar_subscription *s = subscribe(c, true);
    struct embar_message m;
    struct embar_error err = {.code = 0};
    uint64_t offset = 0;
    for (unsigned i = 0; i < MESSAGES; i++) {
        assert_int_equal(embar_next(s, &m, -1, &err), 1);
        expect(&m, i, &offset);
    }
    pthread_mutex_lock(&p.lock);
    p.incarnation = 2;
    for (unsigned i = 0; i < p.count; i++)
        shutdown(p.fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p.lock);
    assert_int_equal(embar_next(s, &m, -1, &err), -EMBAR_EINCARNATION);
    assert_int_equal(embar_next(s, &m, -1, &err), -EMBAR_EINCARNATION);
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_in_order),
        cmocka_unit_test(frames_cut_in_half_are_asked_for_again),
        cmocka_unit_test(batches_and_messages_mix),
        cmocka_unit_test(the_poll_descriptor_leads_over_a_break),
        cmocka_unit_test(another_pool_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
