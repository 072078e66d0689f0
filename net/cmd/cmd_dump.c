/* `embar dump`: a topic's bytes from a pool, reading only. Serves step 9 without a daemon.
 * Must never write to the pool.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "net/cmd/cmd.h"
#include "net/cmd/pool_topic.h"

#define PIECE (4u << 20) /* bytes pinned at once */

struct dump_args {
    const char *arg[2];
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct dump_args *a = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num >= 2)
            argp_error(state, "a pool and a topic are enough: what is \"%s\"?", arg);
        a->arg[state->arg_num] = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "name the pool and the topic.");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int copy_out(const char *name, struct topic *t)
{
    uint64_t at = topic_base(t), end = topic_end(t);
    struct embar_error err;
    while (at < end) {
        struct read_view v;
        int rc = topic_read(t, at, PIECE, &v);
        if (rc < 0) {
            (void)embar_fail(&err, rc, "Reading at offset %llu failed", (unsigned long long)at);
            return cmd_fail(name, &err);
        }
        for (int i = 0; rc == 0 && i < v.pieces; i++)
            rc = write_out(v.iov[i].iov_base, v.iov[i].iov_len);
        size_t n = v.bytes;
        read_release(&v);
        if (rc == -EPIPE)
            return CMD_OK; /* the reader has what it wanted */
        if (rc < 0) {
            cmd_say(name, "Writing to standard output failed: %s.", strerror(-rc));
            return CMD_FAILURE;
        }
        if (n == 0)
            break;
        at += n;
    }
    return CMD_OK;
}

int cmd_dump(int argc, char **argv)
{
    const struct argp argp = {
        .parser = parse,
        .args_doc = "POOL TOPIC",
        .doc = "Write the bytes of a topic to standard output, straight from a pool (a file or a "
               "device) and without changing it.\v"
               "While a daemon serves the pool, what it commits meanwhile is not seen.",
    };
    struct dump_args a = {.arg = {NULL, NULL}};
    cmd_parse(&argp, argc, argv, &a);
    signal(SIGPIPE, SIG_IGN); /* a write says it too, and ends us quietly */
    struct embar_error err;
    struct pool_topic pt;
    if (pool_topic_open(&pt, a.arg[0], a.arg[1], true, &err) < 0)
        return cmd_fail(argv[0], &err);
    int status = copy_out(argv[0], pt.topic);
    pool_topic_close(&pt);
    return status;
}
