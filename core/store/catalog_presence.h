#pragma once

#include <string>

#include "core/base/result.h"
#include "core/base/unique_fd.h"

namespace qcache {

/// This process's place among those that have one catalog open, kept in the file `users` in its directory.
///
/// LMDB can fail when one process opens an environment while another opens or closes it, and cannot tell whether
/// anybody else has it open. So opening and closing are done one at a time (byte 0 of the file), and each user holds a
/// shared lock while it is one (byte 1). The locks vanish with the process. One thread at a time.
class CatalogPresence {
 public:
  /// Waits for its turn to open or close; kBusy where another process has kept the turn for 30 s.
  static Result<CatalogPresence> enter(const std::string& directory);

  /// While it is our turn: whether no other process has the catalog open. If so, it stays that way until settle().
  Result<bool> alone();
  /// Ends our turn, as a user.
  Status settle();
  /// Takes the turn again, to close. False where that takes too long: closing without it is only less polite.
  bool begin_leaving();

 private:
  explicit CatalogPresence(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace qcache
