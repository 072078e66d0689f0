/* Damaged pools: opening one never crashes, hangs or reads outside; it is refused with a sentence,
 * or what it serves is what was published. */
#include <string.h>
#include <unistd.h>

#include "tests/unit/core/campaign.h"
#include "tests/unit/core/hostile.h"

static void how_draw(struct draws *d, uint8_t how[12])
{
    for (unsigned i = 0; i < 12; i++)
        how[i] = (uint8_t)draw(d);
}

/* A case that does not end is a failure, whatever the machine does meanwhile. */
static void case_begin(void)
{
    alarm(60);
}

static void pristine_serves(void **state)
{
    (void)state;
    struct hostile h;
    hostile_build(&h, 1);
    assert_int_equal(hostile_serve(&h, true, true), 0);
    assert_memory_equal(h.image, h.pristine, HOSTILE_SIZE); /* reading changes nothing */
    assert_int_equal(hostile_serve(&h, false, true), 0);
    assert_int_equal(hostile_serve(&h, false, false), 0);
    hostile_free(&h);
}

/* Any damage to one place. Refused pools are left as they were. */
static void damaged_places(void **state)
{
    (void)state;
    struct draws d = campaign_begin("damage");
    struct hostile h;
    hostile_build(&h, draw(&d));
    char *before = malloc(HOSTILE_SIZE);
    unsigned refused = 0, rounds = campaign_rounds(500);
    for (unsigned i = 0; i < rounds; i++) {
        uint8_t how[12];
        hostile_reset(&h);
        how_draw(&d, how);
        how[1] = (uint8_t)i;
        const struct hostile_area *a = hostile_mutate(&h, how);
        memcpy(before, h.image, HOSTILE_SIZE);
        case_begin();
        int rc = hostile_serve(&h, true, true);
        assert_memory_equal(h.image, before, HOSTILE_SIZE);
        int again = hostile_serve(&h, false, true);
        refused += rc != 0;
        /* What can be read can be opened: damage costs what it hits. */
        if (rc != again)
            fail_msg("case %u, %s: readonly %d, else %d", i, a->name, rc, again);
        if (again)
            assert_memory_equal(h.image, before, HOSTILE_SIZE);
        else
            assert_int_equal(hostile_serve(&h, true, false), 0);
    }
    alarm(0);
    print_message("%u of %u refused\n", refused, rounds);
    assert_true(refused > rounds / 50 && refused < rounds);
    free(before);
    hostile_free(&h);
}

/* Several at once, and with checksums that hold: lies rather than damage. */
static void lies(void **state)
{
    (void)state;
    struct draws d = campaign_begin("lies");
    struct hostile h;
    hostile_build(&h, draw(&d));
    unsigned refused = 0, rounds = campaign_rounds(700);
    for (unsigned i = 0; i < rounds; i++) {
        hostile_reset(&h);
        for (unsigned n = 1 + pick(&d, 4); n > 0; n--) {
            uint8_t how[12];
            how_draw(&d, how);
            if (one_in(&d, 2)) /* fields, where most is decided */
                how[0] = (uint8_t)(5 + pick(&d, 2));
            if (one_in(&d, 2))
                how[1] = (uint8_t)pick(&d, 16);
            (void)hostile_mutate(&h, how);
        }
        hostile_seal(&h);
        case_begin();
        refused += hostile_serve(&h, true, false) != 0;
        if (hostile_serve(&h, false, false) == 0)
            (void)hostile_serve(&h, false, false);
    }
    alarm(0);
    print_message("%u of %u refused\n", refused, rounds);
    hostile_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pristine_serves),
        cmocka_unit_test(damaged_places),
        cmocka_unit_test(lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
