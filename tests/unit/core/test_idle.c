/* What topics fill and does not hold anything is given up for who finds no space, and only topics that
 * may have such are looked at for it, however many others there are. Linked with --wrap=reserve_idle. */
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define SECOND 1000000000ull
#define MOST   600u
#define BARE   100u /* of them got a reservation that was given back, */
#define READ   40u  /* were trimmed while somebody read them, */
#define GONE   20u  /* the same, and then removed */

static struct world {
    struct fixture f;
    struct topic *t[MOST];
    struct read_view v[MOST];
} w;

static unsigned looks;

void __real_reserve_idle(struct topic *t);
void __wrap_reserve_idle(struct topic *t);

void __wrap_reserve_idle(struct topic *t)
{
    looks += t->id != 0;
    __real_reserve_idle(t);
}

static int publish(struct topic *t, uint32_t length)
{
    static char bytes[1 << 20];
    return fixture_publish(&w.f, t, 0, 0, 0, bytes, length, NULL, 1).status;
}

static void topics_make(void)
{
    for (unsigned i = 0; i < MOST; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        w.t[i] = log_topic(w.f.log, fixture_topic(&w.f, name));
        if (i < BARE) {
            struct batch b = {.topic = w.t[i], .length = 100, .count = 1, .equal = true};
            assert_int_equal(log_reserve(w.f.log, &b), 0);
            log_abandon(w.f.log, &b);
            continue;
        }
        assert_int_equal(publish(w.t[i], 100), 0);
        if (i >= BARE + READ)
            continue;
        assert_int_equal(topic_read(w.t[i], 0, 100, &w.v[i]), 0);
        fixture_control(&w.f,
                        (struct control){.kind = MEDIA_C_TRIM, .id = w.t[i]->id, .value = 100});
    }
}

/* So many looks are made for who finds no space. */
static unsigned starve(unsigned seconds)
{
    static uint32_t most;
    most = (uint32_t)log_pool(w.f.log)->max_batch;
    struct topic *t = w.t[MOST - 1];
    while (publish(t, most) == 0)
        ;
    looks = 0;
    log_tick(w.f.log, now_monotonic() + seconds * SECOND);
    return looks;
}

static unsigned filling(unsigned from, unsigned to)
{
    unsigned n = 0;
    for (unsigned i = from; i < to; i++)
        n += w.t[i] && w.t[i]->fill;
    return n;
}

static void only_what_may_be_idle_is_looked_at(void **state)
{
    (void)state;
    const struct log_options o = {.manual = true};
    fixture_open_as(&w.f, 16 << 20, &o);
    topics_make();
    for (unsigned i = 0; i < GONE; i++) {
        unsigned at = i % 2 ? i : BARE + i;
        fixture_control(&w.f, (struct control){.kind = MEDIA_C_REMOVE, .id = w.t[at]->id});
        if (at >= BARE)
            read_release(&w.v[at]);
        topic_put(w.t[at]);
        w.t[at] = NULL;
    }
    unsigned bare = BARE - GONE / 2, read = READ - GONE / 2;
    assert_int_equal(filling(0, BARE), bare);
    assert_int_equal(filling(BARE, BARE + READ), read);
    assert_int_equal(starve(1), bare + read);
    assert_int_equal(filling(0, BARE), 0);
    assert_int_equal(filling(BARE, BARE + READ), read);
    assert_int_equal(filling(BARE + READ, MOST), MOST - BARE - READ);
    /* What is being read is looked at again until it is not; */
    assert_int_equal(starve(2), read);
    for (unsigned i = BARE; i < BARE + READ; i++)
        if (w.t[i])
            read_release(&w.v[i]);
    assert_int_equal(starve(3), read);
    assert_int_equal(filling(BARE, BARE + READ), 0);
    assert_int_equal(starve(4), 0);
    /* and one that was given back and then came to hold something, once. */
    struct batch b = {.topic = w.t[MOST - 2], .length = 100, .count = 1, .equal = true};
    fixture_control(&w.f,
                    (struct control){.kind = MEDIA_C_TRIM, .id = w.t[MOST - 2]->id, .value = 100});
    assert_null(w.t[MOST - 2]->fill);
    assert_int_equal(log_reserve(w.f.log, &b), 0);
    log_abandon(w.f.log, &b);
    assert_int_equal(publish(w.t[MOST - 2], 100), 0);
    assert_int_equal(starve(5), 1);
    assert_int_equal(starve(6), 0);
    assert_non_null(w.t[MOST - 2]->fill);
    for (unsigned i = 0; i < MOST; i++)
        if (w.t[i])
            topic_put(w.t[i]);
    fixture_close(&w.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_may_be_idle_is_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
