/* What the three files that go around a damaged index share (recovery): fsck_replay.c walks it,
 * fsck_break.c passes breaks in its chain, fsck_fold.c takes entries into the state. */
#ifndef CORE_FSCK_SALVAGE_H
#define CORE_FSCK_SALVAGE_H

#include <inttypes.h>

#include "core/fsck_state.h"

#define U64       "%" PRIu64
#define LOST_MOST 4096u /* entries rebuilt at one break */

struct salvage {
    struct fsck *f;
    struct log *log;
    struct replay *replay;
    uint64_t number; /* last entry that was dealt with */
    uint32_t chain;  /* behind it */
    uint32_t term;
    uint64_t time;    /* of the checkpoint */
    uint64_t unknown; /* session that was last said to be unknown */
    bool damaged;     /* actions may be missing */
    uint64_t trusted; /* up to here nothing may be missing */
    bool booted;
};

static inline struct fsck_range one(uint64_t number)
{
    return (struct fsck_range){number, number + 1};
}

/* fsck_fold.c: one entry (of a split batch: both), whatever it takes. */
int salvage_fold(struct salvage *v, const struct entry *e, const struct entry *part)
    __attribute__((warn_unused_result));
/* What was committed behind the topic's last known batch was announced after this time; what stands
 * about from before, and was trimmed, was not. */
uint64_t salvage_newer_than(const struct salvage *v, uint32_t topic);

/* fsck_break.c: the line for entry `number` in some slot, whatever its checksum says, or NULL. */
const struct media_entry *salvage_line(const struct salvage *v, uint64_t number);
/* The chain breaks behind v->number although it must not: go on where it stands again. */
int salvage_break(struct salvage *v) __attribute__((warn_unused_result));
/* The second half of a split batch whose entry is lost: its side record says it. */
bool salvage_part(const struct salvage *v, const struct entry *head, struct entry *part);
/* The watermark that said where the index must end is damaged: batches behind its end may have been
 * committed, and who sent them may have heard so. */
int salvage_tail(struct salvage *v) __attribute__((warn_unused_result));

#endif
