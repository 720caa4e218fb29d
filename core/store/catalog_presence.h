#pragma once

#include <string>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// This process's place among those that have one catalog open, kept in the file `users` in its directory.
///
/// Opening is done one at a time (byte 0 of the file), so that damaged files can be found and moved aside while nobody
/// uses them; and each user holds a shared lock while it is one (byte 1). The bytes after these belong to CatalogLocks.
/// The locks vanish with the process. One thread at a time.
class CatalogPresence {
 public:
  /// Waits for its turn to open; kBusy where another process has kept the turn for 30 s.
  static Result<CatalogPresence> enter(const std::string& directory);

  /// While it is our turn: whether no other process has the catalog open. If so, it stays that way until settle().
  Result<bool> alone();
  /// Ends our turn, as a user.
  Status settle();

  /// The file `users`, for the locks of those who use the catalog; open as long as this lives.
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit CatalogPresence(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace qcache
