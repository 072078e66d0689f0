/* The order of those who wait for pool space: what lines say, what is left to whom, and who is told. That it holds
 * between the mount and the network is tests/fuse/places.sh's to show, and between workers server-space's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"

enum { ONES = 3 };

struct one {
    struct watcher watcher;
    struct space_line *line;
    unsigned fired;
};

static void fire(struct watcher *w)
{
    ((struct one *)(void *)w)->fired++;
}

static void lines(struct fixture *f, struct one *o)
{
    for (unsigned i = 0; i < ONES; i++) {
        o[i] = (struct one){.watcher.fire = fire};
        o[i].line = log_space_line(f->log, &o[i].watcher);
        assert_non_null(o[i].line);
    }
}

static void tells(struct fixture *f, struct one *o, unsigned a, unsigned b, unsigned c)
{
    for (unsigned i = 0; i < ONES; i++)
        o[i].fired = 0;
    log_space_tell(f->log);
    assert_int_equal(o[0].fired, a);
    assert_int_equal(o[1].fired, b);
    assert_int_equal(o[2].fired, c);
}

static void what_is_left(void **state)
{
    (void)state;
    struct fixture f;
    struct one o[ONES];
    fixture_open(&f, 0, 0);
    lines(&f, o);
    uint64_t first = log_space_place(f.log), second = log_space_place(f.log),
             third = log_space_place(f.log);
    assert_true(0 < first && first < second && second < third);
    assert_true(log_space_quiet(f.log));
    assert_int_equal(log_space_owed(f.log, o[0].line, SPACE_NOBODY), 0);
    tells(&f, o, 0, 0, 0);
    log_space_say(f.log, o[1].line, second, 200);
    assert_false(log_space_quiet(f.log));
    log_space_say(f.log, o[2].line, third, 3000);
    /* Who is new leaves it to all, each to those before it, and nobody to its own line's here. */
    assert_int_equal(log_space_owed(f.log, o[0].line, SPACE_NOBODY), 3200);
    assert_int_equal(log_space_owed(f.log, o[0].line, first), 0);
    assert_int_equal(log_space_owed(f.log, o[2].line, third), 200);
    assert_int_equal(log_space_owed(f.log, o[1].line, second), 0);
    assert_int_equal(log_space_owed(f.log, o[1].line, SPACE_NOBODY), 3000);
    assert_int_equal(log_space_said(o[1].line, SPACE_NOBODY), 200);
    assert_int_equal(log_space_said(o[1].line, second), 0);
    tells(&f, o, 0, 1, 1);
    log_space_say(f.log, o[1].line, SPACE_NOBODY, 0);
    assert_int_equal(log_space_owed(f.log, o[2].line, third), 0);
    tells(&f, o, 0, 0, 1);
    /* A line that ends owes nobody anything, and its place in the table is another one's. */
    struct space_line *was = o[2].line;
    log_space_line_end(f.log, o[2].line);
    assert_true(log_space_quiet(f.log));
    o[2].line = log_space_line(f.log, &o[2].watcher);
    assert_ptr_equal(o[2].line, was);
    assert_int_equal(log_space_owed(f.log, o[0].line, SPACE_NOBODY), 0);
    for (unsigned i = 0; i < ONES; i++)
        log_space_line_end(f.log, o[i].line);
    fixture_close(&f);
}

static void as_many_as_there_may_be(void **state)
{
    (void)state;
    struct fixture f;
    static struct one o[SPACE_LINES];
    struct one more = {.watcher.fire = fire};
    fixture_open(&f, 0, 0);
    for (unsigned i = 0; i < SPACE_LINES; i++) {
        o[i] = (struct one){.watcher.fire = fire};
        o[i].line = log_space_line(f.log, &o[i].watcher);
        assert_non_null(o[i].line);
    }
    assert_null(log_space_line(f.log, &more.watcher));
    for (unsigned i = 0; i < SPACE_LINES; i++)
        log_space_line_end(f.log, o[i].line);
    fixture_close(&f);
}

/* Room for both, or only where the topic has it already. */
static void behind_others(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct topic *t = log_topic(f.log, id);
    struct batch b = {.topic = t, .length = 1000, .count = 1};
    bool behind = true;
    assert_int_equal(log_reserve_behind(f.log, &b, 0, &behind), 0);
    assert_false(behind);
    struct batch small = {.topic = t, .length = 100, .count = 1}, large = small, there = small;
    large.length = 500000;
    uint64_t all = log_space_room(f.log);
    assert_int_equal(log_reserve_behind(f.log, &large, all, &behind), -EMBAR_EFULL);
    assert_true(behind);
    assert_int_equal(log_reserve_behind(f.log, &there, all, &behind), 0);
    assert_true(behind);
    assert_int_equal(log_reserve_behind(f.log, &small, 1, &behind), 0);
    assert_false(behind);
    log_abandon(f.log, &small);
    log_abandon(f.log, &there);
    log_abandon(f.log, &b);
    topic_put(t);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left),
        cmocka_unit_test(as_many_as_there_may_be),
        cmocka_unit_test(behind_others),
    };
    return cmocka_run_group_tests_name("core places", tests, NULL, NULL);
}
