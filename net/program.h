/* What both programs do before anything else, so that they say themselves what went wrong. */
#ifndef NET_PROGRAM_H
#define NET_PROGRAM_H

/* When the program ends, what stdio still holds for standard output is written: where that fails it is said
 * on stderr, in the name of `name`, and a status of 0 becomes `failure`. A reader that left is no failure.
 * That includes what the C library prints and exits behind: --help, --version. May be called again, with a
 * name that stands for as long as the program. Before there are threads. */
void program_begins(const char *name, int failure);

#endif
