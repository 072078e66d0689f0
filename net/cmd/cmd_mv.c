/* `embar mv`: rename a topic or directory. Serves no step of a batch.
 */
#include "net/cmd/cmd.h"

struct mv_args {
    struct cmd_server server;
    const char *path[2];
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct mv_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num >= 2)
            argp_error(state, "two paths are enough: what is \"%s\"?", arg);
        a->path[state->arg_num] = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "name what to rename, and its new path.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int cmd_mv(int argc, char **argv)
{
    const struct argp argp = {NULL,
                              parse,
                              "PATH NEWPATH",
                              "Rename a topic or directory, in one step. An empty topic that has "
                              "the new name is replaced.",
                              CMD_SERVER_CHILDREN,
                              NULL,
                              NULL};
    struct mv_args a = {.server = {NULL, NULL}};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    struct embar_error err;
    int rc = embar_rename(client, a.path[0], a.path[1], &err);
    embar_disconnect(client);
    return rc < 0 ? cmd_fail(argv[0], &err) : CMD_OK;
}
