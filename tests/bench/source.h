/* What is published: prefaulted memory full of log-like lines. Read-only once made. */
#ifndef BENCH_SOURCE_H
#define BENCH_SOURCE_H

#include <stddef.h>
#include <stdint.h>

/* `size` bytes, in messages of `message` bytes that each end in a newline (`size` is cut to whole
 * messages: *size gets it). NULL when there is no memory. */
char *source_make(size_t *size, size_t message, unsigned seed);
void source_free(char *source, size_t size);

#endif
