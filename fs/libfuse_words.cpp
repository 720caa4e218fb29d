#include "fs/libfuse_words.h"

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <string_view>
#include <vector>

#include "core/base/log.h"
#include "fs/fuse_api.h"
#include "fs/spawned_program.h"

namespace qcache {
namespace {

std::vector<std::string>& said() {
  static std::vector<std::string> texts;
  return texts;
}

std::atomic<bool>& setting_up() {
  static std::atomic<bool> value;
  return value;
}

void hear(fuse_log_level level, const char* format, va_list arguments) {
  if (level >= FUSE_LOG_DEBUG) {
    std::vfprintf(stderr, format, arguments);
    return;
  }
  std::array<char, 1024> text{};
  const int length = std::vsnprintf(text.data(), text.size(), format, arguments);
  if (length <= 0) {
    return;
  }
  if (setting_up()) {
    said().emplace_back(text.data());
  } else {
    spdlog::log(level <= FUSE_LOG_ERR ? spdlog::level::err : spdlog::level::warn, "{}", one_line(text.data()));
  }
}

}  // namespace

LibfuseWords::LibfuseWords() {
  said().clear();
  setting_up() = true;
  fuse_set_log_func(&hear);
}

LibfuseWords::~LibfuseWords() {
  setting_up() = false;
}

std::string LibfuseWords::reason() {
  constexpr std::string_view kPrefix = "fuse: ";
  std::string reason;
  for (const std::string& text : said()) {
    const std::string line = one_line(text.starts_with(kPrefix) ? text.substr(kPrefix.size()) : text);
    if (!line.empty() && reason.find(line) == std::string::npos) {
      reason += (reason.empty() ? ": " : "; ") + line;
    }
  }
  const bool lacks_helper = reason.find("call 'fusermount3': No such file") != std::string::npos;
  return reason + (lacks_helper ? " (users mount by it: install the package fuse3)" : "");
}

}  // namespace qcache
