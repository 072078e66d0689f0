/* The queue's thread: its tick comes although somebody pushes tasks without a pause, and tasks are run
 * although the tick is always due. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdatomic.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/fs.h"

static struct tasks q;
static atomic_uint ran, ticks;
static atomic_bool enough;
static uint64_t due; /* what the tick returns */

static void run_again(struct task *self)
{
    atomic_fetch_add(&ran, 1);
    if (!atomic_load(&enough))
        tasks_push(&q, self);
}

static uint64_t tick(void *arg, uint64_t now)
{
    (void)arg;
    (void)now;
    atomic_fetch_add(&ticks, 1);
    return due;
}

static void until_above(atomic_uint *n, unsigned least)
{
    for (unsigned i = 0; atomic_load(n) <= least; i++) {
        assert_true(i < 60000);
        usleep(1000);
    }
}

/* Tasks that are never all done, and a tick beside them. */
static void both_get_on(uint64_t tick_due)
{
    struct task a = {.run = run_again}, b = {.run = run_again};
    q = (struct tasks){0};
    atomic_store(&enough, false);
    atomic_store(&ran, 0);
    atomic_store(&ticks, 0);
    due = tick_due;
    assert_int_equal(tasks_start(&q, "tasks", tick, NULL), 0);
    tasks_push(&q, &a);
    tasks_push(&q, &b);
    until_above(&ticks, 10);
    until_above(&ran, 10);
    atomic_store(&enough, true);
    tasks_stop(&q);
    assert_false(a.queued || b.queued);
}

static void the_tick_comes_beside_tasks(void **state)
{
    (void)state;
    both_get_on(NEVER);
}

static void tasks_are_run_beside_a_tick_that_is_due(void **state)
{
    (void)state;
    both_get_on(0);
}

static void what_is_queued_is_run_before_the_end(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static struct task many[MANY];
    q = (struct tasks){0};
    atomic_store(&enough, true);
    atomic_store(&ran, 0);
    due = 0;
    assert_int_equal(tasks_start(&q, "tasks", tick, NULL), 0);
    for (unsigned i = 0; i < MANY; i++) {
        many[i].run = run_again;
        tasks_push(&q, &many[i]);
    }
    tasks_stop(&q);
    assert_int_equal(atomic_load(&ran), MANY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tick_comes_beside_tasks),
        cmocka_unit_test(tasks_are_run_beside_a_tick_that_is_due),
        cmocka_unit_test(what_is_queued_is_run_before_the_end),
    };
    return cmocka_run_group_tests_name("fs tasks", tests, NULL, NULL);
}
