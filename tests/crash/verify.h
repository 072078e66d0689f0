/* Does a recovered log keep what was promised? */
#ifndef TESTS_CRASH_VERIFY_H
#define TESTS_CRASH_VERIFY_H

#include "tests/crash/trial.h"

struct expect {
    const struct ledger *must;     /* all of this is there, */
    const struct op *tail;         /* and any first few of these, */
    size_t tail_count;             /* (all of them before anything below), */
    const struct control *control; /* and this, or not; NULL: none is in flight, */
    struct flight *flight;         /* and of these, FLIGHTS of them, what the rules allow, */
    const struct visible *visible; /* and what readers had seen; nothing else */
    unsigned visibles;
    const struct ledger
        *rule; /* by what retention may have trimmed since; NULL: by anything it has */
    uint64_t random;
    bool unread;  /* batches are not looked at */
    bool damaged; /* batches may be unreadable, but never wrong */
};

struct outcome {
    struct ledger ledger; /* must, tail, control and flights as far as they are there */
    uint64_t cut;         /* number of the last entry that recovery accepted */
    bool has_control;
};

/* shots.c: what a run promises at this moment, to whoever opens an image on the same boot or after
 * another. */
struct trial;
struct expect trial_expect(struct trial *r, bool same_boot, uint64_t random);

/* May retention have trimmed n to `base`, where its end is `end`? Only by a setting that it has, at a
 * message, and never what its bytes keep. With a rule: nor what is not old enough, nor for space that
 * nobody wanted. */
bool verify_retained(const struct ledger *l, const struct node *n, uint64_t base, uint64_t end,
                     const struct ledger *rule);

/* True, or false with why (512 bytes). The log was just opened. */
bool verify(struct log *log, struct expect *e, struct outcome *out, char *why);

#endif
