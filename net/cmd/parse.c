/* Values as people write them on a command line: numbers and positions. Serves no step of a
 * batch; pure functions. Must never accept what it does not fully understand.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/when.h"
#include "net/cmd/cmd.h"

#define SECOND 1000000000ull /* ns */

uint64_t wall_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

bool parse_number(const char *text, uint64_t max, uint64_t *value)
{
    return when_digits(&text, value) && *text == '\0' && *value <= max;
}

bool parse_position(const char *text, uint64_t now_ns, enum embar_from *from, uint64_t *value)
{
    *value = 0;
    if (strcmp(text, "earliest") == 0) {
        *from = EMBAR_EARLIEST;
        return true;
    }
    if (strcmp(text, "latest") == 0) {
        *from = EMBAR_LATEST;
        return true;
    }
    if (strncmp(text, "offset:", 7) == 0) {
        *from = EMBAR_OFFSET;
        return parse_number(text + 7, UINT64_MAX, value);
    }
    if (strncmp(text, "message:", 8) == 0) {
        *from = EMBAR_MESSAGE;
        return parse_number(text + 8, UINT64_MAX, value);
    }
    *from = EMBAR_TIME;
    return strncmp(text, "time:", 5) == 0 && when_time(text + 5, now_ns, value);
}
