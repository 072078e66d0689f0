/* Numbers and times as people read them, and writing all of something to standard output.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/plain.h"
#include "net/cmd/cmd.h"

const char *text_bytes(uint64_t bytes, char *buf, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    unsigned u = 0;
    while (v >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
        v /= 1024;
        u++;
    }
    snprintf(buf, size, u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
    return buf;
}

const char *text_time(uint64_t ns, char *buf, size_t size)
{
    time_t t = (time_t)(ns / 1000000000u);
    struct tm tm;
    char day[64];
    if (ns == 0 || !gmtime_r(&t, &tm) || strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        snprintf(buf, size, "-");
    else
        snprintf(buf, size, "%s.%03uZ", day, (unsigned)(ns / 1000000u % 1000u));
    return buf;
}

char *text_plain(const char *text)
{
    size_t size = plain_text(NULL, 0, text) + 1;
    char *plain = malloc(size);
    if (plain)
        (void)plain_text(plain, size, text);
    return plain;
}

void put_line(const char *text)
{
    char *plain = text_plain(text);
    puts(plain ? plain : "?");
    free(plain);
}

int write_out(const void *data, size_t length)
{
    const char *p = data;
    while (length > 0) {
        ssize_t n = write(STDOUT_FILENO, p, length);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        p += n;
        length -= (size_t)n;
    }
    return 0;
}
