/* The handler threads (step 9): each takes a request from the kernel and answers it, or parks it.
 *
 * libfuse's own loop makes threads while it serves; without memory for one more it ends them all, and
 * the request that one had in hand is never answered: whoever asked waits for ever. Here a fixed
 * number is made before the first request, and a thread has its buffer before it takes one. Without
 * memory for that it tries again a moment later, while the others serve. libfuse answers ENOMEM when it
 * has no memory for a request. Nobody hears that of a RELEASE or FORGET, and what it ends would stay for
 * ever: these wait until there is some.
 *
 * The end. A thread that waits in read(2) is let go by the kernel when the file system was unmounted.
 * Told to end, it looks at the session's flag only when a signal interrupts it, and one that comes just
 * before the wait is lost: so the main thread insists until all have ended.
 * Must never be entered twice in a process.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"

#define THREADS_MAX 64u
#define INSIST_NS   10000000u
#define ENOUGH      16384u /* bytes: for what libfuse and we allocate for a RELEASE */

static struct {
    struct fuse_session *session;
    pthread_t thread[THREADS_MAX];
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    unsigned running;
    int status; /* the first failure */
} serving = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void nothing(int signal)
{
    (void)signal;
}

/* Does it end something, with nobody there to be told that it failed? */
static bool is_final(const struct fuse_buf *buf)
{
    const struct fuse_in_header *head = buf->mem;
    return head->opcode == FUSE_RELEASE || head->opcode == FUSE_RELEASEDIR ||
           head->opcode == FUSE_FORGET || head->opcode == FUSE_BATCH_FORGET;
}

static void wait_for_memory(void)
{
    void *volatile some; /* or the compiler would leave both calls out */
    while ((some = malloc(ENOUGH)) == NULL)
        usleep(1000);
    free(some);
}

/* One request after another, until the session has ended: 0 or a negative errno. */
static int serve_requests(struct fuse_session *session, struct fuse_buf *buf)
{
    while (!fuse_session_exited(session)) {
        /* The first time it allocates the buffer, before it takes a request. */
        int n = fuse_session_receive_buf(session, buf);
        if (n > 0) {
            if (is_final(buf))
                wait_for_memory();
            fuse_session_process_buf(session, buf);
        } else if (n == -ENOMEM) {
            usleep(10000);
        } else if (n < 0 && n != -EINTR && n != -EAGAIN) {
            return n;
        }
    }
    return 0;
}

static void *serve(void *arg)
{
    (void)arg;
    struct fuse_buf buf = {.mem = NULL};
    int rc = serve_requests(serving.session, &buf);
    free(buf.mem);
    if (rc)
        fuse_session_exit(serving.session);
    pthread_mutex_lock(&serving.lock);
    if (serving.status == 0)
        serving.status = rc;
    serving.running--;
    pthread_cond_signal(&serving.wake);
    pthread_mutex_unlock(&serving.lock);
    return NULL;
}

/* Until none runs. Lock held. */
static void wait_for_end(unsigned threads)
{
    while (serving.running > 0) {
        if (!fuse_session_exited(serving.session)) {
            pthread_cond_wait(&serving.wake, &serving.lock);
            continue;
        }
        for (unsigned i = 0; i < threads; i++)
            pthread_kill(serving.thread[i], SIGUSR1);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += INSIST_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&serving.wake, &serving.lock, &until);
    }
}

int session_serve(struct fuse_session *session, unsigned threads)
{
    struct sigaction act = {.sa_handler = nothing};
    sigaction(SIGUSR1, &act, NULL);
    threads = threads < THREADS_MAX ? threads : THREADS_MAX;
    unsigned made = 0;
    int rc = 0;
    pthread_mutex_lock(&serving.lock);
    serving.session = session;
    while (rc == 0 && made < threads) {
        rc = -pthread_create(&serving.thread[made], NULL, serve, NULL);
        if (rc == 0) {
            pthread_setname_np(serving.thread[made++], "handler");
            serving.running++;
        }
    }
    /* No handler waits, so that fewer are enough; and the mount may have answered by the first. */
    if (rc && made > 0) {
        daemon_note("the mount is served by %u threads instead of %u: %s", made, threads,
                    embar_strerror(rc));
        rc = 0;
    }
    if (rc)
        fuse_session_exit(session);
    wait_for_end(made);
    rc = rc ? rc : serving.status;
    pthread_mutex_unlock(&serving.lock);
    for (unsigned i = 0; i < made; i++)
        pthread_join(serving.thread[i], NULL);
    return rc;
}

void session_end(struct fuse_session *session)
{
    fuse_session_exit(session);
    pthread_mutex_lock(&serving.lock);
    pthread_cond_signal(&serving.wake);
    pthread_mutex_unlock(&serving.lock);
}
