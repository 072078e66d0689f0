/* Bounds on what all connections have together (connections, channels, unread TEXT), of which a principal
 * never has the last eighth: whatever one of them does, others come in. Serves no step of a batch.
 * Must never count above a bound, not for a moment: somebody else would be refused for it.
 */
#include "net/server/internal.h"

/* Relaxed: bounds, they order nothing. */
static bool charge(atomic_uint *c, uint32_t n, uint32_t most)
{
    unsigned was = atomic_load_explicit(c, memory_order_relaxed);
    while (n <= most && was <= most - n)
        if (atomic_compare_exchange_weak_explicit(c, &was, was + n, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void discharge(atomic_uint *c, uint32_t n)
{
    atomic_fetch_sub_explicit(c, n, memory_order_relaxed);
}

enum share share_take(atomic_uint *all, atomic_uint *own, uint32_t n, uint32_t most)
{
    if (!charge(own, n, most - most / 8))
        return SHARE_OWN;
    if (charge(all, n, most))
        return SHARE_TAKEN;
    discharge(own, n);
    return SHARE_ALL;
}

bool share_move(atomic_uint *from, atomic_uint *to, uint32_t n, uint32_t most)
{
    if (!charge(to, n, most - most / 8))
        return false;
    discharge(from, n);
    return true;
}

void share_give(atomic_uint *all, atomic_uint *own, uint32_t n)
{
    discharge(all, n);
    discharge(own, n);
}
