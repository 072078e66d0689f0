/* When a worker spins and when it blocks, with a clock and a scheduler of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/server/wait.h"

static uint64_t taken;

static uint64_t preempted(void)
{
    return taken;
}

enum { LOOK_NS = 500 };

/* Nothing to do for `gap`: how long it looked before it blocked (gap: it never did). */
static uint64_t idle(struct wait *w, uint64_t *now, uint64_t gap)
{
    uint64_t from = *now, blocked = gap;
    while (*now - from < gap) {
        assert_true(w->since != 0 || wait_wants_time(w, false));
        if (wait_round(w, false, wait_wants_time(w, false) ? *now : 0, preempted)) {
            blocked = *now - from;
            break;
        }
        *now += LOOK_NS;
    }
    *now = from + gap;
    assert_true(wait_wants_time(w, true));
    assert_false(wait_round(w, true, *now, preempted));
    return blocked;
}

static void spins_while_it_pays(void **state)
{
    (void)state;
    struct wait w = WAIT_NEW;
    uint64_t now = 1;
    /* An idle server: long pauses, a few looks each. */
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(idle(&w, &now, 1000000), (WAIT_LOOKS - 1) * LOOK_NS);
    assert_true(w.gap >= WAIT_SPIN_NS);
    /* It becomes busy: after a while it does not block any more between two. */
    unsigned blocked = 0;
    for (unsigned i = 0; i < 50; i++)
        blocked += idle(&w, &now, 15000) < 15000;
    assert_in_range(blocked, 1, 20);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(idle(&w, &now, 15000), 15000);
    /* A pause ends it, at the bound. */
    assert_in_range(idle(&w, &now, 1000000), WAIT_SPIN_NS, WAIT_SPIN_NS + LOOK_NS);
    /* And pauses that go on end it for good. */
    for (unsigned i = 0; i < 10; i++)
        (void)idle(&w, &now, 1000000);
    assert_int_equal(idle(&w, &now, 1000000), (WAIT_LOOKS - 1) * LOOK_NS);
    assert_false(wait_wants_time(&w, true)); /* busy rounds read no clock */
}

static void yields_to_others(void **state)
{
    (void)state;
    struct wait w = WAIT_NEW;
    uint64_t now = 1;
    for (unsigned i = 0; i < 100; i++)
        (void)idle(&w, &now, 15000);
    for (unsigned i = 0; i < 20; i++) {
        taken++;
        assert_int_equal(idle(&w, &now, 15000), (WAIT_LOOKS - 1) * LOOK_NS);
    }
    assert_int_equal(idle(&w, &now, 15000), 15000); /* nobody did since */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(spins_while_it_pays),
                                       cmocka_unit_test(yields_to_others)};
    return cmocka_run_group_tests_name("server wait", tests, NULL, NULL);
}
