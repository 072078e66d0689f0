/* Several threads on one publisher, each with a batch of its own: every message arrives once, each
 * thread's in its order, whoever flushes and whichever thread ends. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "peer.h"
#include "told.h"

#define THREADS 6u
#define EACH    3000u

struct producer {
    struct embar_publisher *pub;
    unsigned index;
    atomic_uint told; /* callbacks so far, in order */
    atomic_bool disorder;
    pthread_t id;
};
struct number {
    struct producer *of;
    unsigned n;
};

static void on_number(void *arg, const struct embar_error *err)
{
    struct number *m = arg;
    if (err || atomic_fetch_add(&m->of->told, 1) != m->n)
        m->of->disorder = true;
}

/* Thread t's message n: of a length that tells nothing, filled with what nobody else writes. */
static size_t text_of(char *buf, unsigned t, unsigned n)
{
    size_t length = (size_t)sprintf(buf, "%u %u ", t, n);
    size_t rest = n * 2654435761u % 120;
    memset(buf + length, 'a' + (int)t, rest);
    buf[length + rest] = '\n';
    return length + rest + 1;
}

static struct number *numbers;

static void *produce(void *arg)
{
    struct producer *w = arg;
    char buf[200];
    for (unsigned n = 0; n < EACH; n++) {
        struct number *m = &numbers[w->index * EACH + n];
        *m = (struct number){w, n};
        size_t length = text_of(buf, w->index, n);
        int rc;
        if (n % 100 == 99) { /* its own batch, between copied ones */
            struct iovec iov = {malloc(length), length};
            memcpy(iov.iov_base, buf, length);
            rc = embar_publish_batch(w->pub, &iov, 1, NULL, 1, on_number, m);
            if (rc == 0)
                rc = embar_flush(w->pub, -1, NULL);
            free(iov.iov_base);
        } else {
            rc = embar_publish(w->pub, buf, length, on_number, m);
        }
        if (rc < 0)
            fail_msg("%s", embar_strerror(rc));
    }
    return NULL;
}

/* Every line is whole, each thread's come in their order, and none is missing. */
static void expect_lines(struct peer *p, unsigned threads)
{
    size_t n, at = 0;
    unsigned next[THREADS] = {0};
    unsigned char *bytes = peer_bytes(p, &n);
    char buf[200];
    while (at < n) {
        char *end;
        unsigned long t = strtoul((char *)bytes + at, &end, 10);
        assert_true(t < threads);
        size_t length = text_of(buf, (unsigned)t, next[t]++);
        assert_true(at + length <= n);
        assert_memory_equal(bytes + at, buf, length);
        at += length;
    }
    for (unsigned t = 0; t < threads; t++)
        assert_int_equal(next[t], EACH);
    free(bytes);
}

static void arrive(struct peer *p, unsigned connections, size_t batch, size_t window)
{
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    struct embar_error err = {.code = 0};
    static struct producer w[THREADS];
    o.connections = connections;
    o.batch_bytes = batch;
    o.window = window;
    numbers = calloc((size_t)THREADS * EACH, sizeof(*numbers));
    peer_start(p);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct producer){.pub = pub, .index = i};
        assert_int_equal(pthread_create(&w[i].id, NULL, produce, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(w[i].id, NULL);
    if (embar_flush(pub, -1, &err) < 0)
        fail_msg("%s", err.text);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    assert_int_equal(info.taken_messages, THREADS * EACH);
    assert_int_equal(info.done_messages, THREADS * EACH);
    assert_int_equal(info.taken_bytes, info.done_bytes);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(w[i].told, EACH);
        assert_false(w[i].disorder);
    }
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    expect_lines(p, THREADS);
    peer_stop(p);
    free(numbers);
}

static void each_thread_keeps_its_order(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    arrive(&p, 1, 4096, 0);
    p = (struct peer){.incarnation = 1};
    arrive(&p, 3, 65536, 0);
}

/* Less room than the threads' batches want: those that are begun go when somebody waits. */
static void a_small_window_is_shared(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    arrive(&p, 1, 8192, 16384);
}

static void connections_break_meanwhile(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 40};
    arrive(&p, 2, 4096, 0);
}

static void *two_and_end(void *arg)
{
    struct embar_publisher *pub = arg;
    assert_int_equal(embar_publish(pub, "one", 3, NULL, NULL), 0);
    assert_int_equal(embar_publish(pub, "two", 3, NULL, NULL), 0);
    return NULL;
}

/* Nobody flushes, and what is in flight is never acked: the linger alone sends what it left. */
static void what_a_thread_left_is_sent(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .mute = true};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    for (unsigned i = 1; i <= 5; i++) {
        pthread_t id;
        assert_int_equal(pthread_create(&id, NULL, two_and_end, pub), 0);
        pthread_join(id, NULL);
        wait_for_bytes(&p, i * 6);
    }
    size_t n;
    unsigned char *bytes = peer_bytes(&p, &n);
    for (size_t i = 0; i < n; i += 6)
        assert_memory_equal(bytes + i, "onetwo", 6);
    free(bytes);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_NOW, NULL), -ECANCELED);
    embar_disconnect(c);
    peer_stop(&p);
}

struct idler {
    struct embar_publisher *pub;
    pthread_barrier_t filled, end;
};

static void *fill_and_wait(void *arg)
{
    struct idler *w = arg;
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(embar_publish(w->pub, "12345678", 8, NULL, NULL), 0);
    pthread_barrier_wait(&w->filled);
    pthread_barrier_wait(&w->end);
    return NULL;
}

/* No linger would end in time: flush and close send what another thread has begun. */
static void a_flush_takes_what_others_began(void **state)
{
    (void)state;
    for (unsigned close = 0; close < 2; close++) {
        struct peer p = {.incarnation = 1};
        struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
        struct embar_publisher_info info;
        enum { IDLERS = 3 };
        struct idler w;
        pthread_t id[IDLERS];
        o.linger_us = 600000000;
        peer_start(&p);
        struct embar_client *c = connect_to(&p, 120000);
        w.pub = open_on(c, &o);
        pthread_barrier_init(&w.filled, NULL, IDLERS + 1);
        pthread_barrier_init(&w.end, NULL, IDLERS + 1);
        for (unsigned i = 0; i < IDLERS; i++)
            assert_int_equal(pthread_create(&id[i], NULL, fill_and_wait, &w), 0);
        pthread_barrier_wait(&w.filled);
        embar_publisher_info(w.pub, &info);
        assert_int_equal(info.taken_messages, IDLERS * 1000);
        assert_int_equal(info.taken_bytes, IDLERS * 8000);
        if (!close) {
            assert_int_equal(embar_flush(w.pub, 120000, NULL), 0);
            embar_publisher_info(w.pub, &info);
            assert_int_equal(info.done_messages, IDLERS * 1000);
        }
        pthread_barrier_wait(&w.end);
        for (unsigned i = 0; i < IDLERS; i++)
            pthread_join(id[i], NULL);
        assert_int_equal(embar_publisher_close(w.pub, EMBAR_CLOSE_KEEP, NULL), 0);
        wait_for_bytes(&p, IDLERS * 8000);
        pthread_barrier_destroy(&w.filled);
        pthread_barrier_destroy(&w.end);
        embar_disconnect(c);
        peer_stop(&p);
    }
}

/* A thread that goes from one publisher to the other, one of which is made anew each time. */
static void a_thread_uses_several_publishers(void **state)
{
    (void)state;
    struct peer p[2] = {{.incarnation = 1}, {.incarnation = 1}};
    peer_start(&p[0]);
    peer_start(&p[1]);
    struct embar_client *c[2] = {connect_to(&p[0], 120000), connect_to(&p[1], 120000)};
    struct embar_publisher *stays = open_on(c[0], NULL);
    for (unsigned i = 0; i < 20; i++) {
        struct embar_publisher *comes = open_on(c[1], NULL);
        for (unsigned k = 0; k < 50; k++) {
            char text[16];
            snprintf(text, sizeof(text), "%04u", i * 50 + k);
            assert_int_equal(embar_publish(stays, text, 4, NULL, NULL), 0);
            assert_int_equal(embar_publish(comes, text, 4, NULL, NULL), 0);
        }
        assert_int_equal(embar_publisher_close(comes, EMBAR_CLOSE_KEEP, NULL), 0);
    }
    assert_int_equal(embar_publisher_close(stays, EMBAR_CLOSE_KEEP, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        size_t n;
        unsigned char *bytes = peer_bytes(&p[i], &n);
        assert_int_equal(n, 4000);
        for (unsigned k = 0; k < 1000; k++) { /* in their order, whichever it used in between */
            char text[16];
            snprintf(text, sizeof(text), "%04u", k);
            assert_memory_equal(bytes + 4 * (size_t)k, text, 4);
        }
        free(bytes);
        embar_disconnect(c[i]);
        peer_stop(&p[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_thread_keeps_its_order),
        cmocka_unit_test(a_small_window_is_shared),
        cmocka_unit_test(connections_break_meanwhile),
        cmocka_unit_test(what_a_thread_left_is_sent),
        cmocka_unit_test(a_flush_takes_what_others_began),
        cmocka_unit_test(a_thread_uses_several_publishers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
