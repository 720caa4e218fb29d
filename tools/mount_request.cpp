#include "tools/mount_request.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "core/base/ask_in_time.h"
#include "core/base/units.h"
#include "core/model/model_finder.h"
#include "core/model/text.h"
#include "core/store/named_file.h"
#include "tools/background.h"
#include "tools/human_text.h"
#include "tools/service_notify.h"
#include "tools/suggestion.h"
#include "tools/user_allow_other.h"

namespace qcache {
namespace {

// Of interest to mount(8), systemd or fstab readers only. They reach every helper, which must accept them.
constexpr std::array kIgnored = {"defaults", "nofail", "_netdev", "auto",  "noauto",  "user",   "nouser", "users",
                                 "nousers",  "owner",  "noowner", "group", "nogroup", "nowarn", "silent", "loud"};
// True of every mount of ours, or without meaning in one: the kernel keeps no access times for FUSE, nothing can be
// written, and there are no links.
constexpr std::array kAlwaysSo = {
    "default_permissions", "atime",    "diratime",   "relatime", "norelatime", "lazytime",  "nolazytime", "strictatime",
    "nostrictatime",       "iversion", "noiversion", "mand",     "nomand",     "symfollow", "nosymfollow"};
// Options of our own that take a value, and what they take.
struct ValueOption {
  std::string_view name;
  std::string_view takes;
};
constexpr std::array kWithValue = {
    ValueOption{"cache_dir", "DIR"},       ValueOption{"max_age", "AGE"},   ValueOption{"max_size", "SIZE"},
    ValueOption{"aging_interval", "TIME"}, ValueOption{"threads", "N"},     ValueOption{"linger", "TIME"},
    ValueOption{"max_read", "BYTES"},      ValueOption{"log_file", "FILE"}, ValueOption{"log_level", "LEVEL"}};
constexpr std::array kFlags = {"no_passthrough", "passthrough", "allow_other", "over", "nonempty"};
// Flags that libfuse's mount code hands to the kernel, the last of a pair counting.
constexpr std::array kPassedOn = {"ro",     "rw",    "suid", "nosuid",  "dev",     "nodev",     "exec",
                                  "noexec", "async", "sync", "dirsync", "noatime", "nodiratime"};
// Security labels, for the kernel as well.
constexpr std::array kPassedOnWithValue = {"context", "fscontext", "defcontext", "rootcontext"};
constexpr unsigned kMostThreads = 1024;
constexpr unsigned kLeastRead = 4096;  // the kernel takes less for this

struct Refused {
  const char* name;
  const char* reason;
};
constexpr std::array kRefused = {
    Refused{"auto_unmount", "a dead mount is cleared by the next 'qcache mount', by 'qcache unmount', or by systemd"},
    Refused{"remount", "a mount cannot be changed: take it down ('qcache unmount MOUNTPOINT') and mount it again"},
    Refused{"uid", "files belong to who mounts them"},
    Refused{"gid", "files belong to who mounts them"},
    Refused{"umask", "nobody can write, and --allow-other lets others read"},
    Refused{"allow_root", "root can become who mounts; --allow-other lets everybody read"},
    Refused{"fsname", "it is made of the model folders"},
    Refused{"subtype", "it is always qcache"},
};

bool contains(const auto& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

Result<unsigned> parse_count(std::string_view text, std::string_view what) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} takes a number, not '{}'", what, text));
  }
  return value;
}

std::vector<std::string> split_roots(const std::string& spec) {
  std::error_code ignored;
  if (std::filesystem::exists(spec, ignored)) {
    return {spec};  // a folder whose name has a colon
  }
  std::vector<std::string> roots;
  size_t begin = 0;
  while (begin <= spec.size()) {
    const size_t colon = std::min(spec.find(':', begin), spec.size());
    if (colon > begin) {
      roots.push_back(spec.substr(begin, colon - begin));
    }
    begin = colon + 1;
  }
  return roots;
}

// What was parsed, or why not, with the option that it was for.
template <typename T>
Result<T> of_option(const std::string& name, Result<T> parsed) {
  return parsed ? std::move(parsed) : fail(parsed.error().with_context("the option " + name));
}

Error unknown_option(const std::string& option, const std::string& name) {
  std::vector<std::string> known;
  known.reserve(kWithValue.size() + kFlags.size() + kPassedOn.size());
  for (const ValueOption& own : kWithValue) {
    known.emplace_back(own.name);
  }
  known.insert(known.end(), kFlags.begin(), kFlags.end());
  known.insert(known.end(), kPassedOn.begin(), kPassedOn.end());
  const std::string guess = did_you_mean(name, known);
  return Error{ErrorKind::kInvalidArgument, 0,
               fmt::format("unknown mount option {}{} There are: {}", in_quotes(option), guess.empty() ? "." : guess,
                           mount_option_help())};
}

// Folders that no model is shown of. Empty also where they do not answer soon: a mount does not wait for its models.
std::vector<std::string> without_models(Env& env, const std::vector<std::string>& roots) {
  constexpr std::chrono::milliseconds kPatience{100};
  const auto found = ask_in_time(kPatience, [&env, roots] {
    std::vector<std::string> empty;
    for (const std::string& root : roots) {
      const FoundModels models = find_models(env, {root});
      if (models.models.empty() && models.problems.empty()) {
        empty.push_back(root);
      }
    }
    return empty;
  });
  return found.value_or(std::vector<std::string>());
}

std::string says_without_models(const std::string& root) {
  return fmt::format(
      "{} holds no models yet (folders with *.safetensors, or *.bin, *.pt, *.pth from torch): they show "
      "as soon as they are there",
      root);
}

// fusermount3 would say so on standard error, and we only that it failed.
Status refuse_allow_other(Env& env, const MountOptions& options) {
  if (options.allow_other && ::geteuid() != 0 && !user_may_allow_other(env)) {
    return fail(ErrorKind::kIo,
                "users may not let others in: let root add the line user_allow_other to /etc/fuse.conf, or mount "
                "without --allow-other");
  }
  return {};
}

}  // namespace

std::string mount_option_help() {
  std::string own;
  for (const ValueOption& option : kWithValue) {
    own += fmt::format("{}={}, ", option.name, option.takes);
  }
  return fmt::format("{}{}; for the kernel {}, {}=", own, fmt::join(kFlags, ", "), fmt::join(kPassedOn, ", "),
                     fmt::join(kPassedOnWithValue, "=, "));
}

Status apply_mount_option(const std::string& option, MountRequest& request) {
  const size_t equals = option.find('=');
  const bool has_value = equals != std::string::npos;
  const std::string name = option.substr(0, equals);
  const std::string value = has_value ? option.substr(equals + 1) : "";
  MountOptions& mount = request.options;
  const auto flag = [&](bool& target, bool to) -> Status {
    if (has_value) {
      return fail(ErrorKind::kInvalidArgument, fmt::format("the mount option {} takes no value", name));
    }
    target = to;
    return {};
  };
  if (name.starts_with("x-") || name.starts_with("X-") || name == "comment" || name == "user") {
    return {};
  }
  if (const auto* const refused =
          std::find_if(kRefused.begin(), kRefused.end(), [&](const Refused& other) { return other.name == name; });
      refused != kRefused.end()) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("the mount option {} is refused: {}", name, refused->reason));
  }
  bool ignored = false;
  if (contains(kIgnored, name) || contains(kAlwaysSo, name)) {
    return flag(ignored, true);
  }
  if (contains(kPassedOn, name)) {
    mount.kernel_options.push_back(option);
    return flag(ignored, true);
  }
  if (name == "passthrough" || name == "no_passthrough") {
    return flag(mount.passthrough, name == "passthrough");
  }
  if (name == "allow_other") {
    return flag(mount.allow_other, true);
  }
  if (name == "over") {
    return flag(mount.over, true);
  }
  if (name == "nonempty") {
    return flag(mount.nonempty, true);
  }
  const bool takes_value =
      std::any_of(kWithValue.begin(), kWithValue.end(), [&](const ValueOption& one) { return one.name == name; });
  if (!takes_value && !contains(kPassedOnWithValue, name)) {
    return fail(unknown_option(option, name));
  }
  if (value.empty()) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("the mount option {} needs a value", name));
  }
  if (contains(kPassedOnWithValue, name)) {
    mount.kernel_options.push_back(option);
  } else if (name == "cache_dir") {
    mount.engine.cache_directory = value;
  } else if (name == "max_age") {
    if (value == "never") {
      mount.engine.aging.max_age.reset();
    } else {
      QCACHE_TRY_ASSIGN(mount.engine.aging.max_age, of_option(name, parse_duration(value)));
    }
  } else if (name == "max_size") {
    QCACHE_TRY_ASSIGN(mount.engine.aging.max_bytes, of_option(name, parse_size(value)));
  } else if (name == "aging_interval") {
    QCACHE_TRY_ASSIGN(mount.engine.aging_interval, of_option(name, parse_duration(value)));
  } else if (name == "threads") {
    QCACHE_TRY_ASSIGN(mount.engine.threads, parse_count(value, "threads"));
    if (mount.engine.threads > kMostThreads) {
      return fail(ErrorKind::kInvalidArgument, fmt::format("threads takes {} at most, not '{}'", kMostThreads, value));
    }
  } else if (name == "linger") {
    QCACHE_TRY_ASSIGN(mount.linger, of_option(name, parse_duration(value)));
  } else if (name == "max_read") {
    QCACHE_TRY_ASSIGN(mount.max_read, parse_count(value, "max_read"));
    if (mount.max_read < kLeastRead) {
      return fail(ErrorKind::kInvalidArgument,
                  fmt::format("max_read takes {} bytes or more, not '{}'", kLeastRead, value));
    }
  } else if (name == "log_file") {
    request.log_file = value;
  } else if (name == "log_level") {
    request.log_level = value;
  }
  return {};
}

std::vector<std::string> split_mount_options(const std::string& text) {
  std::vector<std::string> out(1);
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    quoted ^= text[i] == '"';
    if (text[i] == '\\' && i + 1 < text.size()) {
      out.back() += text[++i];
    } else if (text[i] == ',' && !quoted) {
      out.emplace_back();
    } else {
      out.back() += text[i];
    }
  }
  std::erase(out, "");
  return out;
}

Result<MountRequest> parse_helper_arguments(const std::vector<std::string>& arguments) {
  MountRequest request;
  std::vector<std::string> names;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word.size() < 2 || word[0] != '-') {
      names.push_back(word);
      continue;
    }
    const bool takes_value = word == "-o" || word == "-t" || word == "-N";
    if (takes_value && i + 1 == arguments.size()) {
      return fail(ErrorKind::kInvalidArgument, word + " needs a value");
    }
    if (word == "-o") {
      for (const std::string& option : split_mount_options(arguments[++i])) {
        QCACHE_TRY(apply_mount_option(option, request));
      }
    } else if (takes_value) {
      ++i;  // the type is known, and mount(8) enters a namespace itself
    } else if (word.find_first_not_of("sfnvrw", 1) != std::string::npos) {
      return fail(ErrorKind::kInvalidArgument, "unknown flag " + word);
    } else {
      for (const char letter : word) {
        if (letter == 'f') {
          request.fake = true;
        } else if (letter == 'r' || letter == 'w') {
          request.options.kernel_options.emplace_back(letter == 'r' ? "ro" : "rw");
        }
      }
    }
  }
  if (names.size() != 2) {
    return fail(ErrorKind::kInvalidArgument, "usage: mount.fuse.qcache MODELS[:MODELS...] MOUNTPOINT [-o options]");
  }
  request.options.engine.roots = split_roots(names[0]);
  request.options.mount_point = names[1];
  return request;
}

Status perform_mount(CommandContext& context, MountRequest request) {
  Env& env = context.env;
  EngineOptions& engine = request.options.engine;
  if (engine.cache_directory.empty()) {
    engine.cache_directory = default_cache_directory();
  }
  // The background process has "/" as its working directory.
  std::error_code ignored;
  engine.cache_directory = std::filesystem::absolute(engine.cache_directory, ignored).lexically_normal().string();
  request.options.mount_point = std::filesystem::absolute(request.options.mount_point, ignored).string();
  if (!request.log_file.empty()) {
    request.log_file = std::filesystem::absolute(request.log_file, ignored).string();
  }
  for (std::string& root : engine.roots) {
    root = std::filesystem::absolute(root, ignored).string();
  }
  const auto level = spdlog::level::from_str(request.log_level);
  if (level == spdlog::level::off && request.log_level != "off") {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("unknown log level '{}': use debug, info, warn, error or off", request.log_level));
  }
  if (request.fake) {
    return {};
  }
  QCACHE_TRY(refuse_allow_other(env, request.options));
  LogOptions log{request.log_file, level};
  const auto begin_log = [&env, &log]() -> Status {
    const std::string folder = std::filesystem::path(log.file).parent_path().string();
    if (!log.file.empty() && !env.stat(folder)) {
      return fail(ErrorKind::kIo, fmt::format("there is no folder {} for the log: make it first", folder));
    }
    Status begun = start_logging(log);
    if (!begun) {
      begun.error().kind = ErrorKind::kIo;  // no fault of the cache directory's
    }
    return begun;
  };
  if (request.foreground) {
    QCACHE_TRY(begin_log());
    return serve_mount(
        env, request.options, [] { return Status(); },
        [&] {
          notify_service_ready();
          for (const std::string& root : without_models(env, engine.roots)) {
            spdlog::warn("{}", says_without_models(root));
          }
        });
  }
  // The log lies in the cache directory, which is made once it is known that there will be a mount.
  const auto log_in_cache = [&]() -> Status {
    if (log.file.empty()) {
      QCACHE_TRY_ASSIGN(const CacheDirectory directory, CacheDirectory::open(env, engine.cache_directory));
      log.file = directory.path() + "/qcache.log";
      if (const auto is_file = open_named(env, log.file, O_WRONLY | O_CREAT, 0644); !is_file) {
        return fail(cache_unusable(is_file.error()));  // a link would be written through
      }
    }
    return begin_log();
  };
  const Status mounted = run_in_background([&](const std::function<void()>& ready) -> Status {
    QCACHE_TRY(start_logging({"", spdlog::level::warn}));  // on standard error, until then
    return serve_mount(env, request.options, log_in_cache, ready);
  });
  QCACHE_TRY(mounted);
  for (const std::string& root : without_models(env, engine.roots)) {
    context.err << "qcache: " << printable(says_without_models(root)) << '\n';
  }
  return {};
}

}  // namespace qcache
