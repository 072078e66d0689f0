/* What a log must hold: names, topics, sessions and batches as they were promised, kept beside the
 * real log with none of its code.
 *
 * Payload bytes are not kept: a batch has a serial number, which its first four bytes say and which
 * the rest is made from, so a batch that is lost, doubled, moved, torn or another topic's shows.
 * Ledgers may be copied; copies share the topics' batch lists, of which each knows a prefix.
 */
#ifndef TESTS_CRASH_LEDGER_H
#define TESTS_CRASH_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/log.h"

#define LEDGER_NODES    40u
#define LEDGER_SESSIONS 40u
#define LEDGER_NAME     16u
#define LEDGER_AHEAD    64u
#define LEDGER_MIN      4u /* bytes of the smallest batch: its serial number */

struct entry_batch {
    uint32_t serial, length, count;
    bool equal;
    uint64_t offset, message; /* in its topic */
    uint64_t session, sequence;
    uint64_t time; /* of its record */
};

struct node {
    uint32_t id, parent, mode, uid, gid;
    uint8_t order, ack, policy;
    bool is_dir;
    uint64_t keep_bytes, keep_age;
    uint64_t base, end, first, messages;
    size_t batches; /* known of the topic's list, trimmed ones too */
    char name[LEDGER_NAME];
};

struct promise { /* a session */
    uint64_t id;
    uint64_t sequence, messages; /* the mark, up to which all is committed, and what is in that */
    uint32_t topic, principal, epoch;
    unsigned aheads;
    struct {
        uint64_t sequence;
        uint32_t messages;
    } ahead[LEDGER_AHEAD]; /* committed above the mark, in no order */
};

struct batch_list {
    struct entry_batch *v;
    size_t capacity;
};

struct lists { /* by topic id */
    struct batch_list *v;
    size_t capacity;
};

struct ledger {
    struct lists *lists;
    struct node node[LEDGER_NODES];
    unsigned nodes;
    struct promise session[LEDGER_SESSIONS];
    unsigned sessions;
    uint32_t next_id;
    uint64_t number; /* of the last entry that is known */
    /* By what retention may trim by itself: ages are counted to this moment; a reservation found no space. */
    uint64_t old;
    bool starved;
};

void ledger_init(struct ledger *l, struct lists *lists);
void lists_free(struct lists *lists);

struct node *ledger_node(struct ledger *l, uint32_t id);
struct node *ledger_child(struct ledger *l, uint32_t parent, const char *name);
struct promise *ledger_session(struct ledger *l, uint64_t id);
struct entry_batch *ledger_batch(const struct ledger *l, uint32_t topic, size_t i);
/* Index of the first batch that reaches above `offset`. */
size_t ledger_find(const struct ledger *l, const struct node *t, uint64_t offset);

/* Is the batch of the session committed? It is now. */
bool promise_has(const struct promise *s, uint64_t sequence);
void promise_take(struct promise *s, uint64_t sequence, uint32_t messages);

/* Apply a control action (a trim: value2 says where messages begin, if nobody was told), which an entry `number` commits: 0; 1: nothing to do; or why it is
 * refused, as the log would say. */
int ledger_control(struct ledger *l, const struct control *c, uint64_t number);
/* Append a batch to its topic and to its session. */
void ledger_append(struct ledger *l, uint32_t topic, const struct entry_batch *b);

/* Bytes [at, at + n) of a batch. */
void payload_fill(uint32_t serial, uint32_t at, void *to, size_t n);
bool payload_equal(uint32_t serial, uint32_t at, const void *bytes, size_t n);
/* Message lengths of a batch that are not all equal. */
void payload_lengths(const struct entry_batch *b, uint32_t *lengths);

/* splitmix64: good numbers from any state. */
uint64_t draw(uint64_t *state);
static inline uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)((draw(state) >> 32) * n >> 32);
}
static inline bool chance(uint64_t *state, uint32_t one_in)
{
    return below(state, one_in) == 0;
}

#endif
