/* Fuzz target: a pool damaged as the input says, opened and used. The contract is hostile.h's: no
 * crash, no hang, no access outside; refused with a sentence or served.
 *
 * Input: one byte (bit 0: seal all checksums again, bit 1: for reading only, bits 2..: another
 * pool), then mutations of 12 bytes each. pool.corpus keeps what libFuzzer found worth keeping, a line
 * of hexadecimal digits each; without libFuzzer this program replays it, which is a test. To go on from
 * it, see CMakeLists.txt.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/core/hostile.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define POOLS 4u
#define HOW   12u

static struct hostile pool[POOLS];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (unsigned i = 0; i < POOLS; i++)
        hostile_build(&pool[i], 1000 + i);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct hostile *h = &pool[(data[0] >> 2) % POOLS];
    hostile_reset(h);
    for (size_t at = 1; size - at >= HOW; at += HOW)
        (void)hostile_mutate(h, data + at);
    if (data[0] & 1)
        hostile_seal(h);
    int rc = hostile_serve(h, data[0] & 2, false);
    if (rc == 0 && !(data[0] & 2))
        (void)!hostile_serve(h, false, false);
    return 0;
}

#ifdef EMBAR_LIBFUZZER

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

/* Whole mutations, so that an input never ends within one; the empty corpus grows from here. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size_t n = size > 0 ? (size - 1) / HOW : 0;
    if (most < 1 + HOW)
        return 0;
    if (size < 1)
        data[0] = (uint8_t)seed;
    if ((n == 0 || seed % 5 == 0) && 1 + (n + 1) * HOW <= most) {
        for (unsigned i = 0; i < HOW; i++) {
            seed = seed * 1664525u + 1013904223u;
            data[1 + n * HOW + i] = (uint8_t)(seed >> 24);
        }
        return 1 + (n + 1) * HOW;
    }
    size_t got = LLVMFuzzerMutate(data, size, most);
    return got < 1 + HOW ? size : 1 + (got - 1) / HOW * HOW;
}

#else

/* One line of digits; how many bytes, 0 at the end or where there is something else. */
static size_t line_read(FILE *file, uint8_t *data, size_t most)
{
    char line[512];
    if (!fgets(line, sizeof line, file))
        return 0;
    size_t n = 0;
    for (const char *at = line; n < most; at += 2) {
        const char digits[3] = {at[0], at[0] ? at[1] : '\0', '\0'};
        char *end;
        unsigned long byte = strtoul(digits, &end, 16);
        if (end != digits + 2)
            break;
        data[n++] = (uint8_t)byte;
    }
    return n;
}

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    uint8_t data[128];
    unsigned inputs = 0;
    size_t n;
    if (!file) {
        fprintf(stderr, "usage: fuzz-pool CORPUS, a file that can be read\n");
        return 2;
    }
    (void)LLVMFuzzerInitialize(&argc, &argv);
    for (; (n = line_read(file, data, sizeof data)) > 0; inputs++)
        (void)LLVMFuzzerTestOneInput(data, n);
    fclose(file);
    for (unsigned i = 0; i < POOLS; i++)
        hostile_free(&pool[i]);
    printf("%u damaged pools\n", inputs);
    return inputs == 0;
}

#endif
