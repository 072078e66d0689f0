/* Which calls fail: see fault.h.
 *
 * In a program of its own a test says it (fault_set). In front of other programs (LD_PRELOAD) the
 * environment does: EMBAR_FAULT is a list of NAME=ERROR[/EVERY] separated by commas, for instance
 * "fdatasync=EIO,alloc=ENOMEM/7"; it holds while the file EMBAR_FAULT_WHEN exists, so that a script
 * chooses the moment. EVERY: each such call (1 by default), counted a process. Must not allocate.
 */
#include "tests/fault/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct fault {
    atomic_uint_fast64_t from, times, calls, every; /* relaxed: they order nothing */
    atomic_int error;
};

static struct fault fault[FAULT_COUNT];
static atomic_uint_fast64_t hits;
static atomic_int ready; /* 0: the environment was not read; 1: it says nothing; 2: it does */
static const char *when;

static const char *const names[] = {
#define X(name) #name,
    FAULT_NAMES(X)
#undef X
        "alloc"};

const char *fault_text(enum fault_name name)
{
    return names[name];
}

void fault_set(enum fault_name name, uint64_t n, uint64_t times, int error)
{
    struct fault *f = &fault[name];
    atomic_store(&ready, 1);
    atomic_store(&hits, 0);
    atomic_store(&f->times, 0);
    atomic_store(&f->calls, 0);
    atomic_store(&f->error, error);
    atomic_store(&f->from, n);
    atomic_store(&f->times, times);
}

uint64_t fault_hits(void)
{
    return atomic_load(&hits);
}

static int error_of(const char *text, size_t n)
{
    static const struct {
        const char *name;
        int error;
    } errors[] = {{"EIO", EIO},           {"ENOMEM", ENOMEM}, {"ENOSPC", ENOSPC},
                  {"EMFILE", EMFILE},     {"EAGAIN", EAGAIN}, {"EINTR", EINTR},
                  {"SHORT", FAULT_SHORT}, {"ENFILE", ENFILE}, {"LATE", FAULT_LATE}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (strlen(errors[i].name) == n && memcmp(errors[i].name, text, n) == 0)
            return errors[i].error;
    return 0;
}

/* A list that cannot be read ends the program: a test must not pass for a misspelt name. */
static _Noreturn void misread(const char *what)
{
    static const char text[] = "EMBAR_FAULT cannot be read at: ";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, what, strlen(what));
    (void)!write(STDERR_FILENO, "\n", 1);
    _exit(99);
}

static void read_one(const char *at, size_t n)
{
    const char *equals = memchr(at, '=', n);
    const char *slash = memchr(at, '/', n);
    for (unsigned i = 0; equals && i <= FAULT_ALLOCATORS; i++) {
        if (strlen(names[i]) != (size_t)(equals - at) ||
            memcmp(names[i], at, strlen(names[i])) != 0)
            continue;
        const char *end = slash ? slash : at + n;
        int error = error_of(equals + 1, (size_t)(end - equals - 1));
        uint64_t every = slash ? strtoull(slash + 1, NULL, 10) : 1;
        if (error == 0 || every == 0)
            break;
        atomic_store(&fault[i].every, every);
        atomic_store(&fault[i].error, error);
        return;
    }
    misread(at);
}

static int read_environment(void)
{
    const char *list = getenv("EMBAR_FAULT");
    when = getenv("EMBAR_FAULT_WHEN");
    for (const char *at = list; at && *at;) {
        size_t n = strcspn(at, ",");
        read_one(at, n);
        at += n + (at[n] == ',');
    }
    int answer = list && when ? 2 : 1;
    atomic_store(&ready, answer);
    return answer;
}

static bool is_time(void)
{
    int keep = errno;
    bool is = syscall(SYS_faccessat, AT_FDCWD, when, F_OK) == 0;
    errno = keep;
    return is;
}

static int ask(struct fault *f)
{
    uint64_t every = atomic_load_explicit(&f->every, memory_order_relaxed);
    uint64_t times = atomic_load_explicit(&f->times, memory_order_relaxed);
    if ((every == 0 && times == 0) || (every > 0 && !is_time()))
        return 0;
    uint64_t call = atomic_fetch_add_explicit(&f->calls, 1, memory_order_relaxed) + 1;
    uint64_t from = atomic_load_explicit(&f->from, memory_order_relaxed);
    if (every > 0 ? call % every != 0 : call < from || call - from >= times)
        return 0;
    atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
    return atomic_load_explicit(&f->error, memory_order_relaxed);
}

int fault_error(enum fault_name name)
{
    int is = atomic_load(&ready);
    if (is == 0)
        is = read_environment();
    int error = ask(&fault[name]);
    if (error == 0 && name <= FAULT_aligned_alloc)
        error = ask(&fault[FAULT_ALLOCATORS]);
    return error;
}
