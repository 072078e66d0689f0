/* Payload and lengths on their way into the pool (steps 4 and 5): copied here from memory, or received
 * in place and then summed and written back while hot. Each call is one guard, a whole piece long.
 * What is too slow for the pool is copied out again. Must never touch bytes outside the reservation: callers pass ranges within it.
 */
#include <string.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/log_state.h"

struct piece {
    struct log *log;
    const struct batch *b;
    uint32_t at, n;
    const char *from; /* NULL: it stands already */
    uint32_t *crc;    /* NULL: not wanted */
};

static int land(void *arg)
{
    const struct piece *p = arg;
    struct flush *flush = p->log->pool.flush;
    for (uint32_t done = 0; done < p->n;) {
        uint32_t here;
        void *to = log_span(p->log, p->b, p->at + done, &here);
        if (here > p->n - done)
            here = p->n - done;
        if (p->from)
            memcpy(to, p->from + done, here);
        if (p->crc)
            *p->crc = crc32c(*p->crc, to, here);
        flush_writeback(flush, to, here);
        done += here;
    }
    return 0;
}

/* A guard's answer; the log knows of it when the caller does. */
static int told(struct log *log, int rc)
{
    if (rc)
        log_fault(log, rc);
    return rc;
}

void log_writeback(struct log *log, const struct batch *b, uint32_t at, uint32_t n)
{
    struct piece p = {.log = log, .b = b, .at = at, .n = n};
    (void)told(log, guard_run(log->region, land, &p));
}

int log_landed(struct log *log, const struct batch *b, uint32_t at, uint32_t n, uint32_t *crc)
{
    struct piece p = {.log = log, .b = b, .at = at, .n = n, .crc = crc};
    return told(log, guard_run(log->region, land, &p));
}

int log_store(struct log *log, const struct batch *b, uint32_t at, const void *from, uint32_t n,
              uint32_t *crc)
{
    struct piece p = {.log = log, .b = b, .at = at, .n = n, .from = from, .crc = crc};
    return told(log, guard_run(log->region, land, &p));
}

int log_store_lengths(struct log *log, const struct batch *b, uint32_t at, const void *from,
                      uint32_t n)
{
    return told(log, guard_copy(log->region, (char *)log_lengths(log, b) + at, from, n));
}

int log_peek(struct log *log, const struct batch *b, uint32_t at, void *to, uint32_t n)
{
    int rc = 0;
    for (uint32_t done = 0; rc == 0 && done < n;) {
        uint32_t here;
        const void *from = log_span(log, b, at + done, &here);
        if (here > n - done)
            here = n - done;
        rc = guard_copy(log->region, (char *)to + done, from, here);
        done += here;
    }
    return told(log, rc);
}

int log_peek_lengths(struct log *log, const struct batch *b, uint32_t at, void *to, uint32_t n)
{
    return told(log, guard_copy(log->region, to, (const char *)log_lengths(log, b) + at, n));
}

struct lengths {
    const le32 *at;
    size_t size;
    uint32_t crc;
};

static int lengths_sum(void *arg)
{
    struct lengths *l = arg;
    l->crc = crc32c(0, l->at, l->size);
    return 0;
}

int log_lengths_crc(struct log *log, const struct batch *b, uint32_t *crc)
{
    struct lengths l = {.at = log_lengths(log, b), .size = (size_t)b->count * sizeof(le32)};
    int rc = guard_run(log->region, lengths_sum, &l);
    *crc = l.crc;
    return told(log, rc);
}
