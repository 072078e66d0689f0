/* The plain-socket baselines carry what they were given, over TCP and Unix sockets, in one process
 * and in several; a server that dies is an error and no hang. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/bench/clock.h"
#include "tests/bench/keeper.h"
#include "tests/bench/peer.h"

enum { MIB = 1 << 20 };

static int set_up(void **state)
{
    (void)state;
    return keeper_start();
}

static int tear_down(void **state)
{
    (void)state;
    keeper_stop();
    return 0;
}

static void run_mode(bool unix_socket, enum peer_mode mode, unsigned workers, unsigned processes)
{
    struct peer peer;
    struct embar_error err = {0};
    /* Memory below what is sent: slices are used round and round. */
    struct peer_options po = {.unix_socket = unix_socket, .memory = 4 * MIB, .flush = FLUSH_AUTO};
    if (peer_start(&peer, &po, &err))
        fail_msg("%s", err.text);
    struct peer_load pl = {.peer = &peer,
                           .mode = mode,
                           .bytes = 5 * MIB + 77,
                           .send_size = 100000,
                           .recv_size = 65536};
    struct load load = {&peer_stream_ops, &pl, workers, processes, peer.pid, 60000};
    struct load_result result;
    if (load_run(&load, &result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(result.bytes, (uint64_t)workers * pl.bytes);
    assert_true(result.seconds > 0);
    assert_true(result.cpu_server > 0);
    peer_stop(&peer);
}

static void raw_over_tcp(void **state)
{
    (void)state;
    run_mode(false, PEER_RAW, 3, 1);
}

/* The server's CRC of what came must be the client's of what it sent, or the run fails. */
static void work_over_tcp_in_processes(void **state)
{
    (void)state;
    run_mode(false, PEER_WORK, 3, 2);
}

static void work_over_unix(void **state)
{
    (void)state;
    run_mode(true, PEER_WORK, 2, 1);
}

static void source_over_tcp(void **state)
{
    (void)state;
    run_mode(false, PEER_SOURCE, 2, 2);
}

static void echo_returns_the_message(void **state)
{
    (void)state;
    struct peer peer;
    struct embar_error err = {0};
    struct peer_options po = {.memory = 4 * MIB, .flush = FLUSH_NONE};
    assert_int_equal(peer_start(&peer, &po, &err), 0);
    char sent[300];
    char got[300];
    struct peer_load pl = {
        .peer = &peer, .mode = PEER_ECHO, .send_size = sizeof(sent), .recv_size = 4096};
    int fd = peer_connect(&pl, 0, 1, 0, &err);
    assert_true(fd >= 0);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof(sent); i++)
            sent[i] = (char)(i * 7 + round);
        assert_int_equal(io_send(fd, sent, sizeof(sent)), 0);
        assert_int_equal(io_recv(fd, got, sizeof(got)), 0);
        assert_memory_equal(sent, got, sizeof(sent));
    }
    (void)close(fd);
    peer_stop(&peer);
}

static void dead_server_is_an_error(void **state)
{
    (void)state;
    struct peer peer;
    struct embar_error err = {0};
    struct peer_options po = {.memory = 4 * MIB, .flush = FLUSH_NONE};
    assert_int_equal(peer_start(&peer, &po, &err), 0);
    struct peer_load pl = {
        .peer = &peer, .mode = PEER_RAW, .bytes = MIB, .send_size = 4096, .recv_size = 4096};
    struct load load = {&peer_stream_ops, &pl, 2, 1, 0, 60000};
    struct load_result result;
    proc_end(peer.pid, 2000);
    peer.pid = 0;
    assert_true(load_run(&load, &result, &err) < 0);
    assert_true(err.text[0] != '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_over_tcp),
        cmocka_unit_test(work_over_tcp_in_processes),
        cmocka_unit_test(work_over_unix),
        cmocka_unit_test(source_over_tcp),
        cmocka_unit_test(echo_returns_the_message),
        cmocka_unit_test(dead_server_is_an_error),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
