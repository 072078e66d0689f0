/* How long a worker that found nothing to do looks again before it blocks (part of every step: who
 * sleeps is woken some ten microseconds late). Must never spin on an idle server, nor take time from
 * a thread that has something to do.
 *
 * A few looks are always worth it: the completion of what was just announced is about to come.
 * Beyond that it spins only while what came lately came soon enough, and while nobody took the
 * processor from this thread, which says that there are more threads than processors.
 */
#ifndef NET_SERVER_WAIT_H
#define NET_SERVER_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#define WAIT_LOOKS   12u    /* always */
#define WAIT_SPIN_NS 30000u /* at most, and only when the usual gap is shorter */

struct wait {
    unsigned looks;     /* since there was something to do */
    uint64_t since;     /* when there was nothing for the first time; 0: not yet looked */
    uint64_t gap;       /* usual time from there to the next, ns: moves by an eighth each time */
    uint64_t preempted; /* times that the processor was taken from this thread, when last looked */
    bool crowded;       /* it was, between the last two looks */
};

#define WAIT_NEW                                                                                   \
    {                                                                                              \
        .gap = WAIT_SPIN_NS                                                                        \
    }

/* Is the time needed for wait_round? */
static inline bool wait_wants_time(const struct wait *w, bool did)
{
    return did ? w->since != 0 : w->looks + 1 >= WAIT_LOOKS || w->since == 0;
}

/* May the thread block? To be told of every round: whether it did something, and the time when
 * wait_wants_time says so. `preempted` is asked once a gap at most. */
static inline bool wait_round(struct wait *w, bool did, uint64_t now, uint64_t (*preempted)(void))
{
    if (did) {
        if (w->since != 0) {
            uint64_t gap = now - w->since;
            if (gap > 4 * WAIT_SPIN_NS)
                gap = 4 * WAIT_SPIN_NS; /* one long pause is soon forgotten */
            w->gap = w->gap - w->gap / 8 + gap / 8;
        }
        w->since = 0;
        w->looks = 0;
        return false;
    }
    if (w->since == 0)
        w->since = now;
    if (++w->looks < WAIT_LOOKS)
        return false;
    if (w->gap >= WAIT_SPIN_NS || now - w->since >= WAIT_SPIN_NS)
        return true;
    if (w->looks == WAIT_LOOKS) {
        uint64_t times = preempted();
        w->crowded = times != w->preempted;
        w->preempted = times;
    }
    return w->crowded;
}

#endif
