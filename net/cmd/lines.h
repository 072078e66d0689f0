/* Cutting text into messages: one line a message, its newline kept. Pure; any thread. */
#ifndef NET_CMD_LINES_H
#define NET_CMD_LINES_H

#include <stddef.h>
#include <stdint.h>

/* The lengths of up to `max` ended lines at p; *count gets how many. Returns the bytes they cover:
 * what follows is the begin of a line that does not end within n, or lines above max. */
size_t lines_cut(const unsigned char *p, size_t n, uint32_t *lengths, uint32_t max,
                 uint32_t *count);

/* Bytes up to and including the last newline of p; 0: there is none. */
size_t lines_whole(const unsigned char *p, size_t n);

#endif
