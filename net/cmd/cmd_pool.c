/* `embar pool`: make a pool, show what one is, or clear a device. Serves no step of a batch; works on the pool
 * itself, without a broker. `show` must never write to it, nor `create` to one that is not empty;
 * `erase` nothing that is in use.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/crc.h"
#include "core/made.h"
#include "core/pool.h"
#include "net/cmd/cmd.h"
#include "net/mounts.h"

struct pool_args {
    const char *action, *spec;
    struct region_options region;
    struct pool_geometry geo;
    uint64_t block;
    bool json, force;
};

enum {
    KEY_SIZE = 256,
    KEY_DURABILITY,
    KEY_FLUSH,
    KEY_JSON,
    KEY_SLOTS,
    KEY_PRODUCERS,
    KEY_DESCRIPTORS,
    KEY_INDEX,
    KEY_BLOCK,
    KEY_REGIONS,
    KEY_BROKERS,
    KEY_FORCE,
};

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "show: as a JSON object", 1},
    {"force", KEY_FORCE, NULL, 0, "erase: also a pool, with all its topics", 1},
    {NULL, 0, NULL, 0, "For create:", 2},
    {"size", KEY_SIZE, "SIZE", 0, "Bytes of a new file, like 64M or 10GiB", 2},
    {"durability", KEY_DURABILITY, "WHAT", 0,
     "What an acknowledged batch survives: process or machine (default: machine on memory that the "
     "system calls persistent, process elsewhere)",
     2},
    {"flush", KEY_FLUSH, "MODE", 0, "auto, none, clwb, clflushopt or nt (default: auto)", 2},
    {NULL, 0, NULL, 0, "Geometry, for create (defaults follow from the size):", 3},
    {"slots", KEY_SLOTS, "N", 0, "Brokers that may ever serve it, at most 64", 3},
    {"brokers", KEY_BROKERS, "N", 0, "Brokers that will share its space at once", 3},
    {"producers", KEY_PRODUCERS, "N", 0, "Pending rings a slot: worker threads of a broker", 3},
    {"descriptors", KEY_DESCRIPTORS, "N", 0, "Batches a pending ring holds; a power of two", 3},
    {"index-entries", KEY_INDEX, "N", 0, "Batches an index ring holds; a power of two", 3},
    {"block", KEY_BLOCK, "SIZE", 0, "The smallest extent; a power of two from 4K up", 3},
    {"regions", KEY_REGIONS, "N", 0, "Parts in which space is granted to slots", 3},
    {NULL, 0, NULL, 0, NULL, 0},
};

static unsigned count(struct argp_state *state, const char *name, const char *text)
{
    uint64_t v;
    if (!parse_number(text, UINT32_MAX, &v) || v == 0)
        argp_error(state, "--%s %s is not a number above 0", name, text);
    return (unsigned)v;
}

static void set_block(struct argp_state *state, struct pool_args *a, const char *text)
{
    uint64_t v;
    if (size_parse(text, &v) != 0 || v < 4096 || (v & (v - 1)) != 0)
        argp_error(state, "--block %s is not a power of two from 4K up", text);
    a->geo.block_shift = (unsigned)__builtin_ctzll(v);
}

static int durability(struct argp_state *state, const char *text)
{
    if (strcmp(text, "process") == 0)
        return MEDIA_DURABLE_PROCESS;
    if (strcmp(text, "machine") != 0)
        argp_error(state, "--durability is process or machine, not \"%s\"", text);
    return MEDIA_DURABLE_MACHINE;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct pool_args *a = state->input;
    switch (key) {
    case KEY_JSON: a->json = true; return 0;
    case KEY_FORCE: a->force = true; return 0;
    case KEY_SIZE:
        if (size_parse(arg, &a->region.size) != 0 || a->region.size == 0)
            argp_error(state, "--size %s is not a size: give bytes, or a number with K, M, G or T",
                       arg);
        return 0;
    case KEY_DURABILITY: a->region.durability = durability(state, arg); return 0;
    case KEY_FLUSH:
        if (flush_mode_parse(arg, &a->region.flush) != 0)
            argp_error(state, "--flush is auto, none, clwb, clflushopt or nt, not \"%s\"", arg);
        return 0;
    case KEY_SLOTS: a->geo.slots = count(state, "slots", arg); return 0;
    case KEY_BROKERS: a->geo.brokers = count(state, "brokers", arg); return 0;
    case KEY_PRODUCERS: a->geo.producers = count(state, "producers", arg); return 0;
    case KEY_DESCRIPTORS: a->geo.descriptors = count(state, "descriptors", arg); return 0;
    case KEY_INDEX: a->geo.index_entries = count(state, "index-entries", arg); return 0;
    case KEY_REGIONS: a->geo.regions = count(state, "regions", arg); return 0;
    case KEY_BLOCK: set_block(state, a, arg); return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            a->action = arg;
        else if (state->arg_num == 1)
            a->spec = arg;
        else
            argp_error(state, "one pool at a time: what is \"%s\"?", arg);
        return 0;
    case ARGP_KEY_END:
        if (!a->action || (strcmp(a->action, "create") != 0 && strcmp(a->action, "show") != 0 &&
                           strcmp(a->action, "erase") != 0))
            argp_error(state, "say what to do: create, show or erase");
        if (a->action && strcmp(a->action, "erase") == 0 && !a->spec)
            argp_error(state, "say which device to erase");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- create ------------------------------------------------------------------------------- */

/* Nobody may serve what is about to be formatted. */
static int lock_all(const char *name, struct region *r, struct embar_error *err)
{
    struct mounts_wait wait = {0};
    for (unsigned slot = 0; slot < MEDIA_MAX_SLOTS; slot++) {
        int rc;
        while ((rc = region_lock_slot(r, slot, err)) == -EMBAR_EBUSY &&
               held_wait(&wait, name, r, err))
            ;
        if (rc)
            return rc;
    }
    return 0;
}

static int format_new(const char *name, struct region *r, const struct pool_geometry *geo,
                      struct embar_error *err)
{
    struct pool pool;
    int rc = lock_all(name, r, err);
    if (rc)
        return rc;
    if (!pool_is_blank(r)) {
        rc = pool_attach(&pool, r, err);
        if (rc == 0)
            return embar_fail(err, -EEXIST,
                              "%s is a pool already and was not changed: see it with `embar pool "
                              "show`, or name another file.",
                              r->spec);
        return rc;
    }
    return pool_format(r, geo, err);
}

static int create(const char *name, struct pool_args *a)
{
    struct region r;
    struct embar_error err;
    struct made made = {.pool = NULL};
    a->region.create = true;
    if (!a->spec)
        made_expect(&made);
    int rc = mounted_explain(a->spec, region_open(&r, &a->region, &err), &err);
    if (rc == 0)
        made_region(&made, &r);
    if (rc == 0 && r.is_volatile) {
        rc = embar_fail(&err, -EMBAR_ESPEC,
                        "%s would be gone when this command ends: give it to embarfs directly.",
                        r.spec);
    } else if (rc == 0) {
        rc = format_new(name, &r, &a->geo, &err);
    }
    if (rc)
        made_undo(&made); /* a file that is not formatted is no use to anybody */
    made_free(&made);
    region_close(&r);
    return rc ? cmd_fail(name, &err) : CMD_OK;
}

/* ---- erase -------------------------------------------------------------------------------- */

/* What makes a device not blank stands at its edges (pool_is_blank). */
static int erase_edges(const char *name, struct region *r, bool force, struct embar_error *err)
{
    struct pool pool;
    int rc = lock_all(name, r, err);
    if (rc)
        return rc;
    if (!force && pool_attach(&pool, r, NULL) == 0)
        return embar_fail(err, -EEXIST,
                          "%s holds a pool and was not changed: see it with `embar pool show`, and "
                          "give --force if nobody needs its topics.",
                          r->spec);
    const uint64_t edge = 1u << 20;
    rc = region_zero(r, 0, edge);
    if (rc == 0)
        rc = region_zero(r, r->size - edge, edge);
    return rc ? embar_fail(err, rc, "clearing %s", r->spec) : 0;
}

static int erase(const char *name, struct pool_args *a)
{
    struct region r;
    struct embar_error err;
    if (mounted_explain(a->spec, region_open(&r, &a->region, &err), &err) != 0)
        return cmd_fail(name, &err);
    int rc;
    if (r.kind != REGION_DEVDAX)
        rc = embar_fail(&err, -EMBAR_ESPEC, "%s is not a device: remove a file with rm.", r.spec);
    else
        rc = mounted_explain(r.spec, erase_edges(name, &r, a->force, &err), &err);
    region_close(&r);
    return rc ? cmd_fail(name, &err) : CMD_OK;
}

/* ---- show --------------------------------------------------------------------------------- */

/* What one slot's lines say, each copied once and believed only with its checksum. */
struct slot_facts {
    bool held, claimed;
    struct media_claim claim;
    uint64_t watermark, synced, checkpoint;
};

static bool whole(const void *record, size_t size, size_t crc_at)
{
    char copy[sizeof(struct media_super)]; /* the largest of those looked at */
    le32 crc;
    memcpy(copy, record, size);
    memcpy(&crc, copy + crc_at, sizeof(crc));
    memset(copy + crc_at, 0, sizeof(crc));
    return crc32c(0, copy, size) == le32_get(crc);
}

static uint64_t mark(const struct media_watermark *line)
{
    struct media_watermark w;
    memcpy(&w, line, sizeof(w));
    return whole(&w, sizeof(w), offsetof(struct media_watermark, crc)) ? le64_get(w.number) : 0;
}

static void look(const struct pool *p, unsigned slot, struct slot_facts *f)
{
    memset(f, 0, sizeof(*f));
    f->held = region_slot_held(p->region, slot);
    memcpy(&f->claim, pool_claim(p, slot), sizeof(f->claim));
    f->claimed = le32_get(f->claim.magic) == MEDIA_CLAIM_MAGIC &&
                 whole(&f->claim, sizeof(f->claim), offsetof(struct media_claim, crc));
    for (unsigned which = 0; which < 2; which++) {
        uint64_t w = mark(pool_watermark(p, slot, which)), s = mark(pool_synced(p, slot, which));
        f->watermark = w > f->watermark ? w : f->watermark;
        f->synced = s > f->synced ? s : f->synced;
        struct media_root root;
        memcpy(&root, pool_root(p, slot, which), sizeof(root));
        if (le32_get(root.magic) == MEDIA_ROOT_MAGIC &&
            whole(&root, sizeof(root), offsetof(struct media_root, crc)) &&
            le64_get(root.number) > f->checkpoint)
            f->checkpoint = le64_get(root.number);
    }
}

static const char *slot_state(const struct slot_facts *f)
{
    if (f->held)
        return "held";
    if (!f->claimed)
        return "never used";
    return le32_get(f->claim.pid) == 0 ? "closed" : "crashed";
}

static const char *hex(const uint8_t id[16], char out[37])
{
    char *at = out;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += snprintf(at, 3, "%02x", id[i]);
    }
    return out;
}

static const char *durability_name(const struct pool *p)
{
    return p->durability == MEDIA_DURABLE_MACHINE ? "machine" : "process";
}

static const char *kind_name(const struct region *r)
{
    static const char *const names[] = {[REGION_DEVDAX] = "devdax",
                                        [REGION_FILE] = "file",
                                        [REGION_MEM] = "memory",
                                        [REGION_NODE] = "node"};
    return names[r->kind];
}

static const struct media_super *super_of(const struct pool *p, struct media_super *s)
{
    memcpy(s, p->base + MEDIA_SUPER_AT, sizeof(*s));
    if (!whole(s, sizeof(*s), offsetof(struct media_super, crc)))
        memcpy(s, p->base + MEDIA_SUPER_ALT, sizeof(*s));
    return s;
}

static void show_text(const struct pool *p)
{
    char id[37];
    char a[32];
    char b[32];
    struct media_super s;
    (void)super_of(p, &s);
    printf("pool         %s (%s)\n", p->region->spec, kind_name(p->region));
    printf("identity     %s, incarnation %" PRIu64 ", format %u\n", hex(p->uuid, id),
           p->incarnation, le32_get(s.version));
    printf("made         %s\n", text_time(le64_get(s.created), a, sizeof(a)));
    printf("size         %s, %s of them for data\n", text_bytes(p->size, a, sizeof(a)),
           text_bytes(p->data_size, b, sizeof(b)));
    printf("durability   %s\n", durability_name(p));
    printf("extents      %s to %s, batches up to ",
           text_bytes(1ull << p->geo.block_shift, a, sizeof(a)),
           text_bytes(1ull << (p->geo.block_shift + p->geo.max_order), b, sizeof(b)));
    printf("%s\n", text_bytes(p->max_batch, a, sizeof(a)));
    printf("geometry     %u slots, each with %u pending rings of %u and an index ring of %" PRIu64
           "; %u regions for %u broker%s\n",
           p->geo.slots, p->geo.producers, p->geo.descriptors, p->geo.index_entries, p->geo.regions,
           p->geo.brokers, p->geo.brokers == 1 ? "" : "s");
    printf("\nslot  state       term        pid  since                     committed     synced "
           "checkpoint\n");
    for (unsigned slot = 0; slot < p->geo.slots; slot++) {
        struct slot_facts f;
        look(p, slot, &f);
        if (!f.claimed) {
            printf("%4u  %s\n", slot, slot_state(&f));
            continue;
        }
        printf("%4u  %-10s %5u %10u  %-24s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n", slot,
               slot_state(&f), le32_get(f.claim.term), le32_get(f.claim.pid),
               text_time(le64_get(f.claim.time), a, sizeof(a)), f.watermark, f.synced,
               f.checkpoint);
    }
}

static json_t *slot_json(const struct pool *p, unsigned slot)
{
    struct slot_facts f;
    char host[37];
    char boot[37];
    look(p, slot, &f);
    json_t *o = json_pack("{s:i, s:s, s:b}", "slot", (int)slot, "state", slot_state(&f), "held",
                          (int)f.held);
    if (!o || !f.claimed)
        return o;
    json_t *more = json_pack(
        "{s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "term", (json_int_t)le32_get(f.claim.term),
        "pid", (json_int_t)le32_get(f.claim.pid), "host", hex(f.claim.host, host), "boot_id",
        hex(f.claim.boot_id, boot), "first_entry", (json_int_t)le64_get(f.claim.start), "time",
        (json_int_t)le64_get(f.claim.time), "committed", (json_int_t)f.watermark, "synced",
        (json_int_t)f.synced, "checkpoint", (json_int_t)f.checkpoint);
    json_object_update(o, more);
    json_decref(more);
    return o;
}

static int show_json(const struct pool *p)
{
    char id[37];
    char boot[37];
    struct media_super s;
    (void)super_of(p, &s);
    json_t *slots = json_array();
    for (unsigned slot = 0; slot < p->geo.slots; slot++)
        json_array_append_new(slots, slot_json(p, slot));
    json_t *geo = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "slots",
                            (json_int_t)p->geo.slots, "producers", (json_int_t)p->geo.producers,
                            "descriptors", (json_int_t)p->geo.descriptors, "index_entries",
                            (json_int_t)p->geo.index_entries, "block",
                            (json_int_t)(1ull << p->geo.block_shift), "largest_extent",
                            (json_int_t)(1ull << (p->geo.block_shift + p->geo.max_order)),
                            "max_batch", (json_int_t)p->max_batch, "regions",
                            (json_int_t)p->geo.regions, "brokers", (json_int_t)p->geo.brokers);
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:s, s:o, s:o}", "pool",
                          p->region->spec, "kind", kind_name(p->region), "uuid", hex(p->uuid, id),
                          "incarnation", (json_int_t)p->incarnation, "version",
                          (json_int_t)le32_get(s.version), "created",
                          (json_int_t)le64_get(s.created), "boot_id", hex(s.boot_id, boot), "size",
                          (json_int_t)p->size, "data", (json_int_t)p->data_size, "durability",
                          durability_name(p), "geometry", geo, "slots", slots);
    if (!o)
        return CMD_FAILURE;
    int rc = json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(o);
    return rc == 0 ? CMD_OK : CMD_FAILURE;
}

struct shown {
    const char *name;
    struct region *region;
    bool json;
};

static int show_pool(void *arg)
{
    const struct shown *s = arg;
    struct pool p;
    struct embar_error err;
    if (pool_attach(&p, s->region, &err) != 0)
        return cmd_fail(s->name, &err);
    if (s->json)
        return show_json(&p);
    show_text(&p);
    return CMD_OK;
}

static int show(const char *name, struct pool_args *a)
{
    struct region r;
    struct embar_error err;
    a->region.readonly = true;
    if (mounted_explain(a->spec, region_open(&r, &a->region, &err), &err) != 0)
        return cmd_fail(name, &err);
    struct shown s = {.name = name, .region = &r, .json = a->json};
    int status = cmd_guarded(name, &r, show_pool, &s);
    region_close(&r);
    return status;
}

int cmd_pool(int argc, char **argv)
{
    const struct argp argp = {
        options,
        parse,
        "create [POOL]\nshow [POOL]\nerase DEVICE",
        "Make a pool, show what one is, or clear a device: a path, /dev/daxX.Y, or without "
        "POOL the default one. A pool is also made by the first mount that "
        "names it.\v"
        "`show` only reads, also while the pool is served. `create` refuses "
        "whatever is not empty. `erase` makes a device count as empty, which "
        "rm does for a file, and refuses one that is in use.",
        NULL,
        NULL,
        NULL};
    struct pool_args a = {.region = {.durability = -1}};
    cmd_parse(&argp, argc, argv, &a);
    a.region.spec = a.spec;
    if (strcmp(a.action, "create") == 0)
        return create(argv[0], &a);
    return strcmp(a.action, "erase") == 0 ? erase(argv[0], &a) : show(argv[0], &a);
}
