/* Moments and durations as people write them. Serves no step of a batch; pure functions. Must never
 * accept what it does not fully understand.
 */
#include <ctype.h>
#include <string.h>
#include <time.h>

#include "core/when.h"

#define SECOND 1000000000ull /* ns */

/* Digits at *text, moved behind them. */
bool when_digits(const char **text, uint64_t *value)
{
    const char *p = *text;
    uint64_t v = 0;
    if (!isdigit((unsigned char)*p))
        return false;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    *text = p;
    *value = v;
    return true;
}

bool when_duration(const char *text, uint64_t *ns)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {
        {"ns", 1},          {"us", 1000},         {"ms", 1000000},       {"s", SECOND},
        {"m", 60 * SECOND}, {"h", 3600 * SECOND}, {"d", 86400 * SECOND}, {"w", 7 * 86400 * SECOND},
    };
    uint64_t sum = 0;
    do {
        uint64_t v;
        if (!when_digits(&text, &v))
            return false;
        size_t n = strspn(text, "nusmhdw"), i = 0;
        while (i < sizeof(units) / sizeof(units[0]) &&
               (strlen(units[i].name) != n || strncmp(units[i].name, text, n) != 0))
            i++;
        if (i == sizeof(units) / sizeof(units[0]) || __builtin_mul_overflow(v, units[i].ns, &v) ||
            __builtin_add_overflow(sum, v, &sum))
            return false;
        text += n;
    } while (*text);
    *ns = sum;
    return true;
}

/* ".123456789" at *text: ns; none is 0. */
static bool fraction(const char **text, uint64_t *ns)
{
    *ns = 0;
    if (**text != '.')
        return true;
    uint64_t unit = SECOND / 10;
    const char *p = *text + 1;
    if (!isdigit((unsigned char)*p))
        return false;
    for (; isdigit((unsigned char)*p); p++, unit /= 10)
        *ns += unit * (uint64_t)(*p - '0');
    *text = p;
    return true;
}

/* "Z", "+01:00", or nothing: local time. */
static bool zone(const char *text, struct tm *tm, time_t *out)
{
    struct tm given = *tm;
    if (*text == '\0') {
        tm->tm_isdst = -1;
        *out = mktime(tm);
    } else {
        long shift = 0;
        if (strcmp(text, "Z") != 0 && strcmp(text, "z") != 0) {
            if ((text[0] != '+' && text[0] != '-') || strlen(text) != 6 || text[3] != ':' ||
                !isdigit((unsigned char)text[1]) || !isdigit((unsigned char)text[2]) ||
                !isdigit((unsigned char)text[4]) || !isdigit((unsigned char)text[5]))
                return false;
            shift = ((text[1] - '0') * 10 + (text[2] - '0')) * 3600L +
                    ((text[4] - '0') * 10 + (text[5] - '0')) * 60L;
            if (text[0] == '-')
                shift = -shift;
        }
        *out = timegm(tm) - shift;
    }
    /* The 31st of April was made the 1st of May: that is no date. */
    return *out >= 0 && given.tm_mday == tm->tm_mday && given.tm_mon == tm->tm_mon;
}

static bool parse_date(const char *text, uint64_t *ns)
{
    struct tm tm = {.tm_mday = 1};
    time_t t;
    uint64_t part = 0;
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    if (!rest)
        return false;
    if (*rest == 'T' || *rest == 't' || *rest == ' ') {
        rest = strptime(rest + 1, "%H:%M:%S", &tm);
        if (!rest || !fraction(&rest, &part))
            return false;
    }
    if (!zone(rest, &tm, &t))
        return false;
    *ns = (uint64_t)t * SECOND + part;
    return true;
}

bool when_time(const char *text, uint64_t now_ns, uint64_t *ns)
{
    uint64_t v, part;
    if (*text == '@') {
        text++;
        if (!when_digits(&text, &v) || !fraction(&text, &part) || *text ||
            __builtin_mul_overflow(v, SECOND, &v))
            return false;
        *ns = v + part;
        return true;
    }
    if (parse_date(text, ns))
        return true;
    if (!when_duration(text, &v))
        return false;
    *ns = v < now_ns ? now_ns - v : 0;
    return true;
}
