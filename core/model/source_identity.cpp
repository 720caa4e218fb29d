#include "core/model/source_identity.h"

#include <algorithm>
#include <array>

namespace qcache {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kFineGranularityNs = 20'000'000;
constexpr int64_t kCoarseGranularityNs = 2 * kSecondNs;

void add_number(Sha256& hash, uint64_t value) {
  std::array<std::byte, sizeof value> bytes{};
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(value);
    value >>= 8;
  }
  hash.update(bytes);
}

}  // namespace

bool SourceFileIdentity::matches(const FileStat& now) const {
  return device == now.device && inode == now.inode && size_bytes == now.size_bytes && mtime_ns == now.mtime_ns &&
         ctime_ns == now.ctime_ns;
}

Sha256Digest SourceIdentity::digest() const {
  Sha256 hash;
  for (const SourceFileIdentity& file : files) {
    // The length first, so that no path can be taken for the numbers after it.
    add_number(hash, file.path.size());
    hash.update(file.path);
    add_number(hash, file.device);
    add_number(hash, file.inode);
    add_number(hash, file.size_bytes);
    add_number(hash, static_cast<uint64_t>(file.mtime_ns));
    add_number(hash, static_cast<uint64_t>(file.ctime_ns));
    hash.update(std::as_bytes(std::span(file.header_digest)));
  }
  return hash.finish();
}

int64_t settle_time_ns(const FileStat& stat) {
  const bool whole_seconds = stat.mtime_ns % kSecondNs == 0 && stat.ctime_ns % kSecondNs == 0;
  return std::max(stat.mtime_ns, stat.ctime_ns) + (whole_seconds ? kCoarseGranularityNs : kFineGranularityNs);
}

Status check_unchanged(Env& env, const SourceIdentity& identity) {
  for (const SourceFileIdentity& file : identity.files) {
    const auto now = env.stat(file.path);
    if (!now && now.error().kind != ErrorKind::kNotFound) {
      return fail(now.error());
    }
    if (now.has_value() == file.absent()) {
      return fail(ErrorKind::kSourceChanged,
                  file.path + (now ? " is new since the model was read" : " is gone since the model was read"));
    }
    if (now && !file.matches(*now)) {
      return fail(ErrorKind::kSourceChanged, file.path + " changed since the model was read");
    }
  }
  return {};
}

}  // namespace qcache
