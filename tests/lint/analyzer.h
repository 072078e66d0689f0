/* For clang-tidy alone, included before each file: embar_fail returns its code, which the analyzer
 * cannot see across files; without this it follows paths on which a failure was none.
 */
#include "embar/error.h"

#define embar_fail(err, code, ...) ((void)(embar_fail)(err, code, __VA_ARGS__), (code))
