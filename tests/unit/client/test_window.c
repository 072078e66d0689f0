/* What a publisher bounds, and what makes a batch go: the window, the sizes of a batch, a waiting
 * thread, an empty list. Nothing here ends by the linger. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "net/client/publisher.h"
#include "peer.h"
#include "told.h"

#define NEVER 600000000u /* us */

struct setting {
    struct peer p;
    struct embar_client *c;
    struct embar_publisher *pub;
};

static void begin(struct setting *s, struct embar_publisher_options o, bool mute)
{
    memset(s, 0, sizeof(*s));
    s->p.incarnation = 1;
    s->p.mute = mute;
    o.linger_us = NEVER;
    peer_start(&s->p);
    s->c = connect_to(&s->p, 120000);
    s->pub = open_on(s->c, &o);
}

static void end(struct setting *s, enum embar_close how)
{
    int rc = embar_publisher_close(s->pub, how, NULL);
    assert_true(rc == 0 || how == EMBAR_CLOSE_NOW);
    embar_disconnect(s->c);
    peer_stop(&s->p);
    assert_int_equal(s->p.beyond, 0);
}

static void put(struct setting *s, const void *data, size_t n)
{
    assert_int_equal(embar_publish(s->pub, data, n, NULL, NULL), 0);
}

static void unmute(struct setting *s)
{
    pthread_mutex_lock(&s->p.lock);
    s->p.mute = false;
    pthread_mutex_unlock(&s->p.lock);
}

static struct embar_publisher_options sized(size_t batch, size_t window)
{
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    o.batch_bytes = batch;
    o.window = window;
    return o;
}

/* A first message is on its way, and is not acknowledged. */
static void begin_behind(struct setting *s, struct embar_publisher_options o)
{
    begin(s, o, true);
    put(s, "first", 5);
    wait_for_bytes(&s->p, 5);
}

/* Begun behind another, it goes when that is done; the first goes at once. */
static void nothing_on_its_way(void **state)
{
    (void)state;
    struct setting s;
    begin_behind(&s, sized(4096, 0));
    put(&s, "second", 6);
    put(&s, "third", 5);
    break_connections(&s.p); /* so that the first is known to be committed */
    wait_for_bytes(&s.p, 16);
    end(&s, EMBAR_CLOSE_NOW);
}

/* The same while its lane is held by the thread that fills it: it is looked at again. */
static void nothing_on_its_way_but_held(void **state)
{
    (void)state;
    struct setting s;
    begin_behind(&s, sized(4096, 0));
    put(&s, "second", 6);
    struct pub_lane *l = pub_lane_own(s.pub);
    pub_lane_hold(l);
    break_connections(&s.p);
    struct timespec moment = {.tv_nsec = 1000000};
    for (bool empty = false; !empty; nanosleep(&moment, NULL)) {
        pthread_mutex_lock(&s.pub->lock);
        empty = !s.pub->head;
        pthread_mutex_unlock(&s.pub->lock);
    }
    for (unsigned i = 0; i < 20; i++) /* it has looked by then, as good as surely */
        nanosleep(&moment, NULL);
    pub_lane_give(l);
    wait_for_bytes(&s.p, 11);
    end(&s, EMBAR_CLOSE_NOW);
}

static void *put_one(void *arg)
{
    struct setting *s = arg;
    put(s, "begun", 5);
    return NULL;
}

/* A flush sends what every thread began, though nothing is acked meanwhile. */
static void a_flush_takes_all_lanes(void **state)
{
    (void)state;
    struct setting s;
    begin_behind(&s, sized(4096, 0));
    pthread_t id[3];
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&id[i], NULL, put_one, &s), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(id[i], NULL);
    assert_int_equal(embar_flush(s.pub, 0, NULL), -ETIMEDOUT);
    wait_for_bytes(&s.p, 20);
    end(&s, EMBAR_CLOSE_NOW);
}

/* Full to the byte, or of as many messages as a batch may have: it goes, and no batch has more. */
static void what_is_full_goes(void **state)
{
    (void)state;
    struct setting s;
    char eight[8] = "8 bytes";
    begin(&s, sized(4096, 0), true);
    put(&s, "x", 1);
    for (unsigned i = 0; i < 4096 / 8; i++)
        put(&s, eight, 8);
    wait_for_bytes(&s.p, 1 + 4096);
    end(&s, EMBAR_CLOSE_NOW);

    begin(&s, sized(1 << 20, 0), true);
    put(&s, "x", 1);
    for (unsigned i = 0; i < 65536; i++)
        put(&s, "y", 1);
    wait_for_bytes(&s.p, 1 + 65536);
    unmute(&s);
    for (unsigned i = 0; i < 70000; i++)
        put(&s, "z", 1);
    break_connections(&s.p);
    assert_int_equal(embar_flush(s.pub, 120000, NULL), 0);
    wait_for_bytes(&s.p, 1 + 65536 + 70000);
    end(&s, EMBAR_CLOSE_KEEP);
}

/* No room: what others have begun goes, since nothing else would ever make some; and who waits holds
 * up nobody who only asks. */
static void who_waits_makes_others_go(void **state)
{
    (void)state;
    struct setting s;
    pthread_t id;
    struct embar_publisher_info info;
    begin_behind(&s, sized(8192, 16384));
    put(&s, "begun", 5); /* all of the window is taken now */
    assert_int_equal(pthread_create(&id, NULL, put_one, &s), 0);
    wait_for_bytes(&s.p, 10);
    embar_publisher_info(s.pub, &info);
    assert_int_equal(info.taken_messages, 2);
    break_connections(&s.p);
    pthread_join(id, NULL);
    assert_int_equal(embar_publisher_close(s.pub, EMBAR_CLOSE_NOW, NULL), -ECANCELED);
    embar_disconnect(s.c);
    peer_stop(&s.p);
}

/* At most so many batches, however small; and one that is larger than all of the window. */
static void batches_are_bounded(void **state)
{
    (void)state;
    struct setting s;
    struct embar_publisher_options o = sized(4096, 0);
    struct iovec one = {(char[]){"x"}, 1};
    int rc = 0;
    unsigned n = 0;
    o.nonblocking = true;
    begin(&s, o, true);
    while (n < 5000 && (rc = embar_publish_batch(s.pub, &one, 1, NULL, 1, NULL, NULL)) == 0)
        n++;
    assert_int_equal(rc, -EAGAIN);
    assert_int_equal(n, PUB_MAX_LIVE);
    end(&s, EMBAR_CLOSE_NOW);

    enum { LARGE = 600000 };
    char *large = calloc(1, LARGE);
    struct iovec iov = {large, LARGE};
    begin(&s, sized(4096, 8192), false);
    assert_int_equal(embar_publish_batch(s.pub, &iov, 1, NULL, 1, NULL, NULL), 0);
    assert_int_equal(embar_flush(s.pub, 120000, NULL), 0);
    wait_for_bytes(&s.p, LARGE);
    end(&s, EMBAR_CLOSE_KEEP);
    free(large);
}

/* No more unacked batches than the broker allows, with a session and without. */
static void the_brokers_window(void **state)
{
    (void)state;
    for (unsigned none = 0; none < 2; none++) {
        struct setting s;
        struct embar_publisher_options o = sized(4096, 0);
        struct iovec one = {(char[]){"x"}, 1};
        o.session = none ? EMBAR_SESSION_NONE : EMBAR_SESSION_NEW;
        begin(&s, o, true);
        for (unsigned i = 0; i < 100; i++)
            assert_int_equal(embar_publish_batch(s.pub, &one, 1, NULL, 1, NULL, NULL), 0);
        for (unsigned i = 1; i <= (none ? 1 : 6); i++) {
            wait_for_bytes(&s.p, i * PEER_WINDOW);
            if (!none)
                break_connections(&s.p);
        }
        if (!none)
            wait_for_bytes(&s.p, 100);
        end(&s, EMBAR_CLOSE_NOW);
    }
}

static void too_large(void **state)
{
    (void)state;
    struct setting s;
    static char bytes[16];
    const size_t most = 1 << 20;
    begin(&s, sized(4096, 0), false);
    struct iovec one = {bytes, most + 1}, two[] = {{bytes, most}, {bytes, 1}},
                 wraps[] = {{bytes, 10}, {bytes, SIZE_MAX - 5}};
    assert_int_equal(embar_publish_batch(s.pub, &one, 1, NULL, 1, NULL, NULL), -EMBAR_ETOOBIG);
    assert_int_equal(embar_publish_batch(s.pub, two, 2, NULL, 1, NULL, NULL), -EMBAR_ETOOBIG);
    assert_int_equal(embar_publish_batch(s.pub, wraps, 2, NULL, 1, NULL, NULL), -EMBAR_ETOOBIG);
    end(&s, EMBAR_CLOSE_KEEP);
}

struct inside {
    struct embar_publisher *pub;
    int publish, batch, flush, close;
    atomic_bool done;
};

static void calls_back(void *arg, const struct embar_error *err)
{
    struct inside *in = arg;
    struct iovec one = {(char[]){"x"}, 1};
    (void)err;
    in->publish = embar_publish(in->pub, "x", 1, NULL, NULL);
    in->batch = embar_publish_batch(in->pub, &one, 1, NULL, 1, NULL, NULL);
    in->flush = embar_flush(in->pub, -1, NULL);
    in->close = embar_publisher_close(in->pub, EMBAR_CLOSE_NOW, NULL);
    in->done = true;
}

/* A callback that waited for its own publisher would wait for ever: it is told so. */
static void a_callback_cannot_wait(void **state)
{
    (void)state;
    struct setting s;
    begin(&s, sized(4096, 0), false);
    struct inside in = {.pub = s.pub};
    assert_int_equal(embar_publish(s.pub, "x", 1, calls_back, &in), 0);
    assert_int_equal(embar_flush(s.pub, 120000, NULL), 0);
    assert_true(in.done);
    assert_int_equal(in.publish, -EDEADLK);
    assert_int_equal(in.batch, -EDEADLK);
    assert_int_equal(in.flush, -EDEADLK);
    assert_int_equal(in.close, -EDEADLK);
    end(&s, EMBAR_CLOSE_KEEP);
}

/* Acked while a connection still writes it, as when it was sent twice: its bytes are needed until
 * that has ended. */
static void bytes_are_kept_while_they_are_written(void **state)
{
    (void)state;
    struct setting s;
    begin_behind(&s, sized(4096, 0));
    pthread_mutex_lock(&s.pub->lock);
    struct pub_batch *b = s.pub->head;
    b->writers++;
    pthread_mutex_unlock(&s.pub->lock);
    break_connections(&s.p);
    unmute(&s);
    assert_int_equal(embar_flush(s.pub, 100, NULL), -ETIMEDOUT);
    pthread_mutex_lock(&s.pub->lock);
    assert_ptr_equal(s.pub->head, b);
    b->writers--;
    pthread_mutex_unlock(&s.pub->lock);
    struct iovec one = {(char[]){"x"}, 1};
    assert_int_equal(embar_publish_batch(s.pub, &one, 1, NULL, 1, NULL, NULL), 0);
    assert_int_equal(embar_flush(s.pub, 120000, NULL), 0);
    end(&s, EMBAR_CLOSE_KEEP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_on_its_way),
        cmocka_unit_test(nothing_on_its_way_but_held),
        cmocka_unit_test(a_flush_takes_all_lanes),
        cmocka_unit_test(what_is_full_goes),
        cmocka_unit_test(who_waits_makes_others_go),
        cmocka_unit_test(batches_are_bounded),
        cmocka_unit_test(the_brokers_window),
        cmocka_unit_test(too_large),
        cmocka_unit_test(a_callback_cannot_wait),
        cmocka_unit_test(bytes_are_kept_while_they_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
