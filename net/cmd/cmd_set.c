/* `embar set`: change a topic's settings. Serves no step of a batch.
 */
#include "net/cmd/cmd.h"

struct set_args {
    struct cmd_paths paths;
    struct embar_topic_options topic;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct set_args *a = state->input;
    const struct embar_topic_options none = EMBAR_TOPIC_OPTIONS, *o = &a->topic;
    if (key == ARGP_KEY_INIT)
        state->child_inputs[1] = &a->topic;
    if (key != ARGP_KEY_END)
        return cmd_paths_key(&a->paths, key, state);
    if (o->order == none.order && o->ack == none.ack && o->mode == none.mode &&
        o->keep_bytes == none.keep_bytes && o->keep_ns == none.keep_ns &&
        o->when_full == none.when_full)
        argp_error(state, "say what to set, for instance --retention-age 7d.");
    return 0;
}

static int set(struct embar_client *client, const char *path, void *arg, struct embar_error *err)
{
    const struct set_args *a = arg;
    return embar_set(client, path, &a->topic, err);
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
    struct set_args a = {.paths = {.none = "name the topic."}, .topic = EMBAR_TOPIC_OPTIONS};
    cmd_parse(&argp, argc, argv, &a);
    return cmd_each(argv[0], &a.paths, set, &a);
}
