/* `embar bench flush`: what memory allows before any socket: copying 256 KiB pieces into the pool's
 * kind of memory, plain and with each way of writing back. */
#include <stdio.h>
#include <string.h>

#include "core/region.h"
#include "tests/bench/bench.h"
#include "tests/bench/copy.h"
#include "tests/bench/keeper.h"

static const struct {
    const char *name;
    enum flush_mode mode;
} modes[] = {
    {"plain", FLUSH_NONE},
    {"clwb", FLUSH_CLWB},
    {"clflushopt", FLUSH_CLFLUSHOPT},
    {"nt", FLUSH_NT},
};
#define MODES (sizeof(modes) / sizeof(modes[0]))

/* This processor may lack an instruction. */
static bool can(enum flush_mode mode)
{
    struct region region = {0};
    struct embar_error err;
    struct region_options ro = {.spec = "mem:4M", .flush = mode, .durability = -1};
    if (region_open(&region, &ro, &err))
        return false;
    region_close(&region);
    return true;
}

int bench_flush(const struct bench_options *o, struct report *r, struct embar_error *err)
{
    enum { MAX_KINDS = 3 };
    struct copy_load loads[MAX_KINDS * MODES];
    struct contestant c[MAX_KINDS * MODES];
    char specs[MAX_KINDS][320];
    const char *names[MAX_KINDS] = {"mem", "tmpfs file", o->spec};
    char dir[128];
    char name[64];
    char a[32];
    uint64_t size = o->bytes / o->connections / COPY_PIECE * COPY_PIECE * o->connections;
    int rc = keeper_make_directory(dir, sizeof(dir), 1);
    if (rc)
        return embar_fail(err, rc, "a directory in /dev/shm");
    (void)snprintf(specs[0], sizeof(specs[0]), "mem:%llu", (unsigned long long)size);
    (void)snprintf(specs[1], sizeof(specs[1]), "%s/region", dir);
    unsigned kinds = 2;
    if (o->spec) {
        (void)snprintf(specs[2], sizeof(specs[2]), "%s", o->spec);
        kinds = 3;
    }
    report_machine(r);
    report_fact(r, "a round", "%s into a region of %s, by %u threads, pieces of %s",
                bytes_text(size, a), bytes_text(size, name), o->connections, "256 KiB");
    report_caveat(r, "The source (16 MiB a thread) may stay in cache; the region does not. Without "
                     "persistent or CXL memory the figures are those of this machine's DRAM.");
    unsigned n = 0;
    for (unsigned k = 0; k < kinds; k++)
        for (unsigned m = 0; m < MODES; m++) {
            if (!can(modes[m].mode)) {
                report_caveat(r, "This processor has no %s.", modes[m].name);
                continue;
            }
            loads[n] = (struct copy_load){.spec = specs[k],
                                          .size = size,
                                          .bytes = size / o->connections,
                                          .mode = modes[m].mode,
                                          .overwrite = o->overwrite};
            (void)snprintf(name, sizeof(name), "%s: %s", names[k], modes[m].name);
            c[n] =
                (struct contestant){.series = report_series(r, name, "GB/s", 0),
                                    .load = {&copy_ops, &loads[n], o->connections, 1, 0, 120000}};
            n++;
        }
    rc = rounds_run(c, n, o, err);
    unsigned plain = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        if (loads[i].mode == FLUSH_NONE)
            plain = i;
        else
            report_ratio(r, c[i].series, c[plain].series);
    }
    return rc;
}
