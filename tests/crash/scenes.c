/* The scenes: see scene.h. Each is there for a rule that mutate.sh breaks and that little else notices. Must
 * never pass without having come to its state: who does not get there says so and fails. */
#include "tests/crash/scene.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/log_state.h"
#include "tests/crash/trial.h"

/* Until something comes free: as a checkpoint that found no space leaves it. */
static void no_checkpoint(struct scene *s)
{
    struct log *log = s->log;
    log->job.failed = true;
    log->job.freed = extents_freed(log->extents);
}

/* ---- Moves -------------------------------------------------------------------------------- */

/* Small batches of some topics side by side, until it is full; every second topic's go. No piece is left
 * for a large one of the first topic, though enough is free. Few topics: a checkpoint keeps space for each.
 * The last quarter is mostly of those that go: there it is cheapest to clear, and four topics end there. */
#define SOME    24u
#define LATE(i) (2 + 6 * ((i) % 4))
static unsigned turn_of(struct scene *s, unsigned i)
{
    struct extents_stat st;
    extents_stat(s->log->extents, &st);
    if (st.free - st.reserve > st.granted / 4)
        return i % SOME;
    return i % 6 == 0 ? LATE(i / 6) : (2 * i + 1) % SOME;
}

static void scatter(struct scene *s)
{
    for (unsigned i = 0; i < SOME && !s->failed; i++)
        (void)scene_topic(s);
    for (unsigned i = 0; !s->failed && scene_publish(s, turn_of(s, i), 3000 + i % 7 * 130) == 0;
         i++)
        ;
    for (unsigned i = 1; i < SOME && !s->failed; i += 2)
        scene_trim(s, i, s->topic[i].end);
    log_tick(s->log, now_monotonic()); /* on a file they are free after a sync */
    while (!s->failed && scene_publish(s, 0, s->most) == 0)
        ;
}

/* The same of second parts, whose first stand side by side elsewhere: one such batch a topic. Which one
 * waits. */
#define SPLIT 34000u /* half of an extent that holds it, and a little */
static unsigned scatter_parts(struct scene *s)
{
    unsigned n = 0;
    while (!s->failed && scene_publish(s, scene_topic(s), SPLIT) == 0) {
        unsigned between = scene_topic(s);
        for (unsigned k = 0; k < 3 && scene_publish(s, between, 4000) == 0; k++)
            ;
        n = s->topics;
    }
    for (unsigned i = 1; i < n && !s->failed; i += 2)
        scene_remove(s, i);
    log_tick(s->log, now_monotonic());
    while (!s->failed && scene_publish(s, scene_topic(s), SPLIT) == 0)
        ;
    return s->topics - 1;
}

/* A waiting batch takes what is free at once, as publishers do beside the background thread. */
static struct parcel waiting;
static unsigned waiting_topic;
static uint32_t waiting_length;

static void wait_on(struct scene *s)
{
    if (!waiting.reserved)
        (void)!scene_reserve(s, &waiting, waiting_topic, waiting_length);
}

/* The copies are durable before the entries, the old places free after them: images at all flushes of a
 * move, and of what takes the old places as soon as it can. */
static void moves(struct scene *s, unsigned topic, uint32_t length)
{
    waiting = (struct parcel){0};
    waiting_topic = topic;
    waiting_length = length;
    if (s->failed)
        return;
    if (scene_publish(s, topic, length) != -EMBAR_EFULL) {
        scene_fail(s, "nothing is in the way");
        return;
    }
    uint64_t moved = atomic_load(&s->log->moved);
    s->shooting = true;
    s->moment = wait_on;
    log_tick(s->log, now_monotonic());
    s->moment = NULL;
    if (atomic_load(&s->log->moved) == moved)
        scene_fail(s, "nothing was moved");
    int rc = waiting.reserved ? 0 : scene_reserve(s, &waiting, topic, length);
    rc = rc ? rc : scene_send(s, &waiting);
    if (rc)
        scene_fail(s, "what was moved made no place: %d", rc);
    s->shooting = false;
}

static void whole_batches_move(struct scene *s)
{
    scatter(s);
    moves(s, 0, s->most);
}

static void second_parts_move(struct scene *s)
{
    moves(s, scatter_parts(s), SPLIT);
}

/* ---- Places that are used again after a sync that no checkpoint followed --------------------- */

/* Does something of the topic stand there? */
static bool stands_at(const struct topic *t, uint64_t place)
{
    for (size_t i = 0; i < t->run_count; i++) {
        const struct run *r = topic_run(t, i);
        if (place >= r->payload && place < r->payload + (topic_run_end(t, i) - r->offset))
            return true;
    }
    return false;
}

/* The watermark that says what was synced is itself in the page cache until the next sync. Meanwhile the
 * old place of a batch above it may be another's: recovery after the machine's crash reads it there
 * no more.
 *
 * Is the end of a topic, which is above the watermark, moved, and its old place the first topic's? */
static bool move_without_checkpoint(struct scene *s)
{
    struct log *log = s->log;
    uint64_t place[4] = {0}, checkpoint = atomic_load(&log->checkpoint);
    if (background_sync(log) != 0) /* nothing waits for a sync before the one of the copies */
        scene_fail(s, "no sync");
    for (unsigned i = 0; i < 4 && !s->failed; i++) {
        struct topic *t = s->topic[LATE(i)].topic;
        if (scene_publish(s, LATE(i), 100) != 0)
            scene_fail(s, "topic %u is full", LATE(i));
        const struct run *r = topic_run(t, t->run_count - 1);
        place[i] = r->payload + (topic_end(t) - r->offset) - 1;
    }
    if (scene_publish(s, 0, s->most) != -EMBAR_EFULL || extents_waiting(log->extents))
        return false;
    chance_pass(2000000000); /* moves that failed are not tried again at once */
    s->moment = no_checkpoint;
    no_checkpoint(s);
    log_tick(log, now_monotonic());
    s->moment = NULL;
    s->shooting = true;
    bool again = scene_publish(s, 0, s->most) == 0 && atomic_load(&log->checkpoint) == checkpoint;
    s->shooting = false;
    for (unsigned i = 0; i < 4 && again; i++)
        if (!stands_at(s->topic[LATE(i)].topic, place[i]) && stands_at(s->topic[0].topic, place[i]))
            return true;
    return false;
}

static void moved_and_used_again(struct scene *s)
{
    bool again = false;
    scatter(s);
    /* What a checkpoint wrote may be in the way first. */
    for (unsigned i = 0; i < 20 && !again && !s->failed; i++) {
        again = move_without_checkpoint(s);
        s->log->job.failed = false;
        if (!again && log_checkpoint(s->log) != 0)
            scene_fail(s, "no checkpoint");
        while (!again && !s->failed && scene_publish(s, 0, s->most) == 0)
            ;
    }
    if (!again)
        scene_fail(s, "no old place was used again");
    for (unsigned i = 0; i < 6; i++)
        scene_shoot(s);
}

/* The same of what was trimmed: what came behind it is not cut. */
static void trimmed_and_used_again(struct scene *s)
{
    unsigned gone = scene_topic(s), kept = scene_topic(s), next = scene_topic(s);
    if (s->failed || background_sync(s->log) != 0 || scene_publish(s, gone, s->most) != 0 ||
        scene_publish(s, kept, 1000) != 0) {
        scene_fail(s, "it does not begin");
        return;
    }
    uint64_t place = topic_run(s->topic[gone].topic, 0)->payload;
    scene_trim(s, gone, s->topic[gone].end);
    s->shooting = !s->failed && background_sync(s->log) == 0;
    bool again = false;
    while (!s->failed && !again && scene_publish(s, next, s->most) == 0)
        again = stands_at(s->topic[next].topic, place);
    if (!again)
        scene_fail(s, "the old place was not used again");
    scene_shoot(s);
}

/* ---- What opening builds upon ------------------------------------------------------------------ */

static uint64_t root_before; /* number of the newest root, before */

static void kill_at_root(struct scene *s)
{
    struct media_root root;
    if (checkpoint_newest(s->log, &root) && le64_get(root.number) > root_before)
        scene_kill(s);
}

/* A process is killed between a root and its sync, with the index ring full to the last entry: what the
 * next one writes takes the place of what only that root can do without. */
static void root_before_ring(struct scene *s)
{
    struct log *log = s->log;
    uint64_t entries = log_pool(log)->geo.index_entries;
    struct control c = {.kind = MEDIA_C_ATTR, .id = LOG_ROOT_ID, .flags = MEDIA_A_OWNER};
    scene_topic(s);
    if (s->failed || log_checkpoint(log) != 0)
        return;
    root_before = atomic_load(&log->checkpoint);
    /* As long as there is no space for another one, what makes some may fill the ring to its end. */
    for (uint64_t i = log->seq.next; i <= root_before + entries && !s->failed; i++) {
        no_checkpoint(s);
        c.uid++;
        if (scene_control(s, c) < 0 || log->seq.next != i + 1)
            scene_fail(s, "the ring is not filled");
    }
    if (s->failed)
        return;
    log->job.failed = false;
    s->passed = kill_at_root;
    (void)!scene_control(s, c);
    if (s->passed)
        scene_fail(s, "no checkpoint was written");
    else
        scene_again(s, true);
}

/* ---- Another host ------------------------------------------------------------------------------ */

static struct look {
    struct scene *s;
    unsigned lines, overtaken; /* invalidated so far; the one before which the server goes on */
} look;

/* A lap of the ring, with what checkpoints that takes. */
static void overtake(void *arg)
{
    struct look *l = arg;
    struct scene *s = l->s;
    struct control c = {.kind = MEDIA_C_ATTR, .id = LOG_ROOT_ID, .flags = MEDIA_A_OWNER};
    uint64_t lap = log_pool(s->log)->geo.index_entries + 8;
    if (++l->lines != l->overtaken)
        return;
    for (; c.uid < lap && !s->failed; c.uid++)
        if (scene_control(s, c) < 0)
            scene_fail(s, "an action fails");
}

/* A look that the server overtakes at any of its lines, and be it the one behind the watermark, finds the end
 * of the chain where the ring went round: that is not what was acked last. */
static void overtaken_at_any_line(struct scene *s)
{
    unsigned topic = scene_topic(s);
    struct region region;
    struct log_options options = s->options;
    shadow_far_region(s->medium.shadow, &region);
    options.region = &region;
    options.boot_id = s->boot;
    options.readonly = true;
    shadow_on_invalidate(s->medium.shadow, overtake, &look);
    look = (struct look){.s = s};
    while (!s->failed && look.lines >= look.overtaken) {
        struct embar_error err = {0};
        struct log *log;
        look = (struct look){.s = s, .overtaken = look.overtaken + 1};
        if (scene_publish(s, topic, 8) != 0)
            scene_fail(s, "a batch is refused");
        uint64_t end = s->topic[topic].end;
        int rc = s->failed ? -EIO : log_open(&log, &options, &err);
        s->images++;
        if (rc) {
            scene_fail(s, "another host is refused: %s", err.text);
            break;
        }
        struct topic *t = log_topic(log, s->topic[topic].id);
        if (!t || topic_end(t) != end)
            scene_fail(s, "another host sees what was acked before the last batch");
        if (t)
            topic_put(t);
        log_close(log);
    }
    shadow_on_invalidate(s->medium.shadow, NULL, NULL);
}

/* ---- All of them ------------------------------------------------------------------------------- */

/* With so many entries in the ring; most of the space is other brokers'. */
#define SMALL(entries)                                                                             \
    {                                                                                              \
        .slots = 4, .brokers = 4, .regions = 8, .producers = 1, .descriptors = 4,                  \
        .index_entries = (entries), .block_shift = 12, .max_order = 5                              \
    }

static const struct {
    const char *name;
    void (*play)(struct scene *s);
    enum variant variant;
    size_t size;
    struct pool_geometry geo;
} scene[] = {
    {"whole batches move, lines", whole_batches_move, MEDIUM_LINES, 4 << 20, SMALL(2048)},
    {"whole batches move, file", whole_batches_move, MEDIUM_FILE, 4 << 20, SMALL(2048)},
    {"whole batches move, file-machine", whole_batches_move, MEDIUM_FILE_MACHINE, 4 << 20,
     SMALL(2048)},
    {"second parts move, lines", second_parts_move, MEDIUM_LINES, 8 << 20, {0}},
    {"second parts move, file", second_parts_move, MEDIUM_FILE, 8 << 20, {0}},
    {"second parts move, file-machine", second_parts_move, MEDIUM_FILE_MACHINE, 8 << 20, {0}},
    {"moved and used again", moved_and_used_again, MEDIUM_FILE, 8 << 20, SMALL(2048)},
    {"trimmed and used again", trimmed_and_used_again, MEDIUM_FILE, 4 << 20, SMALL(2048)},
    {"overtaken at any line", overtaken_at_any_line, MEDIUM_LINES, 4 << 20, SMALL(64)},
    {"root before ring", root_before_ring, MEDIUM_FILE_MACHINE, 4 << 20, SMALL(64)},
    {"root before ring, lines", root_before_ring, MEDIUM_LINES, 4 << 20, SMALL(64)},
};

unsigned scenes_run(const uintptr_t *skip, unsigned skips, bool listing)
{
    static struct scene s;
    unsigned failed = 0;
    uint64_t images = 0;
    for (unsigned i = 0; i < sizeof scene / sizeof *scene; i++) {
        memset(&s, 0, sizeof s);
        scene_begin(&s, scene[i].variant, scene[i].size, &scene[i].geo, skip, skips);
        if (!s.failed)
            scene[i].play(&s);
        images += s.images;
        failed += s.failed;
        if (s.failed)
            printf("%s: %s\n", scene[i].name, s.why);
        if (listing)
            medium_list_sites(&s.medium);
        scene_end(&s);
    }
    printf("scenes %zu images %llu violations %u\n", sizeof scene / sizeof *scene,
           (unsigned long long)images, failed);
    return failed;
}
