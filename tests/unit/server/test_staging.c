/* The staging pool by itself: pieces never overlap, its bounds hold, nothing is lost of it however
 * many threads take and give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/server/server.h"
#include "net/server/staging.h"

enum { PIECES = (2u << 20) / STAGING_PIECE };

static struct staging *make(void)
{
    struct staging *s;
    struct embar_error err;
    assert_int_equal(staging_new(&s, 2u << 20, &err), 0);
    return s;
}

static struct piece *take(struct staging *s, struct tenant *t, uint32_t need, bool slow)
{
    bool stirred = false;
    return staging_take(s, t, need, slow, &stirred);
}

/* All that one principal gets, of a size; marked with what nobody else writes. */
static unsigned take_all(struct staging *s, struct tenant *t, uint32_t need, bool slow,
                         struct piece **list)
{
    unsigned n = 0;
    struct piece *p;
    while ((p = take(s, t, need, slow))) {
        assert_true(p->size >= need);
        memset(p->memory, (int)(uintptr_t)p >> 4, p->size);
        p->next = *list;
        *list = p;
        n++;
    }
    return n;
}

static void give_all(struct staging *s, struct tenant *t, struct piece *list, bool slow)
{
    while (list) {
        struct piece *p = list;
        list = p->next;
        for (uint32_t i = 0; i < p->size; i++)
            assert_int_equal(p->memory[i], (uint8_t)((int)(uintptr_t)p >> 4));
        staging_give(s, t, p, slow);
    }
}

static void bounds(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *a = staging_tenant(s, 1), *b = staging_tenant(s, 257), *c = staging_tenant(s, 2);
    struct piece *of_a = NULL, *of_b = NULL, *of_c = NULL;
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(a, staging_tenant(s, 1));
    staging_leave(s, a);
    assert_int_equal(staging_share(s), staging_size(s) / 4); /* a connection's */
    for (unsigned round = 0; round < 3; round++) {
        /* A principal: half. Slow ones: three quarters. The rest is for beginnings. */
        assert_int_equal(take_all(s, a, STAGING_PIECE, true, &of_a), PIECES / 2);
        assert_int_equal(take_all(s, b, STAGING_PIECE, true, &of_b), PIECES / 4);
        for (unsigned i = 0; i < PIECES; i++) /* what is refused is not held against it */
            assert_null(take(s, c, STAGING_PIECE, true));
        assert_int_equal(take_all(s, c, STAGING_PIECE, false, &of_c), PIECES / 4);
        assert_int_equal(take_all(s, b, STAGING_PIECE, false, &of_c), 0);
        assert_int_equal(staging_used(s), staging_size(s));
        assert_int_equal(staging_free_pieces(s), 0);
        assert_false(staging_slow(s, of_c));
        give_all(s, a, of_a, true);
        give_all(s, b, of_b, true);
        assert_true(staging_slow(s, of_c));
        struct piece *first = of_c;
        of_c = of_c->next;
        staging_give(s, c, first, true);
        give_all(s, c, of_c, false);
        of_a = of_b = of_c = NULL;
        assert_int_equal(staging_used(s), 0);
    }
    staging_leave(s, a);
    staging_leave(s, b);
    staging_leave(s, c);
    staging_free(s);
}

/* Smaller pieces take their own part, then larger pieces; the largest stay to be had. */
static void sizes(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *t = staging_tenant(s, 1), *u = staging_tenant(s, 2);
    struct piece *small = NULL, *large = NULL;
    const unsigned carved = (PIECES + 15) / 16;
    struct piece *p = take(s, t, 1, false);
    assert_int_equal(p->size, 4096);
    staging_give(s, t, p, false);
    p = take(s, t, 4097, false);
    assert_int_equal(p->size, 16384);
    staging_give(s, t, p, false);
    unsigned n = take_all(s, t, 100, false, &small);
    /* Half of all is a principal's: each small size's own blocks, then whole ones. */
    assert_int_equal(n, carved * 16 + carved * 4 + (PIECES / 2 - 2 * carved));
    assert_int_equal(take_all(s, u, STAGING_PIECE, false, &large), PIECES / 2);
    give_all(s, t, small, false);
    give_all(s, u, large, false);
    small = large = NULL;
    assert_int_equal(take_all(s, u, 100, false, &small), n);
    give_all(s, u, small, false);
    staging_leave(s, t);
    staging_leave(s, u);
    staging_free(s);
}

/* No block is left to be cut up: that leaves no mark. */
static void no_block_to_cut(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *t = staging_tenant(s, 1), *u = staging_tenant(s, 2), *v = staging_tenant(s, 3);
    struct piece *of_t = NULL, *of_u = NULL;
    assert_int_equal(take_all(s, t, STAGING_PIECE, false, &of_t), PIECES / 2);
    assert_int_equal(take_all(s, u, STAGING_PIECE, false, &of_u), PIECES / 2);
    for (unsigned i = 0; i < PIECES; i++)
        assert_null(take(s, v, 1, false));
    give_all(s, t, of_t, false);
    give_all(s, u, of_u, false);
    struct piece *p = take(s, v, 1, false);
    assert_non_null(p);
    assert_int_equal(p->size, 4096);
    staging_give(s, v, p, false);
    staging_leave(s, t);
    staging_leave(s, u);
    staging_leave(s, v);
    staging_free(s);
}

/* What one takes or puts back while another looks: the stack's calls are the test's own, by the linker's
 * --wrap, and it is the other one within one of them. */
static struct {
    struct staging *s;
    struct tenant *same, *other; /* who take a piece in there; NULL: nobody */
    struct piece *of_same;
    unsigned pops;
    bool push, missed;
} within;

struct ck_stack_entry *__real_stack_pop(struct stack *st);
struct ck_stack_entry *__wrap_stack_pop(struct stack *st);
void __real_stack_push(struct stack *st, struct ck_stack_entry *e);
void __wrap_stack_push(struct stack *st, struct ck_stack_entry *e);

static void look_within(void)
{
    struct tenant *same = within.same, *other = within.other;
    within.same = within.other = NULL;
    if (same)
        within.of_same = take(within.s, same, STAGING_PIECE, false);
    if (other)
        within.missed = !take(within.s, other, 1, false);
}

struct ck_stack_entry *__wrap_stack_pop(struct stack *st)
{
    struct ck_stack_entry *e = __real_stack_pop(st);
    if (within.s && e) {
        within.pops++;
        if (!within.push)
            look_within();
    }
    return e;
}

void __wrap_stack_push(struct stack *st, struct ck_stack_entry *e)
{
    if (within.s && within.push)
        look_within();
    __real_stack_push(st, e);
}

/* Who is refused for a bound takes nothing out of others' sight, and when it does for a moment, because
 * somebody else has just reached that bound, it says so. */
static void hidden_from_others(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *t = staging_tenant(s, 1), *u = staging_tenant(s, 2);
    struct piece *of_t = NULL, *of_u = NULL, *p;
    bool stirred = false;
    memset(&within, 0, sizeof(within));
    take_all(s, t, STAGING_PIECE, false, &of_t);
    take_all(s, u, STAGING_PIECE, false, &of_u);
    for (unsigned i = 0; i < 2; i++) { /* free, and popped from now on */
        p = i ? of_t : of_u;
        *(i ? &of_t : &of_u) = p->next;
        staging_give(s, i ? t : u, p, false);
    }
    within.s = s;
    within.same = t;
    within.other = u;
    assert_null(staging_take(s, t, STAGING_PIECE, false, &stirred));
    assert_true(stirred);
    assert_true(within.missed);
    assert_non_null(within.of_same);
    assert_int_equal(within.pops, 2);
    stirred = false;
    assert_null(staging_take(s, t, STAGING_PIECE, false, &stirred));
    assert_int_equal(within.pops, 2);
    assert_false(stirred);
    p = staging_take(s, u, STAGING_PIECE, false, &stirred);
    assert_non_null(p);
    assert_false(stirred);
    staging_give(s, u, p, false);
    staging_give(s, t, within.of_same, false);
    within.s = NULL;
    give_all(s, t, of_t, false);
    give_all(s, u, of_u, false);
    assert_int_equal(staging_used(s), 0);
    staging_leave(s, t);
    staging_leave(s, u);
    staging_free(s);
}

/* The last block is being cut up while another one looks for a part of it. */
static void hidden_while_cut(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *t = staging_tenant(s, 1), *u = staging_tenant(s, 2), *v = staging_tenant(s, 3);
    struct piece *of_t = NULL, *of_u = NULL;
    bool stirred = false;
    take_all(s, t, STAGING_PIECE, false, &of_t);
    take_all(s, u, STAGING_PIECE, false, &of_u);
    struct piece *p = of_u;
    of_u = p->next;
    staging_give(s, u, p, false);
    memset(&within, 0, sizeof(within));
    within.s = s;
    within.push = true;
    within.other = u;
    p = staging_take(s, v, 1, false, &stirred);
    within.s = NULL;
    assert_int_equal(p->size, 4096);
    assert_true(within.missed);
    assert_true(stirred);
    stirred = false;
    struct piece *q = staging_take(s, u, 1, false, &stirred);
    assert_int_equal(q->size, 4096);
    assert_false(stirred);
    staging_give(s, v, p, false);
    staging_give(s, u, q, false);
    give_all(s, t, of_t, false);
    give_all(s, u, of_u, false);
    assert_int_equal(staging_used(s), 0);
    staging_leave(s, t);
    staging_leave(s, u);
    staging_leave(s, v);
    staging_free(s);
}

/* What of a principal's bound is left, in pieces. */
static void could_have(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *t = staging_tenant(s, 1), *u = staging_tenant(s, 2);
    struct piece *of_t = NULL, *of_u = NULL;
    assert_int_equal(staging_could(s, t, false), PIECES / 2);
    assert_int_equal(staging_could(s, t, true), PIECES / 2);
    struct piece *p = take(s, t, 1, false);
    assert_int_equal(staging_could(s, t, false), PIECES / 2 - 1);
    assert_int_equal(staging_could(s, t, true), PIECES / 2 - 1);
    staging_give(s, t, p, false);
    assert_int_equal(take_all(s, t, STAGING_PIECE, true, &of_t), PIECES / 2);
    assert_int_equal(staging_could(s, t, false), 0);
    assert_int_equal(staging_could(s, u, false), PIECES / 2);
    assert_int_equal(staging_could(s, u, true), PIECES / 4);
    assert_int_equal(take_all(s, u, STAGING_PIECE, true, &of_u), PIECES / 4);
    assert_int_equal(staging_could(s, u, false), PIECES / 4);
    assert_int_equal(staging_could(s, u, true), 0);
    assert_int_equal(staging_free_pieces(s), PIECES / 4);
    give_all(s, t, of_t, true);
    give_all(s, u, of_u, true);
    staging_leave(s, t);
    staging_leave(s, u);
    staging_free(s);
}

/* Principals come and go; more than there are entries for share one. */
static void principals(void **state)
{
    (void)state;
    enum { MANY = 256 };
    struct staging *s = make();
    struct tenant *all[MANY];
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            all[i] = staging_tenant(s, MANY * i + round); /* of one place in the table */
            for (unsigned k = 0; k < i; k++)
                assert_ptr_not_equal(all[k], all[i]);
        }
        struct tenant *more = staging_tenant(s, 999999);
        assert_non_null(more);
        struct piece *p = take(s, more, 1, false);
        assert_non_null(p);
        staging_give(s, more, p, false);
        staging_leave(s, more);
        for (unsigned i = 0; i < MANY; i++)
            staging_leave(s, all[i]);
    }
    staging_free(s);
}

static void usual_size(void **state)
{
    (void)state;
    const uint64_t mib = 1 << 20, gib = mib << 10;
    assert_int_equal(staging_usual(4 * mib), STAGING_MIN);
    assert_int_equal(staging_usual(100 * mib), 25 * mib);
    assert_int_equal(staging_usual(gib), 128 * mib);
    assert_int_equal(staging_usual(16 * gib), 256 * mib);
    assert_int_equal(staging_usual(64 * gib), gib);
    assert_int_equal(staging_usual(1024 * gib), gib);
}

static void refused(void **state)
{
    (void)state;
    struct staging *s;
    struct embar_error err;
    assert_int_equal(staging_new(&s, (2u << 20) - 1, &err), -EMBAR_EINVALID);
    assert_non_null(strstr(err.text, "--staging"));
    assert_int_equal(staging_new(&s, STAGING_MAX + 1, &err), -EMBAR_EINVALID);
    assert_int_equal(staging_new(&s, 0, &err), 0);
    assert_true(staging_size(s) >= STAGING_MIN);
    staging_free(s);
}

struct taker {
    struct staging *s;
    struct tenant *t;
    unsigned seed;
    bool wrong;
};

static void *churn(void *arg)
{
    struct taker *k = arg;
    enum { HELD = 6, ROUNDS = 20000 };
    struct piece *held[HELD] = {0};
    uint32_t mark[HELD] = {0};
    unsigned x = k->seed;
    for (unsigned i = 0; i < ROUNDS + HELD; i++) {
        unsigned j = i % HELD;
        struct piece *p = held[j];
        if (p) {
            uint32_t first, last;
            memcpy(&first, p->memory, 4);
            memcpy(&last, p->memory + p->size - 4, 4);
            k->wrong |= first != mark[j] || last != mark[j];
            staging_give(k->s, k->t, p, false);
            held[j] = NULL;
        }
        if (i >= ROUNDS)
            continue;
        x = x * 1664525u + 1013904223u;
        p = take(k->s, k->t, (x >> 8) % STAGING_PIECE + 1, false);
        if (!p)
            continue;
        mark[j] = x;
        memcpy(p->memory, &x, 4);
        memcpy(p->memory + p->size - 4, &x, 4);
        held[j] = p;
    }
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    struct staging *s = make();
    struct taker k[THREADS];
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        k[i] = (struct taker){.s = s, .t = staging_tenant(s, i), .seed = i};
        assert_int_equal(pthread_create(&thread[i], NULL, churn, &k[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_false(k[i].wrong);
        staging_leave(s, k[i].t);
    }
    assert_int_equal(staging_used(s), 0);
    staging_free(s);
}

/* Who waits is told once, after it was given something. */
static void waiting(void **state)
{
    (void)state;
    struct staging *s = make();
    assert_int_equal(staging_waiters(s), 0);
    staging_wait(s, 3);
    staging_wait(s, 63);
    assert_int_equal(staging_waiters(s), 1ull << 63 | 8);
    assert_int_equal(staging_waiters(s), 0);
    staging_free(s);
}

/* What is given back next is that worker's, and then nobody's. */
static void turn(void **state)
{
    (void)state;
    struct staging *s = make();
    struct tenant *t = staging_tenant(s, 1);
    struct piece *p = take(s, t, 1, false);
    assert_true(staging_passed(s, 63));
    assert_false(staging_passed(s, 0));       /* later */
    assert_false(staging_others(s, 0, true)); /* nothing is given back yet */
    assert_false(staging_looked(s, 63));
    assert_int_equal(staging_waiters(s), 0);
    staging_give(s, t, p, false);
    assert_true(staging_others(s, 0, true));
    assert_true(staging_others(s, 63, false));
    assert_false(staging_others(s, 63, true));
    assert_true(staging_turn(s, 63));
    assert_false(staging_turn(s, 0));
    staging_wait(s, 3);
    assert_int_equal(staging_waiters(s), 1ull << 63 | 8);
    assert_int_equal(staging_waiters(s), 1ull << 63); /* until it has looked */
    assert_false(staging_looked(s, 0));
    assert_true(staging_looked(s, 63));
    assert_false(staging_looked(s, 63));
    assert_false(staging_others(s, 0, false));
    assert_int_equal(staging_waiters(s), 0);
    p = take(s, t, 1, false);
    staging_give(s, t, p, false);
    assert_false(staging_others(s, 1, false));
    staging_leave(s, t);
    staging_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds),
        cmocka_unit_test(sizes),
        cmocka_unit_test(refused),
        cmocka_unit_test(no_block_to_cut),
        cmocka_unit_test(hidden_from_others),
        cmocka_unit_test(hidden_while_cut),
        cmocka_unit_test(could_have),
        cmocka_unit_test(principals),
        cmocka_unit_test(usual_size),
        cmocka_unit_test(threads),
        cmocka_unit_test(waiting),
        cmocka_unit_test(turn),
    };
    return cmocka_run_group_tests_name("server staging", tests, NULL, NULL);
}
