/* What this machine has for a pool, as JSON: sysfs, procfs and the locks on devices are read, nothing
 * is changed. One thread.
 */
#ifndef NET_CMD_DEVICES_H
#define NET_CMD_DEVICES_H

#include <jansson.h>

/* {"dax": [...], "cxl": [...], "nodes": [...], "fsdax": [...]}, each in the order of its names; NULL
 * without memory for it. root stands before every path ("" or a tree for tests). */
json_t *devices_look(const char *root);

#endif
