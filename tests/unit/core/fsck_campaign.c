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

static void campaign(void **state)
{
    (void)state;
    struct draws d = campaign_begin("fsck");
    char save[] = "/tmp/embar-fsck-XXXXXX";
    assert_non_null(mkdtemp(save));
    struct trial_outcome sum = {0};
    size_t pools = 0, reported = 0, harmless = 0, lossless = 0, unrepairable = 0, collateral = 0;
    const char *only = getenv("EMBAR_TEST_ONLY");
    for (unsigned p = campaign_rounds(POOLS); p > 0; p--) {
        struct trial t;
        trial_build(&t, &d);
        for (unsigned i = 0; i < DAMAGES; i++) {
            char what[256];
            struct trial_outcome o;
            trial_damage(&t, &d, what, sizeof what);
            if (only && strtoul(only, NULL, 0) != pools + 1) {
                pools++;
                continue;
            }
            if (getenv("EMBAR_TEST_VERBOSE"))
                print_message("pool %zu: %s%s\n", pools + 1, what, t.killed ? "" : " (closed)");
            if (only) {
                trial_entries(&t);
                struct fsck_report r;
                struct embar_error err;
                print_message("fsck: %d\n", trial_fsck(&t, false, NULL, &r, &err));
                trial_print(&r);
                fsck_report_drop(&r);
            }
            alarm(120);
            trial_run(&t, save, &o);
            pools++;
            unrepairable += o.unrepairable;
            reported += o.findings > 0;
            harmless += !o.unrepairable && o.findings == 0;
            lossless += o.findings > 0 && o.unreadable == 0 && o.nameless == 0;
            sum.batches += o.batches;
            sum.damaged += o.damaged;
            sum.unreadable += o.unreadable;
            sum.collateral += o.collateral;
            sum.nameless += o.nameless;
            sum.missing += o.missing;
            collateral += o.collateral > 0;
            if (o.collateral > 0)
                print_message("pool %zu: %s%s: %zu batches not hit, %zu topics missing\n", pools,
                              what, t.killed ? "" : " (closed)", o.collateral, o.missing);
        }
        trial_free(&t);
    }
    alarm(0);
    print_message("%zu damaged pools: %zu reported (%zu of them without any loss), %zu where the "
                  "damage hit nothing that counts, %zu without a superblock left\n",
                  pools, reported, lossless, harmless, unrepairable);
    print_message("%zu batches: %zu hit, %zu unreadable after the repair; %zu of those not hit "
                  "themselves (in %zu pools); %zu topics renamed, %zu missing\n",
                  sum.batches, sum.damaged, sum.unreadable, sum.collateral, collateral,
                  sum.nameless, sum.missing);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", save);
    assert_int_equal(system(command), 0);
    assert_true(reported > pools / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(campaign)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
