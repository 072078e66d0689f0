/* A pool with known content, damaged, checked, repaired and compared: what tests and the campaign of
 * fsck share. Uses cmocka's assertions. */
#ifndef TESTS_UNIT_CORE_FSCK_TRIAL_H
#define TESTS_UNIT_CORE_FSCK_TRIAL_H

#include "core/fsck_state.h"
#include "tests/unit/core/campaign.h"

#define TRIAL_SIZE  (4ull << 20)
#define TRIAL_AREAS 96u

struct trial_area {
    const char *name;
    uint64_t at, size;
};

struct trial_batch {
    uint64_t offset, message;
    uint32_t length, count;
    uint64_t run0, run1; /* places of the payload */
    uint32_t run0_length;
    uint64_t side, side_size; /* of the record with its lengths: from the lowest byte on */
    uint64_t number;          /* of its entry, 0: the checkpoint holds it */
    bool part_moved;          /* its second part, by itself: run1 is where it was */
};

struct trial_topic {
    uint32_t id;
    char path[MEDIA_MAX_PATH + 1];
    uint32_t mode;
    uint64_t base, end, first, messages;
    char *bytes; /* of [base, end) */
    struct trial_batch *batch;
    size_t batches;
};

struct trial {
    char *pristine, *earlier, *image; /* earlier: the pool at some moment before */
    struct trial_topic *topic;
    size_t topics, sessions;
    struct trial_area area[TRIAL_AREAS];
    unsigned areas;
    bool killed;     /* it was not closed */
    uint64_t next;   /* entry */
    uint64_t rolled; /* from this entry on the index was put back to when there was none yet */
    unsigned kind;   /* of the damage, below TRIAL_KINDS */
    bool stale;      /* the damage put back what stood there before, which proves itself */
};

/* What became of one damaged pool. */
struct trial_outcome {
    bool unrepairable; /* no superblock is left */
    size_t findings, errors;
    size_t batches, damaged, unreadable; /* live ones; hit themselves; EIO after the repair */
    size_t aside;                        /* not hit themselves, and saved aside */
    size_t rolled;                       /* not hit themselves, but of entries that were put back */
    size_t collateral;                   /* unreadable or gone, not saved, and not hit themselves */
    size_t nameless;                     /* topics that stand under another name */
    size_t missing;                      /* topics that are gone */
};

/* What kinds of damage there are; the last: two at once. */
#define TRIAL_KINDS 9u
const char *trial_kind_name(unsigned kind);

/* fsck_load.c: live in a pool for a while. It is left open, to be copied as a kill would leave it
 * (true), or was closed. earlier: as it stood at some moment. */
struct fixture;
bool trial_load(struct fixture *f, struct draws *d, char **earlier);

/* Live in another one and kill it so many times, wherever it writes back or drains; look at what each kill
 * leaves, and go on from there. */
void trial_kills(struct draws *d, unsigned kills, void (*look)(const char *killed));

void trial_build(struct trial *t, struct draws *d);
/* The pool of the fixture as it stands, which may go on. `earlier`: as it stood at some moment, or NULL; the
 * trial's from then on. */
void trial_take(struct trial *t, struct fixture *f, bool killed, char *earlier);
/* The watermarks do not tell the chain any more: nothing proves what stood at the end of the
 * index. */
void trial_unmark(struct trial *t, struct fixture *f);
void trial_free(struct trial *t);
/* Run i of the topic, which holds no split batch, goes elsewhere, as move.c does it. The entry's number. */
uint64_t trial_move(struct log *log, struct topic *t, size_t i);
/* image = pristine, then some damage; says what in text. */
void trial_damage(struct trial *t, struct draws *d, char *text, size_t size);
/* Check, repair, compare, check again; fails the test on a broken promise. `save`: a directory. */
void trial_run(struct trial *t, const char *save, struct trial_outcome *out);

/* fsck_cut.c: repair the image, but cut off at one of its operations, and repair what that left: it finds no more errors
 * than the repair that is not cut off, serves what that does, and a check finds nothing then. In at most so many of
 * the ways there are, by `d`. The image stays as it is; one that cannot be repaired is none of its business. */
void trial_cuts(struct trial *t, const char *save, struct draws d, unsigned most);

/* A private directory to save into, and its end with all that is in it. */
#define TRIAL_SAVE 32
void trial_save_make(char dir[TRIAL_SAVE]);
void trial_save_drop(const char *dir);

/* A pool to live in by hand and then take, with such a directory; the end of all that. */
void trial_open(struct fixture *f, char save[TRIAL_SAVE], const struct log_options *o);
void trial_close(struct trial *t, struct fixture *f, const char *save);

/* The image as a region, checked or repaired. */
int trial_fsck(struct trial *t, bool repair, const char *save, struct fsck_report *r,
               struct embar_error *err);
/* The log on an image, to look at or to go on with. */
int trial_image_open(struct log **log, struct region *r, char *image, bool readonly,
                     struct embar_error *err);
/* A repair as fsck_run makes it, up to where the batches were walked: for who goes on step by step. Asserts
 * that nothing was found. */
struct trial_step {
    struct region region;
    struct fsck_options options;
    struct fsck_report report;
    struct fsck fsck;
};
void trial_step_begin(struct trial_step *s, char *image, const char *save);
void trial_step_end(struct trial_step *s);
const struct fsck_finding *trial_finding(const struct fsck_report *r, enum fsck_kind kind);
void trial_print(const struct fsck_report *r);
/* The live entries, as they were: for who looks into a failure. */
void trial_entries(struct trial *t);

#endif
