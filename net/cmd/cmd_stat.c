/* `embar stat`: facts of the broker or of a topic, as a table or as the broker's JSON.
 * Serves no step of a batch.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/cmd/cmd.h"

struct stat_args {
    struct cmd_server server;
    const char *path;
    bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct stat_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'j': a->json = true; return 0;
    case ARGP_KEY_ARG:
        if (a->path)
            argp_error(state, "one topic is enough: what is \"%s\"?", arg);
        a->path = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static bool is_one_of(const char *key, const char *const *names)
{
    while (*names && strcmp(*names, key) != 0)
        names++;
    return *names != NULL;
}

/* A value as people read it: bytes with a unit, times as dates, modes in octal. */
static void print_value(const char *key, const json_t *value)
{
    static const char *const sizes[] = {"size",  "data",     "used",      "reserved",
                                        "free",  "bytes_in", "bytes_out", "keep_bytes",
                                        "bytes", "trimmed",  "moved",     NULL};
    static const char *const times[] = {"created", "modified", "time", NULL};
    char buf[64];
    if (json_is_string(value)) {
        put_line(json_string_value(value));
    } else if (json_is_boolean(value)) {
        puts(json_is_true(value) ? "yes" : "no");
    } else if (json_is_integer(value)) {
        uint64_t n = (uint64_t)json_integer_value(value);
        if (is_one_of(key, sizes))
            printf("%" JSON_INTEGER_FORMAT " (%s)\n", json_integer_value(value),
                   text_bytes(n, buf, sizeof(buf)));
        else if (is_one_of(key, times))
            puts(text_time(n, buf, sizeof(buf)));
        else if (strcmp(key, "mode") == 0)
            printf("%04o\n", (unsigned)n);
        else
            printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        puts(text ? text : "?");
        free(text);
    }
}

/* Plain values first, then each part under its name. */
static void print_table(json_t *object, int indent)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) if (!json_is_object(value))
    {
        char *name = text_plain(key);
        printf("%*s%-*s ", indent, "", 16 - indent, name ? name : "?");
        free(name);
        print_value(key, value);
    }
    json_object_foreach(object, key, value) if (json_is_object(value))
    {
        char *name = text_plain(key);
        printf("%*s%s\n", indent, "", name ? name : "?");
        free(name);
        print_table(value, indent + 2);
    }
}

int cmd_stat(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "As the broker tells it: a JSON object", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {options,
                              parse,
                              "[TOPIC]",
                              "Facts of a topic or, without one, of the broker and its pool.",
                              CMD_SERVER_CHILDREN,
                              NULL,
                              NULL};
    struct stat_args a = {.path = NULL};
    cmd_parse(&argp, argc, argv, &a);
    struct embar_client *client = cmd_connect(argv[0], &a.server);
    if (!client)
        return CMD_FAILURE;
    struct embar_error err;
    char *text;
    int rc = embar_stat(client, a.path, &text, &err);
    embar_disconnect(client);
    if (rc < 0)
        return cmd_fail(argv[0], &err);
    int status = CMD_OK;
    if (a.json) {
        puts(text);
    } else {
        json_t *object = json_loads(text, 0, NULL);
        if (json_is_object(object)) {
            print_table(object, 0);
        } else {
            cmd_say(argv[0], "The broker's facts are not the JSON object they must be.");
            status = CMD_FAILURE;
        }
        json_decref(object);
    }
    free(text);
    return status;
}
