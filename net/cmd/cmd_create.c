/* `embar create`: make topics. Serves no step of a batch.
 */
#include <errno.h>

#include "net/cmd/cmd.h"

struct create_args {
    struct cmd_server server;
    struct embar_topic_options topic;
    char **paths;
    int count;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct create_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->server;
        state->child_inputs[1] = &a->topic;
        return 0;
    case 'p': a->topic.parents = true; return 0;
    case ARGP_KEY_ARGS:
        a->paths = state->argv + state->next;
        a->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "name what to make."); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int cmd_create(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"parents", 'p', NULL, 0, "Make missing directories; no error when the topic is there", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp_child children[] = {
        {&cmd_server_argp, 0, NULL, 0}, {&cmd_settings_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
    const struct argp argp = {options, parse, "TOPIC...", "Make topics.", children, NULL, NULL};
    struct create_args a = {.topic = EMBAR_TOPIC_OPTIONS};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    int status = CMD_OK;
    for (int i = 0; i < a.count; i++) {
        struct embar_error err;
        int rc = embar_create(client, a.paths[i], &a.topic, &err);
        if (rc < 0 && !(rc == -EEXIST && a.topic.parents)) {
            cmd_fail(argv[0], &err);
            status = CMD_FAILURE;
        }
    }
    embar_disconnect(client);
    return status;
}
