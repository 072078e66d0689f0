/* A session's window against a plain set of numbers: what was taken, what is too far, where the mark
 * stands and what a fence leaves, lapped thousands of times. */
#include <string.h>

#include "core/log_state.h"
#include "tests/unit/core/campaign.h"
#include "tests/unit/core/fixture.h"

#define SPAN (1u << 21)

struct set {
    uint64_t mark, messages; /* all up to the mark are taken, with so many messages */
    uint32_t count[SPAN];    /* messages in each that was taken, 0: it was not */
    unsigned ahead;
};

static uint64_t highest(const struct set *m)
{
    uint64_t at = m->mark + MEDIA_WINDOW;
    while (at > m->mark && m->count[at] == 0)
        at--;
    return at;
}

static void set_take(struct set *m, uint64_t sequence, uint32_t messages)
{
    m->count[sequence] = messages;
    m->ahead++;
    for (; m->count[m->mark + 1]; m->ahead--)
        m->messages += m->count[++m->mark];
}

static void set_fence(struct set *m)
{
    m->mark = highest(m);
    m->ahead = 0;
}

/* Near the mark, anywhere in the window, at its end, behind it or below the mark. */
static uint64_t some_sequence(const struct set *m, struct draws *d)
{
    switch (pick(d, 8)) {
    case 0: return m->mark + 1 + pick(d, MEDIA_WINDOW);
    case 1: return m->mark + MEDIA_WINDOW - 2 + pick(d, 5);
    case 2: return m->mark - pick(d, m->mark < 3000 ? (uint32_t)m->mark + 1 : 3000);
    case 3: return m->mark + 1 + pick(d, 40);
    default: return m->mark + 1 + pick(d, 3);
    }
}

static void check(struct log *log, const struct session *s, const struct set *m, uint64_t sequence)
{
    assert_int_equal(s->ordered, m->mark);
    assert_int_equal(s->ahead_count, m->ahead);
    assert_int_equal(log->sessions.ahead, m->ahead);
    bool far = sequence > m->mark + MEDIA_WINDOW;
    assert_int_equal(session_is_far(s, sequence), far);
    if (!far)
        assert_int_equal(session_taken(s, sequence),
                         sequence <= m->mark || m->count[sequence] != 0);
}

static void random_windows(void **state)
{
    (void)state;
    struct draws d = campaign_begin("window");
    struct set *m = calloc(1, sizeof *m);
    struct fixture f;
    fixture_open(&f, 0, 0);
    uint32_t id = fixture_topic(&f, "t");
    struct session *s = session_find(f.log, fixture_session(&f, id, 0));
    assert_non_null(m);
    assert_non_null(s);
    uint32_t epoch = 1;
    uint64_t taken = 0, fences = 0;
    for (unsigned i = 0; i < campaign_rounds(400000) && m->mark + 3 * MEDIA_WINDOW < SPAN; i++) {
        uint64_t sequence = some_sequence(m, &d);
        check(f.log, s, m, sequence);
        if (sequence > 0 && !session_is_far(s, sequence) && !session_taken(s, sequence)) {
            uint32_t messages = 1 + pick(&d, MEDIA_MAX_MESSAGES);
            assert_int_equal(session_take(f.log, s, sequence, messages), 0);
            set_take(m, sequence, messages);
            taken++;
        }
        if (one_in(&d, 500)) {
            session_fence(f.log, s, ++epoch);
            set_fence(m);
            fences++;
        }
        session_commit(f.log, s, i);
        assert_int_equal(s->sequence, m->mark);
        assert_int_equal(s->messages, m->messages);
        check(f.log, s, m, sequence);
    }
    print_message("%u taken, %u fences, the mark at %u\n", (unsigned)taken, (unsigned)fences,
                  (unsigned)m->mark);
    assert_true(m->mark > 20 * MEDIA_WINDOW);
    free(m);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_windows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
