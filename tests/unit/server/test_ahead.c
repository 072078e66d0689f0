/* The bits of an ACK against a plain model: marks that rise by one and by more than a window, bits
 * anywhere in the window, the ring lapped many times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/server/internal.h"

#define LAPS 40u
#define LAST ((LAPS + 4) * WIRE_WINDOW)

static uint64_t random_of(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* What the words say is what the model knows of the window, and nothing else. */
static void compare(const struct channel *ch, const bool *committed)
{
    le64 words[WIRE_AHEAD];
    unsigned n = ahead_words(ch, words);
    assert_true(n <= WIRE_AHEAD);
    assert_true(n == 0 || le64_get(words[n - 1]) != 0); /* no more words than it takes */
    unsigned count = 0;
    for (uint64_t i = 0; i < WIRE_WINDOW; i++) {
        bool bit = i / 64 < n && (le64_get(words[i / 64]) >> (i % 64) & 1);
        assert_int_equal(bit, committed[ch->mark + 1 + i]);
        count += bit;
    }
    assert_int_equal(ch->ahead_count, count);
}

static void against_a_model(void **state)
{
    (void)state;
    bool *committed = calloc(LAST + 2 * WIRE_WINDOW, sizeof(*committed));
    struct channel ch = {.mark = 0};
    uint64_t seed = 5;
    compare(&ch, committed);
    assert_null(ch.ahead); /* made when the first bit is due */
    while (ch.mark < LAPS * WIRE_WINDOW) {
        for (unsigned i = 0; i < 20; i++) {
            /* Also at the window's edges, below the mark and beyond the window: no bit. */
            uint64_t s = ch.mark + random_of(&seed) % (WIRE_WINDOW + 3);
            ahead_set(&ch, s);
            committed[s] |= s > ch.mark && s <= ch.mark + WIRE_WINDOW;
        }
        compare(&ch, committed);
        uint64_t step = random_of(&seed) % 8 == 0 ? random_of(&seed) % (WIRE_WINDOW * 3 / 2)
                                                  : random_of(&seed) % 70;
        ahead_pass(&ch, ch.mark + step);
        compare(&ch, committed);
    }
    ahead_set(&ch, UINT64_MAX);
    compare(&ch, committed);
    free(ch.ahead);
    free(committed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_a_model)};
    return cmocka_run_group_tests_name("server ahead", tests, NULL, NULL);
}
