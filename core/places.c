/* The order of all who wait for pool space (step 3), through the network and through the mount.
 *
 * Each who hands space on to some that wait has a line of them: a worker of the network, the mount. Whoever
 * begins to wait gets a place, one after the other whatever the line, and keeps it until it has its space
 * or gives up. A line tells what its first needs (those whom it called together with it) and since when
 * they wait; who looks for space leaves to the other lines what those before it need, and a newcomer
 * leaves it to all. Batches behind pass when there is room for both, and those that fit what their topic
 * fills already, which is nobody else's. So whoever is first of all gets what comes free until it is enough, and
 * nobody waits for ever because others need less, or come by another way.
 *
 * What lines tell may be some instructions old: then two look for the same, and one of them waits on.
 *
 * When who is before others gets in or leaves, all lines where somebody waits are told (log_space_tell).
 * Otherwise the log tells, since who looked and found nothing said that it waits (log_reserve,
 * log_space_room). A line is said by one thread at a time. Must never wait.
 */
#include "core/log_state.h"

void places_init(struct log *log)
{
    for (unsigned i = 0; i < SPACE_LINES; i++)
        atomic_init(&log->lines.line[i].since, SPACE_NOBODY);
}

struct space_line *log_space_line(struct log *log, struct watcher *w)
{
    struct space_lines *s = &log->lines;
    struct space_line *l = NULL;
    pthread_mutex_lock(&log->space.lock);
    for (unsigned i = 0; i < SPACE_LINES && !l; i++)
        if (!s->line[i].watcher) {
            l = &s->line[i];
            l->watcher = w;
            /* Release: whoever sees the line sees that nobody waits there; pairs with owed_by. */
            if (i >= atomic_load_explicit(&s->used, memory_order_relaxed))
                atomic_store_explicit(&s->used, i + 1, memory_order_release);
        }
    pthread_mutex_unlock(&log->space.lock);
    if (l)
        log_space_watch(log, w);
    return l;
}

void log_space_line_end(struct log *log, struct space_line *l)
{
    struct watcher *w = l->watcher;
    log_space_say(log, l, SPACE_NOBODY, 0);
    log_space_unwatch(log, w);
    pthread_mutex_lock(&log->space.lock);
    l->watcher = NULL;
    pthread_mutex_unlock(&log->space.lock);
}

uint64_t log_space_place(struct log *log)
{
    return 1 + atomic_fetch_add_explicit(&log->lines.places, 1, memory_order_relaxed);
}

void log_space_say(struct log *log, struct space_line *l, uint64_t since, uint64_t owed)
{
    bool was = atomic_load_explicit(&l->since, memory_order_relaxed) != SPACE_NOBODY;
    /* Relaxed: a hint, see above. */
    atomic_store_explicit(&l->owed, owed, memory_order_relaxed);
    /* seq_cst: who begins to wait says so and looks at the others', who leaves says so and looks for those
     * that wait (log_space_tell): one of the two sees the other. */
    atomic_store_explicit(&l->since, since, memory_order_seq_cst);
    if (was && since == SPACE_NOBODY)
        atomic_fetch_sub_explicit(&log->lines.waiting, 1, memory_order_relaxed);
    if (!was && since != SPACE_NOBODY)
        atomic_fetch_add_explicit(&log->lines.waiting, 1, memory_order_relaxed);
}

bool log_space_quiet(const struct log *log)
{
    return atomic_load_explicit(&log->lines.waiting, memory_order_relaxed) == 0;
}

uint64_t log_space_said(const struct space_line *l, uint64_t place)
{
    bool before = atomic_load_explicit(&l->since, memory_order_seq_cst) < place;
    return before ? atomic_load_explicit(&l->owed, memory_order_relaxed) : 0;
}

uint64_t log_space_owed(const struct log *log, const struct space_line *mine, uint64_t place)
{
    const struct space_lines *s = &log->lines;
    unsigned used = atomic_load_explicit(&s->used, memory_order_acquire);
    uint64_t sum = 0;
    for (unsigned i = 0; i < used; i++)
        if (&s->line[i] != mine)
            sum += log_space_said(&s->line[i], place);
    return sum;
}

void log_space_tell(struct log *log)
{
    struct space_lines *s = &log->lines;
    if (log_space_quiet(log))
        return;
    pthread_mutex_lock(&log->space.lock);
    for (unsigned i = 0; i < SPACE_LINES; i++) {
        struct watcher *w = s->line[i].watcher;
        if (w && atomic_load_explicit(&s->line[i].since, memory_order_seq_cst) != SPACE_NOBODY)
            w->fire(w);
    }
    pthread_mutex_unlock(&log->space.lock);
}

int log_reserve_behind(struct log *log, struct batch *b, uint64_t owed, bool *behind)
{
    *behind =
        owed > 0 && log_space_room(log) < owed + log_space_need(log, b->length, b->count, b->equal);
    return *behind ? log_reserve_there(log, b, owed) : log_reserve(log, b);
}
