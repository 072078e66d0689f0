/* What goes to the kernel goes through here (step 9): answers, and notifications.
 *
 * libfuse forgets a request when its answer was written, or could not be. The kernel does not: it
 * copies what a writev is made of, and where it has no memory for that whoever asked would wait for
 * ever. So such a writev is tried again for a while; then whoever asked is told that there is no memory,
 * by a plain write of a header, which needs hardly any. Where even that fails it is noted, and the
 * replies thread tries again until it is through.
 *
 * Who answers is told of a refusal as of any failure, and by answer_outcome of what libfuse refused for
 * want of memory of its own, which it calls a success.
 *
 * Must never wait for long: a handler stands here, or the replies thread with the answers of others
 * behind it. Of PERIOD_NS a thread waits PATIENCE_NS at most, over all that it writes; what fails
 * after that is refused at once.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"

#define PATIENCE_NS 1000000000u
#define PERIOD_NS   10000000000u
#define FIRST_NS    1000000u  /* the first wait of an answer; doubled each time */
#define AGAIN_NS    10000000u /* between tries of what is noted */
#define NOTED_MAX   1024u     /* as many as wait at once: requests that nobody has answered */

static struct {
    int fd;
    struct tasks *replies;
    pthread_mutex_t lock; /* guards the two below */
    uint64_t unique[NOTED_MAX];
    unsigned count;
    struct task wake; /* something was noted */
} noted = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* This thread's: when its period began, and how long it has waited in it. */
static _Thread_local struct {
    uint64_t since, waited;
} patience;

/* What this thread told last: 0 or a negative errno. */
static _Thread_local int outcome;

/* May the same call succeed a moment later? */
static bool is_passing(int error)
{
    return error == ENOMEM || error == EINTR || error == EAGAIN;
}

/* Waits a moment, longer each time, unless the thread has waited enough: false. */
static bool nap(unsigned tries)
{
    uint64_t now = now_ns();
    if (now - patience.since >= PERIOD_NS) {
        patience.since = now;
        patience.waited = 0;
    }
    if (patience.waited >= PATIENCE_NS)
        return false;
    uint64_t ns = FIRST_NS << (tries < 8 ? tries : 8);
    struct timespec moment = {.tv_nsec = (long)ns};
    nanosleep(&moment, NULL);
    patience.waited += ns;
    return true;
}

/* Instead of an answer that could not be written: true when it is through, or nobody waits for it any
 * more (ENOENT: who asked has been interrupted). */
static bool refusal_write(int fd, uint64_t unique)
{
    struct fuse_out_header h = {.len = sizeof h, .error = -ENOMEM, .unique = unique};
    ssize_t n;
    do
        n = write(fd, &h, sizeof h);
    while (n < 0 && errno == EINTR);
    return n >= 0 || !is_passing(errno);
}

static bool refusal_note(uint64_t unique)
{
    pthread_mutex_lock(&noted.lock);
    bool room = noted.count < NOTED_MAX;
    if (room)
        noted.unique[noted.count++] = unique;
    pthread_mutex_unlock(&noted.lock);
    if (room)
        tasks_push(noted.replies, &noted.wake);
    return room;
}

/* A notification has no request that waits for it. With no place left to note it, it is insisted on:
 * a thousand wait already, and one more thread that does loses nothing. */
static void refuse(int fd, uint64_t unique)
{
    while (unique != 0 && !refusal_write(fd, unique) && !refusal_note(unique))
        usleep(AGAIN_NS / 1000);
}

/* The tick that follows does the work. */
static void noted_wake(struct task *task)
{
    (void)task;
}

uint64_t answer_tick(uint64_t now)
{
    pthread_mutex_lock(&noted.lock);
    unsigned left = 0;
    for (unsigned i = 0; i < noted.count; i++)
        if (!refusal_write(noted.fd, noted.unique[i]))
            noted.unique[left++] = noted.unique[i];
    noted.count = left;
    pthread_mutex_unlock(&noted.lock);
    return left ? now + AGAIN_NS : NEVER;
}

static ssize_t answer_write(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    struct fuse_out_header head;
    memcpy(&head, iov[0].iov_base, sizeof head);
    ssize_t n = writev(fd, iov, count);
    if (n < 0 && is_passing(errno))
        n = writev(fd, iov, count); /* most come through at once */
    for (unsigned i = 0; n < 0 && is_passing(errno) && nap(i); i++)
        n = writev(fd, iov, count);
    int error = errno;
    outcome = n >= 0 ? head.error : -error;
    if (n < 0 && is_passing(error))
        refuse(fd, head.unique);
    errno = error;
    return n;
}

int answer_outcome(void)
{
    return outcome;
}

static ssize_t answer_read(int fd, void *buf, size_t size, void *userdata)
{
    (void)userdata;
    return read(fd, buf, size);
}

int answer_through(struct fuse_session *session, struct tasks *replies)
{
    static const struct fuse_custom_io io = {.writev = answer_write, .read = answer_read};
    noted.fd = fuse_session_fd(session);
    noted.replies = replies;
    noted.wake.run = noted_wake;
    return fuse_session_custom_io(session, &io, noted.fd);
}
