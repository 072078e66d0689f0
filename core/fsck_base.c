/* The number that each topic says its oldest retained message has, against its batches (recovery).
 * Reads only, but for the state found. */
#include <inttypes.h>

#include "core/fsck_state.h"

#define U64 "%" PRIu64

/* The number of the message at the base: by its batch, or what its damaged run allows. Of messages without
 * bytes that stand there, as many as the topic says may have been trimmed. */
static uint64_t base_message(struct topic *t)
{
    uint64_t base = topic_base(t), message = t->first_message;
    struct batch_view v;
    if (base >= topic_end(t))
        return t->last_message_end;
    struct batch_cursor c = {.offset = base};
    if (topic_next(t, &c, &v) != 1) {
        size_t i = topic_run_find(t, base);
        uint64_t from = topic_run(t, i)->message;
        uint64_t to = i + 1 < t->run_count ? topic_run(t, i + 1)->message : t->last_message_end;
        return message < from ? from : message > to ? to : message;
    }
    uint64_t at = v.offset;
    uint32_t i = 0;
    message = v.message;
    for (; i < v.count && at < base; i++, message++)
        at += v.lengths ? le32_get(v.lengths[i]) : v.length / v.count;
    for (; i < v.count && message < t->first_message && v.lengths && le32_get(v.lengths[i]) == 0;
         i++)
        message++;
    read_release(&v.data);
    return message;
}

static void base_check(struct fsck *f, struct topic *t)
{
    uint64_t base = topic_base(t), message = base_message(t);
    if (message == t->first_message)
        return;
    fsck_say(f,
             &(struct finding){.kind = FSCK_TOTALS,
                               .severity = FSCK_WARNING,
                               .action = FSCK_REWRITE,
                               .id = t->id,
                               .offsets = {base, base}},
             "The oldest retained message is said to be number " U64 ", and it is " U64 ".",
             t->first_message, message);
    t->first_message = message;
    manifest_touch(f->log, t);
    f->state_damaged = true;
}

void fsck_bases(struct fsck *f)
{
    for (struct topic *t = f->log->names.by_id; t; t = t->by_id.next)
        if (!names_is_dir(t))
            base_check(f, t);
}
