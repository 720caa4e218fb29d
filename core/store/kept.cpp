#include "core/store/kept.h"

#include <algorithm>
#include <span>
#include <type_traits>

#include "core/base/digest.h"

namespace qcache {
namespace {

// In the byte order of the machine, as all of the map. Zeros in a map that has none.
struct Stored {
  int64_t created_ns;
  int64_t accessed_ns;
  uint64_t hits;
  uint64_t pinned;
  Sha256Digest digest;  ///< of all that precedes it
};
static_assert(std::is_trivially_copyable_v<Stored> && sizeof(Stored) <= kKeptBytes);

Sha256Digest digest_of(const Stored& stored) {
  return sha256(std::as_bytes(std::span(&stored, 1)).first(offsetof(Stored, digest)));
}

}  // namespace

Kept Kept::of(const Record& record) {
  return {record.created_ns, record.accessed_ns, record.hits, record.pinned};
}

void Kept::restore(Record& record) const {
  record.created_ns = created_ns;
  record.accessed_ns = std::max(accessed_ns, record.accessed_ns);
  record.hits = hits;
  record.pinned = pinned;
}

Status write_kept(Env& env, int map_fd, const Kept& kept) {
  Stored stored{kept.created_ns, kept.accessed_ns, kept.hits, kept.pinned ? 1U : 0U, {}};
  stored.digest = digest_of(stored);
  return env.write_at(map_fd, std::as_bytes(std::span(&stored, 1)), kKeptOffset);
}

Result<std::optional<Kept>> read_kept(Env& env, int map_fd) {
  Stored stored{};
  QCACHE_TRY_ASSIGN(const size_t got, env.read_at(map_fd, std::as_writable_bytes(std::span(&stored, 1)), kKeptOffset));
  if (got != sizeof(stored) || stored.digest != digest_of(stored)) {
    return std::optional<Kept>();
  }
  return std::optional(Kept{stored.created_ns, stored.accessed_ns, stored.hits, stored.pinned != 0});
}

}  // namespace qcache
