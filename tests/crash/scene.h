/* Scenes: states that random lives come by too rarely to be relied on, made on purpose.
 *
 * A scene is a log on modelled memory, with one thread and no ledger: what any byte must be follows
 * from topic and log offset (tests/churn/oracle.h), and what must be there is noted by topic. scene.c
 * has what scenes are made of, scenes.c what they are.
 */
#ifndef TESTS_CRASH_SCENE_H
#define TESTS_CRASH_SCENE_H

#include "core/log.h"
#include "tests/crash/medium.h"

#define SCENE_TOPICS 400u

struct scene {
    struct medium medium;
    struct region region;
    struct log_options options;
    uint8_t boot[16];
    struct log *log;
    uint32_t most; /* bytes of the largest batch */
    struct kept {
        struct topic *topic; /* NULL: removed, or nothing is promised of it */
        uint32_t id;
        uint64_t base, end; /* as acked */
        uint64_t safe;      /* of end: what the last completed sync took to the disk, */
        bool made;          /* and did it take the topic */
    } topic[SCENE_TOPICS];
    unsigned topics;
    bool shooting;                   /* images are taken at the flushes */
    void (*passed)(struct scene *s); /* called at each flush, before; and around it: */
    void (*moment)(struct scene *s); /* what another thread does meanwhile, */
    bool between;                    /* and it does */
    char *left;                      /* what the caches held when it was killed */
    uint64_t random, images;
    bool failed;
    char why[256];
};

/* A batch on its way. Stays in place until it was told. */
struct parcel {
    struct completion completion;
    struct batch batch;
    struct kept *kept;
    int status;
    bool reserved, told;
};

void scene_fail(struct scene *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A pool on fresh memory, which leaves out these calls; give it up. */
void scene_begin(struct scene *s, enum variant variant, size_t size,
                 const struct pool_geometry *geo, const uintptr_t *skip, unsigned skips);
void scene_end(struct scene *s);
/* The process is killed here, at a flush too: nothing that it still does reaches the memory. The next one,
 * on the same boot, opens what the caches held by then. */
void scene_kill(struct scene *s);
void scene_again(struct scene *s, bool shooting);

/* An empty topic: which one. */
unsigned scene_topic(struct scene *s);
/* Another action: its id, or why not. */
int scene_control(struct scene *s, struct control c);
void scene_trim(struct scene *s, unsigned topic, uint64_t base);
void scene_remove(struct scene *s, unsigned topic);

/* Space for so many bytes, stored; told in time. */
int scene_reserve(struct scene *s, struct parcel *p, unsigned topic, uint32_t length);
int scene_send(struct scene *s, struct parcel *p);
int scene_publish(struct scene *s, unsigned topic, uint32_t length);

/* Images of this moment: all that was promised is there in each. */
void scene_shoot(struct scene *s);

/* All of them. Returns how many failed, having said so; listing: the call sites that they came by. */
unsigned scenes_run(const uintptr_t *skip, unsigned skips, bool listing);

#endif
