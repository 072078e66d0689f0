/* `embar fsck`: check a pool that nobody serves, and repair it when asked. Serves no step of a batch.
 * Must never write to the pool without --repair.
 */
#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/fsck.h"
#include "net/cmd/cmd.h"
#include "net/mounts.h"
#include "net/program.h"

/* As those of e2fsck. */
#define FSCK_OK       0
#define FSCK_REPAIRED 1
#define FSCK_LEFT     4
#define FSCK_FAILED   8
#define FSCK_USAGE    16

struct fsck_args {
    const char *spec, *save;
    bool repair, quick, json;
    unsigned threads;
};

enum { KEY_REPAIR = 256, KEY_QUICK, KEY_JSON, KEY_SAVE, KEY_THREADS };

static const struct argp_option options[] = {
    {"repair", KEY_REPAIR, NULL, 0, "Write what can be put right; without it nothing is changed",
     1},
    {"save", KEY_SAVE, "DIR", 0,
     "With --repair: where a directory with what is overwritten or given up is made (default: "
     "beside "
     "the pool)",
     1},
    {"quick", KEY_QUICK, NULL, 0, "Skip the payloads: structures and records only", 1},
    {"threads", KEY_THREADS, "N", 0, "Threads that read messages (default: one a processor)", 1},
    {"json", KEY_JSON, NULL, 0, "One JSON object on standard output", 1},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct fsck_args *a = state->input;
    uint64_t n;
    switch (key) {
    case KEY_REPAIR: a->repair = true; return 0;
    case KEY_QUICK: a->quick = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case KEY_SAVE: a->save = arg; return 0;
    case KEY_THREADS:
        if (!parse_number(arg, 1024, &n) || n == 0)
            argp_error(state, "--threads %s is not a number from 1 to 1024", arg);
        a->threads = (unsigned)n;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one pool at a time: what is \"%s\"?", arg);
        a->spec = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->save && !a->repair)
            argp_error(state, "--save goes with --repair: a check drops nothing");
        if (a->quick && a->repair)
            argp_error(state, "--repair reads the payloads too: leave --quick out");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- Progress --------------------------------------------------------------------------------- */

struct progress {
    bool shown;
    double next; /* seconds, CLOCK_MONOTONIC */
};

static void progress_show(void *arg, const char *stage, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    double now = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
    if (p->next == 0)
        p->next = now + 1; /* what is done within a second needs no bar */
    if (now < p->next || total == 0)
        return;
    p->next = now + 0.2;
    p->shown = true;
    dprintf(STDERR_FILENO, "\r%s: %3.0f %%  \033[K", stage, 100.0 * (double)done / (double)total);
}

static void progress_clear(struct progress *p)
{
    if (p->shown)
        dprintf(STDERR_FILENO, "\r\033[K");
}

/* ---- Telling ---------------------------------------------------------------------------------- */

static const char *severity_name(enum fsck_severity severity)
{
    return severity == FSCK_ERROR ? "error" : severity == FSCK_WARNING ? "warning" : "remark";
}

static const char *action_text(const struct fsck_finding *f)
{
    switch (f->action) {
    case FSCK_REWRITE:
        return f->repaired ? "Written anew." : "A repair writes it anew; nothing is lost by that.";
    case FSCK_REBUILD: return f->repaired ? "Rebuilt." : "A repair writes down what was found.";
    case FSCK_MARK:
        return f->repaired
                   ? "Noted: reading it answers an input/output error, all else keeps its place."
                   : "A repair notes it, so that all else can be read and keeps its place.";
    case FSCK_FORGET:
        return f->repaired ? "Left out." : "A repair leaves it out, and saves its bytes.";
    case FSCK_ADOPT: return f->repaired ? "Named so." : "A repair gives it that name.";
    default: return "";
    }
}

static void finding_print(const struct fsck_finding *f)
{
    /* Names of a damaged pool are whatever stands there. */
    char *topic = f->topic ? text_plain(f->topic) : NULL,
         *text = text_plain(f->text ? f->text : "");
    printf("%s, %s%s%s: %s %s\n", severity_name(f->severity), fsck_kind_name(f->kind),
           topic ? " of " : "", topic ? topic : "", text ? text : "", action_text(f));
    free(topic);
    free(text);
}

static void report_print(const char *spec, const struct fsck_report *r, const struct fsck_args *a)
{
    char bytes[32];
    for (size_t i = 0; i < r->count; i++)
        finding_print(&r->finding[i]);
    if (r->unread)
        printf("and %llu findings more.\n", (unsigned long long)r->unread);
    printf("%s: %llu topics, %llu directories, %llu sessions, %llu batches with %llu messages "
           "(%s)%s. ",
           spec, (unsigned long long)r->topics, (unsigned long long)r->directories,
           (unsigned long long)r->sessions, (unsigned long long)r->batches,
           (unsigned long long)r->messages, text_bytes(r->bytes, bytes, sizeof(bytes)),
           r->quick ? ", payloads not read" : "");
    if (r->errors + r->warnings == 0)
        printf("%s\n", r->remarks ? "Nothing new is wrong." : "Nothing is wrong.");
    else
        printf("%zu error%s, %zu warning%s. ", r->errors, r->errors == 1 ? "" : "s", r->warnings,
               r->warnings == 1 ? "" : "s");
    if (r->errors + r->warnings > 0 && !a->repair)
        printf("Nothing was changed; `embar fsck --repair` puts right what can be.\n");
    else if (r->errors + r->warnings > 0)
        printf("%s\n", r->left ? "Not all of it could be repaired." : "All of it was repaired.");
    if (r->saved)
        printf("What was overwritten or given up is saved in %s (index.txt says what it was).\n",
               r->saved);
}

static void range_json(json_t *o, const char *name, struct fsck_range range)
{
    if (range.from || range.to)
        json_object_set_new(o, name,
                            json_pack("[I, I]", (json_int_t)range.from, (json_int_t)range.to));
}

static json_t *finding_json(const struct fsck_finding *f)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:b}", "kind", fsck_kind_name(f->kind), "severity",
                          severity_name(f->severity), "action", fsck_action_name(f->action),
                          "repaired", (int)f->repaired);
    if (f->topic)
        json_object_set_new(o, "topic", json_string(f->topic));
    if (f->id)
        json_object_set_new(o, "id", json_integer(f->id));
    range_json(o, "messages", f->messages);
    range_json(o, "offsets", f->offsets);
    range_json(o, "entries", f->entries);
    range_json(o, "place", f->place);
    json_object_set_new(o, "text", json_string(f->text ? f->text : ""));
    return o;
}

static int report_json(const char *spec, const struct fsck_report *r)
{
    json_t *findings = json_array();
    for (size_t i = 0; i < r->count; i++)
        json_array_append_new(findings, finding_json(&r->finding[i]));
    json_t *o = json_pack(
        "{s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
        "pool", spec, "clean", r->errors + r->warnings == 0, "repaired", (int)r->repaired, "quick",
        (int)r->quick, "errors", (json_int_t)r->errors, "warnings", (json_int_t)r->warnings,
        "remarks", (json_int_t)r->remarks, "left", (json_int_t)r->left, "uncounted",
        (json_int_t)r->unread, "topics", (json_int_t)r->topics, "directories",
        (json_int_t)r->directories, "sessions", (json_int_t)r->sessions, "entries",
        (json_int_t)r->entries, "batches", (json_int_t)r->batches, "messages",
        (json_int_t)r->messages, "bytes", (json_int_t)r->bytes, "findings", findings);
    if (!o)
        return -ENOMEM;
    if (r->saved)
        json_object_set_new(o, "saved", json_string(r->saved));
    int rc = json_dumpf(o, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF ? 0 : -EIO;
    json_decref(o);
    return rc;
}

/* ---- Doing ------------------------------------------------------------------------------------- */

static int open_pool(struct region *r, const struct fsck_args *a, struct embar_error *err)
{
    struct region_options o = {.spec = a->spec, .readonly = !a->repair, .durability = -1};
    int rc = region_open(r, &o, err);
    if (rc)
        return mounted_explain(a->spec, rc, err);
    if (r->fd < 0)
        rc = embar_fail(err, -EMBAR_ESPEC,
                        "%s is memory that this command itself would make: name a "
                        "file or a device.",
                        r->spec);
    else if (pool_is_blank(r))
        rc = embar_fail(
            err, -EMBAR_ENOTPOOL,
            "%s is blank, so there is nothing to check: `embar pool create` makes a pool.",
            r->spec);
    if (rc)
        region_close(r);
    return rc;
}

/* Beside a file; what a device drops, in the directory of the user's state. malloc'd. */
static char *save_directory(const struct region *r)
{
    char *path = strncmp(r->spec, "/dev/", 5) == 0 ? region_default_spec(true) : strdup(r->spec);
    char *directory = path ? strdup(dirname(path)) : NULL;
    free(path);
    return directory;
}

static int run(const char *name, const struct fsck_args *a)
{
    struct region r;
    struct embar_error err;
    struct fsck_report report = {0};
    struct progress progress = {0};
    if (open_pool(&r, a, &err) != 0) {
        cmd_fail(name, &err);
        return FSCK_FAILED;
    }
    char *save = a->save ? strdup(a->save) : save_directory(&r);
    struct fsck_options o = {.region = &r,
                             .repair = a->repair,
                             .quick = a->quick,
                             .threads = a->threads,
                             .save = save,
                             .progress = isatty(STDERR_FILENO) ? progress_show : NULL,
                             .arg = &progress};
    struct mounts_wait wait = {0};
    int rc;
    while ((rc = fsck_run(&o, &report, &err)) == -EMBAR_EBUSY && held_wait(&wait, name, &r, &err))
        fsck_report_drop(&report);
    rc = mounted_explain(r.spec, rc, &err);
    progress_clear(&progress);
    int status = report.left ? FSCK_LEFT : report.repaired ? FSCK_REPAIRED : FSCK_OK;
    /* What was found before it failed is worth knowing. */
    if (rc == 0 || report.count > 0) {
        if (!a->json)
            report_print(r.spec, &report, a);
        else if (report_json(r.spec, &report) != 0)
            status = FSCK_FAILED;
    }
    if (rc) {
        cmd_fail(name, &err);
        status = FSCK_FAILED;
    }
    fsck_report_drop(&report);
    region_close(&r);
    free(save);
    return status;
}

int cmd_fsck(int argc, char **argv)
{
    const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "[POOL]",
        .doc =
            "Check a pool (a file or a device; default: the user's pool) that nobody serves, down "
            "to the checksum of every message, and say what is wrong. With --repair, put right "
            "what can be: whatever is whole stays readable at its place, what is damaged answers "
            "an input/output error.\v"
            "Exit status: 0 nothing is wrong, 1 all that was wrong is repaired, 4 something is "
            "wrong and was not repaired, 8 the check could not be made, 16 wrong usage.",
    };
    struct fsck_args a = {0};
    program_begins(argv[0], FSCK_FAILED);
    cmd_parse_status(&argp, argc, argv, &a, FSCK_USAGE);
    return run(argv[0], &a);
}
