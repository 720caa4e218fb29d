#include "fs/session.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <spawn.h>

#include "core/base/log.h"
#include "core/base/mount_info.h"
#include "core/base/mutex.h"
#include "core/base/units.h"
#include "core/model/model_finder.h"
#include "fs/end_signals.h"
#include "fs/operations.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): not every libc header declares it

namespace qcache {
namespace {

// Requests that may read headers or records run side by side; all else is quick, and nothing waits for quantization.
constexpr unsigned kRequestThreads = 16;
// Besides them those that RequestGate may let wait for a filesystem that has stopped.
constexpr unsigned kMostThreads = kRequestThreads + RequestGate::kInAll;
// How long a folder may take to answer when mounting.
constexpr std::chrono::seconds kAnswers{10};
// How long the end may take. Only threads that wait for a filesystem which has stopped need longer.
constexpr std::chrono::seconds kEnds{5};

struct SessionCloser {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }
};

/// fuse_args that free themselves.
class Args {
 public:
  Args() { add("qcache"); }
  ~Args() { fuse_opt_free_args(&args_); }
  Args(const Args&) = delete;
  Args& operator=(const Args&) = delete;
  void add(const std::string& arg) { fuse_opt_add_arg(&args_, arg.c_str()); }
  void option(const std::string& option) {
    add("-o");
    add(option);
  }
  fuse_args* get() { return &args_; }

 private:
  fuse_args args_ = FUSE_ARGS_INIT(0, nullptr);
};

/// Ends the process where threads that hang keep it from ending by itself: what is on disk is in order at any moment.
class EndWatch {
 public:
  /// `is_mounted`: whether what is at the mount point is ours to take down.
  EndWatch(fuse_session* session, const std::string& mount_point, const std::function<bool()>& is_mounted)
      : thread_([this, session, mount_point, is_mounted] { watch(session, mount_point, is_mounted); }) {}
  ~EndWatch() {
    {
      const MutexLock lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  EndWatch(const EndWatch&) = delete;
  EndWatch& operator=(const EndWatch&) = delete;

 private:
  void watch(fuse_session* session, const std::string& mount_point, const std::function<bool()>& is_mounted) {
    constexpr std::chrono::milliseconds kLook{250};
    std::chrono::milliseconds ending{0};
    {
      const MutexLock lock(mutex_);
      while (!ended_ && ending < kEnds) {
        wake_.wait_for(mutex_, kLook);
        ending += fuse_session_exited(session) != 0 ? kLook : std::chrono::milliseconds(0);
      }
      if (ended_) {
        return;
      }
    }
    spdlog::warn("{} ends without waiting any longer: a model folder does not answer", mount_point);
    if (is_mounted()) {
      (void)unmount(mount_point, true);
    }
    spdlog::default_logger()->flush();
    ::_exit(0);
  }

  Mutex mutex_;
  CondVar wake_;
  bool ended_ QCACHE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// What `ask` returns, or nothing where it does not return in time: then its thread is left behind.
template <typename Ask>
auto ask_in_time(const Ask& ask) -> std::optional<decltype(ask())> {
  struct Shared {
    Mutex mutex;
    CondVar done;
    std::optional<decltype(ask())> answer;
  };
  const auto shared = std::make_shared<Shared>();
  std::thread([shared, ask] {
    auto answer = ask();
    const MutexLock lock(shared->mutex);
    shared->answer.emplace(std::move(answer));
    shared->done.notify_all();
  }).detach();
  const auto until = std::chrono::steady_clock::now() + kAnswers;
  const MutexLock lock(shared->mutex);
  while (!shared->answer && std::chrono::steady_clock::now() < until) {
    shared->done.wait_for(shared->mutex, until - std::chrono::steady_clock::now());
  }
  return std::move(shared->answer);
}

// A comma or backslash in an option's value would end it.
std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == ',' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out;
}

Result<int> run_program(std::vector<std::string> words) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ);
  if (error != 0) {
    return fail(system_error(error, "cannot run " + words[0]));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) {
      return fail(system_error(errno, "cannot wait for " + words[0]));
    }
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Of what is at `path`, as the kernel remembers it: asking the filesystem would be asking ourselves. Nothing where it
// cannot be told.
std::optional<std::pair<uint32_t, uint32_t>> device_at(const std::string& path) {
  struct ::statx found {};
  if (::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &found) != 0) {
    return std::nullopt;
  }
  return std::pair(found.stx_dev_major, found.stx_dev_minor);
}

/// Ends a session when a signal says so: at once, or, with files open that are served here, once they are closed.
class Ending {
 public:
  Ending(EndSignals& signals, fuse_session* session, const Operations& operations, const MountOptions& options)
      : signals_(signals),
        session_(session),
        operations_(operations),
        options_(options),
        device_(device_at(options.mount_point)),
        thread_([this] { run(); }) {}
  /// The session has ended, for whatever reason.
  ~Ending() { join(); }
  Ending(const Ending&) = delete;
  Ending& operator=(const Ending&) = delete;

  void join() {
    if (thread_.joinable()) {
      signals_.stop_waiting();
      thread_.join();
    }
  }
  /// Whether what is at the mount point is our mount: it may be detached, and another be there in its place.
  [[nodiscard]] bool is_mounted() const {
    return !detached_ && (!device_ || device_at(options_.mount_point) == device_);
  }

 private:
  void run() {
    if (signals_.wait(std::nullopt) == EndSignals::Event::kSignal) {
      linger();
      fuse_session_exit(session_);
#if !QCACHE_HAS_PASSTHROUGH
      ::pthread_kill(main_, SIGTERM);  // an older libfuse looks whether it is to end when a signal interrupts it
#endif
    }
  }

  void linger() {
    constexpr std::chrono::milliseconds kLook{100};
    using Clock = std::chrono::steady_clock;
    const Clock::time_point end = Clock::now() + options_.linger;
    if (operations_.files_served_here() == 0 || Clock::now() >= end) {
      return;
    }
    spdlog::info(
        "{} is told to end: it is taken off its mount point, and the {} files that are open are served for up "
        "to {}",
        options_.mount_point, operations_.files_served_here(), format_duration(options_.linger));
    if (is_mounted()) {
      const Status detached = unmount(options_.mount_point, true);
      detached_ = detached.has_value();
      if (!detached) {
        spdlog::warn("{}", detached.error().message);
      }
    }
    while (operations_.files_served_here() > 0 && Clock::now() < end) {
      if (signals_.wait(kLook) != EndSignals::Event::kTimeout) {
        return;
      }
    }
  }

  EndSignals& signals_;
  fuse_session* const session_;
  const Operations& operations_;
  const MountOptions& options_;
  const std::optional<std::pair<uint32_t, uint32_t>> device_;
  std::atomic<bool> detached_{false};
  [[maybe_unused]] const pthread_t main_ = ::pthread_self();
  std::thread thread_;
};

// The path with links resolved, as far as it exists yet.
std::string real_path_to_be(Env& env, const std::string& path) {
  std::error_code ignored;
  std::filesystem::path there = std::filesystem::absolute(path, ignored).lexically_normal();
  std::filesystem::path rest;
  for (;;) {
    if (const auto real = env.real_path(there.string())) {
      return rest.empty() ? *real : (std::filesystem::path(*real) / rest).string();
    }
    if (!there.has_relative_path()) {
      return path;
    }
    rest = rest.empty() ? there.filename() : there.filename() / rest;
    there = there.parent_path();
  }
}

Status prepare_mount_point(Env& env, const MountOptions& options) {
  const std::string& mount_point = options.mount_point;
  // The kernel may answer for the root of a dead mount from what it remembers, but never for a name in it.
  const auto name = env.stat(mount_point + "/.qcache");
  if (!name && name.error().sys_errno == ENOTCONN) {
    QCACHE_TRY(unmount(mount_point, true));
    spdlog::info("cleared a dead mount off {}", mount_point);
  }
  const auto stat = env.stat(mount_point);
  if (!stat) {
    return fail(stat.error().with_context("the mount point cannot be used"));
  }
  if (!stat->is_directory()) {
    return fail(ErrorKind::kInvalidArgument, "the mount point " + mount_point + " is not a folder");
  }
  QCACHE_TRY_ASSIGN(const std::string mount_path, env.real_path(mount_point));
  std::vector<std::string> outside = options.engine.roots;
  outside.push_back(options.engine.cache_directory);
  for (const std::string& path : outside) {
    if (lies_within(real_path_to_be(env, path), mount_path)) {
      return fail(ErrorKind::kInvalidArgument,
                  fmt::format("{} lies below the mount point {}, which would hide it: choose another mount point", path,
                              mount_point));
    }
  }
  for (const std::string& root : options.engine.roots) {
    if (would_be_walked(root, mount_path)) {
      return fail(
          ErrorKind::kInvalidArgument,
          fmt::format("the mount point {} lies below the model folder {}, which would then be looked for models "
                      "in itself: choose another mount point",
                      mount_point, root));
    }
    if (would_be_walked(root, real_path_to_be(env, options.engine.cache_directory))) {
      return fail(
          ErrorKind::kInvalidArgument,
          fmt::format("the cache directory {} lies below the model folder {}, where its files would be taken for "
                      "models: choose another with --cache-dir",
                      options.engine.cache_directory, root));
    }
  }
  return {};
}

Result<std::vector<std::string>> resolved_roots(Env& env, const std::vector<std::string>& roots) {
  std::vector<std::string> out;
  for (const std::string& root : roots) {
    const auto found = ask_in_time([&env, root]() -> Result<std::pair<std::string, FileStat>> {
      QCACHE_TRY_ASSIGN(std::string path, env.real_path(root));
      QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(path));
      if (!stat.is_directory()) {
        return fail(ErrorKind::kInvalidArgument, root + " is not a folder of models");
      }
      return std::pair(std::move(path), stat);
    });
    if (!found) {
      return fail(ErrorKind::kIo,
                  fmt::format("the model folder {} does not answer: its filesystem's server is stopped, "
                              "or not to be reached; mount it again, or leave it out",
                              root));
    }
    auto real = *found;
    if (!real) {
      return fail(real.error().with_context("the model folder cannot be used"));
    }
    out.push_back(std::move(real->first));
  }
  return out;
}

}  // namespace

Status unmount(const std::string& mount_point, bool lazy) {
  if (::umount2(mount_point.c_str(), lazy ? MNT_DETACH : 0) == 0) {
    return {};
  }
  const int error = errno;
  if (error == EPERM) {
    // Users unmount what they mounted through libfuse's setuid helper; it prints its own reason.
    std::vector<std::string> words = {"fusermount3", "-u", "-q"};
    if (lazy) {
      words.emplace_back("-z");
    }
    words.push_back(mount_point);
    QCACHE_TRY_ASSIGN(const int code, run_program(std::move(words)));
    if (code == 0) {
      return {};
    }
    return fail(ErrorKind::kPermission, "cannot unmount " + mount_point +
                                            ": you did not mount it, or files in it are open (--lazy detaches it)");
  }
  if (error == EBUSY) {
    return fail(ErrorKind::kBusy,
                "cannot unmount " + mount_point + ": files in it are open (close them, or use --lazy)");
  }
  if (error == EINVAL) {
    return fail(ErrorKind::kNotFound, "nothing is mounted on " + mount_point);
  }
  return fail(system_error(error, "cannot unmount " + mount_point));
}

Status serve_mount(Env& env, const MountOptions& options, const std::function<void()>& on_ready) {
  MountOptions resolved = options;
  QCACHE_TRY_ASSIGN(resolved.engine.roots, resolved_roots(env, options.engine.roots));
  QCACHE_TRY(prepare_mount_point(env, resolved));
  resolved.engine.mount_point = resolved.mount_point;
  QCACHE_TRY_ASSIGN(const std::unique_ptr<Engine> engine, Engine::start(env, resolved.engine));
  ControlFiles control(*engine, resolved.mount_point);
  Operations operations(*engine, control, resolved.passthrough, on_ready);

  Args args;
  args.option("subtype=qcache");
  args.option("fsname=" + escaped(fmt::format("{}", fmt::join(resolved.engine.roots, ":"))));
  args.option("default_permissions");
  if (resolved.allow_other) {
    args.option("allow_other");
  }
  for (const std::string& option : resolved.kernel_options) {
    args.option(option);
  }
  if (resolved.debug) {
    args.add("-d");
  }
  const fuse_lowlevel_ops& ops = Operations::table();
  const std::unique_ptr<fuse_session, SessionCloser> session(
      fuse_session_new(args.get(), &ops, sizeof ops, &operations));
  if (!session) {
    return fail(ErrorKind::kInvalidArgument, "libfuse does not accept the mount options");
  }
  QCACHE_TRY_ASSIGN(EndSignals signals, EndSignals::catch_them());
  Status result;
  if (fuse_session_mount(session.get(), resolved.mount_point.c_str()) != 0) {
    result =
        fail(ErrorKind::kPermission,
             fmt::format("cannot mount on {}: run as root, or install fuse3 and check that /dev/fuse may be opened",
                         resolved.mount_point));
  } else {
    spdlog::info("mounted {} on {}", fmt::join(resolved.engine.roots, ", "), resolved.mount_point);
    operations.connect(fuse_session_fd(session.get()));
    Ending ending(signals, session.get(), operations, resolved);
    const EndWatch end_watch(session.get(), resolved.mount_point, [&ending] { return ending.is_mounted(); });
    fuse_loop_config* config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_max_threads(config, kMostThreads);
    fuse_loop_cfg_set_idle_threads(config, kRequestThreads);
    fuse_session_loop_mt(session.get(), config);
    fuse_loop_cfg_destroy(config);
    // Waiting reads are answered while the session still takes answers.
    engine->stop();
    operations.stop();
    operations.disconnect();
    ending.join();
    if (ending.is_mounted()) {
      fuse_session_unmount(session.get());
    }
    spdlog::info("unmounted {}", resolved.mount_point);
  }
  return result;
}

}  // namespace qcache
