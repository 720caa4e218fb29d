// Layout of the numbers: PKWARE's APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12 (directory entry), 4.3.14 to
// 4.3.16 (end records) and 4.5.3 (zip64 sizes).

#include "core/model/zip_directory.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "core/base/checked.h"
#include "core/model/text.h"

namespace qcache {
namespace {

constexpr uint32_t kLocalSignature = 0x04034B50;
constexpr uint32_t kEntrySignature = 0x02014B50;
constexpr std::string_view kEndSignature = "PK\5\6";
constexpr uint32_t kZip64EndSignature = 0x06064B50;
constexpr uint32_t kZip64LocatorSignature = 0x07064B50;
constexpr uint64_t kLocalBytes = 30;
constexpr uint64_t kEntryBytes = 46;
constexpr uint64_t kEndBytes = 22;
constexpr uint64_t kZip64EndBytes = 56;
constexpr uint64_t kZip64LocatorBytes = 20;
constexpr uint64_t kMaxComment = 0xFFFF;
constexpr uint64_t kMaxName = 511;
constexpr uint64_t kMaxDirectoryBytes = uint64_t{64} << 20;
constexpr uint16_t kEncrypted = 1;
constexpr uint16_t kIn64 = 0xFFFF;  // such a number stands in a zip64 record instead
constexpr uint32_t kIn64Wide = 0xFFFFFFFF;

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

/// What the end records say of the directory.
struct Directory {
  uint64_t entries = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

Status check_zip64(const Directory& wide, std::string_view end) {
  const auto agrees = [](uint64_t wide_value, uint64_t value, uint64_t marker) {
    return value == marker || value == wide_value;
  };
  if (!agrees(wide.entries, load_le<uint16_t>(end, 10), kIn64) ||
      !agrees(wide.size, load_le<uint32_t>(end, 12), kIn64Wide) ||
      !agrees(wide.offset, load_le<uint32_t>(end, 16), kIn64Wide)) {
    return invalid("the two end records of the zip archive contradict each other");
  }
  return {};
}

// `end` is the short end record, at `end_offset`. The zip64 record ends where its locator begins, and that one where
// the short record begins.
Result<std::optional<Directory>> read_zip64(ByteSource& source, std::string_view end, uint64_t end_offset) {
  if (end_offset < kZip64LocatorBytes + kZip64EndBytes) {
    return std::nullopt;
  }
  const uint64_t locator_offset = end_offset - kZip64LocatorBytes;
  QCACHE_TRY_ASSIGN(const auto locator_bytes, source.read(locator_offset, kZip64LocatorBytes));
  const std::string_view locator = as_view(locator_bytes);
  if (load_le<uint32_t>(locator, 0) != kZip64LocatorSignature) {
    return std::nullopt;
  }
  const auto offset = load_le<uint64_t>(locator, 8);
  if (load_le<uint32_t>(locator, 4) != 0 || load_le<uint32_t>(locator, 16) > 1) {
    return invalid("the zip archive is split over several files, which qcache does not read");
  }
  if (offset > locator_offset - kZip64EndBytes) {
    return invalid("the zip64 end record does not lie before its locator");
  }
  QCACHE_TRY_ASSIGN(const auto record_bytes, source.read(offset, kZip64EndBytes));
  const std::string_view record = as_view(record_bytes);
  constexpr uint64_t kBeforeSize = 12;  // signature and size, which the size leaves out
  if (load_le<uint32_t>(record, 0) != kZip64EndSignature ||
      load_le<uint64_t>(record, 4) != locator_offset - offset - kBeforeSize) {
    return invalid("there is no zip64 end record where its locator says");
  }
  const Directory wide{load_le<uint64_t>(record, 32), load_le<uint64_t>(record, 48), load_le<uint64_t>(record, 40)};
  if (load_le<uint32_t>(record, 16) != 0 || load_le<uint32_t>(record, 20) != 0 ||
      load_le<uint64_t>(record, 24) != wide.entries) {
    return invalid("the zip archive is split over several files, which qcache does not read");
  }
  QCACHE_TRY(check_zip64(wide, end));
  const auto directory_end = checked_add(wide.offset, wide.size);
  if (!directory_end || *directory_end > offset) {
    return invalid("the directory of the zip archive does not lie before its end records");
  }
  return wide;
}

Result<Directory> read_end(ByteSource& source) {
  const uint64_t size = source.size();
  if (size < kEndBytes) {
    return invalid("the file is too short for a zip archive: is it complete?");
  }
  const uint64_t tail_offset = size - std::min(size, kEndBytes + kMaxComment);
  QCACHE_TRY_ASSIGN(const auto tail_bytes, source.read(tail_offset, size - tail_offset));
  const std::string_view tail = as_view(tail_bytes);
  const size_t found = tail.rfind(kEndSignature, tail.size() - kEndBytes);
  if (found == std::string::npos) {
    return invalid("the zip archive has no end record: is the file complete?");
  }
  const std::string_view end = tail.substr(found);
  if (load_le<uint16_t>(end, 20) != end.size() - kEndBytes) {
    return invalid("the zip archive does not end with its end record: is the file complete?");
  }
  const uint64_t end_offset = tail_offset + found;
  QCACHE_TRY_ASSIGN(const auto wide, read_zip64(source, end, end_offset));
  if (wide) {
    return *wide;
  }
  const Directory directory{load_le<uint16_t>(end, 10), load_le<uint32_t>(end, 16), load_le<uint32_t>(end, 12)};
  if (load_le<uint16_t>(end, 4) != 0 || load_le<uint16_t>(end, 6) != 0 ||
      load_le<uint16_t>(end, 8) != directory.entries) {
    return invalid("the zip archive is split over several files, which qcache does not read");
  }
  if (directory.offset + directory.size > end_offset) {
    return invalid("the directory of the zip archive does not lie before its end records");
  }
  return directory;
}

/// The numbers of one directory entry that may stand in its zip64 field.
struct WideNumbers {
  uint64_t uncompressed = 0;
  uint64_t compressed = 0;
  uint64_t header_offset = 0;
};

// The field holds, in this order, those that the entry itself has no room for.
Status apply_zip64(std::string_view extra, WideNumbers& numbers, const std::string& name) {
  constexpr uint16_t kZip64 = 0x0001;
  std::vector<uint64_t*> missing;
  for (uint64_t* number : {&numbers.uncompressed, &numbers.compressed, &numbers.header_offset}) {
    if (*number == kIn64Wide) {
      missing.push_back(number);
    }
  }
  while (!missing.empty() && extra.size() >= 4) {
    const auto id = load_le<uint16_t>(extra, 0);
    const auto size = load_le<uint16_t>(extra, 2);
    extra.remove_prefix(4);
    if (size > extra.size()) {
      break;
    }
    if (id == kZip64) {
      if (size < missing.size() * sizeof(uint64_t)) {
        break;
      }
      for (size_t i = 0; i < missing.size(); ++i) {
        *missing[i] = load_le<uint64_t>(extra, i * sizeof(uint64_t));
      }
      return {};
    }
    extra.remove_prefix(size);
  }
  if (!missing.empty()) {
    return invalid(fmt::format("member {} of the zip archive lacks its zip64 sizes", name));
  }
  return {};
}

}  // namespace

Result<ZipDirectory> ZipDirectory::read(ByteSource& source) {
  QCACHE_TRY_ASSIGN(const Directory place, read_end(source));
  if (place.size > kMaxDirectoryBytes) {
    return invalid(fmt::format("the directory of the zip archive has {} bytes, more than the {} that qcache reads",
                               place.size, kMaxDirectoryBytes));
  }
  if (place.entries > place.size / kEntryBytes) {
    return invalid(fmt::format("the zip archive claims {} members, but its directory has room for {}", place.entries,
                               place.size / kEntryBytes));
  }
  ZipDirectory directory;
  directory.bytes_.resize(place.size);
  QCACHE_TRY(source.read(place.offset, std::as_writable_bytes(std::span(directory.bytes_))));
  QCACHE_TRY(directory.parse(place.entries, place.offset));
  QCACHE_TRY(directory.order(place.offset));
  return directory;
}

Status ZipDirectory::parse(uint64_t count, uint64_t directory_offset) {
  std::string_view rest(bytes_.data(), bytes_.size());
  entries_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    if (rest.size() < kEntryBytes || load_le<uint32_t>(rest, 0) != kEntrySignature) {
      return invalid(fmt::format("the directory of the zip archive ends after {} of its {} members", i, count));
    }
    const auto flags = load_le<uint16_t>(rest, 8);
    const auto method = load_le<uint16_t>(rest, 10);
    WideNumbers numbers{load_le<uint32_t>(rest, 24), load_le<uint32_t>(rest, 20), load_le<uint32_t>(rest, 42)};
    const uint64_t name_bytes = load_le<uint16_t>(rest, 28);
    const uint64_t extra_bytes = load_le<uint16_t>(rest, 30);
    const uint64_t entry_bytes = kEntryBytes + name_bytes + extra_bytes + load_le<uint16_t>(rest, 32);
    if (entry_bytes > rest.size()) {
      return invalid(fmt::format("member {} of the zip archive reaches beyond its directory", i));
    }
    if (name_bytes == 0 || name_bytes > kMaxName) {
      return invalid(fmt::format("member {} of the zip archive has a name of {} bytes", i, name_bytes));
    }
    Entry entry;
    entry.name = rest.substr(kEntryBytes, name_bytes);
    const std::string name = in_quotes(entry.name);
    QCACHE_TRY(apply_zip64(rest.substr(kEntryBytes + name_bytes, extra_bytes), numbers, name));
    if ((flags & kEncrypted) != 0) {
      return invalid(fmt::format("member {} of the zip archive is encrypted", name));
    }
    if (method != 0 || numbers.compressed != numbers.uncompressed) {
      return invalid(
          fmt::format("member {} of the zip archive is compressed, as in TorchScript archives: qcache reads what "
                      "torch.save writes, so save a state_dict()",
                      name));
    }
    entry.header_offset = numbers.header_offset;
    entry.size = numbers.uncompressed;
    const auto headers = checked_add(entry.header_offset, kLocalBytes + name_bytes);
    const auto end = headers ? checked_add(*headers, entry.size) : std::nullopt;
    if (!end || *end > directory_offset) {
      return invalid(
          fmt::format("member {} of the zip archive reaches into its directory: is the file complete?", name));
    }
    entries_.push_back(entry);
    rest.remove_prefix(entry_bytes);
  }
  return {};
}

Status ZipDirectory::order(uint64_t directory_offset) {
  by_name_.resize(entries_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::sort(by_name_.begin(), by_name_.end(),
            [this](uint32_t a, uint32_t b) { return entries_[a].header_offset < entries_[b].header_offset; });
  for (size_t i = 0; i < by_name_.size(); ++i) {
    Entry& entry = entries_[by_name_[i]];
    entry.limit = i + 1 < by_name_.size() ? entries_[by_name_[i + 1]].header_offset : directory_offset;
    if (entry.header_offset + kLocalBytes + entry.name.size() + entry.size > entry.limit) {
      return invalid(fmt::format("member {} of the zip archive overlaps the one after it", in_quotes(entry.name)));
    }
  }
  std::sort(by_name_.begin(), by_name_.end(),
            [this](uint32_t a, uint32_t b) { return entries_[a].name < entries_[b].name; });
  const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(), [this](uint32_t a, uint32_t b) {
    return entries_[a].name == entries_[b].name;
  });
  if (twice != by_name_.end()) {
    return invalid(fmt::format("the zip archive has two members called {}", in_quotes(entries_[*twice].name)));
  }
  return {};
}

const ZipDirectory::Entry* ZipDirectory::find(std::string_view name) const {
  const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                      [this](uint32_t i, std::string_view n) { return entries_[i].name < n; });
  return found != by_name_.end() && entries_[*found].name == name ? &entries_[*found] : nullptr;
}

Result<ByteRange> locate_zip_member(ByteSource& source, const ZipDirectory::Entry& entry) {
  QCACHE_TRY_ASSIGN(const auto bytes, source.read(entry.header_offset, kLocalBytes + entry.name.size()));
  const std::string_view header = as_view(bytes);
  if (load_le<uint32_t>(header, 0) != kLocalSignature || load_le<uint16_t>(header, 8) != 0 ||
      load_le<uint16_t>(header, 26) != entry.name.size() || header.substr(kLocalBytes) != entry.name) {
    return invalid(
        fmt::format("the header of member {} of the zip archive contradicts the directory", in_quotes(entry.name)));
  }
  const uint64_t offset = entry.header_offset + header.size() + load_le<uint16_t>(header, 28);
  if (offset + entry.size > entry.limit) {
    return invalid(fmt::format("member {} of the zip archive overlaps what follows it: is the file complete?",
                               in_quotes(entry.name)));
  }
  return ByteRange{offset, entry.size};
}

}  // namespace qcache
