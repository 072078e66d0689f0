/* The manifest under weeks of names that come and go: what it keeps of the dead is bounded by what is
 * there, whoever stays beside them, and each opening finds who is there and nobody else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define QUIET 500u
#define BUSY  40u

struct world {
    struct fixture f;
    uint32_t quiet[QUIET], busy[BUSY];
    uint64_t session[BUSY], sent[BUSY];
    unsigned named;
    uint64_t checkpoint, most_bytes, most_gone;
};

static uint32_t topic_make(struct world *w)
{
    char name[32];
    snprintf(name, sizeof name, "topic-%u", w->named++);
    return fixture_topic(&w->f, name);
}

/* One goes, with its session, and another comes. */
static void renew(struct world *w, unsigned k)
{
    if (w->busy[k])
        fixture_control(&w->f, (struct control){.kind = MEDIA_C_REMOVE, .id = w->busy[k]});
    w->busy[k] = topic_make(w);
    w->session[k] = fixture_session(&w->f, w->busy[k], 7);
    w->sent[k] = 0;
}

/* It is told of again, and stays known by the piece that told of it first. */
static void change(struct world *w, unsigned k)
{
    struct topic *t = log_topic(w->f.log, w->busy[k]);
    struct commit c = fixture_publish(&w->f, t, w->session[k], 1, ++w->sent[k], "x", 1, NULL, 1);
    assert_int_equal(c.status, 0);
    topic_put(t);
}

static void note(struct world *w)
{
    struct log_stat st;
    log_stat_all(w->f.log, &st);
    if (st.checkpoint == w->checkpoint)
        return;
    w->checkpoint = st.checkpoint;
    uint64_t bytes = fixture_manifest(&w->f), gone = w->f.log->manifest.gone_count;
    w->most_bytes = bytes > w->most_bytes ? bytes : w->most_bytes;
    w->most_gone = gone > w->most_gone ? gone : w->most_gone;
}

static void check(struct world *w)
{
    struct log_stat st;
    struct session_stat s;
    struct node_stat n;
    log_stat_all(w->f.log, &st);
    assert_int_equal(st.topics, QUIET + BUSY);
    assert_int_equal(st.sessions, BUSY);
    for (unsigned i = 0; i < QUIET; i++)
        assert_int_equal(log_stat(w->f.log, w->quiet[i], &n), 0);
    for (unsigned i = 0; i < BUSY; i++) {
        assert_int_equal(log_stat(w->f.log, w->busy[i], &n), 0);
        assert_int_equal(log_session(w->f.log, w->session[i], &s), 0);
        assert_int_equal(s.topic, w->busy[i]);
        assert_int_equal(s.sequence, w->sent[i]);
    }
}

/* EMBAR_TEST_ROUNDS=50: a million of them. */
static void the_dead_are_forgotten(void **state)
{
    (void)state;
    static struct world w;
    struct draws d = campaign_begin("the dead");
    const struct log_options o = {.manual = true, .geo.index_entries = 1024};
    unsigned renewals = campaign_rounds(20000);
    fixture_open_as(&w.f, 8 << 20, &o);
    for (unsigned i = 0; i < QUIET; i++)
        w.quiet[i] = topic_make(&w);
    for (unsigned i = 0; i < BUSY; i++)
        renew(&w, i);
    assert_int_equal(log_checkpoint(w.f.log), 0);
    uint64_t whole = fixture_manifest(&w.f);
    for (unsigned i = 0; i < renewals; i++) {
        if (one_in(&d, 3))
            change(&w, pick(&d, BUSY));
        renew(&w, pick(&d, one_in(&d, 50) ? BUSY : BUSY / 2)); /* some live for long */
        if (i % 16 == 0)
            log_tick(w.f.log, now_monotonic());
        note(&w);
        if (i % (renewals / 8) == renewals / 16) {
            if (i / (renewals / 8) % 2)
                fixture_kill(&w.f);
            else
                fixture_reopen(&w.f);
            check(&w);
        }
    }
    check(&w);
    print_message("%u renewals: at most %llu bytes of manifest, %llu dead\n", renewals,
                  (unsigned long long)w.most_bytes, (unsigned long long)w.most_gone);
    print_message("whole %llu\n", (unsigned long long)whole);
    /* What one telling of all takes, and again what is added until it is done again. */
    assert_true(w.most_bytes <= 2 * whole);
    assert_true(w.most_gone <= 8 * BUSY);
    fixture_close(&w.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dead_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
