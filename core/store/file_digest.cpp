#include "core/store/file_digest.h"

#include <algorithm>

#include "core/base/page_buffer.h"

namespace qcache {

Result<std::optional<Sha256Digest>> digest_of_file(Env& env, int fd, uint64_t size_bytes, const KeepGoing& keep_going) {
  constexpr uint64_t kPieceBytes = uint64_t{1} << 20U;
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd));
  if (stat.size_bytes != size_bytes) {
    return std::optional<Sha256Digest>();
  }
  Sha256 hash;
  PageBuffer buffer(std::min(kPieceBytes, size_bytes));
  for (uint64_t done = 0; done < size_bytes;) {
    if (keep_going && !keep_going()) {
      return fail(ErrorKind::kInterrupted, "hashing a cached file was interrupted");
    }
    const std::span<std::byte> piece = std::span(buffer).first(std::min(kPieceBytes, size_bytes - done));
    QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, piece, done));
    if (got != piece.size()) {
      return std::optional<Sha256Digest>();
    }
    hash.update(piece);
    done += got;
  }
  return std::optional(hash.finish());
}

}  // namespace qcache
