/* Open files: what one open(2) of a topic, a stream or a text holds until its last close.
 *
 * A handle is referenced by the kernel's open file and by each job under way. The last reference
 * may go in a completion, so the rest is cleaned away by the replies thread: dropping a topic
 * takes the log's locks. Must never touch its node once RELEASE was answered.
 */
#include <stdlib.h>

#include "fs/fs.h"

static void handle_reap(struct task *task)
{
    struct handle *h = (struct handle *)((char *)task - offsetof(struct handle, reap));
    struct fs *fs = h->fs;
    pthread_mutex_lock(&fs->handles_lock);
    *h->link = h->next;
    if (h->next)
        h->next->link = h->link;
    pthread_mutex_unlock(&fs->handles_lock);
    count_sub(&fs->count.open_files, 1);
    count_sub(&fs->count.held_bytes, h->line.capacity);
    if (h->topic) {
        /* What is parked for a removed topic may be nobody's now. */
        if (topic_deleted(h->topic) &&
            atomic_load_explicit(&fs->count.parked_now, memory_order_relaxed) > 0)
            park_retry(&fs->park);
        topic_put(h->topic);
    }
    pthread_mutex_destroy(&h->lock);
    free(h->line.text);
    free(h->text);
    free(h);
}

/* A write of the flag even where it is off: who turns it on later (acq_rel, too) synchronizes with
 * it and sees the end that was moved before. So one of the two always sees the other. */
static bool is_wanted(atomic_bool *flag)
{
    bool wanted = false;
    atomic_compare_exchange_strong_explicit(flag, &wanted, false, memory_order_acq_rel,
                                            memory_order_acquire);
    return wanted;
}

/* Runs under the topic's watch lock, in the thread that commits. */
static void handle_fire(struct watcher *w)
{
    struct handle *h = (struct handle *)((char *)w - offsetof(struct handle, watcher));
    if (is_wanted(&h->want_data))
        tasks_push(&h->fs->replies, &h->data_task);
    if (is_wanted(&h->want_poll))
        tasks_push(&h->fs->notify, &h->poll_task);
}

struct handle *handle_new(struct fs *fs, struct node *node, struct topic *topic, bool writes)
{
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->fs = fs;
    h->kind = node->kind;
    h->node = node;
    h->topic = topic;
    h->base = node->base;
    h->writable = writes;
    atomic_init(&h->refs, 1);
    pthread_mutex_init(&h->lock, NULL);
    h->waiting_tail = &h->waiting;
    h->reap.run = handle_reap;
    h->watcher.fire = handle_fire;
    h->data_task.run = follow_data;
    h->poll_task.run = follow_poll;
    pthread_mutex_lock(&fs->handles_lock);
    h->next = fs->handles;
    h->link = &fs->handles;
    if (h->next)
        h->next->link = &h->next;
    fs->handles = h;
    pthread_mutex_unlock(&fs->handles_lock);
    count_add(&fs->count.open_files, 1);
    node_opened(&fs->nodes, node, writes);
    return h;
}

void handle_ref(struct handle *h)
{
    atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
}

void handle_put(struct handle *h)
{
    /* Release pairs with acquire: the last one sees what the others did. */
    if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) == 1)
        tasks_push(&h->fs->replies, &h->reap);
}

void handle_watch(struct handle *h)
{
    if (h->watching || !h->topic)
        return;
    topic_watch(h->topic, &h->watcher);
    h->watching = true;
}

void handle_unwatch(struct handle *h)
{
    pthread_mutex_lock(&h->lock);
    bool watching = h->watching;
    h->watching = false;
    h->closing = true;
    pthread_mutex_unlock(&h->lock);
    if (watching)
        topic_unwatch(h->topic, &h->watcher);
    follow_end(h);
    tasks_cancel(&h->fs->replies, &h->data_task);
    tasks_cancel(&h->fs->notify, &h->poll_task);
    pthread_mutex_lock(&h->lock);
    struct fuse_pollhandle *poll = h->poll;
    h->poll = NULL;
    pthread_mutex_unlock(&h->lock);
    if (poll)
        fuse_pollhandle_destroy(poll);
}

void handle_close(struct handle *h)
{
    handle_unwatch(h);
    locks_release(h);
    if (h->writable)
        publish_start(h, JOB_CLOSE, NULL, NULL, 0);
    node_closed(&h->fs->nodes, h->node, h->writable);
    handle_put(h);
}

void handles_close_all(struct fs *fs)
{
    /* The session has ended: nobody opens or closes, and reaping takes the same lock. */
    for (;;) {
        pthread_mutex_lock(&fs->handles_lock);
        struct handle *h = fs->handles;
        while (h && h->closing)
            h = h->next;
        pthread_mutex_unlock(&fs->handles_lock);
        if (!h)
            return;
        handle_close(h);
    }
}
