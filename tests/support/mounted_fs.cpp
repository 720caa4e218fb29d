#include "tests/support/mounted_fs.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <algorithm>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "core/base/unique_fd.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

constexpr std::chrono::milliseconds kPoll{5};
constexpr std::chrono::seconds kStartPatience{30};
constexpr std::chrono::seconds kStopPatience{60};

std::string text_of(int error) {
  return std::generic_category().message(error);
}

// Only what is allowed between fork and exec.
[[noreturn]] void become(const std::vector<char*>& argv, int output) {
  if (output >= 0) {
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
  }
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

pid_t spawn(std::vector<std::string> words, const std::string& output_file) {
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  UniqueFd output;
  if (!output_file.empty()) {
    output = UniqueFd(::open(output_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  }
  const pid_t pid = ::fork();
  if (pid < 0) {
    throw std::runtime_error("cannot fork: " + text_of(errno));
  }
  if (pid == 0) {
    become(argv, output_file.empty() ? -1 : output.get());
  }
  return pid;
}

int exit_status(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// A raw mount of a filesystem that nobody serves.
std::string try_to_mount(int fuse) {
  const TempDir dir;
  const std::string data = "fd=" + std::to_string(fuse) + ",rootmode=40000,user_id=0,group_id=0";
  if (::mount("probe", dir.path().c_str(), "fuse", MS_NOSUID | MS_NODEV, data.c_str()) != 0) {
    return "mounting is not permitted here (" + text_of(errno) + ")";
  }
  ::umount2(dir.path().c_str(), MNT_DETACH);
  return {};
}

}  // namespace

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) {
      return false;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

std::string MountedFs::reason_to_skip() {
  const UniqueFd fuse(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fuse.valid()) {
    return "/dev/fuse cannot be opened (" + text_of(errno) + ")";
  }
  if (::geteuid() == 0) {
    return try_to_mount(fuse.get());
  }
  return std::filesystem::exists("/usr/bin/fusermount3") || std::filesystem::exists("/bin/fusermount3")
             ? ""
             : "not root, and there is no fusermount3";
}

bool MountedFs::passthrough_wanted() {
  const char* const value = std::getenv("QCACHE_TEST_NO_PASSTHROUGH");  // NOLINT(concurrency-mt-unsafe): never set
  return value == nullptr || std::string_view(value) != "1";
}

std::string MountedFs::program() {
  return QCACHE_TEST_PROGRAM;
}

MountedFs::MountedFs(Setup setup) : setup_(std::move(setup)) {
  make_directories(setup_.models);
  std::error_code ignored;  // a dead mount is there, and exists for nobody
  std::filesystem::create_directories(setup_.mount_point, ignored);
  try {
    start();
  } catch (...) {
    stop();
    ::umount2(setup_.mount_point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    throw;
  }
}

MountedFs::~MountedFs() {
  stop();
  // Gone with a daemon that ended by itself; else EINVAL.
  ::umount2(setup_.mount_point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
}

void MountedFs::start() {
  std::vector<std::string> words = setup_.launcher;
  words.insert(words.end(), {program(), "mount", "-f"});
  words.insert(words.end(), setup_.models_before.begin(), setup_.models_before.end());
  words.insert(words.end(), {setup_.models, setup_.mount_point, "--cache-dir", setup_.cache});
  if (!passthrough_wanted()) {
    words.emplace_back("--no-passthrough");
  }
  words.insert(words.end(), setup_.options.begin(), setup_.options.end());
  if (std::find(words.begin(), words.end(), "--linger") == words.end()) {
    words.insert(words.end(), {"--linger", "0s"});  // a test that fails leaves files open
  }
  log_start_ = std::filesystem::exists(setup_.log_file) ? std::filesystem::file_size(setup_.log_file) : 0;
  pid_ = spawn(std::move(words), setup_.log_file);
  wait_until_usable();
}

void MountedFs::wait_until_usable() {
  const auto usable = [this] {
    if (!setup_.launcher.empty()) {
      return log().find(" mounted ", log_start_) != std::string::npos;
    }
    struct ::stat found {};
    return ::stat(path(".qcache/status").c_str(), &found) == 0;
  };
  const bool ended = eventually([&] { return usable() || !running(); }, kStartPatience);
  if (!ended || !running()) {
    throw std::runtime_error("the mount did not become usable: " + log().substr(log_start_));
  }
}

bool MountedFs::running() const {
  if (pid_ < 0) {
    return false;
  }
  siginfo_t info{};
  // Leaves it to stop() to collect the status.
  return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

int MountedFs::stop() {
  if (pid_ < 0) {
    return 0;
  }
  ::kill(pid_, SIGTERM);
  if (!eventually([this] { return !running(); }, kStopPatience)) {
    ::kill(pid_, SIGKILL);
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return exit_status(status);
}

void MountedFs::kill9() {
  if (pid_ >= 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
}

void MountedFs::restart() {
  stop();
  start();
}

std::string MountedFs::path(std::string_view name) const {
  std::string path = setup_.own_namespace ? "/proc/" + std::to_string(pid_) + "/root" : "";
  path += setup_.mount_point;
  return name.empty() ? path : path + '/' + std::string(name);
}

std::string MountedFs::log() const {
  return read_file(setup_.log_file);
}

std::map<std::string, uint64_t> MountedFs::status() const {
  std::map<std::string, uint64_t> numbers;
  const nlohmann::json whole = nlohmann::json::parse(read_file(path(".qcache/status")));
  for (const auto& [name, value] : whole.items()) {
    if (value.is_number_unsigned()) {
      numbers[name] = value.get<uint64_t>();
    } else if (value.is_boolean()) {
      numbers[name] = value.get<bool>() ? 1 : 0;
    }
  }
  return numbers;
}

std::string MountedFs::xattr(std::string_view file, const std::string& name) const {
  std::array<char, 4096> value{};
  const ssize_t size = ::getxattr(path(file).c_str(), ("user.qcache." + name).c_str(), value.data(), value.size());
  if (size < 0 && errno != ENODATA) {
    throw std::runtime_error("no attribute " + name + " of " + path(file) + ": " + text_of(errno));
  }
  return {value.data(), static_cast<size_t>(std::max<ssize_t>(size, 0))};
}

void MountedFs::wait_until_sealed(std::string_view file) const {
  if (!eventually([&] { return xattr(file, "state") == "sealed"; })) {
    throw std::runtime_error(std::string(file) + " is " + xattr(file, "state") + ", not sealed: " + log());
  }
}

void MountedFs::wait_until_hashed(std::string_view file) const {
  wait_until_sealed(file);
  if (!eventually([&] { return !xattr(file, "sha256").empty(); })) {
    throw std::runtime_error(std::string(file) + " is sealed, and never hashed: " + log());
  }
}

uint64_t MountedFs::process_status(const std::string& name) const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  for (std::string word; status >> word;) {
    if (word == name + ':') {
      uint64_t value = 0;
      status >> value;
      return value;
    }
  }
  throw std::runtime_error("no " + name + " in /proc");
}

int run_program(const std::vector<std::string>& words, const std::string& output_file) {
  const pid_t pid = spawn(words, output_file);
  int status = 0;
  ::waitpid(pid, &status, 0);
  return exit_status(status);
}

}  // namespace qcache
