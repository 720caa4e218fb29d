#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/result.h"
#include "core/base/unique_fd.h"
#include "core/model/shared_access.h"
#include "core/model/source_file.h"

namespace qcache {

/// A file or folder, held by an O_PATH descriptor: it can be neither exchanged nor read.
struct SourcePlace {
  UniqueFd fd;
  std::string real;  ///< where it lay when it was looked at, links resolved
  FileStat stat;
};

/// The folders that models may be read from, and the one way to open what lies in them.
///
/// Models belong to strangers, who may exchange files, folders and links at any moment, with a daemon that may read
/// everything. So a name is resolved once, by opening it with O_PATH, which neither reads nor waits (a FIFO, a device,
/// a file on lease); where that descriptor really leads is compared with the folders; and what is read is the file of
/// that descriptor, whatever its name means by then. A link is followed as long as it leads into the folders: this rule
/// holds for every file of a model. Only regular files are opened, and never so that opening could block.
///
/// Errors of all functions: kNotFound where nothing is there, or a link leads nowhere; kInvalidModel where it lies
/// outside the folders, with a sentence that says what to do; kSourceChanged where it was replaced over and over.
/// Needs /proc. Copies are cheap. Thread-safe.
class SourceFolders {
 public:
  /// `roots`: absolute, links resolved (resolve_folders()). Of a root inside a snapshot of a hub cache the whole repo
  /// may be read, as the files of snapshots are links into it.
  SourceFolders(Env& env, std::vector<std::string> roots);

  /// The same for the files of one model: in a hub cache those of its repo only. `path`: absolute, links resolved.
  [[nodiscard]] SourceFolders of_model(const std::string& path) const;

  [[nodiscard]] Result<SourcePlace> look(const std::string& path) const;
  /// What is called `name`, one word, in that folder.
  [[nodiscard]] Result<SourcePlace> look_in(const SourcePlace& folder, const std::string& name) const;

  /// kInvalidModel also where it is no regular file.
  [[nodiscard]] Result<SourceFile> open(const std::string& path) const;
  /// The same for what was looked at; `path` is how it is called in messages and in the identity.
  [[nodiscard]] Result<SourceFile> open(const SourcePlace& place, const std::string& path) const;

  /// A file read whole. As open(), SourceFile::finish(), and kInvalidModel where it is larger than `max_bytes`.
  [[nodiscard]] Result<SmallFile> read(const std::string& path, uint64_t max_bytes) const;
  [[nodiscard]] Result<SmallFile> read(const SourcePlace& place, const std::string& path, uint64_t max_bytes) const;

  /// The names in a folder, in no particular order.
  [[nodiscard]] Result<std::vector<std::string>> list(const std::string& path) const;
  [[nodiscard]] Result<std::vector<std::string>> list(const SourcePlace& folder) const;

  /// What others than the owner may do with files or folders that were looked at, all of them and the folders they lie
  /// in, as far as those lie below the roots: the roots themselves are what whoever mounts them means to show.
  [[nodiscard]] SharedAccess access(const std::vector<SourceSpot>& spots) const;

  /// Where files may lie.
  [[nodiscard]] const std::vector<std::string>& folders() const { return folders_; }

 private:
  [[nodiscard]] Result<SourcePlace> look_at(const std::string& opened_as, const std::string& path) const;
  [[nodiscard]] bool contains(std::string_view real) const;
  [[nodiscard]] size_t root_bytes(std::string_view real) const;

  Env* env_;
  std::vector<std::string> roots_;
  std::vector<std::string> folders_;
  bool hub_repo_ = false;  // folders_ is the repo of one model
};

/// The folders with links resolved; one that does not exist stays as it is, as nothing lies in it.
[[nodiscard]] std::vector<std::string> resolve_folders(Env& env, const std::vector<std::string>& folders);

}  // namespace qcache
