# How a test is added: two functions, so that every test gets the same labels, sanitizer options,
# skip code and time limit. A test that cannot run here exits 77 and says why.

find_package(PkgConfig REQUIRED)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)

# halt_on_error: a report is a failure, not a remark. Leaks count too.
set(EMBAR_TEST_ENVIRONMENT
  "ASAN_OPTIONS=halt_on_error=1:detect_leaks=1:strict_string_checks=1"
  "UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1"
  "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
set(EMBAR_SKIP_CODE 77)

# embar_unit_test(<name> SOURCES <file>... [LIBS <target>...] [LABELS <label>...] [TIMEOUT <s>])
# One cmocka program: no root, no mount, no fixed port, no fixed path, safe beside all others.
function(embar_unit_test name)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LIBS} PkgConfig::CMOCKA Threads::Threads)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    LABELS "unit;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE ${EMBAR_SKIP_CODE}
    ENVIRONMENT "${EMBAR_TEST_ENVIRONMENT}")
endfunction()

# embar_script_test(<name> COMMAND <file> [<arg>...] [LABELS <label>...] [TIMEOUT <s>] [SERIAL])
# A program that runs the built ones: finds them in $EMBAR_BIN_DIR and the tree in $EMBAR_SOURCE_DIR.
function(embar_script_test name)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  add_test(NAME ${name} COMMAND ${arg_COMMAND})
  set_tests_properties(${name} PROPERTIES
    LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE ${EMBAR_SKIP_CODE}
    ENVIRONMENT "${EMBAR_TEST_ENVIRONMENT};EMBAR_BIN_DIR=${CMAKE_BINARY_DIR}/bin;EMBAR_SOURCE_DIR=${CMAKE_SOURCE_DIR};EMBAR_BUILD_DIR=${CMAKE_BINARY_DIR}")
  if(arg_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()
