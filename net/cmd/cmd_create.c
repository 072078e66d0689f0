/* `embar create`: make topics. Serves no step of a batch.
 */
#include <errno.h>

#include "net/cmd/cmd.h"

struct create_args {
    struct cmd_paths paths;
    struct embar_topic_options topic;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct create_args *a = state->input;
    if (key == ARGP_KEY_INIT)
        state->child_inputs[1] = &a->topic;
    if (key != 'p')
        return cmd_paths_key(&a->paths, key, state);
    a->topic.parents = true;
    return 0;
}

static int create(struct embar_client *client, const char *path, void *arg, struct embar_error *err)
{
    const struct create_args *a = arg;
    int rc = embar_create(client, path, &a->topic, err);
    return rc == -EEXIST && a->topic.parents ? 0 : rc;
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
    struct create_args a = {.paths = {.none = "name what to make."}, .topic = EMBAR_TOPIC_OPTIONS};
    cmd_parse(&argp, argc, argv, &a);
    return cmd_each(argv[0], &a.paths, create, &a);
}
