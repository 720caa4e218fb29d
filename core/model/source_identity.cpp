#include "core/model/source_identity.h"

#include <algorithm>
#include <array>

namespace qcache {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kFineGranularityNs = 20'000'000;
constexpr int64_t kCoarseGranularityNs = 2 * kSecondNs;

int64_t granularity_ns(int64_t mtime_ns, int64_t ctime_ns) {
  const bool whole_seconds = mtime_ns % kSecondNs == 0 && ctime_ns % kSecondNs == 0;
  return whole_seconds ? kCoarseGranularityNs : kFineGranularityNs;
}

int64_t granularity_ns(const SourceIdentity& identity) {
  int64_t longest = kFineGranularityNs;
  for (const SourceFileIdentity& file : identity.files) {
    longest = std::max(longest, file.absent() ? 0 : granularity_ns(file.mtime_ns, file.ctime_ns));
  }
  return longest;
}

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
  return inode == now.inode && size_bytes == now.size_bytes && mtime_ns == now.mtime_ns && ctime_ns == now.ctime_ns;
}

Sha256Digest SourceIdentity::digest() const {
  Sha256 hash;
  for (const SourceFileIdentity& file : files) {
    // The length first, so that no path can be taken for the numbers after it.
    add_number(hash, file.path.size());
    hash.update(file.path);
    add_number(hash, file.inode);
    add_number(hash, file.size_bytes);
    add_number(hash, static_cast<uint64_t>(file.mtime_ns));
    add_number(hash, static_cast<uint64_t>(file.ctime_ns));
    hash.update(std::as_bytes(std::span(file.header_digest)));
  }
  return hash.finish();
}

bool SourceIdentity::settled() const {
  return captured_at_ns >= settled_at_ns || capture_began_ns - seen_since_ns >= granularity_ns(*this);
}

int64_t SourceIdentity::settles_in_ns(Env& env) const {
  const int64_t seen = granularity_ns(*this) - (env.monotonic_ns() - seen_since_ns);
  const int64_t by_the_clock = settled_at_ns - env.now_ns();
  return std::max<int64_t>(std::min(seen, by_the_clock), 0);
}

void SourceIdentity::go_on_from(const SourceIdentity& earlier) {
  if (files == earlier.files) {
    seen_since_ns = std::min(seen_since_ns, earlier.seen_since_ns);
  }
}

int64_t settle_time_ns(const FileStat& stat) {
  return std::max(stat.mtime_ns, stat.ctime_ns) + granularity_ns(stat.mtime_ns, stat.ctime_ns);
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
