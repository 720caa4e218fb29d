#include "fs/session.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "core/base/ask_in_time.h"
#include "core/base/log.h"
#include "core/base/units.h"
#include "core/model/model_finder.h"
#include "fs/end_signals.h"
#include "fs/libfuse_words.h"
#include "fs/mount_point.h"
#include "fs/mount_probe.h"
#include "fs/operations.h"
#include "fs/spawned_program.h"

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

/// An error that is no fault of the cache directory's: commands tell those by their kind.
tl::unexpected<Error> not_mounted(Error error) {
  error.kind = ErrorKind::kIo;
  return fail(std::move(error));
}

tl::unexpected<Error> not_mounted(std::string message) {
  return fail(ErrorKind::kIo, std::move(message));
}

// A name in a mount, as the kernel may answer for the root of a dead mount from what it remembers. One whose daemon is
// stopped does not answer, and is not dead.
bool is_dead(Env& env, const std::string& mount_point) {
  constexpr std::chrono::seconds kPatience{2};  // the dead answer at once
  const auto answer = ask_in_time(kPatience, [&env, name = mount_point + "/.qcache"] { return env.stat(name); });
  return answer && !*answer && answer->error().sys_errno == ENOTCONN;
}

Result<MountPoint> look_for_mount_point(Env& env, const std::string& path) {
  auto found = look_at_mount_point(env, path);
  if (!found && found.error().kind == ErrorKind::kNotFound) {
    return not_mounted("there is no folder " + path + " to mount on: make it first (mkdir -p)");
  }
  if (!found) {
    return not_mounted(found.error().with_context("the mount point cannot be used"));
  }
  return found;
}

/// Keeps two processes from mounting on one folder at the same moment, when neither sees a mount yet.
Result<UniqueFd> claim(Env& env, const std::string& mount_point) {
  auto folder = env.open(mount_point, O_RDONLY | O_DIRECTORY);
  if (!folder) {
    return UniqueFd();  // who may mount on a folder need not be allowed to read it
  }
  if (::flock(folder->get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return fail(ErrorKind::kBusy, "another process is mounting on " + mount_point);
  }
  return folder;
}

// What a mount would hide is seldom meant to be hidden. An automount point is there to be mounted on.
Status refuse_to_hide(Env& env, const MountOptions& options, const MountPoint& point) {
  if (options.over) {
    return {};
  }
  if (point.mounted_here && point.mount.type != "autofs") {
    return fail(ErrorKind::kBusy, fmt::format("{} is mounted on {} already: choose another mount point, or use --over "
                                              "to cover it",
                                              point.mount.type, point.path));
  }
  if (options.nonempty || point.mounted_here) {
    return {};
  }
  const auto names = env.list(point.path);
  if (names && !names->empty()) {
    return not_mounted(
        fmt::format("the mount point {} is not empty, and what is in it would be hidden: choose an empty "
                    "folder, or use --over",
                    point.path));
  }
  return {};
}

// What is there, where that may be mounted on.
Result<MountPoint> refuse_second_mount(Env& env, const MountOptions& options) {
  for (;;) {
    QCACHE_TRY_ASSIGN(MountPoint point, look_for_mount_point(env, options.mount_point));
    if (!point.is_qcache()) {
      return point;
    }
    if (is_dead(env, options.mount_point)) {
      const Status cleared = unmount(env, options.mount_point, true);
      if (!cleared) {
        return not_mounted(cleared.error().with_context("a dead mount is in the way"));
      }
      spdlog::info("cleared a dead mount off {}", options.mount_point);
    } else if (options.over) {
      return point;
    } else {
      return fail(ErrorKind::kBusy,
                  fmt::format("qcache is mounted on {} already: unmount that first, or use --over to cover it",
                              options.mount_point));
    }
  }
}

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

/// Sees to it that `options` can be mounted, and returns what is to be held until they are.
Result<UniqueFd> prepare_mount_point(Env& env, MountOptions& options) {
  QCACHE_TRY_ASSIGN(const MountPoint point, refuse_second_mount(env, options));
  options.mount_point = point.path;  // a link in it may lead elsewhere by the time it is unmounted
  const auto stat = env.stat(options.mount_point);
  if (!stat) {
    return not_mounted(stat.error().with_context("the mount point cannot be used"));
  }
  if (!stat->is_directory()) {
    return not_mounted("the mount point " + options.mount_point + " is not a folder");
  }
  std::vector<std::string> outside = options.engine.roots;
  outside.push_back(options.engine.cache_directory);
  for (const std::string& path : outside) {
    if (lies_within(real_path_to_be(env, path), options.mount_point)) {
      return not_mounted(
          fmt::format("{} lies below the mount point {}, which would hide it: choose another mount point", path,
                      options.mount_point));
    }
  }
  for (const std::string& root : options.engine.roots) {
    if (would_be_walked(root, options.mount_point)) {
      return not_mounted(
          fmt::format("the mount point {} lies below the model folder {}, which would then be looked for models "
                      "in itself: choose another mount point",
                      options.mount_point, root));
    }
    if (would_be_walked(root, real_path_to_be(env, options.engine.cache_directory))) {
      return not_mounted(
          fmt::format("the cache directory {} lies below the model folder {}, where its files would be taken for "
                      "models: choose another with --cache-dir",
                      options.engine.cache_directory, root));
    }
  }
  QCACHE_TRY_ASSIGN(UniqueFd claimed, claim(env, options.mount_point));
  QCACHE_TRY_ASSIGN(const MountPoint unchanged, refuse_second_mount(env, options));  // nobody was quicker
  QCACHE_TRY(refuse_to_hide(env, options, unchanged));
  return claimed;
}

Result<std::vector<std::string>> resolved_roots(Env& env, const std::vector<std::string>& roots) {
  std::vector<std::string> out;
  for (const std::string& root : roots) {
    const auto found = ask_in_time(kAnswers, [&env, root]() -> Result<std::string> {
      QCACHE_TRY_ASSIGN(std::string path, env.real_path(root));
      QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(path));
      if (!stat.is_directory()) {
        return fail(ErrorKind::kInvalidArgument, root + " is not a folder of models");
      }
      QCACHE_TRY(env.open(path, O_RDONLY | O_DIRECTORY));  // one that may not be listed shows nothing
      return path;
    });
    if (!found) {
      return not_mounted(
          fmt::format("the model folder {} does not answer: its filesystem's server is stopped, "
                      "or not to be reached; mount it again, or leave it out",
                      root));
    }
    if (!*found) {
      return not_mounted(found->error().with_context("the model folder cannot be used"));
    }
    out.push_back(**found);
  }
  return out;
}

Status unmount_by_helper(const std::string& path, bool lazy) {
  std::vector<std::string> words = {"fusermount3", "-u"};
  if (lazy) {
    words.emplace_back("-z");
  }
  words.emplace_back("--");
  words.push_back(path);
  const auto ended = run_to_its_end(std::move(words));
  if (!ended) {
    return not_mounted(ended.error().with_context("cannot unmount " + path + " without fuse3 installed"));
  }
  if (ended->status == 0) {
    return {};
  }
  // It has one status for all reasons, and speaks no other language.
  if (ended->said.find("Device or resource busy") != std::string::npos) {
    return fail(system_error(EBUSY, path));
  }
  return not_mounted("cannot unmount " + path + ": " + one_line(ended->said));
}

/// Tells when the mount can be used, from a thread of its own, as the mount has to answer first.
class Announcer {
 public:
  explicit Announcer(const std::function<void()>& announce)
      : thread_([this, announce] {
          announce();
          done_ = true;
        }) {}
  /// Nothing keeps it waiting once the session is closed.
  ~Announcer() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  Announcer(const Announcer&) = delete;
  Announcer& operator=(const Announcer&) = delete;

  /// For who is about to end the process: only threads that hang are left behind.
  void join_if_done() {
    if (done_ && thread_.joinable()) {
      thread_.join();
    }
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

/// Ends a session when a signal says so: at once, or, with files open that are served here, once they are closed. And
/// ends the process where threads that hang keep it from ending by itself: what is on disk is in order at any moment.
class Ending {
 public:
  Ending(Env& env, EndSignals& signals, fuse_session* session, const Operations& operations, const OwnMount& mount,
         const MountOptions& options, Announcer& announcer)
      : env_(env),
        signals_(signals),
        session_(session),
        operations_(operations),
        mount_(mount),
        options_(options),
        announcer_(announcer),
        thread_([this] { run(); }) {}
  /// To be called when all that may hang is done, and before the session goes.
  ~Ending() {
    signals_.stop_waiting();
    thread_.join();
  }
  Ending(const Ending&) = delete;
  Ending& operator=(const Ending&) = delete;

  /// Whether a signal has told it to.
  [[nodiscard]] bool was_told() const { return told_; }

 private:
  void run() {
    constexpr std::chrono::milliseconds kLook{250};
    using Clock = std::chrono::steady_clock;
    std::optional<Clock::time_point> ends;  // once the session has ended
    while (!ends || Clock::now() < *ends) {
      const EndSignals::Event event = signals_.wait(kLook);
      if (event == EndSignals::Event::kStopped) {
        return;
      }
      if (event == EndSignals::Event::kSignal && !told_) {
        told_ = true;
        if (linger() == EndSignals::Event::kStopped) {
          return;
        }
        fuse_session_exit(session_);
#if !QCACHE_HAS_PASSTHROUGH
        ::pthread_kill(main_, SIGTERM);  // an older libfuse looks whether it is to end when a signal interrupts it
#endif
      }
      if (!ends && fuse_session_exited(session_) != 0) {
        ends = Clock::now() + kEnds;
      }
    }
    spdlog::warn("{} ends without waiting any longer: a model folder does not answer", options_.mount_point);
    if (mount_.on_top()) {
      (void)unmount(env_, options_.mount_point, true);
    }
    announcer_.join_if_done();
    spdlog::default_logger()->flush();
    ::_exit(0);
  }

  // Until nothing is served, the time is over, or something else is to be done.
  EndSignals::Event linger() {
    constexpr std::chrono::milliseconds kLook{100};
    using Clock = std::chrono::steady_clock;
    const Clock::time_point end = Clock::now() + options_.linger;
    if (operations_.files_served_here() == 0 || Clock::now() >= end) {
      return EndSignals::Event::kTimeout;
    }
    spdlog::info("told to end: {} is taken off its mount point, and its open files ({}) are served for up to {}",
                 options_.mount_point, operations_.files_served_here(), format_duration(options_.linger));
    if (mount_.on_top()) {
      if (const Status detached = unmount(env_, options_.mount_point, true); !detached) {
        spdlog::warn("{}", detached.error().message);
      }
    }
    EndSignals::Event event = EndSignals::Event::kTimeout;
    while (event == EndSignals::Event::kTimeout && operations_.files_served_here() > 0 && Clock::now() < end) {
      event = signals_.wait(kLook);
    }
    return event;
  }

  Env& env_;
  EndSignals& signals_;
  fuse_session* const session_;
  const Operations& operations_;
  const OwnMount& mount_;
  const MountOptions& options_;
  Announcer& announcer_;
  std::atomic<bool> told_{false};
  [[maybe_unused]] const pthread_t main_ = ::pthread_self();
  std::thread thread_;
};

/// Serves until there is nothing left to serve, and says how it ended.
Status run_loop(Env& env, fuse_session* session, const OwnMount& mount, const Ending& ending,
                const std::string& mount_point) {
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kMostThreads);
  fuse_loop_cfg_set_idle_threads(config, kRequestThreads);
  const int ended = fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  // Of a mount that is off its mount point, whose last open file is closed, the kernel says mostly that the device is
  // gone, and at times that the connection was aborted.
  const bool is_over = ended == -ECONNABORTED && ending.was_told();
  if (ended < 0 && !is_over) {
    return not_mounted(system_error(-ended, "the mount on " + mount_point + " could not be served"));
  }
  if (!ending.was_told() && mount.exists(env)) {
    // The kernel says the same of a mount that was unmounted and of one that it has given up.
    return not_mounted(
        fmt::format("the kernel has given up the mount on {}: a request took longer than the sysctls "
                    "fs.fuse.max_request_timeout and default_request_timeout allow, or somebody aborted the connection",
                    mount_point));
  }
  return {};
}

Status take_down(const MountPoint& point, bool lazy) {
  const int flags = UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0);
  if (::umount2(point.path.c_str(), flags) == 0) {
    return {};
  }
  const int error = errno;
  if (error == EPERM && ::geteuid() != 0 && point.mount.user_id && *point.mount.user_id != ::getuid()) {
    return fail(ErrorKind::kPermission, fmt::format("cannot unmount {}: user {} mounted it, who can do that, and root",
                                                    point.path, *point.mount.user_id));
  }
  // Users unmount what they mounted through libfuse's setuid helper.
  return error == EPERM ? unmount_by_helper(point.path, lazy)
                        : fail(system_error(error, "cannot unmount " + point.path));
}

}  // namespace

Status unmount(Env& env, const std::string& mount_point, bool lazy) {
  const auto looked = look_at_mount_point(env, mount_point);
  if (!looked) {
    return fail(looked.error().with_context("there is no qcache mount on " + mount_point));
  }
  const MountPoint& point = *looked;
  if (!point.is_qcache()) {
    const std::string what =
        point.mounted_here
            ? fmt::format("what is mounted there is {}, not qcache (umount takes that down)", point.mount.type)
        : point.mount.type == kQcacheMountType ? fmt::format("it lies in the mount {}", point.mount.mount_point)
                                               : "nothing is mounted there";
    return fail(ErrorKind::kNotFound, fmt::format("there is no qcache mount on {}: {}", mount_point, what));
  }
  // A look into the mount, such as the one by which its daemon finds out that it answers, keeps it for a moment.
  constexpr int kAttempts = 4;
  constexpr int64_t kPauseNs = 50'000'000;
  Status done = take_down(point, lazy);
  for (int i = 1; i < kAttempts && !done && done.error().sys_errno == EBUSY; ++i) {
    env.sleep(kPauseNs);
    done = take_down(point, lazy);
  }
  if (!done && done.error().sys_errno == EBUSY) {
    return fail(ErrorKind::kBusy,
                "cannot unmount " + point.path + ": files in it are open (close them, or use --lazy)");
  }
  return done;
}

Status serve_mount(Env& env, const MountOptions& options, const std::function<Status()>& on_prepared,
                   const std::function<void()>& on_ready) {
  MountOptions resolved = options;
  QCACHE_TRY_ASSIGN(resolved.engine.roots, resolved_roots(env, options.engine.roots));
  QCACHE_TRY_ASSIGN(UniqueFd claimed, prepare_mount_point(env, resolved));
  resolved.engine.mount_point = resolved.mount_point;
  QCACHE_TRY(on_prepared());
  MountProbe probe(resolved.mount_point + "/.qcache");
  QCACHE_TRY_ASSIGN(const std::unique_ptr<Engine> engine, Engine::start(env, resolved.engine));
  ControlFiles control(*engine, resolved.mount_point);
  Operations operations(*engine, control, resolved.passthrough, resolved.allow_other, resolved.max_read);

  Args args;
  args.option("subtype=qcache");
  args.option("fsname=" + escaped(fmt::format("{}", fmt::join(resolved.engine.roots, ":"))));
  args.option("default_permissions");
  if (resolved.allow_other) {
    args.option("allow_other");
  }
  if (resolved.max_read > 0) {
    args.option(fmt::format("max_read={}", resolved.max_read));
  }
  for (const std::string& option : resolved.kernel_options) {
    args.option(escaped(option));
  }
  if (resolved.debug) {
    args.add("-d");
  }
  std::optional<LibfuseWords> words(std::in_place);
  const fuse_lowlevel_ops& ops = Operations::table();
  std::unique_ptr<fuse_session, SessionCloser> session(fuse_session_new(args.get(), &ops, sizeof ops, &operations));
  if (!session) {
    return fail(ErrorKind::kInvalidArgument, "libfuse does not accept the mount options" + LibfuseWords::reason());
  }
  QCACHE_TRY_ASSIGN(EndSignals signals, EndSignals::catch_them());
  if (fuse_session_mount(session.get(), resolved.mount_point.c_str()) != 0) {
    const std::string reason = LibfuseWords::reason();
    return not_mounted(fmt::format("cannot mount on {}{}", resolved.mount_point,
                                   reason.empty() ? ": only root may without fusermount3 (package fuse3), and "
                                                    "fusermount3 says why it does not"
                                                  : reason));
  }
  words.reset();
  claimed.reset();
  const OwnMount own(resolved.mount_point);
  operations.connect(fuse_session_fd(session.get()));
  std::optional<Announcer> announcer(std::in_place, [&] {
    // It can be used when it has answered, and the kernel may refuse what was agreed on until then.
    const auto device = probe.device();
    if (device && own.holds_device(*device)) {
      spdlog::info("mounted {} on {}", fmt::join(resolved.engine.roots, ", "), resolved.mount_point);
      on_ready();
    }
  });
  std::optional<Ending> ending(std::in_place, env, signals, session.get(), operations, own, resolved, *announcer);
  Status result = run_loop(env, session.get(), own, *ending, resolved.mount_point);
  // Waiting reads are answered while the session still takes answers.
  engine->stop();
  operations.stop();
  operations.disconnect();
  if (own.on_top()) {
    fuse_session_unmount(session.get());
  }
  if (own.on_top()) {
    // libfuse leaves a mount whose connection is gone already.
    if (const Status cleared = unmount(env, resolved.mount_point, true); !cleared) {
      spdlog::error("{}", cleared.error().message);
    }
  }
  if (own.exists(env)) {
    spdlog::warn("the mount on {} stays, dead, below what covers it", resolved.mount_point);
  } else {
    spdlog::info("unmounted {}", resolved.mount_point);
  }
  ending.reset();
  session.reset();
  announcer.reset();
  return result;
}

}  // namespace qcache
