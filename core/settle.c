/* Looking at a pool that another process serves, perhaps on another host (no step: dump and fsck).
 *
 * Whoever only looks pins nothing: the server may trim a topic and fill its place again while we read.
 * But what frees a place is a committed control action or move, durable before the first byte of what
 * comes next is stored. So who has copied bytes first and then finds neither behind what was recovered
 * has copied what was there. Must never trust a place instead of a copy.
 */
#include <errno.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/log_state.h"

/* The lines of entry `number` of all slots, and those behind them: the second half of a split batch. Fetched,
 * for recovery looks at those slots only that were ever served, and what a cache holds of the others may
 * be a former pool's. False: one is that of a later entry, so the ring went round. */
static bool lines_look(const struct log *log, uint64_t number, bool *taken, uint32_t *crc)
{
    *taken = false;
    *crc = 0;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++) {
        struct media_entry line, part;
        if (guard_fetch(log->region, &line, pool_entry(&log->pool, slot, number), sizeof line) !=
                0 ||
            guard_fetch(log->region, &part, pool_entry(&log->pool, slot, number + 1),
                        sizeof part) != 0 ||
            le64_get(line.number) > number)
            return false;
        *taken = *taken || le64_get(line.number) == number;
        *crc = crc32c(crc32c(*crc, &line, sizeof line), &part, sizeof part);
    }
    return true;
}

void settle_begin(struct log *log, uint64_t number, uint32_t chain, uint32_t term)
{
    bool taken;
    log->seen = (struct seen){.number = number, .chain = chain, .term = term};
    log->seen.is_new = lines_look(log, number + 1, &taken, &log->seen.behind);
}

/* Nothing stands behind what was followed, or what stood there when the log was opened: half an entry, or
 * half a batch, left by a crash. Half of one since is being written, perhaps over what we rely on. */
static bool at_end(const struct log *log)
{
    const struct seen *s = &log->seen;
    bool taken;
    uint32_t now;
    return lines_look(log, s->number + 1, &taken, &now) &&
           (!taken || (s->is_new && now == s->behind));
}

/* What is committed behind the entry that was followed last, with both halves of a batch. */
static bool next_whole(const struct log *log, const struct slots *slots, struct entry *e,
                       uint32_t *chain)
{
    const struct seen *s = &log->seen;
    uint32_t half;
    if (!recover_next(log, slots, s->term, s->number + 1, s->chain, e, chain))
        return false;
    if (!(e->flags & MEDIA_F_SPLIT))
        return true;
    half = *chain;
    return recover_next(log, slots, e->term, e->number + 1, half, e, chain);
}

int log_settled(struct log *log)
{
    struct seen *s = &log->seen;
    struct slots slots = {.count = 0};
    struct entry e;
    uint32_t next = 0;
    int rc = 0;
    if (!log->readonly)
        return 0;
    while (slots.count < log->pool.geo.slots) {
        slots.slot[slots.count] = slots.count;
        slots.count++;
    }
    pthread_mutex_lock(&log->control->lock);
    while (rc == 0 && next_whole(log, &slots, &e, &next)) {
        if (e.kind == MEDIA_CONTROL || e.kind == MEDIA_MOVE)
            rc = -ESTALE;
        else
            *s = (struct seen){.number = e.number, .chain = next, .term = e.term};
    }
    if (rc == 0 && !at_end(log))
        rc = -ESTALE;
    pthread_mutex_unlock(&log->control->lock);
    return rc;
}
