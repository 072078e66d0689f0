/* What a check found, kept for whoever tells it. Must never decide anything. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/fsck_state.h"

const char *fsck_kind_name(enum fsck_kind kind)
{
    static const char *const names[FSCK_KINDS] = {
        [FSCK_SUPERBLOCK] = "superblock",
        [FSCK_CLAIM] = "claim",
        [FSCK_HEARTBEAT] = "heartbeat",
        [FSCK_WATERMARK] = "watermark",
        [FSCK_ROOT] = "root",
        [FSCK_CHECKPOINT] = "checkpoint",
        [FSCK_TABLE] = "table",
        [FSCK_ENTRY] = "entry",
        [FSCK_CONTROL] = "control",
        [FSCK_SIDE] = "side",
        [FSCK_PAYLOAD] = "payload",
        [FSCK_LOST] = "lost",
        [FSCK_TOTALS] = "totals",
        [FSCK_OVERLAP] = "overlap",
        [FSCK_NODE] = "node",
        [FSCK_SESSION] = "session",
        [FSCK_KNOWN] = "known",
        [FSCK_UNPLACED] = "unplaced",
    };
    return (unsigned)kind < FSCK_KINDS ? names[kind] : "unknown";
}

const char *fsck_action_name(enum fsck_action action)
{
    static const char *const names[FSCK_ACTIONS] = {
        [FSCK_NONE] = "none", [FSCK_REWRITE] = "rewrite", [FSCK_REBUILD] = "rebuild",
        [FSCK_MARK] = "mark", [FSCK_FORGET] = "forget",   [FSCK_ADOPT] = "adopt",
    };
    return (unsigned)action < FSCK_ACTIONS ? names[action] : "unknown";
}

const char *fsck_name(struct log *log, uint32_t id, char *buf)
{
    char path[MEDIA_MAX_PATH + 1];
    if (log && log_path(log, id, path, sizeof path) == 0)
        snprintf(buf, FSCK_NAME, "%s", path[0] ? path : "/");
    else
        snprintf(buf, FSCK_NAME, "(topic %u)", id);
    return buf;
}

static void count(struct fsck_report *r, enum fsck_severity severity, size_t n)
{
    size_t *to = severity == FSCK_REMARK    ? &r->remarks
                 : severity == FSCK_WARNING ? &r->warnings
                                            : &r->errors;
    *to += n;
}

static struct fsck_finding *report_push(struct fsck_report *r)
{
    if (r->count >= FSCK_FINDINGS)
        return NULL;
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? r->capacity * 2 : 32;
        struct fsck_finding *grown = realloc(r->finding, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        r->finding = grown;
        r->capacity = capacity;
    }
    return &r->finding[r->count++];
}

/* Its bytes are saved before they change. What stays where it is needs none, nor what is saved anyway. */
static void written_push(struct fsck *f, const struct finding *what)
{
    bool stays = what->action == FSCK_MARK || what->action == FSCK_NONE;
    if (stays || what->place.to <= what->place.from || what->kind == FSCK_SUPERBLOCK)
        return;
    if (f->written_count == f->written_capacity) {
        size_t capacity = f->written_capacity ? f->written_capacity * 2 : 32;
        struct overwritten *grown = realloc(f->written, capacity * sizeof *grown);
        if (!grown) {
            f->written_short = true;
            return;
        }
        f->written = grown;
        f->written_capacity = capacity;
    }
    f->written[f->written_count++] = (struct overwritten){what->kind, what->place};
}

void fsck_say(struct fsck *f, const struct finding *what, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    char path[MEDIA_MAX_PATH + 1];
    bool named = what->id && f->log && log_path(f->log, what->id, path, sizeof path) == 0;
    pthread_mutex_lock(&f->lock);
    struct fsck_finding *to = report_push(f->report);
    count(f->report, what->severity, 1);
    written_push(f, what);
    if (to) {
        *to = (struct fsck_finding){.kind = what->kind,
                                    .severity = what->severity,
                                    .action = what->action,
                                    .topic = named ? strdup(path) : NULL,
                                    .id = what->id,
                                    .messages = what->messages,
                                    .offsets = what->offsets,
                                    .entries = what->entries,
                                    .place = what->place,
                                    .text = n < 0 ? NULL : text};
    } else {
        f->report->unread++;
        f->unlisted += what->severity != FSCK_REMARK;
        f->unlisted_left += what->severity != FSCK_REMARK && what->action == FSCK_NONE;
        free(text);
    }
    pthread_mutex_unlock(&f->lock);
}

static void finding_drop(struct fsck_finding *f)
{
    free(f->topic);
    free(f->text);
}

struct fsck_said fsck_said(const struct fsck *f)
{
    const struct fsck_report *r = f->report;
    return (struct fsck_said){.findings = r->count,
                              .errors = r->errors,
                              .warnings = r->warnings,
                              .remarks = r->remarks,
                              .unplaced = f->unplaced_count,
                              .written = f->written_count,
                              .unread = r->unread,
                              .unlisted = f->unlisted,
                              .unlisted_left = f->unlisted_left};
}

void fsck_unsay(struct fsck *f, const struct fsck_said *said)
{
    struct fsck_report *r = f->report;
    while (r->count > said->findings)
        finding_drop(&r->finding[--r->count]);
    r->errors = said->errors;
    r->warnings = said->warnings;
    r->remarks = said->remarks;
    r->unread = said->unread;
    f->unlisted = said->unlisted;
    f->unlisted_left = said->unlisted_left;
    f->written_count = said->written;
    f->unplaced_count = said->unplaced;
}

bool fsck_said_lost(struct fsck *f, uint32_t id, uint64_t from, uint64_t to)
{
    bool said = false;
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; !said && i < f->report->count; i++) {
        const struct fsck_finding *x = &f->report->finding[i];
        said = x->kind == FSCK_LOST && x->id == id && x->offsets.from < to && x->offsets.to > from;
    }
    pthread_mutex_unlock(&f->lock);
    return said;
}

void fsck_progress(const struct fsck *f, const char *stage, uint64_t done, uint64_t total)
{
    if (f->opt->progress)
        f->opt->progress(f->opt->arg, stage, done, total);
}

void fsck_report_drop(struct fsck_report *r)
{
    for (size_t i = 0; i < r->count; i++)
        finding_drop(&r->finding[i]);
    free(r->finding);
    free(r->saved);
    memset(r, 0, sizeof *r);
}
