/* Sessions: a publisher's identity on one topic, the fold of its entries (DESIGN section 5).
 *
 * The hash changes only in the fold, under sessions.lock; the sequencer therefore looks up without
 * it. Committed fields are written and read under the lock, ordering fields are the sequencer's.
 */
#include <errno.h>
#include <stdlib.h>

#include "core/log_state.h"

struct session *session_find(struct log *log, uint64_t id)
{
    struct session *s;
    HASH_FIND(hh, log->sessions.by_id, &id, sizeof id, s);
    return s;
}

int session_add(struct log *log, const struct session *s)
{
    if (session_find(log, s->id))
        return -EMBAR_ECORRUPT;
    struct session *mine = malloc(sizeof *mine);
    if (!mine)
        return -ENOMEM;
    *mine = *s;
    mine->ordered = s->sequence;
    mine->held = mine->held_last = NULL;
    mine->held_count = 0;
    pthread_mutex_lock(&log->sessions.lock);
    HASH_ADD(hh, log->sessions.by_id, id, sizeof mine->id, mine);
    log->sessions.count++;
    pthread_mutex_unlock(&log->sessions.lock);
    return 0;
}

void session_drop(struct log *log, struct session *s)
{
    pthread_mutex_lock(&log->sessions.lock);
    HASH_DELETE(hh, log->sessions.by_id, s);
    log->sessions.count--;
    pthread_mutex_unlock(&log->sessions.lock);
    free(s);
}

void sessions_destroy(struct log *log)
{
    struct session *s, *next;
    for (s = log->sessions.by_id; s; s = next) {
        next = s->hh.next;
        HASH_DELETE(hh, log->sessions.by_id, s);
        free(s);
    }
    pthread_mutex_destroy(&log->sessions.lock);
}

int log_session(struct log *log, uint64_t id, struct session_stat *st)
{
    pthread_mutex_lock(&log->sessions.lock);
    const struct session *s = session_find(log, id);
    if (s)
        *st = (struct session_stat){.id = s->id,
                                    .sequence = s->sequence,
                                    .messages = s->messages,
                                    .time = s->time,
                                    .topic = s->topic,
                                    .epoch = s->epoch,
                                    .principal = s->principal};
    pthread_mutex_unlock(&log->sessions.lock);
    return s ? 0 : -EMBAR_ESESSION;
}
