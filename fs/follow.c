/* .embar/follow: a topic as a stream (step 9). A read at the end is parked until a commit moves the
 * end; the watcher only pushes a task. One read a handle is parked: the kernel lets a file's
 * readers in one by one.
 *
 * An answer lets the reader ask again before it is known here whether he got the bytes or was refused
 * them, for want of memory. So a read that comes before that is parked, too: it begins where the bytes
 * end that were read. Must never block a handler.
 */
#include <errno.h>

#include "fs/fs.h"

/* Anything to say to a reader: data, a trim that overtook it, or the end for good. h->lock held. */
static bool has_news(const struct handle *h)
{
    return topic_end(h->topic) > h->position || topic_base(h->topic) > h->position ||
           topic_deleted(h->topic);
}

/* Called by libfuse with the request's lock held: nothing may be answered here. */
static void follow_interrupt(fuse_req_t req, void *data)
{
    (void)req;
    struct handle *h = data;
    pthread_mutex_lock(&h->lock);
    h->interrupted = true;
    pthread_mutex_unlock(&h->lock);
    tasks_push(&h->fs->replies, &h->data_task);
}

/* Answer with what is behind the position. `answering` was set, under the lock that position was read
 * under. The caller has a reference. */
static void follow_answer(struct handle *h, fuse_req_t req, uint64_t position, size_t size)
{
    reply_bytes(h, req, position, size);
    pthread_mutex_lock(&h->lock);
    h->answering = false;
    if (h->parked && !h->closing)
        tasks_push(&h->fs->replies, &h->data_task);
    pthread_mutex_unlock(&h->lock);
}

static void follow_park(struct handle *h, fuse_req_t req, size_t size, bool nonblock)
{
    /* Before the request can be answered by others: they take this back first. */
    fuse_req_interrupt_func(req, follow_interrupt, h);
    pthread_mutex_lock(&h->lock);
    h->parked = req;
    h->parked_size = size;
    h->parked_nonblock = nonblock;
    handle_watch(h);
    /* Acquire and release: pairs with is_wanted in handle_fire. */
    (void)atomic_exchange_explicit(&h->want_data, true, memory_order_acq_rel);
    bool again = h->interrupted || h->closing || nonblock || has_news(h);
    pthread_mutex_unlock(&h->lock);
    if (again)
        tasks_push(&h->fs->replies, &h->data_task);
}

void follow_read(struct handle *h, fuse_req_t req, size_t size, bool nonblock)
{
    pthread_mutex_lock(&h->lock);
    bool busy = h->parked != NULL;
    bool early = h->answering;
    bool news = has_news(h);
    uint64_t position = h->position;
    if (!busy)
        h->interrupted = false;
    if (!busy && !early)
        h->answering = news;
    pthread_mutex_unlock(&h->lock);
    if (busy)
        fuse_reply_err(req, EBUSY);
    else if (early)
        follow_park(h, req, size, nonblock);
    else if (news)
        follow_answer(h, req, position, size);
    else if (nonblock)
        fuse_reply_err(req, EAGAIN);
    else
        follow_park(h, req, size, false);
}

void follow_data(struct task *task)
{
    struct handle *h = (struct handle *)((char *)task - offsetof(struct handle, data_task));
    pthread_mutex_lock(&h->lock);
    fuse_req_t req = h->parked;
    bool interrupted = h->interrupted;
    bool news = !h->answering && has_news(h);
    bool empty = !h->answering && !news && h->parked_nonblock;
    bool go = req && (interrupted || news || empty);
    if (go) {
        h->parked = NULL;
        h->answering = h->answering || (news && !interrupted);
        (void)atomic_exchange_explicit(&h->want_data, false, memory_order_acq_rel);
    }
    size_t size = h->parked_size;
    uint64_t position = h->position;
    pthread_mutex_unlock(&h->lock);
    if (!go)
        return;
    fuse_req_interrupt_func(req, NULL, NULL); /* waits for one that is being delivered */
    if (interrupted)
        fuse_reply_err(req, EINTR);
    else if (empty)
        fuse_reply_err(req, EAGAIN);
    else
        follow_answer(h, req, position, size);
}

void follow_poll(struct task *task)
{
    struct handle *h = (struct handle *)((char *)task - offsetof(struct handle, poll_task));
    pthread_mutex_lock(&h->lock);
    struct fuse_pollhandle *poll = h->poll;
    h->poll = NULL;
    (void)atomic_exchange_explicit(&h->want_poll, false, memory_order_acq_rel);
    pthread_mutex_unlock(&h->lock);
    if (!poll)
        return;
    fuse_lowlevel_notify_poll(poll);
    fuse_pollhandle_destroy(poll);
    count_add(&h->fs->count.notifications, 1);
}

void follow_end(struct handle *h)
{
    pthread_mutex_lock(&h->lock);
    fuse_req_t req = h->parked;
    h->parked = NULL;
    pthread_mutex_unlock(&h->lock);
    if (!req)
        return;
    fuse_req_interrupt_func(req, NULL, NULL);
    fuse_reply_err(req, ENOTCONN);
}
