/* Looking for what a pool can live in: dax devices, CXL memory, NUMA nodes without CPUs, filesystems
 * mounted with DAX. Serves no step of a batch. Must never open a device for writing, nor map it.
 */
#include "net/cmd/devices.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/dax.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* A format for a path, printed whole or not used at all. */
static bool path_of(char path[PATH_MAX], const char *fmt, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result));
static bool path_of(char path[PATH_MAX], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(path, PATH_MAX, fmt, args);
    va_end(args);
    return n >= 0 && n < PATH_MAX;
}

/* Calls fn for each entry of a folder whose name is `prefix` and more, in the order of versions. */
static void each(const char *folder, const char *prefix,
                 void (*fn)(const char *folder, const char *name, void *arg), void *arg)
{
    struct dirent **names;
    int n = scandir(folder, &names, NULL, versionsort);
    for (int i = 0; i < n; i++) {
        size_t length = strlen(prefix);
        if (strncmp(names[i]->d_name, prefix, length) == 0 && names[i]->d_name[length] &&
            names[i]->d_name[0] != '.')
            fn(folder, names[i]->d_name, arg);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

struct look {
    const char *root;
    json_t *list;
};

/* ---- Who has a device ----------------------------------------------------------------------- */

struct search {
    const char *root, *device;
    json_t *found;
    const char *process; /* the one whose descriptors are looked at */
    bool has;
};

static void look_descriptor(const char *folder, const char *name, void *arg)
{
    struct search *s = arg;
    char path[PATH_MAX];
    char target[PATH_MAX];
    if (s->has || !path_of(path, "%s/%s", folder, name))
        return;
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    if (n <= 0)
        return;
    target[n] = '\0';
    s->has = strcmp(target, s->device) == 0;
}

static void look_process(const char *folder, const char *name, void *arg)
{
    struct search *s = arg;
    char path[PATH_MAX];
    char command[64];
    char *end;
    long pid = strtol(name, &end, 10);
    if (pid <= 0 || *end || (pid == getpid() && !*s->root) ||
        !path_of(path, "%s/%s/fd", folder, name))
        return;
    s->has = false;
    each(path, "", look_descriptor, s);
    if (!s->has)
        return;
    (void)sysfs_text(command, sizeof(command), "%s/%s/comm", folder, name);
    json_array_append_new(s->found, json_pack("{s:I, s:s}", "pid", (json_int_t)pid, "command",
                                              *command ? command : "?"));
}

/* Processes that have the device open, as far as we may look. */
static json_t *holders_of(const char *root, const char *device)
{
    struct search s = {.root = root, .device = device, .found = json_array()};
    char path[PATH_MAX];
    if (path_of(path, "%s/proc", root))
        each(path, "", look_process, &s);
    return s.found;
}

/* 1: a pool on it is served; 0: not; -errno: cannot be opened. */
static int is_locked(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = MEDIA_MAX_SLOTS};
    int rc = fcntl(fd, F_OFD_GETLK, &lock) < 0 ? 0 : lock.l_type != F_UNLCK;
    (void)close(fd);
    return rc;
}

/* ---- Dax devices ---------------------------------------------------------------------------- */

static void add_state(const char *root, const struct dax_facts *f, const char *device, json_t *o)
{
    char path[PATH_MAX];
    char text[64];
    const char *state = "free";
    json_t *holders = holders_of(root, device);
    json_t *use = json_string(device);
    int locked = path_of(path, "%s%s", root, device) ? is_locked(path) : -ENAMETOOLONG;
    if (strcmp(f->driver, "kmem") == 0) {
        state = "system memory";
        json_decref(use);
        snprintf(text, sizeof(text), "node:%d", f->node);
        use = f->node >= 0 ? json_string(text) : json_null();
    } else if (!*f->driver) {
        state = "no driver";
    } else if (locked == 1) {
        state = "served";
    } else if (locked == -EACCES || locked == -EPERM) {
        state = "no permission";
    } else if (locked < 0) {
        state = "not ready";
    } else if (json_array_size(holders) > 0) {
        state = "open";
    }
    json_object_set_new(o, "state", json_string(state));
    json_object_set_new(o, "holders", holders);
    json_object_set_new(o, "use", use);
}

static void look_dax(const char *folder, const char *name, void *arg)
{
    const struct look *look = arg;
    struct dax_facts f;
    char path[PATH_MAX];
    char device[64];
    if (!path_of(path, "%s/%s", folder, name) || dax_look(path, &f) != 0)
        return;
    /* A device without a size is a seed that makes new ones. */
    if (f.size == 0)
        return;
    snprintf(device, sizeof(device), "/dev/%.40s", name);
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "path", json_string(device));
    json_object_set_new(o, "size", number(f.size));
    json_object_set_new(o, "align", number(f.align));
    json_object_set_new(o, "node", f.node >= 0 ? json_integer(f.node) : json_null());
    json_object_set_new(o, "driver", *f.driver ? json_string(f.driver) : json_null());
    json_object_set_new(o, "persistence", json_string(persistence_name(f.persistence)));
    json_object_set_new(o, "persistence_source", json_string(f.source));
    json_object_set_new(o, "durability",
                        json_string(f.persistence == REGION_PERSISTENT ? "machine" : "process"));
    add_state(look->root, &f, device, o);
    json_array_append_new(look->list, o);
}

/* ---- CXL memory ----------------------------------------------------------------------------- */

static uint64_t size_at(const char *folder, const char *name, const char *file)
{
    char text[32];
    if (sysfs_text(text, sizeof(text), "%s/%s/%s", folder, name, file) != 0)
        return 0;
    return strtoull(text, NULL, 0); /* in hexadecimal, with its 0x */
}

static void look_memdev(const char *folder, const char *name, void *arg)
{
    const struct look *look = arg;
    char text[64];
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "kind", json_string("card"));
    json_object_set_new(o, "persistent", number(size_at(folder, name, "pmem/size")));
    json_object_set_new(o, "volatile", number(size_at(folder, name, "ram/size")));
    json_object_set_new(o, "serial", number(size_at(folder, name, "serial")));
    (void)sysfs_text(text, sizeof(text), "%s/%s/firmware_version", folder, name);
    json_object_set_new(o, "firmware", json_string(text));
    json_array_append_new(look->list, o);
}

static void look_region(const char *folder, const char *name, void *arg)
{
    const struct look *look = arg;
    char mode[16];
    uint64_t size = size_at(folder, name, "size");
    if (size == 0)
        return;
    (void)sysfs_text(mode, sizeof(mode), "%s/%s/mode", folder, name);
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "kind", json_string("region"));
    json_object_set_new(o, "size", number(size));
    json_object_set_new(o, "mode", *mode ? json_string(mode) : json_null());
    json_array_append_new(look->list, o);
}

/* ---- Nodes and filesystems ------------------------------------------------------------------ */

/* "Node 1 MemTotal:  1048576 kB" */
static uint64_t meminfo(const char *folder, const char *name, const char *key)
{
    char path[PATH_MAX];
    char line[128];
    uint64_t kib = 0;
    FILE *f = path_of(path, "%s/%s/meminfo", folder, name) ? fopen(path, "re") : NULL;
    while (f && fgets(line, sizeof(line), f)) {
        const char *at = strstr(line, key);
        if (at && sscanf(at + strlen(key), ": %" SCNu64, &kib) == 1)
            break;
    }
    if (f)
        (void)fclose(f);
    return kib << 10;
}

static void look_node(const char *folder, const char *name, void *arg)
{
    const struct look *look = arg;
    char cpus[64];
    char use[32];
    char *end;
    long node = strtol(name + strlen("node"), &end, 10);
    uint64_t size = meminfo(folder, name, "MemTotal");
    if (*end || size == 0 || sysfs_text(cpus, sizeof(cpus), "%s/%s/cpulist", folder, name) != 0 ||
        *cpus)
        return;
    snprintf(use, sizeof(use), "node:%ld", node);
    json_array_append_new(look->list,
                          json_pack("{s:I, s:I, s:I, s:s, s:s, s:s}", "node", (json_int_t)node,
                                    "size", (json_int_t)size, "free",
                                    (json_int_t)meminfo(folder, name, "MemFree"), "persistence",
                                    "volatile", "durability", "process", "use", use));
}

static bool is_dax_mount(const struct mntent *m)
{
    if (strcmp(m->mnt_type, "famfs") == 0)
        return true;
    const char *option = hasmntopt(m, "dax");
    return option && strncmp(option, "dax=never", 9) != 0;
}

static void look_mounts(const struct look *look)
{
    char path[PATH_MAX];
    char text[PATH_MAX];
    char buf[2 * PATH_MAX];
    struct mntent m;
    FILE *table = path_of(path, "%s/proc/self/mounts", look->root) ? setmntent(path, "re") : NULL;
    while (table && getmntent_r(table, &m, buf, sizeof(buf))) {
        struct statvfs st = {0};
        if (!is_dax_mount(&m) || !path_of(path, "%s%s", look->root, m.mnt_dir) ||
            !path_of(text, "%s/pool", strcmp(m.mnt_dir, "/") == 0 ? "" : m.mnt_dir))
            continue;
        (void)statvfs(path, &st);
        json_array_append_new(
            look->list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s}", "mountpoint",
                                  m.mnt_dir, "device", m.mnt_fsname, "type", m.mnt_type, "size",
                                  (json_int_t)st.f_blocks * (json_int_t)st.f_frsize, "free",
                                  (json_int_t)st.f_bavail * (json_int_t)st.f_frsize, "persistence",
                                  "persistent", "durability", "machine", "use", text));
    }
    if (table)
        endmntent(table);
}

json_t *devices_look(const char *root)
{
    struct look dax = {root, json_array()};
    struct look cxl = {root, json_array()};
    struct look nodes = {root, json_array()};
    struct look fsdax = {root, json_array()};
    char path[PATH_MAX];
    if (path_of(path, "%s/sys/bus/dax/devices", root))
        each(path, "dax", look_dax, &dax);
    if (path_of(path, "%s/sys/bus/cxl/devices", root)) {
        each(path, "mem", look_memdev, &cxl);
        each(path, "region", look_region, &cxl);
    }
    if (path_of(path, "%s/sys/devices/system/node", root))
        each(path, "node", look_node, &nodes);
    look_mounts(&fsdax);
    return json_pack("{s:o, s:o, s:o, s:o}", "dax", dax.list, "cxl", cxl.list, "nodes", nodes.list,
                     "fsdax", fsdax.list);
}
