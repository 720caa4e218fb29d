#include "tools/mount_table.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include <nlohmann/json.hpp>

namespace qcache {
namespace {

constexpr std::string_view kType = "fuse.qcache";

bool is_octal(char c) {
  return c >= '0' && c <= '7';
}

// The kernel writes space, tab, newline, backslash and '#' as "\040" and so on.
std::string decode_octal_escapes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end > 0) {
      out.push_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::optional<uint32_t> user_id_in(std::string_view options) {
  constexpr std::string_view kName = "user_id=";
  for (const std::string_view option : split(options, ',')) {
    uint32_t value = 0;
    const std::string_view digits = option.starts_with(kName) ? option.substr(kName.size()) : std::string_view();
    if (!digits.empty() && std::from_chars(digits.data(), digits.data() + digits.size(), value).ec == std::errc()) {
      return value;
    }
  }
  return std::nullopt;
}

// "36 35 98:0 /root /mnt/point rw,noatime shared:1 - type source superoptions": any number of optional fields.
std::optional<MountEntry> parse_line(std::string_view line) {
  constexpr size_t kRoot = 3;
  constexpr size_t kMountPoint = 4;
  constexpr size_t kOptions = 5;
  const auto fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (dash - fields.begin() <= static_cast<ptrdiff_t>(kOptions) || fields.end() - dash < 2) {
    return std::nullopt;
  }
  MountEntry entry;
  entry.root = decode_octal_escapes(fields[kRoot]);
  entry.mount_point = decode_octal_escapes(fields[kMountPoint]);
  entry.type = dash[1];
  entry.user_id = fields.end() - dash > 3 ? user_id_in(fields.back()) : std::nullopt;
  return entry;
}

bool lies_within(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/' || folder == "/");
}

}  // namespace

std::vector<MountEntry> parse_mount_info(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (const std::string_view line : split(text, '\n')) {
    if (auto entry = parse_line(line)) {
      std::erase_if(mounts, [&](const MountEntry& old) { return old.mount_point == entry->mount_point; });
      mounts.push_back(std::move(*entry));
    }
  }
  return mounts;
}

std::vector<RunningMount> running_mounts(Env& env, const std::string& table) {
  constexpr size_t kMaxTableBytes = size_t{16} << 20U;
  const auto text = read_text(env, table, kMaxTableBytes);
  std::vector<RunningMount> running;
  for (const MountEntry& entry : parse_mount_info(text.value_or(""))) {
    if (entry.type != kType || entry.root != "/") {
      continue;
    }
    const auto status = read_text(env, entry.mount_point + "/.qcache/status");
    const auto json = nlohmann::json::parse(status.value_or(""), nullptr, false);
    const auto directory = json.is_object() ? json.find("cache_dir") : json.end();
    if (json.is_object() && directory != json.end() && directory->is_string()) {
      running.push_back({entry.mount_point, directory->get<std::string>(), entry.user_id == ::geteuid()});
    }
  }
  return running;
}

std::string MountPath::full_path() const {
  std::string path = mount.mount_point;
  for (const std::string& name : names) {
    path += '/' + name;
  }
  return path;
}

std::optional<MountPath> locate_in_mounts(Env& env, const std::string& path, const std::vector<RunningMount>& mounts) {
  const auto real = env.real_path(path);
  std::error_code ignored;
  const std::string absolute = real ? *real : std::filesystem::absolute(path, ignored).lexically_normal().string();
  const RunningMount* best = nullptr;
  for (const RunningMount& mount : mounts) {
    if (lies_within(absolute, mount.mount_point) &&
        (best == nullptr || mount.mount_point.size() > best->mount_point.size())) {
      best = &mount;
    }
  }
  if (best == nullptr) {
    return std::nullopt;
  }
  return MountPath{*best, split_path(std::string_view(absolute).substr(best->mount_point.size()))};
}

Result<std::string> read_text(Env& env, const std::string& path, size_t limit) {
  constexpr size_t kPieceBytes = size_t{64} << 10U;
  QCACHE_TRY_ASSIGN(const UniqueFd fd, env.open(path, O_RDONLY));
  std::string text;
  while (text.size() < limit) {
    const size_t before = text.size();
    text.resize(std::min(before + kPieceBytes, limit));
    const std::span<char> room = std::span(text).subspan(before);
    QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd.get(), std::as_writable_bytes(room), before));
    text.resize(before + got);
    if (got == 0) {
      break;
    }
  }
  return text;
}

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> names;
  for (const std::string_view name : split(path, '/')) {
    names.emplace_back(name);
  }
  return names;
}

}  // namespace qcache
