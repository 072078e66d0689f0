/* Whose turn it is: connections that share a worker bring in and are sent as much as each other while each
 * could go on, and who has little to say waits for one turn of one of them. Without timing: the worker is
 * held before a receive, by the linker's --wrap, until what is to wait for it does; then its receives
 * and sends are a log, of which the tests tell what may not be in it. What greedy ones send waits in Unix
 * sockets, whole; what subscribers are sent goes nowhere and counts as sent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

enum {
    TURN = 64 << 10,     /* net/server/internal.h: TURN_SHARED */
    TURN_SENT = 1 << 20, /* TURN_OUT */
    GREEDY = 2 << 20,    /* bytes of a batch, of which a socket holds some */
    WAITS = 3 * TURN,    /* of it at least */
    AHEAD = 16 << 10,    /* that a receive brings of the next batch */
    LOG = 20000,
};

struct call {
    pthread_t who;
    int fd;
    bool out;
    uint16_t channel; /* of the first frame sent */
    size_t n;
};

static pthread_t tester;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned free_receives; /* until the worker is held */
static bool held;
static int swallow[2]; /* what is sent there goes nowhere; 0: no descriptor */
static struct call log_of[LOG];
static unsigned logged;

static struct call calls[LOG]; /* the tester's copy */
static unsigned call_count;

ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);

static void note(int fd, bool out, uint16_t channel, ssize_t n)
{
    if (n > 0 && logged < LOG)
        log_of[logged++] = (struct call){pthread_self(), fd, out, channel, (size_t)n};
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
    if (pthread_equal(pthread_self(), tester))
        return __real_recvmsg(fd, m, flags);
    pthread_mutex_lock(&lock);
    while (free_receives == 0) {
        held = true;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &lock);
    }
    held = false;
    ssize_t n = __real_recvmsg(fd, m, flags);
    if (n > 0)
        free_receives--;
    note(fd, false, 0, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    if (pthread_equal(pthread_self(), tester))
        return __real_sendmsg(fd, m, flags);
    struct wire_frame f = {0};
    ssize_t n = 0;
    if (m->msg_iov[0].iov_len >= sizeof(f))
        memcpy(&f, m->msg_iov[0].iov_base, sizeof(f));
    pthread_mutex_lock(&lock);
    if (fd == swallow[0] || fd == swallow[1])
        for (size_t i = 0; i < m->msg_iovlen; i++)
            n += (ssize_t)m->msg_iov[i].iov_len;
    else
        n = __real_sendmsg(fd, m, flags);
    note(fd, true, le16_get(f.channel), n);
    pthread_mutex_unlock(&lock);
    return n;
}

/* Let the worker receive so often, and wait until it would once more. */
static void let(unsigned receives)
{
    pthread_mutex_lock(&lock);
    free_receives = receives;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static bool is_held(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    bool is = held && free_receives == 0;
    pthread_mutex_unlock(&lock);
    return is;
}

static void hold_after(unsigned receives)
{
    let(receives);
    until(is_held, NULL);
}

static void forget_calls(void)
{
    pthread_mutex_lock(&lock);
    logged = 0;
    pthread_mutex_unlock(&lock);
}

static void look(void)
{
    pthread_mutex_lock(&lock);
    call_count = logged;
    memcpy(calls, log_of, logged * sizeof(*calls));
    pthread_mutex_unlock(&lock);
}

/* ---- Publishers ---------------------------------------------------------------------------- */

struct greedy {
    int fd, theirs; /* and the server's descriptor */
    struct batch_bytes b;
    size_t waits; /* bytes in the socket */
    size_t came;
};

static uint8_t payload[GREEDY];

/* A connection that has a topic open; its descriptor at the server is that of the newest receive. */
static int opened(const struct rig *r, const char *path, int *theirs)
{
    forget_calls();
    int fd = peer(r, true);
    open_topic(fd, path, 1, WIRE_S_NONE, 0);
    look();
    *theirs = calls[call_count - 1].fd;
    return fd;
}

/* As much of its bytes as the socket takes. */
static void stuff(struct greedy *g)
{
    for (;;) {
        ssize_t n = send(g->fd, g->b.p + g->waits, g->b.n - g->waits, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            break;
        g->waits += (size_t)n;
    }
    assert_true(g->waits >= WAITS);
}

static void greedy_ones(const struct rig *r, struct greedy *g, unsigned n)
{
    char path[24];
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "greedy%u", i);
        int theirs, most = GREEDY;
        g[i] = (struct greedy){.fd = opened(r, path, &theirs)};
        g[i].theirs = theirs;
        (void)setsockopt(g[i].fd, SOL_SOCKET, SO_SNDBUF, &most,
                         sizeof(most)); /* what it may have */
        g[i].b = batch_make(1, 1, 0, payload, GREEDY, NULL, 1);
    }
    forget_calls();
    let(0); /* from the first receive of theirs */
}

static struct greedy *whose(struct greedy *g, unsigned n, int theirs)
{
    for (unsigned i = 0; i < n; i++)
        if (g[i].theirs == theirs)
            return &g[i];
    return NULL;
}

struct crowd {
    struct greedy *g;
    unsigned n;
};

/* All that waited has been received. */
static bool all_came(void *arg)
{
    const struct crowd *w = arg;
    size_t came = 0, waited = 0;
    look();
    for (unsigned i = 0; i < call_count; i++)
        if (!calls[i].out && whose(w->g, w->n, calls[i].fd))
            came += calls[i].n;
    for (unsigned i = 0; i < w->n; i++)
        waited += w->g[i].waits;
    return came >= waited;
}

/* They are received from; then their batches come to their end, or to nothing. */
static void greedy_end(struct greedy *g, unsigned n, bool whole)
{
    struct crowd all = {g, n};
    let(UINT32_MAX);
    until(all_came, &all);
    for (unsigned i = 0; i < n; i++) {
        if (whole) {
            send_bytes(g[i].fd, g[i].b.p + g[i].waits, g[i].b.n - g[i].waits);
            await_ack(g[i].fd, 1, 1);
        }
        close(g[i].fd);
        free(g[i].b.p);
    }
}

static void topic_is(const struct rig *r, const char *path, size_t n)
{
    struct stream s = read_topic(r, path);
    assert_int_equal(s.size, n);
    assert_memory_equal(s.buf, payload, n);
    free(s.buf);
}

/* No one of them is ahead of another one that has bytes waiting by more than two turns, nor brings more
 * than that at a time. */
static void even(struct greedy *g, unsigned n)
{
    const struct greedy *last = NULL;
    size_t run = 0;
    look();
    for (unsigned i = 0; i < call_count; i++) {
        struct greedy *one = calls[i].out ? NULL : whose(g, n, calls[i].fd);
        if (!one)
            continue;
        one->came += calls[i].n;
        run = one == last ? run + calls[i].n : calls[i].n;
        last = one;
        for (unsigned k = 0; k < n; k++)
            if (&g[k] != one && g[k].came < g[k].waits) {
                assert_in_range(run, 1, 2 * (TURN + AHEAD));
                assert_in_range(one->came, 1, g[k].came + 2 * (TURN + AHEAD));
            }
    }
}

static struct rig one_worker(void)
{
    return (struct rig){.workers = 1, .tick_ms = 600000, .spec = "mem:256M"};
}

static void shares(void **state)
{
    (void)state;
    enum { N = 5 };
    struct rig r = one_worker();
    struct greedy g[N];
    let(UINT32_MAX);
    rig_start(&r);
    greedy_ones(&r, g, N);
    for (unsigned i = 0; i < N; i++)
        stuff(&g[i]);
    greedy_end(g, N, true);
    even(g, N);
    char path[24];
    for (unsigned i = 0; i < N; i++) {
        (void)snprintf(path, sizeof(path), "greedy%u", i);
        topic_is(&r, path, GREEDY);
    }
    rig_stop(&r);
}

/* Those that are acknowledged all the time, and have turns for it, bring no more than those that are not. */
static void acknowledged_or_not(void **state)
{
    (void)state;
    enum { N = 4, SMALL = 4000, EACH = (GREEDY / SMALL) };
    struct rig r = one_worker();
    struct greedy g[N];
    let(UINT32_MAX);
    rig_start(&r);
    greedy_ones(&r, g, N);
    for (unsigned i = 0; i < N; i += 2) {
        g[i].b.n = 0;
        for (unsigned k = 0; k < EACH; k++) {
            struct batch_bytes b =
                batch_make(1, k + 1, 0, payload + (size_t)k * SMALL, SMALL, NULL, 1);
            memcpy(g[i].b.p + g[i].b.n, b.p, b.n);
            g[i].b.n += b.n;
            free(b.p);
            if (g[i].b.n + b.n > GREEDY)
                break;
        }
    }
    for (unsigned i = 0; i < N; i++)
        stuff(&g[i]);
    greedy_end(g, N, false);
    even(g, N);
    rig_stop(&r);
}

/* Greedy bytes that came from one call to another. */
static size_t greedy_bytes(struct greedy *g, unsigned n, unsigned from, unsigned to)
{
    size_t sum = 0;
    for (unsigned i = from; i < to; i++)
        if (!calls[i].out && whose(g, n, calls[i].fd))
            sum += calls[i].n;
    return sum;
}

static unsigned next_of(int fd, bool out, unsigned from)
{
    while (from < call_count && (calls[from].fd != fd || calls[from].out != out))
        from++;
    assert_true(from < call_count);
    return from;
}

/* Who sends little waits for the turn at hand and one more, however many are greedy, and is
 * acknowledged before the next. */
static void little_beside_many(void **state)
{
    (void)state;
    enum { N = 8, LITTLE = 7900, TIMES = 13 }; /* more than a share, but not in one time round */
    struct rig r = one_worker();
    struct greedy g[N];
    unsigned mark[TIMES];
    int theirs;
    let(UINT32_MAX);
    rig_start(&r);
    int fd = opened(&r, "little", &theirs);
    greedy_ones(&r, g, N);
    for (unsigned i = 0; i < N; i++)
        stuff(&g[i]);
    /* Each has had its first turn, which its event earned it. */
    hold_after(2 * N + 1);
    for (unsigned i = 0; i < TIMES; i++) {
        publish(fd, 1, i + 1, 0, payload + i * LITTLE, LITTLE, NULL, 1);
        look();
        mark[i] = call_count;
        hold_after(4);
    }
    greedy_end(g, N, true);
    await_ack(fd, 1, TIMES);
    look();
    size_t all = 0;
    for (unsigned i = 0; i < N; i++)
        all += g[i].waits;
    for (unsigned i = 0; i < TIMES; i++) {
        unsigned came = next_of(theirs, false, mark[i]), acked = next_of(theirs, true, came);
        assert_in_range(greedy_bytes(g, N, mark[i], came), 0, 2 * (TURN + AHEAD));
        assert_int_equal(greedy_bytes(g, N, came, acked), 0);
        assert_in_range(greedy_bytes(g, N, 0, acked), 1, all); /* they were greedy all the while */
    }
    topic_is(&r, "little", TIMES * LITTLE);
    close(fd);
    rig_stop(&r);
}

/* Who is sent to in small parts, and has an event for each, has no turns for it beyond its share. */
static void told_often(void **state)
{
    (void)state;
    enum { N = 7, PART = 24000, TIMES = 40 };
    struct rig r = one_worker();
    struct greedy g[N];
    let(UINT32_MAX);
    rig_start(&r);
    greedy_ones(&r, g, N);
    for (unsigned i = 1; i < N; i++)
        stuff(&g[i]);
    hold_after(2 * N + 1);
    for (unsigned i = 0; i < TIMES; i++) {
        ssize_t n = send(g[0].fd, g[0].b.p + g[0].waits, PART, MSG_DONTWAIT | MSG_NOSIGNAL);
        g[0].waits += n > 0 ? (size_t)n : 0;
        hold_after(1);
    }
    size_t came = 0, least = SIZE_MAX;
    look();
    for (unsigned i = 0; i < call_count; i++) {
        struct greedy *one = calls[i].out ? NULL : whose(g, N, calls[i].fd);
        if (one)
            one->came += calls[i].n;
    }
    for (unsigned i = 1; i < N; i++)
        if (g[i].came < least)
            least = g[i].came;
    came = g[0].came;
    assert_in_range(least, TURN, g[1].waits - 1); /* so the others could go on all the while */
    assert_in_range(came, TURN, least + 2 * (TURN + AHEAD));
    greedy_end(g, N, true);
    rig_stop(&r);
}

static bool has_moved(void *arg)
{
    struct server_stat st;
    server_stat(((const struct rig *)arg)->server, &st);
    return st.moved == 1;
}

static bool all_staged(void *arg)
{
    struct server_stat st;
    server_stat(((const struct rig *)arg)->server, &st);
    return st.staged >= 8 * TURN;
}

/* A batch that was collected in staging comes into the pool a share a turn, not all of it in one. */
static void a_slow_one_lands(void **state)
{
    (void)state;
    enum { N = 5, SIZE = 8 * TURN, LAST = 100 };
    struct rig r = {.workers = 1, .tick_ms = 40, .spec = "mem:256M"};
    struct greedy g[N];
    int theirs;
    let(UINT32_MAX);
    rig_start(&r);
    int fd = opened(&r, "slow", &theirs);
    struct batch_bytes b = batch_make(1, 1, 0, payload, SIZE, NULL, 1);
    send_bytes(fd, b.p, 9000);
    until(has_moved, &r); /* it takes 30 ticks */
    send_bytes(fd, b.p + 9000, b.n - LAST - 9000);
    until(all_staged, &r);
    greedy_ones(&r, g, N);
    for (unsigned i = 0; i < N; i++)
        stuff(&g[i]);
    hold_after(2 * N + 1);
    look();
    unsigned mark = call_count;
    send_bytes(fd, b.p + b.n - LAST, LAST);
    let(UINT32_MAX);
    await_ack(fd, 1, 1);
    greedy_end(g, N, false);
    look();
    unsigned came = next_of(theirs, false, mark), acked = next_of(theirs, true, came);
    assert_in_range(greedy_bytes(g, N, came, acked), 4 * TURN, SIZE_MAX);
    topic_is(&r, "slow", SIZE);
    free(b.p);
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

static void to_nowhere(int one, int other)
{
    pthread_mutex_lock(&lock);
    swallow[0] = one;
    swallow[1] = other;
    pthread_mutex_unlock(&lock);
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
    forget_calls();
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
    forget_calls();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares),
        cmocka_unit_test(acknowledged_or_not),
        cmocka_unit_test(little_beside_many),
        cmocka_unit_test(told_often),
        cmocka_unit_test(a_slow_one_lands),
        cmocka_unit_test(two_subscribers),
        cmocka_unit_test(two_subscriptions),
        cmocka_unit_test(a_worker_each),
    };
    tester = pthread_self();
    fill(payload, sizeof(payload), 3);
    return cmocka_run_group_tests_name("server turns", tests, NULL, NULL);
}
