/* Extents that topics fill and that hold nothing (step 3): given up when space is short.
 *
 * Design notes
 *   Who       A topic is noted when what it fills came to hold nothing but for who still reads or
 *             receives there: a reservation was given back, or all that was committed there was trimmed
 *             while somebody read it. So who looks for what to give up looks at these alone, however
 *             many topics there are. One that still is held stays noted until it is given up or
 *             holds something.
 *   Lock      It guards the list and who is on it. A leaf: who looks takes a topic off, with a
 *             reference, before he looks at it. A topic whose last reference is gone takes itself off.
 *
 * Must never give up what holds a byte, nor wait.
 */
#include "core/log_state.h"

#define PART 1024u /* that are looked at before others get the role */

void idle_init(struct idle *l)
{
    pthread_mutex_init(&l->lock, NULL);
    TAILQ_INIT(&l->topics);
    l->count = 0;
}

void idle_note(struct topic *t)
{
    struct idle *l = &t->log->idle;
    pthread_mutex_lock(&l->lock);
    if (!t->idle) {
        t->idle = true;
        TAILQ_INSERT_TAIL(&l->topics, t, idle_link);
        l->count++;
    }
    pthread_mutex_unlock(&l->lock);
}

/* Lock held. */
static void take_off(struct idle *l, struct topic *t)
{
    t->idle = false;
    TAILQ_REMOVE(&l->topics, t, idle_link);
    l->count--;
}

void idle_forget(struct topic *t)
{
    struct idle *l = &t->log->idle;
    pthread_mutex_lock(&l->lock);
    if (t->idle)
        take_off(l, t);
    pthread_mutex_unlock(&l->lock);
}

/* The first, with a reference; NULL when there is none, or its last reference is gone. */
static struct topic *idle_take(struct idle *l)
{
    pthread_mutex_lock(&l->lock);
    struct topic *t = TAILQ_FIRST(&l->topics);
    if (t)
        take_off(l, t);
    if (t && !topic_ref_held(t))
        t = NULL;
    pthread_mutex_unlock(&l->lock);
    return t;
}

/* Nothing is committed in what it fills. Role held: nobody adds runs, nor takes any away. */
static bool is_bare(struct topic *t)
{
    pthread_mutex_lock(&t->fill_lock);
    const struct extent *e = t->fill;
    const struct run *last = t->run_count > 0 ? topic_run(t, t->run_count - 1) : NULL;
    bool bare = e && (!last || last->payload < e->base || last->payload >= e->base + e->size);
    pthread_mutex_unlock(&t->fill_lock);
    return bare;
}

void idle_give_up(struct topic *t)
{
    reserve_idle(t);
    if (is_bare(t))
        idle_note(t);
}

bool idle_squeeze(struct log *log)
{
    struct idle *l = &log->idle;
    if (l->left == 0) { /* a new pass: over those that are noted by now */
        pthread_mutex_lock(&l->lock);
        l->left = l->count;
        pthread_mutex_unlock(&l->lock);
    }
    for (unsigned n = 0; n < PART && l->left > 0; n++, l->left--) {
        struct topic *t = idle_take(l);
        if (!t)
            continue;
        idle_give_up(t);
        topic_put(t);
    }
    return l->left > 0;
}
