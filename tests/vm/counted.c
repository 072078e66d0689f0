/* Numbered lines for tests that kill what they publish to: makes them, checks them, and publishes
 * them with a session while it tells how many were acknowledged.
 *
 *   embar-test-counted lines TAG FILL FROM COUNT     to standard output
 *   embar-test-counted check TAG FILL                standard input must be lines 1, 2, 3 ...: tells
 *                                                    how many, or which is wrong (status 1)
 *   embar-test-counted stream TAG FILL TOPIC SESSION publish from where the session stands, until
 *                                                    killed; SESSION an id or "new"
 *
 * Line n is "TAG n" and, with FILL, up to that many letters which n alone decides: a line that is
 * torn, doubled, lost or out of place cannot pass. `stream` writes "session ID", then "TAG n" when
 * all lines up to n are acknowledged: never before.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "embar/embar.h"

#define LINE_MAX_BYTES 4096
#define TELL_NS        2000000u /* between two tellings: a serial port is slow */

static char letters_from[LINE_MAX_BYTES + 26]; /* the alphabet again and again */

struct lines {
    const char *tag;
    unsigned fill;
};

/* Line n with its newline; its length. */
static size_t make_line(const struct lines *l, uint64_t n, char text[LINE_MAX_BYTES])
{
    int head = snprintf(text, 200, "%.100s %" PRIu64, l->tag, n);
    if (head < 0)
        abort();
    size_t at = (size_t)head;
    if (l->fill > 0) {
        text[at++] = ' ';
        size_t letters = (size_t)(n * 7919 % l->fill) + 1;
        memcpy(text + at, letters_from + n % 26, letters);
        at += letters;
    }
    text[at++] = '\n';
    return at;
}

static uint64_t number(const char *text, uint64_t max)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n > max) {
        fprintf(stderr, "embar-test-counted: what is \"%s\"?\n", text);
        exit(2);
    }
    return n;
}

static int print_lines(const struct lines *l, uint64_t from, uint64_t count)
{
    char text[LINE_MAX_BYTES];
    for (uint64_t n = from; n < from + count; n++) {
        size_t length = make_line(l, n, text);
        fwrite(text, 1, length, stdout);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

static int check(const struct lines *l)
{
    char want[LINE_MAX_BYTES];
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    uint64_t n = 0;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        size_t size = make_line(l, n + 1, want);
        if ((size_t)length != size || memcmp(line, want, size) != 0) {
            printf("line %" PRIu64 " of %s is wrong: %.*s\n", n + 1, l->tag,
                   (int)strcspn(line, "\n"), line);
            free(line);
            return 1;
        }
        n++;
    }
    free(line);
    printf("%" PRIu64 "\n", n);
    return ferror(stdin) ? 1 : 0;
}

static uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int fail(const struct embar_error *err)
{
    fprintf(stderr, "embar-test-counted: %s\n", err->text);
    return 1;
}

static int stream(const struct lines *l, const char *topic, const char *session)
{
    struct embar_client *client;
    struct embar_publisher *pub;
    struct embar_error err;
    struct embar_publisher_options opt = EMBAR_PUBLISHER_OPTIONS;
    opt.session = EMBAR_SESSION_NEW;
    opt.batch_bytes = 16384;
    opt.window = 1 << 20;
    if (strcmp(session, "new") != 0) {
        opt.session = EMBAR_SESSION_RESUME;
        opt.session_id = number(session, UINT64_MAX);
    }
    if (embar_connect(&client, NULL, &err) < 0 ||
        embar_publisher_open(&pub, client, topic, &opt, &err) < 0)
        return fail(&err);
    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    const uint64_t resumed = info.resumed;
    printf("session %" PRIu64 "\n", info.session);
    fflush(stdout);
    uint64_t told = 0, told_at = 0;
    for (uint64_t n = resumed + 1;; n++) {
        char text[LINE_MAX_BYTES];
        int rc = embar_publish(pub, text, make_line(l, n, text), NULL, NULL);
        if (rc < 0) {
            /* The publisher that ended tells why better than the code does. */
            if (embar_flush(pub, 0, &err) == 0)
                (void)embar_fail(&err, rc, "a line was not taken");
            return fail(&err);
        }
        uint64_t now = clock_ns();
        if (now - told_at < TELL_NS)
            continue;
        told_at = now;
        embar_publisher_info(pub, &info);
        if (info.done_messages == told)
            continue;
        told = info.done_messages;
        printf("%s %" PRIu64 "\n", l->tag, resumed + told);
        if (fflush(stdout) != 0)
            return 1;
    }
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(letters_from); i++)
        letters_from[i] = (char)('a' + i % 26);
    if (argc >= 4) {
        const struct lines l = {argv[2], (unsigned)number(argv[3], LINE_MAX_BYTES - 256)};
        if (strcmp(argv[1], "lines") == 0 && argc == 6)
            return print_lines(&l, number(argv[4], UINT64_MAX / 2),
                               number(argv[5], UINT64_MAX / 2));
        if (strcmp(argv[1], "check") == 0 && argc == 4)
            return check(&l);
        if (strcmp(argv[1], "stream") == 0 && argc == 6)
            return stream(&l, argv[4], argv[5]);
    }
    fprintf(stderr, "usage: embar-test-counted lines|check|stream TAG FILL ...\n");
    return 2;
}
