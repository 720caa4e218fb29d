#include "fs/control_files.h"

#include <unistd.h>

#include <array>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/units.h"

namespace qcache {
namespace {

struct Counter {
  std::string_view name;
  std::string_view help;
  uint64_t value;
  bool gauge;
};

std::vector<Counter> counters(Engine& engine) {
  const Stats& stats = engine.stats();
  const CacheUse cache = engine.cache_use().value_or(CacheUse{});
  const SpaceInfo space = engine.space().value_or(SpaceInfo{});
  return {
      {"tiles_quantized", "Tiles made since the mount started.", stats.tiles_quantized, false},
      {"bytes_quantized", "Bytes of quantized files made since the mount started.", stats.bytes_quantized, false},
      {"source_bytes_read", "Tensor bytes read from models since the mount started.", stats.source_bytes_read, false},
      {"tiles_verified", "Tiles checked because another run had made them.", stats.tiles_verified, false},
      {"tiles_rejected", "Tiles whose bytes on disk were wrong and that were made again.", stats.tiles_rejected, false},
      {"sealed_since_start", "Files completed since the mount started.", stats.files_sealed, false},
      {"opens_sealed", "Opens of complete files.", stats.opens_sealed, false},
      {"opens_filling", "Opens of files being made.", stats.opens_filling, false},
      {"reads", "Reads that reached the daemon.", stats.reads, false},
      {"read_errors", "Reads that failed.", stats.read_errors, false},
      {"files_filling", "Files being made in the cache directory.", cache.filling_files, true},
      {"files_sealed", "Complete files in the cache directory.", cache.sealed_files, true},
      {"cache_bytes", "Bytes that cached files occupy on disk.", cache.disk_bytes, true},
      {"free_bytes", "Bytes free on the cache directory's filesystem.", space.available_bytes, true},
  };
}

}  // namespace

ControlFiles::ControlFiles(Engine& engine, std::string mount_point)
    : engine_(engine), mount_point_(std::move(mount_point)), started_ns_(engine.now_ns()) {}

std::span<const ControlFiles::File> ControlFiles::all() {
  static constexpr std::array<File, 3> kAll = {File{"status", &ControlFiles::status},
                                               File{"metrics", &ControlFiles::metrics},
                                               File{"errors", &ControlFiles::errors}};
  return kAll;
}

std::string ControlFiles::status() const {
  // Written by hand because of the padding; strings still go through the JSON library.
  const auto quoted = [](const std::string& text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  };
  std::string out = "{\n";
  out += fmt::format("  \"version\": {},\n", quoted(QCACHE_VERSION));
  out += fmt::format("  \"pid\": {:>20},\n", ::getpid());
  out += fmt::format("  \"mount_point\": {},\n", quoted(mount_point_));
  out += fmt::format("  \"cache_dir\": {},\n", quoted(engine_.cache_directory()));
  out += fmt::format("  \"models\": {},\n",
                     nlohmann::json(engine_.roots()).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  out += fmt::format("  \"started\": {},\n", quoted(format_time(started_ns_)));
  for (const Counter& counter : counters(engine_)) {
    out += fmt::format("  \"{}\": {:>20},\n", counter.name, counter.value);
  }
  const std::optional<uint64_t> max_size = engine_.max_size();
  out += fmt::format("  \"max_size\": {},\n", max_size ? fmt::format("{}", *max_size) : "null");
  const PassthroughState passthrough = passthrough_;
  out += fmt::format("  \"passthrough_state\": {:>15},\n", quoted(std::string(to_string(passthrough))));
  out += fmt::format("  \"passthrough\": {:>5}\n}}\n", passthrough == PassthroughState::kWorks);
  return out;
}

std::string ControlFiles::metrics() const {
  std::string out;
  for (const Counter& counter : counters(engine_)) {
    const std::string_view suffix = counter.gauge ? "" : "_total";
    out += fmt::format("# HELP qcache_{0}{1} {2}\n# TYPE qcache_{0}{1} {3}\nqcache_{0}{1} {4:>20}\n", counter.name,
                       suffix, counter.help, counter.gauge ? "gauge" : "counter", counter.value);
  }
  return out;
}

std::string ControlFiles::errors() const {
  std::string out;
  for (const ErrorEntry& entry : engine_.errors()) {
    const std::string times = entry.count > 1 ? fmt::format(" ({} times)", entry.count) : "";
    out += fmt::format("{} {}: {}{} [{}]\n", format_time(entry.last_ns), entry.subject, entry.error.message, times,
                       to_string(entry.error.kind));
  }
  return out;
}

}  // namespace qcache
