/* The shadow itself: a crash keeps what was written back and drained, may keep anything else, and
 * one thread's drain covers nobody else's lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <string.h>

#include <cmocka.h>

#include "tests/crash/shadow.h"

#define SIZE (64u << 10)

struct fixture {
    struct shadow *s;
    struct region r;
};

static int setup(void **state)
{
    static struct fixture f;
    f.s = shadow_create(SIZE);
    if (!f.s)
        return -1;
    shadow_region(f.s, &f.r);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    shadow_destroy(f->s);
    return 0;
}

static void put(struct fixture *f, size_t at, char c, size_t n)
{
    memset(f->r.base + at, c, n);
}

static char at(struct fixture *f, enum shadow_mode mode, size_t where)
{
    return shadow_image(f->s, 0, mode)[where];
}

static void by_stage(void **state)
{
    struct fixture *f = *state;
    put(f, 100, 'a', 1);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 100), 0);
    assert_int_equal(at(f, SHADOW_PENDING, 100), 0);
    assert_int_equal(at(f, SHADOW_ALL_NEW, 100), 'a');
    flush_writeback(&f->r.flush, f->r.base + 100, 1);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 100), 0);
    assert_int_equal(at(f, SHADOW_PENDING, 100), 'a');
    put(f, 100, 'b', 1); /* after the write-back: pending has the line as it was then */
    assert_int_equal(at(f, SHADOW_PENDING, 100), 'a');
    assert_int_equal(at(f, SHADOW_ALL_NEW, 100), 'b');
    flush_drain(&f->r.flush);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 100), 'a');
    assert_int_equal(at(f, SHADOW_ALL_NEW, 100), 'b');
    flush_copy(&f->r.flush, f->r.base + 100, "c", 1);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 100), 'a');
    flush_drain(&f->r.flush);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 100), 'c');
}

/* A write-back names bytes and takes whole lines, those and no others. */
static void whole_lines(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 'x', 4 * 64);
    flush_writeback(&f->r.flush, f->r.base + 127, 2);
    flush_drain(&f->r.flush);
    const char *image = shadow_image(f->s, 0, SHADOW_ALL_OLD);
    for (unsigned i = 0; i < 4 * 64; i++)
        assert_int_equal(image[i], i >= 64 && i < 192 ? 'x' : 0);
}

static void *drain_elsewhere(void *arg)
{
    struct fixture *f = arg;
    flush_drain(&f->r.flush);
    return NULL;
}

static void *write_elsewhere(void *arg)
{
    struct fixture *f = arg;
    put(f, 0, 'n', 1);
    flush_writeback(&f->r.flush, f->r.base, 1);
    flush_drain(&f->r.flush);
    return NULL;
}

static void run(void *(*body)(void *), void *arg)
{
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, body, arg), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
}

static void drains_are_of_a_thread(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 'a', 1);
    flush_writeback(&f->r.flush, f->r.base, 1);
    run(drain_elsewhere, f);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 0), 0);
    flush_drain(&f->r.flush);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 0), 'a');
}

/* A late drain of older content does not take newer content back. */
static void newer_stays(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 'o', 1);
    flush_writeback(&f->r.flush, f->r.base, 1);
    run(write_elsewhere, f);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 0), 'n');
    assert_int_equal(at(f, SHADOW_PENDING, 0), 'n');
    flush_drain(&f->r.flush);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 0), 'n');
}

/* Random images: everything in flight comes out old, new and torn; what is settled never does. */
static void random_images(void **state)
{
    struct fixture *f = *state;
    put(f, 0, 's', 64);
    flush_writeback(&f->r.flush, f->r.base, 64);
    flush_drain(&f->r.flush);
    put(f, 64, 'p', 64);
    flush_writeback(&f->r.flush, f->r.base + 64, 64);
    put(f, 64, 'q', 64);
    put(f, 128, 'd', 64);
    unsigned seen[3][256] = {{0}};
    unsigned torn = 0;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        const unsigned char *image = (const unsigned char *)shadow_image(f->s, seed, SHADOW_RANDOM);
        for (unsigned line = 0; line < 3; line++) {
            for (unsigned w = 0; w < 8; w++) {
                const unsigned char *word = image + line * 64 + (size_t)w * 8;
                for (unsigned i = 1; i < 8; i++)
                    assert_int_equal(word[i], word[0]); /* words never tear */
                torn += word[0] != image[line * 64];
            }
            seen[line][image[line * 64]]++;
        }
    }
    assert_int_equal(seen[0]['s'], 4000);
    assert_int_equal(seen[1][0] + seen[1]['p'] + seen[1]['q'], 4000);
    assert_int_equal(seen[2][0] + seen[2]['d'], 4000);
    assert_true(seen[1][0] > 100 && seen[1]['p'] > 100 && seen[1]['q'] > 100);
    assert_true(seen[2][0] > 100 && seen[2]['d'] > 100);
    assert_true(torn > 100);
    /* The same seed is the same image. */
    char first[192];
    memcpy(first, shadow_image(f->s, 77, SHADOW_RANDOM), sizeof(first));
    (void)shadow_image(f->s, 78, SHADOW_RANDOM);
    assert_memory_equal(first, shadow_image(f->s, 77, SHADOW_RANDOM), sizeof(first));
}

/* What recovery writes into an image is gone in the next, and was never in view or media. */
static void images_are_private(void **state)
{
    struct fixture *f = *state;
    struct region r;
    shadow_image_region(f->s, 1, SHADOW_ALL_OLD, &r);
    assert_int_equal(r.size, SIZE);
    assert_int_equal(r.durability, MEDIA_DURABLE_MACHINE);
    assert_int_equal(region_zero(&r, 0, SIZE), 0);
    memset(r.base, 'z', SIZE);
    region_close(&r);
    assert_int_equal(f->r.base[0], 0);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 5000), 0);
    assert_int_equal(at(f, SHADOW_ALL_NEW, 5000), 0);
}

struct heard {
    struct fixture *f;
    enum shadow_event events[8];
    uint64_t numbers[8];
    char old[8];
    unsigned n;
};

static void hear(void *arg, enum shadow_event event, uint64_t number)
{
    struct heard *h = arg;
    h->events[h->n] = event;
    h->numbers[h->n] = number;
    (void)shadow_image(h->f->s, 0, SHADOW_ALL_NEW); /* one comparison, many images */
    (void)shadow_image(h->f->s, 3, SHADOW_RANDOM);
    h->old[h->n++] = at(h->f, SHADOW_ALL_OLD, 0);
}

static void events(void **state)
{
    struct fixture *f = *state;
    struct heard h = {.f = f};
    shadow_on_event(f->s, hear, &h);
    flush_copy(&f->r.flush, f->r.base, "a", 1);
    flush_drain(&f->r.flush);
    shadow_on_event(f->s, NULL, NULL);
    flush_drain(&f->r.flush);
    assert_int_equal(h.n, 3);
    assert_int_equal(h.events[0], SHADOW_WRITEBACK);
    assert_int_equal(h.events[1], SHADOW_DRAIN);
    assert_int_equal(h.events[2], SHADOW_DRAINED);
    assert_int_equal(h.numbers[2], h.numbers[0] + 2);
    assert_int_equal(h.old[1], 0);
    assert_int_equal(h.old[2], 'a');
}

/* One site, however the loop around it is compiled. */
__attribute__((noinline)) static void store(struct fixture *f, char c)
{
    put(f, 0, c, 1);
    flush_writeback(&f->r.flush, f->r.base, 1);
    flush_drain(&f->r.flush);
    __asm__ volatile("");
}

static void mutations(void **state)
{
    struct fixture *f = *state;
    uint64_t calls = shadow_calls(f->s);
    shadow_skip_call(f->s, calls + 2);
    flush_copy(&f->r.flush, f->r.base, "a", 1);
    flush_drain(&f->r.flush); /* left out */
    assert_int_equal(at(f, SHADOW_ALL_OLD, 0), 0);
    flush_drain(&f->r.flush);
    assert_int_equal(at(f, SHADOW_ALL_OLD, 0), 'a');
    /* By site: found by its calls, then missing at every one of them. */
    unsigned before = shadow_sites(f->s);
    for (int c = 'b'; c <= 'd'; c++) {
        store(f, (char)c);
        assert_int_equal(at(f, SHADOW_ALL_OLD, 0), c == 'd' ? 'c' : c);
        if (c != 'c')
            continue;
        uint64_t n = 0;
        enum shadow_call what = SHADOW_CALL_DRAIN;
        uintptr_t site = shadow_site(f->s, before, &n, &what);
        assert_int_equal(n, 2);
        assert_int_equal(what, SHADOW_CALL_WRITEBACK);
        shadow_skip_site(f->s, site);
    }
}

static void load(void **state)
{
    struct fixture *f = *state;
    static char bytes[SIZE];
    put(f, 0, 'a', 64);
    flush_writeback(&f->r.flush, f->r.base, 64);
    memset(bytes, 'l', sizeof(bytes));
    shadow_load(f->s, bytes);
    flush_drain(&f->r.flush); /* nothing is pending any more */
    assert_memory_equal(f->r.base, bytes, SIZE);
    assert_memory_equal(shadow_image(f->s, 0, SHADOW_ALL_OLD), bytes, SIZE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(by_stage),    TEST(whole_lines),   TEST(drains_are_of_a_thread),
        TEST(newer_stays), TEST(random_images), TEST(images_are_private),
        TEST(events),      TEST(mutations),     TEST(load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
