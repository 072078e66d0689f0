/* `embar`: which subcommand, and the options before it. Serves no step of a batch itself.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/plain.h"
#include "net/cmd/cmd.h"
#include "net/program.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"pub", cmd_pub, "publish lines or files to a topic"},
    {"sub", cmd_sub, "write a topic's messages to standard output, following if wanted"},
    {"topics", cmd_topics, "list topics"},
    {"create", cmd_create, "make a topic"},
    {"mkdir", cmd_mkdir, "make a directory of topics"},
    {"rm", cmd_rm, "remove topics and empty directories"},
    {"mv", cmd_mv, "rename a topic or directory"},
    {"trim", cmd_trim, "give up a topic's oldest messages"},
    {"set", cmd_set, "change a topic's settings: retention, order, ack, mode"},
    {"stat", cmd_stat, "facts of the broker or of a topic"},
    {"devices", cmd_devices, "list the memory of this machine that a pool can live in"},
#ifdef EMBAR_HAVE_BENCH
    {"bench", cmd_bench, "measure publishing, subscribing and latency against raw baselines"},
#endif
#ifdef EMBAR_HAVE_POOL
    {"pool", cmd_pool, "make a pool, or show what one is"},
#endif
#ifdef EMBAR_HAVE_LOG
    {"append", cmd_append, "publish lines straight into a pool that nobody serves"},
    {"dump", cmd_dump, "write a topic's bytes from a pool, reading only"},
    {"fsck", cmd_fsck, "check a pool that nobody serves, and repair it"},
#endif
    {"version", cmd_version, "print the version"},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

struct line {
    int at; /* index of the subcommand's name in argv */
};

enum { KEY_TOKEN = 256, KEY_VERSION };

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct line *line = state->input;
    switch (key) {
    case 's': cmd_globals.server = arg; return 0;
    case KEY_TOKEN: cmd_globals.token_file = arg; return 0;
    case KEY_VERSION: printf("embar %s\n", embar_version()); exit(CMD_OK);
    case ARGP_KEY_ARG:
        line->at = state->next - 1;
        state->next = state->argc; /* the rest is the subcommand's */
        return 0;
    case ARGP_KEY_NO_ARGS: argp_usage(state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* The list of commands, after the options. */
static char *help(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC)
        return text ? strdup(text) : NULL;
    char *out = NULL;
    size_t size;
    FILE *f = open_memstream(&out, &size);
    if (!f)
        return NULL;
    fputs("Commands:\n", f);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].what);
    fputs("\n`embar COMMAND --help` tells a command's options. Without -s the broker is the one "
          "that EMBAR_SERVER names, else the one embarfs mount there is.",
          f);
    fclose(f);
    return out;
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"server", 's', "ADDR", 0, "The broker: host:port, path of a socket, or mount point", 0},
        {"token-file", KEY_TOKEN, "FILE", 0, "Its token, when it is not found by itself", 0},
        {"version", KEY_VERSION, NULL, 0, "Print the version", -1},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {.options = options,
                              .parser = parse,
                              .args_doc = "COMMAND [ARGUMENT...]",
                              .doc = "Publish to, subscribe to and look after the topics of an "
                                     "embarfs broker.\v",
                              .help_filter = help};
    struct line line = {0};
    argp_err_exit_status = CMD_USAGE;
    plain_stderr();
    program_begins("embar", CMD_FAILURE);
    signal(SIGXFSZ, SIG_IGN); /* the call that meets ulimit -f says so */
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &line);
    const char *name = argv[line.at];
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        static char full[64];
        snprintf(full, sizeof(full), "embar %s", name);
        argv[line.at] = full;
        program_begins(full, CMD_FAILURE);
        return commands[i].run(argc - line.at, argv + line.at);
    }
    cmd_say("embar", "there is no command \"%s\"; `embar --help` lists them.", name);
    return CMD_USAGE;
}
