#include "tools/mount_request.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include "core/base/units.h"
#include "tools/background.h"
#include "tools/service_notify.h"

namespace qcache {
namespace {

// Of interest to mount(8), systemd or fstab readers only. They reach every helper, which must accept them.
constexpr std::array kIgnored = {"defaults", "nofail", "_netdev", "auto",  "noauto", "user",
                                 "nouser",   "users",  "nousers", "owner", "group",  "rw",
                                 "suid",     "dev",    "exec",    "async", "nowarn"};
// Known to the kernel or to libfuse's mount code; passed on as they are.
constexpr std::array kPassedOn = {"ro",      "nosuid",    "nodev",       "noexec",      "noatime", "nodiratime",
                                  "atime",   "relatime",  "strictatime", "sync",        "dirsync", "auto_unmount",
                                  "context", "fscontext", "defcontext",  "rootcontext", "max_read"};

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

}  // namespace

Status apply_mount_option(const std::string& option, MountRequest& request) {
  const size_t equals = option.find('=');
  const std::string name = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  MountOptions& mount = request.options;
  if (name == "cache_dir") {
    mount.engine.cache_directory = value;
  } else if (name == "max_age") {
    if (value == "never") {
      mount.engine.aging.max_age.reset();
    } else {
      QCACHE_TRY_ASSIGN(mount.engine.aging.max_age, parse_duration(value));
    }
  } else if (name == "max_size") {
    QCACHE_TRY_ASSIGN(mount.engine.aging.max_bytes, parse_size(value));
  } else if (name == "aging_interval") {
    QCACHE_TRY_ASSIGN(mount.engine.aging_interval, parse_duration(value));
  } else if (name == "threads") {
    QCACHE_TRY_ASSIGN(mount.engine.threads, parse_count(value, "threads"));
  } else if (name == "passthrough") {
    mount.passthrough = true;
  } else if (name == "no_passthrough") {
    mount.passthrough = false;
  } else if (name == "allow_other") {
    mount.allow_other = true;
  } else if (name == "linger") {
    QCACHE_TRY_ASSIGN(mount.linger, parse_duration(value));
  } else if (name == "log_file") {
    request.log_file = value;
  } else if (name == "log_level") {
    request.log_level = value;
  } else if (contains(kPassedOn, name)) {
    mount.kernel_options.push_back(option);
  } else if (!contains(kIgnored, name) && !name.starts_with("x-") && !name.starts_with("X-") &&
             !name.starts_with("comment")) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("unknown mount option '{}': see 'qcache mount --help'", option));
  }
  return {};
}

std::vector<std::string> split_mount_options(const std::string& text) {
  std::vector<std::string> out(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      out.back() += text[++i];
    } else if (text[i] == ',') {
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
    } else if (word.find('f') != std::string::npos) {
      request.fake = true;
    }
  }
  if (names.size() != 2) {
    return fail(ErrorKind::kInvalidArgument, "usage: mount.fuse.qcache MODELS[:MODELS...] MOUNTPOINT [-o options]");
  }
  request.options.engine.roots = split_roots(names[0]);
  request.options.mount_point = names[1];
  return request;
}

Status perform_mount(Env& env, MountRequest request) {
  EngineOptions& engine = request.options.engine;
  if (engine.cache_directory.empty()) {
    engine.cache_directory = default_cache_directory();
  }
  // The background process has "/" as its working directory.
  std::error_code ignored;
  engine.cache_directory = std::filesystem::absolute(engine.cache_directory, ignored).lexically_normal().string();
  request.options.mount_point = std::filesystem::absolute(request.options.mount_point, ignored).string();
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
  LogOptions log{request.log_file, level};
  if (request.foreground) {
    QCACHE_TRY(start_logging(log));
    return serve_mount(env, request.options, [] { notify_service_ready(); });
  }
  return run_in_background([&](const std::function<void()>& ready) -> Status {
    if (log.file.empty()) {
      // The log lies in the cache directory, so that must exist first.
      QCACHE_TRY_ASSIGN(const CacheDirectory directory, CacheDirectory::open(env, engine.cache_directory));
      log.file = directory.path() + "/qcache.log";
    }
    QCACHE_TRY(start_logging(log));
    return serve_mount(env, request.options, ready);
  });
}

}  // namespace qcache
