/* `embar mkdir`: make directories of topics. Serves no step of a batch.
 */
#include <errno.h>

#include "net/cmd/cmd.h"

struct mkdir_args {
    struct cmd_server server;
    bool parents;
    char **paths;
    int count;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct mkdir_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'p': a->parents = true; return 0;
    case ARGP_KEY_ARGS:
        a->paths = state->argv + state->next;
        a->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "name what to make."); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int cmd_mkdir(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"parents", 'p', NULL, 0, "Make missing parents; no error when it is there", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        options, parse, "DIRECTORY...", "Make directories of topics.", CMD_SERVER_CHILDREN,
        NULL,    NULL};
    struct mkdir_args a = {.server = {NULL, NULL}};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    int status = CMD_OK;
    for (int i = 0; i < a.count; i++) {
        struct embar_error err;
        int rc = embar_mkdir(client, a.paths[i], a.parents, &err);
        if (rc < 0 && !(rc == -EEXIST && a.parents)) {
            cmd_fail(argv[0], &err);
            status = CMD_FAILURE;
        }
    }
    embar_disconnect(client);
    return status;
}
