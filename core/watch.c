/* Watch lists: who wants to hear of a change (step 9).
 *
 * The count is read without the lock on the commit path. A watcher registers (count up, seq_cst)
 * and then looks at what it watches; the commit path changes that (seq_cst) and then reads the
 * count: one of the two sees the other.
 */
#include "core/log_state.h"

void watch_init(struct watch_list *l)
{
    pthread_mutex_init(&l->lock, NULL);
    l->first = NULL;
    atomic_init(&l->count, 0);
}

void watch_add(struct watch_list *l, struct watcher *w)
{
    pthread_mutex_lock(&l->lock);
    w->next = l->first;
    w->link = &l->first;
    if (w->next)
        w->next->link = &w->next;
    l->first = w;
    atomic_fetch_add_explicit(&l->count, 1, memory_order_seq_cst);
    pthread_mutex_unlock(&l->lock);
}

void watch_remove(struct watch_list *l, struct watcher *w)
{
    pthread_mutex_lock(&l->lock);
    if (w->link) {
        *w->link = w->next;
        if (w->next)
            w->next->link = w->link;
        w->link = NULL;
        atomic_fetch_sub_explicit(&l->count, 1, memory_order_seq_cst);
    }
    pthread_mutex_unlock(&l->lock);
}

void watch_fire(struct watch_list *l)
{
    if (atomic_load_explicit(&l->count, memory_order_seq_cst) == 0)
        return;
    pthread_mutex_lock(&l->lock);
    for (struct watcher *w = l->first; w; w = w->next)
        w->fire(w);
    pthread_mutex_unlock(&l->lock);
}

void topic_watch(struct topic *t, struct watcher *w)
{
    watch_add(&t->watch, w);
}

void topic_unwatch(struct topic *t, struct watcher *w)
{
    watch_remove(&t->watch, w);
}

void log_names_watch(struct log *log, struct watcher *w)
{
    watch_add(&log->names.watch, w);
}

void log_names_unwatch(struct log *log, struct watcher *w)
{
    watch_remove(&log->names.watch, w);
}

void log_space_watch(struct log *log, struct watcher *w)
{
    watch_add(&log->space, w);
}

void log_space_unwatch(struct log *log, struct watcher *w)
{
    watch_remove(&log->space, w);
}
