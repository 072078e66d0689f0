/* Who comes while the server starts: the first worker accepts before the others are there, and what it hands
 * to them stays in their boxes until they look, or until it is clear that they never will. Clients of a daemon that is started anew come in just that moment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

enum { EARLY = 4 }; /* of which the first worker gives the other half away */

static struct rig rig;
static int early[EARLY];
static bool came, fails; /* so that the next thread is not made */

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);

static void greeted(int fd)
{
    struct got g;
    expect(fd, WIRE_HELLO, &g);
    got_free(&g);
}

/* The first thread that is made when there is a socket is the first worker's. */
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    if (came && fails)
        return EAGAIN;
    int rc = __real_pthread_create(t, a, f, arg);
    if (came || access(rig.socket, F_OK))
        return rc;
    came = true;
    for (unsigned i = 0; i < EARLY; i++) {
        uint8_t b[128];
        early[i] = dial_unix(&rig);
        send_bytes(early[i], b, hello_bytes(&rig, b, false));
    }
    for (unsigned i = 0; i < EARLY; i += 2) /* its own; those before them are given away */
        greeted(early[i]);
    return rc;
}

static void who_comes_early(void **state)
{
    (void)state;
    rig = (struct rig){.workers = 2};
    rig_start(&rig);
    assert_true(came);
    for (unsigned i = 1; i < EARLY; i += 2)
        greeted(early[i]);
    for (unsigned i = 0; i < EARLY; i++)
        close(early[i]);
    until(nobody_is_there, &rig);
    rig_stop(&rig);
}

/* Nor does anybody stay connected to a server that could not start. */
static void who_comes_in_vain(void **state)
{
    (void)state;
    struct embar_error err = {0};
    struct server *second;
    struct got g;
    rig = (struct rig){.workers = 1};
    came = true;
    rig_start(&rig);
    struct rig first = rig;
    (void)snprintf(rig.socket, sizeof(rig.socket), "%s/second", rig.dir);
    came = false;
    fails = true;
    struct server_options so = {
        .log = rig.log, .unix_path = rig.socket, .workers = 2, .first_producer = 1};
    assert_int_equal(server_start(&second, &so, &err), -EAGAIN);
    fails = false;
    assert_true(came);
    for (unsigned i = 0; i < EARLY; i++) {
        while (receive(early[i], &g)) /* those of the first worker are told why */
            got_free(&g);
        close(early[i]);
    }
    rig_stop(&first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_comes_early),
        cmocka_unit_test(who_comes_in_vain),
    };
    return cmocka_run_group_tests_name("server start", tests, NULL, NULL);
}
