/* Sessions: a publisher's identity on one topic, the fold of its entries (DESIGN section 5).
 *
 * A session's mark is the highest sequence up to which all its batches are committed. At order 5
 * that is all there is to know; at orders 0 and 2 batches are committed as they come, and a window of
 * MEDIA_WINDOW batches above the mark says which were. What is further above is refused, so that
 * nothing ever falls out of the window unseen: a batch is committed once, however often it is sent.
 *
 * The hash changes only in the fold, under sessions.lock; the sequencer therefore looks up without
 * it. Committed fields are written and read under the lock, all others are the sequencer's.
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

static struct principal *principal_find(struct log *log, uint32_t id)
{
    struct principal *p;
    HASH_FIND(hh, log->sessions.principals, &id, sizeof id, p);
    return p;
}

static struct principal *principal_take(struct log *log, uint32_t id)
{
    struct principal *p = principal_find(log, id);
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return NULL;
        p->id = id;
        HASH_ADD(hh, log->sessions.principals, id, sizeof p->id, p);
        if (!is_hashed(p, hh)) {
            free(p);
            return NULL;
        }
    }
    p->sessions++;
    return p;
}

static void principal_leave(struct log *log, struct principal *p)
{
    if (--p->sessions > 0)
        return;
    HASH_DELETE(hh, log->sessions.principals, p);
    free(p);
}

int session_add(struct log *log, const struct session *s)
{
    struct topic *t = names_id(&log->names, s->topic);
    if (session_find(log, s->id) || !t || names_is_dir(t))
        return -EMBAR_ECORRUPT;
    struct session *mine = calloc(1, sizeof *mine);
    if (!mine)
        return -ENOMEM;
    mine->owner = principal_take(log, s->principal);
    if (!mine->owner) {
        free(mine);
        return -ENOMEM;
    }
    mine->id = s->id;
    mine->topic = s->topic;
    mine->principal = s->principal;
    mine->epoch = s->epoch;
    mine->sequence = mine->ordered = s->sequence;
    mine->messages = mine->ordered_messages = s->messages;
    mine->time = s->time;
    pthread_mutex_lock(&log->sessions.lock);
    HASH_ADD(hh, log->sessions.by_id, id, sizeof mine->id, mine);
    bool added = is_hashed(mine, hh);
    log->sessions.count += added;
    pthread_mutex_unlock(&log->sessions.lock);
    if (!added) {
        principal_leave(log, mine->owner);
        free(mine);
        return -ENOMEM;
    }
    LIST_INSERT_HEAD(&t->sessions, mine, topic_link);
    TAILQ_INSERT_TAIL(&log->sessions.by_age, mine, age_link);
    mine->changed = s->changed;
    mine->told = s->told;
    TAILQ_INSERT_HEAD(&log->manifest.sessions, mine, changed_link);
    return 0;
}

static void session_free(struct log *log, struct session *s)
{
    log->sessions.ahead -= s->ahead_count;
    principal_leave(log, s->owner);
    free(s->ahead);
    free(s);
}

void session_drop(struct log *log, struct session *s)
{
    LIST_REMOVE(s, topic_link);
    TAILQ_REMOVE(&log->sessions.by_age, s, age_link);
    manifest_drop_session(log, s);
    pthread_mutex_lock(&log->sessions.lock);
    HASH_DELETE(hh, log->sessions.by_id, s);
    log->sessions.count--;
    pthread_mutex_unlock(&log->sessions.lock);
    session_free(log, s);
}

void sessions_destroy(struct log *log)
{
    struct session *s, *next;
    for (s = log->sessions.by_id; s; s = next) {
        next = s->hh.next;
        HASH_DELETE(hh, log->sessions.by_id, s);
        session_free(log, s);
    }
    pthread_mutex_destroy(&log->sessions.lock);
}

/* ---- The window --------------------------------------------------------------------------- */

bool session_is_far(const struct session *s, uint64_t sequence)
{
    return sequence > s->ordered && sequence - s->ordered > MEDIA_WINDOW;
}

bool session_taken(const struct session *s, uint64_t sequence)
{
    return sequence <= s->ordered || (s->ahead_count > 0 && !session_is_far(s, sequence) &&
                                      s->ahead[sequence % MEDIA_WINDOW] != 0);
}

int session_take(struct log *log, struct session *s, uint64_t sequence, uint32_t messages)
{
    if (sequence != s->ordered + 1) {
        if (!s->ahead && !(s->ahead = calloc(MEDIA_WINDOW, sizeof *s->ahead)))
            return -ENOMEM;
        s->ahead[sequence % MEDIA_WINDOW] = messages;
        s->ahead_count++;
        log->sessions.ahead++;
        return 0;
    }
    s->ordered = sequence;
    s->ordered_messages += messages;
    /* The mark moves over what was taken ahead of it. */
    for (uint32_t *next; s->ahead_count > 0; *next = 0) {
        next = &s->ahead[(s->ordered + 1) % MEDIA_WINDOW];
        if (*next == 0)
            break;
        s->ordered++;
        s->ordered_messages += *next;
        s->ahead_count--;
        log->sessions.ahead--;
    }
    return 0;
}

void session_commit(struct log *log, struct session *s, uint64_t time)
{
    pthread_mutex_lock(&log->sessions.lock);
    s->sequence = s->ordered;
    s->messages = s->ordered_messages;
    if (time > s->time)
        s->time = time;
    pthread_mutex_unlock(&log->sessions.lock);
    TAILQ_REMOVE(&log->sessions.by_age, s, age_link);
    TAILQ_INSERT_TAIL(&log->sessions.by_age, s, age_link);
}

void session_fence(struct log *log, struct session *s, uint32_t epoch)
{
    uint64_t highest = s->ordered;
    for (uint32_t i = 1; s->ahead_count > 0; i++) {
        uint32_t *at = &s->ahead[(s->ordered + i) % MEDIA_WINDOW];
        if (*at == 0)
            continue;
        *at = 0;
        highest = s->ordered + i;
        s->ahead_count--;
        log->sessions.ahead--;
    }
    s->ordered = highest;
    pthread_mutex_lock(&log->sessions.lock);
    s->epoch = epoch;
    s->sequence = highest;
    pthread_mutex_unlock(&log->sessions.lock);
}

int log_fenced(uint32_t known, uint32_t now)
{
    return known >> LOG_EPOCH_GAPS < now >> LOG_EPOCH_GAPS ? -EMBAR_ETAKEN : -EMBAR_EFENCED;
}

/* ---- Bounds ------------------------------------------------------------------------------- */

/* The longest idle one that has outlived its lifetime, of `p` or of anybody. */
static struct session *session_expired(struct log *log, const struct principal *p)
{
    uint64_t now = now_realtime();
    for (struct session *s = TAILQ_FIRST(&log->sessions.by_age); s; s = TAILQ_NEXT(s, age_link)) {
        if (s->time + log->sessions.lifetime_ns > now)
            return NULL;
        if (!s->held && (!p || s->owner == p))
            return s;
    }
    return NULL;
}

int session_room(struct log *log, uint32_t principal)
{
    struct sessions *all = &log->sessions;
    const struct principal *p = principal_find(log, principal);
    bool is_full = p && p->sessions >= all->each;
    if (!is_full && all->count < all->limit)
        return 0;
    const struct session *old = session_expired(log, is_full ? p : NULL);
    if (!old)
        return -EMBAR_ELIMIT;
    struct control close = {.kind = MEDIA_C_CLOSE, .value = old->id};
    struct commit commit = {0};
    return seq_control(log, &close, &commit);
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
