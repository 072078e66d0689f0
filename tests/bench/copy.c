/* memcpy + write-back into a region through the flush layer itself. Must never touch a region that
 * may hold somebody's pool: files are made anew, devices need `overwrite`. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/region.h"
#include "tests/bench/copy.h"
#include "tests/bench/source.h"

#define SOURCE_SIZE ((size_t)16 << 20)

struct copier {
    char *source;
    size_t size;
};

static int copy_prepare(const struct load *load, void **shared, struct embar_error *err)
{
    const struct copy_load *copy = load->arg;
    bool volatile_spec =
        strncmp(copy->spec, "mem:", 4) == 0 || strncmp(copy->spec, "node:", 5) == 0;
    bool device = strncmp(copy->spec, "/dev/dax", 8) == 0;
    if (device && !copy->overwrite)
        return embar_fail(err, -EMBAR_EINVALID,
                          "Copying into %s would overwrite it: say --overwrite if nothing on it is "
                          "needed.",
                          copy->spec);
    struct region *region = calloc(1, sizeof(*region));
    if (!region)
        return embar_fail(err, -ENOMEM, "a region");
    struct region_options ro = {.spec = copy->spec,
                                .size = volatile_spec || device ? 0 : copy->size,
                                .create = !volatile_spec && !device,
                                .exclusive = !volatile_spec && !device,
                                .flush = copy->mode,
                                .durability = -1};
    int rc = region_open(region, &ro, err);
    if (rc) {
        free(region);
        return rc;
    }
    if (ro.create)
        (void)unlink(copy->spec); /* lives on while it is mapped */
    region_prefault(region, NULL, NULL);
    /* A file is prefaulted for reading; its pages' first stores must not be measured. */
    for (uint64_t at = 0; at < region->size; at += 4096)
        *(volatile char *)(region->base + at) = 0;
    *shared = region;
    return 0;
}

static int copy_open(struct load_worker *w)
{
    struct copier *c = calloc(1, sizeof(*c));
    if (c) {
        c->size = SOURCE_SIZE;
        c->source = source_make(&c->size, COPY_PIECE, w->index);
    }
    if (!c || !c->source) {
        free(c);
        return embar_fail(&w->report->error, -ENOMEM, "memory to copy from");
    }
    w->own = c;
    return 0;
}

static int copy_run(struct load_worker *w)
{
    const struct copy_load *copy = w->load->arg;
    const struct copier *c = w->own;
    struct region *region = w->shared;
    struct flush *flush = &region->flush;
    size_t each = region->size / w->load->workers / COPY_PIECE * COPY_PIECE;
    if (each == 0)
        return embar_fail(&w->report->error, -EMBAR_ETOOSMALL, "a region of %llu bytes",
                          (unsigned long long)region->size);
    char *base = region->base + each * w->index;
    size_t to = 0;
    size_t from = 0;
    while (w->report->bytes < copy->bytes) {
        if (copy->mode == FLUSH_NT) {
            flush_copy(flush, base + to, c->source + from, COPY_PIECE);
        } else {
            memcpy(base + to, c->source + from, COPY_PIECE);
            flush_writeback(flush, base + to, COPY_PIECE);
        }
        w->report->bytes += COPY_PIECE;
        to = to + 2 * COPY_PIECE > each ? 0 : to + COPY_PIECE;
        from = from + 2 * COPY_PIECE > c->size ? 0 : from + COPY_PIECE;
    }
    flush_drain(flush);
    return 0;
}

static void copy_close(struct load_worker *w)
{
    struct copier *c = w->own;
    source_free(c->source, c->size);
    free(c);
}

const struct load_ops copy_ops = {
    .prepare = copy_prepare, .open = copy_open, .run = copy_run, .close = copy_close};
