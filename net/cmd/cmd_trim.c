/* `embar trim`: give up a topic's oldest messages. Serves no step of a batch.
 */
#include <inttypes.h>
#include <stdio.h>

#include "net/cmd/cmd.h"

struct trim_args {
    struct cmd_server server;
    const char *path;
    enum embar_from from;
    uint64_t value;
    bool given;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct trim_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'b':
        if (!parse_position(arg, wall_clock(), &a->from, &a->value) || a->from == EMBAR_EARLIEST)
            argp_error(state, "\"%s\" is no position: give offset:N, message:N, time:T or latest.",
                       arg);
        a->given = true;
        return 0;
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
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        options,
        parse,
        "TOPIC",
        "Give up what a topic holds before a position, and print the oldest offset that is "
        "left.\vPOSITION is offset:N, message:N, time:T or latest (all there is). T is an RFC 3339 "
        "time, @SECONDS since 1970, or a duration before now such as 10m or 7d. Space comes back "
        "in whole extents.",
        CMD_SERVER_CHILDREN,
        NULL,
        NULL};
    struct trim_args a = {.server = {NULL, NULL}};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    struct embar_error err;
    uint64_t base = 0;
    int rc = embar_trim(client, a.path, a.from, a.value, &base, &err);
    embar_disconnect(client);
    if (rc < 0)
        return cmd_fail(argv[0], &err);
    printf("%" PRIu64 "\n", base);
    return CMD_OK;
}
