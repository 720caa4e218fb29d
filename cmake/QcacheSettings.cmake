# Two interface targets that only our own code links: how we compile, and what we are warned of.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  # Unoptimized kernels are of no use to anybody who did not ask for them.
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

find_program(QCACHE_CCACHE ccache)
if(QCACHE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${QCACHE_CCACHE})
endif()

# Links a test program in a third of the time; tools/setup installs it.
find_program(QCACHE_MOLD mold)
if(QCACHE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(qcache_settings INTERFACE)
target_include_directories(qcache_settings INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(qcache_settings INTERFACE _FILE_OFFSET_BITS=64 SPDLOG_FMT_EXTERNAL
                                                     QCACHE_VERSION="${PROJECT_VERSION}")
if(QCACHE_SANITIZE)
  target_compile_options(qcache_settings INTERFACE -fsanitize=${QCACHE_SANITIZE} -fno-omit-frame-pointer
                                                   -fno-sanitize-recover=all)
  target_link_options(qcache_settings INTERFACE -fsanitize=${QCACHE_SANITIZE})
elseif(CMAKE_BUILD_TYPE MATCHES "Rel")
  # The daemon may run as root and reads strangers' files: what these stop is then a crash, not a break-in.
  target_compile_options(qcache_settings INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong)
  target_link_options(qcache_settings INTERFACE -Wl,-z,relro,-z,now)
endif()
if(QCACHE_DEV)
  target_compile_definitions(qcache_settings INTERFACE _GLIBCXX_ASSERTIONS)
endif()
if(QCACHE_FUZZ)
  # Every library counts the branches taken, so that the fuzzer sees inside; the targets link the fuzzer itself.
  target_compile_options(qcache_settings INTERFACE -fsanitize=fuzzer-no-link)
endif()

add_library(qcache_warnings INTERFACE)
target_compile_options(
  qcache_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast
                            -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align
                            -Wformat=2 -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(qcache_warnings INTERFACE -Wthread-safety)
endif()
if(QCACHE_SANITIZE)
  # GCC's flow analysis takes the sanitizers' checks for uses of uninitialized values.
  target_compile_options(qcache_warnings INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()
if(QCACHE_DEV)
  target_compile_options(qcache_warnings INTERFACE -Werror)
endif()

# qcache_library(name SOURCES a.cpp ... PUBLIC lib ... PRIVATE lib ...): one layer, one library. How we compile is no
# matter of programs that use an installed one.
function(qcache_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_compile_features(${name} INTERFACE cxx_std_20)
  target_link_libraries(
    ${name}
    PUBLIC $<BUILD_INTERFACE:qcache_settings> ${ARG_PUBLIC}
    PRIVATE $<BUILD_INTERFACE:qcache_warnings> ${ARG_PRIVATE})
endfunction()

# qcache_test(name SOURCES a_test.cpp ... LINK lib ...): one GoogleTest program, each test known to ctest.
function(qcache_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE qcache_settings qcache_warnings ${ARG_LINK} GTest::gmock
                                        GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
endfunction()
