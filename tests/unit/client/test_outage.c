/* Whoever asked for it is told of an outage that lasts, and of its end: also where somebody accepts connections and
 * answers nothing, and where each connection breaks as soon as it is made. No test ends by a time: the broker stays as
 * it is until it was told.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "peer.h"

#define PATIENCE_MS 60000 /* until what never comes is missed */

static struct heard {
    struct peer *peer;
    atomic_uint told, back; /* by the publisher's thread; told's release is for why */
    struct embar_error why;
} heard;

static void behave(struct peer *p, bool silent, bool brief)
{
    pthread_mutex_lock(&p->lock);
    p->silent = silent;
    p->brief = brief;
    pthread_cond_broadcast(&p->moved);
    for (unsigned i = 0; (silent || brief) && i < p->count; i++)
        shutdown(p->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&p->lock);
}

/* From now on the broker is as it should be. */
static void hear(void *arg, const char *address, const struct embar_error *why)
{
    struct heard *h = arg;
    (void)address;
    if (!why) {
        atomic_fetch_add(&h->back, 1);
        return;
    }
    h->why = *why;
    behave(h->peer, false, false);
    atomic_fetch_add(&h->told, 1);
}

static struct embar_client *start(struct peer *p)
{
    struct embar_client *c;
    struct embar_error err;
    peer_start(p);
    heard = (struct heard){.peer = p};
    struct embar_options o = {.server = p->path,
                              .timeout_ms = PATIENCE_MS / 2,
                              .reconnect_ms = 2 * PATIENCE_MS,
                              .outage = hear,
                              .outage_arg = &heard};
    if (embar_connect(&c, &o, &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

/* On a busy machine a handshake may take so long that this is told first. */
static void says(const char *words)
{
    assert_int_equal(atomic_load(&heard.told), 1);
    if (!strstr(heard.why.text, "No answer has come yet") && !strstr(heard.why.text, words))
        fail_msg("it was told: %s", heard.why.text);
}

static void subscribed(bool silent, const char *words)
{
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p);
    struct embar_subscription *s;
    struct embar_message m;
    struct embar_error err;
    struct embar_subscribe_options o = {.follow = true};
    assert_int_equal(embar_subscribe(&s, c, "t", &o, &err), 0);
    assert_int_equal(embar_next(s, &m, 0, &err), -ETIMEDOUT);
    behave(&p, silent, !silent);
    /* As a program does that waits for more than this. */
    struct pollfd ready = {.fd = embar_sub_fd(s), .events = POLLIN};
    while (atomic_load(&heard.back) == 0) {
        assert_int_equal(poll(&ready, 1, PATIENCE_MS), 1);
        assert_int_equal(embar_next(s, &m, 0, &err), -ETIMEDOUT);
    }
    says(words);
    /* Nothing is left that would wake it. */
    assert_int_equal(poll(&ready, 1, 0), 0);
    embar_unsubscribe(s);
    embar_disconnect(c);
    peer_stop(&p);
}

static bool comes(atomic_uint *count)
{
    for (int i = 0; atomic_load(count) == 0 && i < PATIENCE_MS / 10; i++)
        poll(NULL, 0, 10);
    return atomic_load(count) > 0;
}

static void published(bool silent, bool idle, const char *words)
{
    struct peer p = {.incarnation = 1};
    struct embar_client *c = start(&p);
    struct embar_publisher *pub;
    struct embar_error err;
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    assert_int_equal(embar_publisher_open(&pub, c, "t", &o, &err), 0);
    assert_int_equal(embar_publish(pub, "before", 6, NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, -1, &err), 0);
    behave(&p, silent, !silent);
    if (!idle)
        assert_int_equal(embar_publish(pub, "after", 5, NULL, NULL), 0);
    assert_true(comes(&heard.told));
    says(words);
    assert_true(comes(&heard.back));
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    assert_int_equal(atomic_load(&heard.told), 1);
    assert_int_equal(atomic_load(&heard.back), 1);
    embar_disconnect(c);
    peer_stop(&p);
}

static void by_who_answers_nothing(void **state)
{
    (void)state;
    subscribed(true, "No answer has come yet");
    published(true, false, "No answer has come yet");
    published(true, true, "No answer has come yet");
}

static void by_connections_that_break(void **state)
{
    (void)state;
    subscribed(false, " connection");
    published(false, false, " connection");
    published(false, true, " connection");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_who_answers_nothing),
        cmocka_unit_test(by_connections_that_break),
    };
    return cmocka_run_group_tests_name("client outage", tests, NULL, NULL);
}
