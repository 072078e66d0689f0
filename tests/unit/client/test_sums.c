/* Where a batch's checksum stands, and that it is of the bytes that were sent: in the header of a
 * small batch and of one that is sent again, behind the payload of a large one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "embar/embar.h"
#include "peer.h"
#include "told.h"

#define LARGE  (700u << 10)
#define ROUNDS 12u
#define PIECES 1000

static unsigned char *noise(size_t n, uint64_t random)
{
    unsigned char *p = malloc(n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        p[i] = (unsigned char)(random >> 56);
    }
    return p;
}

/* Cut n bytes into pieces of many sizes, most of them no multiple of anything. */
static int cut(unsigned char *p, size_t n, unsigned kind, struct iovec iov[PIECES])
{
    static const size_t sizes[] = {LARGE, 262144, 4093, 1, 262145, 65536, 1000};
    int k = 0;
    for (size_t at = 0; at < n; k++) {
        size_t take = kind % 3 == 0 ? LARGE : kind % 3 == 1 ? 701 : sizes[(unsigned)k % 7];
        if (take > n - at || k == PIECES - 1)
            take = n - at;
        iov[k] = (struct iovec){p + at, take};
        at += take;
    }
    return k;
}

/* Large batches in caller's memory and small messages in between. */
static void send_all(struct peer *p, unsigned connections)
{
    struct embar_error err = {.code = 0};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    struct iovec iov[PIECES];
    unsigned char *all = noise((size_t)ROUNDS * LARGE, 7);
    size_t n, sent = 0, want = 0;
    o.connections = connections;
    peer_start(p);
    struct embar_client *c = connect_to(p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t length = i % 4 == 3 ? PEER_LARGE : LARGE - i;
        int pieces = cut(all + sent, length, i, iov);
        assert_int_equal(embar_publish_batch(pub, iov, pieces, NULL, 1, NULL, NULL), 0);
        sent += length;
    }
    if (embar_flush(pub, -1, &err) < 0)
        fail_msg("%s", err.text);
    unsigned char *bytes = peer_bytes(p, &n);
    assert_int_equal(n, sent);
    assert_memory_equal(bytes, all, n);
    assert_int_equal(p->mismatches, 0);
    for (unsigned i = 0; i < ROUNDS; i++)
        want += i % 4 != 3;
    if (p->break_every == 0)
        assert_int_equal(p->behind + p->before, want); /* none came again */
    assert_true(p->behind > 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    free(bytes);
    free(all);
    peer_stop(p);
}

static void large_batches_have_it_behind_them(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    send_all(&p, 1);
    assert_int_equal(p.before, 0);
    p = (struct peer){.incarnation = 1};
    send_all(&p, 4);
}

/* A buffer that is used again: nothing of its last batch's sum comes with the next. */
static void own_buffers_too(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1};
    struct embar_publisher_options o = EMBAR_PUBLISHER_OPTIONS;
    enum { MESSAGE = 300000, EACH = 3 }; /* so large that one alone has it behind it */
    unsigned char *all = noise((size_t)MESSAGE * EACH * 4, 3);
    struct embar_error err = {.code = 0};
    size_t n;
    o.batch_bytes = 2 << 20;
    o.linger_us = 600000000;
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, &o);
    for (unsigned i = 0; i < EACH * 4; i++) {
        assert_int_equal(embar_publish(pub, all + (size_t)i * MESSAGE, MESSAGE, NULL, NULL), 0);
        if (i % EACH == EACH - 1 && embar_flush(pub, 120000, &err) < 0)
            fail_msg("%s", err.text);
    }
    unsigned char *bytes = peer_bytes(&p, &n);
    assert_int_equal(n, MESSAGE * EACH * 4);
    assert_memory_equal(bytes, all, n);
    assert_true(p.behind > 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), 0);
    embar_disconnect(c);
    free(bytes);
    free(all);
    peer_stop(&p);
}

static void sent_again_they_have_it_before_them(void **state)
{
    (void)state;
    struct peer p = {.incarnation = 1, .break_every = 3};
    send_all(&p, 1);
    assert_true(p.before > 0);
    p = (struct peer){.incarnation = 1, .break_every = 5};
    send_all(&p, 3);
}

static void scribble(void *arg)
{
    unsigned char *p = arg;
    p[LARGE / 2] ^= 1;
}

/* What a caller changes before it is done is not stored as if nothing had been. */
static void other_bytes_are_not_sent_again(void **state)
{
    (void)state;
    struct embar_error err = {.code = 0};
    unsigned char *bytes = noise(LARGE, 1);
    struct peer p = {.incarnation = 1, .damage = 1, .damaged = scribble, .arg = bytes};
    struct iovec iov = {bytes, LARGE};
    peer_start(&p);
    struct embar_client *c = connect_to(&p, 120000);
    struct embar_publisher *pub = open_on(c, NULL);
    assert_int_equal(embar_publish_batch(pub, &iov, 1, NULL, 1, NULL, NULL), 0);
    assert_int_equal(embar_flush(pub, -1, &err), -EMBAR_ECRC);
    assert_true(p.mismatches > 0);
    assert_int_equal(p.batches, 0);
    assert_int_equal(embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err), -EMBAR_ECRC);
    embar_disconnect(c);
    peer_stop(&p);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_batches_have_it_behind_them),
        cmocka_unit_test(own_buffers_too),
        cmocka_unit_test(sent_again_they_have_it_before_them),
        cmocka_unit_test(other_bytes_are_not_sent_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
