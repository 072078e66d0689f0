/* `embar rm`: remove topics and empty directories. Serves no step of a batch.
 */
#include <errno.h>

#include "net/cmd/cmd.h"

struct rm_args {
    struct cmd_paths paths;
    bool force;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct rm_args *a = state->input;
    if (key != 'f')
        return cmd_paths_key(&a->paths, key, state);
    a->force = true;
    return 0;
}

static int take_away(struct embar_client *client, const char *path, void *arg,
                     struct embar_error *err)
{
    const struct rm_args *a = arg;
    int rc = embar_remove(client, path, err);
    return rc == -ENOENT && a->force ? 0 : rc;
}

int cmd_rm(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"force", 'f', NULL, 0, "No error when it is not there", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {options,
                              parse,
                              "TOPIC...",
                              "Remove topics and empty directories. Their space is reusable as "
                              "soon as nobody holds them open.",
                              CMD_SERVER_CHILDREN,
                              NULL,
                              NULL};
    struct rm_args a = {.paths = {.none = "name what to remove."}};
    cmd_parse(&argp, argc, argv, &a);
    return cmd_each(argv[0], &a.paths, take_away, &a);
}
