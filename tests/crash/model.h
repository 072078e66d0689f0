/* What a pool must hold: a model of the log that a campaign keeps beside the real one, and the check
 * of a recovered log against it.
 *
 * Acked is certain; what was begun and not acked yet (in flight) may be there wholly or not at all,
 * in the order in which a topic got it. Content is a function of topic and log offset, so a lost,
 * doubled, swapped, shifted or torn batch shows, wherever it is.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/log.h"

#define MODEL_TOPICS  6u
#define MODEL_FLIGHT  8u
#define MODEL_BATCHES 4096u

struct model_batch {
    uint64_t offset, message;
    uint32_t length, count;
    bool in_session;
};

struct model_topic {
    bool exists;
    uint32_t id;
    char name[32];
    uint64_t base, end, messages; /* acked */
    uint64_t session, sequence, session_messages;
    uint32_t epoch;
    /* Retained, acked: [head, tail) modulo MODEL_BATCHES. */
    struct model_batch batch[MODEL_BATCHES];
    unsigned head, tail;
    /* Announced and not acked, oldest first. */
    struct model_batch flight[MODEL_FLIGHT];
    unsigned in_flight;
};

struct model {
    struct model_topic topic[MODEL_TOPICS];
    /* A control action in flight, on topic `subject`; kind 0: none. */
    enum media_control_kind kind;
    unsigned subject;
    char new_name[32]; /* RENAME, CREATE */
    uint64_t new_base; /* TRIM */
};

/* The byte of a topic at a log offset. */
void model_fill(uint32_t id, uint64_t offset, void *to, uint32_t n);
/* Forget retained batches below a base. */
void model_trim(struct model_topic *t, uint64_t base);

/* Does the recovered log agree? NULL, or why not (static storage). */
const char *model_check(const struct model *m, struct log *log);

#endif
