/* Subcommands that do one thing with each path that is named: create, mkdir, rm, set. Serves no step of
 * a batch. One that fails does not keep the others from being tried. */
#include "net/cmd/cmd.h"

error_t cmd_paths_key(struct cmd_paths *p, int key, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &p->server; return 0;
    case ARGP_KEY_ARGS:
        p->path = state->argv + state->next;
        p->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "%s", p->none); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int cmd_each(const char *name, const struct cmd_paths *p, cmd_path_fn *fn, void *arg)
{
    struct embar_client *client = cmd_connect(name, &p->server);
    if (!client)
        return CMD_FAILURE;
    int status = CMD_OK;
    for (int i = 0; i < p->count; i++) {
        struct embar_error err;
        if (fn(client, p->path[i], arg, &err) < 0)
            status = cmd_fail(name, &err);
    }
    embar_disconnect(client);
    return status;
}
