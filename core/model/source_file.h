#pragma once

#include <string>
#include <utility>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/model/shared_access.h"
#include "core/model/source_identity.h"

namespace qcache {

/// One file of a model while its identity is being captured: open, with the stat it had then.
///
///   QCACHE_TRY_ASSIGN(SourceFile file, folders.open(path));
///   ... read from file.fd() ...
///   QCACHE_TRY_ASSIGN(SourceFileIdentity identity, file.finish(env, digest));
///
/// Only SourceFolders opens them. One thread.
class SourceFile {
 public:
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const FileStat& stat() const { return stat_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const SourceSpot& spot() const { return spot_; }

  /// The identity of the file with the digest of what was read; kSourceChanged where the file is no longer as
  /// it was at open.
  Result<SourceFileIdentity> finish(Env& env, const Sha256Digest& digest) const;

  /// The open file alone.
  [[nodiscard]] UniqueFd take_fd() { return std::move(fd_); }

 private:
  friend class SourceFolders;
  SourceFile(std::string path, UniqueFd fd, const FileStat& stat, SourceSpot spot)
      : path_(std::move(path)), fd_(std::move(fd)), stat_(stat), spot_(std::move(spot)) {}

  std::string path_;
  UniqueFd fd_;
  FileStat stat_;
  SourceSpot spot_;
};

/// A file read whole, and its state.
struct SmallFile {
  std::string content;
  SourceFileIdentity identity;
  SourceSpot spot;
};

}  // namespace qcache
