/* Who wants to hear of a change: see watch.c. Run-time state, never on the media.
 */
#ifndef CORE_WATCH_H
#define CORE_WATCH_H

#include <pthread.h>
#include <stdatomic.h>

struct watcher;

struct watch_list {
    pthread_mutex_t lock; /* guards the list */
    struct watcher *first;
    atomic_uint
        count; /* seq_cst with what is watched: register-then-look against change-then-look */
};

void watch_init(struct watch_list *l);
void watch_add(struct watch_list *l, struct watcher *w);
void watch_remove(struct watch_list *l, struct watcher *w);
void watch_fire(struct watch_list *l);

#endif
