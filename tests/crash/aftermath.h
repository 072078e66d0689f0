/* What a recovered log must still be able to do. */
#ifndef TESTS_CRASH_AFTERMATH_H
#define TESTS_CRASH_AFTERMATH_H

#include "tests/crash/trial.h"

/* Publish to every topic and session of `l`, make and rename, close or kill, reopen: all is there.
 * True, or false with why (512 bytes). *log is replaced by the reopened one, or NULL. */
bool aftermath_use(struct log **log, const struct log_options *options, struct ledger *l,
                   uint64_t random, char *why);
/* Remove everything: the space comes back. */
bool aftermath_empty(struct log *log, struct ledger *l, char *why);

#endif
