/* The log of calls and the hold: see calls.h. */
#include "tests/unit/server/calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static pthread_t tester;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned free_receives; /* until the worker is held */
static bool held;
static int swallow[2]; /* what is sent there goes nowhere; 0: no descriptor */
static struct call log_of[CALLS];
static unsigned logged;

struct call calls[CALLS];
unsigned call_count;
uint8_t payload[GREEDY];

ssize_t __real_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);

static void note(int fd, bool out, uint16_t channel, ssize_t n)
{
    if (n > 0 && logged < CALLS)
        log_of[logged++] = (struct call){pthread_self(), fd, out, channel, (size_t)n};
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *m, int flags)
{
    if (pthread_equal(pthread_self(), tester))
        return __real_recvmsg(fd, m, flags);
    pthread_mutex_lock(&lock);
    while (free_receives == 0) {
        held = true;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &lock);
    }
    held = false;
    ssize_t n = __real_recvmsg(fd, m, flags);
    if (n > 0)
        free_receives--;
    note(fd, false, 0, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    if (pthread_equal(pthread_self(), tester))
        return __real_sendmsg(fd, m, flags);
    struct wire_frame f = {0};
    ssize_t n = 0;
    if (m->msg_iov[0].iov_len >= sizeof(f))
        memcpy(&f, m->msg_iov[0].iov_base, sizeof(f));
    pthread_mutex_lock(&lock);
    if (fd == swallow[0] || fd == swallow[1])
        for (size_t i = 0; i < m->msg_iovlen; i++)
            n += (ssize_t)m->msg_iov[i].iov_len;
    else
        n = __real_sendmsg(fd, m, flags);
    note(fd, true, le16_get(f.channel), n);
    pthread_mutex_unlock(&lock);
    return n;
}

void let(unsigned receives)
{
    pthread_mutex_lock(&lock);
    free_receives = receives;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static bool is_held(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    bool is = held && free_receives == 0;
    pthread_mutex_unlock(&lock);
    return is;
}

void hold_after(unsigned receives)
{
    let(receives);
    until(is_held, NULL);
}

void calls_forget(void)
{
    pthread_mutex_lock(&lock);
    logged = 0;
    pthread_mutex_unlock(&lock);
}

void look(void)
{
    pthread_mutex_lock(&lock);
    call_count = logged;
    memcpy(calls, log_of, logged * sizeof(*calls));
    pthread_mutex_unlock(&lock);
}

void calls_init(void)
{
    tester = pthread_self();
    fill(payload, sizeof(payload), 3);
}

void calls_note(int instead, size_t n)
{
    pthread_mutex_lock(&lock);
    note(instead, false, 0, (ssize_t)n);
    pthread_mutex_unlock(&lock);
}

unsigned next_of(int fd, bool out, unsigned from)
{
    while (from < call_count && (calls[from].fd != fd || calls[from].out != out))
        from++;
    assert_true(from < call_count);
    return from;
}

void to_nowhere(int one, int other)
{
    pthread_mutex_lock(&lock);
    swallow[0] = one;
    swallow[1] = other;
    pthread_mutex_unlock(&lock);
}

struct rig one_worker(void)
{
    return (struct rig){.workers = 1, .tick_ms = 600000, .spec = "mem:256M"};
}

int opened(const struct rig *r, const char *path, int *theirs)
{
    calls_forget();
    int fd = peer(r, true);
    open_topic(fd, path, 1, WIRE_S_NONE, 0);
    look();
    *theirs = calls[call_count - 1].fd;
    return fd;
}
