/* Memory of a publisher's own batches (step 2 from the client's side).
 *
 * A buffer of the usual size is made of huge pages where the system gives them, and touched before it
 * is used: neither the caller's copy nor the kernel's then stops at page faults, and a batch needs one entry
 * of the TLB. Where there are no huge pages it is ordinary memory; nobody is told. Buffers are reused,
 * so that this is paid once each. Small ones are malloc's.
 *
 * Must never fail for want of huge pages.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "net/client/publisher.h"

#define HUGE_PAGE ((size_t)2 << 20)

static size_t mapped(size_t capacity)
{
    return (capacity + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

unsigned char *pub_buffer_new(size_t capacity)
{
    if (capacity < HUGE_PAGE)
        return malloc(capacity);
    /* One huge page more than needed: what lies outside of the aligned part is given back. */
    size_t n = mapped(capacity), all = n + HUGE_PAGE;
    unsigned char *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before > 0)
        (void)munmap(p, before);
    if (before < HUGE_PAGE)
        (void)munmap(p + before + n, HUGE_PAGE - before);
    p += before;
    /* Hints: older kernels and other settings refuse them, and then pages come when they are touched. */
    (void)madvise(p, n, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
    (void)madvise(p, n, MADV_POPULATE_WRITE);
#endif
    return p;
}

void pub_buffer_free(unsigned char *p, size_t capacity)
{
    if (capacity < HUGE_PAGE)
        free(p);
    else if (p)
        (void)munmap(p, mapped(capacity));
}
