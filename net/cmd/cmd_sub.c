/* `embar sub`: a topic's messages to standard output. Serves step 9, as a subscriber.
 * Must never write a byte that the log does not hold, nor keep following for a reader that left.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "net/cmd/cmd.h"

struct sub_args {
    struct cmd_server server;
    const char *topic;
    struct embar_subscribe_options opt;
    bool quiet;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sub_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case 'F':
        if (!parse_position(arg, wall_clock(), &a->opt.from, &a->opt.value))
            argp_error(state,
                       "\"%s\" is no position: give earliest, latest, offset:N, message:N or "
                       "time:T.",
                       arg);
        return 0;
    case 'q': a->quiet = true; return 0;
    case 'f': a->opt.follow = true; return 0;
    case 'n':
        if (!parse_number(arg, UINT64_MAX, &a->opt.limit) || a->opt.limit == 0)
            argp_error(state, "\"%s\" is no number of messages.", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (a->topic)
            argp_error(state, "one topic is enough: what is \"%s\"?", arg);
        a->topic = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->topic)
            argp_error(state, "name the topic.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Wait for messages, or for the reader of our output to leave: false. */
static bool wait_for_more(const struct embar_subscription *sub)
{
    struct pollfd p[2] = {{.fd = embar_sub_fd(sub), .events = POLLIN},
                          {.fd = STDOUT_FILENO, .events = 0}};
    while (poll(p, 2, -1) < 0 && errno == EINTR)
        ;
    return !(p[1].revents & (POLLERR | POLLNVAL));
}

static int copy_out(const char *name, struct embar_subscription *sub)
{
    struct embar_error err;
    struct embar_batch batch;
    for (;;) {
        int rc = embar_next_batch(sub, &batch, 0, &err);
        if (rc == -ETIMEDOUT || rc == -EINTR) {
            if (!wait_for_more(sub))
                return CMD_OK;
            continue;
        }
        if (rc == 0)
            return CMD_OK;
        if (rc < 0)
            return cmd_fail(name, &err);
        rc = write_out(batch.data, batch.length);
        if (rc == -EPIPE)
            return CMD_OK; /* the reader has what it wanted */
        if (rc < 0) {
            cmd_say(name, "Writing to standard output failed: %s.", strerror(-rc));
            return CMD_FAILURE;
        }
    }
}

int cmd_sub(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"from", 'F', "POSITION", 0, "Where to begin (default: earliest)", 0},
        {"follow", 'f', NULL, 0, "At the end wait for more", 0},
        {"max", 'n', "N", 0, "Stop after N messages", 0},
        {"quiet", 'q', NULL, 0, "No word of a broken connection", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        options,
        parse,
        "TOPIC",
        "Write a topic's messages to standard output.\v"
        "POSITION is earliest, latest, offset:N, message:N or time:T. T is an RFC 3339 time (local "
        "without a zone), @SECONDS since 1970, or a duration before now such as 10m or 1h30m.",
        CMD_SERVER_CHILDREN,
        NULL,
        NULL};
    struct sub_args a = {.topic = NULL};
    cmd_parse(&argp, argc, argv, &a);
    signal(SIGPIPE, SIG_IGN); /* a write says it too, and ends us quietly */
    struct embar_client *client =
        a.quiet ? cmd_connect(argv[0], &a.server) : cmd_connect_telling(argv[0], &a.server, false);
    if (!client)
        return CMD_FAILURE;
    struct embar_error err;
    struct embar_subscription *sub;
    int status = CMD_FAILURE;
    if (embar_subscribe(&sub, client, a.topic, &a.opt, &err) < 0) {
        cmd_fail(argv[0], &err);
    } else {
        status = copy_out(argv[0], sub);
        embar_unsubscribe(sub);
    }
    embar_disconnect(client);
    return status;
}
