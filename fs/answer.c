/* What goes to the kernel goes through here (step 9): answers, and notifications.
 *
 * libfuse forgets a request when its answer was written, or could not be. The kernel does not: it
 * copies what a writev is made of, and where it has no memory for that whoever asked would wait for
 * ever. So such a writev is tried again, for about a second; then whoever asked is told that there is
 * no memory, by a plain write of a header, which needs hardly any and is tried as long. What answered
 * is told of it as of any failure. (A stream that is followed goes on behind the bytes of an answer
 * that was refused.)
 *
 * Must never wait longer than that, two seconds: a handler thread may stand here.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"

#define TRIES    10u
#define FIRST_NS 1000000L /* doubled each time: about a second in all */

/* May the same call succeed a moment later? */
static bool is_passing(int error)
{
    return error == ENOMEM || error == EINTR || error == EAGAIN;
}

static void nap(unsigned tries)
{
    long ns = FIRST_NS << tries;
    struct timespec moment = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&moment, NULL);
}

/* Instead of an answer that could not be written. A notification has no request that waits for it. */
static void refuse(int fd, const struct fuse_out_header *answer)
{
    struct fuse_out_header h = {.len = sizeof h, .error = -ENOMEM, .unique = answer->unique};
    for (unsigned i = 0; h.unique != 0 && write(fd, &h, sizeof h) < 0; i++) {
        if (!is_passing(errno) || i == TRIES)
            return; /* ENOENT: who asked has been interrupted */
        nap(i);
    }
}

static ssize_t answer_write(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    for (unsigned i = 0;; i++) {
        ssize_t n = writev(fd, iov, count);
        if (n >= 0 || !is_passing(errno))
            return n;
        if (i == TRIES)
            break;
        nap(i);
    }
    int error = errno;
    struct fuse_out_header head;
    memcpy(&head, iov[0].iov_base, sizeof head);
    refuse(fd, &head);
    errno = error;
    return -1;
}

static ssize_t answer_read(int fd, void *buf, size_t size, void *userdata)
{
    (void)userdata;
    return read(fd, buf, size);
}

int answer_through(struct fuse_session *session)
{
    static const struct fuse_custom_io io = {.writev = answer_write, .read = answer_read};
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}
