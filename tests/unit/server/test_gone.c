/* Whose peer has gone while it waits for room in a full pool gives its place up after a while, and does not take
 * a descriptor for as long as the pool is full; who is still there waits on, and is stored at last.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

enum { SIZE = 100000, GONE = 8 };

struct want {
    const struct rig *rig;
    uint64_t waiting, connections, batches;
};

static bool stands(void *arg)
{
    const struct want *w = arg;
    struct server_stat st;
    server_stat(w->rig->server, &st);
    return st.waiting == w->waiting && st.connections == w->connections;
}

static bool taken_or_waits(void *arg)
{
    const struct want *w = arg;
    struct server_stat st;
    server_stat(w->rig->server, &st);
    return st.waiting > 0 || st.batches == w->batches;
}

static bool some_wait(const struct rig *r)
{
    struct server_stat st;
    server_stat(r->server, &st);
    return st.waiting > 0;
}

static void who_has_gone(void **state)
{
    (void)state;
    struct rig r = {.spec = "mem:8M", .tick_ms = 10};
    int fd[GONE];
    uint8_t *data = malloc(SIZE);
    assert_non_null(data);
    fill(data, SIZE, 5);
    rig_start(&r);
    int control = peer(&r, true), filler = peer(&r, true);
    open_topic(filler, "full", 1, WIRE_S_NONE, 0);
    uint64_t n = 0;
    while (!some_wait(&r)) {
        publish(filler, 1, ++n, 0, data, SIZE, NULL, 1);
        until(taken_or_waits, &(struct want){.rig = &r, .batches = n});
    }
    for (unsigned i = 0; i < GONE; i++) {
        fd[i] = peer(&r, i % 2);
        open_topic(fd[i], "full", 1, WIRE_S_NONE, 0);
        publish(fd[i], 1, 1, 0, data, SIZE, NULL, 1);
    }
    until(stands, &(struct want){&r, GONE + 1, GONE + 2, 0});
    for (unsigned i = 0; i < GONE; i++)
        close(fd[i]);
    until(stands, &(struct want){&r, 1, 2, 0});
    assert_int_equal(admin(control, WIRE_V_TRIM, "full", NULL, WIRE_FROM_LATEST, 0, 0, NULL, NULL),
                     0);
    await_ack(filler, 1, n);
    struct stream s = read_topic(&r, "full");
    assert_int_equal(s.size, SIZE);
    assert_memory_equal(s.buf, data, SIZE);
    free(s.buf);
    free(data);
    close(control);
    close(filler);
    rig_stop(&r);
}

struct stored {
    const struct rig *rig;
    const char *path;
    uint64_t end;
};

static bool all_stored(void *arg)
{
    const struct stored *w = arg;
    struct node_stat st;
    return log_resolve(w->rig->log, w->path, &st) == 0 && st.end == w->end;
}

/* What was whole before the end of the stream is stored, whether or not it is acknowledged; then it is closed. */
static void who_shuts_its_side(void **state)
{
    (void)state;
    enum { N = 5 };
    struct rig r = {0};
    struct got g;
    uint8_t *data = malloc(N * SIZE);
    assert_non_null(data);
    fill(data, N * SIZE, 6);
    rig_start(&r);
    for (unsigned i = 0; i < 2; i++) {
        const char *path = i ? "tcp" : "unix";
        int fd = peer(&r, !i);
        open_topic(fd, path, 1, WIRE_S_NONE, 0);
        for (unsigned k = 0; k < N; k++)
            publish(fd, 1, k + 1, 0, data + k * SIZE, SIZE, NULL, 1);
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        while (receive(fd, &g)) {
            assert_int_equal(g.f.type, WIRE_ACK);
            got_free(&g);
        }
        close(fd);
        until(nobody_is_there, &r);
        until(all_stored, &(struct stored){&r, path, N * SIZE}); /* it is under way */
        struct stream s = read_topic(&r, path);
        assert_int_equal(s.size, N * SIZE);
        assert_memory_equal(s.buf, data, N * SIZE);
        free(s.buf);
        until(nobody_is_there, &r);
    }
    free(data);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_gone),
        cmocka_unit_test(who_shuts_its_side),
    };
    return cmocka_run_group_tests_name("server gone", tests, NULL, NULL);
}
