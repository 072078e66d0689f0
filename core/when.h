/* Moments and durations as people write them. False: it is no such value. */
#ifndef CORE_WHEN_H
#define CORE_WHEN_H

#include <stdbool.h>
#include <stdint.h>

/* Digits at *text, moved behind them. */
bool when_digits(const char **text, uint64_t *value);
/* 10s, 5ms, 200us, 1h30m, 2d; ns. */
bool when_duration(const char *text, uint64_t *ns);
/* An RFC 3339 time (local without a zone) or date, @SECONDS since 1970, or a duration before now_ns:
 * ns since 1970. */
bool when_time(const char *text, uint64_t now_ns, uint64_t *ns);

#endif
