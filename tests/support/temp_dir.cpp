#include "tests/support/temp_dir.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <system_error>

namespace qcache {
namespace fs = std::filesystem;

namespace {

// A test may have taken permissions away from what it made; give them back, or nothing can be removed.
void make_removable(const fs::path& root) {
  std::error_code ignored;
  fs::permissions(root, fs::perms::owner_all, fs::perm_options::add, ignored);
  for (fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, ignored), end;
       it != end; it.increment(ignored)) {
    if (it->is_directory(ignored) && !it->is_symlink(ignored)) {
      fs::permissions(it->path(), fs::perms::owner_all, fs::perm_options::add, ignored);
    }
  }
}

}  // namespace

TempDir::TempDir() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): tests do not change the environment from threads.
  const char* const base = std::getenv("TMPDIR");
  std::string path = fs::canonical(base != nullptr && *base != '\0' ? base : "/tmp") / "qcache-test-XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    throw std::runtime_error("cannot make a directory like " + path);
  }
  path_ = std::move(path);
}

TempDir::~TempDir() {
  if (keep_ || ::testing::Test::HasFailure()) {
    std::fprintf(stderr, "Test data has been left in %s\n", path_.c_str());
    return;
  }
  make_removable(path_);
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string TempDir::operator/(std::string_view name) const {
  return path_ + '/' + std::string(name);
}

}  // namespace qcache
