/* crash-images: recovery from every state that a crash could leave.
 *
 * A small log with tiny rings works on modelled memory. At its flushes and between its calls crash
 * images are taken, recovered and compared with what was promised; recoveries are crashed too; now
 * and then the run itself goes on from a crash. Exit status 1: a promise was broken; the seed is
 * told. --scenes takes images of states that such runs come by too rarely. One seed is one pool geometry, one kind of memory and one workload; the same arguments take
 * the same images.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/scene.h"
#include "tests/crash/trial.h"

#define POOL_SIZE (4u << 20)

struct arguments {
    uint64_t images, first, each;
    int variant; /* -1: by the seed */
    uintptr_t skip[SHADOW_SKIPS];
    unsigned skips;
    bool sites, scenes;
};

static const struct argp_option option[] = {
    {"images", 'n', "N", 0, "images to take in all (default 10000)", 0},
    {"seed", 's', "N", 0, "first seed (default 1)", 0},
    {"each", 'e', "N", 0, "images a seed (default 1000)", 0},
    {"memory", 'm', "KIND", 0, "lines, process, file, file-machine or hosts (default: by the seed)",
     0},
    {"scenes", 'c', NULL, 0, "instead, the states that are made on purpose", 0},
    {"sites", 'l', NULL, 0, "list the call sites of write-backs, drains and syncs at the end", 0},
    {"skip", 'x', "OFFSET", 0, "leave out the flush or sync call at this site (again for more)", 0},
    {0},
};

/* The last one is the first with another host. */
static const char *const variant_name[] = {"lines", "process", "file", "file-machine", "hosts"};
#define HOSTS 4

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    uint64_t number = text ? strtoull(text, NULL, 0) : 0;
    switch (key) {
    case 'n': a->images = number; return 0;
    case 's': a->first = number; return 0;
    case 'e': a->each = number; return 0;
    case 'x':
        if (a->skips == SHADOW_SKIPS)
            argp_error(state, "at most %u sites", SHADOW_SKIPS);
        a->skip[a->skips++] = number;
        return 0;
    case 'c': a->scenes = true; return 0;
    case 'l': a->sites = true; return 0;
    case 'm':
        for (a->variant = HOSTS; a->variant >= 0; a->variant--)
            if (strcmp(text, variant_name[a->variant]) == 0)
                return 0;
        argp_error(state, "no such memory: %s", text);
        return EINVAL;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Half of the seeds have the memory that promises most. */
static enum variant variant_of(const struct arguments *a, uint64_t seed)
{
    static const enum variant table[8] = {MEDIUM_LINES, MEDIUM_FILE,         MEDIUM_LINES,
                                          MEDIUM_LINES, MEDIUM_FILE_MACHINE, MEDIUM_LINES,
                                          MEDIUM_FILE,  MEDIUM_PROCESS};
    if (a->variant == HOSTS)
        return MEDIUM_LINES;
    return a->variant >= 0 ? (enum variant)a->variant : table[seed % 8];
}

static void geometry(struct trial *r)
{
    struct pool_geometry *g = &r->options.geo;
    g->slots = 1 + below(&r->random, 2);
    g->producers = PRODUCERS;
    g->descriptors = 2u << below(&r->random, 2);
    g->index_entries = 8u << below(&r->random, medium_is_file(&r->medium) ? 6 : 4);
    g->block_shift = 12;
    g->max_order = 3 + below(&r->random, 3);
    r->brim = chance(&r->random, 3);
    if (r->brim) { /* other brokers' parts are not granted: about a megabyte is */
        g->slots = g->brokers = 4;
        g->regions = 8;
    }
    r->packed = r->brim && chance(&r->random, 2);
    if (r->packed)
        g->max_order = 4 + below(&r->random, 2);
    r->stutters = chance(&r->random, r->brim ? 8 : 4);
    if (r->stutters)
        g->index_entries = 8u << below(&r->random, 2);
    r->sparse = !r->stutters && (r->brim ? !chance(&r->random, 6) : chance(&r->random, 3));
    r->live_limit = r->brim                 ? UINT64_MAX
                    : chance(&r->random, 6) ? 8u << 20
                                            : 256u << 10 << below(&r->random, 3);
}

static void skip_sites(struct medium *m, const struct arguments *a)
{
    for (unsigned i = 0; i < a->skips; i++)
        medium_skip_site(m, a->skip[i]);
}

static bool run_seed(const struct arguments *a, uint64_t seed, uint64_t limit,
                     struct counts *counts, struct team *team, char *old)
{
    struct trial *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->seed = r->random = seed;
    r->shots = seed ^ 0x5eed;
    r->image_limit = limit;
    r->counts = counts;
    r->team = team;
    enum variant variant = variant_of(a, seed);
    r->hosts = a->variant == HOSTS;
    medium_create(&r->medium, variant, POOL_SIZE);
    geometry(r);
    medium_create(&r->second, variant, POOL_SIZE);
    skip_sites(&r->medium, a);
    skip_sites(&r->second, a);
    counts->seeds++;
    trial_lives(r, old);
    bool failed = r->failed;
    if (failed)
        printf("seed %" PRIu64 " (%s): %s\n", seed, variant_name[r->hosts ? HOSTS : variant],
               r->why);
    if (a->sites)
        medium_list_sites(&r->medium);
    medium_destroy(&r->medium);
    medium_destroy(&r->second);
    free(r);
    return !failed;
}

int main(int argc, char **argv)
{
    struct arguments a = {.images = 10000, .first = 1, .each = 1000, .variant = -1};
    const struct argp argp = {.options = option,
                              .parser = parse,
                              .doc = "Recover from every state that a crash could leave."};
    if (argp_parse(&argp, argc, argv, 0, NULL, &a) != 0)
        return 2;
    if (a.scenes)
        return scenes_run(a.skip, a.skips, a.sites) ? 1 : 0;
    struct counts counts = {0};
    struct team *team = team_create();
    char *old = calloc(1, POOL_SIZE);
    uint64_t violations = 0;
    for (uint64_t seed = a.first; old && counts.images < a.images && violations == 0; seed++) {
        uint64_t limit = counts.images + a.each;
        violations += !run_seed(&a, seed, limit < a.images ? limit : a.images, &counts, team, old);
    }
    team_destroy(team);
    free(old);
    printf("images %" PRIu64 " points %" PRIu64 " nested %" PRIu64 " used %" PRIu64
           " emptied %" PRIu64 " closed %" PRIu64 " damaged %" PRIu64 " looks %" PRIu64
           " overtaken %" PRIu64 " crashes %" PRIu64 " kills %" PRIu64 " operations %" PRIu64
           " batches %" PRIu64 " controls %" PRIu64 " refused %" PRIu64 " syncs %" PRIu64
           " retained %" PRIu64 " moved %" PRIu64 " behind %" PRIu64 " moments %" PRIu64
           " pins %" PRIu64 " checked %" PRIu64 " seeds %" PRIu64 " violations %" PRIu64 "\n",
           counts.images, counts.points, counts.nested, counts.used, counts.emptied, counts.closed,
           counts.damaged, counts.looks, counts.overtaken, counts.lives, counts.kills,
           counts.operations, counts.batches, counts.controls, counts.refused, counts.syncs,
           counts.retained, counts.moved, counts.behind, counts.moments, counts.pins,
           counts.checked, counts.seeds, violations);
    return violations ? 1 : 0;
}
