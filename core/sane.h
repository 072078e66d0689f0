/* What every load asks of a topic that a checkpoint tells of (recovery, and whoever writes one of what it put
 * together itself): table.c and manifest_load.c hold to it.
 */
#ifndef CORE_SANE_H
#define CORE_SANE_H

#include "core/log_state.h"

/* A topic's runs: 0 or -EMBAR_ECORRUPT; of run i by itself, that its bytes lie in its extent. */
int table_check(const struct log *log, const struct topic *t) __attribute__((warn_unused_result));
bool table_run_fits(const struct log *log, const struct topic *t, size_t i);

/* A topic or directory as the manifest tells of it, but for its run table and name (manifest.c). Is every
 * field of one sane that others rely on without looking? */
void manifest_node(const struct topic *t, struct media_node *m);
bool manifest_node_sane(const struct media_node *m, const char *name);

#endif
