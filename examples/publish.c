/* Publishing with libembar: asynchronous messages with callbacks, a batch that is sent from where it
 * stands, one message that is waited for, and what a publisher knows at the end.
 *
 *   cc publish.c $(pkg-config --cflags --libs libembar) -o publish
 *   ./publish TOPIC [SERVER]
 *
 * SERVER is host:port, the path of a socket or a mount point; without it the one mount is taken.
 *
 *   $ ./publish demo/greetings
 *   1000 messages were copied into batches, 1000 are acknowledged
 *   3 lines went out from where they stand
 *   one more was waited for
 *   demo/greetings: 1004 messages of this session, the topic ends at offset 12937
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <embar/embar.h>

/* Callbacks come from the publisher's own thread: what they touch is atomic. */
static atomic_uint acknowledged;

static void on_done(void *arg, const struct embar_error *err)
{
    const char *what = arg;
    if (err)
        fprintf(stderr, "%s was not published: %s\n", what, err->text);
    else
        atomic_fetch_add(&acknowledged, 1);
}

static int give_up(const struct embar_error *err)
{
    fprintf(stderr, "publish: %s\n", err->text);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct embar_error err;
    struct embar_client *client;
    struct embar_publisher *pub;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "publish TOPIC [SERVER]\n");
        return 2;
    }

    struct embar_options where = {.server = argc > 2 ? argv[2] : NULL};
    if (embar_connect(&client, &where, &err) < 0)
        return give_up(&err);

    /* The defaults: a session of its own, so that a broken connection loses and doubles nothing;
     * done means committed. */
    struct embar_publisher_options how = EMBAR_PUBLISHER_OPTIONS;
    if (embar_publisher_open(&pub, client, argv[1], &how, &err) < 0)
        return give_up(&err);

    /* 1. Messages are copied and sent in batches; the callback tells each one's end. */
    static char what[] = "a greeting";
    for (int i = 0; i < 1000; i++) {
        char text[32];
        int n = snprintf(text, sizeof(text), "greeting %d\n", i);
        int rc = embar_publish(pub, text, (size_t)n, on_done, what);
        if (rc < 0) {
            fprintf(stderr, "publish: %s\n", embar_strerror(rc));
            return EXIT_FAILURE;
        }
    }
    if (embar_flush(pub, -1, &err) < 0) /* waits for the callbacks, too */
        return give_up(&err);
    printf("1000 messages were copied into batches, %u are acknowledged\n",
           atomic_load(&acknowledged));

    /* 2. A batch of our own: not copied, so it must stay as it is until it is done. */
    static char lines[] = "first line\nsecond line\nthird line\n";
    struct iovec payload = {lines, strlen(lines)};
    const uint32_t lengths[] = {11, 12, 11};
    int rc = embar_publish_batch(pub, &payload, 1, lengths, 3, on_done, lines);
    if (rc < 0 || embar_flush(pub, -1, &err) < 0)
        return give_up(&err);
    printf("3 lines went out from where they stand\n");

    /* 3. One message, waited for. */
    if (embar_publish_wait(pub, "the last one\n", 13, &err) < 0)
        return give_up(&err);
    printf("one more was waited for\n");

    struct embar_publisher_info info;
    embar_publisher_info(pub, &info);
    printf("%s: %llu messages of this session, the topic ends at offset %llu\n", argv[1],
           (unsigned long long)info.messages, (unsigned long long)info.end);

    if (embar_publisher_close(pub, EMBAR_CLOSE_KEEP, &err) < 0)
        return give_up(&err);
    embar_disconnect(client);
    return EXIT_SUCCESS;
}
