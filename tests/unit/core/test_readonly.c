/* A pool in a file, looked at by one process while another serves it, and after that one was
 * killed: the looker sees what was acked, changes nothing and is refused what it may not do. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/log_state.h"
#include "tests/unit/core/fixture.h"
#include "tests/unit/core/model.h"

#define POOL_SIZE (8ull << 20)

struct place {
    char directory[64], path[96];
};

static int place_make(void **state)
{
    static struct place p;
    snprintf(p.directory, sizeof p.directory, "%s/embar-readonly-XXXXXX",
             getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 30 ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(p.directory))
        return -1;
    snprintf(p.path, sizeof p.path, "%s/pool", p.directory);
    *state = &p;
    return 0;
}

static int place_drop(void **state)
{
    struct place *p = *state;
    unlink(p->path);
    return rmdir(p->directory);
}

static int pool_open(struct fixture *f, const struct place *p, bool readonly, bool manual,
                     struct embar_error *err)
{
    memset(f, 0, sizeof *f);
    struct region_options o = {.spec = p->path,
                               .size = readonly ? 0 : POOL_SIZE,
                               .create = !readonly,
                               .readonly = readonly,
                               .durability = -1};
    int rc = region_open(&f->region, &o, err);
    if (rc)
        return rc;
    f->options = (struct log_options){.region = &f->region, .readonly = readonly, .manual = manual};
    f->options.geo.index_entries = 64;
    rc = log_open(&f->log, &f->options, err);
    if (rc)
        region_close(&f->region);
    return rc;
}

static void pool_close(struct fixture *f)
{
    log_close(f->log);
    region_close(&f->region);
}

/* Line n of the topic. */
static int line_of(unsigned n, char *line)
{
    return sprintf(
        line, "%u%.*s\n", n, (int)(n % 90),
        "abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz "
        "abcdefghijk");
}

/* The other process: publishes as many lines as it is asked for and tells how many were acked, in
 * shared memory after each and by the pipe at the end, until it is killed or the pipe is closed. */
static void serve(const struct place *p, atomic_uint *shared, int told, int wanted)
{
    struct fixture f;
    struct embar_error err;
    if (pool_open(&f, p, false, false, &err))
        _exit(1);
    struct topic *t = NULL;
    unsigned acked = 0, want;
    while (read(wanted, &want, sizeof want) == sizeof want) {
        if (!t)
            t = log_topic(f.log, fixture_topic(&f, "t"));
        for (unsigned i = 0; i < want; i++) {
            char line[128];
            int n = line_of(acked, line);
            int rc;
            while ((rc = fixture_publish(&f, t, 0, 0, 0, line, (uint32_t)n, NULL, 1).status))
                if (rc != -EMBAR_EFULL || usleep(1000) != 0)
                    _exit(2);
            atomic_store(shared, ++acked);
        }
        if (write(told, &acked, sizeof acked) != sizeof acked)
            break;
    }
    topic_put(t);
    pool_close(&f);
    _exit(0);
}

struct server {
    pid_t pid;
    int told, wanted;
    atomic_uint *acked;
};

static void server_start(struct server *s, const struct place *p)
{
    int told[2], wanted[2];
    assert_int_equal(pipe(told), 0);
    assert_int_equal(pipe(wanted), 0);
    s->acked =
        mmap(NULL, sizeof *s->acked, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(s->acked, MAP_FAILED);
    fflush(NULL);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        close(told[0]);
        close(wanted[1]);
        serve(p, s->acked, told[1], wanted[0]);
    }
    close(told[1]);
    close(wanted[0]);
    s->told = told[0];
    s->wanted = wanted[1];
}

static void server_publish(struct server *s, unsigned n)
{
    unsigned want = atomic_load(s->acked) + n, acked;
    assert_int_equal(write(s->wanted, &n, sizeof n), sizeof n);
    assert_int_equal(read(s->told, &acked, sizeof acked), sizeof acked);
    assert_int_equal(acked, want);
}

static void server_end(struct server *s, int signal)
{
    int status;
    if (signal)
        kill(s->pid, signal);
    close(s->wanted);
    close(s->told);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    if (!signal)
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* At least `least` lines, and nothing but lines. Returns how many. */
static unsigned expect_lines(struct fixture *f, unsigned least)
{
    struct node_stat st;
    assert_int_equal(log_resolve(f->log, "t", &st), 0);
    struct topic *t = log_topic(f->log, st.id);
    size_t n, at = 0;
    char *all = fixture_read(t, &n);
    unsigned lines = 0;
    for (; at < n; lines++) {
        char line[128];
        size_t length = (size_t)line_of(lines, line);
        assert_true(at + length <= n);
        assert_memory_equal(all + at, line, length);
        at += length;
    }
    free(all);
    assert_int_equal(st.messages, lines);
    topic_put(t);
    assert_true(lines >= least);
    return lines;
}

static char *file_read(const struct place *p)
{
    int fd = open(p->path, O_RDONLY);
    char *all = malloc(POOL_SIZE);
    assert_int_equal(pread(fd, all, POOL_SIZE, 0), POOL_SIZE);
    close(fd);
    return all;
}

static void looks_while_another_serves(void **state)
{
    const struct place *p = *state;
    struct server s;
    struct fixture f;
    struct embar_error err = {0};
    unlink(p->path);
    server_start(&s, p);
    server_publish(&s, 100);
    for (unsigned round = 0; round < 20; round++) {
        server_publish(&s, 37);
        assert_int_equal(pool_open(&f, p, true, true, &err), 0);
        assert_int_equal(expect_lines(&f, 0), atomic_load(s.acked));
        pool_close(&f);
    }
    /* The slot is taken. */
    assert_int_equal(pool_open(&f, p, false, true, &err), -EMBAR_EBUSY);
    assert_true(strlen(err.text) > 10);
    /* It goes on meanwhile: what is seen is a prefix. */
    unsigned many = 1000000, seen = 0, refused = 0;
    assert_int_equal(write(s.wanted, &many, sizeof many), sizeof many);
    for (unsigned i = 0; i < 60; i++) {
        unsigned acked = atomic_load(s.acked);
        for (unsigned k = 0; k < 100 && atomic_load(s.acked) < acked + 5; k++)
            usleep(1000);
        acked = atomic_load(s.acked);
        int rc = pool_open(&f, p, true, true, &err);
        if (rc) {
            assert_true(strlen(err.text) > 10);
            refused++;
            continue;
        }
        seen++;
        (void)expect_lines(&f, acked);
        pool_close(&f);
    }
    print_message("while it was served: %u looks, %u came to nothing\n", seen, refused);
    assert_int_equal(refused, 0);
    server_end(&s, SIGKILL);
}

static void looks_after_a_kill(void **state)
{
    const struct place *p = *state;
    unlink(p->path);
    for (unsigned round = 0; round < campaign_rounds(5); round++) {
        struct server s;
        struct fixture f;
        struct embar_error err = {0};
        unlink(p->path);
        server_start(&s, p);
        server_publish(&s, 50 + round);
        unsigned many = 1000000;
        assert_int_equal(write(s.wanted, &many, sizeof many), sizeof many);
        while (atomic_load(s.acked) < 100 * round)
            usleep(100);
        server_end(&s, SIGKILL);
        unsigned acked = atomic_load(s.acked);
        char *before = file_read(p);
        assert_int_equal(pool_open(&f, p, true, true, &err), 0);
        unsigned lines = expect_lines(&f, acked);
        struct control c = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .name = "x"};
        struct commit commit;
        assert_int_equal(log_control_wait(f.log, &c, &commit), -EROFS);
        struct node_stat st;
        assert_int_equal(log_resolve(f.log, "t", &st), 0);
        struct topic *t = log_topic(f.log, st.id);
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, "x", 1, NULL, 1).status, -EROFS);
        topic_put(t);
        assert_int_equal(log_checkpoint(f.log), -EROFS);
        log_tick(f.log, now_monotonic());
        pool_close(&f);
        char *after = file_read(p);
        assert_memory_equal(before, after, POOL_SIZE);
        free(before);
        free(after);
        assert_int_equal(pool_open(&f, p, false, true, &err), 0);
        assert_int_equal(expect_lines(&f, acked), lines);
        pool_close(&f);
        assert_int_equal(pool_open(&f, p, true, true, &err), 0);
        assert_int_equal(expect_lines(&f, acked), lines);
        pool_close(&f);
    }
}

static void looks_at_what_is_no_pool(void **state)
{
    const struct place *p = *state;
    struct fixture f;
    struct embar_error err = {0};
    unlink(p->path);
    assert_int_equal(pool_open(&f, p, true, true, &err), -ENOENT);
    assert_true(strlen(err.text) > 10);
    int fd = open(p->path, O_CREAT | O_RDWR, 0600);
    assert_int_equal(ftruncate(fd, (off_t)POOL_SIZE), 0);
    assert_int_equal(pool_open(&f, p, true, true, &err), -EMBAR_ENOTPOOL);
    assert_int_equal(pwrite(fd, "hello", 5, 100), 5);
    assert_int_equal(pool_open(&f, p, true, true, &err), -EMBAR_ENOTPOOL);
    close(fd);
}

/* The machine stopped when the first entry of a split batch had reached the media and half of the second,
 * and nobody serves the pool since: who looks is told the truth about what is there, as often as asked. */
static void half_a_batch_is_no_change(void **state)
{
    (void)state;
    static char data[30000];
    struct fixture f;
    struct log_options o = {.manual = true};
    fixture_open_as(&f, 0, &o);
    struct topic *t = log_topic(f.log, fixture_topic(&f, "t"));
    const struct media_entry *last;
    uint64_t number, end;
    uint32_t length = 0;
    do {
        end = topic_end(t);
        length = 5000 + (length + 7919) % 25000; /* some day one is split */
        assert_int_equal(fixture_publish(&f, t, 0, 0, 0, data, length, NULL, 1).status, 0);
        number = atomic_load(&f.log->committed);
        last = pool_entry(log_pool(f.log), 0, number);
    } while (last->kind != MEDIA_PART);
    uint32_t id = topic_id(t);
    topic_put(t);
    for (unsigned torn = 3; torn-- > 0;) {
        struct region region;
        struct embar_error err = {0};
        struct log *log;
        char *copy = fixture_copy(&f);
        region_wrap(&region, copy, f.size, &f.flush);
        struct media_entry *part =
            (struct media_entry *)(copy + ((const char *)last - (char *)f.memory));
        if (torn == 0)
            memset(part, 0, sizeof *part);
        else
            memset((char *)part + (torn == 1 ? 8 : 40), 0, 8);
        for (unsigned which = 0; which < 2; which++)
            memset(copy + ((char *)pool_watermark(log_pool(f.log), 0, which) - (char *)f.memory), 0,
                   MEDIA_LINE);
        struct log_options look = {.region = &region, .readonly = true};
        assert_int_equal(log_open(&log, &look, &err), 0);
        struct topic *seen = log_topic(log, id);
        assert_int_equal(topic_end(seen), end);
        assert_int_equal(log_settled(log), 0);
        assert_int_equal(log_settled(log), 0);
        /* The line changes: somebody serves. */
        part->length = le32_of(le32_get(part->length) + 1);
        assert_int_equal(log_settled(log), -ESTALE);
        topic_put(seen);
        log_close(log);
        munmap(copy, f.size);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_a_batch_is_no_change),
        cmocka_unit_test_setup_teardown(looks_while_another_serves, place_make, place_drop),
        cmocka_unit_test_setup_teardown(looks_after_a_kill, place_make, place_drop),
        cmocka_unit_test_setup_teardown(looks_at_what_is_no_pool, place_make, place_drop),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
