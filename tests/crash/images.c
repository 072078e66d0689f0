/* crash-images [IMAGES [SEED]]: recovery from every state that a power failure could leave.
 *
 * A small log with tiny rings works on a shadow (shadow.h): batches, sessions, trims, names, fences,
 * checkpoints, clean and crashed reopenings, also crashes while a crash is being recovered. At the
 * flush layer's events crash images are taken, recovered and checked against a model (model.h):
 * nothing acked is lost, moved or doubled, nothing is there in part, and the recovered log works.
 *
 * crash-images --sites [IMAGES [SEED]]: leaves out one flush site after the other and tells which
 * the campaign misses: what cannot be noticed is not tested. Three are missed by their nature: the
 * claim's two (only another host depends on them) and the watermark's (it says what was durable
 * already: recovery finds the same without it). The same arguments repeat exactly.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/crc.h"
#include "core/flush_variants.h"
#include "tests/crash/model.h"
#include "tests/crash/shadow.h"

#define POOL_SIZE (4u << 20)
#define RETAIN    (150u << 10) /* bytes a topic keeps, so that space is reused all the time */

struct sent {
    struct completion completion; /* first: done() gets it */
    struct batch batch;
    unsigned topic;
    bool done;
    struct commit commit;
};

struct campaign {
    struct shadow *shadow;
    struct region region;
    struct log *log;
    struct model model;
    uint64_t random, images, want, operations, crashes;
    unsigned names; /* for names never used before */
    bool quiet;     /* no images now */
};

static uint64_t draw(struct campaign *c)
{
    uint64_t z = (c->random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static unsigned below(struct campaign *c, unsigned n)
{
    return (unsigned)(draw(c) % n);
}

__attribute__((noreturn)) static void wrong(const struct campaign *c, const char *where,
                                            const char *what)
{
    printf("after %" PRIu64 " images, %" PRIu64 " operations, %s: %s\n", c->images, c->operations,
           where, what);
    fflush(NULL);
    _exit(1);
}

/* ---- Checking an image -------------------------------------------------------------------- */

static struct log_options log_options(struct region *r)
{
    return (struct log_options){
        .region = r,
        .manual = true,
        .geo = {.slots = 2, .producers = 3, .descriptors = 8, .index_entries = 64},
    };
}

static void note(struct completion *self, const struct commit *commit)
{
    struct sent *s = (struct sent *)self;
    s->commit = *commit;
    s->done = true;
}

/* Reserve, fill and announce a batch of this length at `offset` of the topic's content. */
static int send_batch(struct log *log, struct sent *s, uint32_t id, uint64_t offset,
                      unsigned producer)
{
    static char bytes[1u << 20];
    struct batch *b = &s->batch;
    s->done = false;
    s->completion.done = note;
    b->completion = &s->completion;
    int rc = log_reserve(log, b);
    if (rc)
        return rc;
    model_fill(id, offset, bytes, b->length);
    b->payload_crc = crc32c(0, bytes, b->length);
    uint32_t n;
    for (uint32_t at = 0; at < b->length; at += n) {
        void *to = log_span(log, b, at, &n);
        if (n > b->length - at)
            n = b->length - at;
        memcpy(to, bytes + at, n);
        log_writeback(log, b, at, n);
    }
    le32 *lengths = log_lengths(log, b);
    if (lengths) {
        uint32_t left = b->length;
        for (uint32_t i = 0; i < b->count; i++) {
            uint32_t take = i + 1 == b->count ? left : b->length / b->count / 2;
            lengths[i] = le32_of(take);
            left -= take;
        }
    }
    rc = log_announce(log_producer(log, producer), b);
    if (rc)
        log_abandon(log, b);
    return rc;
}

/* A recovered log takes a batch and shows it. */
static const char *check_alive(const struct model *m, struct log *log)
{
    for (unsigned i = 0; i < MODEL_TOPICS; i++) {
        const struct model_topic *t = &m->topic[i];
        struct topic *topic = t->exists ? log_topic(log, t->id) : NULL;
        if (!topic)
            continue;
        uint64_t end = topic_end(topic);
        struct sent s = {.batch = {.topic = topic, .length = 700, .count = 1, .equal = true}};
        int rc = send_batch(log, &s, t->id, end, 0);
        if (rc == 0)
            log_commit(log);
        uint64_t now = topic_end(topic);
        topic_put(topic);
        if (rc == -EMBAR_EFULL)
            return NULL;
        return rc == 0 && s.done && s.commit.status == 0 && now == end + 700
                   ? NULL
                   : "the recovered log does not commit";
    }
    return NULL;
}

static void check_image(struct campaign *c, enum shadow_mode mode, const char *where)
{
    struct region r;
    struct log *log;
    struct embar_error err;
    shadow_image_region(c->shadow, draw(c), mode, &r);
    struct log_options opt = log_options(&r);
    c->images++;
    if (log_open(&log, &opt, &err) != 0)
        wrong(c, where, err.text);
    const char *bad = model_check(&c->model, log);
    if (!bad && below(c, 4) == 0)
        bad = check_alive(&c->model, log);
    log_close(log);
    region_close(&r);
    if (bad)
        wrong(c, where, bad);
}

static void on_event(void *arg, enum shadow_event event, uint64_t number)
{
    static const char *const names[] = {"a write-back", "a drain's beginning", "a drain's end"};
    struct campaign *c = arg;
    (void)number;
    if (c->quiet || below(c, 3) != 0)
        return;
    for (unsigned i = below(c, 6); i > 0 && c->images < c->want; i--) {
        unsigned dice = below(c, 12);
        check_image(c,
                    dice == 0   ? SHADOW_ALL_NEW
                    : dice <= 2 ? SHADOW_PENDING
                    : dice <= 4 ? SHADOW_ALL_OLD
                                : SHADOW_RANDOM,
                    names[event]);
    }
}

/* ---- Operations --------------------------------------------------------------------------- */

static unsigned some_topic(struct campaign *c, bool exists)
{
    unsigned from = below(c, MODEL_TOPICS);
    for (unsigned i = 0; i < MODEL_TOPICS; i++)
        if (c->model.topic[(from + i) % MODEL_TOPICS].exists == exists)
            return (from + i) % MODEL_TOPICS;
    return MODEL_TOPICS;
}

static void plan_batch(struct campaign *c, const struct model_topic *t, struct batch *b)
{
    unsigned kind = below(c, 10);
    uint32_t most = (uint32_t)log_pool(c->log)->max_batch;
    b->length = 1 + (kind < 6 ? below(c, 300) : kind < 9 ? below(c, 6000) : below(c, most));
    b->count = 1;
    b->equal = below(c, 2);
    if (b->length >= 64)
        b->count = 1 + below(c, 30);
    if (b->equal)
        b->length -= b->length % b->count;
    if (t->session) {
        b->session = t->session;
        b->epoch = t->epoch;
        b->sequence = t->sequence + 1;
        for (unsigned i = 0; i < t->in_flight; i++)
            b->sequence += t->flight[i].in_session;
    }
}

/* What is in flight of the topic, first one first, is acked. */
static void acked(struct campaign *c, const struct sent *s)
{
    struct model_topic *t = &c->model.topic[s->topic];
    const struct model_batch *b = &t->flight[0];
    if (!s->done || s->commit.status != 0)
        wrong(c, "publishing", "a batch was not committed");
    if (s->commit.offset != b->offset || s->commit.duplicate)
        wrong(c, "publishing", "a batch was committed elsewhere");
    t->batch[t->tail++ % MODEL_BATCHES] = *b;
    t->end += b->length;
    t->messages += b->count;
    t->sequence += b->in_session;
    t->session_messages += b->in_session ? b->count : 0;
    t->in_flight--;
    memmove(&t->flight[0], &t->flight[1], t->in_flight * sizeof(*b));
}

static void publish(struct campaign *c)
{
    struct sent sent[MODEL_FLIGHT];
    unsigned n = 0;
    unsigned want = 1 + below(c, MODEL_FLIGHT - 1);
    while (n < want) {
        unsigned i = some_topic(c, true);
        if (i == MODEL_TOPICS)
            break;
        struct model_topic *t = &c->model.topic[i];
        /* Only a session has an order among batches of one epoch. */
        if (t->in_flight > 0 && !t->session)
            break;
        struct sent *s = &sent[n];
        uint64_t offset = t->end;
        uint64_t message = t->messages;
        for (unsigned k = 0; k < t->in_flight; k++) {
            offset += t->flight[k].length;
            message += t->flight[k].count;
        }
        *s = (struct sent){.topic = i, .batch = {.topic = log_topic(c->log, t->id)}};
        plan_batch(c, t, &s->batch);
        /* In flight from the first store on: recovery may find it before announce returns. */
        t->flight[t->in_flight++] = (struct model_batch){.offset = offset,
                                                         .message = message,
                                                         .length = s->batch.length,
                                                         .count = s->batch.count,
                                                         .in_session = s->batch.session != 0};
        /* One producer a topic, so that its batches have one order. */
        int rc = send_batch(c->log, s, t->id, offset, i % 3);
        if (rc) {
            t->in_flight--;
            topic_put(s->batch.topic);
            if (rc != -EMBAR_EFULL)
                wrong(c, "reserving", embar_strerror(rc));
            break;
        }
        n++;
    }
    log_commit(c->log);
    for (unsigned i = 0; i < n; i++) {
        acked(c, &sent[i]);
        topic_put(sent[i].batch.topic);
    }
}

static int control(struct campaign *c, struct control *action, unsigned subject,
                   struct commit *commit)
{
    c->model.kind = action->kind;
    c->model.subject = subject;
    snprintf(c->model.new_name, sizeof(c->model.new_name), "%.31s", action->name);
    c->model.new_base = action->value;
    int rc = log_control_wait(c->log, action, commit);
    c->model.kind = 0;
    if (rc && rc != -EMBAR_EFULL)
        wrong(c, "a control action", embar_strerror(rc));
    return rc;
}

static void make_topic(struct campaign *c)
{
    unsigned i = some_topic(c, false);
    struct commit commit;
    if (i == MODEL_TOPICS)
        return;
    struct control a = {
        .kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = 5, .ack = 1};
    snprintf(a.name, sizeof(a.name), "topic-%u", c->names++);
    if (control(c, &a, i, &commit) != 0)
        return;
    struct model_topic *t = &c->model.topic[i];
    *t = (struct model_topic){.exists = true, .id = commit.id};
    snprintf(t->name, sizeof(t->name), "%.31s", a.name);
}

static void open_session(struct campaign *c)
{
    unsigned i = some_topic(c, true);
    struct commit commit;
    if (i == MODEL_TOPICS || c->model.topic[i].session)
        return;
    struct control a = {.kind = MEDIA_C_OPEN, .id = c->model.topic[i].id, .uid = 7};
    if (control(c, &a, i, &commit) != 0)
        return;
    c->model.topic[i].session = commit.session;
    c->model.topic[i].epoch = commit.epoch;
}

static void fence_session(struct campaign *c)
{
    unsigned i = some_topic(c, true);
    struct commit commit;
    if (i == MODEL_TOPICS || !c->model.topic[i].session)
        return;
    struct control a = {.kind = MEDIA_C_FENCE,
                        .value = c->model.topic[i].session,
                        .epoch = c->model.topic[i].epoch + 1};
    if (control(c, &a, i, &commit) == 0)
        c->model.topic[i].epoch = commit.epoch;
}

static void remove_topic(struct campaign *c)
{
    unsigned i = some_topic(c, true);
    struct commit commit;
    if (i == MODEL_TOPICS)
        return;
    struct control a = {.kind = MEDIA_C_REMOVE, .id = c->model.topic[i].id};
    if (control(c, &a, i, &commit) == 0)
        c->model.topic[i].exists = false;
}

static void rename_topic(struct campaign *c)
{
    unsigned i = some_topic(c, true);
    struct commit commit;
    if (i == MODEL_TOPICS)
        return;
    struct control a = {.kind = MEDIA_C_RENAME, .id = c->model.topic[i].id, .parent = LOG_ROOT_ID};
    snprintf(a.name, sizeof(a.name), "moved-%u", c->names++);
    if (control(c, &a, i, &commit) == 0)
        memcpy(c->model.topic[i].name, a.name, sizeof(c->model.topic[i].name));
}

/* To a batch's beginning, or all of it. */
static void trim_topic(struct campaign *c, unsigned i)
{
    struct commit commit;
    struct model_topic *t = &c->model.topic[i];
    if (t->head == t->tail)
        return;
    unsigned skip = 1 + below(c, t->tail - t->head);
    uint64_t base =
        t->head + skip == t->tail ? t->end : t->batch[(t->head + skip) % MODEL_BATCHES].offset;
    struct control a = {.kind = MEDIA_C_TRIM, .id = t->id, .value = base};
    if (control(c, &a, i, &commit) == 0)
        model_trim(t, base);
}

static void retain(struct campaign *c)
{
    for (unsigned i = 0; i < MODEL_TOPICS; i++) {
        struct model_topic *t = &c->model.topic[i];
        if (t->exists && (t->end - t->base > RETAIN || t->tail - t->head > MODEL_BATCHES / 2))
            trim_topic(c, i);
    }
}

static void open_log(struct campaign *c, const char *where)
{
    struct embar_error err;
    shadow_region(c->shadow, &c->region);
    struct log_options opt = log_options(&c->region);
    if (log_open(&c->log, &opt, &err) != 0)
        wrong(c, where, err.text);
    const char *bad = model_check(&c->model, c->log);
    if (bad)
        wrong(c, where, bad);
}

static void reopen(struct campaign *c)
{
    log_close(c->log);
    open_log(c, "reopening");
}

/* The power goes now, and what a random image holds is all that there is. Its recovery runs on the
 * shadow: images are taken of it too. */
static void crash(struct campaign *c)
{
    char *copy = malloc(POOL_SIZE);
    if (!copy)
        abort();
    memcpy(copy, shadow_image(c->shadow, draw(c), SHADOW_RANDOM), POOL_SIZE);
    c->quiet = true;
    log_close(c->log); /* the process's memory only: what it writes is loaded over */
    c->quiet = false;
    shadow_load(c->shadow, copy);
    free(copy);
    c->crashes++;
    open_log(c, "recovering");
}

static void operate(struct campaign *c)
{
    unsigned dice = below(c, 100);
    c->operations++;
    if (dice < 70)
        publish(c);
    else if (dice < 76)
        make_topic(c);
    else if (dice < 79)
        remove_topic(c);
    else if (dice < 82)
        rename_topic(c);
    else if (dice < 86)
        open_session(c);
    else if (dice < 88)
        fence_session(c);
    else if (dice < 94)
        retain(c);
    else if (dice < 96)
        reopen(c);
    else
        crash(c);
    retain(c);
    log_tick(c->log, 1); /* a checkpoint when it is due */
}

/* ---- Formatting over an old pool ---------------------------------------------------------- */

#define OLD_BYTE 0x6b

struct format {
    struct campaign *c;
    uint8_t old_uuid[16];
};

/* Whatever can be attached is one pool or the other, never the one's superblock with the other's
 * slots. */
static void check_format(struct format *f, enum shadow_mode mode, const char *where)
{
    struct region r;
    struct pool p;
    f->c->images++;
    shadow_image_region(f->c->shadow, draw(f->c), mode, &r);
    if (pool_attach(&p, &r, NULL) == 0) {
        bool is_old = memcmp(p.uuid, f->old_uuid, sizeof(p.uuid)) == 0;
        const char *slots = p.base + p.slot_base;
        for (uint64_t i = 0; i < p.slot_stride * p.geo.slots; i++)
            if (slots[i] != (is_old ? OLD_BYTE : 0))
                wrong(f->c, where, "a half-formatted pool can be attached");
    }
    region_close(&r);
}

static void on_format_event(void *arg, enum shadow_event event, uint64_t number)
{
    (void)event;
    (void)number;
    for (unsigned i = 0; i < 20; i++)
        check_format(arg, i == 0 ? SHADOW_ALL_OLD : SHADOW_RANDOM, "formatting");
}

static void format(struct campaign *c)
{
    struct format f = {.c = c};
    struct region r;
    struct pool p;
    const struct pool_geometry geo = log_options(NULL).geo;
    shadow_region(c->shadow, &r);
    if (pool_format(&r, &geo, NULL) != 0 || pool_attach(&p, &r, NULL) != 0)
        wrong(c, "formatting", "fails");
    memcpy(f.old_uuid, p.uuid, sizeof(f.old_uuid));
    memset(p.base + p.slot_base, OLD_BYTE, p.slot_stride * p.geo.slots);
    shadow_load(c->shadow, shadow_image(c->shadow, 0, SHADOW_ALL_NEW));
    shadow_on_event(c->shadow, on_format_event, &f);
    if (pool_format(&r, &geo, NULL) != 0)
        wrong(c, "formatting", "fails");
    shadow_on_event(c->shadow, NULL, NULL);
    /* Once it says that it is done, the media alone hold the new pool. */
    shadow_image_region(c->shadow, 0, SHADOW_ALL_OLD, &r);
    if (pool_attach(&p, &r, NULL) != 0 || memcmp(p.uuid, f.old_uuid, sizeof(p.uuid)) == 0)
        wrong(c, "formatting", "was not durable when it returned");
    /* The copy as well. */
    memset(r.base, 0, MEDIA_PAGE);
    if (pool_attach(&p, &r, NULL) != 0)
        wrong(c, "formatting", "left no copy of the superblock");
    region_close(&r);
}

/* skip: offset of the flush site to leave out, 0: none. */
static struct campaign *run(uint64_t images, uint64_t seed, uintptr_t skip)
{
    struct campaign *c = calloc(1, sizeof(*c));
    if (!c)
        abort();
    c->want = images;
    c->random = seed;
    c->shadow = shadow_create(POOL_SIZE);
    if (!c->shadow)
        abort();
    shadow_skip_site(c->shadow, skip);
    format(c);
    shadow_on_event(c->shadow, on_event, c);
    open_log(c, "opening the new pool");
    make_topic(c);
    while (c->images < c->want)
        operate(c);
    shadow_on_event(c->shadow, NULL, NULL);
    return c;
}

static void end(struct campaign *c)
{
    log_close(c->log);
    shadow_destroy(c->shadow);
    free(c);
}

/* One campaign a site, each in a process of its own, which ends where it notices. */
static int mutate(uint64_t images, uint64_t seed)
{
    struct campaign *c = run(images, seed, 0);
    unsigned missed = 0;
    unsigned sites = shadow_sites(c->shadow);
    for (unsigned i = 0; i < sites; i++) {
        uint64_t calls;
        bool drain;
        uintptr_t site = shadow_site(c->shadow, i, &calls, &drain);
        printf("%#" PRIxPTR " %s, %" PRIu64 " calls: ", site, drain ? "drain" : "write-back",
               calls);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            end(run(images, seed, site));
            printf("not noticed\n");
            fflush(NULL);
            _exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child)
            abort();
        missed += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (WIFSIGNALED(status))
            printf("signal %d\n", WTERMSIG(status));
    }
    end(c);
    printf("%u sites, %u not noticed\n", sites, missed);
    return 0;
}

int main(int argc, char **argv)
{
    bool sites = argc > 1 && strcmp(argv[1], "--sites") == 0;
    argc -= sites;
    argv += sites;
    uint64_t images = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    if (sites)
        return mutate(images, seed);
    struct campaign *c = run(images, seed, 0);
    printf("%" PRIu64 " images of %" PRIu64 " operations and %" PRIu64 " crashes: all recovered\n",
           c->images, c->operations, c->crashes);
    end(c);
    return 0;
}
