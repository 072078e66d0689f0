/* Text that may be shown on a terminal: names and messages of others may hold control characters, which
 * would move its cursor, colour it, or hide what stands there. They, and bytes that are no UTF-8, are
 * written out, as in \n or \x1b. No state; every function from any thread.
 */
#ifndef CORE_PLAIN_H
#define CORE_PLAIN_H

#include <stddef.h>

/* Bytes of the character at text: whole UTF-8, without overlong forms, surrogates or control characters.
 * 0: it is no such thing. */
size_t plain_step(const char *text, size_t length);

/* Written out into to, as much as fits, with a NUL. The bytes that all of it has: size or more where it was
 * cut. */
size_t plain_text(char *to, size_t size, const char *from);

/* From here on stderr writes out whatever goes through it, but for newlines: also what the C library says of
 * a command line. To be called once, before there are threads. What is to move the cursor goes to the
 * descriptor itself. */
void plain_stderr(void);

#endif
