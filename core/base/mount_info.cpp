#include "core/base/mount_info.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <span>

namespace qcache {
namespace {

constexpr const char* kTablePath = "/proc/self/mountinfo";
constexpr size_t kMaxTableBytes = size_t{16} << 20U;

// Filesystems whose answers depend on this machine's disks and memory alone. All others (fuse, nfs, cifs, 9p, ceph,
// autofs, ...) may be waited for without end, and one that is not known is taken for one of them.
constexpr std::array<std::string_view, 24> kLocalTypes = {
    "ext2", "ext3",     "ext4",     "xfs",  "btrfs", "tmpfs",   "ramfs", "overlay",
    "zfs",  "f2fs",     "bcachefs", "vfat", "msdos", "exfat",   "ntfs3", "iso9660",
    "udf",  "squashfs", "erofs",    "jfs",  "hfs",   "hfsplus", "minix", "rootfs"};

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

std::optional<uint32_t> number_in(std::string_view digits) {
  uint32_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, value);
  return !digits.empty() && parsed.ec == std::errc() && parsed.ptr == end ? std::optional(value) : std::nullopt;
}

std::optional<uint32_t> user_id_in(std::string_view options) {
  constexpr std::string_view kName = "user_id=";
  for (const std::string_view option : split(options, ',')) {
    if (option.starts_with(kName)) {
      return number_in(option.substr(kName.size()));
    }
  }
  return std::nullopt;
}

uint64_t device_in(std::string_view major_and_minor) {
  const size_t colon = std::min(major_and_minor.find(':'), major_and_minor.size());
  const auto major = number_in(major_and_minor.substr(0, colon));
  const auto minor = number_in(major_and_minor.substr(std::min(colon + 1, major_and_minor.size())));
  return major && minor ? makedev(*major, *minor) : 0;
}

// "36 35 98:0 /root /mnt/point rw,noatime shared:1 - type source superoptions": any number of optional fields.
std::optional<MountEntry> parse_line(std::string_view line) {
  constexpr size_t kDevice = 2;
  constexpr size_t kRoot = 3;
  constexpr size_t kMountPoint = 4;
  constexpr size_t kOptions = 5;
  const auto fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (dash - fields.begin() <= static_cast<ptrdiff_t>(kOptions) || fields.end() - dash < 2) {
    return std::nullopt;
  }
  MountEntry entry;
  entry.id = number_in(fields[0]).value_or(0);
  entry.device = device_in(fields[kDevice]);
  entry.root = decode_octal_escapes(fields[kRoot]);
  entry.mount_point = decode_octal_escapes(fields[kMountPoint]);
  entry.type = dash[1];
  entry.user_id = fields.end() - dash > 3 ? user_id_in(fields.back()) : std::nullopt;
  return entry;
}

}  // namespace

std::vector<MountEntry> parse_all_mounts(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (const std::string_view line : split(text, '\n')) {
    if (auto entry = parse_line(line)) {
      mounts.push_back(std::move(*entry));
    }
  }
  return mounts;
}

std::vector<MountEntry> parse_mount_info(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (MountEntry& entry : parse_all_mounts(text)) {
    std::erase_if(mounts, [&](const MountEntry& old) { return old.mount_point == entry.mount_point; });
    mounts.push_back(std::move(entry));
  }
  return mounts;
}

Result<std::string> read_mount_info(Env& env) {
  return read_text(env, kTablePath, kMaxTableBytes);
}

bool lies_within(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/' || folder == "/");
}

Result<std::string> read_text(Env& env, const std::string& path, size_t limit) {
  constexpr size_t kFirstPieceBytes = size_t{4} << 10U;
  QCACHE_TRY_ASSIGN(const UniqueFd fd, env.open(path, O_RDONLY));
  std::string text;
  while (text.size() < limit) {
    const size_t before = text.size();
    text.resize(std::min(before + std::max(before, kFirstPieceBytes), limit));
    const std::span<char> room = std::span(text).subspan(before);
    QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd.get(), std::as_writable_bytes(room), before));
    text.resize(before + got);
    if (got == 0) {
      break;
    }
  }
  return text;
}

MountTable MountTable::read(Env& env) {
  return MountTable(parse_mount_info(read_mount_info(env).value_or("")));
}

MountTable::MountTable(std::vector<MountEntry> entries) : entries_(std::move(entries)) {
  for (const MountEntry& entry : entries_) {
    if (entry.type == kQcacheMountType) {
      points_.insert(entry.mount_point);
      devices_.insert(entry.device);
    }
  }
}

bool MountTable::may_stop(std::string_view folder) const {
  const auto stops = [](const MountEntry& entry) {
    return std::find(kLocalTypes.begin(), kLocalTypes.end(), entry.type) == kLocalTypes.end();
  };
  const MountEntry* holder = nullptr;
  for (const MountEntry& entry : entries_) {
    if (lies_within(folder, entry.mount_point)) {
      if (holder == nullptr || entry.mount_point.size() >= holder->mount_point.size()) {
        holder = &entry;
      }
    } else if (lies_within(entry.mount_point, folder) && entry.type != kQcacheMountType && stops(entry)) {
      return true;
    }
  }
  return holder != nullptr && stops(*holder);
}

std::shared_ptr<const MountTable> MountWatch::now() {
  const MutexLock lock(mutex_);
  bool current = false;
  if (events_.valid()) {
    pollfd event{events_.get(), POLLPRI, 0};
    current = ::poll(&event, 1, 0) == 0;
  } else if (auto opened = env_.open(kTablePath, O_RDONLY)) {
    events_ = std::move(*opened);
    pollfd event{events_.get(), POLLPRI, 0};
    (void)::poll(&event, 1, 0);  // from here on changes are told
  }
  if (!table_ || !current) {
    table_ = std::make_shared<const MountTable>(MountTable::read(env_));
  }
  return table_;
}

}  // namespace qcache
