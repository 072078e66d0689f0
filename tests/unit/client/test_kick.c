/* Who writes a batch: its own thread, when it is small, alone and asked for; else the I/O thread, which is
 * told when a write of the other went wrong (sendmsg is the test's own here, by the linker's --wrap). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "net/client/publisher.h"
#include "peer.h"
#include "told.h"

enum { LARGE = 100000 };

static pthread_t me;
static atomic_bool watched;
static atomic_uint mine, others; /* sends */
static atomic_int failing;       /* the next one fails so */

ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    int error = watched ? atomic_exchange(&failing, 0) : 0;
    if (watched)
        atomic_fetch_add(pthread_equal(pthread_self(), me) ? &mine : &others, 1);
    if (error) {
        errno = error;
        return -1;
    }
    return __real_sendmsg(fd, m, flags);
}

static bool is_asleep(struct embar_publisher *pub, bool empty)
{
    pthread_mutex_lock(&pub->lock);
    bool is = pub->asleep && !pub->driven && (!empty || !pub->head);
    pthread_mutex_unlock(&pub->lock);
    return is;
}

/* Its I/O thread has nothing to do; from here on sends are counted. */
static void settle(struct embar_publisher *pub, bool empty)
{
    struct timespec moment = {.tv_nsec = 1000000};
    time_t end = time(NULL) + 120;
    watched = false;
    while (!is_asleep(pub, empty) && time(NULL) < end)
        nanosleep(&moment, NULL);
    assert_true(is_asleep(pub, empty));
    mine = others = 0;
    me = pthread_self();
    watched = true;
}

static struct embar_publisher *start(struct peer *p, struct embar_client **c,
                                     const struct embar_publisher_options *o)
{
    peer_start(p);
    *c = connect_to(p, 120000);
    return open_on(*c, o);
}

static void stop(struct peer *p, struct embar_client *c, struct embar_publisher *pub)
{
    watched = false;
    (void)embar_publisher_close(pub, EMBAR_CLOSE_NOW, NULL);
    embar_disconnect(c);
    peer_stop(p);
}

/* A wake-up may come after what it tells of was read (the peer's thread queues its ack first): then the
 * I/O thread is about, and the batch is its own. That is rare, and never twice the work. */
static void a_small_one_alone_is_written_at_once(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_client *c;
    struct embar_publisher *pub = start(&p, &c, NULL);
    unsigned at_once = 0;
    for (size_t i = 1; i <= 20; i++) {
        settle(pub, true);
        assert_int_equal(embar_publish(pub, "line\n", 5, NULL, NULL), 0);
        at_once += mine;
        wait_for_bytes(&p, i * 5);
        assert_int_equal(mine + others, 1);
    }
    assert_true(at_once > 10);
    stop(&p, c, pub);
}

/* While it is on its way the next is filled, and one behind another waits for nobody's thread. */
static void others_are_the_io_threads(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .mute = true};
    struct embar_client *c;
    struct embar_publisher *pub = start(&p, &c, NULL);
    char *bytes = calloc(1, LARGE);
    struct iovec iov = {bytes, LARGE}, one = {bytes, 1};
    settle(pub, true);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, NULL, NULL), 0);
    wait_for_bytes(&p, LARGE);
    assert_int_equal(mine, 0);
    stop(&p, c, pub);
    p = (struct peer){.incarnation = 1, .mute = true};
    pub = start(&p, &c, NULL);
    assert_int_equal(embar_publish_batch(pub, &one, 1, NULL, 1, NULL, NULL), 0);
    wait_for_bytes(&p, 1);
    settle(pub, false);
    assert_int_equal(embar_publish_batch(pub, &one, 1, NULL, 1, NULL, NULL), 0);
    wait_for_bytes(&p, 2);
    assert_int_equal(mine, 0);
    stop(&p, c, pub);
    free(bytes);
}

static pthread_t told_by;

static void on_told(void *arg, const struct embar_error *err)
{
    atomic_bool *done = arg;
    (void)err;
    told_by = pthread_self();
    *done = true;
}

/* With ack 0 it is done when it is written: its callback is not to come out of embar_publish. */
static void callbacks_are_the_io_threads(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    struct embar_client *c;
    atomic_bool done = false;
    o.ack = 0;
    struct embar_publisher *pub = start(&p, &c, &o);
    settle(pub, true);
    assert_int_equal(embar_publish(pub, "line\n", 5, on_told, &done), 0);
    assert_int_equal(embar_flush(pub, 120000, NULL), 0);
    assert_true(done);
    assert_false(pthread_equal(told_by, me));
    assert_int_equal(mine, 0);
    stop(&p, c, pub);
}

/* Nothing comes of such a socket by itself. */
static void a_write_that_failed_is_looked_after(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_client *c;
    struct embar_publisher_info info;
    struct embar_publisher *pub = start(&p, &c, NULL);
    settle(pub, true);
    failing = ENOMEM;
    assert_int_equal(embar_publish(pub, "line\n", 5, NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, 120000, NULL), 0);
    wait_for_bytes(&p, 5);
    embar_publisher_info(pub, &info);
    assert_int_equal(info.done_messages, 1);
    stop(&p, c, pub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_one_alone_is_written_at_once),
        cmocka_unit_test(others_are_the_io_threads),
        cmocka_unit_test(callbacks_are_the_io_threads),
        cmocka_unit_test(a_write_that_failed_is_looked_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
