#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qcache {

/// Asks again and again, for at most `patience`; whether it became true.
bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds patience = std::chrono::seconds(20));

/// A running `qcache mount -f`: the real program, a child process of the test, on folders of the test.
///
/// The constructor returns when the mount can be used, and the destructor leaves no process and no mount behind,
/// whatever has happened to either. The daemon also ends when the test is killed. Failures throw std::runtime_error
/// with the daemon's log. One thread.
class MountedFs {
 public:
  struct Setup {
    std::vector<std::string> models_before{};  ///< more model folders, which come first
    std::string models;
    std::string cache;
    std::string mount_point;  ///< made where missing
    std::string log_file;     ///< what the daemon says; appended to
    /// More words for `qcache mount`. Without `--linger` among them it does not linger for files that are open.
    std::vector<std::string> options;
    /// Words before the program: it runs by "unshare" or "setpriv", as somebody else. Then it counts as usable when its
    /// log says so, because not everybody may look into the mount.
    std::vector<std::string> launcher;
    bool own_namespace = false;  ///< the launcher gives it its own mounts; path() leads there
  };

  /// Why mounts cannot be tested on this machine; empty where they can. Looks without qcache, so that a mount that
  /// fails for qcache's own fault is never skipped.
  [[nodiscard]] static std::string reason_to_skip();
  /// Whether this run is to use passthrough: not with QCACHE_TEST_NO_PASSTHROUGH=1.
  [[nodiscard]] static bool passthrough_wanted();
  /// The program under test.
  [[nodiscard]] static std::string program();

  explicit MountedFs(Setup setup);
  ~MountedFs();
  MountedFs(const MountedFs&) = delete;
  MountedFs& operator=(const MountedFs&) = delete;

  /// SIGTERM; returns the exit status, or 128 + the signal that ended it. SIGKILL for one that does not end.
  int stop();
  /// Takes the daemon away without notice. The mount stays, dead.
  void kill9();
  /// Starts it again, after stopping it where it runs.
  void restart();
  [[nodiscard]] bool running() const;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const Setup& setup() const { return setup_; }
  /// `path("m/int8/0.bin")` is the path of that file in the mount.
  [[nodiscard]] std::string path(std::string_view name = {}) const;
  [[nodiscard]] std::string log() const;
  /// The numbers of /.qcache/status, true as 1.
  [[nodiscard]] std::map<std::string, uint64_t> status() const;
  [[nodiscard]] uint64_t status(const std::string& name) const { return status().at(name); }
  /// The extended attribute `user.qcache.<name>` of a file of the mount; empty where there is none.
  [[nodiscard]] std::string xattr(std::string_view file, const std::string& name) const;
  /// Until all that is found out in quiet is recorded, too.
  void wait_until_hashed(std::string_view file) const;
  void wait_until_sealed(std::string_view file) const;
  /// A number of /proc/<pid>/status, such as "RssAnon" in kB.
  [[nodiscard]] uint64_t process_status(const std::string& name) const;

 private:
  void start();
  void wait_until_usable();

  const Setup setup_;
  pid_t pid_ = -1;
  size_t log_start_ = 0;  // where the log of this run begins
};

/// Runs a program to its end with its output in `output_file` (empty: that of the test); returns as MountedFs::stop().
int run_program(const std::vector<std::string>& words, const std::string& output_file = {});

}  // namespace qcache
