/* Mail: how other threads reach a worker (step 9: completions come from whoever ran the epoch).
 *
 * A Treiber stack: pushed by anyone, emptied by the owner with one exchange (so there is no ABA),
 * turned around to be delivered oldest first.
 *
 * Sleeping. The worker stores asleep, then looks at head, then blocks; a pusher swaps head, then
 * looks at asleep. All four are seq_cst, so at least one of the two sees the other: either the
 * worker finds the mail or the pusher writes the eventfd. Fences are not used: the thread sanitizer
 * does not know them.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net/server/internal.h"

int mailbox_init(struct mailbox *b)
{
    atomic_init(&b->head, NULL);
    atomic_init(&b->asleep, false);
    b->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return b->wake_fd < 0 ? -errno : 0;
}

void mailbox_destroy(struct mailbox *b)
{
    if (b->wake_fd >= 0)
        close(b->wake_fd);
    b->wake_fd = -1;
}

void mail_push(struct mailbox *b, struct mail *m)
{
    struct mail *head = atomic_load_explicit(&b->head, memory_order_relaxed);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak_explicit(&b->head, &head, m, memory_order_seq_cst,
                                                  memory_order_relaxed));
    if (atomic_load_explicit(&b->asleep, memory_order_seq_cst) &&
        atomic_exchange_explicit(&b->asleep, false, memory_order_seq_cst)) {
        uint64_t one = 1;
        /* It can only fail when the counter is full, and then the worker is woken already. */
        ssize_t n = write(b->wake_fd, &one, sizeof(one));
        (void)n;
    }
}

unsigned mail_drain(struct worker *w)
{
    if (!atomic_load_explicit(&w->box.head, memory_order_relaxed))
        return 0;
    /* Acquires what each pusher wrote before its swap. */
    struct mail *m = atomic_exchange_explicit(&w->box.head, NULL, memory_order_seq_cst);
    struct mail *first = NULL;
    while (m) {
        struct mail *next = m->next;
        m->next = first;
        first = m;
        m = next;
    }
    unsigned n = 0;
    while (first) {
        struct mail *next = first->next; /* before delivery: it may be pushed again or freed */
        first->deliver(w, first);
        first = next;
        n++;
    }
    return n;
}

bool mail_sleep(struct mailbox *b)
{
    atomic_store_explicit(&b->asleep, true, memory_order_seq_cst);
    if (!atomic_load_explicit(&b->head, memory_order_seq_cst))
        return true;
    mail_awake(b);
    return false;
}

void mail_awake(struct mailbox *b)
{
    atomic_store_explicit(&b->asleep, false, memory_order_seq_cst);
}
