/* What seq.c, seq_act.c and retain.c share, and nobody else (steps 7 and 8). All with the sequencer's
 * role. */
#ifndef CORE_SEQ_STATE_H
#define CORE_SEQ_STATE_H

#include "core/log_state.h"

/* Entries that fit before the ring meets what the newest checkpoint needs, and how many of them are kept
 * back for control actions, so that a full ring can still trim. */
uint64_t seq_ring_room(const struct log *log);
uint64_t seq_ring_margin(const struct log *log);
/* The entry's line, as the next of the chain. Under a guard. */
void seq_entry_put(struct log *log, const struct entry *e);
/* The entry, or two, of a batch at log offset `offset`. Returns the number of the first. Under a
 * guard: what it leaves half done nobody goes on with once the log is faulted. */
uint64_t seq_batch_entries(struct log *log, const struct batch *b, uint64_t offset, uint8_t kind,
                           bool late);
/* Where a batch stands, for the fold. */
struct placed seq_placed(const struct batch *b, uint64_t offset);
/* Make the entries from `first` on durable in the sense of the pool. */
int seq_harden(struct log *log, uint64_t first) __attribute__((warn_unused_result));
/* Behind what was hardened. What was told by then stays told. */
void seq_watermark(struct log *log);
/* The pool failed, or what is committed cannot be folded: our state is not the index's. */
int seq_fail(struct log *log, int status);

/* Trims of different topics: all hardened at once, then folded. Each says in its status what became of
 * it; -EMBAR_EFULL and -EAGAIN, returned too: it was not tried for want of space or of a log. */
struct trim {
    struct topic *topic; /* in */
    uint64_t to;         /* in; out: the base, where it was moved */
    int status;
    uint64_t first, altered, number, end, messages; /* as in a control action; number 0: none */
    struct placed placed;
    unsigned kinds; /* the caller's */
};
int seq_trims(struct log *log, struct trim *trim, unsigned n);

#endif
