/* Who this host is: its boot and its machine, as claim lines, watermarks and superblocks tell them
 * apart. Before step 1. Must never fail: an unknown id is zeros, which equal nothing that matters.
 */
#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/pool.h"

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* 32 hexadecimal digits with any dashes between them. */
static bool read_id(const char *path, uint8_t id[16])
{
    memset(id, 0, 16);
    char text[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text));
    (void)close(fd);
    unsigned digits = 0;
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        int v = nibble(text[i]);
        if (v < 0)
            continue;
        id[digits / 2] = (uint8_t)(id[digits / 2] | v << (digits % 2 ? 0 : 4));
        digits++;
    }
    if (digits == 32)
        return true;
    memset(id, 0, 16);
    return false;
}

void host_boot_id(uint8_t id[16])
{
    (void)read_id("/proc/sys/kernel/random/boot_id", id);
}

void host_machine_id(uint8_t id[16])
{
    if (!read_id("/etc/machine-id", id))
        (void)read_id("/var/lib/dbus/machine-id", id);
}
