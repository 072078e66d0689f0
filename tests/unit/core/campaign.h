/* Random tests that can be repeated: one seed, one generator, one knob for longer campaigns.
 *
 * EMBAR_TEST_SEED chooses the seed, EMBAR_TEST_ROUNDS multiplies the work. Each random test prints
 * its seed when it begins, so that a failure's output holds what repeats it. */
#ifndef TESTS_UNIT_CORE_CAMPAIGN_H
#define TESTS_UNIT_CORE_CAMPAIGN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

struct draws {
    uint64_t state;
};

static inline uint64_t draw(struct draws *d)
{
    d->state ^= d->state << 13;
    d->state ^= d->state >> 7;
    d->state ^= d->state << 17;
    return d->state * 2685821657736338717u;
}

/* 0 .. n - 1 */
static inline uint32_t pick(struct draws *d, uint32_t n)
{
    return (uint32_t)((draw(d) >> 32) * n >> 32);
}

static inline bool one_in(struct draws *d, uint32_t n)
{
    return pick(d, n) == 0;
}

static inline struct draws campaign_begin(const char *name)
{
    const char *text = getenv("EMBAR_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 20240607;
    print_message("%s: EMBAR_TEST_SEED=%llu\n", name, (unsigned long long)seed);
    struct draws d = {seed * 0x9e3779b97f4a7c15u + 0x1234567u};
    if (d.state == 0)
        d.state = 1;
    for (int i = 0; i < 8; i++)
        (void)draw(&d);
    return d;
}

/* ThreadSanitizer multiplies the time of what one thread does: a quarter of it will do there. */
static inline unsigned campaign_rounds(unsigned rounds)
{
#ifdef __SANITIZE_THREAD__
    rounds = (rounds + 3) / 4;
#endif
    const char *text = getenv("EMBAR_TEST_ROUNDS");
    unsigned long times = text ? strtoul(text, NULL, 0) : 1;
    return rounds * (unsigned)(times ? times : 1);
}

#endif
