/* Time and chance as a trial's own, so that the same arguments take the same images: linked with
 * --wrap, the core's clock and random bytes come from here. Must never be asked by two threads at
 * once; the team takes turns.
 */
#include <stddef.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "tests/crash/ledger.h"
#include "tests/crash/trial.h"

ssize_t __wrap_getrandom(void *to, size_t n, unsigned flags);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);

ssize_t __wrap_getrandom(void *to, size_t n, unsigned flags)
{
    static uint64_t state;
    (void)flags;
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)to)[i] = (unsigned char)draw(&state);
    return (ssize_t)n;
}

static uint64_t now = 1000000000ull * 1000000000;

uint64_t chance_now(void)
{
    return now;
}

void chance_pass(uint64_t ns)
{
    now += ns;
}

/* Every look is a microsecond. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    (void)clock;
    now += 1000;
    *ts = (struct timespec){.tv_sec = (time_t)(now / 1000000000),
                            .tv_nsec = (long)(now % 1000000000)};
    return 0;
}
