/* One call after the other fails: a pool is made, served, checkpointed, trimmed, closed and reopened
 * while the n-th call of one name fails, for n = 1, 2, 3 and so on until a life comes through. Each
 * answer is right or an error, nothing is lost that was acked, and nothing leaks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/log_state.h"
#include "tests/fault/fault.h"
#include "tests/unit/core/fixture.h"

#define SIZE   (4ull << 20)
#define TOPICS 40u
#define MOST   4096u

struct life {
    char path[128];
    struct region region;
    struct log *log;
    bool machine;
    /* By topic: does it surely exist, or surely not; what was acked, and what was sent. */
    enum { NEVER, PERHAPS, EXISTS } made[TOPICS];
    char sent[TOPICS][MOST];
    size_t size[TOPICS], acked[TOPICS];
    uint64_t session;
};

static int life_open(struct life *l)
{
    struct embar_error err = {0};
    struct region_options ro = {.spec = l->path,
                                .size = SIZE,
                                .create = true,
                                .durability = l->machine ? MEDIA_DURABLE_MACHINE : -1};
    int rc = region_open(&l->region, &ro, &err);
    if (rc == 0) {
        struct log_options lo = {.region = &l->region,
                                 .geo.index_entries = 64,
                                 .geo.descriptors = 16,
                                 .manual = !l->machine};
        rc = log_open(&l->log, &lo, &err);
        if (rc)
            region_close(&l->region);
    }
    if (rc) {
        assert_true(strlen(err.text) > 15); /* a sentence */
        assert_int_equal(err.code, rc);
        l->log = NULL;
    }
    return rc;
}

static void life_close(struct life *l)
{
    if (!l->log)
        return;
    log_close(l->log);
    region_close(&l->region);
    l->log = NULL;
}

static void name_of(unsigned n, char *name, size_t size)
{
    snprintf(name, size, "topic-%u", n);
}

static struct topic *topic_of(const struct life *l, unsigned n)
{
    struct node_stat st;
    char name[32];
    name_of(n, name, sizeof name);
    return log_resolve(l->log, name, &st) ? NULL : log_topic(l->log, st.id);
}

/* Not there, or there though nobody was told. */
static void make(struct life *l, unsigned n)
{
    struct control c = {
        .kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = 5, .ack = 1};
    struct commit commit;
    name_of(n, c.name, sizeof c.name);
    int rc = log_control_wait(l->log, &c, &commit);
    if (rc == 0 || rc == -EEXIST)
        l->made[n] = EXISTS;
    else if (l->made[n] == NEVER)
        l->made[n] = PERHAPS;
}

static void publish(struct life *l, unsigned n, unsigned seed)
{
    char data[512];
    uint32_t lengths[8], length = 0;
    struct topic *t = topic_of(l, n);
    if (!t)
        return;
    for (uint32_t i = 0; i < 8; i++) {
        lengths[i] = (uint32_t)snprintf(data + length, sizeof data - length, "%u %u %u %s\n", n,
                                        seed, i, i % 2 ? "odd" : "quite even");
        length += lengths[i];
    }
    struct fixture f = {.log = l->log};
    struct sent s;
    int rc = fixture_send(&f, 0, &s, t, 0, 0, 0, data, length, lengths, 8);
    if (rc == 0) {
        log_commit(l->log);
        while (!atomic_load(&s.done))
            usleep(100);
        rc = s.commit.status;
        /* Refused for good, or in doubt: committed before the failure was found. */
        if (rc == 0 || rc == -EMBAR_EFAULTED) {
            memcpy(l->sent[n] + l->size[n], data, length);
            l->size[n] += length;
        }
    }
    if (rc == 0)
        l->acked[n] = l->size[n];
    topic_put(t);
}

static void check(const struct life *l)
{
    for (unsigned n = 0; n < TOPICS; n++) {
        struct topic *t = topic_of(l, n);
        assert_true(l->made[n] == PERHAPS || (t != NULL) == (l->made[n] == EXISTS));
        if (!t)
            continue;
        struct fixture f = {.log = l->log};
        (void)f;
        uint64_t base = topic_base(t);
        size_t size;
        char *got = fixture_read(t, &size);
        assert_true(base + size >= l->acked[n]);
        assert_true(base + size <= l->size[n]);
        assert_memory_equal(got, l->sent[n] + base, size);
        free(got);
        topic_put(t);
    }
}

/* A whole life; what fails, fails. Allocation that fails is over when it works again. */
static void live(struct life *l, bool allocation)
{
    for (unsigned again = 0; again < 2; again++) {
        if (life_open(l))
            continue;
        for (unsigned n = 0; n < TOPICS / 2; n++) {
            make(l, again * (TOPICS / 2) + n);
            publish(l, n, again);
        }
        struct topic *t = topic_of(l, 1);
        struct commit c;
        if (t) {
            struct control open = {.kind = MEDIA_C_OPEN, .id = topic_id(t)};
            if (log_control_wait(l->log, &open, &c) == 0)
                l->session = c.session;
            struct control trim = {.kind = MEDIA_C_TRIM, .id = topic_id(t), .value = 30};
            (void)!log_control_wait(l->log, &trim, &c);
            topic_put(t);
        }
        (void)!log_checkpoint(l->log);
        for (unsigned n = 0; n < 8; n++)
            publish(l, n, 100 + again);
        if (l->log->manual)
            log_tick(l->log, now_monotonic());
        struct log_stat st;
        log_stat_all(l->log, &st);
        if (allocation)
            assert_false(st.faulted);
        life_close(l);
    }
}

/* Every n-th call fails once; true: n was beyond the last. */
static bool trial(enum fault_name name, uint64_t n, uint64_t times, int error, bool machine)
{
    static struct life life;
    struct life *l = &life;
    memset(l, 0, sizeof *l);
    l->machine = machine;
    const char *folder = getenv("TMPDIR");
    snprintf(l->path, sizeof l->path, "%s/embar-fault-%d",
             folder && strlen(folder) < 80 ? folder : "/tmp", (int)getpid());
    (void)unlink(l->path);
    fault_set(name, n, times, error);
    live(l, error == ENOMEM && times == 1);
    bool hit = fault_hits() > 0;
    fault_set(name, 0, 0, 0);
    assert_int_equal(life_open(l), 0);
    check(l);
    publish(l, 3, 999);
    check(l);
    life_close(l);
    unlink(l->path);
    return !hit;
}

/* All n at first, then further and further apart. */
static void sweep(enum fault_name name, int error, bool machine, bool for_ever)
{
    uint64_t n = 1;
    unsigned trials = 0;
    while (!trial(name, n, for_ever ? UINT64_MAX : 1, error, machine)) {
        trials++;
        n += getenv("EMBAR_FAULT_LONG") || n < 40 ? 1 : n / 20;
    }
    print_message("%s: %u trials, up to call %llu\n", fault_text(name), trials,
                  (unsigned long long)n);
}

static void allocation_once(void **state)
{
    (void)state;
    sweep(FAULT_ALLOCATORS, ENOMEM, false, false);
}

static void allocation_in_the_background(void **state)
{
    (void)state;
    sweep(FAULT_ALLOCATORS, ENOMEM, true, false);
}

static void files(void **state)
{
    (void)state;
    sweep(FAULT_posix_fallocate, ENOSPC, false, false);
    sweep(FAULT_ftruncate, ENOSPC, false, false);
    sweep(FAULT_mmap, ENOMEM, false, false);
    sweep(FAULT_getrandom, EAGAIN, false, false);
    sweep(FAULT_madvise, EINTR, false, false);
}

static void threads(void **state)
{
    (void)state;
    sweep(FAULT_pthread_create, EAGAIN, true, false);
    sweep(FAULT_eventfd, EMFILE, true, false);
}

/* On a disk a failed sync is final. */
static void syncs(void **state)
{
    (void)state;
    sweep(FAULT_fdatasync, EIO, true, false);
    sweep(FAULT_fdatasync, EIO, true, true);
    sweep(FAULT_fdatasync, EIO, false, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocation_once), cmocka_unit_test(allocation_in_the_background),
        cmocka_unit_test(files),           cmocka_unit_test(threads),
        cmocka_unit_test(syncs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
