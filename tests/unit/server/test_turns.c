/* Whose turn it is: connections that share a worker bring in as much as each other while each could go on,
 * and who has little to say waits for one turn of one of them; slow batches move and land in turns, too.
 * Without timing: the worker is held before a receive until what is to wait for it does; then its receives
 * and sends are a log (calls.h), of which the tests tell what may not be in it. What greedy ones send waits in
 * Unix sockets, whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/calls.h"

enum {
    WAITS = 3 * TURN, /* bytes of a greedy one that a socket holds, at least */
    MOVED = -2,       /* in the log in place of a descriptor: bytes out of the pool */
};

/* ---- Leaving the pool ---------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards these two */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool moves_held, moving; /* nothing leaves the pool; something would */

int __real_log_peek(struct log *l, const struct batch *b, uint32_t at, void *to, uint32_t n);
int __wrap_log_peek(struct log *l, const struct batch *b, uint32_t at, void *to, uint32_t n);

int __wrap_log_peek(struct log *l, const struct batch *b, uint32_t at, void *to, uint32_t n)
{
    pthread_mutex_lock(&lock);
    while (moves_held) {
        moving = true;
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    calls_note(MOVED, n);
    return __real_log_peek(l, b, at, to, n);
}

static void hold_moves(bool hold)
{
    pthread_mutex_lock(&lock);
    moves_held = hold;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static bool is_moving(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    bool is = moving;
    pthread_mutex_unlock(&lock);
    return is;
}

static bool has_moved_all(void *bytes)
{
    size_t sum = 0;
    look();
    for (unsigned i = 0; i < call_count; i++)
        sum += calls[i].fd == MOVED ? calls[i].n : 0;
    return sum >= *(const size_t *)bytes;
}

/* ---- Publishers ---------------------------------------------------------------------------- */

struct greedy {
    int fd, theirs; /* and the server's descriptor */
    struct batch_bytes b;
    size_t waits; /* bytes in the socket */
    size_t came;
};

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
    calls_forget();
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

/* A batch that is too slow moves out of the pool a share a turn, too: others have turns meanwhile. */
static void a_slow_one_moves(void **state)
{
    (void)state;
    enum { N = 5, CAME = 8 * TURN, SIZE = 2 * CAME };
    struct rig r = {.workers = 1, .tick_ms = 40, .spec = "mem:256M"};
    struct greedy g[N];
    int theirs;
    let(UINT32_MAX);
    rig_start(&r);
    greedy_ones(&r, g, N);
    let(UINT32_MAX);
    int fd = opened(&r, "slow", &theirs);
    struct batch_bytes b = batch_make(1, 1, 0, payload, SIZE, NULL, 1);
    calls_forget();
    hold_moves(true);
    send_bytes(fd, b.p, CAME);
    until(is_moving, NULL); /* after 5 ticks in which nothing came */
    for (unsigned i = 0; i < N; i++)
        stuff(&g[i]);
    hold_moves(false);
    until(has_moved_all, &(size_t){CAME - AHEAD});
    struct crowd all = {g, N};
    until(all_came, &all);
    look();
    unsigned first = next_of(MOVED, false, 0), last = first;
    for (unsigned i = first; i < call_count; i++)
        if (calls[i].fd == MOVED)
            last = i;
    assert_in_range(greedy_bytes(g, N, first, last), 4 * TURN, SIZE_MAX);
    send_bytes(fd, b.p + CAME, b.n - CAME);
    await_ack(fd, 1, 1);
    greedy_end(g, N, false);
    topic_is(&r, "slow", SIZE);
    free(b.p);
    close(fd);
    rig_stop(&r);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares),
        cmocka_unit_test(acknowledged_or_not),
        cmocka_unit_test(little_beside_many),
        cmocka_unit_test(told_often),
        cmocka_unit_test(a_slow_one_lands),
        cmocka_unit_test(a_slow_one_moves),
    };
    calls_init();
    return cmocka_run_group_tests_name("server turns", tests, NULL, NULL);
}
