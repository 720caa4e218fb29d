#include "core/layout/safetensors_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/checked.h"
#include "core/layout/groups.h"
#include "core/layout/little_endian.h"
#include "core/layout/safetensors_plan.h"

namespace qcache {
namespace {

constexpr uint64_t kPage = 4096;
/// What the reference reader accepts (safetensors, MAX_HEADER_SIZE).
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kBestAlignment = 64;
constexpr std::string_view kMetadataName = "__metadata__";

/// Tensors are placed by falling alignment, so that each starts at a multiple of its own. Empty ones, whose alignment
/// is 0, come last.
constexpr std::array<uint64_t, 8> kAlignments = {kBestAlignment, 32, 16, 8, 4, 2, 1, 0};

uint64_t alignment_of(uint64_t bytes) {
  return std::min(kBestAlignment, bytes & (~bytes + 1));
}

std::string json_string(std::string_view text) {
  const bool plain = std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
  if (plain) {
    return fmt::format("\"{}\"", text);  // nearly all are, and the library takes ten times as long
  }
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Every stored tensor, in file order and without a place yet.
std::vector<SafetensorsRecord> in_file_order(const std::vector<Group>& groups) {
  std::vector<SafetensorsRecord> records;
  for (uint32_t g = 0; g < groups.size(); ++g) {
    const std::vector<StoredTensor>& stored = groups[g].encoding.stored;
    for (uint32_t s = 0; s < stored.size(); ++s) {
      records.push_back({{0, stored[s].size_bytes()}, g, s});
    }
  }
  std::stable_sort(records.begin(), records.end(), [](const SafetensorsRecord& a, const SafetensorsRecord& b) {
    return alignment_of(a.range.size) > alignment_of(b.range.size);
  });
  return records;
}

/// What an entry of the header says before its offsets.
std::string entry_text(const StoredTensor& stored) {
  Shape shape = stored.shape;
  if (!shape.empty()) {
    shape.back() *= elements_per_item(stored.dtype);  // no overflow: the bytes of the whole were counted
  }
  return fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[)", json_string(stored.name),
                     safetensors_name(stored.dtype), fmt::join(shape, ","));
}
std::string offsets_text(uint64_t begin, uint64_t end) {
  return fmt::format("{},{}]}}", begin, end);
}

// Some loaders refuse a file that does not say whose tensors it holds.
std::string header_start(const Scheme& scheme) {
  return fmt::format(R"({{"{}":{{"format":"pt","qcache":"{} {}"}})", kMetadataName, scheme.name(), scheme.version());
}

constexpr uint64_t kLengthBytes = 8;

/// Bytes of the header's JSON with its padding, given those before it.
uint64_t padded_json_bytes(uint64_t json_bytes) {
  return round_up(json_bytes + kLengthBytes, kPage) - kLengthBytes;
}

Status check_entry(const SourceModel& model, const StoredTensor& stored) {
  if (stored.shape.empty() && elements_per_item(stored.dtype) > 1) {
    return fail(ErrorKind::kUnsupported,
                fmt::format("model '{}' cannot be stored as safetensors: tensor '{}' of {} has no dimension, but two "
                            "elements; use the .bin file",
                            model.name, stored.name, safetensors_name(stored.dtype)));
  }
  if (safetensors_name(stored.dtype).empty()) {
    return fail(ErrorKind::kUnsupported,
                fmt::format("model '{}' cannot be stored as safetensors, which has no type for {}, the dtype of tensor "
                            "'{}'; use the .bin file",
                            model.name, torch_name(stored.dtype), stored.name));
  }
  if (stored.name == kMetadataName) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("model '{}' cannot be stored as safetensors: a tensor is called '{}', which the format "
                            "reserves; rename it",
                            model.name, kMetadataName));
  }
  return {};
}

/// Where the tensor that begins at `position` of the data ends.
Result<uint64_t> end_of(const SourceModel& model, const Scheme& scheme, uint64_t position, uint64_t bytes) {
  const auto end = checked_add(position, bytes);
  if (!end || *end > kMaxFileBytes - 2 * kMaxHeaderBytes) {
    return fail(ErrorKind::kInvalidModel,
                fmt::format("model '{}' is too large for dtype '{}': its file would exceed 2^63 bytes", model.name,
                            scheme.name()));
  }
  return *end;
}

Status check_header(const SourceModel& model, uint64_t json_bytes) {
  if (padded_json_bytes(json_bytes) > kMaxHeaderBytes) {
    return fail(ErrorKind::kUnsupported,
                fmt::format("model '{}' has too many tensors for one safetensors file: its header would have more than "
                            "the {} bytes that readers accept; use the .bin file",
                            model.name, kMaxHeaderBytes));
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const LayoutPlan>> plan_safetensors(const SourceModel& model, const Scheme& scheme,
                                                           const Contents& contents) {
  SafetensorsPlan::Parts parts;
  QCACHE_TRY_ASSIGN(parts.groups, plan_groups(model, scheme, contents));
  for (Group& group : parts.groups) {
    group.data_offsets.resize(group.encoding.stored.size());
    group.trailer_bytes.resize(group.encoding.stored.size());
  }
  parts.records = in_file_order(parts.groups);

  std::string& header = parts.header;
  header.assign(kLengthBytes, '\0');
  header += header_start(scheme);
  uint64_t position = 0;
  for (SafetensorsRecord& record : parts.records) {
    const StoredTensor& stored = parts.groups[record.group].encoding.stored[record.stored];
    QCACHE_TRY(check_entry(model, stored));
    record.range.offset = position;
    QCACHE_TRY_ASSIGN(position, end_of(model, scheme, position, record.range.size));
    header += entry_text(stored);
    header += offsets_text(record.range.offset, position);
    QCACHE_TRY(check_header(model, header.size() - kLengthBytes));
  }
  header += '}';
  header.resize(kLengthBytes + padded_json_bytes(header.size() - kLengthBytes), ' ');
  QCACHE_TRY(check_header(model, header.size() - kLengthBytes));
  std::string length;
  append_le(length, uint64_t{header.size() - kLengthBytes});
  header.replace(0, kLengthBytes, length);
  header.shrink_to_fit();

  std::erase_if(parts.records, [](const SafetensorsRecord& record) { return record.range.empty(); });
  for (SafetensorsRecord& record : parts.records) {
    record.range.offset += parts.header.size();
    parts.groups[record.group].data_offsets[record.stored] = record.range.offset;
  }
  parts.size_bytes = parts.header.size() + position;
  parts.records.shrink_to_fit();
  return std::make_shared<const SafetensorsPlan>(std::move(parts));
}

Result<uint64_t> safetensors_size(const SourceModel& model, const Scheme& scheme, const Contents& contents) {
  struct Stored {
    uint64_t bytes = 0;
    uint64_t text = 0;  ///< length of the entry before its offsets
  };
  std::vector<Stored> all;
  uint64_t json_bytes = header_start(scheme).size() + 1;
  const auto count = [&](const Group& group) -> Status {
    for (const StoredTensor& stored : group.encoding.stored) {
      QCACHE_TRY(check_entry(model, stored));
      all.push_back({stored.size_bytes(), entry_text(stored).size()});
      json_bytes += all.back().text;
    }
    return check_header(model, json_bytes);
  };
  QCACHE_TRY(visit_groups(model, scheme, contents, count));
  uint64_t position = 0;
  for (const uint64_t alignment : kAlignments) {
    for (const Stored& stored : all) {
      if (alignment_of(stored.bytes) == alignment) {
        const uint64_t begin = position;
        QCACHE_TRY_ASSIGN(position, end_of(model, scheme, begin, stored.bytes));
        json_bytes += offsets_text(begin, position).size();
      }
    }
  }
  QCACHE_TRY(check_header(model, json_bytes));
  return kLengthBytes + padded_json_bytes(json_bytes) + position;
}

}  // namespace qcache
