/* Fuzzing the server's frame parser: whatever a peer sends, the server answers it with a frame or
 * closes, keeps no pool space of it, and serves the next one.
 *
 * An input is what a peer sends after (byte 0, bit 0) a good HELLO and OPEN of channel 1 and a
 * subscription on channel 2. Checksums stop random bytes early, so (bit 1) every frame that looks like a
 * PUBLISH gets its header's checksum and (bit 2) its payload's made right. Byte 1 cuts the stream in
 * pieces.
 *
 * With clang: cmake -DEMBAR_FUZZ=ON builds it for libFuzzer. Otherwise it has its own main:
 *   fuzz-frames FILE...      replays inputs
 *   fuzz-frames N [SEED]     makes N inputs by mutating good conversations, the same for each seed
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc.h"
#include "tests/unit/server/rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct rig rig = {.workers = 1, .spec = "mem:16M", .hold_ms = 50};

static void stop(void)
{
    rig_stop(&rig);
}

static void start(void)
{
    static bool started;
    if (started)
        return;
    started = true;
    rig_start(&rig);
    atexit(stop);
}

/* Make right what the bits ask for, frame by frame, as far as the bytes reach. */
static void seal(uint8_t *p, size_t n, uint8_t bits)
{
    while (n >= 16) {
        struct wire_frame f;
        struct wire_publish h;
        memcpy(&f, p, sizeof(f));
        size_t whole = 16 + (size_t)le32_get(f.length);
        if (f.type == WIRE_PUBLISH && n >= 64) {
            memcpy(&h, p + 16, sizeof(h));
            uint64_t lengths = f.flags & WIRE_F_EQUAL ? 0 : 4 * (uint64_t)le32_get(h.count);
            size_t behind = f.flags & WIRE_F_SUM ? sizeof(struct wire_sum) : 0;
            if ((bits & 4) && 64 + lengths + behind <= whole && whole <= n) {
                size_t payload = whole - 64 - (size_t)lengths - behind;
                le32 sum = le32_of(crc32c(0, p + 64 + lengths, payload));
                h.lengths_crc = le32_of(crc32c(0, p + 64, lengths));
                if (behind)
                    memcpy(p + whole - behind, &sum, sizeof(sum));
                h.payload_crc = behind ? le32_of(0) : sum;
            }
            if (bits & 2)
                h.crc = le32_of(wire_publish_crc(&f, &h));
            memcpy(p + 16, &h, sizeof(h));
        }
        if (whole >= n)
            return;
        p += whole;
        n -= whole;
    }
}

/* Read what comes until the server closes. */
static void drain(int fd)
{
    uint8_t b[65536];
    ssize_t n;
    while ((n = recv(fd, b, sizeof(b), 0)) > 0)
        ;
    if (n < 0 && errno == EAGAIN)
        abort(); /* neither an answer nor the end within the deadline */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned runs;
    uint8_t b[1024];
    if (size < 2 || size > 1 << 20)
        return 0;
    start();
    int fd = dial_unix(&rig);
    if (data[0] & 1) {
        size_t n = hello_bytes(&rig, b, false);
        n += open_bytes(b + n, "fuzz", 1, WIRE_S_NONE, 0, 1);
        n += subscribe_bytes(b + n, "fuzz", 2, WIRE_FROM_LATEST, 0, 0, 1);
        send_bytes(fd, b, n);
    }
    uint8_t *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (data[0] & 6)
        seal(copy + 2, size - 2, data[0]);
    size_t piece = data[1] ? data[1] * 16u : size;
    for (size_t at = 2; at < size; at += piece)
        send_bytes(fd, copy + at, size - at < piece ? size - at : piece);
    shutdown(fd, SHUT_WR);
    drain(fd);
    close(fd);
    free(copy);
    if (++runs % 64 == 0) { /* it still serves, and its space is free again */
        struct got g;
        int other = peer(&rig, false);
        send_frame(other, WIRE_PING, 0, 3, NULL, 0);
        expect(other, WIRE_OK, &g);
        got_free(&g);
        (void)admin(other, WIRE_V_TRIM, "fuzz", NULL, WIRE_FROM_LATEST, 0, 0, NULL, NULL);
        close(other);
    }
    return 0;
}

#ifndef EMBAR_LIBFUZZER
static uint64_t state;

static uint32_t roll(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

/* A few good frames of every type. */
static size_t conversation(uint8_t *out)
{
    size_t n = 2;
    uint64_t sequence = 1;
    out[0] = (uint8_t)(roll(8) ? 7 : roll(256));
    out[1] = (uint8_t)roll(256);
    for (uint32_t k = 1 + roll(5); k > 0; k--) {
        uint8_t data[300];
        uint32_t lengths[3] = {roll(50) + 1, roll(50), roll(50) + 1};
        uint32_t size = lengths[0] + lengths[1] + lengths[2];
        fill(data, sizeof(data), state);
        struct wire_admin a = {.verb = (uint8_t)roll(11), .path = le16_of(4)};
        struct wire_close c = {0};
        struct batch_bytes b;
        struct wire_frame f;
        switch (roll(8)) {
        case 0:
            f = wire_frame_of(WIRE_ADMIN, 0, 0, 7, sizeof(a) + 4);
            memcpy(out + n, &f, sizeof(f));
            memcpy(out + n + 16, &a, sizeof(a));
            memcpy(out + n + 16 + sizeof(a), "fuz1", 4);
            n += 16 + sizeof(a) + 4;
            break;
        case 1: n += subscribe_bytes(out + n, "fuzz", 3, (uint8_t)roll(6), roll(200), 0, 0); break;
        case 2: n += open_bytes(out + n, "fuzz", 4, (uint8_t)roll(3), roll(9), 1); break;
        case 3:
            f = wire_frame_of(WIRE_CLOSE, 0, 1, 7, sizeof(c));
            memcpy(out + n, &f, sizeof(f));
            memcpy(out + n + 16, &c, sizeof(c));
            n += 16 + sizeof(c);
            break;
        case 4:
            f = wire_frame_of(roll(2) ? WIRE_PING : WIRE_CANCEL, 0, 2, 7, 0);
            memcpy(out + n, &f, sizeof(f));
            n += 16;
            break;
        default:
            b = batch_make(1, sequence++, 0, data, size, roll(3) ? lengths : NULL, 3);
            if (roll(2))
                batch_sum_behind(&b);
            if (!(b.p[5] & WIRE_F_EQUAL) || size % 3 == 0) {
                memcpy(out + n, b.p, b.n);
                n += b.n;
            }
            free(b.p);
        }
    }
    return n;
}

static void mutate(uint8_t *p, size_t n)
{
    static const uint8_t odd[] = {0, 1, 2, 0x7f, 0x80, 0xff};
    for (uint32_t k = roll(6); k > 0; k--) {
        size_t at = roll((uint32_t)n);
        if (roll(2))
            p[at] ^= (uint8_t)(1u << roll(8));
        else
            p[at] = odd[roll(sizeof(odd))];
    }
}

static int replay(const char *path)
{
    static uint8_t b[1 << 20];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    size_t n = fread(b, 1, sizeof(b), f);
    fclose(f);
    return LLVMFuzzerTestOneInput(b, n);
}

int main(int argc, char **argv)
{
    char *end;
    unsigned long n = argc > 1 ? strtoul(argv[1], &end, 10) : 2000;
    if (argc > 1 && *end) {
        int rc = 0;
        for (int i = 1; i < argc; i++)
            rc |= replay(argv[i]);
        return rc;
    }
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (unsigned long i = 0; i < n; i++) {
        static uint8_t b[8192];
        state = (seed + i) * 0x9e3779b97f4a7c15u + 1; /* each input stands for itself */
        size_t size = conversation(b);
        mutate(b, size);
        if (roll(4) == 0)
            size = 2 + roll((uint32_t)size - 1);
        LLVMFuzzerTestOneInput(b, size);
    }
    struct log_stat st;
    struct server_stat ss;
    if (n > 0) {
        log_stat_all(rig.log, &st);
        server_stat(rig.server, &ss);
        printf("%lu inputs: %lu batches stored, %lu connections refused or closed for an error\n",
               n, (unsigned long)ss.batches, (unsigned long)(ss.errors + ss.refused));
        if (st.reserved != 0) {
            fprintf(stderr, "%lu bytes stay reserved\n", (unsigned long)st.reserved);
            return 1;
        }
    }
    return 0;
}
#endif
