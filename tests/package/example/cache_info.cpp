// Tells what a cache directory holds: cache_info DIRECTORY

#include <iostream>

#include "core/qcache.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: cache_info DIRECTORY\n";
    return 2;
  }
  const auto info = qcache::get_cache_info(argv[1]);
  if (!info) {
    std::cerr << "cache_info: " << info.error().message << '\n';
    return 1;
  }
  std::cout << info->file_count << " files, " << info->total_size_bytes << " bytes, " << info->free_bytes << " free\n";
  return 0;
}
