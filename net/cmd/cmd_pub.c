/* `embar pub`: publish lines or files. Serves steps 2 and 9 from the publisher's side.
 * Must never exit with 0 unless every byte of the input is acknowledged (or sent, with ack 0).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/region.h"
#include "core/when.h"
#include "net/cmd/cmd.h"
#include "net/cmd/feed.h"

struct pub_args {
    struct cmd_server server;
    struct embar_publisher_options opt;
    const char *topic;
    char **files;
    int count;
    bool whole, quiet;
};

enum {
    KEY_WHOLE = 256,
    KEY_SESSION,
    KEY_ACK,
    KEY_BATCH,
    KEY_LINGER,
    KEY_ORDER,
    KEY_NO_CREATE,
};

static void parse_session(struct embar_publisher_options *o, const char *arg,
                          struct argp_state *state)
{
    if (strcmp(arg, "new") == 0) {
        o->session = EMBAR_SESSION_NEW;
        return;
    }
    if (!parse_number(arg, UINT64_MAX, &o->session_id) || o->session_id == 0)
        argp_error(state, "\"%s\" is no session: give \"new\" or the id of one to resume.", arg);
    o->session = EMBAR_SESSION_RESUME;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct pub_args *a = state->input;
    uint64_t n;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &a->server; return 0;
    case KEY_WHOLE: a->whole = true; return 0;
    case KEY_SESSION: parse_session(&a->opt, arg, state); return 0;
    case KEY_ACK:
        if (!parse_number(arg, 2, &n))
            argp_error(state, "there is no ack level \"%s\": 0, 1 and 2 are.", arg);
        a->opt.ack = (int)n;
        return 0;
    case KEY_BATCH:
        if (size_parse(arg, &n) < 0 || n == 0 || n > 16u << 20)
            argp_error(state, "\"%s\" is no batch size from 1 to 16M.", arg);
        a->opt.batch_bytes = n;
        return 0;
    case KEY_LINGER:
        if (!when_duration(arg, &n) || n < 1000 || n > 60000000000u)
            argp_error(state, "\"%s\" is no duration from 1us to 60s.", arg);
        a->opt.linger_us = (unsigned)(n / 1000);
        return 0;
    case 'c':
        if (!parse_number(arg, 64, &n) || n == 0)
            argp_error(state, "\"%s\" is no number of connections from 1 to 64.", arg);
        a->opt.connections = (unsigned)n;
        return 0;
    case KEY_ORDER:
        if (!parse_number(arg, 5, &n) || (n != 0 && n != 2 && n != 5))
            argp_error(state, "there is no order \"%s\": 0, 2 and 5 are.", arg);
        a->opt.order = (int)n;
        return 0;
    case KEY_NO_CREATE: a->opt.no_create = true; return 0;
    case 'q': a->quiet = true; return 0;
    case ARGP_KEY_ARG:
        if (!a->topic) {
            a->topic = arg;
            return 0;
        }
        return ARGP_ERR_UNKNOWN; /* the rest is asked for as ARGP_KEY_ARGS */
    case ARGP_KEY_ARGS:
        a->files = state->argv + state->next;
        a->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_END:
        if (!a->topic)
            argp_error(state, "name the topic.");
        if (a->opt.ack == 0 && a->opt.session != EMBAR_SESSION_AUTO)
            argp_error(state, "ack 0 has no session: nothing would tell what was committed.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* One input after the other. 0, -EINTR, or why not. */
static int feed_files(const struct pub_args *a, struct feed *f, struct embar_error *err)
{
    char *const none[] = {NULL};
    char *const *files = a->count ? a->files : none;
    int rc = 0;
    for (int i = 0; rc == 0 && i < (a->count ? a->count : 1); i++) {
        const char *name = files[i];
        bool in = !name || strcmp(name, "-") == 0;
        int fd = in ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return embar_fail(err, -errno, "%s cannot be read: %s.", name, strerror(errno));
        struct embar_error why;
        const char *what = in ? "Standard input" : name;
        rc = a->whole ? feed_whole(f, fd, what, &why) : feed_lines(f, fd, &why);
        if (rc == -EISDIR)
            (void)embar_fail(&why, rc, "%s is a directory.", what);
        if (!in)
            close(fd);
        if (rc < 0)
            *err = why;
    }
    return rc == 0 ? feed_finish(f, err) : rc;
}

static void summary(const struct pub_args *a, const char *name, struct feed *f,
                    const struct embar_publisher_info *info)
{
    double s = (double)(feed_clock() - f->started) / 1e9;
    if (a->quiet)
        return;
    cmd_say(name, "%" PRIu64 " messages, %" PRIu64 " bytes, %.3f s, %.1f MB/s %s",
            info->done_messages, info->done_bytes, s, (double)info->done_bytes / 1e6 / s,
            info->ack == 0 ? "sent" : "acked");
}

/* What was done so far, and how to go on, where that is possible after `why`. */
static void interrupted(const char *name, const struct embar_publisher_info *info, int why)
{
    cmd_say(name, "%" PRIu64 " of %" PRIu64 " messages %s (%" PRIu64 " bytes)", info->done_messages,
            info->taken_messages, info->ack == 0 ? "sent" : "acked", info->done_bytes);
    if (info->session == 0 || why == -EMBAR_ESESSION || why == -EMBAR_EGONE)
        return;
    cmd_say(name,
            "the session is %" PRIu64 ": the same command on the same input with --session "
            "%" PRIu64 " goes on behind what was committed%s",
            info->session, info->session,
            info->order == 5 ? "" : "; at this order some of it may come twice");
}

static int run(const struct pub_args *a, const char *name, struct embar_client *client, int signals)
{
    struct embar_error err;
    struct embar_publisher *pub;
    if (embar_publisher_open(&pub, client, a->topic, &a->opt, &err) < 0)
        return cmd_fail(name, &err);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    size_t batch = a->opt.batch_bytes ? a->opt.batch_bytes : 2u << 20;
    struct feed f = {
        .name = name,
        .pub = pub,
        .batch = batch < info.max_batch ? batch : info.max_batch,
        .max_batch = info.max_batch,
        .max_messages = info.max_messages,
        .linger_ns = (a->opt.linger_us ? a->opt.linger_us : 1000) * 1000ull,
        .skip = info.resumed,
        .progress = !a->quiet && isatty(STDERR_FILENO),
        .remarks = !a->quiet,
        .signals = signals,
        .limit = 2 * (a->opt.connections ? a->opt.connections : 1) + 4,
    };
    uint64_t resumed = info.resumed;
    int rc = feed_open(&f);
    if (rc < 0)
        (void)embar_fail(&err, rc, "Reading cannot be set up");
    else
        rc = feed_files(a, &f, &err);
    if (f.progress)
        dprintf(STDERR_FILENO, "\r\033[K");
    if (rc == 0)
        rc = embar_flush(pub, -1, &err); /* counts are raised after the last callback */
    embar_publisher_info(pub, &info);
    int status = CMD_OK;
    if (rc < 0) {
        cmd_fail(name, &err);
        if (info.taken_messages > 0 || info.resumed > 0)
            interrupted(name, &info, err.code);
        /* A run that never had a message leaves no session behind: their number is bounded. */
        bool bare = info.taken_messages == 0 && info.resumed == 0;
        (void)embar_publisher_close(pub, bare ? EMBAR_CLOSE_FORGET : EMBAR_CLOSE_NOW, NULL);
        status = CMD_FAILURE;
    } else {
        if (embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err) < 0) {
            cmd_fail(name, &err);
            interrupted(name, &info, err.code);
            status = CMD_FAILURE;
        }
        if (f.skip > 0) {
            cmd_say(name,
                    "Session %" PRIu64 " has committed %" PRIu64 " messages and the input holds "
                    "%" PRIu64 " fewer: is it the same input?",
                    info.session, resumed, f.skip);
            status = CMD_FAILURE;
        }
        if (resumed > 0 && !a->quiet)
            cmd_say(name, "%" PRIu64 " messages were committed before and skipped",
                    resumed - f.skip);
        if (status == CMD_OK)
            summary(a, name, &f, &info);
        if (a->opt.session == EMBAR_SESSION_NEW && !a->quiet)
            cmd_say(name, "session %" PRIu64, info.session);
    }
    feed_close(&f);
    return status;
}

int cmd_pub(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"whole", KEY_WHOLE, NULL, 0, "One message a file, not one a line", 0},
        {"session", KEY_SESSION, "ID|new", 0,
         "Resume a session, skipping the messages of the input that it has committed; or a new one "
         "that is kept at the end",
         0},
        {"ack", KEY_ACK, "N", 0,
         "0: none, 1: when committed, 2: when on a replica, too (default: the topic's own, 1 "
         "unless "
         "it was made otherwise)",
         0},
        {"order", KEY_ORDER, "N", 0, "Fail unless the topic's order is 0, 2 or 5", 0},
        {"batch", KEY_BATCH, "SIZE", 0, "Bytes a batch (default: 2M)", 0},
        {"linger", KEY_LINGER, "TIME", 0,
         "How long lines wait for company while others are on their way (default: 1ms)", 0},
        {"connections", 'c', "N", 0, "Connections of the session (default: 1)", 0},
        {"no-create", KEY_NO_CREATE, NULL, 0, "Fail when the topic is not there", 0},
        {"quiet", 'q', NULL, 0,
         "No progress, no summary, and no word of a broken connection or a full pool", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        options,
        parse,
        "TOPIC [FILE...]",
        "Publish the lines of standard input or of files, one message a line, its newline kept.\v"
        "The end of an input ends its last line. A line longer than the broker's largest batch (16 "
        "MiB) is split. The exit status is 0 only when everything is acknowledged (with --ack 0: "
        "sent). When it is interrupted it tells the session to resume.",
        CMD_SERVER_CHILDREN,
        NULL,
        NULL};
    struct pub_args a = {.opt = EMBAR_PUBLISHER_OPTIONS};
    a.opt.nonblocking = true;
    a.opt.window = SIZE_MAX / 2; /* the blocks are the bound */
    cmd_parse(&argp, argc, argv, &a);

    /* Signals are read between batches, so that what is on its way can be told. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    struct embar_client *client =
        a.quiet ? cmd_connect(argv[0], &a.server) : cmd_connect_telling(argv[0], &a.server, true);
    if (!client)
        return CMD_FAILURE;
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int status = run(&a, argv[0], client, signals);
    if (signals >= 0)
        close(signals);
    embar_disconnect(client);
    return status;
}
