/* Damaged pools, many of them: each is reported, none crashes the checker, and a repair yields a pool
 * that opens and holds everything that was not damaged itself. The seed is EMBAR_TEST_SEED, pools are
 * 60 times EMBAR_TEST_ROUNDS. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/core/fsck_trial.h"

#define POOLS   6u
#define DAMAGES 10u /* of each pool */
#define KILLS   20u

/* What became of the pools with one kind of damage. */
struct tally {
    size_t pools, reported, unrepairable, lossless, hit, unreadable, aside, rolled, lost;
};

static void tally_add(struct tally *to, const struct trial_outcome *o)
{
    to->pools++;
    to->reported += o->findings > 0 || o->unrepairable;
    to->unrepairable += o->unrepairable;
    to->lossless += o->findings > 0 && o->unreadable == 0 && o->nameless == 0;
    to->hit += o->damaged;
    to->unreadable += o->unreadable;
    to->aside += o->aside;
    to->rolled += o->rolled;
    to->lost += o->collateral;
}

static void tally_print(const char *name, const struct tally *t)
{
    print_message("%-22s %6zu %9zu %9zu %9zu %9zu %6zu %11zu %6zu %6zu\n", name, t->pools,
                  t->reported, t->lossless, t->pools - t->unrepairable, t->hit, t->unreadable,
                  t->aside, t->rolled, t->lost);
}

static void look_closely(struct trial *t)
{
    struct fsck_report r;
    struct embar_error err;
    trial_entries(t);
    print_message("fsck: %d\n", trial_fsck(t, false, NULL, &r, &err));
    trial_print(&r);
    fsck_report_drop(&r);
}

static void campaign(void **state)
{
    (void)state;
    struct draws d = campaign_begin("fsck");
    char save[TRIAL_SAVE];
    trial_save_make(save);
    struct tally tally[TRIAL_KINDS + 1] = {0};
    size_t pools = 0, batches = 0, nameless = 0, missing = 0;
    const char *only = getenv("EMBAR_TEST_ONLY");
    for (unsigned p = campaign_rounds(POOLS); p > 0; p--) {
        struct trial t;
        trial_build(&t, &d);
        for (unsigned i = 0; i < DAMAGES; i++) {
            char what[256];
            struct trial_outcome o;
            trial_damage(&t, &d, what, sizeof what);
            pools++;
            if (only && strtoul(only, NULL, 0) != pools)
                continue;
            if (getenv("EMBAR_TEST_VERBOSE"))
                print_message("pool %zu: %s%s\n", pools, what, t.killed ? "" : " (closed)");
            if (only)
                look_closely(&t);
            alarm(120);
            trial_cuts(&t, save, d, 1);
            trial_run(&t, save, &o);
            alarm(0);
            tally_add(&tally[t.kind], &o);
            tally_add(&tally[TRIAL_KINDS], &o);
            batches += o.batches;
            nameless += o.nameless;
            missing += o.missing;
            if (o.collateral + o.aside + o.rolled > 0)
                print_message("pool %zu: %s%s: of batches not hit %zu lost, %zu saved aside, %zu "
                              "rolled back; %zu topics missing\n",
                              pools, what, t.killed ? "" : " (closed)", o.collateral, o.aside,
                              o.rolled, o.missing);
        }
        trial_free(&t);
    }
    print_message("%-22s %6s %9s %9s %9s %9s %6s %11s %6s %6s\n", "", "pools", "reported",
                  "lossless", "opened", "hit", "EIO", "saved aside", "rolled", "lost");
    for (unsigned k = 0; k < TRIAL_KINDS; k++)
        tally_print(trial_kind_name(k), &tally[k]);
    tally_print("all", &tally[TRIAL_KINDS]);
    print_message("%zu batches; %zu topics renamed, %zu missing\n", batches, nameless, missing);
    trial_save_drop(save);
    assert_int_equal(tally[TRIAL_KINDS].lost, 0);
    assert_true(only || tally[TRIAL_KINDS].reported > pools / 4);
}

/* What a kill leaves is no damage: nothing is said of it, and a repair changes nothing. */
static void unharmed(const char *killed)
{
    struct trial t = {.image = malloc(TRIAL_SIZE)};
    struct embar_error err;
    assert_non_null(t.image);
    memcpy(t.image, killed, TRIAL_SIZE);
    for (unsigned repair = 0; repair < 2; repair++) {
        struct fsck_report r;
        if (trial_fsck(&t, repair, "/nowhere", &r, &err) != 0)
            fail_msg("not checked: %s", err.text);
        if (r.count > 0)
            trial_print(&r);
        assert_int_equal(r.count, 0);
        fsck_report_drop(&r);
        assert_memory_equal(t.image, killed, TRIAL_SIZE);
    }
    free(t.image);
}

static void killed(void **state)
{
    (void)state;
    if (getenv("EMBAR_TEST_ONLY")) /* one pool is looked into */
        return;
    struct draws d = campaign_begin("killed");
    for (unsigned p = campaign_rounds(POOLS); p > 0; p--)
        trial_kills(&d, KILLS, unharmed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(campaign), cmocka_unit_test(killed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
