/* The cache-line flush variants of x86-64 as loops of our own: clwb, clflushopt, and non-temporal
 * copies. Serves steps 5, 6 and 8. Must never execute an instruction that cpuid does not show.
 *
 * Invalidation is clflush, which every x86-64 has: it writes a dirty line back first, so it is safe on
 * lines of our own, and needs no more than reading permission. mfence orders it before the loads that
 * follow (lfence does not).
 *
 * Another processor gets a file of its own with the same one function (ARM64: dc cvap and dsb).
 *
 * All three write-backs are weakly ordered and take effect per line; drain is sfence, which waits
 * for this thread's earlier write-backs and non-temporal stores and for nobody else's.
 */
#include <cpuid.h>
#include <emmintrin.h>
#include <immintrin.h>
#include <string.h>

#include "core/flush_variants.h"

#define LINE ((uintptr_t)64)

static uintptr_t line_of(const void *p)
{
    return (uintptr_t)p & ~(LINE - 1);
}

__attribute__((target("clwb"))) static void clwb_writeback(struct flush *f, const void *p, size_t n)
{
    (void)f;
    if (n == 0)
        return;
    uintptr_t end = (uintptr_t)p + n;
    for (uintptr_t at = line_of(p); at < end; at += LINE)
        _mm_clwb((void *)at);
}

__attribute__((target("clflushopt"))) static void clflushopt_writeback(struct flush *f,
                                                                       const void *p, size_t n)
{
    (void)f;
    if (n == 0)
        return;
    uintptr_t end = (uintptr_t)p + n;
    for (uintptr_t at = line_of(p); at < end; at += LINE)
        _mm_clflushopt((void *)at);
}

static void fence_drain(struct flush *f)
{
    (void)f;
    _mm_sfence();
}

static void clwb_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    clwb_writeback(f, dst, n);
}

static void clflushopt_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    memcpy(dst, src, n);
    clflushopt_writeback(f, dst, n);
}

/* Whole lines bypass the cache; the bytes of a first and last line that are shared with somebody
 * else's data go through it and are written back. */
static void stream_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    char *to = dst;
    const char *from = src;
    size_t head = (size_t)(-(uintptr_t)to & (LINE - 1));
    if (head > n)
        head = n;
    if (head > 0) {
        memcpy(to, from, head);
        f->ops->writeback(f, to, head);
    }
    to += head;
    from += head;
    n -= head;
    for (; n >= LINE; n -= LINE, to += LINE, from += LINE) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)from);
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(from + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(from + 48));
        _mm_stream_si128((__m128i *)(void *)to, a);
        _mm_stream_si128((__m128i *)(void *)(to + 16), b);
        _mm_stream_si128((__m128i *)(void *)(to + 32), c);
        _mm_stream_si128((__m128i *)(void *)(to + 48), d);
    }
    if (n > 0) {
        memcpy(to, from, n);
        f->ops->writeback(f, to, n);
    }
}

static const struct flush_ops clwb_ops = {
    .name = "clwb", .writeback = clwb_writeback, .drain = fence_drain, .copy = clwb_copy};
static const struct flush_ops clflushopt_ops = {.name = "clflushopt",
                                                .writeback = clflushopt_writeback,
                                                .drain = fence_drain,
                                                .copy = clflushopt_copy};
static const struct flush_ops nt_clwb_ops = {
    .name = "nt", .writeback = clwb_writeback, .drain = fence_drain, .copy = stream_copy};
static const struct flush_ops nt_clflushopt_ops = {
    .name = "nt", .writeback = clflushopt_writeback, .drain = fence_drain, .copy = stream_copy};

static void reader_writeback(struct flush *f, const void *p, size_t n)
{
    (void)f;
    (void)p;
    (void)n;
}

static void reader_drain(struct flush *f)
{
    (void)f;
}

static void reader_copy(struct flush *f, void *dst, const void *src, size_t n)
{
    (void)f;
    memcpy(dst, src, n);
}

static void reader_invalidate(struct flush *f, const void *p, size_t n)
{
    (void)f;
    if (n == 0)
        return;
    uintptr_t end = (uintptr_t)p + n;
    for (uintptr_t at = line_of(p); at < end; at += LINE)
        _mm_clflush((const void *)at);
    _mm_mfence();
}

const struct flush_ops flush_reader_ops = {.name = "reader",
                                           .writeback = reader_writeback,
                                           .drain = reader_drain,
                                           .copy = reader_copy,
                                           .invalidate = reader_invalidate};

const struct flush_ops *flush_instruction(enum flush_mode mode)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return NULL;
    bool clwb = b & bit_CLWB;
    bool clflushopt = b & bit_CLFLUSHOPT;
    switch (mode) {
    case FLUSH_CLWB: return clwb ? &clwb_ops : NULL;
    case FLUSH_CLFLUSHOPT: return clflushopt ? &clflushopt_ops : NULL;
    case FLUSH_NT: return clwb ? &nt_clwb_ops : clflushopt ? &nt_clflushopt_ops : NULL;
    default: return NULL;
    }
}
