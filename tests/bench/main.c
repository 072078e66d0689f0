/* `embar bench`: which measurement, with what, and tidying up behind it whatever happens. Serves no
 * step of a batch. */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/region.h"
#include "net/cmd/cmd.h"
#include "tests/bench/bench.h"
#include "tests/bench/keeper.h"

static const struct {
    const char *name;
    int (*run)(const struct bench_options *, struct report *, struct embar_error *);
    const char *title;
    uint64_t bytes; /* defaults */
    unsigned connections, rounds, seconds;
    uint32_t message_size;
} modes[] = {
    {"pub", bench_pub, "Publishing: acked bytes against raw sinks and memory", 2ull << 30, 4, 9, 0,
     4096},
    {"order", bench_order, "Acked publishing at order 5 against orders 0 and 2", 512u << 20, 4, 31,
     0, 4096},
    {"sub", bench_sub, "Subscribing: a topic over the network against a raw source", 1ull << 30, 1,
     9, 0, 4096},
    {"cat", bench_cat, "Reading through the mount against a null FUSE server and tmpfs", 1ull << 30,
     1, 9, 0, 4096},
    {"append", bench_append, "Appending through the mount against a null FUSE server and tmpfs",
     256u << 20, 1, 31, 0, 128},
    {"latency", bench_latency, "Latency at fixed rates against a paced TCP echo", 0, 1, 9, 2, 1024},
    {"fair", bench_fair, "What greedy, trickling and many neighbours do to a connection", 0, 1000,
     9, 8, 1024},
    {"loops", bench_loops, "Waiting, receiving, sending, accepting: epoll and io_uring", 1ull << 30,
     4, 31, 0, 4096},
    {"flush", bench_flush, "Copying into pool memory, with each way of writing back", 1ull << 30, 1,
     9, 0, 4096},
    {"idle", bench_idle, "What an idle daemon costs", 0, 16, 3, 5, 4096},
    {"recovery", bench_recovery, "Opening a pool, by the number of batches in it", 0, 16, 3, 0, 64},
};
#define MODES (sizeof(modes) / sizeof(modes[0]))

enum {
    KEY_TOKEN = 256,
    KEY_MOUNT,
    KEY_EMBARFS,
    KEY_CXL,
    KEY_SIZE,
    KEY_FLUSH,
    KEY_WORKERS,
    KEY_TOPIC,
    KEY_MESSAGE,
    KEY_CONNECTIONS,
    KEY_PROCESSES,
    KEY_SESSION,
    KEY_BYTES,
    KEY_SECONDS,
    KEY_BATCH,
    KEY_WINDOW,
    KEY_ORDER,
    KEY_ACK,
    KEY_API,
    KEY_ROUNDS,
    KEY_WARMUP,
    KEY_RECV,
    KEY_SOCKBUF,
    KEY_UNIX,
    KEY_RATES,
    KEY_SPIN,
    KEY_JSON,
    KEY_OVERWRITE,
    KEY_SUBJECT,
    KEY_BATCHES,
    KEY_DATA,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "The broker (default: a private embarfs for the time of the run):", 1},
    {"server", 's', "ADDR", 0, "host:port, path of a socket, or mount point", 1},
    {"token-file", KEY_TOKEN, "FILE", 0, "Its token, when it is not found by itself", 1},
    {"mount", KEY_MOUNT, "DIR", 0, "The embarfs mount to measure", 1},
    {"embarfs", KEY_EMBARFS, "PATH", 0, "The program to start (default: beside this one)", 1},
    {"cxl", KEY_CXL, "SPEC", 0, "Its pool, or what flush copies into (default: mem:)", 1},
    {"size", KEY_SIZE, "N", 0, "Size of its pool (default: what a round needs)", 1},
    {"flush", KEY_FLUSH, "MODE", 0, "auto, none, clwb, clflushopt or nt, in it and the baselines",
     1},
    {"workers", KEY_WORKERS, "N", 0, "Its threads that serve the network", 1},
    {NULL, 0, NULL, 0, "The load:", 2},
    {"topic", KEY_TOPIC, "NAME", 0, "A topic that is made and removed (default: embar-bench)", 2},
    {"message-size", KEY_MESSAGE, "N", 0,
     "Bytes of a message (default: 4096, latency 1024, append 128)", 2},
    {"connections", KEY_CONNECTIONS, "N", 0,
     "Publishers or readers at once, a connection each (default: 4, sub, cat and append 1)", 2},
    {"processes", KEY_PROCESSES, "N", 0, "Client processes to spread them over (default: 1)", 2},
    {"session-connections", KEY_SESSION, "N", 0, "Connections of each publisher (default: 1)", 2},
    {"bytes", KEY_BYTES, "N", 0, "Of a round, over all connections", 2},
    {"seconds", KEY_SECONDS, "N", 0,
     "Of a round, instead of all its bytes; latency, fair, idle: how long", 2},
    {"batch", KEY_BATCH, "N", 0,
     "Bytes of a batch, and of one send in the sinks (default: 2M; order: 64K, 256K and 2M)", 2},
    {"window", KEY_WINDOW, "N", 0, "Bytes a publisher may have in flight (default: 32M)", 2},
    {"order", KEY_ORDER, "0|2|5", 0, "Of the topic (default: 5)", 2},
    {"ack", KEY_ACK, "0|1|2", 0, "What counts as done (default: 1)", 2},
    {"api", KEY_API, "batch|message", 0,
     "Batches from caller-owned memory, or message by message (default: by message below 1 KiB)",
     2},
    {"rates", KEY_RATES, "N,N...", 0, "latency: messages a second (default: 1000,10000,50000)", 2},
    {"spin", KEY_SPIN, NULL, 0, "latency: wait for due times spinning", 2},
    {"batches", KEY_BATCHES, "N", 0, "recovery: up to so many, from 10,000 on (default: 10M)", 2},
    {NULL, 0, NULL, 0, "The comparison:", 3},
    {"rounds", KEY_ROUNDS, "N", 0, "Interleaved rounds (default: 9)", 3},
    {"warmup", KEY_WARMUP, "N", 0, "Rounds before these, thrown away (default: 1)", 3},
    {"recv-size", KEY_RECV, "N", 0, "Bytes asked of one recv in the baselines (default: 256K)", 3},
    {"sockbuf", KEY_SOCKBUF, "N", 0, "Socket buffers of the baselines (default: the system's)", 3},
    {"unix", KEY_UNIX, NULL, 0, "Over Unix sockets instead of TCP, both sides", 3},
    {"subject-only", KEY_SUBJECT, NULL, 0, "No baselines: for profiling", 3},
    {"overwrite", KEY_OVERWRITE, NULL, 0, "flush: what a device given by --cxl holds may go", 3},
    {"data", KEY_DATA, "FILE", 0, "latency, recovery: what gnuplot draws", 3},
    {"json", KEY_JSON, NULL, 0, "JSON instead of a table", 3},
    {NULL, 0, NULL, 0, NULL, 0},
};

struct line {
    struct bench_options o;
    size_t mode; /* MODES: none yet */
};

static uint64_t size_arg(struct argp_state *state, const char *what, const char *text, uint64_t low,
                         uint64_t high)
{
    uint64_t n = 0;
    if (size_parse(text, &n) != 0 || n < low || n > high)
        argp_error(state, "%s: \"%s\" is no size from %llu to %llu (like 4096, 64K or 2G).", what,
                   text, (unsigned long long)low, (unsigned long long)high);
    return n;
}

static unsigned number_arg(struct argp_state *state, const char *what, const char *text,
                           unsigned low, unsigned high)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || n < low || n > high)
        argp_error(state, "%s: \"%s\" is no number from %u to %u.", what, text, low, high);
    return (unsigned)n;
}

static void rates_arg(struct argp_state *state, struct bench_options *o, const char *text)
{
    o->n_rates = 0;
    for (const char *at = text; *at;) {
        char *end;
        double rate = strtod(at, &end);
        if (end == at || (*end && *end != ',') || !(rate >= 1 && rate <= 1e7) ||
            o->n_rates == MAX_RATES)
            argp_error(state, "--rates: \"%s\" is no list of up to %u rates like 1000,10000.", text,
                       MAX_RATES);
        o->rates[o->n_rates++] = rate;
        at = *end ? end + 1 : end;
    }
}

static size_t find_mode(struct argp_state *state, const char *name)
{
    size_t i = 0;
    while (i < MODES && strcmp(name, modes[i].name) != 0)
        i++;
    if (i == MODES)
        argp_error(state,
                   "there is no measurement \"%s\": choose pub, order, sub, cat, append, latency, "
                   "fair, loops, flush, idle or recovery.",
                   name);
    return i;
}

static error_t parse_load(int key, char *arg, struct argp_state *state, struct line *line)
{
    struct bench_options *o = &line->o;
    switch (key) {
    case KEY_TOPIC: o->topic = arg; return 0;
    case KEY_MESSAGE:
        o->message_size = (uint32_t)size_arg(state, "--message-size", arg, 8, 16u << 20);
        return 0;
    case KEY_CONNECTIONS:
        o->connections = number_arg(state, "--connections", arg, 1, 100000);
        return 0;
    case KEY_PROCESSES: o->processes = number_arg(state, "--processes", arg, 1, 64); return 0;
    case KEY_SESSION:
        o->session_connections = number_arg(state, "--session-connections", arg, 1, 64);
        return 0;
    case KEY_BYTES:
        o->bytes = size_arg(state, "--bytes", arg, 1u << 20, UINT64_C(1) << 44);
        return 0;
    case KEY_SECONDS: o->seconds = number_arg(state, "--seconds", arg, 1, 3600); return 0;
    case KEY_BATCH: o->batch = (uint32_t)size_arg(state, "--batch", arg, 64, 16u << 20); return 0;
    case KEY_WINDOW:
        o->window = size_arg(state, "--window", arg, 4096, UINT64_C(1) << 34);
        return 0;
    case KEY_ORDER:
        o->order = (int)number_arg(state, "--order", arg, 0, 5);
        if (o->order != 0 && o->order != 2 && o->order != 5)
            argp_error(state, "--order: the orders are 0, 2 and 5.");
        return 0;
    case KEY_ACK: o->ack = (int)number_arg(state, "--ack", arg, 0, 2); return 0;
    case KEY_API:
        if (strcmp(arg, "batch") != 0 && strcmp(arg, "message") != 0)
            argp_error(state, "--api: batch or message.");
        o->api = *arg == 'b' ? API_BATCH : API_MESSAGE;
        return 0;
    case KEY_RATES: rates_arg(state, o, arg); return 0;
    case KEY_SPIN: o->spin = true; return 0;
    case KEY_BATCHES: o->batches = size_arg(state, "--batches", arg, 10000, 100000000); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct line *line = state->input;
    struct bench_options *o = &line->o;
    switch (key) {
    case 's': o->server = arg; return 0;
    case KEY_TOKEN: o->token_file = arg; return 0;
    case KEY_MOUNT: o->mount = arg; return 0;
    case KEY_EMBARFS: o->program = arg; return 0;
    case KEY_CXL: o->spec = arg; return 0;
    case KEY_SIZE: o->size = size_arg(state, "--size", arg, 4u << 20, UINT64_C(1) << 44); return 0;
    case KEY_FLUSH:
        o->flush_text = arg;
        if (flush_mode_parse(arg, &o->flush) != 0)
            argp_error(state, "--flush: auto, none, clwb, clflushopt or nt.");
        return 0;
    case KEY_WORKERS: o->workers = number_arg(state, "--workers", arg, 1, 256); return 0;
    case KEY_ROUNDS: o->rounds = number_arg(state, "--rounds", arg, 1, REPORT_MAX_ROUNDS); return 0;
    case KEY_WARMUP: o->warmup = number_arg(state, "--warmup", arg, 0, 100); return 0;
    case KEY_RECV:
        o->recv_size = (uint32_t)size_arg(state, "--recv-size", arg, 1024, 16u << 20);
        return 0;
    case KEY_SOCKBUF: o->sockbuf = (int)size_arg(state, "--sockbuf", arg, 4096, 1u << 30); return 0;
    case KEY_UNIX: o->unix_socket = true; return 0;
    case KEY_SUBJECT: o->subject_only = true; return 0;
    case KEY_OVERWRITE: o->overwrite = true; return 0;
    case KEY_JSON: o->json = true; return 0;
    case KEY_DATA: o->data = arg; return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one measurement at a time.");
        line->mode = find_mode(state, arg);
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "say what to measure."); return 0;
    default: return parse_load(key, arg, state, line);
    }
}

/* What was not given follows from what is measured. */
static int fill_in(struct line *line, struct embar_error *err)
{
    struct bench_options *o = &line->o;
    if (!o->bytes)
        o->bytes = modes[line->mode].bytes ? modes[line->mode].bytes : 64u << 20;
    if (!o->connections)
        o->connections = modes[line->mode].connections;
    if (!o->rounds)
        o->rounds = modes[line->mode].rounds;
    if (!o->seconds)
        o->seconds = modes[line->mode].seconds;
    if (!o->message_size)
        o->message_size = modes[line->mode].message_size;
    bool listed = modes[line->mode].run == bench_order && !o->batch; /* of several sizes */
    if (!o->batch && !listed)
        o->batch = 2u << 20;
    if (!listed && o->batch < o->message_size)
        o->batch = o->message_size;
    if (o->n_rates == 0) {
        static const double rates[] = {1000, 10000, 50000};
        memcpy(o->rates, rates, sizeof(rates));
        o->n_rates = 3;
    }
    if (o->processes > o->connections)
        return embar_fail(err, -EMBAR_EINVALID,
                          "%u processes for %u connections: use at most one process for each.",
                          o->processes, o->connections);
    uint32_t largest = listed ? 2u << 20 : o->batch;
    if (modes[line->mode].bytes && o->bytes / o->connections < largest)
        return embar_fail(err, -EMBAR_EINVALID,
                          "--bytes gives each of %u connections less than one batch (%u bytes): "
                          "raise --bytes or lower --batch.",
                          o->connections, largest);
    return 0;
}

/* The pool holds a round with room for what the log needs besides; extents are never packed full. */
static void choose_size(struct bench_options *o, const char *mode)
{
    uint64_t need = o->bytes;
    if (strcmp(mode, "latency") == 0) {
        double most = 0;
        for (unsigned i = 0; i < o->n_rates; i++)
            most = o->rates[i] > most ? o->rates[i] : most;
        need = (uint64_t)(most * o->seconds) * o->message_size * 2;
    }
    if (strcmp(mode, "fair") == 0)
        need = UINT64_C(1) << 30; /* its neighbours' batches are large, and forgotten soon */
    if (!o->size)
        o->size = (need + need / 2 + (UINT64_C(256) << 20)) & ~(uint64_t)0xfffff;
}

/* Ctrl-C and the like: tidy first, then end as the signal says. keeper_stop only sends and waits. */
static void on_signal(int sig)
{
    keeper_stop();
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaction(signals[i], &sa, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

int cmd_bench(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "pub|order|sub|cat|append|latency|fair|loops|flush|idle|recovery",
        .doc =
            "Measure embarfs beside what the machine can do at most, in interleaved rounds of "
            "one run: pub (acked bytes; raw and equal-work sinks, memory), order (order 5 "
            "beside 0 and 2), sub (raw source), cat and append (null FUSE server, tmpfs), latency "
            "(paced TCP echo), fair (the same alone), loops (epoll), flush (memory alone), idle, "
            "recovery "
            "(opening a pool)."};
    struct line line = {.o = {.server = cmd_globals.server,
                              .token_file = cmd_globals.token_file,
                              .topic = "embar-bench",
                              .flush = FLUSH_AUTO,
                              .recv_size = 256u << 10,
                              .processes = 1,
                              .session_connections = 1,
                              .warmup = 1,
                              .order = 5,
                              .batches = 10000000,
                              .ack = 1},
                        .mode = MODES};
    struct embar_error err = {0};
    argp_err_exit_status = CMD_USAGE;
    cmd_parse(&argp, argc, argv, &line);
    const char *name = modes[line.mode].name;
    int rc = fill_in(&line, &err);
    if (rc) {
        (void)fprintf(stderr, "%s: %s\n", argv[0], err.text);
        return CMD_USAGE;
    }
    choose_size(&line.o, name);
    struct report *report = report_new(name, modes[line.mode].title);
    catch_signals();
    rc = keeper_start();
    if (rc)
        (void)embar_fail(&err, rc, "starting the process that tidies up");
    else
        rc = modes[line.mode].run(&line.o, report, &err);
    keeper_stop();
    if (rc == 0) {
        rc = report_print(report, line.o.json, stdout);
        if (rc)
            (void)embar_fail(&err, rc, "writing the report");
    }
    report_free(report);
    if (rc == 0)
        return CMD_OK;
    (void)fprintf(stderr, "%s %s: %s\n", argv[0], name, err.text);
    return CMD_FAILURE;
}
