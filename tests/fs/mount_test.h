#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/fs/file_access.h"
#include "tests/support/expected_file.h"
#include "tests/support/model_builder.h"
#include "tests/support/mounted_fs.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {

/// A test on a real mount of private folders; skipped, with the reason, where mounts are not to be had. Afterwards
/// every daemon that still runs must end with status 0 and leave nothing mounted.
///
/// Each test is run twice, with passthrough and without it (MountedFs::passthrough_wanted()).
class MountTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  /// Mounts models() on mnt/. `options` are more words for `qcache mount`.
  MountedFs& mount(std::vector<std::string> options = {});
  /// One more mount: on `name`/, with its own log; by default of the same models on the same cache directory.
  MountedFs& mount_as(const std::string& name, std::vector<std::string> options = {});
  [[nodiscard]] MountedFs::Setup setup(const std::string& name, std::vector<std::string> options = {}) const;

  [[nodiscard]] std::string models() const { return dir_ / "models"; }
  [[nodiscard]] std::string model(const std::string& name) const { return models() + '/' + name; }
  [[nodiscard]] std::string cache() const { return dir_ / "cache"; }
  [[nodiscard]] const TempDir& dir() const { return dir_; }
  /// The one file in filling/ that ends with `suffix` (".map", ".bin").
  [[nodiscard]] std::string only_filling_file(std::string_view suffix) const;

 private:
  const TempDir dir_;
  std::vector<std::unique_ptr<MountedFs>> mounts_;
};

/// A filesystem of the test's own on a new folder. Throws where it cannot be mounted.
class OwnFilesystem {
 public:
  OwnFilesystem(std::string path, const std::string& type, const std::string& options, unsigned long flags = 0);
  ~OwnFilesystem();
  OwnFilesystem(const OwnFilesystem&) = delete;
  OwnFilesystem& operator=(const OwnFilesystem&) = delete;

 private:
  const std::string path_;
};

/// Reads a file to its end and waits until it is sealed.
void complete(const MountedFs& fs, const std::string& file);

/// A few KiB with every kind of tensor: several dtypes, odd sizes, an empty one, a scalar.
[[nodiscard]] ModelBuilder small_model(uint64_t seed = 1);
/// 16 MiB in one tensor and a bit: several tiles in every dtype.
[[nodiscard]] ModelBuilder tiled_model(uint64_t seed = 1);
/// Zeros without end (`gigabytes` of bf16), which take no disk space; the last of its two tensors holds a 16th.
[[nodiscard]] ModelBuilder huge_model(uint64_t gigabytes);

/// Every dtype of the mount.
[[nodiscard]] std::vector<std::string> all_dtypes();

/// Under the sanitizers memory and times say nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace qcache
