/* `embar mkdir`: make directories of topics. Serves no step of a batch.
 */
#include <errno.h>

#include "net/cmd/cmd.h"

struct mkdir_args {
    struct cmd_paths paths;
    bool parents;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct mkdir_args *a = state->input;
    if (key != 'p')
        return cmd_paths_key(&a->paths, key, state);
    a->parents = true;
    return 0;
}

static int make(struct embar_client *client, const char *path, void *arg, struct embar_error *err)
{
    const struct mkdir_args *a = arg;
    int rc = embar_mkdir(client, path, a->parents, err);
    return rc == -EEXIST && a->parents ? 0 : rc;
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
    struct mkdir_args a = {.paths = {.none = "name what to make."}};
    cmd_parse(&argp, argc, argv, &a);
    return cmd_each(argv[0], &a.paths, make, &a);
}
