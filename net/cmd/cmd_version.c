/* `embar version`: what this is. Serves no step of a batch.
 */
#include <stdio.h>

#include "net/cmd/cmd.h"

int cmd_version(int argc, char **argv)
{
    const struct argp argp = {.doc = "Print the version."};
    cmd_parse(&argp, argc, argv, NULL);
    printf("embar %s\n", embar_version());
    return CMD_OK;
}
