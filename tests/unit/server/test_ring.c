/* A pool whose commits wait for a disk, and a pending ring that holds four batches: publishers that
 * find it full wait with their batch, and the worker serves everybody else meanwhile. The disk is
 * as slow as can be: this test holds the sequencer's role.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "tests/unit/server/rig.h"

enum { RING = 4, PUBLISHERS = 24, SIZE = 5000 };

struct waits {
    struct rig *rig;
    unsigned count;
};

static bool so_many_wait(void *arg)
{
    const struct waits *w = arg;
    struct server_stat st;
    server_stat(w->rig->server, &st);
    return st.waiting == w->count;
}

static bool nobody_is_reserved(void *arg)
{
    const struct rig *r = arg;
    struct log_stat st;
    log_stat_all(r->log, &st);
    return st.reserved == 0;
}

static void one_topic(char *path, size_t size, unsigned i)
{
    snprintf(path, size, "topic%u", i);
}

/* Everything but publishing: asks of each kind, and a subscription. */
static void others_go_on(const struct rig *r)
{
    struct got g;
    int fd = peer(r, false);
    char *text = NULL;
    send_frame(fd, WIRE_PING, 0, 3, NULL, 0);
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    assert_int_equal(admin(fd, WIRE_V_STAT, "before", NULL, 0, 0, 0, NULL, &text), 0);
    free(text);
    assert_int_equal(admin(fd, WIRE_V_STAT, "", NULL, 0, 0, 0, NULL, &text), 0);
    free(text);
    assert_int_equal(admin(fd, WIRE_V_LIST, "", NULL, 0, 0, 0, NULL, &text), 0);
    free(text);
    close(fd);
    struct stream s = read_topic(r, "before");
    assert_int_equal(s.size, 6);
    assert_memory_equal(s.buf, "before", 6);
    free(s.buf);
}

static void a_full_ring_stops_nobody_else(void **state)
{
    (void)state;
    struct rig r = {.workers = 1, .file_size = 32u << 20, .geo = {.descriptors = RING}};
    rig_start(&r);
    uint8_t data[SIZE];
    char path[32];
    int fd[PUBLISHERS];
    int first = peer(&r, true);
    open_topic(first, "before", 1, WIRE_S_NONE, 0);
    publish(first, 1, 1, 0, "before", 6, NULL, 1);
    await_ack(first, 1, 1);
    uint32_t epoch[PUBLISHERS];
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        one_topic(path, sizeof(path), i);
        fd[i] = peer(&r, i % 2);
        struct wire_opened o = open_topic(fd[i], path, 1, i % 3 ? WIRE_S_NEW : WIRE_S_NONE, 0);
        epoch[i] = le32_get(o.epoch);
    }
    until(nobody_is_reserved, &r);

    seq_take_wait(r.log);
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        fill(data, SIZE, i);
        publish(fd[i], 1, 1, epoch[i], data, SIZE, NULL, 1);
    }
    struct waits w = {&r, PUBLISHERS - RING};
    until(so_many_wait, &w);
    others_go_on(&r);
    /* One gives up while it waits, or while its batch is in the ring: the others do not mind. */
    close(fd[PUBLISHERS - 1]);
    others_go_on(&r);
    seq_give(r.log);
    background_wake(r.log);

    for (unsigned i = 0; i < PUBLISHERS - 1; i++) {
        await_ack(fd[i], 1, 1);
        /* And each goes on. */
        publish(fd[i], 1, 2, epoch[i], "next", 4, NULL, 1);
    }
    for (unsigned i = 0; i < PUBLISHERS - 1; i++) {
        await_ack(fd[i], 1, 2);
        close(fd[i]);
        one_topic(path, sizeof(path), i);
        struct stream s = read_topic(&r, path);
        fill(data, SIZE, i);
        assert_int_equal(s.size, SIZE + 4);
        assert_memory_equal(s.buf, data, SIZE);
        assert_memory_equal(s.buf + SIZE, "next", 4);
        free(s.buf);
    }
    w.count = 0;
    until(so_many_wait, &w);
    until(nobody_is_reserved, &r);
    close(first);
    rig_stop(&r);
}

/* Stopping while batches wait: none of them was acked, and nothing is left behind. */
static void stopping_gives_them_up(void **state)
{
    (void)state;
    struct rig r = {.workers = 1, .file_size = 32u << 20, .geo = {.descriptors = RING}};
    rig_start(&r);
    int fd[PUBLISHERS];
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        fd[i] = peer(&r, true);
        open_topic(fd[i], "t", 1, WIRE_S_NONE, 0);
    }
    seq_take_wait(r.log);
    for (unsigned i = 0; i < PUBLISHERS; i++)
        publish(fd[i], 1, 1, 0, "batch", 5, NULL, 1);
    struct waits w = {&r, PUBLISHERS - RING};
    until(so_many_wait, &w);
    seq_give(r.log);
    rig_stop(&r);
    for (unsigned i = 0; i < PUBLISHERS; i++)
        close(fd[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_ring_stops_nobody_else),
        cmocka_unit_test(stopping_gives_them_up),
    };
    return cmocka_run_group_tests_name("server ring", tests, NULL, NULL);
}
