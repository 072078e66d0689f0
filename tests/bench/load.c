/* Workers in processes behind one gate (load.h). Must never count set-up as measured time: the
 * gate opens when every worker of every process is open.
 *
 * Shared memory: `struct board`, written by children, read by the parent after they ended, but
 * for three atomics. ready: each worker adds 1 (release) once open; the parent polls it. go: set by
 * the parent (release), polled by workers, who see nothing else through it. A worker that fails
 * to open counts as ready and marks `failed`, so that nobody waits for it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/clock.h"
#include "tests/bench/keeper.h"
#include "tests/bench/load.h"

#define MAX_WORKERS    1024u
#define MAX_PROCESSES  64u
#define POLL_NS        100000u  /* at the gate: they are to begin together */
#define WATCH_NS       2000000u /* while it runs: waking up costs the measured ones their core */
#define OPEN_LIMIT_MS  60000u
#define CLOSE_LIMIT_MS 30000u

struct board {
    atomic_uint ready, done; /* workers */
    atomic_uint go;          /* 0 wait, 1 run, 2 give up */
    atomic_uint failed;
    struct {
        uint64_t cpu; /* of the process, between gate and last worker's end */
        struct embar_error error;
    } process[MAX_PROCESSES];
    struct load_report report[];
};

struct thread {
    struct load_worker worker;
    struct board *board;
    pthread_t id;
    bool started;
};

static void *work(void *arg)
{
    struct thread *t = arg;
    struct load_worker *w = &t->worker;
    const struct load_ops *ops = w->load->ops;
    bool opened = !ops->open || ops->open(w) == 0;
    if (!opened)
        atomic_store_explicit(&t->board->failed, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->board->ready, 1, memory_order_release);
    unsigned go;
    while ((go = atomic_load_explicit(&t->board->go, memory_order_acquire)) == 0)
        clock_sleep(POLL_NS);
    if (opened && go == 1) {
        w->report->start_ns = clock_ns();
        int rc = ops->run(w);
        w->report->end_ns = clock_ns();
        if (rc && w->report->error.code == 0)
            (void)embar_fail(&w->report->error, rc, "worker %u", w->index);
    }
    atomic_fetch_add_explicit(&t->board->done, 1, memory_order_release);
    if (opened && ops->close)
        ops->close(w);
    return NULL;
}

/* Of programs that workers ran and waited for. */
static uint64_t children_cpu(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_CHILDREN, &u) < 0)
        return 0;
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

/* A client process: its share of the workers. */
static int client(const struct load *load, struct board *board, unsigned number)
{
    struct embar_error *err = &board->process[number].error;
    void *shared = NULL;
    if (load->ops->prepare) {
        int rc = load->ops->prepare(load, &shared, err);
        if (rc) {
            if (err->code == 0)
                (void)embar_fail(err, rc, "preparing client process %u", number);
            return 1;
        }
    }
    unsigned n = 0;
    struct thread *threads = calloc(load->workers, sizeof(*threads));
    if (!threads)
        return 1;
    for (unsigned i = number; i < load->workers; i += load->processes) {
        struct thread *t = &threads[n++];
        t->board = board;
        t->worker = (struct load_worker){
            .load = load, .index = i, .shared = shared, .report = &board->report[i]};
        if (pthread_create(&t->id, NULL, work, t) != 0) {
            (void)embar_fail(err, -EAGAIN, "starting worker %u", i);
            return 1;
        }
    }
    /* The gate is polled here too, for the processor time that the run alone takes. */
    while (atomic_load_explicit(&board->go, memory_order_acquire) == 0)
        clock_sleep(POLL_NS);
    uint64_t before = clock_cpu(0) + children_cpu();
    while (atomic_load_explicit(&board->done, memory_order_acquire) < load->workers)
        clock_sleep(WATCH_NS);
    board->process[number].cpu = clock_cpu(0) + children_cpu() - before;
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(threads[i].id, NULL);
    free(threads);
    return 0;
}

static bool any_ended(const pid_t *pids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
            info.si_pid != 0)
            return true;
    }
    return false;
}

/* Poll until `count` workers passed; false when a process ended early or time is up. */
static bool await(atomic_uint *counter, unsigned count, uint64_t limit_ms, const pid_t *pids,
                  unsigned n)
{
    uint64_t deadline = clock_ns() + limit_ms * 1000000;
    while (atomic_load_explicit(counter, memory_order_acquire) < count) {
        if (clock_ns() > deadline)
            return false;
        /* A last look: a process may have ended just after its workers were done. */
        if (any_ended(pids, n) && atomic_load_explicit(counter, memory_order_acquire) < count)
            return false;
        clock_sleep(WATCH_NS);
    }
    return true;
}

static void collect(const struct load *load, const struct board *board, struct load_result *result)
{
    uint64_t start = UINT64_MAX;
    uint64_t end = 0;
    for (unsigned i = 0; i < load->workers; i++) {
        const struct load_report *r = &board->report[i];
        start = r->start_ns < start ? r->start_ns : start;
        end = r->end_ns > end ? r->end_ns : end;
        result->bytes += r->bytes;
        result->messages += r->messages;
    }
    for (unsigned i = 0; i < load->processes; i++)
        result->cpu_client += (double)board->process[i].cpu / 1e9;
    result->seconds = end > start ? (double)(end - start) / 1e9 : 0;
}

static int first_error(const struct load *load, const struct board *board, struct embar_error *err)
{
    for (unsigned i = 0; i < load->processes; i++)
        if (board->process[i].error.code) {
            *err = board->process[i].error;
            return err->code;
        }
    for (unsigned i = 0; i < load->workers; i++)
        if (board->report[i].error.code) {
            *err = board->report[i].error;
            return err->code;
        }
    return 0;
}

static int supervise(const struct load *load, struct board *board, pid_t *pids, unsigned started,
                     struct load_result *result, struct embar_error *err)
{
    bool ok = started == load->processes &&
              await(&board->ready, load->workers, OPEN_LIMIT_MS, pids, started) &&
              atomic_load_explicit(&board->failed, memory_order_relaxed) == 0;
    uint64_t before = load->server ? clock_cpu(load->server) : 0;
    atomic_store_explicit(&board->go, ok ? 1 : 2, memory_order_release);
    if (ok) {
        ok = await(&board->done, load->workers, load->limit_ms, pids, started);
        if (load->server)
            result->cpu_server = (double)(clock_cpu(load->server) - before) / 1e9;
    }
    for (unsigned i = 0; i < started; i++) {
        int status = 0;
        if (!ok || proc_wait(pids[i], CLOSE_LIMIT_MS, &status) == -ETIMEDOUT)
            proc_end(pids[i], ok ? 0 : 2000);
    }
    int rc = first_error(load, board, err);
    if (rc)
        return rc;
    if (!ok)
        return embar_fail(err, -ETIMEDOUT,
                          "The load's workers did not finish: a client process died or %llu s "
                          "were not enough.",
                          (unsigned long long)(load->limit_ms / 1000));
    collect(load, board, result);
    return 0;
}

int load_run(const struct load *load, struct load_result *result, struct embar_error *err)
{
    memset(result, 0, sizeof(*result));
    if (load->workers == 0 || load->workers > MAX_WORKERS || load->processes == 0 ||
        load->processes > MAX_PROCESSES || load->processes > load->workers)
        return embar_fail(err, -EMBAR_EINVALID, "%u workers in %u processes: use 1..%u in 1..%u.",
                          load->workers, load->processes, MAX_WORKERS, MAX_PROCESSES);
    size_t size = sizeof(struct board) + load->workers * sizeof(struct load_report);
    struct board *board =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return embar_fail(err, -errno, "memory for %u workers' reports", load->workers);
    pid_t pids[MAX_PROCESSES];
    unsigned started = 0;
    for (; started < load->processes; started++) {
        pids[started] = proc_fork();
        if (pids[started] == 0)
            _exit(client(load, board, started));
        if (pids[started] < 0)
            break;
    }
    int rc = supervise(load, board, pids, started, result, err);
    (void)munmap(board, size);
    return rc;
}
