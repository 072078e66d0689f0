/* Opening and closing regions: which kind a spec means, and what all kinds have in common (flush
 * variant, durability, locks, sync). Before step 1. Must never interpret what stands in the pool,
 * but for the claim line that names who holds a lock.
 */
#include "core/region.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libpmem2.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/flush_variants.h"
#include "core/guard.h"
#include "core/pool.h"
#include "core/region_kinds.h"

int size_parse(const char *text, uint64_t *bytes)
{
    if (!text || !isdigit((unsigned char)*text))
        return -EMBAR_ESPEC;
    uint64_t value = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return -EMBAR_ESPEC;
    if (*text) {
        static const char units[] = "KMGTP";
        const char *unit = strchr(units, toupper((unsigned char)*text));
        if (!unit)
            return -EMBAR_ESPEC;
        uint64_t factor = 1ull << (10 * (unit - units + 1));
        if (__builtin_mul_overflow(value, factor, &value))
            return -EMBAR_ESPEC;
        text++;
        if (*text && strcmp(text, "iB") != 0)
            return -EMBAR_ESPEC;
    }
    *bytes = value;
    return 0;
}

const char *size_text(uint64_t bytes, char buf[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    unsigned unit = 0;
    while (bytes > 0 && bytes % 1024 == 0 && unit < 5) {
        bytes /= 1024;
        unit++;
    }
    snprintf(buf, 32, "%" PRIu64 " %s", bytes, units[unit]);
    return buf;
}

#define ELSEWHERE                                                                                  \
    "set XDG_STATE_HOME to a directory that you may write to, or name a pool yourself (embarfs: "  \
    "--cxl)."

/* Make every directory above path, private to the user. */
static int make_parents(char *path, struct embar_error *err)
{
    int rc = 0;
    for (char *slash = strchr(path + 1, '/'); slash && rc == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0700) && errno != EEXIST)
            rc = embar_fail(
                err, -errno,
                "the directory %s, for the default pool, cannot be made (%s): " ELSEWHERE, path,
                strerror(errno));
        *slash = '/';
    }
    return rc;
}

/* Whoever named no pool has not seen this path, and may not know how to name another. */
static int explain_default(const struct region *r, int rc, struct embar_error *err)
{
    if (rc != -EACCES && rc != -EPERM && rc != -EROFS)
        return rc;
    return embar_fail(err, rc, "the default pool %s cannot be opened (%s): " ELSEWHERE, r->spec,
                      strerror(-rc));
}

char *region_default_spec(bool make)
{
    char *path = NULL;
    int rc = -1;
    const char *state = getenv("XDG_STATE_HOME");
    if (state && state[0] == '/') {
        rc = asprintf(&path, "%s/embar/pool", state);
    } else if (geteuid() == 0) {
        rc = asprintf(&path, "/var/lib/embar/pool");
    } else {
        const char *home = getenv("HOME");
        if (!home || home[0] != '/') {
            const struct passwd *user = getpwuid(geteuid());
            home = user ? user->pw_dir : NULL;
        }
        if (home)
            rc = asprintf(&path, "%s/.local/state/embar/pool", home);
    }
    if (rc < 0)
        return NULL;
    if (make)
        (void)make_parents(path, NULL); /* an error shows when something is made there */
    return path;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Directly in /dev stand devices: a wrong name of one must not become a file in memory. */
static bool is_device_name(const char *spec)
{
    return has_prefix(spec, "/dev/") && !strchr(spec + strlen("/dev/"), '/');
}

static int open_kind(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    if (has_prefix(r->spec, "mem:") || has_prefix(r->spec, "node:"))
        return region_open_mem(r, opt, err);
    struct stat st;
    if (stat(r->spec, &st) == 0 ? S_ISCHR(st.st_mode) : is_device_name(r->spec))
        return region_open_devdax(r, opt, err);
    return region_open_file(r, opt, err);
}

/* What an ack stands for, from what the memory can do, what was asked for and how it is flushed.
 *
 * Without being asked, machine is promised only where the system says that flush and drain reach
 * persistence. A device of unknown persistence is flushed all the same, but whether it keeps its
 * content is known to its owner alone: --durability machine is that owner's word. */
static int settle_durability(struct region *r, const struct region_options *opt,
                             struct embar_error *err)
{
    bool flushed = opt->flush != FLUSH_NONE || r->needs_sync;
    r->can_machine = r->can_machine && flushed;
    if (opt->durability < 0) {
        /* Memory whose flush and drain reach persistence gives it for nothing; a disk does not. */
        r->durability = r->can_machine && !r->needs_sync && r->persistence == REGION_PERSISTENT
                            ? MEDIA_DURABLE_MACHINE
                            : MEDIA_DURABLE_PROCESS;
        return 0;
    }
    r->durability_given = true;
    r->durability = (enum media_durability)opt->durability;
    if (r->durability == MEDIA_DURABLE_MACHINE && !r->can_machine)
        return embar_fail(err, -EMBAR_ESPEC,
                          "%s cannot survive the machine%s: use --durability process, or a pool on "
                          "a disk or a persistent-memory device.",
                          r->spec, flushed ? ", it is volatile memory" : " without flushing");
    return 0;
}

int region_open(struct region *r, const struct region_options *opt, struct embar_error *err)
{
    guard_install();
    *r = (struct region){.fd = -1, .flush = {.ops = &flush_none_ops}};
    r->readonly = opt->readonly;
    if (opt->durability > MEDIA_DURABLE_MACHINE)
        return embar_fail(err, -EMBAR_EINVALID, "durability %d", opt->durability);
    r->spec = opt->spec ? strdup(opt->spec) : region_default_spec(false);
    if (!r->spec)
        return opt->spec ? embar_fail(err, -ENOMEM, "opening %s", opt->spec)
                         : embar_fail(err, -ENOENT,
                                      "no home directory is known for the default pool: set "
                                      "XDG_STATE_HOME or name a pool with --cxl.");
    if (!*r->spec) {
        region_close(r);
        return embar_fail(err, -EMBAR_ESPEC, "an empty pool name");
    }
    r->backing = calloc(1, sizeof(*r->backing));
    if (!r->backing) {
        region_close(r);
        return embar_fail(err, -ENOMEM, NULL);
    }
    pthread_mutex_init(&r->backing->lock, NULL);
    int rc = opt->spec || opt->readonly || !opt->create ? 0 : make_parents(r->spec, err);
    if (rc == 0) {
        rc = open_kind(r, opt, err);
        if (rc && !opt->spec)
            rc = explain_default(r, rc, err);
    }
    if (rc == 0)
        rc = settle_durability(r, opt, err);
    if (rc == 0) {
        struct pmem2_map *map = r->backing->map;
        bool lines = map && pmem2_map_get_store_granularity(map) != PMEM2_GRANULARITY_PAGE;
        struct flush_memory memory = {.lines = lines ? map : NULL, .pages = r->needs_sync};
        if (opt->readonly)
            flush_choose_reader(&r->flush, &memory);
        else
            rc = flush_choose(&r->flush, opt->flush, &memory, err);
    }
    if (rc) {
        /* A file that this call made and cannot use must not be found by the next one. */
        if (r->created && r->kind == REGION_FILE)
            (void)unlink(r->spec);
        region_close(r);
        return rc;
    }
    /* A core dump of the daemon must not contain everybody's messages, nor take the pool's size. */
    (void)madvise(r->base, r->size, MADV_DONTDUMP);
    return 0;
}

void region_close(struct region *r)
{
    if (r->backing) {
        if (r->backing->map)
            (void)pmem2_map_delete(&r->backing->map);
        if (r->backing->mapped)
            (void)munmap(r->base, r->backing->mapped);
        flush_release(&r->flush);
        pthread_mutex_destroy(&r->backing->lock);
        free(r->backing);
        if (r->fd >= 0)
            (void)close(r->fd);
    }
    free(r->spec);
    *r = (struct region){.fd = -1, .flush = {.ops = &flush_none_ops}};
}

/* libpmem2 returns -errno or numbers of its own from -100000 down, which no errno has room for; its
 * message, which ours contains, says which. */
static int pmem2_code(int rc)
{
    if (rc > PMEM2_E_UNKNOWN)
        return rc;
    return rc == PMEM2_E_IO_FAIL     ? -EIO
           : rc == PMEM2_E_NO_ACCESS ? -EACCES
           : rc == PMEM2_E_NOSUPP    ? -EOPNOTSUPP
                                     : -EINVAL;
}

int region_map_fd(struct region *r, struct embar_error *err)
{
    struct pmem2_config *config = NULL;
    struct pmem2_source *source = NULL;
    unsigned prot = PMEM2_PROT_READ | (r->readonly ? 0 : PMEM2_PROT_WRITE);
    int rc = pmem2_config_new(&config);
    if (rc == 0)
        rc = pmem2_source_from_fd(&source, r->fd);
    if (rc == 0)
        rc = pmem2_config_set_required_store_granularity(config, PMEM2_GRANULARITY_PAGE);
    if (rc == 0)
        rc = pmem2_config_set_sharing(config, PMEM2_SHARED);
    if (rc == 0)
        rc = pmem2_config_set_protection(config, prot);
    if (rc == 0)
        rc = pmem2_map_new(&r->backing->map, config, source);
    if (rc)
        rc = embar_fail(err, pmem2_code(rc), "mapping %s (%s)", r->spec, pmem2_errormsg());
    else
        r->base = pmem2_map_get_address(r->backing->map);
    if (source)
        (void)pmem2_source_delete(&source);
    if (config)
        (void)pmem2_config_delete(&config);
    return rc;
}

/* Who holds the slot, from its claim line: only a process of this host and boot means anything. */
static long claim_holder(struct region *r, unsigned slot)
{
    struct pool pool;
    if (pool_attach(&pool, r, NULL) != 0 || slot >= pool.geo.slots)
        return 0;
    struct media_claim claim;
    if (guard_copy(r, &claim, pool_claim(&pool, slot), sizeof(claim)) != 0)
        return 0;
    uint8_t host[16];
    uint8_t boot[16];
    host_machine_id(host);
    host_boot_id(boot);
    if (le32_get(claim.magic) != MEDIA_CLAIM_MAGIC || memcmp(claim.host, host, 16) != 0 ||
        memcmp(claim.boot_id, boot, 16) != 0)
        return 0;
    return le32_get(claim.pid);
}

static int lock_slot(struct region *r, unsigned slot, short type, struct embar_error *err)
{
    if (r->fd < 0)
        return 0;
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};
    int rc;
    do
        rc = fcntl(r->fd, F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return embar_fail(err, -errno, "locking slot %u of %s", slot, r->spec);
    long pid = claim_holder(r, slot);
    if (pid > 0)
        return embar_fail(err, -EMBAR_EBUSY,
                          "%s is held by process %ld (slot %u): unmount or stop that one first.",
                          r->spec, pid, slot);
    return embar_fail(err, -EMBAR_EBUSY,
                      "%s is held by another process (slot %u): unmount or stop that one first.",
                      r->spec, slot);
}

int region_lock_slot(struct region *r, unsigned slot, struct embar_error *err)
{
    return lock_slot(r, slot, F_WRLCK, err);
}

int region_lock_look(struct region *r, unsigned slot, struct embar_error *err)
{
    return lock_slot(r, slot, F_RDLCK, err);
}

bool region_slot_held(const struct region *r, unsigned slot)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};
    return r->fd >= 0 && fcntl(r->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int region_sync(struct region *r)
{
    struct region_backing *backing = r->backing;
    if (!backing || !r->needs_sync || r->readonly)
        return 0;
    pthread_mutex_lock(&backing->lock);
    int rc = backing->failed;
    uint64_t noted = 0;
    bool counted = flush_file_noted(&r->flush, &noted);
    if (rc == 0 && !(counted && noted == backing->synced)) {
        do
            rc = fdatasync(r->fd) == 0 ? 0 : -errno;
        while (rc == -EINTR);
        /* The kernel reports a lost page once and then forgets it. */
        backing->failed = rc;
        backing->synced = noted;
    }
    pthread_mutex_unlock(&backing->lock);
    return rc;
}

struct range {
    struct region *region;
    char *at;
    uint64_t n;
};

static int zero(void *arg)
{
    const struct range *z = arg;
    memset(z->at, 0, z->n);
    flush_writeback(&z->region->flush, z->at, z->n);
    flush_drain(&z->region->flush);
    return 0;
}

int region_zero(struct region *r, uint64_t at, uint64_t n)
{
    return guard_run(r, zero, &(struct range){r, r->base + at, n});
}

void region_wrap(struct region *r, void *base, uint64_t size, const struct flush *flush)
{
    guard_install();
    *r = (struct region){
        .base = base,
        .size = size,
        .kind = REGION_MEM,
        .is_volatile = !flush,
        .durability = flush ? MEDIA_DURABLE_MACHINE : MEDIA_DURABLE_PROCESS,
        .can_machine = flush != NULL,
        .flush = flush ? *flush : (struct flush){.ops = &flush_none_ops},
        .fd = -1,
    };
}
