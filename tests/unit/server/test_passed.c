/* Who waits for staging memory on one worker beside those who are quicker on another: each of these gives its
 * memory back with the next batch behind it, and could have it again before anybody else is awake. Who waits is
 * passed over a few times and no more. Without timing: the server's ticks never come, what is received is a log
 * (calls.h), and looks in vain are counted by the linker's --wrap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/server/staging.h"
#include "tests/unit/server/calls.h"

enum {
    PIECE = 64 << 10,
    STAGING = 2 << 20,
    HALF = STAGING / 2 / PIECE, /* pieces that one principal may have */
    SIZE = 40000, /* of a batch: all of it in a turn, and a piece while it is not whole */
    FIRST = 9000, /* bytes of it that come first */
    PASSED = 4,   /* net/server/line.c */
};

/* ---- Looks in vain ------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards these */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t looker;
static unsigned vain; /* times that this thread found no memory */
static pthread_t sleeper;
static bool sleeps, asleep; /* this thread is to have no further round; and has none */

void __real_staging_wait(struct staging *s, unsigned index);
void __wrap_staging_wait(struct staging *s, unsigned index);

void __wrap_staging_wait(struct staging *s, unsigned index)
{
    __real_staging_wait(s, index);
    pthread_mutex_lock(&lock);
    vain += pthread_equal(pthread_self(), looker) != 0;
    pthread_mutex_unlock(&lock);
}

int __real_epoll_wait(int ep, struct epoll_event *ev, int most, int timeout);
int __wrap_epoll_wait(int ep, struct epoll_event *ev, int most, int timeout);

int __wrap_epoll_wait(int ep, struct epoll_event *ev, int most, int timeout)
{
    pthread_mutex_lock(&lock);
    while (sleeps && pthread_equal(pthread_self(), sleeper)) {
        asleep = true;
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return __real_epoll_wait(ep, ev, most, timeout);
}

/* Its rounds end with the next one. */
static void sleep_after(pthread_t who)
{
    pthread_mutex_lock(&lock);
    sleeper = who;
    sleeps = true;
    asleep = false;
    pthread_mutex_unlock(&lock);
}

static bool is_asleep(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    bool is = asleep;
    pthread_mutex_unlock(&lock);
    return is;
}

static void wake(void)
{
    pthread_mutex_lock(&lock);
    sleeps = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void vain_of(pthread_t who)
{
    pthread_mutex_lock(&lock);
    looker = who;
    vain = 0;
    pthread_mutex_unlock(&lock);
}

static bool so_many_in_vain(void *want)
{
    pthread_mutex_lock(&lock);
    bool is = vain >= *(const unsigned *)want;
    pthread_mutex_unlock(&lock);
    return is;
}

/* ---- Publishers ---------------------------------------------------------------------------- */

struct one {
    int fd, theirs;
    pthread_t who;
    uint64_t sequence;
    char path[24];
};

static void begin(struct one *o)
{
    struct batch_bytes b = batch_make(1, ++o->sequence, 0, payload, SIZE, NULL, 1);
    send_bytes(o->fd, b.p, FIRST);
    free(b.p);
}

/* The rest of its batch, and the beginning of the next one in the same breath. */
static void send_end(struct one *o, bool and_begin)
{
    uint8_t *p = malloc(SIZE + FIRST);
    assert_non_null(p);
    struct batch_bytes b = batch_make(1, o->sequence, 0, payload, SIZE, NULL, 1);
    size_t n = b.n - FIRST;
    memcpy(p, b.p + FIRST, n);
    free(b.p);
    if (and_begin) {
        b = batch_make(1, ++o->sequence, 0, payload, SIZE, NULL, 1);
        memcpy(p + n, b.p, FIRST);
        n += FIRST;
        free(b.p);
    }
    send_bytes(o->fd, p, n);
    free(p);
}

static void end(struct one *o, bool and_begin)
{
    send_end(o, and_begin);
    await_ack(o->fd, 1, o->sequence - and_begin);
}

/* All that it has sent so far of this batch was received: it has memory. */
static bool has_memory(const struct one *o)
{
    size_t n = 0;
    look();
    for (unsigned i = 0; i < call_count; i++)
        n += calls[i].fd == o->theirs && !calls[i].out ? calls[i].n : 0;
    return n == FIRST;
}

static void all_there(const struct rig *r, const struct one *o)
{
    struct stream s = read_topic(r, o->path);
    assert_int_equal(s.size, o->sequence * SIZE);
    for (size_t at = 0; at < s.size; at += SIZE)
        assert_memory_equal(s.buf + at, payload, SIZE);
    free(s.buf);
}

struct world {
    struct rig r;
    struct one o[2 * HALF];
    struct one *slow[HALF], *quick[HALF]; /* of one worker, and of the other */
};

static void wait_for_some(struct world *w, unsigned here)
{
    calls_forget();
    vain_of(w->o[0].who);
    begin(w->slow[here]);
    until_staged(&w->r, HALF * PIECE, 1);
    until(so_many_in_vain, &(unsigned){1});
}

/* As many connections on each of two workers; the first `here` of the one and enough of the other have all the
 * memory that there may be. Then one more of the first worker's waits. */
static void start(struct world *w, unsigned here)
{
    unsigned n = 0, m = 0;
    *w = (struct world){
        .r = {.workers = 2, .tick_ms = 600000, .staging = STAGING, .spec = "mem:512M"}};
    let(UINT32_MAX);
    rig_start(&w->r);
    for (unsigned i = 0; i < 2 * HALF; i++) {
        struct one *o = &w->o[i];
        (void)snprintf(o->path, sizeof(o->path), "topic%u", i);
        o->fd = opened(&w->r, o->path, &o->theirs);
        o->who = calls[0].who;
        if (pthread_equal(o->who, w->o[0].who))
            w->slow[n++] = o;
        else
            w->quick[m++] = o;
    }
    assert_int_equal(n, HALF);
    assert_int_equal(admin(w->o[0].fd, WIRE_V_CREATE, "news", NULL, 0, 0, 0, NULL, NULL), 0);
    for (unsigned i = 0; i < here; i++)
        begin(w->slow[i]);
    for (unsigned i = here; i < HALF; i++)
        begin(w->quick[i]);
    until_staged(&w->r, HALF * PIECE, 0);
    (void)subscribe(w->slow[here]->fd, "news", 2, WIRE_FROM_EARLIEST, 0, 0, 1);
    wait_for_some(w, here);
}

/* The other worker's are quicker so often. */
static void pass_over(struct world *w, unsigned here, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        end(w->quick[here + i % (HALF - here)], true);
        until(so_many_in_vain, &(unsigned){2 + i});
    }
    assert_false(has_memory(w->slow[here]));
}

static void stop(struct world *w)
{
    until_staged(&w->r, 0, 0);
    for (unsigned i = 0; i < 2 * HALF; i++) {
        if (w->o[i].fd < 0)
            continue;
        all_there(&w->r, &w->o[i]);
        close(w->o[i].fd);
    }
    rig_stop(&w->r);
}

static bool has_it(void *arg)
{
    return has_memory(arg);
}

/* It is passed over so often, and then it has what is given back next; and so the next time. */
static void by_another_worker(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0);
    pass_over(&w, 0, PASSED - 1);
    end(w.quick[0], false);
    until_staged(&w.r, HALF * PIECE, 0);
    end(w.slow[0], false);
    begin(w.quick[0]);
    until_staged(&w.r, HALF * PIECE, 0);
    wait_for_some(&w, 0);
    pass_over(&w, 0, PASSED);
    end(w.quick[PASSED], true);
    until(has_it, w.slow[0]);
    until_staged(&w.r, HALF * PIECE, 1);
    end(w.slow[0], false);
    until_staged(&w.r, HALF * PIECE, 0); /* and who let it go first has some now */
    for (unsigned i = 0; i < HALF; i++)
        end(w.quick[i], false);
    stop(&w);
}

/* It leaves before anything is given back (what it subscribed to cannot be sent): nobody waits for it. */
static void who_leaves(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0);
    pass_over(&w, 0, PASSED);
    shutdown(w.slow[0]->fd, SHUT_RD);
    int news = peer(&w.r, true);
    open_topic(news, "news", 1, WIRE_S_NONE, 0);
    publish(news, 1, 1, 0, "news", 4, NULL, 1);
    await_ack(news, 1, 1);
    close(news);
    close(w.slow[0]->fd);
    w.slow[0]->fd = -1;
    until_staged(&w.r, HALF * PIECE, 0);
    for (unsigned i = 0; i < 2 * HALF; i++) {
        end(w.quick[i % HALF], true);
        until_staged(&w.r, HALF * PIECE, 0);
    }
    for (unsigned i = 0; i < HALF; i++)
        end(w.quick[i], false);
    stop(&w);
}

/* The other worker is told as soon as it has looked, and finds what it left. */
static void what_is_left(void **state)
{
    (void)state;
    struct world w;
    struct got g;
    start(&w, 0);
    pass_over(&w, 0, PASSED);
    sleep_after(w.o[0].who);
    send_frame(w.slow[1]->fd, WIRE_PING, 0, 9, NULL, 0);
    until(is_asleep, NULL);
    end(w.quick[0], false);
    end(w.quick[1], false);
    begin(w.quick[0]);
    until_staged(&w.r, (HALF - 2) * PIECE, 2);
    wake();
    until_staged(&w.r, HALF * PIECE, 0);
    assert_true(has_memory(w.slow[0]));
    expect(w.slow[1]->fd, WIRE_OK, &g);
    got_free(&g);
    end(w.slow[0], false);
    for (unsigned i = 0; i < HALF; i++)
        if (i != 1)
            end(w.quick[i], false);
    stop(&w);
}

/* What its own worker's give back is for it, too: neither for those who want it again at once, nor for the other
 * worker, though that one looks before it does. What comes back then is for anybody. */
static void by_its_own_worker(void **state)
{
    (void)state;
    enum { HERE = 3 };
    struct world w;
    start(&w, HERE);
    pass_over(&w, HERE, PASSED);
    vain_of(w.quick[0]->who);
    sleep_after(w.o[0].who);
    send_end(w.slow[0], true);
    until(is_asleep, NULL);
    begin(w.quick[0]);
    until(so_many_in_vain, &(unsigned){1});
    wake();
    until(has_it, w.slow[HERE]);
    await_ack(w.slow[0]->fd, 1, 1);
    until_staged(&w.r, HALF * PIECE, 2);
    end(w.slow[1], false);
    end(w.slow[2], false);
    until_staged(&w.r, HALF * PIECE, 0);
    end(w.slow[0], false);
    until_staged(&w.r, (HALF - 1) * PIECE, 0);
    begin(w.slow[0]);
    until_staged(&w.r, HALF * PIECE, 0);
    end(w.slow[0], false);
    end(w.slow[HERE], false);
    end(w.quick[0], false);
    for (unsigned i = HERE; i < HALF; i++)
        end(w.quick[i], false);
    stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_another_worker),
        cmocka_unit_test(who_leaves),
        cmocka_unit_test(what_is_left),
        cmocka_unit_test(by_its_own_worker),
    };
    calls_init();
    return cmocka_run_group_tests_name("server passed", tests, NULL, NULL);
}
