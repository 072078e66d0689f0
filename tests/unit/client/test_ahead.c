/* A publisher at order 2, where batches are committed as they arrive: those behind a gap are done at
 * once and never sent again, those that were lost are, and each is there once. A broker that
 * acknowledges what was not sent is not believed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "told.h"

#define MESSAGES 4000

/* Every message once, whatever their order. */
static void expect_each(struct peer *p)
{
    size_t n;
    unsigned char *bytes = peer_bytes(p, &n);
    bool *seen = calloc(MESSAGES, sizeof(*seen));
    size_t at = 0;
    unsigned count = 0;
    for (; at < n; count++) {
        char buf[512];
        unsigned long i = strtoul((char *)bytes + at, NULL, 10);
        assert_true(i < MESSAGES);
        assert_false(seen[i]);
        seen[i] = true;
        size_t length = message(buf, (unsigned)i);
        assert_true(at + length <= n);
        assert_memory_equal(bytes + at, buf, length);
        at += length;
    }
    assert_int_equal(count, MESSAGES);
    free(seen);
    free(bytes);
}

static struct embar_publisher_options options(unsigned connections)
{
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = 4096;
    o.connections = connections;
    o.window = 64 << 10;
    return o;
}

static struct embar_publisher_info arrive(struct peer *p, unsigned connections)
{
    struct told told = {0};
    struct one *ones = calloc(MESSAGES, sizeof(*ones));
    struct embar_error err = {.code = 0};
    struct embar_publisher_options o = options(connections);
    peer_start(p);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    publish_all(pub, &told, ones, MESSAGES);
    if (embar_flush(pub, 60000, &err) < 0)
        fail_msg("%s", err.text);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.done_messages, MESSAGES);
    assert_int_equal(info.order, 2);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    assert_int_equal(told.good, MESSAGES);
    assert_int_equal(told.bad, 0);
    for (unsigned i = 0; i < MESSAGES; i++)
        assert_int_equal(ones[i].times, 1);
    expect_each(p);
    assert_int_equal(p->resent, 0);
    free(ones);
    return info;
}

static void each_arrives_once(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true};
    (void)arrive(&p, 4);
    peer_stop(&p);
}

static void what_was_lost_is_sent_again_and_nothing_else(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .lose_every = 13, .lose_below = 120};
    struct embar_publisher_info info = arrive(&p, 1);
    assert_true(info.reconnects >= 5);
    peer_stop(&p);
}

static void the_same_over_four_connections(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .lose_every = 13, .lose_below = 120};
    struct embar_publisher_info info = arrive(&p, 4);
    assert_true(info.reconnects >= 1);
    peer_stop(&p);
}

static void await_done(struct embar_publisher *pub, unsigned messages)
{
    struct timespec nap = {.tv_nsec = 1000000};
    struct embar_publisher_info info;
    for (unsigned i = 0; i < 120000; i++) {
        embar_publisher_info(pub, &info);
        if (info.done_messages >= messages)
            break;
        nanosleep(&nap, NULL);
    }
    assert_int_equal(info.done_messages, messages);
}

/* A lost batch keeps the mark, and nothing else, waiting: what follows is told meanwhile. */
static void done_is_told_ahead_of_a_gap(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .lose_every = 3, .lose_below = 4};
    struct told told = {0};
    struct one ones[6];
    struct embar_error err = {.code = 0};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher_options o = options(1);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < 6; i++) {
        /* One batch each: 3 is lost, and its connection stays. */
        ones[i] = (struct one){&told, i, 0};
        char buf[512];
        struct iovec iov = {buf, message(buf, i)};
        assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, on_done, &ones[i]), 0);
        await_done(pub, i < 2 ? i + 1 : i);
        if (i >= 2)
            assert_int_equal(embar_flush(pub, 20, &err), -ETIMEDOUT);
    }
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.messages, 2);
    assert_int_equal(info.in_flight, 1);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, &err), -ECANCELED);
    assert_int_equal(told.good, 5);
    assert_int_equal(told.bad, 1);
    embar_disconnect(c);
    peer_stop(&p);
}

/* The order was another meanwhile, and a gap fenced the session: without one before it all goes on. */
static void a_fence_is_gone_on_from(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .fence_at = 40};
    struct embar_publisher_info info = arrive(&p, 1);
    assert_int_equal(info.fences, 1);
    peer_stop(&p);
}

/* Six batches of a message each: the fence for the last one is the end, and so many are done. */
static void fenced_over_a_gap(struct peer *p, unsigned done)
{
    struct told told = {0};
    struct one ones[6];
    static char buf[6][512]; /* sent again later */
    struct embar_error err = {.code = 0};
    peer_start(p);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher_options o = options(1);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < 6; i++) {
        ones[i] = (struct one){&told, i, 0};
        struct iovec iov = {buf[i], message(buf[i], i)};
        assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, on_done, &ones[i]), 0);
    }
    assert_int_equal(embar_flush(pub, 120000, &err), -EMBAR_EFENCED);
    assert_non_null(strstr(err.text, "behind a gap"));
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, &err), 0);
    assert_int_equal(told.good, done);
    assert_int_equal(told.bad, 6 - done);
    embar_disconnect(c);
    peer_stop(p);
}

/* With one, what is missing below the fence's number must not pass for committed. */
static void a_fence_over_a_gap_is_the_end(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .missing = 1 << 3, .fence_at = 6};
    fenced_over_a_gap(&p, 4);
}

/* Nor where the counts agree: one that was not told is committed by then, another is not. */
static void a_fence_over_gaps_that_count_right(void **state)
{
    (void)state;
    struct peer p = {
        .incarnation = 1, .loose = true, .missing = 1 << 2 | 1 << 4, .late = 1 << 2, .fence_at = 6};
    fenced_over_a_gap(&p, 3);
}

static void expect_disbelief(struct peer *p, unsigned connections)
{
    struct told told = {0};
    struct one *ones = calloc(MESSAGES, sizeof(*ones));
    struct embar_error err = {.code = 0};
    struct embar_publisher_options o = options(connections);
    peer_start(p);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    char buf[512];
    unsigned taken = 0;
    for (; taken < MESSAGES; taken++) {
        ones[taken] = (struct one){&told, taken, 0};
        if (embar_publish(pub, buf, message(buf, taken), on_done, &ones[taken]) < 0)
            break;
    }
    assert_int_equal(embar_flush(pub, 60000, &err), -EMBAR_EPROTO);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), -EMBAR_EPROTO);
    embar_disconnect(c);
    for (unsigned i = 0; i < taken; i++)
        assert_int_equal(ones[i].times, 1);
    assert_true(told.bad > 0);
    free(ones);
    peer_stop(p);
}

static void an_ack_of_what_was_never_sent(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .lie = LIE_UNSENT, .lie_at = 9};
    expect_disbelief(&p, 1);
}

static void an_ack_of_what_another_connection_sent(void **state)
{
    (void)state;
    struct peer p = {
        .incarnation = 1, .loose = true, .lose_every = 8, .lose_below = 100, .lie = LIE_OTHERS};
    expect_disbelief(&p, 4);
}

static void an_ack_whose_words_are_not_there(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .lie = LIE_LENGTH, .lie_at = 9};
    expect_disbelief(&p, 1);
}

static void an_ack_with_too_many_words(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .loose = true, .lie = LIE_WORDS, .lie_at = 9};
    expect_disbelief(&p, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_arrives_once),
        cmocka_unit_test(what_was_lost_is_sent_again_and_nothing_else),
        cmocka_unit_test(the_same_over_four_connections),
        cmocka_unit_test(done_is_told_ahead_of_a_gap),
        cmocka_unit_test(a_fence_is_gone_on_from),
        cmocka_unit_test(a_fence_over_a_gap_is_the_end),
        cmocka_unit_test(a_fence_over_gaps_that_count_right),
        cmocka_unit_test(an_ack_of_what_was_never_sent),
        cmocka_unit_test(an_ack_of_what_another_connection_sent),
        cmocka_unit_test(an_ack_whose_words_are_not_there),
        cmocka_unit_test(an_ack_with_too_many_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
