/* `embar create`: make topics. Serves no step of a batch.
 */
#include <errno.h>
#include <stdlib.h>

#include "net/cmd/cmd.h"

struct create_args {
    struct cmd_server server;
    struct embar_topic_options topic;
    char **paths;
    int count;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct create_args *a = state->input;
    uint64_t n;
    long mode;
    char *end;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'o':
        if (!parse_number(arg, 5, &n) || (n != 0 && n != 2 && n != 5))
            argp_error(state, "there is no order \"%s\": 0, 2 and 5 are.", arg);
        a->topic.order = (int)n;
        return 0;
    case 'a':
        if (!parse_number(arg, 2, &n))
            argp_error(state, "there is no ack level \"%s\": 0, 1 and 2 are.", arg);
        a->topic.ack = (int)n;
        return 0;
    case 'm':
        mode = strtol(arg, &end, 8);
        if (end == arg || *end || mode < 0 || mode > 0777)
            argp_error(state, "\"%s\" is no octal mode from 0 to 777.", arg);
        a->topic.mode = (int)mode;
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
        {"order", 'o', "N", 0, "0, 2 or 5: what order its messages keep (default: 5)", 0},
        {"ack", 'a', "N", 0,
         "0 or 1: of publishers that ask for none (default: 1); 2 needs a replica", 0},
        {"mode", 'm', "MODE", 0, "Permissions, octal (default: 644)", 0},
        {"parents", 'p', NULL, 0, "Make missing directories; no error when the topic is there", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {options, parse, "TOPIC...", "Make topics.", CMD_SERVER_CHILDREN,
                              NULL,    NULL};
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
