/* Locks of open files: flock(2), and fcntl(2)'s of both kinds (beside the nine steps).
 *
 * The kernel would keep them with its inode, and a trim gives a topic another one while the old is
 * open: two programs could hold the same lock. So they are kept here, by what stat shows as the inode
 * number, which all nodes of an open topic share. Locks are for those who ask for them: they
 * never stop a read or a write.
 *
 * Design notes
 *   Owner     As the kernel says: the open file for flock and for fcntl's F_OFD_..., the process for
 *             fcntl's older ones. A lock ends when it is given up or when its open file is closed for
 *             the last time, by whoever inherited it too. A close of another descriptor ends a
 *             process's lock only where the kernel sends FLUSH; we ask it not to (ops_write.c), as
 *             it would have to wait for the inode's lock, which a parked write holds.
 *   Waiting   A request that waits is on a list; whoever lets a lock go grants what is possible,
 *             oldest first. No thread waits.
 *   Not       RELEASE tells of a close that has returned already. So who does not want to wait is
 *   waiting   refused after a moment only, and when all that had come before he asked is done: what was
 *             closed by then is let go.
 *   Answers   Who takes a request off the list answers it, once, with no lock held. An interrupt
 *             only marks it: the replies thread takes it off.
 *
 * Must never be entered with a handle's lock held.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "fs/fs.h"

#define LOCKS_MAX 65536u /* of all files together */
#define MOMENT_NS 10000000u
#define AGAIN_NS  1000000u
#define LATEST_NS 2000000000u /* after the moment: without memory a close may take for ever */
#define CYCLE_MAX 64u         /* as far as a circle of waiting processes is looked for */

struct lock {
    uint64_t ino, owner, start, end; /* [start, end] */
    struct handle *handle;           /* it was taken through */
    pid_t pid;
    bool whole; /* flock's: they do not see fcntl's, and the other way round */
    short type; /* F_RDLCK, F_WRLCK; F_UNLCK: give up */
    struct lock *next;
};

struct lock_wait {
    struct lock want;
    fuse_req_t req;
    uint64_t deadline; /* CLOCK_MONOTONIC ns, or NEVER */
    struct session_moment asked;
    atomic_bool interrupted; /* set in any thread; read under the lock after the task was pushed */
    int status;              /* once it is off the list */
    struct lock_wait *next;
};

static struct lock **bucket(struct locks *l, uint64_t ino)
{
    return &l->held[(ino * 0x9e3779b97f4a7c15u) >> 56 & (LOCK_BUCKETS - 1)];
}

static bool is_same(const struct lock *a, const struct lock *b)
{
    return a->ino == b->ino && a->whole == b->whole;
}

static bool overlap(const struct lock *a, const struct lock *b)
{
    return is_same(a, b) && a->start <= b->end && b->start <= a->end;
}

/* What is in the way of `want`, or NULL. */
static struct lock *in_the_way(struct locks *l, const struct lock *want)
{
    struct lock *at = want->type == F_UNLCK ? NULL : *bucket(l, want->ino);
    while (at && (at->owner == want->owner || !overlap(at, want) ||
                  (at->type == F_RDLCK && want->type == F_RDLCK)))
        at = at->next;
    return at;
}

static void drop(struct locks *l, struct lock **at)
{
    struct lock *gone = *at;
    *at = gone->next;
    count_sub(&l->count, 1);
    free(gone);
}

/* Cut [want->start, want->end] out of what its owner holds; `spare` serves where one becomes two. */
static void cut(struct locks *l, const struct lock *want, struct lock **spare)
{
    for (struct lock **at = bucket(l, want->ino), *have; (have = *at);) {
        if (have->owner != want->owner || !overlap(have, want)) {
            at = &have->next;
            continue;
        }
        bool left = have->start<want->start, right = have->end> want->end;
        if (left && right) {
            struct lock *rest = *spare;
            *spare = NULL;
            *rest = *have;
            rest->start = want->end + 1;
            have->end = want->start - 1;
            have->next = rest;
            count_add(&l->count, 1);
            return; /* there is no other: an owner's do not overlap */
        }
        if (left)
            have->end = want->start - 1;
        else if (right)
            have->start = want->end + 1;
        if (left || right)
            at = &have->next;
        else
            drop(l, at);
    }
}

/* Nothing is in the way: let the owner have it. 0 or -ENOLCK, and then nothing was changed. */
static int take(struct locks *l, const struct lock *want)
{
    struct lock *spare = malloc(sizeof *spare), *mine = malloc(sizeof *mine);
    bool room = want->type == F_UNLCK ||
                atomic_load_explicit(&l->count, memory_order_relaxed) + 2 <= LOCKS_MAX;
    int rc = spare && mine && room ? 0 : -ENOLCK;
    if (rc == 0)
        cut(l, want, &spare);
    if (rc == 0 && want->type != F_UNLCK) {
        struct lock **first = bucket(l, want->ino);
        *mine = *want;
        mine->next = *first;
        *first = mine;
        mine = NULL;
        count_add(&l->count, 1);
    }
    free(spare);
    free(mine);
    return rc;
}

static struct lock_wait *off(struct locks *l, struct lock_wait **at, int status)
{
    struct lock_wait *w = *at;
    *at = w->next;
    if (l->waits_tail == &w->next)
        l->waits_tail = at;
    w->status = status;
    w->next = NULL;
    count_sub(&l->waiting, 1);
    return w;
}

/* Something was let go: grant what waited for it. They are added to `answers`. */
static void grant(struct locks *l, uint64_t ino, struct lock_wait **answers)
{
    while (*answers)
        answers = &(*answers)->next;
    for (struct lock_wait **at = &l->waits; *at;) {
        struct lock_wait *w = *at;
        if (w->want.ino != ino || in_the_way(l, &w->want)) {
            at = &w->next;
            continue;
        }
        *answers = off(l, at, take(l, &w->want));
        answers = &w->next;
    }
}

static void answer(struct lock_wait *w)
{
    for (struct lock_wait *next; w; w = next) {
        next = w->next;
        fuse_req_interrupt_func(w->req, NULL, NULL); /* waits for one that is being delivered */
        fuse_reply_err(w->req, -w->status);
        free(w);
    }
}

/* Called by libfuse with the request's lock held. */
static void interrupt(fuse_req_t req, void *data)
{
    struct fs *fs = fuse_req_userdata(req);
    struct lock_wait *w = data;
    atomic_store_explicit(&w->interrupted, true, memory_order_relaxed);
    tasks_push(&fs->replies, &fs->locks.wake);
}

/* The tick that follows does the work. */
static void locks_wake(struct task *task)
{
    (void)task;
}

uint64_t locks_tick(struct locks *l, uint64_t now)
{
    struct lock_wait *answers = NULL;
    uint64_t due = NEVER;
    pthread_mutex_lock(&l->lock);
    for (struct lock_wait **at = &l->waits, *w; (w = *at);) {
        bool interrupted = atomic_load_explicit(&w->interrupted, memory_order_relaxed);
        uint64_t next = w->deadline;
        if (now >= next && now - next < LATEST_NS && !session_past(&w->asked))
            next = now + AGAIN_NS;
        if (!interrupted && now < next) {
            due = next < due ? next : due;
            at = &w->next;
            continue;
        }
        w = off(l, at, interrupted ? -EINTR : -EAGAIN);
        w->next = answers;
        answers = w;
    }
    pthread_mutex_unlock(&l->lock);
    answer(answers);
    return due;
}

/* Would the owner wait for itself, by way of others that wait? */
static bool is_circle(struct locks *l, const struct lock *want)
{
    const struct lock *before = in_the_way(l, want);
    for (unsigned i = 0; before && i < CYCLE_MAX; i++) {
        const struct lock_wait *w = l->waits;
        while (w && (w->want.whole || w->want.owner != before->owner || w->deadline != NEVER))
            w = w->next;
        before = w ? in_the_way(l, &w->want) : NULL;
        if (before && before->owner == want->owner)
            return true;
    }
    return false;
}

/* Put the request on the list: 0, or why not. */
static int wait_for(struct locks *l, fuse_req_t req, const struct lock *want, uint64_t deadline)
{
    if (deadline == NEVER && !want->whole && is_circle(l, want))
        return -EDEADLK;
    struct lock_wait *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOLCK;
    w->want = *want;
    w->req = req;
    w->deadline = deadline;
    session_now(&w->asked);
    /* An interrupt that came already is told from inside this call; its task needs our lock. */
    fuse_req_interrupt_func(req, interrupt, w);
    *l->waits_tail = w;
    l->waits_tail = &w->next;
    count_add(&l->waiting, 1);
    return 0;
}

static void set(struct handle *h, fuse_req_t req, const struct lock *want, bool waits)
{
    struct locks *l = &h->fs->locks;
    struct lock_wait *answers = NULL;
    uint64_t deadline = waits ? NEVER : now_ns() + MOMENT_NS;
    bool waiting = false;
    int rc;
    pthread_mutex_lock(&l->lock);
    if (in_the_way(l, want)) {
        if (want->whole) { /* what is converted is lost first, as flock(2) says */
            struct lock less = *want, *unused = NULL;
            less.type = F_UNLCK;
            cut(l, &less, &unused);
        }
        rc = wait_for(l, req, want, deadline);
        waiting = rc == 0;
    } else {
        rc = take(l, want);
    }
    grant(l, want->ino, &answers);
    pthread_mutex_unlock(&l->lock);
    if (!waiting)
        fuse_reply_err(req, -rc);
    else if (!waits)
        tasks_push(&h->fs->replies, &l->wake);
    answer(answers);
}

static struct lock lock_of(struct handle *h, const struct fuse_file_info *fi)
{
    return (struct lock){
        .ino = h->node->ino, .owner = fi->lock_owner, .handle = h, .end = UINT64_MAX};
}

static struct lock range_of(const struct fuse_file_info *fi, const struct flock *range)
{
    struct lock want = lock_of(handle_of(fi), fi);
    want.type = range->l_type;
    want.pid = range->l_pid;
    want.start = (uint64_t)range->l_start;
    if (range->l_len != 0)
        want.end = want.start + (uint64_t)range->l_len - 1;
    return want;
}

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range)
{
    (void)ino;
    struct locks *l = &handle_of(fi)->fs->locks;
    struct lock want = range_of(fi, range);
    pthread_mutex_lock(&l->lock);
    const struct lock *have = in_the_way(l, &want);
    range->l_type = F_UNLCK;
    if (have) {
        range->l_type = have->type;
        range->l_whence = SEEK_SET;
        range->l_start = (off_t)have->start;
        range->l_len = have->end >= INT64_MAX ? 0 : (off_t)(have->end - have->start + 1);
        range->l_pid = have->pid;
    }
    pthread_mutex_unlock(&l->lock);
    fuse_reply_lock(req, range);
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *range,
              int waits)
{
    (void)ino;
    struct lock want = range_of(fi, range);
    set(handle_of(fi), req, &want, waits);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    (void)ino;
    struct lock want = lock_of(handle_of(fi), fi);
    want.whole = true;
    want.pid = fuse_req_ctx(req)->pid;
    want.type = op & LOCK_UN ? F_UNLCK : op & LOCK_SH ? F_RDLCK : F_WRLCK;
    set(handle_of(fi), req, &want, !(op & LOCK_NB));
}

/* All that was taken through the handle, or by the owner through whatever handle of the file. */
static void let_go(struct handle *h, const uint64_t *owner)
{
    struct locks *l = &h->fs->locks;
    struct lock_wait *answers = NULL;
    uint64_t ino = h->node->ino;
    pthread_mutex_lock(&l->lock);
    for (struct lock **at = bucket(l, ino); *at;)
        if (owner ? (*at)->ino == ino && !(*at)->whole && (*at)->owner == *owner
                  : (*at)->handle == h)
            drop(l, at);
        else
            at = &(*at)->next;
    for (struct lock_wait **at = &l->waits; !owner && *at;)
        if ((*at)->want.handle == h) { /* only when the mount ends: a waiting file is open */
            struct lock_wait *w = off(l, at, -ENOTCONN);
            w->next = answers;
            answers = w;
        } else {
            at = &(*at)->next;
        }
    grant(l, ino, &answers);
    pthread_mutex_unlock(&l->lock);
    answer(answers);
}

void locks_flush(struct handle *h, uint64_t owner)
{
    let_go(h, &owner);
}

void locks_release(struct handle *h)
{
    let_go(h, NULL);
}

void locks_init(struct locks *l)
{
    pthread_mutex_init(&l->lock, NULL);
    l->waits_tail = &l->waits;
    l->wake.run = locks_wake;
}

void locks_destroy(struct locks *l)
{
    for (unsigned i = 0; i < LOCK_BUCKETS; i++)
        while (l->held[i])
            drop(l, &l->held[i]);
    pthread_mutex_destroy(&l->lock);
}
