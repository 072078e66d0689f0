/* How connections share a worker, and workers the connections: for how long a neighbour's word keeps a stream's
 * turns short, how subscribers are sent to, and on which worker who comes is put. Without timing (calls.h); what
 * subscribers are sent goes nowhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/calls.h"

/* ---- A neighbour's word -------------------------------------------------------------------- */

/* Bytes of the newest receive of a stream of which so much waits in the socket: does the worker count as
 * shared? */
enum { PROBE = 3 * TURN };

static size_t probe(int fd, int theirs, uint64_t *sequence)
{
    struct batch_bytes b = batch_make(1, ++*sequence, 0, payload, PROBE, NULL, 1);
    size_t most = 0;
    let(0);
    calls_forget();
    send_bytes(fd, b.p, b.n);
    free(b.p);
    let(UINT32_MAX);
    await_ack(fd, 1, *sequence);
    look();
    for (unsigned i = 0; i < call_count; i++)
        if (!calls[i].out && calls[i].fd == theirs && calls[i].n > most)
            most = calls[i].n;
    return most;
}

static void some_turns(int fd, unsigned turns, uint64_t *sequence)
{
    while (turns-- > 0) {
        publish(fd, 1, ++*sequence, 0, payload, 100, NULL, 1);
        await_ack(fd, 1, *sequence);
    }
}

static void word(int fd)
{
    struct got g;
    send_frame(fd, WIRE_PING, 0, 9, NULL, 0);
    expect(fd, WIRE_OK, &g);
    got_free(&g);
}

/* A word of a neighbour shortens a stream's turns for some 500 to 1,000 of them, many words for some
 * thousands: who comes again soon finds them short, and who has gone does not cost the stream for ever. */
static void one_word(void **state)
{
    (void)state;
    enum { STEP = 512, MOST = 4096, FEW = 20 }; /* conn.c: SHARED_STEP, SHARED_TURNS */
    struct rig r = one_worker();
    uint64_t sequence = 0;
    int theirs, most = GREEDY;
    let(UINT32_MAX);
    rig_start(&r);
    int neighbour = peer(&r, true), fd = opened(&r, "stream", &theirs);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &most, sizeof(most));
    some_turns(fd, MOST + 2 * STEP, &sequence);
    assert_in_range(probe(fd, theirs, &sequence), TURN + AHEAD + 1, PROBE);
    word(neighbour);
    assert_in_range(probe(fd, theirs, &sequence), 1, TURN + AHEAD);
    some_turns(fd, STEP - FEW, &sequence);
    assert_in_range(probe(fd, theirs, &sequence), 1, TURN + AHEAD);
    some_turns(fd, STEP + FEW, &sequence);
    assert_in_range(probe(fd, theirs, &sequence), TURN + AHEAD + 1, PROBE);
    for (unsigned i = 0; i < MOST / STEP; i++) {
        word(neighbour);
        some_turns(fd, 1, &sequence);
    }
    some_turns(fd, MOST / 2, &sequence);
    assert_in_range(probe(fd, theirs, &sequence), 1, TURN + AHEAD);
    for (unsigned i = 0; i < 10 * MOST / STEP; i++) {
        word(neighbour);
        some_turns(fd, 1, &sequence);
    }
    some_turns(fd, MOST + 2 * STEP, &sequence);
    assert_in_range(probe(fd, theirs, &sequence), TURN + AHEAD + 1, PROBE);
    close(neighbour);
    close(fd);
    rig_stop(&r);
}

/* ---- Subscribers --------------------------------------------------------------------------- */

enum { BATCHES = 8 };

static void a_large_topic(const struct rig *r)
{
    int fd = peer(r, true);
    open_topic(fd, "large", 1, WIRE_S_NONE, 0);
    for (unsigned i = 0; i < BATCHES; i++) {
        publish(fd, 1, i + 1, 0, payload, GREEDY, NULL, 1);
        await_ack(fd, 1, i + 1);
    }
    close(fd);
}

struct sent_want {
    int fd;
    uint16_t channel;
};

static size_t sent_to(const struct sent_want *w, unsigned to)
{
    size_t sum = 0;
    for (unsigned i = 0; i < to; i++)
        if (calls[i].out && calls[i].fd == w->fd && (!w->channel || calls[i].channel == w->channel))
            sum += calls[i].n;
    return sum;
}

static bool all_sent(void *arg)
{
    look();
    return sent_to(arg, call_count) >= (size_t)BATCHES * GREEDY;
}

static void ask_for_large(int fd, uint16_t channel)
{
    uint8_t b[256];
    send_bytes(fd, b, subscribe_bytes(b, "large", channel, WIRE_FROM_EARLIEST, 0, 0, 0));
}

/* Neither is sent more than a turn while the other waits for some of its own, or two at first: what a
 * turn sends ends with a batch. */
static void sent_evenly(const struct sent_want w[2])
{
    size_t run = 0, to[2] = {0, 0};
    look();
    int last = -1;
    for (unsigned i = 0; i < call_count; i++) {
        int one = -1;
        for (int k = 0; k < 2; k++)
            if (calls[i].out && calls[i].fd == w[k].fd &&
                (!w[k].channel || calls[i].channel == w[k].channel))
                one = k;
        if (one < 0)
            continue;
        run = one == last ? run + calls[i].n : calls[i].n;
        last = one;
        to[one] += calls[i].n;
        if (to[1 - one] < (size_t)BATCHES * GREEDY)
            assert_in_range(run, 1, (to[1 - one] > 0 ? 1u : 2u) * (GREEDY + 4096u));
    }
}

/* Two connections that read as fast as they are sent to. */
static void two_subscribers(void **state)
{
    (void)state;
    struct rig r = one_worker();
    struct sent_want w[2] = {{0}};
    int fd[2];
    let(UINT32_MAX);
    rig_start(&r);
    a_large_topic(&r);
    for (int k = 0; k < 2; k++)
        fd[k] = opened(&r, "large", &w[k].fd);
    calls_forget();
    let(0);
    to_nowhere(w[0].fd, w[1].fd);
    for (int k = 0; k < 2; k++)
        ask_for_large(fd[k], 2);
    let(UINT32_MAX);
    for (int k = 0; k < 2; k++)
        until(all_sent, &w[k]);
    to_nowhere(0, 0);
    sent_evenly(w);
    close(fd[0]);
    close(fd[1]);
    rig_stop(&r);
}

/* The same on one connection. */
static void two_subscriptions(void **state)
{
    (void)state;
    struct rig r = one_worker();
    struct sent_want w[2] = {{.channel = 2}, {.channel = 3}};
    let(UINT32_MAX);
    rig_start(&r);
    a_large_topic(&r);
    int fd = opened(&r, "large", &w[0].fd);
    calls_forget();
    let(0);
    w[1].fd = w[0].fd;
    to_nowhere(w[0].fd, 0);
    for (int k = 0; k < 2; k++)
        ask_for_large(fd, w[k].channel);
    let(UINT32_MAX);
    for (int k = 0; k < 2; k++)
        until(all_sent, &w[k]);
    to_nowhere(0, 0);
    sent_evenly(w);
    close(fd);
    rig_stop(&r);
}

/* ---- Workers ------------------------------------------------------------------------------- */

struct left {
    const struct rig *rig;
    uint64_t n;
};

static bool so_many_left(void *arg)
{
    const struct left *w = arg;
    struct server_stat st;
    server_stat(w->rig->server, &st);
    return st.connections == w->n;
}

static bool so_many_accepted(void *arg)
{
    const struct left *w = arg;
    struct server_stat st;
    server_stat(w->rig->server, &st);
    return st.accepted == w->n;
}

/* Who accepts a connection gives it to the worker that has the fewest. */
static void a_worker_each(void **state)
{
    (void)state;
    enum { N = 4 };
    struct rig r = {.workers = N, .tick_ms = 600000};
    int fd[2 * N];
    char path[24];
    let(UINT32_MAX);
    rig_start(&r);
    pthread_t who[2 * N];
    for (unsigned i = 0; i < 2 * N; i++) {
        int theirs;
        (void)snprintf(path, sizeof(path), "topic%u", i);
        fd[i] = opened(&r, path, &theirs);
        who[i] = calls[0].who;
        for (unsigned k = i / N * N; k < i; k++)
            assert_false(pthread_equal(who[k], who[i]));
    }
    for (unsigned i = 0; i < 2 * N; i++)
        close(fd[i]);
    rig_stop(&r);
}

/* The thread that hears a connection now. */
static pthread_t whose(int fd)
{
    struct got g;
    calls_forget();
    send_frame(fd, WIRE_PING, 0, 9, NULL, 0);
    expect(fd, WIRE_OK, &g);
    got_free(&g);
    look();
    return calls[0].who;
}

/* Nor have those that open nothing to have been heard of first; and where one leaves, the next comes. */
static void a_worker_each_in_silence(void **state)
{
    (void)state;
    enum { N = 3 };
    struct rig r = {.workers = N, .tick_ms = 600000};
    int fd[2 * N];
    pthread_t who[2 * N];
    let(UINT32_MAX);
    rig_start(&r);
    for (unsigned i = 0; i < 2 * N; i++) {
        fd[i] = peer(&r, true);
        who[i] = whose(fd[i]);
        for (unsigned k = i / N * N; k < i; k++)
            assert_false(pthread_equal(who[k], who[i]));
    }
    for (unsigned at = 0; at < 2 * N; at++) {
        unsigned i = at < N ? N - 1 - at : at - N, other = N; /* whichever worker takes a tie */
        while (!pthread_equal(who[other], who[i]))
            other++;
        close(fd[i]);
        until(so_many_left, &(struct left){&r, 2 * N - 1});
        assert_true(pthread_equal(whose(fd[other]), who[i])); /* it is done with the closing */
        fd[i] = peer(&r, true);
        assert_true(pthread_equal(whose(fd[i]), who[i]));
    }
    for (unsigned i = 0; i < 2 * N; i++)
        close(fd[i]);
    rig_stop(&r);
}

/* Those that are on their way to a worker count, though it has not taken them yet: it is held. */
static void those_on_their_way(void **state)
{
    (void)state;
    enum { MORE = 6 };
    struct rig r = {.workers = 2, .tick_ms = 600000};
    int fd[2], more[MORE], theirs;
    uint8_t b[128];
    struct got g;
    let(UINT32_MAX);
    rig_start(&r);
    for (unsigned i = 0; i < 2; i++)
        fd[i] = opened(&r, i ? "one" : "other", &theirs);
    pthread_t held = whose(fd[0]);
    assert_false(pthread_equal(held, whose(fd[1])));
    let(0);
    send_frame(fd[0], WIRE_PING, 0, 9, NULL, 0);
    hold_after(0);
    for (unsigned i = 0; i < MORE; i++)
        more[i] = dial_unix(&r);
    until(so_many_accepted, &(struct left){&r, 2 + MORE});
    let(UINT32_MAX);
    expect(fd[0], WIRE_OK, &g);
    got_free(&g);
    unsigned there = 0;
    for (unsigned i = 0; i < MORE; i++) {
        send_bytes(more[i], b, hello_bytes(&r, b, false));
        expect(more[i], WIRE_HELLO, &g);
        got_free(&g);
        there += pthread_equal(whose(more[i]), held) != 0;
        close(more[i]);
    }
    assert_int_equal(there, MORE / 2);
    close(fd[0]);
    close(fd[1]);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_word),
        cmocka_unit_test(two_subscribers),
        cmocka_unit_test(two_subscriptions),
        cmocka_unit_test(a_worker_each),
        cmocka_unit_test(a_worker_each_in_silence),
        cmocka_unit_test(those_on_their_way),
    };
    calls_init();
    return cmocka_run_group_tests_name("server share", tests, NULL, NULL);
}
