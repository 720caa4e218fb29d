#include "tests/support/btrfs_disk.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "core/base/unique_fd.h"

namespace qcache {
namespace {

int run(const std::string& command) {
  return std::system((command + " >/dev/null 2>&1").c_str());  // NOLINT(cert-env33-c,concurrency-mt-unsafe)
}

}  // namespace

std::unique_ptr<BtrfsDisk> BtrfsDisk::make(const std::string& image, const std::string& path, std::string& reason) {
  constexpr const char* kSize = "128M";
  if (run("truncate -s " + std::string(kSize) + " '" + image + "' && mkfs.btrfs -q '" + image + "'") != 0) {
    reason = "needs mkfs.btrfs (package btrfs-progs)";
    return nullptr;
  }
  std::filesystem::create_directories(path);
  if (run("mount -o loop '" + image + "' '" + path + "'") != 0) {
    reason = "needs root, loop devices and a kernel with btrfs";
    return nullptr;
  }
  return std::unique_ptr<BtrfsDisk>(new BtrfsDisk(path));
}

BtrfsDisk::~BtrfsDisk() {
  ::umount2(path_.c_str(), MNT_DETACH);
}

void BtrfsDisk::fill() {
  const std::string piece(size_t{1} << 20U, 'x');
  // What was written becomes room again when it has found its place, so one round does not do.
  for (int round = 0; round < 4; ++round) {
    const UniqueFd fd(::open((path_ + "/ballast").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    for (size_t size = piece.size(); size > 0;) {
      size = ::write(fd.get(), piece.data(), size) == static_cast<ssize_t>(size) ? size : size / 2;
    }
    sync();
  }
}

void BtrfsDisk::sync() const {
  const UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ::syncfs(fd.get());
}

void BtrfsDisk::remove_filling() {
  std::filesystem::remove(path_ + "/ballast");
  sync();
}

}  // namespace qcache
