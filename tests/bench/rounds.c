/* Interleaved rounds (bench.h). Must never let one contestant's state reach into another's time:
 * before and after run outside of all measurement. */
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/clock.h"

static void show(unsigned round, unsigned rounds, const char *what)
{
    if (isatty(STDERR_FILENO))
        (void)dprintf(STDERR_FILENO, "\r\033[Kround %u of %u%s", round, rounds, what);
}

static int run_one(struct contestant *c, bool counts, struct embar_error *err)
{
    struct load_result result;
    int rc = c->before ? c->before(c->arg, err) : 0;
    if (rc)
        return rc;
    rc = load_run(&c->load, &result, err);
    if (rc == 0 && counts)
        series_add_load(c->series, &result);
    int after = c->after ? c->after(c->arg, err) : 0;
    return rc ? rc : after;
}

int rounds_run(struct contestant *c, unsigned n, const struct bench_options *o,
               struct embar_error *err)
{
    unsigned total = o->rounds + o->warmup;
    int rc = 0;
    for (unsigned round = 0; round < total && rc == 0; round++) {
        show(round + 1, total, round < o->warmup ? " (warm-up)" : "");
        for (unsigned i = 0; i < n && rc == 0; i++)
            rc = run_one(&c[(i + round) % n], round >= o->warmup, err);
    }
    if (isatty(STDERR_FILENO))
        (void)dprintf(STDERR_FILENO, "\r\033[K");
    return rc;
}
