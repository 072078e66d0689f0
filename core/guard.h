/* The guard: what happens when pool memory is gone under the CPU (every step that touches it).
 *
 * A file that was truncated, a device that was unplugged, a page that lost its content to a memory
 * error: the next load or store there is a SIGBUS. Inside guard_run the thread comes back from it
 * with -EMBAR_EFAULTED and the region is marked (region_faulted), for good; outside, the program
 * ends with a sentence, as it would have anyway.
 *
 * A guard stands at a leaf, for fn may be left at any load or store of that memory: where it looks
 * there it holds no lock that it took, owns nothing that nobody else knows of, and has nothing half
 * changed that somebody reads afterwards. Locks that the caller holds stay held, and its own
 * variables are as they were. System calls on pool memory do not raise the
 * signal: they answer EFAULT (EHWPOISON), which means the same.
 */
#ifndef CORE_GUARD_H
#define CORE_GUARD_H

#include <stddef.h>

struct region;

/* Take SIGBUS over, if it is not ours already; what was installed before is called for what is not
 * ours. Every region that is opened or wrapped does it. */
void guard_install(void);

/* What fn(arg) returns, or -EMBAR_EFAULTED: r's memory was gone where it looked. Costs a sigsetjmp
 * without the signal mask, some sixty instructions: guard a batch, never a byte. */
int guard_run(struct region *r, int (*fn)(void *), void *arg) __attribute__((warn_unused_result));

/* Copy out of, or into, r's memory: 0 or -EMBAR_EFAULTED. */
int guard_copy(struct region *r, void *to, const void *from, size_t n)
    __attribute__((warn_unused_result));

/* Copy out of r's memory what another host may have written (DESIGN I2): as it is now. */
int guard_fetch(struct region *r, void *to, const void *from, size_t n)
    __attribute__((warn_unused_result));

#endif
