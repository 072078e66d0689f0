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

/* ---- Flush: does nothing, but can take a picture ------------------------------------------ */

static void *memory_new(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

static void passed(struct flush *flush)
{
    struct fixture *f = flush->state;
    if (f->countdown == 0 || --f->countdown > 0)
        return;
    f->crashed = memory_new(f->size);
    memcpy(f->crashed, f->memory, f->size);
}

static void fixture_writeback(struct flush *flush, const void *p, size_t n)
{
    (void)p;
    (void)n;
    passed(flush);
}

static void fixture_drain(struct flush *flush)
{
    passed(flush);
}

static void fixture_flush_copy(struct flush *flush, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    passed(flush);
}

static const struct flush_ops fixture_flush = {.name = "fixture",
                                               .writeback = fixture_writeback,
                                               .drain = fixture_drain,
                                               .copy = fixture_flush_copy};

/* ---- Open and close ----------------------------------------------------------------------- */

static void log_make(struct fixture *f)
{
    struct embar_error err = {0};
    f->flush = (struct flush){.ops = &fixture_flush, .state = f};
    region_wrap(&f->region, f->memory, f->size, &f->flush);
    f->region.needs_sync = f->needs_sync;
    if (f->needs_sync) {
        f->region.durability = f->machine ? MEDIA_DURABLE_MACHINE : MEDIA_DURABLE_PROCESS;
        f->region.durability_given = true;
    }
    f->options.region = &f->region;
    int rc = log_open(&f->log, &f->options, &err);
    if (rc)
        fprintf(stderr, "log_open: %s\n", err.text);
    assert_int_equal(rc, 0);
}

static void open_as(struct fixture *f, uint64_t size, const struct log_options *options, bool sync,
                    bool machine)
{
    memset(f, 0, sizeof *f);
    f->needs_sync = sync;
    f->machine = machine;
    f->size = size ? size : 4 << 20;
    f->memory = memory_new(f->size);
    f->options = *options;
    log_make(f);
}

void fixture_open_as(struct fixture *f, uint64_t size, const struct log_options *options)
{
    open_as(f, size, options, false, false);
}

void fixture_open_file(struct fixture *f, uint64_t size, const struct log_options *options,
                       bool machine)
{
    open_as(f, size, options, true, machine);
}

void fixture_open(struct fixture *f, uint64_t entries, unsigned descriptors)
{
    struct log_options options = {.geo.index_entries = entries, .geo.descriptors = descriptors};
    fixture_open_as(f, 0, &options);
}

void fixture_reopen(struct fixture *f)
{
    log_close(f->log);
    log_make(f);
}

/* What a kill leaves is what stands at that moment, whoever is writing: a race by intent. */
__attribute__((no_sanitize("thread"))) static void
copy_words(volatile uint64_t *to, const volatile uint64_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = from[i];
}

/* Between two epochs, so that the copy is of one moment but for the watermark lines. */
void *fixture_copy(struct fixture *f)
{
    void *copy = memory_new(f->size);
    seq_take_wait(f->log);
    copy_words(copy, f->memory, f->size / sizeof(uint64_t));
    seq_give(f->log);
    return copy;
}

uint64_t fixture_manifest(const struct fixture *f)
{
    const struct manifest *m = &f->log->manifest;
    uint64_t size = 0;
    for (size_t i = 0; i < m->count; i++)
        size += m->piece[i].extent ? m->piece[i].extent->size : 0;
    return size;
}

/* Not written when nothing is armed: a background thread may be looking. */
static void disarm(struct fixture *f)
{
    if (f->countdown)
        f->countdown = 0;
}

static void go_on(struct fixture *f, void *copy)
{
    /* The old log closes on the old memory, which nobody looks at again. */
    uint64_t armed = f->countdown;
    disarm(f);
    log_close(f->log);
    munmap(f->memory, f->size);
    f->memory = copy;
    if (armed)
        f->countdown = armed;
    log_make(f);
}

void fixture_kill(struct fixture *f)
{
    go_on(f, fixture_copy(f));
}

void fixture_arm(struct fixture *f, uint64_t n)
{
    assert_null(f->crashed);
    f->countdown = n;
}

bool fixture_crash(struct fixture *f)
{
    void *copy = f->crashed;
    disarm(f);
    f->crashed = NULL;
    if (copy)
        go_on(f, copy);
    return copy != NULL;
}

void fixture_close(struct fixture *f)
{
    disarm(f);
    log_close(f->log);
    region_close(&f->region);
    munmap(f->memory, f->size);
}

/* ---- Control ------------------------------------------------------------------------------ */

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

uint32_t fixture_topic_as(struct fixture *f, const char *name, struct control c)
{
    c.kind = MEDIA_C_CREATE;
    c.parent = LOG_ROOT_ID;
    c.mode = 0644;
    snprintf(c.name, sizeof c.name, "%s", name);
    return (uint32_t)fixture_control(f, c);
}

uint32_t fixture_topic(struct fixture *f, const char *name)
{
    return fixture_topic_as(f, name, (struct control){.order = 5, .ack = 1});
}

uint64_t fixture_session(struct fixture *f, uint32_t topic, uint32_t principal)
{
    return fixture_control(f,
                           (struct control){.kind = MEDIA_C_OPEN, .id = topic, .uid = principal});
}

/* ---- Publishing --------------------------------------------------------------------------- */

void fixture_told(struct completion *self, const struct commit *commit)
{
    struct sent *s = (struct sent *)self;
    s->commit = *commit;
    atomic_store(&s->done, true);
}

int fixture_send(struct fixture *f, unsigned producer, struct sent *s, struct topic *t,
                 uint64_t session, uint32_t epoch, uint64_t sequence, const void *data,
                 uint32_t length, const uint32_t *lengths, uint32_t count)
{
    memset(s, 0, sizeof *s);
    s->completion.done = fixture_told;
    s->batch = (struct batch){.topic = t,
                              .length = length,
                              .count = count,
                              .equal = !lengths,
                              .session = session,
                              .epoch = epoch,
                              .sequence = sequence,
                              .past_removal = f->past_removal,
                              .payload_crc = crc32c(0, data, length),
                              .completion = &s->completion};
    struct batch *b = &s->batch;
    int rc = log_reserve(f->log, b);
    if (rc)
        return rc;
    rc = log_store(f->log, b, 0, data, length, NULL);
    for (uint32_t i = 0; rc == 0 && lengths && i < count; i++) {
        le32 n = le32_of(lengths[i]);
        rc = log_store_lengths(f->log, b, i * 4, &n, 4);
    }
    if (rc == 0)
        rc = log_announce(log_producer(f->log, producer), b);
    if (rc)
        log_abandon(f->log, b);
    return rc;
}

struct commit fixture_publish(struct fixture *f, struct topic *t, uint64_t session, uint32_t epoch,
                              uint64_t sequence, const void *data, uint32_t length,
                              const uint32_t *lengths, uint32_t count)
{
    struct sent s;
    int rc = fixture_send(f, 0, &s, t, session, epoch, sequence, data, length, lengths, count);
    if (rc)
        return (struct commit){.status = rc};
    if (f->log->manual && background_only(f->log)) {
        seq_take_wait(f->log);
        (void)seq_epoch(f->log);
        seq_give(f->log);
    } else {
        log_commit(f->log);
    }
    while (!atomic_load(&s.done))
        ;
    return s.commit;
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

void fixture_expect(struct topic *t, const char *text)
{
    size_t n;
    char *all = fixture_read(t, &n);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(all, text, n);
    free(all);
}

uint64_t fixture_used(struct fixture *f)
{
    struct log_stat st;
    log_stat_all(f->log, &st);
    return st.used;
}
