/* Lines that look like an access log and differ from one another, so that nothing on the way can
 * be lucky. Made before the clock runs. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/bench/source.h"

static void fill_line(char *at, size_t n, uint64_t *random)
{
    static const char *const verbs[] = {"GET", "PUT", "POST", "HEAD"};
    size_t used = 0;
    while (used + 1 < n) {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        uint64_t r = *random;
        char text[160];
        int length =
            snprintf(text, sizeof(text), "10.%u.%u.%u - - \"%s /item/%016llx HTTP/1.1\" %u %u ",
                     (unsigned)(r & 255), (unsigned)(r >> 8 & 255), (unsigned)(r >> 16 & 255),
                     verbs[r >> 24 & 3], (unsigned long long)r, r >> 26 & 7 ? 200u : 404u,
                     (unsigned)(r >> 30 & 0xffff));
        size_t take = (size_t)length < n - 1 - used ? (size_t)length : n - 1 - used;
        memcpy(at + used, text, take);
        used += take;
    }
    at[n - 1] = '\n';
}

char *source_make(size_t *size, size_t message, unsigned seed)
{
    size_t n = *size / message * message;
    if (n == 0)
        n = message;
    char *source = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (source == MAP_FAILED)
        return NULL;
    (void)madvise(source, n, MADV_HUGEPAGE);
    uint64_t random = 0x9e3779b97f4a7c15u * (seed + 1u);
    for (size_t at = 0; at < n; at += message)
        fill_line(source + at, message, &random);
    *size = n;
    return source;
}

void source_free(char *source, size_t size)
{
    if (source)
        (void)munmap(source, size);
}
