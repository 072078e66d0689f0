/* Cutting text into messages. Serves step 2 from the publisher's side: what is a message is decided
 * here and nowhere else. Must never drop or add a byte.
 */
#include "net/cmd/lines.h"

#include <string.h>

size_t lines_cut(const unsigned char *p, size_t n, uint32_t *lengths, uint32_t max, uint32_t *count)
{
    size_t at = 0;
    uint32_t found = 0;
    while (found < max && at < n) {
        const unsigned char *end = memchr(p + at, '\n', n - at);
        if (!end)
            break;
        size_t length = (size_t)(end - (p + at)) + 1;
        lengths[found++] = (uint32_t)length;
        at += length;
    }
    *count = found;
    return at;
}

size_t lines_whole(const unsigned char *p, size_t n)
{
    const unsigned char *last = n > 0 ? memrchr(p, '\n', n) : NULL;
    return last ? (size_t)(last - p) + 1 : 0;
}
