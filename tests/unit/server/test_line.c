/* Who waits for staging memory: each is told at once when it can have some, principals in turn, and
 * within one in the order in which they came. The server's ticks never come here, so whoever is not told
 * waits for ever; and only who is next is sent the rest of its batch, so that nothing goes on when somebody
 * else has its memory. Principals are made up: what a Unix socket says of its peer is the test's own, by
 * the linker's --wrap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/server/rig.h"

enum {
    PIECE = 64 << 10,
    STAGING = 2 << 20,
    HALF = STAGING / 2 / PIECE, /* pieces that one principal may have */
    SIZE = 100000,              /* of a batch: its beginning takes a piece */
    FIRST = 9000,               /* bytes of it that come first */
    SMALL = 12000,              /* of a batch whose beginning takes a smaller piece */
    UNIT = 16 << 10,            /* that one */
};

/* Users, beside the daemon's own. */
enum { ANNA = 1, BERT, CARL, DORA };

static atomic_uint next_user;

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length);

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    int rc = __real_getsockopt(fd, level, name, value, length);
    unsigned user = atomic_load(&next_user);
    if (rc == 0 && level == SOL_SOCKET && name == SO_PEERCRED && user) {
        struct ucred *cred = value;
        cred->uid = 1000 + user;
    }
    return rc;
}

static atomic_uint rounds; /* of all workers */

int __real_epoll_wait(int ep, struct epoll_event *ev, int most, int timeout);
int __wrap_epoll_wait(int ep, struct epoll_event *ev, int most, int timeout);

int __wrap_epoll_wait(int ep, struct epoll_event *ev, int most, int timeout)
{
    atomic_fetch_add(&rounds, 1);
    return __real_epoll_wait(ep, ev, most, timeout);
}

static uint8_t payload[SIZE];

struct one {
    int fd;
    char path[24];
    uint64_t sequence; /* of the batch that is under way */
    uint32_t size;     /* of its batches */
};

static struct batch_bytes batch_of(const struct one *o)
{
    return batch_make(1, o->sequence, 0, payload, o->size, NULL, 1);
}

/* Bytes of a batch that come first. */
static size_t first_of(const struct one *o)
{
    return o->size < FIRST ? o->size / 2 : FIRST;
}

static void begin(struct one *o)
{
    o->sequence++;
    struct batch_bytes b = batch_of(o);
    send_bytes(o->fd, b.p, first_of(o));
    free(b.p);
}

static struct one publisher(const struct rig *r, unsigned user)
{
    static unsigned number;
    struct one o = {.size = SIZE};
    atomic_store(&next_user, user);
    o.fd = peer(r, true); /* greeted: so it has been asked who it is */
    atomic_store(&next_user, 0);
    (void)snprintf(o.path, sizeof(o.path), "open/%u", number++);
    open_topic(o.fd, o.path, 1, WIRE_S_NONE, 0);
    return o;
}

/* The rest of its batch, and it is acknowledged. */
static void end(struct one *o)
{
    struct batch_bytes b = batch_of(o);
    send_bytes(o->fd, b.p + first_of(o), b.n - first_of(o));
    free(b.p);
    await_ack(o->fd, 1, o->sequence);
}

/* The same, and the beginning of the next one right behind it. */
static void end_and_begin(struct one *o)
{
    struct batch_bytes b = batch_of(o);
    o->sequence++;
    struct batch_bytes next = batch_of(o);
    uint8_t *both = malloc(b.n - FIRST + FIRST);
    assert_non_null(both);
    memcpy(both, b.p + FIRST, b.n - FIRST);
    memcpy(both + b.n - FIRST, next.p, FIRST);
    send_bytes(o->fd, both, b.n);
    await_ack(o->fd, 1, o->sequence - 1);
    free(both);
    free(b.p);
    free(next.p);
}

static void until_stands(const struct rig *r, unsigned pieces, unsigned waiting)
{
    until_staged(r, (uint64_t)pieces * PIECE, waiting);
}

/* Publishers of one principal, each with the beginning of a batch. */
static void crowd(const struct rig *r, struct one *o, unsigned n, unsigned user)
{
    for (unsigned i = 0; i < n; i++) {
        o[i] = publisher(r, user);
        begin(&o[i]);
    }
}

static void leave(const struct rig *r, struct one *o, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        close(o[i].fd);
        struct stream s = read_topic(r, o[i].path);
        assert_int_equal(s.size % SIZE, 0);
        for (size_t at = 0; at < s.size; at += SIZE)
            assert_memory_equal(s.buf + at, payload, SIZE);
        free(s.buf);
    }
}

/* With a directory in which everybody may make topics. */
static void start(struct rig *r, unsigned workers)
{
    struct control dir = {
        .kind = MEDIA_C_MKDIR, .parent = LOG_ROOT_ID, .mode = 0777, .name = "open"};
    struct commit commit;
    *r =
        (struct rig){.workers = workers, .tick_ms = 600000, .staging = STAGING, .spec = "mem:512M"};
    rig_start(r);
    assert_int_equal(log_control_wait(r->log, &dir, &commit), 0);
}

/* A principal at its half, with more connections that wait than there are pieces: who waits for somebody
 * else's memory, behind all of them, has it as soon as there is some; and so have they. */
static void beside_a_principal_at_its_half(unsigned workers)
{
    enum { MORE = 40, LATE = 6 };
    struct rig r;
    struct one anna[HALF + MORE], bert[HALF], carl[LATE];
    start(&r, workers);
    crowd(&r, anna, HALF, ANNA);
    until_stands(&r, HALF, 0);
    crowd(&r, anna + HALF, MORE, ANNA);
    until_stands(&r, HALF, MORE);
    crowd(&r, bert, HALF, BERT);
    until_stands(&r, 2 * HALF, MORE);
    crowd(&r, carl, LATE, CARL);
    until_stands(&r, 2 * HALF, MORE + LATE);
    /* Each of Bert's that ends is room for one of Carl's, and never for one of Anna's. */
    for (unsigned i = 0; i < LATE; i++) {
        end(&bert[i]);
        until_stands(&r, 2 * HALF, MORE + LATE - i - 1);
    }
    for (unsigned i = 0; i < LATE; i++)
        end(&carl[i]);
    until_stands(&r, 2 * HALF - LATE, MORE);
    /* And there is room enough, but not for Anna, whose connections look for it no more. */
    const struct timespec a_while = {.tv_nsec = 30000000};
    nanosleep(&a_while, NULL); /* they come to rest */
    unsigned before = atomic_load(&rounds);
    nanosleep(&a_while, NULL);
    assert_in_range(atomic_load(&rounds) - before, 0, 200); /* else thousands */
    crowd(&r, carl, LATE / 2, CARL);
    until_stands(&r, 2 * HALF - LATE / 2, MORE);
    /* Her own: one for each that ends. */
    for (unsigned i = 0; i < HALF; i++) {
        end(&anna[i]);
        until_stands(&r, 2 * HALF - LATE / 2, MORE - i - 1);
    }
    /* Of those that left, the ones in the line too, nothing stays. */
    if (workers == 1) {
        close(anna[HALF].fd);
        close(anna[HALF + 2].fd);
        close(anna[HALF + MORE - 2].fd);
        until_stands(&r, 2 * HALF - LATE / 2, MORE - HALF - 2);
        for (unsigned i = HALF + 1; i < HALF + MORE; i++)
            if (i != HALF + 2 && i != HALF + MORE - 2)
                end(&anna[i]);
        until_stands(&r, HALF - LATE / 2, 0);
    }
    leave(&r, bert, HALF);
    rig_stop(&r);
}

static void one_worker(void **state)
{
    (void)state;
    beside_a_principal_at_its_half(1);
}

static void three_workers(void **state)
{
    (void)state;
    beside_a_principal_at_its_half(3);
}

/* Who gives memory back and wants some again at once stands behind those who wait for it. */
static void who_had_some_waits_again(void **state)
{
    (void)state;
    enum { WAIT = 4, TURNS = 24 };
    struct rig r;
    struct one o[HALF + WAIT];
    start(&r, 1);
    crowd(&r, o, HALF, ANNA);
    until_stands(&r, HALF, 0);
    for (unsigned i = HALF; i < HALF + WAIT; i++) {
        crowd(&r, &o[i], 1, ANNA);
        until_stands(&r, HALF, i - HALF + 1);
    }
    /* Whoever has had its memory longest ends; the one who has waited longest follows. */
    for (unsigned i = 0; i < TURNS; i++) {
        end_and_begin(&o[i % (HALF + WAIT)]);
        until_stands(&r, HALF, WAIT);
    }
    for (unsigned i = TURNS; i < TURNS + HALF + WAIT; i++)
        end(&o[i % (HALF + WAIT)]);
    until_stands(&r, 0, 0);
    leave(&r, o, HALF + WAIT);
    rig_stop(&r);
}

/* Nor has another principal's, which would be the first in a line of its own. */
static void before_another_principals(void **state)
{
    (void)state;
    enum { LATE = 3 };
    struct rig r;
    struct one anna[HALF], bert[HALF], carl[LATE];
    start(&r, 1);
    crowd(&r, anna, HALF, ANNA);
    crowd(&r, bert, HALF, BERT);
    until_stands(&r, 2 * HALF, 0);
    for (unsigned i = 0; i < LATE; i++) {
        crowd(&r, &carl[i], 1, CARL);
        until_stands(&r, 2 * HALF, i + 1);
    }
    end_and_begin(&bert[0]);
    until_stands(&r, 2 * HALF, LATE);
    end(&carl[0]); /* so it had that piece, and now Bert or the next of Carl's has */
    until_stands(&r, 2 * HALF, LATE - 1);
    end(&bert[0]);
    until_stands(&r, 2 * HALF, LATE - 2);
    end(&carl[1]);
    until_stands(&r, 2 * HALF, 0);
    end(&carl[2]);
    until_stands(&r, 2 * HALF - 1, 0);
    leave(&r, carl, LATE);
    rig_stop(&r);
}

/* One after the other of two principals, whatever the number of their connections and whoever came first. */
static void principals_in_turn(void **state)
{
    (void)state;
    enum { MANY = 9, FEW = 3 };
    struct rig r;
    struct one anna[HALF], bert[HALF], carl[MANY], dora[FEW];
    start(&r, 1);
    crowd(&r, anna, HALF, ANNA);
    crowd(&r, bert, HALF, BERT);
    until_stands(&r, 2 * HALF, 0);
    for (unsigned i = 0; i < MANY; i++) {
        crowd(&r, &carl[i], 1, CARL);
        until_stands(&r, 2 * HALF, i + 1);
    }
    for (unsigned i = 0; i < FEW; i++) {
        crowd(&r, &dora[i], 1, DORA);
        until_stands(&r, 2 * HALF, MANY + i + 1);
    }
    struct one *order[MANY + FEW];
    unsigned n = 0, c = 0, d = 0;
    while (c < MANY || d < FEW) {
        if (c < MANY)
            order[n++] = &carl[c++];
        if (d < FEW)
            order[n++] = &dora[d++];
    }
    end(&anna[0]);
    for (unsigned i = 0; i < n; i++) {
        until_stands(&r, 2 * HALF, n - i - 1);
        end(order[i]);
    }
    until_stands(&r, 2 * HALF - 1, 0);
    leave(&r, carl, MANY);
    leave(&r, dora, FEW);
    rig_stop(&r);
}

/* Publishers of small batches, of which the beginning takes 16 KiB. */
static void small_crowd(const struct rig *r, struct one *o, unsigned n, unsigned user)
{
    for (unsigned i = 0; i < n; i++) {
        o[i] = publisher(r, user);
        o[i].size = SMALL;
        begin(&o[i]);
    }
}

/* No whole piece is free, nor becomes so: a part of one is given back, and somebody waits for that. */
static void a_part_of_a_piece(void **state)
{
    (void)state;
    enum { CUT = 2, PARTS = CUT * PIECE / UNIT, LATE = 3 }; /* so many may be cut up for them */
    struct rig r;
    struct one anna[HALF], bert[HALF - CUT], carl[PARTS], dora[LATE];
    start(&r, 1);
    small_crowd(&r, carl, PARTS, CARL);
    crowd(&r, anna, HALF, ANNA);
    crowd(&r, bert, HALF - CUT, BERT);
    until_staged(&r, STAGING, 0);
    small_crowd(&r, dora, LATE, DORA);
    until_staged(&r, STAGING, LATE);
    for (unsigned i = 0; i < LATE; i++) {
        end(&carl[i]);
        until_staged(&r, STAGING, LATE - i - 1);
    }
    for (unsigned i = 0; i < LATE; i++)
        end(&dora[i]);
    until_staged(&r, STAGING - LATE * UNIT, 0);
    rig_stop(&r);
}

/* Who needs little does not pass those of its principal who wait for more. */
static void behind_a_larger_one(void **state)
{
    (void)state;
    enum { PARTS = PIECE / UNIT - 1 };
    struct rig r;
    struct one anna[HALF - 1], large, small[PARTS], last;
    start(&r, 1);
    crowd(&r, anna, HALF - 1, ANNA);
    small_crowd(&r, small, PARTS, ANNA);
    until_staged(&r, (HALF - 1) * PIECE + PARTS * UNIT, 0);
    crowd(&r, &large, 1, ANNA);
    until_staged(&r, (HALF - 1) * PIECE + PARTS * UNIT, 1);
    small_crowd(&r, &last, 1, ANNA); /* there is room for it */
    until_staged(&r, (HALF - 1) * PIECE + PARTS * UNIT, 2);
    end(&anna[0]);
    until_staged(&r, (HALF - 1) * PIECE + (PARTS + 1) * UNIT, 0);
    end(&large);
    end(&last);
    rig_stop(&r);
}

/* ---- All of it at once --------------------------------------------------------------------- */

struct many {
    const struct rig *rig;
    unsigned index;
    pthread_t thread;
};

enum { BATCHES = 40 };

static uint32_t batch_size(unsigned x, unsigned i)
{
    return i % 4 == 3 ? 3000 + (x >> 8) % 9000 : 60000 + (x >> 8) % 40000;
}

/* Batches of one publisher, each in parts. */
static void *publish_in_parts(void *arg)
{
    const struct many *m = arg;
    unsigned x = m->index * 77 + 5;
    char path[24];
    static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER; /* guards next_user */
    pthread_mutex_lock(&one_at_a_time);
    atomic_store(&next_user, ANNA + m->index % 4);
    int fd = peer(m->rig, true);
    atomic_store(&next_user, 0);
    pthread_mutex_unlock(&one_at_a_time);
    (void)snprintf(path, sizeof(path), "open/many%u", m->index);
    open_topic(fd, path, 1, WIRE_S_NONE, 0);
    for (unsigned i = 0; i < BATCHES; i++) {
        x = x * 1664525u + 1013904223u;
        uint32_t size = batch_size(x, i);
        struct batch_bytes b = batch_make(1, i + 1, 0, payload, size, NULL, 1);
        size_t parts = 1 + (x >> 4) % 4, at = 0;
        for (size_t k = 1; k <= parts; k++) {
            size_t to = k == parts ? b.n : b.n * k / (parts + 3);
            send_bytes(fd, b.p + at, to - at);
            at = to;
            sched_yield();
        }
        free(b.p);
        if (i % 3 == 2)
            await_ack(fd, 1, i + 1);
    }
    await_ack(fd, 1, BATCHES);
    close(fd);
    return NULL;
}

static void all_there(const struct rig *r, unsigned index)
{
    unsigned x = index * 77 + 5;
    char path[24];
    size_t at = 0;
    (void)snprintf(path, sizeof(path), "open/many%u", index);
    struct stream s = read_topic(r, path);
    for (unsigned i = 0; i < BATCHES; i++) {
        x = x * 1664525u + 1013904223u;
        uint32_t size = batch_size(x, i);
        assert_in_range(at + size, 1, s.size);
        assert_memory_equal(s.buf + at, payload, size);
        at += size;
    }
    assert_int_equal(at, s.size);
    free(s.buf);
}

/* Nobody who waits is forgotten, however they meet. */
static void nobody_is_forgotten(void **state)
{
    (void)state;
    enum { MANY = 80 };
    struct rig r;
    struct many m[MANY];
    start(&r, 3);
    for (unsigned i = 0; i < MANY; i++) {
        m[i] = (struct many){.rig = &r, .index = i};
        assert_int_equal(pthread_create(&m[i].thread, NULL, publish_in_parts, &m[i]), 0);
    }
    for (unsigned i = 0; i < MANY; i++)
        pthread_join(m[i].thread, NULL);
    until_stands(&r, 0, 0);
    for (unsigned i = 0; i < MANY; i++)
        all_there(&r, i);
    struct server_stat st;
    server_stat(r.server, &st);
    assert_int_equal(st.moved, 0); /* nor was anybody slow */
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_worker),
        cmocka_unit_test(three_workers),
        cmocka_unit_test(who_had_some_waits_again),
        cmocka_unit_test(before_another_principals),
        cmocka_unit_test(principals_in_turn),
        cmocka_unit_test(a_part_of_a_piece),
        cmocka_unit_test(behind_a_larger_one),
        cmocka_unit_test(nobody_is_forgotten),
    };
    fill(payload, SIZE, 7);
    return cmocka_run_group_tests_name("server line", tests, NULL, NULL);
}
