/* Looking at a pool that another process serves, perhaps on another host (no step: dump and fsck).
 *
 * Whoever only looks pins nothing: the server may trim a topic and fill its place again while we read.
 * But what frees a place is a committed control action, durable before the first byte of what comes next
 * is stored. So who has copied bytes first and then finds no control action behind what was recovered
 * has copied what was there. Must never trust a place instead of a copy.
 */
#include <errno.h>

#include "core/crc.h"
#include "core/guard.h"
#include "core/log_state.h"

/* The lines of entry `number`, as recover_next has just fetched them. False: one is that of a later entry,
 * so the ring went round. */
static bool lines_look(const struct log *log, uint64_t number, bool *taken, uint32_t *crc)
{
    *taken = false;
    *crc = 0;
    for (unsigned slot = 0; slot < log->pool.geo.slots; slot++) {
        struct media_entry line;
        if (guard_copy(log->region, &line, pool_entry(&log->pool, slot, number), sizeof line) !=
                0 ||
            le64_get(line.number) > number)
            return false;
        *taken = *taken || le64_get(line.number) == number;
        *crc = crc32c(*crc, &line, sizeof line);
    }
    return true;
}

void settle_begin(struct log *log, uint64_t number, uint32_t chain, uint32_t term)
{
    bool taken;
    log->seen = (struct seen){.number = number, .chain = chain, .term = term};
    log->seen.is_new = lines_look(log, number + 1, &taken, &log->seen.behind);
}

/* Nothing stands behind what was followed, or what stood there when the log was opened: half an entry, left by
 * a crash. Half of one since is being written, perhaps over what we rely on. */
static bool at_end(const struct log *log)
{
    const struct seen *s = &log->seen;
    bool taken;
    uint32_t now;
    return lines_look(log, s->number + 1, &taken, &now) &&
           (!taken || (s->is_new && now == s->behind));
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
    while (rc == 0 && recover_next(log, &slots, s->term, s->number + 1, s->chain, &e, &next)) {
        if (e.kind == MEDIA_CONTROL)
            rc = -ESTALE;
        else
            *s = (struct seen){.number = e.number, .chain = next, .term = e.term};
    }
    if (rc == 0 && !at_end(log))
        rc = -ESTALE;
    pthread_mutex_unlock(&log->control->lock);
    return rc;
}
