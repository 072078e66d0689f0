/* The `embar` command: its subcommands and what they share.
 *
 * Each subcommand is one file with `int cmd_<name>(int argc, char **argv)`: argv[0] is its full
 * name ("embar pub"), the answer is the exit status. 0 done, 1 failed (a sentence is on stderr), 2
 * usage (but fsck: as e2fsck). They run one at a time in one thread; the globals of the command line are cmd_globals.
 */
#ifndef NET_CMD_CMD_H
#define NET_CMD_CMD_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "embar/embar.h"

#define CMD_OK      0
#define CMD_FAILURE 1
#define CMD_USAGE   2

int cmd_append(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_devices(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_fsck(int argc, char **argv);
int cmd_mkdir(int argc, char **argv);
int cmd_mv(int argc, char **argv);
int cmd_pool(int argc, char **argv);
int cmd_pub(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_set(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_sub(int argc, char **argv);
int cmd_topics(int argc, char **argv);
int cmd_trim(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* -s/--server and --token-file: where the broker is. As given before the subcommand's name, and the
 * defaults of those given after it. */
struct cmd_server {
    const char *server, *token_file;
};
extern struct cmd_server cmd_globals;

/* A child of the subcommand's argp, listed in its children; its input is a struct cmd_server *. */
extern const struct argp cmd_server_argp;
#define CMD_SERVER_CHILDREN                                                                        \
    (const struct argp_child[])                                                                    \
    {                                                                                              \
        {&cmd_server_argp, 0, NULL, 0},                                                            \
        {                                                                                          \
            NULL, 0, NULL, 0                                                                       \
        }                                                                                          \
    }

/* argp_parse, where whatever is wrong on the line ends the program with CMD_USAGE. */
void cmd_parse(const struct argp *argp, int argc, char **argv, void *input);
/* The same with a status of its own, for a command whose statuses mean something else (fsck). */
void cmd_parse_status(const struct argp *argp, int argc, char **argv, void *input, int usage);

/* "embar pub: SENTENCE" on stderr; returns CMD_FAILURE. */
int cmd_fail(const char *name, const struct embar_error *err);
/* Run fn over a pool's memory. Where that fails under it (a device that went, a file that was truncated)
 * the command ends with a sentence, and what it held is left to the exit. Returns what fn does. */
struct region;
int cmd_guarded(const char *name, struct region *r, int (*fn)(void *arg), void *arg);
void cmd_say(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Connect, or say why not: NULL. */
struct embar_client *cmd_connect(const char *name, const struct cmd_server *server);
/* The same, and say on stderr when the connection is gone for a while, and when it is back. `progress`: in place
 * of the line of progress that stands on the terminal; else what stands there is the command's output. */
struct embar_client *cmd_connect_telling(char *name, const struct cmd_server *server,
                                         bool progress);

/* ---- mounted.c ------------------------------------------------------------------------------ */

/* A pool could not be opened (rc < 0; 0 is nothing): where `spec` is a mount, or the pool of one, err says
 * so instead. Returns rc. */
int mounted_explain(const char *spec, int rc, struct embar_error *err);

/* ---- held.c --------------------------------------------------------------------------------- */

/* Another process holds the pool of r, which is to be this one's alone, and `why` says so: is it one that was just
 * unmounted and is being closed? True: try again; a moment has passed (net/mounts.h). */
struct mounts_wait;
bool held_wait(struct mounts_wait *w, const char *name, struct region *r,
               const struct embar_error *why);

/* ---- paths.c: one thing with each path that is named ---------------------------------------- */

/* First in the input of the subcommand's argp. */
struct cmd_paths {
    struct cmd_server server;
    const char *none; /* what to say when none is named */
    char **path;
    int count;
};
typedef int cmd_path_fn(struct embar_client *client, const char *path, void *arg,
                        struct embar_error *err);

/* For the keys that the subcommand's parser does not know: paths, and the server as first child. */
error_t cmd_paths_key(struct cmd_paths *p, int key, struct argp_state *state);
/* Call fn for each path; who answers below 0 has filled err. The exit status. */
int cmd_each(const char *name, const struct cmd_paths *p, cmd_path_fn *fn, void *arg);

/* ---- parse.c: values on the command line. False: it is no such value. ---------------------- */

bool parse_number(const char *text, uint64_t max, uint64_t *value);
/* earliest, latest, offset:N, message:N, time:T with T as when_time takes it. */
bool parse_position(const char *text, uint64_t now_ns, enum embar_from *from, uint64_t *value);
uint64_t wall_clock(void);

/* ---- settings.c: a topic's settings as options ---------------------------------------------- */

/* A child of the subcommand's argp beside cmd_server_argp; its input is a struct
 * embar_topic_options *. */
extern const struct argp cmd_settings_argp;

/* ---- text.c: output for people ------------------------------------------------------------ */

/* "1.5 GiB" into buf. */
const char *text_bytes(uint64_t bytes, char *buf, size_t size);
/* RFC 3339 in UTC with milliseconds; "-" for 0. */
const char *text_time(uint64_t ns, char *buf, size_t size);
/* With control characters written out (core/plain.h), to be freed. NULL: no memory. */
char *text_plain(const char *text);
/* That, and a newline, to standard output: for what comes from a broker or a pool. */
void put_line(const char *text);
/* All of it to fd 1. 0 or -errno. */
int write_out(const void *data, size_t length);

#endif
