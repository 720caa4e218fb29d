#pragma once

#include <memory>
#include <string>

namespace qcache {

/// A small btrfs of the test's own: a disk that writes whatever changes to another place, so that on a full one not
/// even a file that is all there can be changed. Unmounted when this goes.
class BtrfsDisk {
 public:
  /// Made in the file `image` and mounted on `path`, which is made. Null, and `reason` says why, where that is not to
  /// be had: it needs root, btrfs and its tools.
  static std::unique_ptr<BtrfsDisk> make(const std::string& image, const std::string& path, std::string& reason);
  ~BtrfsDisk();
  BtrfsDisk(const BtrfsDisk&) = delete;
  BtrfsDisk& operator=(const BtrfsDisk&) = delete;

  /// Until nothing can be written any more.
  void fill();
  void remove_filling();
  /// What was removed is room again after this.
  void sync() const;

 private:
  explicit BtrfsDisk(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

}  // namespace qcache
