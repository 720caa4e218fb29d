#pragma once

#include <string>
#include <string_view>

namespace qcache {

/// A private directory below $TMPDIR (else /tmp) that is removed with all it holds when the object goes.
/// After a failure of the running test it stays instead, and its path is printed.
///
/// Its path has no links in it. Throws std::runtime_error where the directory cannot be made. One thread.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  /// `dir / "a/b"` is the path of a/b inside.
  [[nodiscard]] std::string operator/(std::string_view name) const;
  /// Leave it behind whatever happens, for a look by hand.
  void keep() { keep_ = true; }

 private:
  std::string path_;
  bool keep_ = false;
};

}  // namespace qcache
