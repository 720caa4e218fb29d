# What we build on. Debian 12 names: README.md, "Set-up".
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL 3 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(spdlog 1.10 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2 REQUIRED)
find_package(tl-expected REQUIRED)
find_package(GTest)
find_package(benchmark)
pkg_check_modules(LMDB REQUIRED IMPORTED_TARGET lmdb)
pkg_check_modules(DEFLATE REQUIRED IMPORTED_TARGET libdeflate)

# Its headers only (core/quant/simd_dispatch.h).
pkg_check_modules(HWY REQUIRED libhwy)
add_library(qcache_highway INTERFACE)
target_include_directories(qcache_highway SYSTEM INTERFACE ${HWY_INCLUDE_DIRS})
target_compile_options(qcache_highway INTERFACE ${HWY_CFLAGS_OTHER})

if(QCACHE_TORCH)
  # Debian's, or that of a Python wheel: -DTorch_DIR=<site-packages>/torch/share/cmake/Torch.
  find_package(Torch REQUIRED)
endif()

# tools/setup builds libfuse into this prefix where the system's is too old for passthrough.
set(QCACHE_FUSE_PREFIX "${PROJECT_SOURCE_DIR}/build/libfuse" CACHE PATH "Where tools/setup put libfuse")
if(EXISTS ${QCACHE_FUSE_PREFIX})
  file(GLOB_RECURSE fuse_pc ${QCACHE_FUSE_PREFIX}/*/fuse3.pc)
  if(fuse_pc)
    list(GET fuse_pc 0 fuse_pc)
    cmake_path(GET fuse_pc PARENT_PATH fuse_pc_dir)
    set(ENV{PKG_CONFIG_PATH} "${fuse_pc_dir}:$ENV{PKG_CONFIG_PATH}")
  endif()
endif()
pkg_check_modules(FUSE3 REQUIRED IMPORTED_TARGET "fuse3>=3.14")
if(FUSE3_VERSION VERSION_LESS QCACHE_FUSE_MINIMUM)
  message(WARNING "libfuse ${FUSE3_VERSION} has no usable passthrough (needs ${QCACHE_FUSE_MINIMUM}); "
                  "sealed files will be served through the page cache. tools/setup builds a newer one.")
endif()
