/* Who waits for pool space gets it in the order in which they came: when an extent comes free, the first
 * of a thousand looks, and not all of them; and a large batch that was first is not passed by small ones,
 * however little comes free each time. The first with a tick that never comes: nobody is forgotten. Linked
 * with --wrap=log_reserve and --wrap=log_reserve_there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

#define SMALL  8000u
#define LARGE  150000u /* a socket holds it */
#define MOST   (1u << 20)
#define PIECES 40u

static atomic_uint looks, own; /* own: for those that may look only in what their topic fills */

int __real_log_reserve(struct log *log, struct batch *b);
int __wrap_log_reserve(struct log *log, struct batch *b);

int __wrap_log_reserve(struct log *log, struct batch *b)
{
    atomic_fetch_add(&looks, 1);
    return __real_log_reserve(log, b);
}

int __real_log_reserve_there(struct log *log, struct batch *b, uint64_t owed);
int __wrap_log_reserve_there(struct log *log, struct batch *b, uint64_t owed);

int __wrap_log_reserve_there(struct log *log, struct batch *b, uint64_t owed)
{
    atomic_fetch_add(&own, 1);
    return __real_log_reserve_there(log, b, owed);
}

static uint8_t data[MOST];

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

/* A batch on its way that waits: `count` do by then. */
static int waiter(struct rig *r, const char *path, uint32_t size, unsigned count)
{
    int fd = peer(r, count % 2);
    open_topic(fd, path, 1, WIRE_S_NONE, 0);
    fill(data, size, count);
    publish(fd, 1, 1, 0, data, size, NULL, 1);
    until(so_many_wait, &(struct waits){r, count});
    return fd;
}

static void trim_all(const struct rig *r, const char *path)
{
    struct node_stat st;
    struct commit commit;
    assert_int_equal(log_resolve(r->log, path, &st), 0);
    struct control c = {.kind = MEDIA_C_TRIM, .id = st.id, .value = st.end};
    assert_int_equal(log_control_wait(r->log, &c, &commit), 0);
}

/* Some topics of one batch each, and then one that takes the rest of the pool: its last batch waits. */
static int pool_fill(struct rig *r, uint32_t each)
{
    int fd = peer(r, true);
    struct server_stat st, before;
    server_stat(r->server, &before);
    st = before;
    for (unsigned i = 0; i < PIECES; i++) {
        char path[16];
        snprintf(path, sizeof(path), "piece%u", i);
        open_topic(fd, path, (uint16_t)(2 + i), WIRE_S_NONE, 0);
        fill(data, each, i);
        publish(fd, (uint16_t)(2 + i), 1, 0, data, each, NULL, 1);
        await_ack(fd, (uint16_t)(2 + i), 1);
    }
    open_topic(fd, "rest", 1, WIRE_S_NONE, 0);
    for (uint64_t n = 1; st.waiting == 0; n++) {
        publish(fd, 1, n, 0, data, n < 50 ? MOST : SMALL, NULL, 1);
        struct waits one = {r, 1};
        while (!so_many_wait(&one)) {
            struct server_stat now;
            server_stat(r->server, &now);
            if (now.batches >= before.batches + PIECES + n)
                break;
        }
        server_stat(r->server, &st);
        if (st.waiting == 0)
            await_ack(fd, 1, n);
    }
    return fd;
}

static void a_free_extent_is_looked_for_by_few(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct rig r = {.workers = 4, .tick_ms = 3600000};
    static int fd[N];
    rig_start(&r);
    int first = pool_fill(&r, SMALL);
    for (unsigned i = 0; i < N; i++)
        fd[i] = waiter(&r, "t", SMALL, 2 + i);
    atomic_store(&looks, 0);
    trim_all(&r, "piece0");
    until(so_many_wait, &(struct waits){&r, N});
    unsigned one = atomic_load(&looks);
    atomic_store(&looks, 0);
    trim_all(&r, "rest");
    for (unsigned i = 0; i < N; i++) {
        await_ack(fd[i], 1, 1);
        close(fd[i]);
    }
    close(first);
    unsigned all = atomic_load(&looks);
    print_message("%u wait: %u looks for one extent, %u for space for all of them\n", N, one, all);
    assert_true(one >= 1 && one <= 12);
    assert_true(all >= N && all <= 2 * N);
    struct stream s = read_topic(&r, "t");
    assert_int_equal(s.size, (uint64_t)N * SMALL);
    free(s.buf);
    rig_stop(&r);
}

static uint64_t end_of(const struct rig *r, const char *path)
{
    struct node_stat st;
    assert_int_equal(log_resolve(r->log, path, &st), 0);
    return st.end;
}

static bool large_is_in(void *arg)
{
    return end_of(arg, "large") == LARGE;
}

/* What comes free each time would do for the small ones that wait behind, on each worker, and for those
 * that come new. */
static void a_large_one_is_not_passed(void **state)
{
    (void)state;
    enum { N = 20 };
    struct rig r = {.workers = 4, .tick_ms = 1000};
    int fd[N], late[PIECES];
    rig_start(&r);
    int first = pool_fill(&r, 12000);
    trim_all(&r, "piece0"); /* for the last one of those, and some */
    until(so_many_wait, &(struct waits){&r, 0});
    int large = waiter(&r, "large", LARGE, 1);
    for (unsigned i = 0; i < N; i++)
        fd[i] = waiter(&r, "small", SMALL, 2 + i);
    unsigned n = 1;
    uint64_t had = 0, room = log_space_room(r.log);
    for (; n < PIECES && room >= had && end_of(&r, "small") == 0; n++) {
        char path[16];
        had = room;
        snprintf(path, sizeof(path), "piece%u", n);
        trim_all(&r, path);
        late[n] = peer(&r, n % 2);
        open_topic(late[n], "small", 1, WIRE_S_NONE, 0);
        publish(late[n], 1, 1, 0, data, SMALL, NULL, 1);
        room = log_space_room(r.log);
    }
    /* Behind it they are asked for what their topics have, which is nobody else's. */
    assert_true(atomic_load(&own) >= N);
    /* With so much only who came first is in, or is being received. */
    assert_true(n > 5 && n < PIECES);
    until(large_is_in, &r);
    trim_all(&r, "rest");
    await_ack(large, 1, 1);
    for (unsigned i = 0; i < N; i++)
        await_ack(fd[i], 1, 1);
    for (unsigned i = 1; i < n; i++)
        await_ack(late[i], 1, 1);
    struct stream s = read_topic(&r, "large");
    assert_int_equal(s.size, LARGE);
    fill(data, LARGE, 1);
    assert_memory_equal(s.buf, data, LARGE);
    free(s.buf);
    assert_int_equal(end_of(&r, "small"), (uint64_t)(N + n - 1) * SMALL);
    close(large);
    close(first);
    for (unsigned i = 0; i < N; i++)
        close(fd[i]);
    for (unsigned i = 1; i < n; i++)
        close(late[i]);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_free_extent_is_looked_for_by_few),
        cmocka_unit_test(a_large_one_is_not_passed),
    };
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
