/* Choosing the flush variant of a region: once, when it is mapped (steps 5, 6 and 8 call through
 * it). Must never be on the hot path itself.
 */
#include "core/flush.h"

#include <errno.h>
#include <string.h>

#include "core/flush_variants.h"

static const char *const mode_names[] = {
    [FLUSH_AUTO] = "auto", [FLUSH_NONE] = "none",
    [FLUSH_CLWB] = "clwb", [FLUSH_CLFLUSHOPT] = "clflushopt",
    [FLUSH_NT] = "nt",
};

int flush_mode_parse(const char *text, enum flush_mode *mode)
{
    for (unsigned i = 0; i < sizeof(mode_names) / sizeof(mode_names[0]); i++) {
        if (strcmp(text, mode_names[i]) == 0) {
            *mode = (enum flush_mode)i;
            return 0;
        }
    }
    return -EMBAR_ESPEC;
}

bool flush_is_noop(const struct flush *f)
{
    return f->ops == &flush_none_ops;
}

int flush_choose(struct flush *f, enum flush_mode mode, const struct flush_memory *memory,
                 struct embar_error *err)
{
    *f = (struct flush){.ops = &flush_none_ops};
    int rc = 0;
    switch (mode) {
    case FLUSH_NONE: break;
    case FLUSH_AUTO:
        if (memory->lines)
            rc = flush_pmem2_init(f, memory->lines);
        else if (memory->pages)
            rc = flush_file_init(f);
        break;
    case FLUSH_CLWB:
    case FLUSH_CLFLUSHOPT:
    case FLUSH_NT:
        f->ops = flush_instruction(mode);
        if (!f->ops) {
            f->ops = &flush_none_ops;
            return embar_fail(err, -EMBAR_ESPEC,
                              "this processor has no %s instruction, so the pool cannot be opened "
                              "with --flush %s: use --flush auto.",
                              mode == FLUSH_NT ? "non-temporal store or write-back"
                                               : mode_names[mode],
                              mode_names[mode]);
        }
        break;
    default: return embar_fail(err, -EMBAR_ESPEC, "unknown flush mode %d", (int)mode);
    }
    return rc ? embar_fail(err, rc, "setting up the flush layer") : 0;
}

void flush_choose_reader(struct flush *f, const struct flush_memory *memory)
{
    *f = (struct flush){.ops = memory->lines ? &flush_reader_ops : &flush_none_ops};
}

void flush_release(struct flush *f)
{
    flush_file_release(f);
    flush_pmem2_release(f);
    *f = (struct flush){.ops = &flush_none_ops};
}
