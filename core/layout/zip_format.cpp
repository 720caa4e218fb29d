#include "core/layout/zip_format.h"

#include <algorithm>

#include "core/base/checked.h"
#include "core/layout/little_endian.h"

namespace qcache {
namespace {

constexpr uint32_t kLocalSignature = 0x04034B50;
constexpr uint32_t kCentralSignature = 0x02014B50;
constexpr uint32_t kZip64EndSignature = 0x06064B50;
constexpr uint32_t kZip64LocatorSignature = 0x07064B50;
constexpr uint32_t kEndSignature = 0x06054B50;

constexpr uint32_t kFull32 = 0xFFFFFFFF;  ///< "look in the zip64 field"
constexpr uint16_t kFull16 = 0xFFFF;

constexpr uint16_t kVersionPlain = 10;
constexpr uint16_t kVersionZip64 = 45;
constexpr uint16_t kMadeBy = 0x032D;     ///< Unix, 4.5
constexpr uint16_t kUtf8Names = 0x0800;  ///< no data descriptor: sizes and CRC are known
constexpr uint16_t kStored = 0;
constexpr uint16_t kMidnight = 0;
constexpr uint16_t kFirstOf1980 = 0x0021;  ///< the earliest date that is valid: the same file on every day
constexpr uint32_t kReadOnlyFile = uint32_t{0100444} << 16;

constexpr uint16_t kZip64Field = 0x0001;
constexpr uint16_t kPaddingField = 0x4246;  ///< "FB"
constexpr size_t kFieldHeader = 4;          ///< id and length

uint32_t short_form(uint64_t value) {
  return static_cast<uint32_t>(std::min<uint64_t>(value, kFull32));
}
bool needs_zip64(uint64_t value) {
  return value >= kFull32;
}

/// The fields that local and central headers share, from the version to the sizes.
void append_common(std::string& out, const ZipMember& member, uint16_t version_needed) {
  append_le(out, version_needed);
  append_le(out, kUtf8Names);
  append_le(out, kStored);
  append_le(out, kMidnight);
  append_le(out, kFirstOf1980);
  append_le(out, member.crc);
  append_le(out, short_form(member.size));
  append_le(out, short_form(member.size));
  append_le(out, static_cast<uint16_t>(member.name.size()));
}

uint64_t local_zip64_bytes(const ZipMember& member) {
  return needs_zip64(member.size) ? kFieldHeader + 16 : 0;
}

/// Bytes of a local header before its padding.
uint64_t fixed_header_bytes(const ZipMember& member) {
  constexpr uint64_t kBeforeName = 30;
  return kBeforeName + member.name.size() + local_zip64_bytes(member) + kFieldHeader;
}

}  // namespace

uint64_t local_header_bytes(const ZipMember& member, uint32_t data_alignment) {
  return round_up(member.header_offset + fixed_header_bytes(member), data_alignment) - member.header_offset;
}

ZipLocalHeader local_header(const ZipMember& member, uint32_t data_alignment) {
  const uint64_t zip64_bytes = local_zip64_bytes(member);
  const bool large = zip64_bytes > 0;
  ZipLocalHeader header;
  header.padding = static_cast<uint32_t>(local_header_bytes(member, data_alignment) - fixed_header_bytes(member));

  std::string& out = header.fixed;
  append_le(out, kLocalSignature);
  append_common(out, member, large ? kVersionZip64 : kVersionPlain);
  append_le(out, static_cast<uint16_t>(zip64_bytes + kFieldHeader + header.padding));
  out += member.name;
  if (large) {
    append_le(out, kZip64Field);
    append_le(out, uint16_t{16});
    append_le(out, member.size);
    append_le(out, member.size);
  }
  append_le(out, kPaddingField);
  append_le(out, static_cast<uint16_t>(header.padding));
  return header;
}

void append_central_entry(std::string& out, const ZipMember& member) {
  const uint16_t size_bytes = needs_zip64(member.size) ? 16 : 0;
  const uint16_t offset_bytes = needs_zip64(member.header_offset) ? 8 : 0;
  const auto zip64_bytes = static_cast<uint16_t>(size_bytes + offset_bytes);
  append_le(out, kCentralSignature);
  append_le(out, kMadeBy);
  append_common(out, member, zip64_bytes > 0 ? kVersionZip64 : kVersionPlain);
  append_le(out, static_cast<uint16_t>(zip64_bytes > 0 ? kFieldHeader + zip64_bytes : 0));
  append_le(out, uint16_t{0});  // comment
  append_le(out, uint16_t{0});  // disk
  append_le(out, uint16_t{0});  // internal attributes
  append_le(out, kReadOnlyFile);
  append_le(out, short_form(member.header_offset));
  out += member.name;
  if (zip64_bytes > 0) {
    append_le(out, kZip64Field);
    append_le(out, zip64_bytes);
    if (size_bytes > 0) {
      append_le(out, member.size);
      append_le(out, member.size);
    }
    if (offset_bytes > 0) {
      append_le(out, member.header_offset);
    }
  }
}

void append_directory_end(std::string& out, uint64_t entries, uint64_t directory_offset, uint64_t directory_bytes) {
  const auto short_entries = static_cast<uint16_t>(std::min<uint64_t>(entries, kFull16));
  if (entries >= kFull16 || needs_zip64(directory_offset) || needs_zip64(directory_bytes)) {
    append_le(out, kZip64EndSignature);
    append_le(out, uint64_t{44});  // of this record, from here on
    append_le(out, kMadeBy);
    append_le(out, kVersionZip64);
    append_le(out, uint32_t{0});  // this disk
    append_le(out, uint32_t{0});  // the directory's disk
    append_le(out, entries);
    append_le(out, entries);
    append_le(out, directory_bytes);
    append_le(out, directory_offset);

    append_le(out, kZip64LocatorSignature);
    append_le(out, uint32_t{0});  // disk
    append_le(out, directory_offset + directory_bytes);
    append_le(out, uint32_t{1});  // disks
  }
  append_le(out, kEndSignature);
  append_le(out, uint16_t{0});  // this disk
  append_le(out, uint16_t{0});  // the directory's disk
  append_le(out, short_entries);
  append_le(out, short_entries);
  append_le(out, short_form(directory_bytes));
  append_le(out, short_form(directory_offset));
  append_le(out, uint16_t{0});  // comment
}

}  // namespace qcache
