/* A topic's settings as options of `embar create` and `embar set`. Serves no step of a batch. Must
 * never take a number for another one than was meant: what it does not understand it refuses.
 */
#include <stdlib.h>
#include <string.h>

#include "core/region.h"
#include "core/when.h"
#include "net/cmd/cmd.h"

enum { KEY_BYTES = 0x7101, KEY_AGE, KEY_FULL };

/* "none" and 0: no bound. */
static bool bound(const char *arg, bool (*read)(const char *, uint64_t *), int64_t *value)
{
    uint64_t n = 0;
    if (strcmp(arg, "none") != 0 && strcmp(arg, "0") != 0 && !read(arg, &n))
        return false;
    *value = (int64_t)n;
    return n <= INT64_MAX;
}

static bool size_read(const char *arg, uint64_t *n)
{
    return size_parse(arg, n) == 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct embar_topic_options *o = state->input;
    uint64_t n;
    char *end;
    long mode;
    switch (key) {
    case 'o':
        if (!parse_number(arg, 5, &n) || (n != 0 && n != 2 && n != 5))
            argp_error(state, "there is no order \"%s\": 0, 2 and 5 are.", arg);
        o->order = (int)n;
        return 0;
    case 'a':
        if (!parse_number(arg, 2, &n))
            argp_error(state, "there is no ack level \"%s\": 0, 1 and 2 are.", arg);
        o->ack = (int)n;
        return 0;
    case 'm':
        mode = strtol(arg, &end, 8);
        if (end == arg || *end || mode < 0 || mode > 0777)
            argp_error(state, "\"%s\" is no octal mode from 0 to 777.", arg);
        o->mode = (int)mode;
        return 0;
    case KEY_BYTES:
        if (!bound(arg, size_read, &o->keep_bytes))
            argp_error(state, "\"%s\" is no size: give bytes, 10M, 1G or none.", arg);
        return 0;
    case KEY_AGE:
        if (!bound(arg, when_duration, &o->keep_ns))
            argp_error(state, "\"%s\" is no age: give 10s, 5m, 36h, 7d or none.", arg);
        return 0;
    case KEY_FULL:
        if (strcmp(arg, "block") != 0 && strcmp(arg, "trim") != 0)
            argp_error(state, "when the pool is full a topic can block or trim, not \"%s\".", arg);
        o->when_full = strcmp(arg, "trim") == 0 ? EMBAR_TRIM : EMBAR_BLOCK;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option settings[] = {
    {"order", 'o', "N", 0, "0, 2 or 5: what order its messages keep (default: 5)", 0},
    {"ack", 'a', "N", 0, "0 or 1: of publishers that ask for none (default: 1); 2 needs a replica",
     0},
    {"mode", 'm', "MODE", 0, "Permissions, octal (default: 644)", 0},
    {"retention-bytes", KEY_BYTES, "SIZE", 0,
     "Keep the newest so many bytes, and an eighth more at most: 10M, 1G, none (default)", 0},
    {"retention-age", KEY_AGE, "AGE", 0, "Keep messages so long: 10s, 5m, 7d, none (default)", 0},
    {"when-full", KEY_FULL, "WHAT", 0,
     "block or trim: publishers wait (default), or the oldest messages go, when the pool is full",
     0},
    {NULL, 0, NULL, 0, NULL, 0},
};

const struct argp cmd_settings_argp = {.options = settings, .parser = parse};
