/* How a broker is dialled again that is there and of no use: ever more rarely, and not for ever; and that a
 * subscription nothing comes for has its time for each outage anew. What must take time is tested to take it, and
 * nothing to take less; hours pass by the clock that the library reads (the linker's --wrap).
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "net/client/client.h"
#include "peer.h"

enum { PATIENCE_MS = 60000, MS = 1000000 };

static atomic_uint_fast64_t ahead; /* seconds that the clock was put forward */

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    int rc = __real_clock_gettime(id, ts);
    ts->tv_sec += (time_t)atomic_load(&ahead);
    return rc;
}

/* Connections are closed behind each answer from now on, or no more; those that are, now. */
static void behave(struct peer *p, bool brief)
{
    pthread_mutex_lock(&p->lock);
    p->brief = brief;
    for (unsigned i = 0; brief && i < p->count; i++)
        shutdown(p->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p->lock);
}

static unsigned hellos(struct peer *p)
{
    pthread_mutex_lock(&p->lock);
    unsigned n = p->hellos;
    pthread_mutex_unlock(&p->lock);
    return n;
}

static void until_hellos(struct peer *p, unsigned n)
{
    for (int i = 0; hellos(p) < n && i < PATIENCE_MS; i++)
        poll(NULL, 0, 1);
    assert_true(hellos(p) >= n);
}

static struct embar_client *start(struct peer *p, unsigned reconnect_ms)
{
    struct embar_client *c;
    struct embar_error err;
    peer_start(p);
    struct embar_options o = {
        .server = p->path, .timeout_ms = PATIENCE_MS / 2, .reconnect_ms = reconnect_ms};
    if (embar_connect(&c, &o, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

static struct embar_publisher *publisher(struct embar_client *c)
{
    struct embar_publisher *pub;
    struct embar_error err;
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    if (embar_publisher_open(&pub, c, "t", &o, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(embar_publish(pub, "before", 6, NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, PATIENCE_MS, &err), 0);
    return pub;
}

static void put_off(void **state)
{
    (void)state;
    static const unsigned want[] = {10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000};
    unsigned ms = 0;
    bool differs = false;
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        uint64_t before = clock_ns(), at = client_retry_at(&ms);
        assert_int_equal(ms, want[i]);
        assert_in_range(at, before + ms * 3ull / 4 * MS, clock_ns() + (uint64_t)ms * MS);
        differs |= at < before + (uint64_t)ms * MS * 99 / 100;
    }
    assert_true(differs);
}

/* That an OPEN is answered is nothing yet. */
static void ever_more_rarely(void **state)
{
    (void)state;
    enum { DIALS = 7, LEAST = (20 + 40 + 80 + 160 + 320 + 640) * 3 / 4 }; /* ms */
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p, 2 * PATIENCE_MS);
    struct embar_publisher *pub = publisher(c);
    struct embar_error err;
    unsigned before = hellos(&p);
    behave(&p, true);
    assert_int_equal(embar_publish(pub, "after", 5, NULL, NULL), 0);
    until_hellos(&p, before + DIALS);
    /* Each came before its connection broke. */
    pthread_mutex_lock(&p.lock);
    uint64_t took = p.hello_ns[before + DIALS - 1] - p.hello_ns[before];
    pthread_mutex_unlock(&p.lock);
    assert_true(took >= (uint64_t)LEAST * MS);
    behave(&p, false);
    assert_int_equal(embar_flush(pub, PATIENCE_MS, &err), 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    size_t n;
    unsigned char *all = peer_bytes(&p, &n);
    assert_int_equal(n, 11);
    assert_memory_equal(all, "beforeafter", 11);
    free(all);
    peer_stop(&p);
}

/* Nor does it end the time in which something must be acknowledged. */
static void not_for_ever(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p, 300);
    struct embar_publisher *pub = publisher(c);
    struct embar_error err;
    behave(&p, true);
    assert_int_equal(embar_publish(pub, "after", 5, NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, PATIENCE_MS, &err), -ETIMEDOUT);
    if (!strstr(err.text, "could not be reached again for 300 ms"))
        fail_msg("%s", err.text);
    (void)embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err);
    embar_disconnect(c);
    peer_stop(&p);
}

static void until_reconnected(struct embar_subscription *s, uint64_t times)
{
    struct embar_message m;
    struct embar_error err;
    struct embar_sub_info info = {.reconnects = 0};
    for (int i = 0; info.reconnects < times && i < PATIENCE_MS / 10; i++) {
        if (embar_next(s, &m, 10, &err) != -ETIMEDOUT || !strstr(err.text, "No message"))
            fail_msg("%s", err.text);
        embar_sub_info(s, &info);
    }
    assert_int_equal(info.reconnects, times);
}

/* Nothing comes for an hour between two outages, of which the second one's first dial is in vain. */
static void each_outage_anew(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p, PATIENCE_MS);
    struct embar_subscription *s;
    struct embar_error err;
    struct embar_subscribe_options o = {.follow = true};
    assert_int_equal(embar_subscribe(&s, c, "t", &o, &err), 0);
    behave(&p, true);
    behave(&p, false);
    until_reconnected(s, 1);
    atomic_store(&ahead, 3600);
    pthread_mutex_lock(&p.lock);
    p.hello_refusals = 1;
    pthread_mutex_unlock(&p.lock);
    behave(&p, true);
    behave(&p, false);
    until_reconnected(s, 2);
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(&p);
}

/* Nor is a subscription's time endless where each connection is made and breaks. */
static void nor_a_subscription(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p, 300);
    struct embar_subscription *s;
    struct embar_message m;
    struct embar_error err;
    struct embar_subscribe_options o = {.follow = true};
    assert_int_equal(embar_subscribe(&s, c, "t", &o, &err), 0);
    unsigned before = hellos(&p);
    behave(&p, true);
    assert_int_equal(embar_next(s, &m, PATIENCE_MS, &err), -ETIMEDOUT);
    if (!strstr(err.text, "could not be reached again for 300 ms"))
        fail_msg("%s", err.text);
    assert_true(hellos(&p) - before >= 7);
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_off),
        cmocka_unit_test(ever_more_rarely),
        cmocka_unit_test(not_for_ever),
        cmocka_unit_test(each_outage_anew),
        cmocka_unit_test(nor_a_subscription),
    };
    return cmocka_run_group_tests_name("client redial", tests, NULL, NULL);
}
