#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/hub_cache.h"
#include "core/model/source_identity.h"

namespace qcache {

/// One file of a model while its identity is being captured: open, with the stat it had then.
///
///   QCACHE_TRY_ASSIGN(SourceFile file, SourceFile::open(env, path));
///   ... read from file.fd() ...
///   QCACHE_TRY_ASSIGN(SourceFileIdentity identity, file.finish(env, digest));
///
/// Only regular files are opened, and opening never blocks (a FIFO with a model's name would otherwise hang the
/// mount). One thread.
class SourceFile {
 public:
  /// kNotFound where nothing is there, or a link that leads nowhere; kInvalidModel where it is no regular
  /// file or, inside a hub cache (`hub`), a link out of its repo's folder.
  static Result<SourceFile> open(Env& env, const std::string& path,
                                 const std::optional<HubLocation>& hub = std::nullopt);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const FileStat& stat() const { return stat_; }
  [[nodiscard]] const std::string& path() const { return path_; }

  /// The identity of the file with the digest of what was read; kSourceChanged where the file is no longer as
  /// it was at open.
  Result<SourceFileIdentity> finish(Env& env, const Sha256Digest& digest) const;

 private:
  SourceFile(std::string path, UniqueFd fd, const FileStat& stat)
      : path_(std::move(path)), fd_(std::move(fd)), stat_(stat) {}

  std::string path_;
  UniqueFd fd_;
  FileStat stat_;
};

/// A file read whole, and its state.
struct SmallFile {
  std::string content;
  SourceFileIdentity identity;
  FileStat stat;
};
/// Fails as SourceFile::open and finish do, and with kInvalidModel where the file is larger than `max_bytes`.
Result<SmallFile> read_small_file(Env& env, const std::string& path, uint64_t max_bytes,
                                  const std::optional<HubLocation>& hub = std::nullopt);

}  // namespace qcache
