/* What the flush layer's variants and the region that picks one share. Not for anybody else: the
 * rest of the tree calls core/flush.h only.
 */
#ifndef CORE_FLUSH_VARIANTS_H
#define CORE_FLUSH_VARIANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/flush.h"
#include "embar/error.h"

struct pmem2_map;

/* What the region knows about the memory behind a mapping. */
struct flush_memory {
    struct pmem2_map *lines; /* mapped at cache-line (or byte) granularity, else NULL */
    bool pages;              /* an ordinary file on a disk: the page cache is written back */
};

/* Pick the variant and set it up; -EMBAR_ESPEC when this processor lacks the instruction. */
int flush_choose(struct flush *f, enum flush_mode mode, const struct flush_memory *memory,
                 struct embar_error *err) __attribute__((warn_unused_result));
/* The variant of who only reads. */
void flush_choose_reader(struct flush *f, const struct flush_memory *memory);
/* Free what flush_choose allocated. Safe on a zeroed or wrapped struct flush. */
void flush_release(struct flush *f);

/* flush_none.c */
extern const struct flush_ops flush_none_ops;

/* flush_file.c. `noted` counts write-backs; whoever syncs the file remembers the count from before
 * the sync and may skip the next one when it has not moved. */
int flush_file_init(struct flush *f);
void flush_file_release(struct flush *f);
/* True, and the count, when f is the file variant. */
bool flush_file_noted(const struct flush *f, uint64_t *noted);

/* flush_pmem2.c: libpmem2's own functions for its mapping. */
int flush_pmem2_init(struct flush *f, struct pmem2_map *map);
void flush_pmem2_release(struct flush *f);

/* flush_<processor>.c: our loops over the instructions, also for memory that needs none of them
 * (forced by --flush). NULL when this processor lacks the instruction. FLUSH_CLWB,
 * FLUSH_CLFLUSHOPT and FLUSH_NT only. They need no state. */
const struct flush_ops *flush_instruction(enum flush_mode mode);
/* Who only reads memory that other hosts write: as flush_none_ops, and invalidates. */
extern const struct flush_ops flush_reader_ops;

#endif
