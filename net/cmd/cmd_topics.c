/* `embar topics`: list topics. Serves no step of a batch.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/cmd/cmd.h"

struct topics_args {
    struct cmd_server server;
    const char *path;
    bool lengthy, json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct topics_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'l': a->lengthy = true; return 0;
    case 'j': a->json = true; return 0;
    case ARGP_KEY_ARG:
        if (a->path)
            argp_error(state, "one directory is enough: what is \"%s\"?", arg);
        a->path = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static uint64_t number(const json_t *topic, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(topic, key));
}

static void print_topic(const json_t *topic, bool lengthy)
{
    const char *path = json_string_value(json_object_get(topic, "path"));
    if (lengthy) {
        char size[32], time[32];
        uint64_t base = number(topic, "base"), end = number(topic, "end");
        printf("%12" PRIu64 " %10s  order %" PRIu64 "  %-24s  ", number(topic, "messages"),
               text_bytes(end - base, size, sizeof(size)), number(topic, "order"),
               text_time(number(topic, "modified"), time, sizeof(time)));
    }
    put_line(path ? path : "?");
}

int cmd_topics(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"long", 'l', NULL, 0, "With messages, bytes, order and last change", 0},
        {"json", 'j', NULL, 0, "As the broker tells it: a JSON array", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {options,
                              parse,
                              "[DIRECTORY]",
                              "List the topics, or those below a directory, one path a line.",
                              CMD_SERVER_CHILDREN,
                              NULL,
                              NULL};
    struct topics_args a = {.path = NULL};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    struct embar_error err;
    char *text;
    int rc = embar_list(client, a.path, &text, &err);
    embar_disconnect(client);
    if (rc < 0)
        return cmd_fail(argv[0], &err);
    int status = CMD_OK;
    if (a.json) {
        puts(text);
    } else {
        json_t *list = json_loads(text, 0, NULL);
        if (json_is_object(list)) { /* the path was a topic's */
            print_topic(list, a.lengthy);
        } else if (!json_is_array(list)) {
            cmd_say(argv[0], "The broker's list is not the JSON array it must be.");
            status = CMD_FAILURE;
        }
        for (size_t i = 0; i < json_array_size(list); i++)
            print_topic(json_array_get(list, i), a.lengthy);
        json_decref(list);
    }
    free(text);
    return status;
}
