/* Pool memory that goes away: the guard itself, and a log that loses any of its pages.
 *
 * Memory is taken away by mapping the end of an empty file over it, so that a touch is SIGBUS and
 * the bytes stay where they were, for the log that is opened afterwards. Linked with --wrap=madvise. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/flush_variants.h"
#include "core/guard.h"
#include "core/log_state.h"
#include "tests/unit/core/fixture.h"

#define SIZE   (4ull << 20)
#define PAGE   4096ull
#define TOPICS 3u
#define MOST   (1u << 17) /* bytes of a topic */

static const char filler[] =
    " of them all, and long enough to make the pages of this topic many, one after the other";

/* ---- Memory that goes away ---------------------------------------------------------------- */

static int empty_file(void)
{
    int fd = memfd_create("gone", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void take_away(void *at, uint64_t n)
{
    int fd = empty_file();
    assert_ptr_equal(mmap(at, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), at);
    close(fd);
}

static void *memory_of(int fd, void *at)
{
    void *p = mmap(at, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

/* ---- The guard ---------------------------------------------------------------------------- */

static int peek(void *arg)
{
    return *(volatile char *)arg;
}

static void two_regions(struct region *a, struct region *b, char **memory)
{
    *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(*memory, MAP_FAILED);
    memset(*memory, 'x', 4 * PAGE);
    region_wrap(a, *memory, 2 * PAGE, NULL);
    region_wrap(b, *memory + 2 * PAGE, 2 * PAGE, NULL);
}

struct nested {
    struct region *inner, *outer;
    char *inside, *outside;
    int found;
};

static int nest(void *arg)
{
    struct nested *n = arg;
    n->found = guard_run(n->inner, peek, n->inside);
    return peek(n->outside);
}

static void faults_are_answers(void **state)
{
    (void)state;
    struct region a, b;
    char *memory, byte = 0;
    two_regions(&a, &b, &memory);
    assert_int_equal(guard_run(&a, peek, memory), 'x');
    take_away(memory + PAGE, PAGE);
    for (int again = 0; again < 3; again++) {
        assert_int_equal(guard_run(&a, peek, memory), 'x');
        assert_int_equal(guard_run(&a, peek, memory + PAGE + 5), -EMBAR_EFAULTED);
        assert_int_equal(guard_copy(&a, &byte, memory + 2 * PAGE - 1, 1), -EMBAR_EFAULTED);
        assert_int_equal(guard_copy(&a, memory + PAGE, &byte, 1), -EMBAR_EFAULTED);
        assert_int_equal(region_zero(&a, PAGE, PAGE), -EMBAR_EFAULTED);
    }
    assert_true(region_faulted(&a));
    assert_int_equal(atomic_load(&a.fault), PAGE + 5 + 1);
    assert_false(region_faulted(&b));
    assert_int_equal(guard_copy(&b, &byte, memory + 3 * PAGE, 1), 0);

    /* Each guard catches what is its region's, and the one outside stands again afterwards. */
    struct nested n = {&b, &a, memory + 2 * PAGE, memory + PAGE, 0};
    assert_int_equal(guard_run(&a, nest, &n), -EMBAR_EFAULTED);
    assert_int_equal(n.found, 'x');
    n = (struct nested){&b, &a, memory + PAGE, memory, 0}; /* not the inner one's: the outer's */
    assert_int_equal(guard_run(&a, nest, &n), -EMBAR_EFAULTED);
    n = (struct nested){&a, &a, memory + PAGE, memory, 0};
    assert_int_equal(guard_run(&a, nest, &n), 'x');
    assert_int_equal(n.found, -EMBAR_EFAULTED);
    munmap(memory, 4 * PAGE);
}

struct crowd {
    struct region *region;
    char *at;
};

static void *touch_often(void *arg)
{
    const struct crowd *c = arg;
    uintptr_t wrong = 0;
    for (int i = 0; i < 2000; i++) {
        wrong += guard_run(c->region, peek, c->at) != 'x';
        wrong += guard_run(c->region, peek, c->at + PAGE) != -EMBAR_EFAULTED;
    }
    return (void *)wrong;
}

static void threads_have_their_own(void **state)
{
    (void)state;
    struct region a, b;
    char *memory;
    two_regions(&a, &b, &memory);
    take_away(memory + PAGE, PAGE);
    struct crowd c = {&a, memory};
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, touch_often, &c), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(thread[i], &wrong);
        assert_null(wrong);
    }
    munmap(memory, 4 * PAGE);
}

static void others_handler(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    (void)context;
    _exit(42);
}

/* What a child says and how it ends, when it touches what nobody guards. */
static int unguarded(bool other, char *said, size_t size)
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(fd[1], STDERR_FILENO);
        signal(SIGBUS, SIG_DFL); /* cmocka's own */
        struct sigaction act = {.sa_sigaction = others_handler, .sa_flags = SA_SIGINFO};
        if (other)
            sigaction(SIGBUS, &act, NULL);
        char *gone = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, empty_file(), 0);
        guard_install();
        (void)peek(gone);
        _exit(0);
    }
    close(fd[1]);
    size_t have = 0;
    ssize_t n;
    while (have + 1 < size && (n = read(fd[0], said + have, size - have - 1)) > 0)
        have += (size_t)n;
    said[have] = '\0';
    close(fd[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void nobody_else_is_robbed(void **state)
{
    (void)state;
    char said[4096];
    int status = unguarded(true, said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    status = unguarded(false, said, sizeof said);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
    assert_non_null(strstr(said, "is gone (bus error)"));
}

/* ---- A log that loses a page --------------------------------------------------------------- */

struct world {
    int fd; /* the pool */
    enum region_kind kind;
    char *memory;
    struct region region;
    struct flush flush;
    struct log_options options;
    struct log *log;
    unsigned told; /* of the fault */
    char why[LOG_CAUSE_SIZE];
    /* What must be there: bytes acked, and those that were sent and may be. */
    char sent[TOPICS][MOST];
    size_t acked[TOPICS], size[TOPICS];
    uint64_t trimmed[TOPICS];
    uint64_t session;
    uint64_t sequence;
};

static void note(void *arg, const char *why)
{
    struct world *w = arg;
    w->told++;
    snprintf(w->why, sizeof w->why, "%s", why);
}

static int world_open(struct world *w, const struct flush *flush)
{
    struct embar_error err = {0};
    w->told = 0;
    region_wrap(&w->region, w->memory, SIZE, flush);
    w->region.kind = w->kind;
    w->options = (struct log_options){.region = &w->region,
                                      .geo.index_entries = 64,
                                      .geo.descriptors = 16,
                                      .manual = true,
                                      .fault = note,
                                      .fault_arg = w};
    int rc = log_open(&w->log, &w->options, &err);
    if (rc)
        assert_true(strlen(err.text) > 20 && !strstr(err.text, "not empty"));
    return rc;
}

static int control(struct world *w, struct control c, struct commit *commit)
{
    struct commit mine;
    return log_control_wait(w->log, &c, commit ? commit : &mine);
}

static int make(struct world *w, const char *name)
{
    struct control c = {
        .kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = 5, .ack = 1};
    snprintf(c.name, sizeof c.name, "%s", name);
    return control(w, c, NULL);
}

static struct topic *topic_of(struct world *w, unsigned n)
{
    struct node_stat st;
    char name[8];
    snprintf(name, sizeof name, "t%u", n);
    return log_resolve(w->log, name, &st) ? NULL : log_topic(w->log, st.id);
}

/* Lines of their own lengths, through a fixture of nothing but this log. */
static int publish(struct world *w, unsigned n, unsigned seed, uint32_t count)
{
    char data[8192];
    uint32_t lengths[64], length = 0;
    for (uint32_t i = 0; i < count; i++) {
        lengths[i] =
            (uint32_t)snprintf(data + length, sizeof data - length,
                               "topic %u, batch %u, line %u%s\n", n, seed, i, i % 3 ? "" : filler);
        length += lengths[i];
    }
    struct fixture f = {.log = w->log};
    struct topic *t = topic_of(w, n);
    assert_non_null(t);
    bool in_session = n == 0;
    struct commit c =
        fixture_publish(&f, t, in_session ? w->session : 0, 1, in_session ? w->sequence + 1 : 0,
                        data, length, lengths, count);
    memcpy(w->sent[n] + w->size[n], data, length);
    w->size[n] += length;
    if (c.status == 0) {
        w->acked[n] = w->size[n];
        w->sequence += in_session;
    }
    topic_put(t);
    return c.status;
}

/* Bytes of a topic against what was sent, as far as they can be read. */
static void compare(struct world *w, unsigned n, bool whole)
{
    struct topic *t = topic_of(w, n);
    if (!t) {
        assert_int_equal(w->acked[n], 0);
        return;
    }
    uint64_t at = topic_base(t), end = topic_end(t);
    assert_true(end >= w->acked[n]);
    assert_true(end <= w->size[n]);
    if (whole)
        assert_int_equal(at, w->trimmed[n]);
    while (at < end) {
        struct read_view v;
        int rc = topic_read(t, at, 1000, &v);
        if (rc) {
            assert_false(whole);
            assert_int_equal(rc, -EMBAR_EFAULTED);
            at += 100;
            continue;
        }
        assert_true(v.bytes > 0);
        char copy[1000];
        size_t have = 0;
        for (int i = 0; i < v.pieces && rc == 0; i++) {
            rc = guard_copy(&w->region, copy + have, v.iov[i].iov_base, v.iov[i].iov_len);
            have += v.iov[i].iov_len;
        }
        read_release(&v);
        assert_true(rc == 0 || !whole);
        if (rc == 0)
            assert_memory_equal(copy, w->sent[n] + at, have);
        at += have;
    }
    struct batch_cursor c = {.offset = topic_base(t)};
    struct batch_view v;
    uint32_t index;
    uint64_t offset;
    int rc;
    while ((rc = topic_next(t, &c, &v)) == 1) {
        uint64_t bytes;
        rc = view_bytes(&v, 0, v.count, &bytes);
        assert_true(rc == 0 ? bytes == v.length : !whole);
        rc = view_message(&v, v.offset + v.length - 1, &index, &offset);
        assert_true(rc == 0 ? index == v.count - 1 : !whole);
        read_release(&v.data);
    }
    assert_true(rc == 0 || (rc == -EMBAR_EFAULTED && !whole));
    rc = topic_seek_message(t, 5, &offset);
    assert_true(rc == 0 || rc == -EMBAR_ETRIMMED || rc == -EMBAR_EINVALID ||
                (rc == -EMBAR_EFAULTED && !whole));
    rc = topic_seek_time(t, now_realtime(), &offset);
    assert_true(rc == 0 || (rc == -EMBAR_EFAULTED && !whole));
    topic_put(t);
}

static void begin_empty(struct world *w, enum region_kind kind)
{
    memset(w, 0, sizeof *w);
    w->kind = kind;
    w->fd = memfd_create("pool", MFD_CLOEXEC);
    assert_true(w->fd >= 0);
    assert_int_equal(ftruncate(w->fd, SIZE), 0);
    w->memory = memory_of(w->fd, NULL);
}

static void begin(struct world *w)
{
    begin_empty(w, REGION_DEVDAX);
    assert_int_equal(world_open(w, NULL), 0);
    struct commit c;
    assert_int_equal(make(w, "t0"), 0);
    assert_int_equal(make(w, "t1"), 0);
    struct topic *t = topic_of(w, 0);
    struct control open = {.kind = MEDIA_C_OPEN, .id = topic_id(t)};
    assert_int_equal(control(w, open, &c), 0);
    topic_put(t);
    w->session = c.session;
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(publish(w, 0, i, 20 + i), 0);
        assert_int_equal(publish(w, 1, i, 3), 0);
        if (i == 5)
            assert_int_equal(log_checkpoint(w->log), 0);
    }
    log_close(w->log);
}

static void end(struct world *w)
{
    munmap(w->memory, SIZE);
    close(w->fd);
}

/* Everything that touches the pool, some times over. What it answers matters little: that it
 * answers, and that what is acked is acked rightly, does. */
static void use(struct world *w)
{
    for (unsigned i = 100; i < 106; i++) {
        (void)publish(w, 0, i, 30);
        (void)publish(w, 1, i, 2);
        if (i == 101)
            (void)log_checkpoint(w->log);
        if (i == 102)
            (void)(make(w, "t2") || publish(w, 2, i, 5));
        struct topic *t = topic_of(w, 1);
        if (i == 103 && t && topic_base(t) == 0) {
            struct commit c;
            struct control trim = {.kind = MEDIA_C_TRIM, .id = topic_id(t), .value = 200};
            if (control(w, trim, &c) == 0)
                w->trimmed[1] = c.offset;
        }
        if (t)
            topic_put(t);
        log_tick(w->log, now_monotonic());
        for (unsigned n = 0; n < TOPICS; n++)
            compare(w, n, false);
    }
}

/* After a fault: said once, in words, and nothing is accepted. */
static void check_refusals(struct world *w)
{
    struct log_stat st;
    log_stat_all(w->log, &st);
    assert_true(st.faulted);
    assert_int_equal(w->told, 1);
    assert_non_null(strstr(w->why, "gone at byte"));
    char buf[LOG_CAUSE_SIZE];
    assert_string_equal(log_cause(w->log, buf, sizeof buf), w->why);
    assert_int_equal(publish(w, 1, 200, 2), -EMBAR_EFAULTED);
    assert_int_equal(make(w, "late"), -EMBAR_EFAULTED);
    assert_int_equal(log_checkpoint(w->log), -EMBAR_EFAULTED);
}

/* One page is gone while the log serves (or before it is opened); then it is back. */
static bool one_page(struct world *w, uint64_t at, const struct flush *flush, bool opening)
{
    if (opening)
        take_away(w->memory + at, PAGE);
    int rc = world_open(w, flush);
    bool noticed = rc != 0;
    if (rc)
        assert_int_equal(rc, -EMBAR_EFAULTED);
    if (rc == 0) {
        if (!opening)
            take_away(w->memory + at, PAGE);
        use(w);
        noticed = region_faulted(&w->region);
        if (noticed)
            check_refusals(w);
        else
            assert_int_equal(w->told, 0);
        log_close(w->log);
    }
    memory_of(w->fd, w->memory);
    assert_int_equal(world_open(w, NULL), 0);
    for (unsigned n = 0; n < TOPICS; n++)
        compare(w, n, true);
    struct session_stat st;
    assert_int_equal(log_session(w->log, w->session, &st), 0);
    assert_true(st.sequence >= w->sequence);
    assert_int_equal(publish(w, 1, 300, 3), 0);
    log_close(w->log);
    return noticed;
}

static void each_page(const struct flush *flush, bool opening, unsigned step)
{
    struct world *w = malloc(sizeof *w);
    assert_non_null(w);
    unsigned noticed = 0, pages = 0;
    static bool used[SIZE / PAGE + 1];
    begin(w);
    assert_int_equal(world_open(w, NULL), 0);
    use(w);
    log_close(w->log);
    for (uint64_t i = 0; i < SIZE; i++)
        used[i / PAGE] = used[i / PAGE] || w->memory[i] != 0;
    end(w);
    for (uint64_t at = 0; at < SIZE; pages++) {
        begin(w);
        noticed += one_page(w, at, flush, opening);
        end(w);
        /* All that hold something, and some that may come to. */
        for (unsigned i = 0; i < step && at < SIZE && (i == 0 || !used[at / PAGE]); i++)
            at += PAGE;
    }
    print_message("%u of %u pages were missed\n", noticed, pages);
    assert_true(noticed >= 15);
    free(w);
}

static void any_page_while_serving(void **state)
{
    (void)state;
    each_page(NULL, false, 16);
}

static void any_page_while_opening(void **state)
{
    (void)state;
    each_page(NULL, true, 16);
}

static void write_backs_too(void **state)
{
    (void)state;
    const struct flush_ops *ops = flush_instruction(FLUSH_CLWB);
    if (!ops)
        ops = flush_instruction(FLUSH_CLFLUSHOPT);
    if (!ops)
        skip();
    struct flush flush = {.ops = ops};
    each_page(&flush, false, 32);
}

/* Nobody knows yet whether there is a pool. A page of what is looked at, or made one, is gone: that is
 * said, and nothing is made; when it is back one can be. */
static void any_page_of_an_empty_one(void **state)
{
    (void)state;
    static char zeros[SIZE];
    static const enum region_kind kinds[] = {REGION_DEVDAX, REGION_FILE};
    struct world *w = malloc(sizeof *w);
    assert_non_null(w);
    for (unsigned k = 0; k < 2; k++) {
        unsigned missed = 0, pages = 0;
        for (uint64_t at = 0; at < SIZE; at += at < 16 * PAGE ? PAGE : 16 * PAGE, pages++) {
            begin_empty(w, kinds[k]);
            take_away(w->memory + at, PAGE);
            int rc = world_open(w, NULL);
            if (rc == 0) /* a device's space, which nobody looks at */
                log_close(w->log);
            else
                assert_int_equal(rc, -EMBAR_EFAULTED);
            assert_int_equal(rc != 0, region_faulted(&w->region));
            memory_of(w->fd, w->memory);
            if (rc)
                assert_memory_equal(w->memory, zeros, SIZE);
            assert_int_equal(world_open(w, NULL), 0);
            assert_int_equal(make(w, "t0"), 0);
            log_close(w->log);
            end(w);
            missed += rc != 0;
        }
        print_message("%u of %u pages were missed\n", missed, pages);
        assert_true(kinds[k] == REGION_FILE ? missed == pages : missed > 20);
    }
    free(w);
}

static bool old_kernel; /* that cannot populate */

int __real_madvise(void *at, size_t n, int advice);
int __wrap_madvise(void *at, size_t n, int advice);

int __wrap_madvise(void *at, size_t n, int advice)
{
    if (!old_kernel)
        return __real_madvise(at, n, advice);
    errno = EINVAL;
    return -1;
}

/* Whoever touches pages before they are needed comes back, and it is known that one is gone. */
static void prefaulting_too(void **state)
{
    (void)state;
    struct world *w = malloc(sizeof *w);
    assert_non_null(w);
    for (unsigned k = 0; k < 3; k++) {
        begin_empty(w, REGION_FILE);
        region_wrap(&w->region, w->memory, SIZE, NULL);
        w->region.kind = k == 0 ? REGION_FILE : k == 1 ? REGION_DEVDAX : REGION_MEM;
        w->region.is_volatile = k == 2;
        if (k > 0)
            take_away(w->memory + 9 * PAGE, PAGE);
        old_kernel = true;
        region_prefault(&w->region, NULL, NULL);
        old_kernel = false;
        assert_int_equal(region_faulted(&w->region), k > 0);
        assert_true(k == 0 || atomic_load(&w->region.fault) == 9 * PAGE + 1);
        end(w);
    }
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_else_is_robbed),    cmocka_unit_test(faults_are_answers),
        cmocka_unit_test(threads_have_their_own),   cmocka_unit_test(any_page_while_serving),
        cmocka_unit_test(any_page_while_opening),   cmocka_unit_test(write_backs_too),
        cmocka_unit_test(any_page_of_an_empty_one), cmocka_unit_test(prefaulting_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
