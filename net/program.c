/* The beginning and end of both programs: see program.h. Serves no step of a batch. Must never print to
 * standard output.
 */
#include "net/program.h"

#include <errno.h>
#include <numa.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program;
static int failed;

static void check_output(int status, void *arg)
{
    (void)arg;
    int why = fflush(stdout) != 0 ? errno : 0;
    if (status != 0 || why == EPIPE || (why == 0 && !ferror(stdout)))
        return;
    fprintf(stderr, "%s: Writing to standard output failed%s%s.\n", program, why ? ": " : "",
            why ? strerror(why) : "");
    fflush(stderr);
    _exit(failed);
}

void program_begins(const char *name, int failure)
{
    bool first = !program;
    program = name;
    failed = failure;
    if (first && on_exit(check_output, NULL) != 0)
        abort(); /* there is room for 32 of them */
}

/* libnuma prints what it thinks of this machine, some of it before main, for want of a descriptor perhaps. Who
 * asked it something has an answer to go by, and says so in words. Its own of these names are weak. */
void numa_warn(int number, char *what, ...)
{
    (void)number;
    (void)what;
}

void numa_error(char *where)
{
    (void)where;
}
