/* Subscribing with libembar: messages one by one from a position, and following with poll beside
 * other descriptors.
 *
 *   cc subscribe.c $(pkg-config --cflags --libs libembar) -o subscribe
 *   ./subscribe TOPIC [MAX [SERVER]]
 *
 * Prints each message with its number and offset, follows until MAX messages came (0: for ever) or
 * standard input ends.
 *
 *   $ ./subscribe demo/greetings 2 </dev/tty
 *   0 @0: greeting 0
 *   1 @11: greeting 1
 *   next is message 2 at offset 22
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <embar/embar.h>

static int give_up(const struct embar_error *err)
{
    fprintf(stderr, "subscribe: %s\n", err->text);
    return EXIT_FAILURE;
}

/* msg.data points into the receive buffer: good until the next call. */
static void show(const struct embar_message *msg)
{
    const char *text = msg->data;
    size_t n = msg->length;
    if (text[n - 1] == '\n')
        n--;
    printf("%llu @%llu: %.*s\n", (unsigned long long)msg->message, (unsigned long long)msg->offset,
           (int)n, text);
}

/* True: standard input has ended. Returns when there may be messages, too. */
static bool input_ended(const struct embar_subscription *sub)
{
    struct pollfd p[2] = {{.fd = embar_sub_fd(sub), .events = POLLIN},
                          {.fd = STDIN_FILENO, .events = POLLIN}};
    char line[256];
    while (poll(p, 2, -1) < 0 && errno == EINTR)
        ;
    return p[1].revents && read(STDIN_FILENO, line, sizeof(line)) <= 0;
}

int main(int argc, char **argv)
{
    struct embar_error err;
    struct embar_client *client;
    struct embar_subscription *sub;
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "subscribe TOPIC [MAX [SERVER]]\n");
        return 2;
    }

    struct embar_options where = {.server = argc > 3 ? argv[3] : NULL};
    if (embar_connect(&client, &where, &err) < 0)
        return give_up(&err);

    struct embar_subscribe_options what = {
        .from = EMBAR_EARLIEST,
        .follow = true,
        .limit = argc > 2 ? strtoull(argv[2], NULL, 10) : 0,
    };
    if (embar_subscribe(&sub, client, argv[1], &what, &err) < 0)
        return give_up(&err);

    /* Take what is there without waiting, then wait for the socket and for our own input. Broken
     * connections are made good in embar_next. */
    for (;;) {
        struct embar_message msg;
        int rc = embar_next(sub, &msg, 0, &err);
        if (rc > 0)
            show(&msg);
        else if (rc == 0)
            break; /* MAX messages */
        else if (rc != -ETIMEDOUT)
            return give_up(&err);
        else if (fflush(stdout) == EOF || input_ended(sub))
            break;
    }

    struct embar_sub_info info;
    embar_sub_info(sub, &info);
    printf("next is message %llu at offset %llu\n", (unsigned long long)info.message,
           (unsigned long long)info.offset);
    embar_unsubscribe(sub);
    embar_disconnect(client);
    return EXIT_SUCCESS;
}
