#include "core/model/source_folders.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "core/model/hub_cache.h"

namespace qcache {
namespace {

// `folder` is "/", or has no slash at its end.
bool lies_within(std::string_view real, std::string_view folder) {
  return folder == "/" || (real.starts_with(folder) && (real.size() == folder.size() || real[folder.size()] == '/'));
}

std::string by_descriptor(const UniqueFd& fd) {
  return "/proc/self/fd/" + std::to_string(fd.get());
}

// A failure of a call that was given a descriptor's name, told of the file.
Error told_of(const Error& error, std::string_view verb, const std::string& path) {
  return error.sys_errno == 0 ? error : system_error(error.sys_errno, fmt::format("cannot {} {}", verb, path));
}

tl::unexpected<Error> replaced(const std::string& path) {
  return fail(ErrorKind::kSourceChanged, path + " was replaced while it was opened");
}

std::string readable_part(const std::string& root) {
  const auto hub = hub_location(root + "/x");  // a root may be the folder of all snapshots
  return hub ? hub->repo_folder : root;
}

}  // namespace

SourceFolders::SourceFolders(Env& env, std::vector<std::string> roots) : env_(&env), roots_(std::move(roots)) {
  folders_.reserve(roots_.size());
  for (const std::string& root : roots_) {
    folders_.push_back(readable_part(root));
  }
}

SourceFolders SourceFolders::of_model(const std::string& path) const {
  SourceFolders out = *this;
  const auto hub = hub_location(path);
  if (hub && contains(hub->repo_folder)) {
    out.folders_ = {hub->repo_folder};
    out.hub_repo_ = true;
  }
  return out;
}

bool SourceFolders::contains(std::string_view real) const {
  return std::any_of(folders_.begin(), folders_.end(),
                     [&](const std::string& folder) { return lies_within(real, folder); });
}

Result<SourcePlace> SourceFolders::look(const std::string& path) const {
  return look_at(path, path);
}

Result<SourcePlace> SourceFolders::look_in(const SourcePlace& folder, const std::string& name) const {
  const std::string opened_as = by_descriptor(folder.fd) + '/' + name;
  std::string path = folder.real + '/' + name;
  auto fd = env_->open(opened_as, O_PATH | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) {
    return fail(told_of(fd.error(), "open", path));
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env_->stat(fd->get()));
  if (S_ISLNK(stat.mode)) {
    return look_at(opened_as, path);
  }
  return SourcePlace{std::move(*fd), std::move(path), stat};  // no link on the way: it lies in that folder
}

Result<SourcePlace> SourceFolders::look_at(const std::string& opened_as, const std::string& path) const {
  // A file that is replaced by rename() may have lost its name before we ask for it.
  constexpr int kAttempts = 5;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    auto fd = env_->open(opened_as, O_PATH | O_NONBLOCK);
    if (!fd) {
      return fail(told_of(fd.error(), "open", path));
    }
    auto real = env_->path_of(fd->get());
    if (!real && real.error().kind == ErrorKind::kNotFound) {
      continue;
    }
    if (!real) {
      return fail(std::move(real).error());
    }
    if (!contains(*real)) {
      return fail(
          ErrorKind::kInvalidModel,
          fmt::format("{} is a link to {}, which is outside {}: qcache does not follow it ({}put the files themselves "
                      "there)",
                      path, *real, fmt::join(folders_, ", "), hub_repo_ ? "" : "mount that folder too, or "));
    }
    QCACHE_TRY_ASSIGN(const FileStat stat, env_->stat(fd->get()));
    return SourcePlace{std::move(*fd), std::move(*real), stat};
  }
  return replaced(path);
}

Result<SourceFile> SourceFolders::open(const std::string& path) const {
  QCACHE_TRY_ASSIGN(const SourcePlace place, look(path));
  return open(place, path);
}

Result<SourceFile> SourceFolders::open(const SourcePlace& place, const std::string& path) const {
  if (!place.stat.is_regular()) {
    return fail(ErrorKind::kInvalidModel, path + " is not a regular file");
  }
  auto fd = env_->open(by_descriptor(place.fd), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!fd) {
    return fd.error().kind == ErrorKind::kNotFound ? replaced(path) : fail(told_of(fd.error(), "open", path));
  }
  QCACHE_TRY_ASSIGN(const FileStat stat, env_->stat(fd->get()));
  if (stat.device != place.stat.device || stat.inode != place.stat.inode || !stat.is_regular()) {
    return replaced(path);
  }
  return SourceFile(path, std::move(*fd), stat, SourceSpot{place.real, stat.mode, stat.gid});
}

Result<SmallFile> SourceFolders::read(const std::string& path, uint64_t max_bytes) const {
  QCACHE_TRY_ASSIGN(const SourcePlace place, look(path));
  return read(place, path, max_bytes);
}

Result<SmallFile> SourceFolders::read(const SourcePlace& place, const std::string& path, uint64_t max_bytes) const {
  QCACHE_TRY_ASSIGN(const SourceFile file, open(place, path));
  const uint64_t size = file.stat().size_bytes;
  if (size > max_bytes) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("{} has {} bytes, more than the {} that qcache reads", path, size, max_bytes));
  }
  SmallFile out;
  out.spot = file.spot();
  out.content.resize(size);
  const auto bytes = std::as_writable_bytes(std::span(out.content));
  QCACHE_TRY_ASSIGN(const size_t done, env_->read_at(file.fd(), bytes, 0));
  if (done != size) {
    return fail(ErrorKind::kSourceChanged, path + " became shorter while it was read");
  }
  QCACHE_TRY_ASSIGN(out.identity, file.finish(*env_, sha256(bytes)));
  return out;
}

Result<std::vector<std::string>> SourceFolders::list(const std::string& path) const {
  QCACHE_TRY_ASSIGN(const SourcePlace folder, look(path));
  auto names = list(folder);
  if (!names) {
    return fail(told_of(names.error(), "list", path));
  }
  return names;
}

Result<std::vector<std::string>> SourceFolders::list(const SourcePlace& folder) const {
  auto names = env_->list(by_descriptor(folder.fd));
  if (!names) {
    return fail(told_of(names.error(), "list", folder.real));
  }
  return names;
}

size_t SourceFolders::root_bytes(std::string_view real) const {
  size_t longest = 0;
  for (const auto* const places : {&roots_, &folders_}) {
    for (const std::string& root : *places) {
      if (lies_within(real, root)) {
        longest = std::max(longest, root.size());
      }
    }
  }
  return longest;
}

SharedAccess SourceFolders::access(const std::vector<SourceSpot>& spots) const {
  std::set<std::string> passed;
  std::vector<AccessBits> things;
  for (const SourceSpot& spot : spots) {
    const size_t root = root_bytes(spot.real);
    constexpr mode_t kEverything = 0777;
    things.push_back({root == spot.real.size() ? kEverything : spot.mode, spot.gid});
    for (size_t slash = spot.real.rfind('/'); slash != std::string::npos && slash > root;
         slash = spot.real.rfind('/', slash - 1)) {
      if (!passed.insert(spot.real.substr(0, slash)).second) {
        break;  // and so are those above it
      }
    }
  }
  std::vector<AccessBits> folders;
  for (const std::string& folder : passed) {
    const auto stat = env_->stat(folder);
    folders.push_back(stat ? AccessBits{stat->mode, stat->gid} : AccessBits{});  // what cannot be asked forbids
  }
  return shared_access(folders, things);
}

std::vector<std::string> resolve_folders(Env& env, const std::vector<std::string>& folders) {
  std::vector<std::string> out;
  out.reserve(folders.size());
  for (const std::string& folder : folders) {
    out.push_back(env.real_path(folder).value_or(folder));
  }
  return out;
}

}  // namespace qcache
