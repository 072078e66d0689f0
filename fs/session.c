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
 *
 * Who needs to know that all that was taken from the kernel before some moment is done asks session_past:
 * each thread counts its rounds, and one that has not begun another since is woken, for between
 * its read(2) and here it looks like one that waits there.
 * Must never be entered twice in a process.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fs/fs.h"

#define INSIST_NS 10000000u
#define ENOUGH    16384u /* bytes: for what libfuse and we allocate for a RELEASE */

static struct {
    struct fuse_session *session;
    /* Rounds that were begun. Each is released by its thread; acquired in session_past: what the thread
     * did in the one before has happened. */
    atomic_uint_fast64_t rounds[SESSION_THREADS];
    pthread_t thread[SESSION_THREADS];
    pthread_mutex_t lock; /* guards all below, and that a thread below `made` is not joined yet */
    pthread_cond_t wake;
    unsigned made, running;
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
static int serve_requests(struct fuse_session *session, struct fuse_buf *buf,
                          atomic_uint_fast64_t *rounds)
{
    while (!fuse_session_exited(session)) {
        atomic_fetch_add_explicit(rounds, 1, memory_order_release);
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
    struct fuse_buf buf = {.mem = NULL};
    int rc = serve_requests(serving.session, &buf, arg);
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
static void wait_for_end(void)
{
    while (serving.running > 0) {
        if (!fuse_session_exited(serving.session)) {
            pthread_cond_wait(&serving.wake, &serving.lock);
            continue;
        }
        for (unsigned i = 0; i < serving.made; i++)
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
    threads = threads < SESSION_THREADS ? threads : SESSION_THREADS;
    int rc = 0;
    pthread_mutex_lock(&serving.lock);
    serving.session = session;
    while (rc == 0 && serving.made < threads) {
        unsigned i = serving.made;
        rc = -pthread_create(&serving.thread[i], NULL, serve, &serving.rounds[i]);
        if (rc == 0) {
            pthread_setname_np(serving.thread[i], "handler");
            serving.made++;
            serving.running++;
        }
    }
    /* No handler waits, so that fewer are enough; and the mount may have answered by the first. */
    if (rc && serving.made > 0) {
        daemon_note("the mount is served by %u threads instead of %u: %s", serving.made, threads,
                    embar_strerror(rc));
        rc = 0;
    }
    if (rc)
        fuse_session_exit(session);
    wait_for_end();
    rc = rc ? rc : serving.status;
    unsigned made = serving.made;
    serving.made = 0;
    pthread_mutex_unlock(&serving.lock);
    for (unsigned i = 0; i < made; i++)
        pthread_join(serving.thread[i], NULL);
    return rc;
}

void session_now(struct session_moment *m)
{
    for (unsigned i = 0; i < SESSION_THREADS; i++)
        m->rounds[i] = atomic_load_explicit(&serving.rounds[i], memory_order_relaxed);
}

bool session_past(const struct session_moment *m)
{
    bool past = true;
    pthread_mutex_lock(&serving.lock);
    for (unsigned i = 0; i < serving.made && !fuse_session_exited(serving.session); i++)
        if (atomic_load_explicit(&serving.rounds[i], memory_order_acquire) == m->rounds[i]) {
            past = false;
            pthread_kill(serving.thread[i], SIGUSR1);
        }
    pthread_mutex_unlock(&serving.lock);
    return past;
}

void session_end(struct fuse_session *session)
{
    fuse_session_exit(session);
    pthread_mutex_lock(&serving.lock);
    pthread_cond_signal(&serving.wake);
    pthread_mutex_unlock(&serving.lock);
}
