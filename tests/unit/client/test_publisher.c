/* A publisher against a broker that breaks connections, fences and refuses: what was accepted is
 * there once, in order, byte for byte; or every callback tells why not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "net/wire.h"
#include "peer.h"
#include "told.h"

#define MESSAGES 4000

static void expect_all(struct peer *p, unsigned count)
{
    size_t n, at = 0;
    unsigned char *bytes = peer_bytes(p, &n);
    char buf[512];
    for (unsigned i = 0; i < count; i++) {
        size_t length = message(buf, i);
        assert_true(at + length <= n);
        assert_memory_equal(bytes + at, buf, length);
        at += length;
    }
    assert_int_equal(at, n);
    free(bytes);
}

/* Publish through the script of p over that many connections; all must arrive. */
static struct embar_publisher_info arrive(struct peer *p, unsigned connections)
{
    struct told told = {0};
    struct one *ones = calloc(MESSAGES, sizeof(*ones));
    struct embar_error err = {.code = 0};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 4096;
    o.connections = connections;
    o.window = 64 << 10;
    peer_start(p);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    publish_all(pub, &told, ones, MESSAGES);
    if (embar_flush(pub, -1, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(told.good, MESSAGES);
    assert_int_equal(told.bad, 0);
    assert_false(told.disorder);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.done_messages, MESSAGES);
    assert_int_equal(info.messages, MESSAGES);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    expect_all(p, MESSAGES);
    assert_true(p->forgotten); /* an automatic session ends with a clean close */
    free(ones);
    return info;
}

static void one_connection(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    (void)arrive(&p, 1);
    peer_stop(&p);
}

static void four_connections(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    (void)arrive(&p, 4);
    peer_stop(&p);
}

static void connections_break_all_the_time(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 9, .hello_refusals = 5};
    struct embar_publisher_info info = arrive(&p, 1);
    assert_true(info.reconnects > 5);
    peer_stop(&p);
}

static void four_connections_break_all_the_time(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 23};
    (void)arrive(&p, 4);
    peer_stop(&p);
}

static void a_fence_is_taken_and_all_above_sent_again(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .fence_at = 40};
    struct embar_publisher_info info = arrive(&p, 1);
    assert_int_equal(info.fences, 1);
    assert_int_equal(info.epoch, 2);
    peer_stop(&p);
}

static void a_fence_over_four_connections(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .fence_at = 40};
    struct embar_publisher_info info = arrive(&p, 4);
    assert_int_equal(info.fences, 1);
    peer_stop(&p);
}

static void damage_on_the_way_is_sent_again(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .damage = 2};
    (void)arrive(&p, 1);
    peer_stop(&p);
}

/* Publish against a script that must end the publisher with this code. */
static void expect_end(struct peer *p, const struct embar_publisher_options *o,
                       unsigned reconnect_ms, int code)
{
    struct told told = {0};
    struct one ones[64];
    struct embar_error err = {.code = 0};
    char buf[512];
    peer_start(p);
    struct embar_client *c = connect_to(p, reconnect_ms);
    struct embar_publisher *pub = open_on(c, o);
    unsigned taken = 0;
    while (taken < 64) {
        ones[taken] = (struct one){&told, taken, 0};
        if (embar_publish(pub, buf, message(buf, taken), on_done, &ones[taken]) < 0)
            break;
        taken++;
    }
    assert_int_equal(embar_flush(pub, -1, &err), code);
    assert_int_equal(err.code, code);
    assert_true(strlen(err.text) > 10);
    assert_int_equal(told.good + told.bad, taken); /* each was told, once */
    assert_true(told.bad > 0);
    assert_int_equal(told.code, code);
    assert_false(told.disorder);
    assert_int_equal(embar_publish(pub, "x", 1, NULL, NULL), code);
    assert_int_equal(embar_publish_wait(pub, "x", 1, &err), code);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), code);
    embar_disconnect(c);
}

static void a_refusal_ends_it_with_its_sentence(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .refuse_at = 3, .refuse_code = EMBAR_EGONE};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 1000;
    expect_end(&p, &o, 120000, -EMBAR_EGONE);
    peer_stop(&p);
}

static void damage_for_ever_ends_it(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .damage = 1000};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    expect_end(&p, &o, 120000, -EMBAR_ECRC);
    peer_stop(&p);
}

static void an_unreachable_broker_ends_it_at_the_deadline(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 2, .hello_refusals = 1000000};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 1000;
    expect_end(&p, &o, 300, -ETIMEDOUT);
    peer_stop(&p);
}

static void without_a_session_a_break_is_told(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 4};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 1000;
    o.session = EMBAR_SESSION_NONE;
    expect_end(&p, &o, 120000, -ECONNRESET);
    peer_stop(&p);
}

static void a_socket_file_that_is_away_for_a_while_is_waited_for(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_error err = {.code = 0};
    char away[128];
    peer_start(&p);
    snprintf(away, sizeof(away), "%s.away", p.path);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    assert_int_equal(rename(p.path, away), 0);
    pthread_mutex_lock(&p.lock);
    for (unsigned i = 0; i < p.count; i++)
        shutdown(p.fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p.lock);
    assert_int_equal(embar_publish(pub, "x\n", 2, NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, 100, &err), -ETIMEDOUT); /* tries meanwhile */
    assert_int_equal(rename(away, p.path), 0);
    if (embar_flush(pub, -1, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    peer_stop(&p);
}

static void another_incarnation_ends_it(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .mute = true};
    struct embar_error err;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    assert_int_equal(embar_publish(pub, "x\n", 2, NULL, NULL), 0);
    pthread_mutex_lock(&p.lock);
    while (p.committed == 0)
        pthread_cond_wait(&p.moved, &p.lock);
    p.incarnation = 2;
    for (unsigned i = 0; i < p.count; i++)
        shutdown(p.fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p.lock);
    assert_int_equal(embar_flush(pub, -1, &err), -EMBAR_EINCARNATION);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, NULL), -EMBAR_EINCARNATION);
    embar_disconnect(c);
    peer_stop(&p);
}

static void a_session_is_resumed_by_message_count(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_error err;
    struct told told = {0};
    struct one ones[200];
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.session = EMBAR_SESSION_NEW;
    o.batch_bytes = 700;
    struct embar_publisher *pub = open_on(c, &o);
    publish_all(pub, &told, ones, 100);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    assert_false(p.forgotten);

    o.session = EMBAR_SESSION_RESUME;
    o.session_id = p.session;
    o.batch_bytes = 3000; /* other batches this time */
    pub = open_on(c, &o);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.resumed, 100);
    char buf[512];
    for (unsigned i = (unsigned)info.resumed; i < 200; i++)
        assert_int_equal(embar_publish(pub, buf, message(buf, i), NULL, NULL), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_FORGET, &err), 0);
    assert_true(p.forgotten);
    expect_all(&p, 200);

    o.session_id = 12345;
    assert_int_equal(embar_publisher_open(&pub, c, "a/topic", &o, &err), -EMBAR_ESESSION);
    assert_null(pub);
    embar_disconnect(c);
    peer_stop(&p);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_error err;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    struct embar_publisher *pub;
    o.ack = 3;
    assert_int_equal(embar_publisher_open(&pub, c, "t", &o, &err), -EMBAR_EACK);
    o.ack = 0;
    o.session = EMBAR_SESSION_NEW;
    assert_int_equal(embar_publisher_open(&pub, c, "t", &o, &err), -EMBAR_EACK);
    assert_int_equal(embar_publisher_open(&pub, c, "", NULL, &err), -EMBAR_ENAME);
    pub = open_on(c, NULL);
    static char big[(1 << 20) + 1];
    struct iovec iov = {big, 10};
    uint32_t lengths[3] = {4, 5, 2}, zero[2] = {10, 0};
    assert_int_equal(embar_publish(pub, big, 0, NULL, NULL), -EMBAR_EINVALID);
    assert_int_equal(embar_publish(pub, big, sizeof(big), NULL, NULL), -EMBAR_ETOOBIG);
    assert_int_equal(embar_publish_wait(pub, big, sizeof(big), &err), -EMBAR_ETOOBIG);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, lengths, 3, NULL, NULL), -EMBAR_EINVALID);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, zero, 2, NULL, NULL), -EMBAR_EINVALID);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 3, NULL, NULL), -EMBAR_EINVALID);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 0, NULL, NULL), -EMBAR_EINVALID);
    assert_int_equal(embar_publish_batch(pub, &iov, 0, NULL, 1, NULL, NULL), -EMBAR_EINVALID);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 65537, NULL, NULL), -EMBAR_ETOOBIG);
    assert_int_equal(embar_publish_wait(pub, big, 1 << 20, &err), 0); /* the largest there is */
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    peer_stop(&p);
}

static void own_buffers_go_out_in_order_with_copied_ones(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 7};
    struct embar_error err;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    static char text[300][512];
    for (unsigned i = 0; i < 300; i += 3) {
        size_t a = message(text[i], i), b = message(text[i + 1], i + 1);
        uint32_t lengths[2] = {(uint32_t)a, (uint32_t)b};
        struct iovec iov[3] = {{text[i], 1}, {text[i] + 1, a - 1}, {text[i + 1], b}};
        assert_int_equal(embar_publish_batch(pub, iov, 3, lengths, 2, NULL, NULL), 0);
        assert_int_equal(embar_publish(pub, text[i + 2], message(text[i + 2], i + 2), NULL, NULL),
                         0);
    }
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    expect_all(&p, 300);
    embar_disconnect(c);
    peer_stop(&p);
}

static void a_full_window_says_so(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .mute = true};
    struct told told = {0};
    struct one ones[1000];
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 1000;
    o.window = 5000;
    o.nonblocking = true;
    struct embar_publisher *pub = open_on(c, &o);
    char buf[512];
    unsigned taken = 0;
    int rc;
    do {
        ones[taken] = (struct one){&told, taken, 0};
        rc = embar_publish(pub, buf, message(buf, taken), on_done, &ones[taken]);
    } while (rc == 0 && ++taken < 1000);
    assert_int_equal(rc, -EAGAIN);
    struct embar_error err;
    assert_int_equal(embar_flush(pub, 20, &err), -ETIMEDOUT);
    assert_int_equal(told.good + told.bad, 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, &err), -ECANCELED);
    assert_int_equal(told.bad, taken);
    assert_int_equal(told.code, -ECANCELED);
    embar_disconnect(c);
    peer_stop(&p);
}

static void ack_0_is_done_when_it_is_written(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_error err;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.ack = 0;
    struct embar_publisher *pub = open_on(c, &o);
    char buf[512];
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(embar_publish(pub, buf, message(buf, i), NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, -1, &err), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    pthread_mutex_lock(&p.lock);
    while (p.messages < 500)
        pthread_cond_wait(&p.moved, &p.lock);
    pthread_mutex_unlock(&p.lock);
    expect_all(&p, 500);
    embar_disconnect(c);
    peer_stop(&p);
}

static void *publish_some(void *arg)
{
    struct embar_publisher *pub = arg;
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(embar_publish(pub, "twelve bytes", 12, NULL, NULL), 0);
    return NULL;
}

static void an_older_broker_is_refused(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .older = 1};
    peer_start(&p);
    struct embar_client *c;
    struct embar_error err;
    struct embar_options o = {.server = p.path};
    assert_int_equal(embar_connect(&c, &o, &err), -EMBAR_EVERSION);
    char words[40];
    snprintf(words, sizeof(words), "speaks protocol version %u", WIRE_VERSION - 1);
    assert_non_null(strstr(err.text, words));
    peer_stop(&p);
}

/* What the topic says about acks holds for who leaves it the choice, and with it the session. */
static void the_topic_may_choose_the_ack(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .topic_ack = 0 + 1};
    struct embar_error err;
    struct embar_publisher_info info;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    embar_publisher_info(pub, &info);
    assert_int_equal(info.ack, 0);
    assert_int_equal(info.session, 0);
    assert_int_equal(embar_publish_wait(pub, "x", 1, &err), 0); /* written is done */
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.ack = 1;
    pub = open_on(c, &o);
    embar_publisher_info(pub, &info);
    assert_int_equal(info.ack, 1);
    assert_true(info.session != 0);
    assert_int_equal(embar_publish_wait(pub, "y", 1, &err), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    peer_stop(&p);
}

static void several_threads_share_one(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_error err;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 500;
    o.window = 3000;
    o.connections = 2;
    struct embar_publisher *pub = open_on(c, &o);
    pthread_t t[4];
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, publish_some, pub), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    size_t n;
    unsigned char *bytes = peer_bytes(&p, &n);
    assert_int_equal(n, 4 * 500 * 12);
    for (size_t i = 0; i < n; i += 12)
        assert_memory_equal(bytes + i, "twelve bytes", 12);
    free(bytes);
    peer_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_connection),
        cmocka_unit_test(four_connections),
        cmocka_unit_test(connections_break_all_the_time),
        cmocka_unit_test(four_connections_break_all_the_time),
        cmocka_unit_test(a_fence_is_taken_and_all_above_sent_again),
        cmocka_unit_test(a_fence_over_four_connections),
        cmocka_unit_test(damage_on_the_way_is_sent_again),
        cmocka_unit_test(a_refusal_ends_it_with_its_sentence),
        cmocka_unit_test(damage_for_ever_ends_it),
        cmocka_unit_test(an_unreachable_broker_ends_it_at_the_deadline),
        cmocka_unit_test(without_a_session_a_break_is_told),
        cmocka_unit_test(a_socket_file_that_is_away_for_a_while_is_waited_for),
        cmocka_unit_test(another_incarnation_ends_it),
        cmocka_unit_test(a_session_is_resumed_by_message_count),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(own_buffers_go_out_in_order_with_copied_ones),
        cmocka_unit_test(a_full_window_says_so),
        cmocka_unit_test(ack_0_is_done_when_it_is_written),
        cmocka_unit_test(an_older_broker_is_refused),
        cmocka_unit_test(the_topic_may_choose_the_ack),
        cmocka_unit_test(several_threads_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
