/* The SIGBUS guard: see guard.h. Serves every step that touches pool memory; must never swallow a
 * signal that no guard stands for.
 *
 * Design notes
 *   Stack     `top` is the calling thread's innermost guard; guards live in the frames of guard_run.
 *             The handler runs on the thread that touched the memory, so it needs no lock.
 *   Mask      The handler is left by a jump that restores no mask (a system call a guard), and the
 *             next fault must be told as well: it puts the mask back itself, whatever was masked
 *             for it.
 *   Faulted   the region's `fault` is stored before the jump, relaxed: whoever asks is either this
 *             thread or one that could as well have asked a moment earlier.
 */
#include "core/guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/region.h"

struct guard {
    sigjmp_buf back;
    struct region *region;
    struct guard *outer;
};

static _Thread_local struct guard *top;
static _Thread_local volatile sig_atomic_t passing; /* a handler that calls us again ends it */
static struct sigaction before;                     /* written before our handler is put in front */

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

/* Nobody stands guard: as if we were not there. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
    bool others = (before.sa_flags & SA_SIGINFO) ||
                  (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN);
    if (others && !passing) {
        passing = 1;
        if (before.sa_flags & SA_SIGINFO)
            before.sa_sigaction(sig, info, context);
        else
            before.sa_handler(sig);
        passing = 0;
    } else {
        say(program_invocation_short_name);
        say(": memory that this program was using is gone (bus error): a file it had mapped was "
            "truncated, or a device or memory module failed.\n");
        struct sigaction die = {.sa_handler = SIG_DFL};
        sigaction(sig, &die, NULL);
        raise(sig); /* at once: with SA_NODEFER it is not blocked */
    }
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
    /* Some page went bad that nobody has touched yet: whoever does is told. */
    if (info->si_code == BUS_MCEERR_AO)
        return;
    /* At or below 0 somebody sent it: then there is no address. */
    for (struct guard *g = info->si_code > 0 ? top : NULL; g; g = g->outer) {
        uint64_t at = (uint64_t)((uintptr_t)info->si_addr - (uintptr_t)g->region->base);
        if (at >= g->region->size)
            continue;
        uint_fast64_t none = 0;
        atomic_compare_exchange_strong_explicit(&g->region->fault, &none, at + 1,
                                                memory_order_relaxed, memory_order_relaxed);
        const ucontext_t *was = context;
        pthread_sigmask(SIG_SETMASK, &was->uc_sigmask, NULL);
        siglongjmp(g->back, 1);
    }
    pass_on(sig, info, context);
}

void guard_install(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards before against each other */
    struct sigaction act = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER}, now;
    sigemptyset(&act.sa_mask);
    pthread_mutex_lock(&lock);
    sigaction(SIGBUS, NULL, &now);
    if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_bus) {
        before = now;
        sigaction(SIGBUS, &act, NULL);
    }
    pthread_mutex_unlock(&lock);
}

int guard_run(struct region *r, int (*fn)(void *), void *arg)
{
    struct guard g;
    g.region = r;
    g.outer = top;
    int rc = -EMBAR_EFAULTED;
    /* Nothing here changes after this, so that both returns find it as it was. */
    if (sigsetjmp(g.back, 0) == 0) {
        top = &g;
        atomic_signal_fence(
            memory_order_seq_cst); /* no access of fn's before or behind its guard */
        rc = fn(arg);
        atomic_signal_fence(memory_order_seq_cst);
    }
    top = g.outer;
    return rc;
}

struct copy {
    void *to;
    const void *from;
    size_t n;
    struct region *region;
};

static int copy(void *arg)
{
    const struct copy *c = arg;
    memcpy(c->to, c->from, c->n);
    return 0;
}

int guard_copy(struct region *r, void *to, const void *from, size_t n)
{
    struct copy c = {to, from, n, r};
    return guard_run(r, copy, &c);
}

static int fetch(void *arg)
{
    const struct copy *c = arg;
    flush_invalidate(&c->region->flush, c->from, c->n);
    return copy(arg);
}

int guard_fetch(struct region *r, void *to, const void *from, size_t n)
{
    struct copy c = {to, from, n, r};
    return guard_run(r, fetch, &c);
}
