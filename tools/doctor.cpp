#include "tools/doctor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "core/base/mount_info.h"
#include "core/base/units.h"
#include "core/engine/factor_workers.h"
#include "fs/libfuse_version.h"
#include "fs/request_timeout.h"
#include "tools/cache_choice.h"
#include "tools/user_allow_other.h"

namespace qcache {
namespace {

// --- looking

std::string reason_of(int error) {
  return std::generic_category().message(error);
}

// proc_pid_status(5): the effective capabilities, in hexadecimal.
bool may_administer(Env& env) {
  constexpr unsigned kSysAdmin = 21;  // CAP_SYS_ADMIN of linux/capability.h
  constexpr std::string_view kLabel = "CapEff:\t";
  const std::string status = read_text(env, "/proc/self/status").value_or("");
  const size_t begin = status.find(kLabel);
  uint64_t capabilities = 0;
  if (begin != std::string::npos) {
    constexpr int kHexadecimal = 16;
    std::from_chars(status.data() + begin + kLabel.size(), status.data() + status.size(), capabilities, kHexadecimal);
  }
  return (capabilities >> kSysAdmin & 1U) != 0;
}

std::string find_program(const std::string& name) {
  const char* const variable = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody sets variables
  // libfuse looks where programs are usually, whatever PATH says.
  const std::string folders = fmt::format("{}:/usr/local/bin:/usr/bin:/bin", variable == nullptr ? "" : variable);
  std::string_view path = folders;
  while (!path.empty()) {
    const std::string_view folder = path.substr(0, path.find(':'));
    path.remove_prefix(std::min(folder.size() + 1, path.size()));
    std::string program = fmt::format("{}/{}", folder, name);
    if (::access(program.c_str(), X_OK) == 0) {
      return program;
    }
  }
  return "";
}

std::string nearest_existing(Env& env, const std::string& path) {
  std::error_code ignored;
  std::filesystem::path place = std::filesystem::absolute(path, ignored).lexically_normal();
  while (place.has_relative_path() && !env.stat(place.string())) {
    place = place.parent_path();
  }
  return env.real_path(place.string()).value_or(place.string());
}

std::string filesystem_of(Env& env, const std::string& real) {
  const std::vector<MountEntry> mounts = parse_mount_info(read_mount_info(env).value_or(""));
  const MountEntry* best = nullptr;
  for (const MountEntry& mount : mounts) {
    if (lies_within(real, mount.mount_point) &&
        (best == nullptr || mount.mount_point.size() >= best->mount_point.size())) {
      best = &mount;
    }
  }
  return best == nullptr ? "" : best->type;
}

// The first path of a cache directory that belongs to another user than `user`.
std::optional<std::pair<std::string, uint32_t>> owned_by_other(Env& env, const std::string& directory, uint32_t user) {
  std::vector<std::string> paths = {directory};
  for (const char* folder : {"/index", "/filling", ""}) {
    const std::string place = directory + folder;
    paths.push_back(place);
    const auto names = env.list(place);
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      paths.push_back(fmt::format("{}/{}", place, name));
    }
  }
  for (const std::string& path : paths) {
    if (const auto stat = env.stat(path); stat && stat->uid != user) {
      return std::pair(path, stat->uid);
    }
  }
  return std::nullopt;
}

CacheFacts look_at_cache(Env& env, const std::string& directory, uint32_t user) {
  CacheFacts cache;
  cache.directory = directory;
  cache.exists = env.stat(directory).has_value();
  const std::string place = nearest_existing(env, directory);
  cache.filesystem = filesystem_of(env, place);
  if (const auto space = env.space(place)) {
    cache.free_bytes = space->available_bytes;
    cache.total_bytes = space->total_bytes;
  }
  const auto stat = env.stat(place);
  static constexpr std::array kOfTheKernel = {"proc", "sysfs", "cgroup2", "debugfs", "tracefs"};
  if (stat && !stat->is_directory()) {
    cache.not_writable = place + " is not a folder";
  } else if (std::find(kOfTheKernel.begin(), kOfTheKernel.end(), cache.filesystem) != kOfTheKernel.end()) {
    cache.not_writable = fmt::format("{} is the kernel's ({})", place, cache.filesystem);
  } else if (::faccessat(AT_FDCWD, place.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    cache.not_writable = fmt::format("{}: {}", place, reason_of(errno));
  }
  if (!cache.exists) {
    return cache;
  }
  if (auto other = owned_by_other(env, directory, user)) {
    cache.owner = other->second;
    cache.owned_by_other = std::move(other->first);
  }
  const auto store = open_cache(env, directory);
  if (!store && store.error().kind != ErrorKind::kNotFound) {
    cache.problem = store.error().message;
  }
  return cache;
}

// --- judging

// "6.18.1-amd64" -> 6, 18.
std::pair<int, int> kernel_version(const std::string& release) {
  std::pair<int, int> version;
  const char* const end = release.data() + release.size();
  const auto major = std::from_chars(release.data(), end, version.first);
  if (major.ec == std::errc() && major.ptr != end) {
    std::from_chars(major.ptr + 1, end, version.second);
  }
  return version;
}

Finding judge_fuse_device(const Machine& machine) {
  if (machine.fuse_device.empty()) {
    return {Health::kGood, "/dev/fuse", "can be opened", ""};
  }
  return {Health::kProblem, "/dev/fuse", "cannot be opened: " + machine.fuse_device,
          machine.fuse_device_is_there
              ? "let users open it (sudo chmod 666 /dev/fuse), in a container with --cap-add SYS_ADMIN"
              : "load the module (modprobe fuse), in a container pass --device /dev/fuse --cap-add SYS_ADMIN"};
}

Finding judge_fusermount(const Machine& machine) {
  if (!machine.fusermount.empty() && !machine.fusermount_is_setuid) {
    return {machine.is_admin ? Health::kNote : Health::kProblem, "fusermount3",
            machine.fusermount + " is not setuid root, so users cannot mount by it",
            "install it anew: apt-get install --reinstall fuse3"};
  }
  if (!machine.fusermount.empty()) {
    return {Health::kGood, "fusermount3", machine.fusermount, ""};
  }
  const Health health = machine.is_admin ? Health::kNote : Health::kProblem;
  return {health, "fusermount3", "not found; users without privileges mount by it",
          "install it: apt-get install fuse3 (root does without)"};
}

Finding judge_privileges(const Machine& machine) {
  if (machine.is_admin) {
    return {Health::kGood, "privileges", "may mount by itself (CAP_SYS_ADMIN)", ""};
  }
  return {Health::kNote, "privileges",
          fmt::format("user {} mounts by fusermount3, and without passthrough", machine.user),
          "for passthrough let root mount, at boot or as a service, with --allow-other"};
}

Finding judge_libfuse(const Machine& machine) {
  if (machine.built_with_passthrough) {
    return {Health::kGood, "libfuse", machine.libfuse, ""};
  }
  return {Health::kWarning, "libfuse", machine.libfuse + " is too old for passthrough, which needs 3.17.4",
          "build qcache with tools/setup, which brings a newer one"};
}

Finding judge_passthrough(const Machine& machine) {
  constexpr std::pair kFirstKernel(6, 9);
  const std::string slower = "complete files are served through the page cache, and by the daemon at first";
  if (kernel_version(machine.kernel) < kFirstKernel) {
    return {Health::kWarning, "passthrough", fmt::format("Linux {} has none: {}", machine.kernel, slower),
            "it comes with Linux 6.9"};
  }
  if (!machine.built_with_passthrough || !machine.is_admin) {
    return {Health::kNote, "passthrough", "not to be had: " + slower, "see libfuse and privileges"};
  }
  if (std::any_of(machine.caches.begin(), machine.caches.end(),
                  [](const CacheFacts& cache) { return cache.filesystem == "overlay"; })) {
    return {Health::kWarning, "passthrough", "the kernel refuses it for files on overlayfs: " + slower,
            "choose a cache directory on a disk (in a container: on a volume)"};
  }
  return {Health::kGood, "passthrough", fmt::format("can be had on Linux {}", machine.kernel), ""};
}

Finding judge_allow_other(const Machine& machine) {
  if (machine.user_allow_other || machine.user == 0) {
    return {Health::kGood, "allow_other",
            machine.user_allow_other ? "users may let others in (/etc/fuse.conf)" : "root may let others in", ""};
  }
  return {Health::kWarning, "allow_other", "users may not let others in: /etc/fuse.conf has no line user_allow_other",
          "add that line (root) for mounts with --allow-other"};
}

Finding judge_timeouts(const Machine& machine) {
  if (!is_short_request_timeout(machine.request_timeout_s)) {
    return {Health::kGood, "timeouts", "the kernel waits for slow reads", ""};
  }
  return {Health::kWarning, "timeouts",
          fmt::format("the kernel ends a mount whose read takes longer than {} s", machine.request_timeout_s),
          "sysctl fs.fuse.max_request_timeout=0 fs.fuse.default_request_timeout=0"};
}

Finding judge_mounts(const Machine& machine) {
  if (!machine.dead_mounts.empty()) {
    return {Health::kProblem, "mounts",
            fmt::format("a stale mount: the daemon of {} is dead, and every access fails", machine.dead_mounts[0]),
            fmt::format("qcache unmount {}", machine.dead_mounts[0])};
  }
  if (!machine.silent_mounts.empty()) {
    return {Health::kProblem, "mounts", machine.silent_mounts[0] + " does not answer",
            "let its daemon (pgrep -af qcache) go on with kill -CONT, or end it with kill -KILL and unmount it"};
  }
  return {Health::kGood, "mounts", "none is dead", ""};
}

Finding judge_worker(const Machine& machine) {
  if (!machine.worker.empty()) {
    return {Health::kGood, "qcache-worker", machine.worker, ""};
  }
  return {Health::kNote, "qcache-worker", "not found: ranks above 0 cannot be made",
          "install all of qcache, built with libtorch"};
}

Finding judge_cache_owner(const CacheFacts& cache, uint32_t user) {
  constexpr const char* kSubject = "cache owner";
  if (!cache.owner) {
    return {Health::kGood, kSubject, cache.exists ? fmt::format("user {}", user) : "not made yet, by the first mount",
            ""};
  }
  const std::string text = fmt::format("{} belongs to user {}, not to {}", cache.owned_by_other, *cache.owner, user);
  return user == 0 ? Finding{Health::kWarning, kSubject, text,
                             "name root's own directory with --cache-dir, or what is made there will be root's"}
                   : Finding{Health::kProblem, kSubject, text,
                             fmt::format("give it back (sudo chown -R {} {}), or choose another with --cache-dir", user,
                                         cache.directory)};
}

Finding judge_cache_writing(const CacheFacts& cache) {
  constexpr const char* kSubject = "cache";
  const std::string choose = "choose another with --cache-dir or QWEN_CACHE, or let this user write there";
  if (!cache.not_writable.empty()) {
    return {Health::kProblem, kSubject, fmt::format("{} is not writable ({})", cache.directory, cache.not_writable),
            choose};
  }
  if (!cache.problem.empty()) {
    return {Health::kProblem, kSubject, cache.problem, choose};
  }
  return {Health::kGood, kSubject, cache.directory + " can be used", ""};
}

Finding judge_cache_filesystem(const CacheFacts& cache) {
  static constexpr std::array kRemote = {"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "lustre"};
  const std::string& type = cache.filesystem;
  const bool is_remote = type.starts_with("fuse.") || std::find(kRemote.begin(), kRemote.end(), type) != kRemote.end();
  if (type == "overlay") {
    return {Health::kWarning, "cache filesystem", "overlayfs: complete files are served less quickly",
            "choose a cache directory on a disk (in a container: on a volume)"};
  }
  if (is_remote) {
    return {Health::kWarning, "cache filesystem",
            type + " is on another machine or a process's: the catalog's locks and mappings are for one machine",
            "choose a local disk, for each machine its own"};
  }
  if (type == "tmpfs" || type == "ramfs") {
    return {Health::kNote, "cache filesystem", type + ": what is cached takes memory and is gone after a restart",
            "choose a disk, unless that is meant"};
  }
  return {Health::kGood, "cache filesystem", type.empty() ? "not known" : type, ""};
}

Finding judge_space(const CacheFacts& cache) {
  constexpr uint64_t kFull = uint64_t{64} << 20U;
  constexpr uint64_t kLow = uint64_t{4} << 30U;  // of a model of some billion weights
  const std::string text = fmt::format("{} free of {}", format_size(cache.free_bytes), format_size(cache.total_bytes));
  constexpr uint64_t kSmall = uint64_t{1} << 30U;
  const std::string fix = cache.total_bytes < kSmall
                              ? "choose a larger filesystem with --cache-dir"
                              : "qcache gc --max-size SIZE, 'qcache rm', or mount with --max-size";
  if (cache.free_bytes < kFull) {
    return {Health::kProblem, "space", "full: " + text, fix};
  }
  return {cache.free_bytes < kLow ? Health::kWarning : Health::kGood, "space", text,
          cache.free_bytes < kLow ? fix : ""};
}

}  // namespace

Machine look_at_machine(CommandContext& context, const Mounts& mounts,
                        const std::vector<std::string>& cache_directories) {
  Machine machine;
  machine.user = ::geteuid();
  machine.is_admin = may_administer(context.env);
  utsname system{};
  if (::uname(&system) == 0) {
    machine.kernel = static_cast<const char*>(system.release);
  }
  machine.libfuse = libfuse_version();
  machine.built_with_passthrough = built_with_passthrough();
  if (const auto device = context.env.open("/dev/fuse", O_RDWR); !device) {
    machine.fuse_device = reason_of(device.error().sys_errno);
    machine.fuse_device_is_there = device.error().sys_errno != ENOENT;
  }
  machine.fusermount = find_program("fusermount3");
  if (const auto stat = context.env.stat(machine.fusermount); stat) {
    machine.fusermount_is_setuid = stat->uid == 0 && (stat->mode & S_ISUID) != 0;
  }
  for (const std::string& program : worker_programs()) {
    if (machine.worker.empty() && ::access(program.c_str(), X_OK) == 0) {
      machine.worker = program;
    }
  }
  machine.user_allow_other = user_may_allow_other(context.env);
  const RequestTimeouts timeouts = RequestTimeouts::read(context.env);
  machine.request_timeout_s = timeouts.at_most != 0 ? timeouts.at_most : timeouts.by_default;
  machine.dead_mounts = mounts.dead;
  machine.silent_mounts = mounts.silent;
  for (const std::string& directory : cache_directories) {
    machine.caches.push_back(look_at_cache(context.env, directory, machine.user));
  }
  return machine;
}

std::vector<Finding> examine(const Machine& machine) {
  std::vector<Finding> findings = {judge_fuse_device(machine), judge_fusermount(machine),  judge_privileges(machine),
                                   judge_libfuse(machine),     judge_passthrough(machine), judge_allow_other(machine),
                                   judge_worker(machine),      judge_timeouts(machine),    judge_mounts(machine)};
  for (const CacheFacts& cache : machine.caches) {
    findings.push_back(judge_cache_writing(cache));
    findings.push_back(judge_cache_owner(cache, machine.user));
    findings.push_back(judge_cache_filesystem(cache));
    findings.push_back(judge_space(cache));
  }
  return findings;
}

}  // namespace qcache
