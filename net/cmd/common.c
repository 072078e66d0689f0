/* What the subcommands share: the server options, parsing, complaints, connecting.
 * Serves no step of a batch. Must never print what belongs to standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "core/region.h"
#include "net/cmd/cmd.h"

struct cmd_server cmd_globals;

enum { KEY_TOKEN = 0x7001 };

static error_t parse_server(int key, char *arg, struct argp_state *state)
{
    struct cmd_server *s = state->input;
    switch (key) {
    case ARGP_KEY_INIT: *s = cmd_globals; return 0;
    case 's': s->server = arg; return 0;
    case KEY_TOKEN: s->token_file = arg; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option server_options[] = {
    {NULL, 0, NULL, 0, "Which broker:", 10},
    {"server", 's', "ADDR", 0,
     "host:port, path of a socket, or mount point (default: $EMBAR_SERVER, else the one embarfs "
     "mount there is)",
     10},
    {"token-file", KEY_TOKEN, "FILE", 0, "Its token (default: the mount's .embar/token)", 10},
    {NULL, 0, NULL, 0, NULL, 0},
};

const struct argp cmd_server_argp = {.options = server_options, .parser = parse_server};

/* Standard streams that the caller closed must not become the socket to the broker: reading and
 * writing them is to fail as it would have. */
static void standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            exit(CMD_FAILURE);
}

void cmd_parse_status(const struct argp *argp, int argc, char **argv, void *input, int usage)
{
    standard_files();
    argp_err_exit_status = usage;
    argp_parse(argp, argc, argv, 0, NULL, input);
}

void cmd_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    cmd_parse_status(argp, argc, argv, input, CMD_USAGE);
}

int cmd_fail(const char *name, const struct embar_error *err)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", name, err->text);
    return CMD_FAILURE;
}

int cmd_guarded(const char *name, struct region *r, int (*fn)(void *arg), void *arg)
{
    int status = guard_run(r, fn, arg);
    if (status != -EMBAR_EFAULTED || !region_faulted(r))
        return status;
    struct embar_error err;
    (void)embar_fail(&err, -EMBAR_EFAULTED, "%s cannot be read at byte %llu",
                     r->spec ? r->spec : "the pool",
                     (unsigned long long)atomic_load(&r->fault) - 1);
    exit(cmd_fail(name, &err));
}

void cmd_say(const char *name, const char *fmt, ...)
{
    va_list ap;
    char *raw = NULL, *text = NULL;
    va_start(ap, fmt);
    int n = vasprintf(&raw, fmt, ap);
    va_end(ap);
    if (n >= 0)
        text = text_plain(raw);
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", name, text ? text : embar_strerror(ENOMEM));
    free(text);
    if (n >= 0)
        free(raw);
}

/* By the publisher's thread, too. */
static void say_outage(void *arg, const char *address, const struct embar_error *why)
{
    const char *name = arg;
    size_t n = why ? strlen(why->text) : 0;
    if (why)
        cmd_say(name, "not connected to %s: %.*s; trying again", address,
                (int)(n > 0 && why->text[n - 1] == '.' ? n - 1 : n), why->text);
    else
        cmd_say(name, "connected to %s again", address);
}

static void say_over_progress(void *arg, const char *address, const struct embar_error *why)
{
    if (isatty(STDERR_FILENO))
        dprintf(STDERR_FILENO, "\r\033[K");
    say_outage(arg, address, why);
}

static struct embar_client *dial(const char *name, const struct embar_options *opt)
{
    struct embar_client *client;
    struct embar_error err;
    if (embar_connect(&client, opt, &err) < 0) {
        cmd_fail(name, &err);
        return NULL;
    }
    return client;
}

struct embar_client *cmd_connect(const char *name, const struct cmd_server *server)
{
    struct embar_options opt = {.server = server->server, .token_file = server->token_file};
    return dial(name, &opt);
}

struct embar_client *cmd_connect_telling(char *name, const struct cmd_server *server, bool progress)
{
    struct embar_options opt = {.server = server->server,
                                .token_file = server->token_file,
                                .outage = progress ? say_over_progress : say_outage,
                                .outage_arg = name};
    return dial(name, &opt);
}
