/* `embar devices`: what this machine has for a pool, and the --cxl flag for each. Serves no step of a
 * batch and talks to no broker. Must never change a device, nor promise what the system does not say.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/cmd/cmd.h"
#include "net/cmd/devices.h"

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bool *json = state->input;
    switch (key) {
    case 'j': *json = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "all devices are listed: what is \"%s\"?", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static uint64_t number_at(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static const char *bytes_at(const json_t *o, const char *key, char buf[32])
{
    return text_bytes(number_at(o, key), buf, 32);
}

static void print_holders(const json_t *o, const char *before)
{
    size_t i;
    json_t *holder;
    json_array_foreach(json_object_get(o, "holders"), i, holder)
    {
        char *command = text_plain(text_at(holder, "command")); /* a process is called anything */
        printf("%s%s (process %" PRIu64 ")", i == 0 ? before : ", ", command ? command : "?",
               number_at(holder, "pid"));
        free(command);
    }
}

static void print_state(const json_t *o)
{
    const char *state = text_at(o, "state");
    printf("    state        ");
    if (strcmp(state, "served") == 0) {
        printf("busy: a pool on it is in use");
        print_holders(o, ", held by ");
    } else if (strcmp(state, "open") == 0) {
        printf("busy: open in");
        print_holders(o, " ");
    } else if (strcmp(state, "system memory") == 0) {
        printf("busy: in use as system memory; `daxctl reconfigure-device -f -m devdax %s` gives "
               "it back",
               text_at(o, "name"));
    } else if (strcmp(state, "no driver") == 0) {
        printf("no driver is bound: `daxctl enable-device %s`", text_at(o, "name"));
    } else if (strcmp(state, "not ready") == 0) {
        printf("cannot be opened: is there a node %s, and does its driver answer?",
               text_at(o, "path"));
    } else if (strcmp(state, "no permission") == 0) {
        printf("not known: you may not open %s", text_at(o, "path"));
    } else {
        printf("free");
    }
    putchar('\n');
}

static void print_use(const json_t *o, const char *more)
{
    if (*text_at(o, "use"))
        printf("    use          --cxl %s%s\n", text_at(o, "use"), more);
}

static void print_dax(const json_t *o)
{
    char size[32];
    char align[32];
    printf("  %s  %s, alignment %s", text_at(o, "path"), bytes_at(o, "size", size),
           bytes_at(o, "align", align));
    if (json_is_integer(json_object_get(o, "node")))
        printf(", NUMA node %" PRIu64, number_at(o, "node"));
    printf("\n    persistence  %s: %s\n", text_at(o, "persistence"),
           text_at(o, "persistence_source"));
    bool onlined = strcmp(text_at(o, "state"), "system memory") == 0;
    bool unsure = !onlined && strcmp(text_at(o, "persistence"), "unknown") == 0;
    printf("    durability   %s%s\n", onlined ? "process" : text_at(o, "durability"),
           unsure ? "; if you know that it keeps its content: --durability machine" : "");
    print_state(o);
    print_use(o, "");
}

static void print_cxl(const json_t *o)
{
    char a[32];
    char b[32];
    if (strcmp(text_at(o, "kind"), "card") == 0)
        printf("  %s  %s persistent, %s volatile, serial %#" PRIx64 "\n", text_at(o, "name"),
               bytes_at(o, "persistent", a), bytes_at(o, "volatile", b), number_at(o, "serial"));
    else
        printf("  %s  %s%s%s\n", text_at(o, "name"), bytes_at(o, "size", a),
               *text_at(o, "mode") ? ", " : "", text_at(o, "mode"));
}

static void print_node(const json_t *o)
{
    char a[32];
    char b[32];
    printf("  node %" PRIu64 "  %s, %s free\n", number_at(o, "node"), bytes_at(o, "size", a),
           bytes_at(o, "free", b));
    printf("    persistence  volatile: a pool goes with its daemon\n");
    print_use(o, ":SIZE");
}

static void print_fsdax(const json_t *o)
{
    char a[32];
    char b[32];
    printf("  %s  %s on %s, %s, %s free\n", text_at(o, "mountpoint"), text_at(o, "type"),
           text_at(o, "device"), bytes_at(o, "size", a), bytes_at(o, "free", b));
    print_use(o, " --size SIZE");
}

static bool print_part(const json_t *all, const char *key, const char *title,
                       void (*print)(const json_t *))
{
    const json_t *list = json_object_get(all, key);
    size_t i;
    json_t *o;
    if (json_array_size(list) == 0)
        return false;
    printf("%s\n", title);
    json_array_foreach(list, i, o)
    {
        print(o);
    }
    return true;
}

static void print_all(const json_t *all)
{
    bool dax = print_part(all, "dax", "Dax devices", print_dax);
    bool cxl = print_part(all, "cxl", "CXL memory", print_cxl);
    bool nodes = print_part(all, "nodes", "Memory nodes without CPUs", print_node);
    bool fsdax = print_part(all, "fsdax", "Filesystems with DAX", print_fsdax);
    if (cxl && !dax && !nodes)
        puts("The CXL memory is not a device yet: for persistent memory `cxl create-region -m -t "
             "pmem -d\ndecoder0.0 mem0` and `ndctl create-namespace -m devdax`, for volatile "
             "memory `cxl create-region\n-m -t ram -d decoder0.0 mem0`.");
    if (!dax && !cxl && !nodes && !fsdax)
        puts("This machine shows no dax device, CXL memory, memory node without CPUs or "
             "filesystem with DAX.\nA pool can be a file (--cxl PATH --size 1G) or plain memory "
             "(--cxl mem:1G); without --cxl it is\na file in the state directory.");
}

int cmd_devices(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "As a JSON object", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    const struct argp argp = {
        options,
        parse,
        "",
        "List what this machine has for a pool: dax devices, CXL memory, memory nodes without "
        "CPUs, "
        "filesystems with DAX; what is persistent, what is busy, and the --cxl flag for each.\v"
        "Persistence is what the system says: soft-reserved memory it knows nothing of. Who holds "
        "a "
        "device is known as far as you may look into other users' processes.",
        NULL,
        NULL,
        NULL};
    bool json = false;
    cmd_parse(&argp, argc, argv, &json);
    const char *root = getenv("EMBAR_DEVICES_ROOT"); /* tests: a tree that looks like a machine */
    json_t *all = devices_look(root ? root : "");
    if (!all) {
        cmd_say(argv[0], "There is not enough memory for the list.");
        return CMD_FAILURE;
    }
    if (json) {
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
    } else {
        print_all(all);
    }
    json_decref(all);
    return CMD_OK;
}
