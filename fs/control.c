/* Control actions whose outcome answers a request: create, remove, rename, attributes, trim
 * (steps 6 to 9 for names). Must never wait for the commit: the completion queues the answer for
 * the replies thread, which may look things up in the log where a completion may not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/fs.h"

static void action_run(struct task *task)
{
    struct action *a = (struct action *)((char *)task - offsetof(struct action, task));
    struct fs *fs = a->fs;
    a->answer(a);
    free(a);
    atomic_fetch_sub_explicit(&fs->outstanding, 1, memory_order_release);
}

static void action_done(struct completion *self, const struct commit *commit)
{
    struct action *a = (struct action *)((char *)self - offsetof(struct action, completion));
    a->commit = *commit;
    tasks_push(&a->fs->replies, &a->task);
}

struct action *action_new(struct fs *fs, fuse_req_t req, enum media_control_kind kind,
                          void (*answer)(struct action *))
{
    struct action *a = calloc(1, sizeof *a);
    if (!a) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    a->control.kind = kind;
    a->control.completion = &a->completion;
    a->completion.done = action_done;
    a->task.run = action_run;
    a->fs = fs;
    a->req = req;
    a->answer = answer;
    return a;
}

void action_name(struct action *a, const char *name)
{
    snprintf(a->control.name, sizeof(a->control.name), "%s", name);
}

void action_send(struct action *a)
{
    struct fs *fs = a->fs;
    atomic_fetch_add_explicit(&fs->outstanding, 1, memory_order_relaxed);
    log_control(fs->log, &a->control);
    log_commit(fs->log);
}

void action_answer_error(struct action *a)
{
    fuse_reply_err(a->req, embar_to_errno(a->commit.status));
}
