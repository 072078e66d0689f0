/* A broker without a mount, for the tests of the command: the real log and the real server.
 *
 *   broker POOL SIZE SOCKET TOKEN READY
 *
 * Serves the pool (made with SIZE when absent; "mem:SIZE" too) on a Unix socket and on loopback TCP
 * (a free port), makes the TOKEN file when there is none, writes "host:port" to READY
 * (a new file, moved into place) once it serves, and ends on SIGTERM. BROKER_SESSIONS in the
 * environment bounds the table of sessions.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "net/server/server.h"
#include "net/wire.h"

static int fail(const char *what, const struct embar_error *err)
{
    fprintf(stderr, "broker: %s: %s\n", what, err->text);
    return 1;
}

static bool token_of(const char *path, uint8_t token[WIRE_TOKEN])
{
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        if (getrandom(token, WIRE_TOKEN, 0) != (ssize_t)WIRE_TOKEN)
            return false;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        return fd >= 0 && write(fd, token, WIRE_TOKEN) == (ssize_t)WIRE_TOKEN && close(fd) == 0;
    }
    return read(fd, token, WIRE_TOKEN) == (ssize_t)WIRE_TOKEN && close(fd) == 0;
}

static bool tell_ready(const char *path, const char *address)
{
    char temporary[4096];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    FILE *f = fopen(temporary, "w");
    return f && fprintf(f, "%s\n", address) > 0 && fclose(f) == 0 && rename(temporary, path) == 0;
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "broker POOL SIZE SOCKET TOKEN READY\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);

    struct embar_error err = {.text = "?"};
    struct region region;
    struct region_options ro = {.spec = argv[1], .create = true, .durability = -1};
    struct stat st;
    if (size_parse(argv[2], &ro.size) < 0 || stat(argv[1], &st) == 0 ||
        strncmp(argv[1], "mem:", 4) == 0)
        ro.size = 0;
    if (region_open(&region, &ro, &err) < 0)
        return fail("pool", &err);
    struct log *log;
    const char *sessions = getenv("BROKER_SESSIONS");
    struct log_options lo = {.region = &region,
                             .sessions = sessions ? (unsigned)atoi(sessions) : 0};
    if (log_open(&log, &lo, &err) < 0)
        return fail("log", &err);
    uint8_t token[WIRE_TOKEN];
    if (!token_of(argv[4], token))
        return fail("no token", &err);
    struct server *server;
    struct server_options so = {.log = log,
                                .listen = "127.0.0.1:0",
                                .unix_path = argv[3],
                                .token = token,
                                .workers = 2,
                                .auto_create = true,
                                .ack_max = 1};
    if (server_start(&server, &so, &err) < 0)
        return fail("server", &err);
    if (!tell_ready(argv[5], server_address(server)))
        return fail("ready file", &err);
    int got;
    sigwait(&set, &got);
    server_stop(server);
    log_close(log);
    region_close(&region);
    return 0;
}
