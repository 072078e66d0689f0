/* Control characters written out: see plain.h. Serves no step of a batch.
 * Must never pass on a byte that a terminal takes for a command.
 */
#include "core/plain.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define WRITTEN_OUT 4 /* \x1b */

size_t plain_step(const char *text, size_t length)
{
    unsigned char c = length > 0 ? (unsigned char)*text : 0;
    unsigned more = c < 0x80                ? 0
                    : c >= 0xc2 && c < 0xe0 ? 1
                    : (c & 0xf0) == 0xe0    ? 2
                    : c >= 0xf0 && c < 0xf5 ? 3
                                            : 9;
    if (more >= length || c < 0x20 || c == 0x7f)
        return 0;
    uint32_t point = more == 0 ? c : c & (0x3fu >> more);
    for (unsigned k = 1; k <= more; k++) {
        unsigned char d = (unsigned char)text[k];
        if ((d & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (d & 0x3fu);
    }
    if ((more == 2 && (point < 0x800 || (point >= 0xd800 && point < 0xe000))) ||
        (more == 3 && (point < 0x10000 || point > 0x10ffff)) || (point >= 0x80 && point < 0xa0))
        return 0;
    return more + 1;
}

/* One byte, written out: how many bytes that takes. */
static size_t write_out(char to[WRITTEN_OUT + 1], unsigned char c)
{
    static const char names[] = "\a\b\t\n\v\f\r", letters[] = "abtnvfr";
    const char *name = c ? strchr(names, c) : NULL;
    return (size_t)(name ? snprintf(to, WRITTEN_OUT + 1, "\\%c", letters[name - names])
                         : snprintf(to, WRITTEN_OUT + 1, "\\x%02x", c));
}

size_t plain_text(char *to, size_t size, const char *from)
{
    size_t left = strlen(from), all = 0, used = 0;
    while (left > 0) {
        char out[WRITTEN_OUT + 1];
        size_t n = plain_step(from, left), wide = n;
        if (n == 0)
            wide = write_out(out, (unsigned char)*from);
        /* Nothing behind what did not fit. */
        if (used == all && all + wide < size) {
            memcpy(to + used, n ? from : out, wide);
            used += wide;
        }
        all += wide;
        n += n == 0;
        from += n;
        left -= n;
    }
    if (size > 0)
        to[used] = '\0';
    return all;
}

/* All that one call prints comes at once. */
static ssize_t filter(void *cookie, const char *from, size_t size)
{
    FILE *behind = cookie;
    char buf[1024] = ""; /* or the compiler sees nothing written out of it, uninitialized */
    size_t used = 0, at = 0;
    while (at < size) {
        if (sizeof(buf) - used <= WRITTEN_OUT) {
            if (fwrite(buf, 1, used, behind) < used)
                return 0;
            used = 0;
        }
        size_t n = from[at] == '\n' ? 1 : plain_step(from + at, size - at);
        if (n > 0)
            memcpy(buf + used, from + at, n);
        used += n > 0 ? n : write_out(buf + used, (unsigned char)from[at]);
        at += n > 0 ? n : 1;
    }
    return fwrite(buf, 1, used, behind) < used ? 0 : (ssize_t)size;
}

void plain_stderr(void)
{
    FILE *f = fopencookie(stderr, "w", (cookie_io_functions_t){.write = filter});
    if (!f)
        return; /* no memory: what follows fails for better reasons */
    (void)setvbuf(f, NULL, _IONBF, 0);
    stderr = f;
}
