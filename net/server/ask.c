/* Asks: a frame that needs a control action of the log, which is answered when committed.
 *
 * The connection's input stops at that frame, which stays where it is in the input buffer. When the
 * completion comes back as mail, the frame's handler is called again and finds the result in
 * c->ask. Nothing ever waits here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/server/internal.h"

static void ask_deliver(struct worker *w, struct mail *m)
{
    struct ask *a = container_of(m, struct ask, mail);
    struct conn *c = a->conn;
    w->outstanding--;
    a->pending = false;
    if (c->closed) {
        free(a);
        c->ask = NULL;
    } else {
        conn_ready(c);
    }
    conn_unref(c);
}

static void ask_done(struct completion *self, const struct commit *commit)
{
    struct ask *a = container_of(self, struct ask, completion);
    a->result = *commit;
    mail_push(&a->conn->worker->box, &a->mail);
}

int ask_begin(struct conn *c, unsigned stage, struct ask **out)
{
    if (!c->ask) {
        c->ask = calloc(1, sizeof(*c->ask));
        if (!c->ask)
            return -ENOMEM;
    }
    struct ask *a = c->ask;
    memset(a, 0, sizeof(*a));
    a->conn = c;
    a->stage = stage;
    a->completion.done = ask_done;
    a->mail.deliver = ask_deliver;
    a->control.completion = &a->completion;
    *out = a;
    return 0;
}

void ask_submit(struct conn *c)
{
    struct worker *w = c->worker;
    c->ask->pending = true;
    c->refs++;
    w->outstanding++;
    w->todo++;
    log_control(w->log, &c->ask->control);
}

void ask_end(struct conn *c)
{
    free(c->ask);
    c->ask = NULL;
}
