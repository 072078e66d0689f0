/* A small log on memory: see fixture.h. */
#include "tests/unit/core/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/crc.h"
#include "core/log_state.h"

static void region_make(struct fixture *f)
{
    static struct flush none;
    struct region r;
    struct region_options opt = {.spec = "mem:4M", .durability = -1};
    struct embar_error err;
    assert_int_equal(region_open(&r, &opt, &err), 0);
    none = r.flush;
    region_close(&r);
    region_wrap(&f->region, f->memory, f->size, &none);
}

static void log_make(struct fixture *f)
{
    struct embar_error err = {0};
    f->options.region = &f->region;
    int rc = log_open(&f->log, &f->options, &err);
    if (rc)
        fprintf(stderr, "log_open: %s\n", err.text);
    assert_int_equal(rc, 0);
}

void fixture_open(struct fixture *f, uint64_t entries, unsigned descriptors)
{
    memset(f, 0, sizeof *f);
    f->size = 4 << 20;
    f->memory = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f->memory, MAP_FAILED);
    region_make(f);
    f->options.geo.index_entries = entries;
    f->options.geo.descriptors = descriptors;
    log_make(f);
}

void fixture_reopen(struct fixture *f)
{
    log_close(f->log);
    log_make(f);
}

void fixture_kill(struct fixture *f)
{
    void *copy = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(copy, MAP_FAILED);
    memcpy(copy, f->memory, f->size);
    /* The old log closes on the old memory, which nobody looks at again. */
    log_close(f->log);
    munmap(f->memory, f->size);
    f->memory = copy;
    region_make(f);
    log_make(f);
}

void fixture_close(struct fixture *f)
{
    log_close(f->log);
    region_close(&f->region);
    munmap(f->memory, f->size);
}

int fixture_try(struct fixture *f, struct control c, struct commit *commit)
{
    struct commit mine;
    return log_control_wait(f->log, &c, commit ? commit : &mine);
}

uint64_t fixture_control(struct fixture *f, struct control c)
{
    struct commit commit;
    assert_int_equal(fixture_try(f, c, &commit), 0);
    return c.kind == MEDIA_C_OPEN ? commit.session : commit.id;
}

uint32_t fixture_topic(struct fixture *f, const char *name)
{
    struct control c = {
        .kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = 5, .ack = 1};
    snprintf(c.name, sizeof c.name, "%s", name);
    return (uint32_t)fixture_control(f, c);
}

struct told {
    struct completion completion;
    struct commit commit;
    atomic_bool done;
};

static void told(struct completion *self, const struct commit *commit)
{
    struct told *t = (struct told *)self;
    t->commit = *commit;
    atomic_store(&t->done, true);
}

struct commit fixture_publish(struct fixture *f, struct topic *t, uint64_t session, uint32_t epoch,
                              uint64_t sequence, const void *data, uint32_t length,
                              const uint32_t *lengths, uint32_t count)
{
    struct told done = {.completion.done = told};
    struct batch b = {.topic = t,
                      .length = length,
                      .count = count,
                      .equal = !lengths,
                      .session = session,
                      .epoch = epoch,
                      .sequence = sequence,
                      .payload_crc = crc32c(0, data, length),
                      .completion = &done.completion};
    int rc = log_reserve(f->log, &b);
    if (rc)
        return (struct commit){.status = rc};
    uint32_t n;
    for (uint32_t at = 0; at < length; at += n) {
        void *p = log_span(f->log, &b, at, &n);
        memcpy(p, (const char *)data + at, n);
        log_writeback(f->log, &b, at, n);
    }
    le32 *to = log_lengths(f->log, &b);
    for (uint32_t i = 0; to && i < count; i++)
        to[i] = le32_of(lengths[i]);
    rc = log_announce(log_producer(f->log, 0), &b);
    if (rc) {
        log_abandon(f->log, &b);
        return (struct commit){.status = rc};
    }
    log_commit(f->log);
    while (!atomic_load(&done.done))
        ;
    return done.commit;
}

char *fixture_read(struct topic *t, size_t *size)
{
    uint64_t at = topic_base(t), end = topic_end(t);
    char *out = malloc(end - at + 1);
    assert_non_null(out);
    *size = 0;
    while (at < end) {
        struct read_view v;
        assert_int_equal(topic_read(t, at, 1 << 20, &v), 0);
        assert_true(v.bytes > 0);
        for (int i = 0; i < v.pieces; i++) {
            memcpy(out + *size, v.iov[i].iov_base, v.iov[i].iov_len);
            *size += v.iov[i].iov_len;
        }
        at += v.bytes;
        read_release(&v);
    }
    return out;
}
