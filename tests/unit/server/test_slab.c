/* The slab: objects never overlap, one more costs no system call, and what is not needed any more, or
 * not yet, takes no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/server/slab.h"

enum { SIZE = 20000, STEP = (SIZE + 63) / 64 * 64, HEAD = sizeof(struct slab_item) };

static atomic_uint maps;
static atomic_bool no_memory;

void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    atomic_fetch_add(&maps, 1);
    return no_memory ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, offset);
}

static void mark(uint8_t *object, unsigned with)
{
    memset(object + HEAD, (int)with, SIZE - HEAD);
}

static void is_marked(const uint8_t *object, unsigned with)
{
    for (size_t i = HEAD; i < SIZE; i++)
        if (object[i] != (uint8_t)with)
            fail_msg("byte %zu is %u instead of %u", i, object[i], (uint8_t)with);
}

static void apart(void **state)
{
    (void)state;
    enum { N = 3 * SLAB_BLOCK + 1 };
    struct slab s = {0};
    uint8_t *all[N];
    slab_init(&s, SIZE);
    maps = 0;
    for (unsigned i = 0; i < N; i++) {
        all[i] = slab_take(&s);
        assert_non_null(all[i]);
        assert_int_equal((uintptr_t)all[i] % 64, 0);
        mark(all[i], i % 251);
    }
    assert_int_equal(maps, 4);
    for (unsigned i = 0; i < N; i++)
        is_marked(all[i], i % 251);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = round; i < N; i += 3)
            slab_give(&s, all[i]);
        for (unsigned i = round; i < N; i += 3)
            mark(all[i] = slab_take(&s), i % 251);
        for (unsigned i = 0; i < N; i++)
            is_marked(all[i], i % 251);
    }
    assert_int_equal(maps, 4);
    for (unsigned i = 0; i < N; i++)
        slab_give(&s, all[i]);
    slab_end(&s);
}

static bool is_resident(const void *at)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    unsigned char there = 1;
    assert_int_equal(mincore((void *)((uintptr_t)at / page * page), 1, &there), 0);
    return there & 1;
}

static void not_needed(void **state)
{
    (void)state;
    enum { N = 3 * SLAB_KEPT };
    struct slab s = {0};
    uint8_t *all[N];
    unsigned resident = 0;
    slab_init(&s, SIZE);
    for (unsigned i = 0; i < N; i++) {
        all[i] = slab_take(&s);
        all[i][HEAD] = 1;
        assert_false(is_resident(all[i] + SIZE / 2));
        mark(all[i], 1);
        assert_true(is_resident(all[i] + SIZE / 2));
    }
    for (unsigned i = 0; i < N; i++)
        slab_give(&s, all[i]);
    for (unsigned i = 0; i < N; i++)
        resident += is_resident(all[i] + SIZE / 2);
    assert_int_equal(resident, SLAB_KEPT);
    /* Its neighbours' bytes are not. */
    for (unsigned i = 0; i < N; i++)
        all[i] = slab_take(&s);
    for (unsigned i = 0; i < N; i++)
        mark(all[i], i % 251);
    for (unsigned i = 0; i < N; i += 2)
        slab_give(&s, all[i]);
    for (unsigned i = 1; i < N; i += 2)
        is_marked(all[i], i % 251);
    slab_end(&s);
}

static void none_left(void **state)
{
    (void)state;
    struct slab s = {0};
    slab_init(&s, SIZE);
    no_memory = true;
    assert_null(slab_take(&s));
    no_memory = false;
    void *object = slab_take(&s);
    assert_non_null(object);
    slab_give(&s, object);
    slab_end(&s);
}

struct taker {
    struct slab *s;
    unsigned seed;
    bool wrong;
};

static void *churn(void *arg)
{
    struct taker *k = arg;
    enum { HELD = 100, ROUNDS = 20000 };
    uint8_t *held[HELD] = {0};
    unsigned marks[HELD] = {0};
    unsigned x = k->seed;
    for (unsigned i = 0; i < ROUNDS + HELD; i++) {
        unsigned j = i % HELD;
        unsigned first, last;
        if (held[j]) {
            memcpy(&first, held[j] + HEAD, sizeof(first));
            memcpy(&last, held[j] + SIZE - sizeof(last), sizeof(last));
            k->wrong |= first != marks[j] || last != marks[j];
            slab_give(k->s, held[j]);
            held[j] = NULL;
        }
        x = x * 1664525u + 1013904223u;
        if (i >= ROUNDS || x >> 30 == 0)
            continue;
        held[j] = slab_take(k->s);
        k->wrong |= !held[j];
        if (!held[j])
            continue;
        marks[j] = x;
        memcpy(held[j] + HEAD, &x, sizeof(x));
        memcpy(held[j] + SIZE - sizeof(x), &x, sizeof(x));
    }
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    struct slab s = {0};
    struct taker k[THREADS];
    pthread_t thread[THREADS];
    slab_init(&s, SIZE);
    for (unsigned i = 0; i < THREADS; i++) {
        k[i] = (struct taker){.s = &s, .seed = i};
        assert_int_equal(pthread_create(&thread[i], NULL, churn, &k[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_false(k[i].wrong);
    }
    slab_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apart),
        cmocka_unit_test(not_needed),
        cmocka_unit_test(none_left),
        cmocka_unit_test(threads),
    };
    return cmocka_run_group_tests_name("server slab", tests, NULL, NULL);
}
