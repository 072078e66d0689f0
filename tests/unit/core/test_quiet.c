/* One quiet topic holds up nobody: others lap the index ring and the pool many times beside one old
 * batch, where what is full is trimmed by itself and where it blocks until somebody trims, and the
 * batch stays what and where it was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/churn/oracle.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define BUSY    6u
#define ENTRIES 128u
#define KEPT    5000u

struct world {
    struct fixture f;
    uint32_t id[BUSY + 1];
    struct topic *t[BUSY + 1]; /* [0]: the quiet one */
    uint64_t session, published, entries;
};

static char bytes[64 << 10];

static int publish(struct world *w, unsigned k, uint32_t length, bool session)
{
    struct topic *t = w->t[k];
    oracle_fill(t->id, topic_end(t), bytes, length);
    int rc = fixture_publish(&w->f, t, session ? w->session : 0, session, session, bytes, length,
                             NULL, 1)
                 .status;
    w->published += rc ? 0 : length;
    w->entries += rc == 0;
    return rc;
}

static void world_get(struct world *w)
{
    for (unsigned k = 0; k <= BUSY; k++)
        w->t[k] = log_topic(w->f.log, w->id[k]);
}

static void world_put(struct world *w)
{
    for (unsigned k = 0; k <= BUSY; k++)
        topic_put(w->t[k]);
}

static void world_open(struct world *w, uint8_t policy, int file)
{
    struct log_options o = {.manual = true, .geo.index_entries = ENTRIES};
    memset(w, 0, sizeof *w);
    if (file)
        fixture_open_file(&w->f, 0, &o, file == 2);
    else
        fixture_open_as(&w->f, 0, &o);
    for (unsigned k = 0; k <= BUSY; k++) {
        struct control c = {.kind = MEDIA_C_CREATE,
                            .parent = LOG_ROOT_ID,
                            .mode = 0644,
                            .order = 5,
                            .policy = k ? policy : 0};
        snprintf(c.name, sizeof c.name, "t%u", k);
        w->id[k] = (uint32_t)fixture_control(&w->f, c);
    }
    world_get(w);
    w->session = fixture_session(&w->f, w->id[0], 1);
    assert_int_equal(publish(w, 0, KEPT, true), 0);
}

static void check(struct world *w)
{
    struct session_stat s;
    for (unsigned k = 0; k <= BUSY; k++) {
        size_t size;
        char *got = fixture_read(w->t[k], &size);
        assert_int_equal(size, topic_end(w->t[k]) - topic_base(w->t[k]));
        assert_true(oracle_equal(w->id[k], topic_base(w->t[k]), got, size));
        free(got);
    }
    assert_int_equal(topic_base(w->t[0]), 0);
    assert_int_equal(topic_end(w->t[0]), KEPT);
    assert_int_equal(log_session(w->f.log, w->session, &s), 0);
    assert_int_equal(s.sequence, 1);
}

/* There is room as soon as somebody else's data may go: by itself, or by hand. */
static void publish_on(struct world *w, unsigned k, uint32_t length, uint8_t policy)
{
    int rc = publish(w, k, length, false);
    if (rc == -EMBAR_EFULL && !policy) {
        uint64_t half = topic_base(w->t[k]) + (topic_end(w->t[k]) - topic_base(w->t[k])) / 2;
        for (unsigned i = 1; i <= BUSY; i++) {
            struct control c = {.kind = MEDIA_C_TRIM, .id = w->id[i], .value = topic_end(w->t[i])};
            c.value = i == k ? half : c.value;
            fixture_control(&w->f, c);
            w->entries++;
        }
    }
    if (rc == -EMBAR_EFULL) {
        log_tick(w->f.log, now_monotonic());
        rc = publish(w, k, length, false);
    }
    assert_int_equal(rc, 0);
}

static void lap(struct draws *d, uint8_t policy, int file)
{
    static struct world w;
    world_open(&w, policy, file);
    uint64_t pools = campaign_rounds(8) * w.f.size, next = pools / 4;
    while (w.published < pools || w.entries < (uint64_t)campaign_rounds(20) * ENTRIES) {
        publish_on(&w, 1 + pick(d, BUSY), 1 + pick(d, one_in(d, 9) ? sizeof bytes : 8000), policy);
        if (w.published < next)
            continue;
        next += pools / 4;
        check(&w);
        world_put(&w);
        fixture_kill(&w.f);
        world_get(&w);
        check(&w);
        /* What is replayed is what came since a checkpoint, however old the quiet batch is. */
        struct log_stat st;
        log_stat_all(w.f.log, &st);
        assert_true(st.recovered <= ENTRIES);
    }
    check(&w);
    world_put(&w);
    fixture_close(&w.f);
}

static void where_others_are_trimmed(void **state)
{
    (void)state;
    struct draws d = campaign_begin("quiet, trim");
    for (int file = 0; file < 3; file++)
        lap(&d, 1, file);
}

static void where_others_block(void **state)
{
    (void)state;
    struct draws d = campaign_begin("quiet, block");
    for (int file = 0; file < 3; file++)
        lap(&d, 0, file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_others_are_trimmed),
        cmocka_unit_test(where_others_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
