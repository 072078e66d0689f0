/* Checking a pool, and repairing it when asked (`embar fsck`). Serves no step of a batch.
 *
 * A check reads every structure that counts: superblock and copy, slot lines, roots, the newest
 * checkpoint, the index behind it, and every batch that can still be read, with its payload. It
 * never writes. A repair writes a fresh checkpoint of what was found, beside everything that stands,
 * and the root that names it, and only then clears what tells of the damage: cut off at any moment and
 * made again it ends as it would have. What it overwrites or gives up is copied aside first.
 *
 * What cannot be brought back keeps its log offsets and answers EIO (MEDIA_RUN_DAMAGED, _LOST).
 */
#ifndef CORE_FSCK_H
#define CORE_FSCK_H

#include "core/log.h"

/* What is wrong, by the structure it was found in. The names (fsck_kind_name) are stable. */
enum fsck_kind {
    FSCK_SUPERBLOCK,
    FSCK_CLAIM,
    FSCK_HEARTBEAT,
    FSCK_WATERMARK,
    FSCK_ROOT,
    FSCK_CHECKPOINT, /* manifest: names, attributes, sessions, grants */
    FSCK_TABLE,      /* where a topic's batches stand */
    FSCK_ENTRY,      /* the index */
    FSCK_CONTROL,    /* the record of a control action */
    FSCK_SIDE,       /* a batch's side record */
    FSCK_PAYLOAD,
    FSCK_LOST,    /* bytes of a topic that nothing stands for any more */
    FSCK_TOTALS,  /* sums that do not agree */
    FSCK_OVERLAP, /* a place that two batches claim */
    FSCK_NODE,    /* a topic or directory without its name or place */
    FSCK_SESSION,
    FSCK_KNOWN,    /* damage that an earlier repair noted */
    FSCK_UNPLACED, /* a whole batch whose place in its topic is not known */
    FSCK_KINDS
};
const char *fsck_kind_name(enum fsck_kind kind);

/* What repair does about it. The names (fsck_action_name) are stable. */
enum fsck_action {
    FSCK_NONE,
    FSCK_REWRITE, /* write the structure anew from what stands elsewhere */
    FSCK_REBUILD, /* found again by other traces, and written anew; nothing is lost */
    FSCK_MARK,    /* keep it in place, its offsets answer EIO */
    FSCK_FORGET,  /* leave out what cannot be read */
    FSCK_ADOPT,   /* give it a name in the root directory */
    FSCK_ACTIONS
};
const char *fsck_action_name(enum fsck_action action);

enum fsck_severity {
    FSCK_REMARK,  /* nothing to do */
    FSCK_WARNING, /* damaged, and nothing is lost by it */
    FSCK_ERROR,   /* data, names or sessions are hit */
};

struct fsck_range {
    uint64_t from, to; /* [from, to); both 0: none */
};

struct fsck_finding {
    enum fsck_kind kind;
    enum fsck_severity severity;
    enum fsck_action action;
    bool repaired;
    char *topic; /* path, or NULL; owned */
    uint32_t id; /* of the topic or directory, 0: none */
    struct fsck_range messages, offsets, entries;
    struct fsck_range place; /* in the pool */
    char *text;              /* sentences: what is wrong, what it means; owned */
};

struct fsck_report {
    struct fsck_finding *finding;
    size_t count, capacity;
    size_t errors, warnings, remarks; /* by severity */
    size_t left;                      /* not remarks, and not repaired */
    uint64_t unread;                  /* further findings that were only counted */
    uint64_t topics, directories, sessions, entries, batches, messages, bytes;
    uint64_t
        compared; /* records and runs, to find which belong together: as many as the pool holds, or a few times */
    bool quick;    /* payloads were not read */
    bool repaired; /* something was written */
    char *saved;   /* directory with what was dropped, NULL: nothing was; owned */
    uint64_t saved_bytes;
};

struct fsck_options {
    struct region *region; /* open; repair: for writing */
    bool repair;
    bool quick;             /* skip payloads */
    unsigned threads;       /* 0: one a processor, at most 16 */
    const char *save;       /* repair: where the directory of what is dropped is made */
    const uint8_t *boot_id; /* tests, as in struct log_options */
    void (*progress)(void *arg, const char *stage, uint64_t done, uint64_t total);
    void *arg;
};

/* 0: the check was made, see the report. Negative: it could not be made, and err says why
 * (-EMBAR_ENOTPOOL, -EMBAR_EVERSION, -EMBAR_EFEATURE, -EMBAR_EBUSY while somebody serves it, ...). The report is to be dropped in any case. */
int fsck_run(const struct fsck_options *opt, struct fsck_report *report, struct embar_error *err)
    __attribute__((warn_unused_result));
void fsck_report_drop(struct fsck_report *report);

#endif
