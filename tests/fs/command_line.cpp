#include "tests/fs/command_line.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "tests/fs/file_access.h"
#include "tests/support/mounted_fs.h"
#include "tests/support/test_files.h"

namespace qcache {

Said run(const TempDir& dir, std::vector<std::string> words, std::vector<std::string> launcher) {
  const std::string file = dir / "said";
  std::filesystem::remove(file);
  launcher.push_back(MountedFs::program());
  launcher.insert(launcher.end(), words.begin(), words.end());
  const int status = run_program(launcher, file);
  return {status, std::filesystem::exists(file) ? read_file(file) : ""};
}

std::vector<std::string> after(const std::string& prepare, const std::vector<std::string>& launcher) {
  std::vector<std::string> words = {"unshare", "--mount", "sh", "-c", prepare + " && exec \"$@\"", "sh"};
  words.insert(words.end(), launcher.begin(), launcher.end());
  return words;
}

std::string why_not_as_nobody(const TempDir& dir) {
  std::vector<std::string> probe = kAsNobody;
  probe.insert(probe.end(), {"test", "-x", MountedFs::program()});
  const bool works =
      ::geteuid() == 0 && ::chmod(dir.path().c_str(), 0755) == 0 && run_program(probe, dir / "said") == 0;
  return works ? "" : "needs root, setpriv, and that others may run " + MountedFs::program();
}

testing::AssertionResult ends(const Said& said, int status, const std::string& word) {
  if (said.status != status || said.text.find(word) == std::string::npos) {
    return testing::AssertionFailure() << "status " << said.status << ", said: " << said.text;
  }
  return testing::AssertionSuccess();
}

Sysctl::Sysctl(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
  if (fd_.valid() && ::flock(fd_.get(), LOCK_EX) == 0) {
    before_ = read_at(fd_.get(), 0, 100).bytes;
  }
}

Sysctl::~Sysctl() {
  if (fd_.valid()) {
    EXPECT_TRUE(set(before_));
  }
}

bool Sysctl::set(const std::string& value) const {
  return fd_.valid() && ::pwrite(fd_.get(), value.data(), value.size(), 0) == static_cast<ssize_t>(value.size());
}

}  // namespace qcache
