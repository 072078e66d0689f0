/* For clang-tidy alone, included before each file: what the analyzer cannot see by itself. */
#include <stddef.h>

#include "embar/error.h"

/* embar_fail returns its code; it stands in another file, so that the analyzer would follow paths
 * on which a failure was none. */
#define embar_fail(err, code, ...) ((void)(embar_fail)(err, code, __VA_ARGS__), (code))

/* uthash's macros are a program of their own, which it takes for ours: hashes are opaque to it, and
 * what a table holds after a removal is anything. */
#if __has_include(<uthash.h>)
unsigned analyzer_hash(const void *key, size_t length);
void *analyzer_anything(void);
#define HASH_FUNCTION(key, length, hash) (hash) = analyzer_hash(key, length)
#define HASH_NONFATAL_OOM                1 /* as core/log_state.h has it */
#include <uthash.h>
#undef HASH_DELETE
#define HASH_DELETE(hh, head, item) ((head) = analyzer_anything())
#undef HASH_DEL
#define HASH_DEL(head, item) HASH_DELETE(hh, head, item)
#endif
