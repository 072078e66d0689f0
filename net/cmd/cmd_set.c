/* `embar set`: change a topic's settings. Serves no step of a batch.
 */
#include "net/cmd/cmd.h"

struct set_args {
    struct cmd_server server;
    struct embar_topic_options topic;
    char **paths;
    int count;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct set_args *a = state->input;
    const struct embar_topic_options none = EMBAR_TOPIC_OPTIONS, *o = &a->topic;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->server;
        state->child_inputs[1] = &a->topic;
        return 0;
    case ARGP_KEY_ARGS:
        a->paths = state->argv + state->next;
        a->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "name the topic."); return 0;
    case ARGP_KEY_END:
        if (o->order == none.order && o->ack == none.ack && o->mode == none.mode &&
            o->keep_bytes == none.keep_bytes && o->keep_ns == none.keep_ns &&
            o->when_full == none.when_full)
            argp_error(state, "say what to set, for instance --retention-age 7d.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int cmd_set(int argc, char **argv)
{
    const struct argp_child children[] = {
        {&cmd_server_argp, 0, NULL, 0}, {&cmd_settings_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
    const struct argp argp = {NULL,
                              parse,
                              "TOPIC...",
                              "Change settings of topics; what no option names stays as it is. "
                              "\"embar stat TOPIC\" shows them.",
                              children,
                              NULL,
                              NULL};
    struct set_args a = {.topic = EMBAR_TOPIC_OPTIONS};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    int status = CMD_OK;
    for (int i = 0; i < a.count; i++) {
        struct embar_error err;
        if (embar_set(client, a.paths[i], &a.topic, &err) < 0) {
            cmd_fail(argv[0], &err);
            status = CMD_FAILURE;
        }
    }
    embar_disconnect(client);
    return status;
}
