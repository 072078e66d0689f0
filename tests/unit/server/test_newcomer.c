/* Lines by themselves (line.c), on a worker and connections made by hand: where somebody is put, which
 * lines are called, and what a newcomer costs. Pages of connections that are not to be looked at cannot be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/server/internal.h"

enum { STAGING = 2 << 20, ONES = 8, ANNA = 1001, BERT };

static struct server server;
static struct conn *one[ONES];

static struct worker *worker(void)
{
    return &server.worker[0];
}

static size_t span(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (sizeof(struct conn) + page - 1) / page * page;
}

static int set_up(void **state)
{
    (void)state;
    struct embar_error err = {0};
    struct worker *w = worker();
    memset(&server, 0, sizeof(server));
    assert_int_equal(staging_new(&server.staging, STAGING, &err), 0);
    w->server = &server;
    w->timer_armed = true; /* there is no timer */
    TAILQ_INIT(&w->ready);
    TAILQ_INIT(&w->bulk);
    assert_int_equal(line_init(w), 0);
    for (unsigned i = 0; i < ONES; i++) {
        one[i] = mmap(NULL, span(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(one[i] != MAP_FAILED);
        one[i]->worker = w;
        one[i]->tenant = staging_tenant(server.staging, ANNA);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ONES; i++) {
        staging_leave(server.staging, one[i]->tenant);
        assert_int_equal(munmap(one[i], span()), 0);
    }
    free(worker()->lines);
    staging_free(server.staging);
    return 0;
}

static void belongs_to(struct conn *c, uint32_t uid)
{
    staging_leave(server.staging, c->tenant);
    c->tenant = staging_tenant(server.staging, uid);
}

static void hide(unsigned from, unsigned to, bool hidden)
{
    for (unsigned i = from; i < to; i++)
        assert_int_equal(mprotect(one[i], span(), hidden ? PROT_NONE : PROT_READ | PROT_WRITE), 0);
}

/* A round's end: exactly these are told to look, in this order. */
static void calls(const struct conn *const *who, unsigned n)
{
    struct worker *w = worker();
    line_call(w);
    for (unsigned i = 0; i < n; i++) {
        struct conn *c = TAILQ_FIRST(&w->ready);
        assert_ptr_equal(c, who[i]);
        assert_true(c->called);
        assert_null(c->line);
        conn_unready(c);
    }
    assert_true(TAILQ_EMPTY(&w->ready));
}

#define CALLS(...)                                                                                 \
    calls((const struct conn *const[]){__VA_ARGS__},                                               \
          sizeof((const struct conn *const[]){__VA_ARGS__}) / sizeof(struct conn *))

/* With thousands in a line, each that comes looks at none but the last. */
static void without_a_walk(void **state)
{
    (void)state;
    line_join(one[0], true);
    for (unsigned i = 1; i + 1 < ONES; i++)
        line_join(one[i], false);
    hide(0, ONES - 2, true);
    line_join(one[ONES - 1], false);
    hide(0, ONES - 2, false);
    line_open(worker());
    CALLS(one[0], one[1], one[2], one[3], one[4], one[5], one[6], one[7]);
}

/* Nor does who was called and found nothing: it is the first again, and its line is shut. */
static void the_first_again(void **state)
{
    (void)state;
    line_join(one[0], true);
    for (unsigned i = 1; i < ONES; i++)
        line_join(one[i], false);
    line_open(worker());
    line_leave(one[0]);
    one[0]->called = true; /* alone: somebody else is before the others of this line */
    hide(2, ONES, true);
    line_join(one[0], true);
    hide(2, ONES, false);
    line_call(worker());
    assert_true(TAILQ_EMPTY(&worker()->ready));
    line_open(worker());
    CALLS(one[0], one[1], one[2], one[3], one[4], one[5], one[6], one[7]);
}

/* Its own look found nothing: it is not told to look again before something is given back. */
static void who_looked_rests(void **state)
{
    (void)state;
    line_join(one[0], true);
    line_call(worker());
    assert_true(TAILQ_EMPTY(&worker()->ready));
    line_open(worker());
    CALLS(one[0]);
}

/* Who has not looked, since others were before it, is told together with those: nobody has said that there
 * is nothing for it, and nobody would open its line. */
static void who_has_not_looked_does_not(void **state)
{
    (void)state;
    belongs_to(one[1], BERT);
    line_join(one[0], true);
    line_open(worker());
    assert_true(line_before(one[1]));
    line_join(one[1], false);
    CALLS(one[0], one[1]);
}

/* The slow ones of a principal may have reached their bound where its beginnings have not: they do not wait
 * behind each other. */
static void two_kinds(void **state)
{
    (void)state;
    one[0]->stage.slow = true;
    line_join(one[0], true);
    assert_false(line_before(one[1]));
    one[2]->stage.slow = true;
    assert_true(line_before(one[2]));
    line_join(one[2], false);
    line_join(one[1],
              true); /* it looked: its line alone is shut by that, and it alone is first there */
    line_leave(one[0]);
    line_leave(one[2]);
    assert_true(line_before(one[3]));
    line_open(worker());
    CALLS(one[1]);
    assert_false(line_before(one[3]));
}

/* ---- A worker's turn ----------------------------------------------------------------------- */

/* Memory was given back, for this worker first or for anybody. */
static void given_back(bool first)
{
    struct worker *w = worker();
    bool stirred = false;
    struct piece *p = staging_take(server.staging, one[0]->tenant, STAGING_PIECE, false, &stirred);
    assert_non_null(p);
    if (first)
        assert_true(staging_passed(server.staging, 0));
    staging_give(server.staging, one[0]->tenant, p, false);
    stage_init(w);
    w->staging_mail.deliver(w, &w->staging_mail);
    assert_int_equal(w->first, first);
}

/* It had its share of a worker with much to do. */
static void had_its_share(struct conn *c)
{
    worker()->shared = 1;
    c->used = TURN_SHARED;
}

/* Those who are called in it look in it, as those do who were called before, at the end of their list or not;
 * nobody else goes before for it. */
static void in_its_workers_turn(void **state)
{
    (void)state;
    struct worker *w = worker();
    for (unsigned i = 0; i < 6; i++)
        had_its_share(one[i]);
    belongs_to(one[1], BERT);
    conn_bulk(one[2]);
    line_join(one[1], false);
    line_call(w);
    conn_bulk(one[3]);
    assert_true(one[1]->called && one[1]->bulk);
    line_join(one[0], true);
    line_join(one[4], false);
    line_join(one[5], false);
    given_back(true);
    assert_ptr_equal(TAILQ_FIRST(&w->ready), one[1]);
    for (struct conn *c = TAILQ_FIRST(&w->ready); c; c = TAILQ_NEXT(c, ready_link))
        assert_true(c->called && c->ready && !c->bulk);
    assert_true(one[0]->ready && one[4]->ready && one[5]->ready);
    assert_ptr_equal(TAILQ_FIRST(&w->bulk), one[2]);
    assert_ptr_equal(TAILQ_NEXT(one[2], ready_link), one[3]);
    assert_null(TAILQ_NEXT(one[3], ready_link));
}

/* Nor do those who are called otherwise. */
static void in_nobodys_turn(void **state)
{
    (void)state;
    had_its_share(one[0]);
    line_join(one[0], true);
    given_back(false);
    assert_true(one[0]->called && one[0]->bulk && !one[0]->ready);
}

enum turn __wrap_publish_reserve(struct conn *c);

enum turn __wrap_publish_reserve(struct conn *c)
{
    (void)c;
    return TURN_WAIT;
}

/* Who was called and needs no memory after all has not been called for its next batch. */
static void who_needs_none(void **state)
{
    (void)state;
    struct conn *c = one[0];
    c->called = true;
    c->cur.total = c->in_to = 100;
    assert_int_equal(stage_collect(c), TURN_WAIT);
    assert_false(c->called);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_a_walk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_looked_rests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_has_not_looked_does_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(in_its_workers_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(in_nobodys_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_needs_none, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("server newcomer", tests, NULL, NULL);
}
