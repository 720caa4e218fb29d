#pragma once

#include <atomic>
#include <cstdint>

namespace qcache {

/// What the engine has done since it started. Each counter only grows. Thread-safe; readers may see one counter ahead
/// of another.
struct Stats {
  std::atomic<uint64_t> tiles_quantized{0};
  std::atomic<uint64_t> bytes_quantized{0};    ///< bytes that tiles made
  std::atomic<uint64_t> source_bytes_read{0};  ///< tensor bytes; headers do not count
  std::atomic<uint64_t> tiles_verified{0};     ///< checked because this process had not made them
  std::atomic<uint64_t> tiles_rejected{0};     ///< whose bytes were not those of their mark: made again
  std::atomic<uint64_t> files_sealed{0};
  std::atomic<uint64_t> opens_sealed{0};
  std::atomic<uint64_t> opens_filling{0};
  std::atomic<uint64_t> reads{0};  ///< that reached the daemon
  std::atomic<uint64_t> read_errors{0};
};

/// What lies in a cache directory, of all its mounts together.
struct CacheUse {
  uint64_t filling_files = 0;
  uint64_t sealed_files = 0;
  uint64_t disk_bytes = 0;
};

}  // namespace qcache
