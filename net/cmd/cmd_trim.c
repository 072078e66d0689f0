/* `embar trim`: give up a topic's oldest messages. Serves no step of a batch.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/when.h"
#include "net/cmd/cmd.h"

struct trim_args {
    struct cmd_server server;
    const char *path;
    enum embar_from from;
    uint64_t value;
    bool given, quiet;
};

/* A bare number is an offset, anything else that is a time is one. */
static bool position(const char *text, enum embar_from *from, uint64_t *value)
{
    *from = EMBAR_OFFSET;
    if (parse_number(text, UINT64_MAX, value) || parse_position(text, wall_clock(), from, value))
        return true;
    *from = EMBAR_TIME;
    return when_time(text, wall_clock(), value);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct trim_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'b':
        if (!position(arg, &a->from, &a->value) || a->from == EMBAR_EARLIEST)
            argp_error(state,
                       "\"%s\" is no position: give an offset, a time or a duration before now, or "
                       "offset:N, message:N, time:T or latest.",
                       arg);
        a->given = true;
        return 0;
    case 'q': a->quiet = true; return 0;
    case ARGP_KEY_ARG:
        if (a->path)
            argp_error(state, "one topic is enough: what is \"%s\"?", arg);
        a->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->path)
            argp_error(state, "name the topic.");
        if (!a->given)
            argp_error(state, "say what to give up: --before POSITION.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int cmd_trim(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"before", 'b', "POSITION", 0, "Give up what stands before it (required)", 0},
        {"quiet", 'q', NULL, 0, "No word on standard error of what went", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        options,
        parse,
        "TOPIC",
        "Give up what a topic holds before a position, and print the oldest offset that is "
        "left.\vPOSITION is offset:N or N, message:N, time:T or T, or latest (all there is). T is "
        "an "
        "RFC 3339 time, @SECONDS since 1970, or a duration before now such as 10m or 7d. Space "
        "comes back in whole extents.",
        CMD_SERVER_CHILDREN,
        NULL,
        NULL};
    struct trim_args a = {.server = {NULL, NULL}};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    struct embar_error err;
    uint64_t base = 0, bytes = 0;
    int rc = embar_trim(client, a.path, a.from, a.value, &base, &bytes, &err);
    embar_disconnect(client);
    if (rc < 0)
        return cmd_fail(argv[0], &err);
    char text[32];
    printf("%" PRIu64 "\n", base);
    if (!a.quiet)
        cmd_say(argv[0], "%s begins at offset %" PRIu64 " now; %" PRIu64 " bytes (%s) went", a.path,
                base, bytes, text_bytes(bytes, text, sizeof(text)));
    return CMD_OK;
}
