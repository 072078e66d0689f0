/* What scenes are made of: see scene.h. Must never ask the log what it promised. */
#include "tests/crash/scene.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/flush_variants.h"
#include "core/log_state.h"
#include "tests/churn/oracle.h"
#include "tests/crash/trial.h"

#define EACH 8u /* images at a moment */

void scene_fail(struct scene *s, const char *fmt, ...)
{
    if (s->failed)
        return;
    s->failed = true;
    va_list args;
    va_start(args, fmt);
    vsnprintf(s->why, sizeof s->why, fmt, args);
    va_end(args);
}

/* ---- Images ------------------------------------------------------------------------------- */

/* Every byte, and every batch by its checksum. */
static bool topic_right(struct topic *t)
{
    struct batch_cursor c = {.offset = topic_base(t)};
    struct batch_view v;
    uint64_t at = c.offset;
    int rc;
    while ((rc = topic_next(t, &c, &v)) == 1) {
        uint32_t crc = 0;
        bool right = v.offset <= at;
        at = v.offset;
        for (int i = 0; i < v.data.pieces; at += v.data.iov[i++].iov_len) {
            const struct iovec *piece = &v.data.iov[i];
            right = right && oracle_equal(t->id, at, piece->iov_base, piece->iov_len);
            crc = crc32c(crc, piece->iov_base, piece->iov_len);
        }
        right = right && crc == v.payload_crc && at == v.offset + v.length;
        read_release(&v.data);
        if (!right)
            return false;
    }
    return rc == 0 && at == topic_end(t);
}

static void image_check(struct scene *s, struct log *log, bool off)
{
    for (unsigned i = 0; i < s->topics && !s->failed; i++) {
        const struct kept *k = &s->topic[i];
        if (!k->topic)
            continue;
        struct topic *t = log_topic(log, k->id);
        uint64_t must = off && s->medium.variant == MEDIUM_FILE ? k->safe : k->end;
        if (!t && off && s->medium.variant == MEDIUM_FILE && !k->made)
            continue;
        if (!t || topic_end(t) < must || topic_base(t) > k->base)
            scene_fail(s, "topic %u ends at %" PRIu64 ", not %" PRIu64, k->id, t ? topic_end(t) : 0,
                       must);
        else if (!topic_right(t))
            scene_fail(s, "topic %u holds what was never written", k->id);
        if (t)
            topic_put(t);
    }
}

static struct log_options options_of(const struct scene *s, struct region *region,
                                     const uint8_t *boot)
{
    struct log_options o = s->options;
    o.region = region;
    o.boot_id = boot;
    return o;
}

/* A crash is no damage: that is what a check says of the same moment. */
static void check(struct scene *s, uint64_t seed, enum shadow_mode mode, const uint8_t *boot)
{
    struct region region;
    char why[200];
    medium_image(&s->medium, seed, mode == SHADOW_RANDOM ? SHADOW_UNTORN : mode, &region);
    if (!witness_unharmed(&region, boot, why, sizeof why))
        scene_fail(s, "what only died is called damaged: %s", why);
}

static void shoot(struct scene *s, enum shadow_mode mode)
{
    struct region region;
    struct embar_error err = {0};
    struct log *log;
    uint8_t boot[16];
    uint64_t seed = draw(&s->random);
    bool off = mode != SHADOW_ALL_NEW; /* a process that dies alone leaves everything */
    memcpy(boot, s->boot, sizeof boot);
    boot[0] = (uint8_t)(boot[0] + off);
    if (s->images % 4 == 0)
        check(s, seed, mode, boot);
    medium_image(&s->medium, seed, mode, &region);
    struct log_options options = options_of(s, &region, boot);
    s->images++;
    if (log_open(&log, &options, &err) != 0) {
        scene_fail(s, "recovery refuses: %s", err.text);
        return;
    }
    image_check(s, log, off);
    log_drop(log, &region);
}

void scene_shoot(struct scene *s)
{
    static const enum shadow_mode first[] = {SHADOW_ALL_OLD, SHADOW_PENDING, SHADOW_ALL_NEW};
    for (unsigned i = 0; i < EACH && !s->failed; i++)
        shoot(s, i < sizeof first / sizeof *first ? first[i] : SHADOW_RANDOM);
}

static void event(void *arg, enum shadow_event event, uint64_t number)
{
    struct scene *s = arg;
    (void)number;
    if (s->medium.pages && event == SHADOW_DRAINED)
        for (unsigned i = 0; i < s->topics; i++) {
            s->topic[i].safe = s->topic[i].end;
            s->topic[i].made = true;
        }
    if (s->passed)
        s->passed(s);
    /* Not all of the many. */
    if (s->shooting && (event != SHADOW_WRITEBACK || chance(&s->random, 12)))
        scene_shoot(s);
}

static void moment(void *arg)
{
    struct scene *s = arg;
    if (!s->moment || s->between || s->failed)
        return;
    s->between = true;
    s->moment(s);
    s->between = false;
}

/* ---- Life --------------------------------------------------------------------------------- */

static void scene_open(struct scene *s, bool shooting)
{
    struct embar_error err = {0};
    medium_region(&s->medium, &s->region);
    struct log_options options = options_of(s, &s->region, s->boot);
    medium_on_event(&s->medium, event, s);
    medium_on_moment(&s->medium, moment, s);
    s->shooting = shooting;
    if (log_open(&s->log, &options, &err) != 0) {
        s->log = NULL;
        scene_fail(s, "opening: %s", err.text);
    }
}

void scene_begin(struct scene *s, enum variant variant, size_t size,
                 const struct pool_geometry *geo, const uintptr_t *skip, unsigned skips)
{
    medium_create(&s->medium, variant, size);
    for (unsigned i = 0; i < skips; i++)
        medium_skip_site(&s->medium, skip[i]);
    s->random = 1;
    s->options = (struct log_options){.manual = true, .geo = *geo};
    scene_open(s, false);
    s->most = s->log ? (uint32_t)log_pool(s->log)->max_batch : 0;
}

static void silence(struct scene *s)
{
    s->shooting = false;
    s->passed = s->moment = NULL;
    medium_on_event(&s->medium, NULL, NULL);
    medium_on_moment(&s->medium, NULL, NULL);
    s->region.flush = (struct flush){.ops = &flush_none_ops};
    s->region.needs_sync = false;
    log_fault(s->log, -EIO);
}

static void drop(struct scene *s)
{
    for (unsigned i = 0; i < s->topics; i++)
        if (s->topic[i].topic)
            topic_put(s->topic[i].topic);
    log_drop(s->log, &s->region);
    s->log = NULL;
}

void scene_end(struct scene *s)
{
    if (s->log) {
        silence(s);
        drop(s);
    }
    medium_destroy(&s->medium);
    free(s->left);
}

void scene_kill(struct scene *s)
{
    s->left = s->left ? s->left : malloc(s->medium.size);
    if (!s->left)
        abort();
    memcpy(s->left, medium_view(&s->medium), s->medium.size);
    silence(s);
}

void scene_again(struct scene *s, bool shooting)
{
    drop(s);
    medium_resume(&s->medium, s->left);
    scene_open(s, shooting);
    for (unsigned i = 0; i < s->topics && s->log; i++) {
        struct kept *k = &s->topic[i];
        if (k->topic && !(k->topic = log_topic(s->log, k->id)))
            scene_fail(s, "topic %u is gone", k->id);
    }
}

/* ---- Work --------------------------------------------------------------------------------- */

int scene_control(struct scene *s, struct control c)
{
    struct commit commit;
    int rc = log_control_wait(s->log, &c, &commit);
    return rc ? rc : (int)commit.id;
}

unsigned scene_topic(struct scene *s)
{
    unsigned i = s->topics;
    struct control c = {.kind = MEDIA_C_CREATE, .parent = LOG_ROOT_ID, .mode = 0644, .order = 5};
    snprintf(c.name, sizeof c.name, "t%u", i);
    int id = i < SCENE_TOPICS ? scene_control(s, c) : -ENOSPC;
    if (id < 0) {
        scene_fail(s, "making topic %u: %d", i, id);
        return 0;
    }
    s->topic[i] = (struct kept){.topic = log_topic(s->log, (uint32_t)id), .id = (uint32_t)id};
    return s->topics++;
}

void scene_trim(struct scene *s, unsigned topic, uint64_t base)
{
    struct kept *k = &s->topic[topic];
    int rc = scene_control(s, (struct control){.kind = MEDIA_C_TRIM, .id = k->id, .value = base});
    if (rc < 0)
        scene_fail(s, "trimming topic %u: %d", k->id, rc);
    k->base = base;
}

void scene_remove(struct scene *s, unsigned topic)
{
    struct kept *k = &s->topic[topic];
    topic_put(k->topic);
    k->topic = NULL;
    int rc = scene_control(s, (struct control){.kind = MEDIA_C_REMOVE, .id = k->id});
    if (rc < 0)
        scene_fail(s, "removing topic %u: %d", k->id, rc);
}

static void told(struct completion *self, const struct commit *c)
{
    struct parcel *p = (struct parcel *)self;
    p->status = c->status;
    p->told = true;
    if (c->status == 0)
        p->kept->end = c->offset + p->batch.length;
}

int scene_reserve(struct scene *s, struct parcel *p, unsigned topic, uint32_t length)
{
    static char bytes[1 << 17];
    struct kept *k = &s->topic[topic];
    uint64_t at = topic_end(k->topic);
    if (length > sizeof bytes)
        abort();
    oracle_fill(k->id, at, bytes, length);
    *p = (struct parcel){.completion.done = told, .kept = k};
    p->batch = (struct batch){.topic = k->topic,
                              .length = length,
                              .count = 1,
                              .equal = true,
                              .payload_crc = crc32c(0, bytes, length),
                              .completion = &p->completion};
    int rc = log_reserve(s->log, &p->batch);
    if (rc)
        return rc;
    p->reserved = true;
    return log_store(s->log, &p->batch, 0, bytes, length, NULL);
}

int scene_send(struct scene *s, struct parcel *p)
{
    int rc = log_announce(log_producer(s->log, 0), &p->batch);
    if (rc)
        return rc;
    epochs_run(s->log);
    return p->told ? p->status : -EIO;
}

int scene_publish(struct scene *s, unsigned topic, uint32_t length)
{
    struct parcel p;
    int rc = scene_reserve(s, &p, topic, length);
    return rc ? rc : scene_send(s, &p);
}
