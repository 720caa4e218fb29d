#include "core/layout/safetensors_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

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
uint64_t alignment_of(uint64_t bytes) {
  return std::min(kBestAlignment, bytes & (~bytes + 1));
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

Result<std::shared_ptr<const LayoutPlan>> plan_safetensors(const std::shared_ptr<const SourceModel>& model,
                                                           const Scheme& scheme, const Contents& contents) {
  SafetensorsPlan::Parts parts;
  parts.header_begin.assign(kLengthBytes, '\0');
  parts.header_begin += header_start(scheme);
  uint64_t json_bytes = parts.header_begin.size() - kLengthBytes;
  size_t stored_count = 0;
  const auto list = [&](const Group& group) -> Status {
    const auto index = static_cast<uint32_t>(parts.first_stored.size());
    parts.first_stored.push_back(static_cast<uint32_t>(stored_count));
    for (size_t s = 0; s < group.encoding.stored.size(); ++s, ++stored_count) {
      const StoredTensor& stored = group.encoding.stored[s];
      QCACHE_TRY(check_entry(*model, stored));
      const auto entry_bytes = static_cast<uint32_t>(entry_text(stored).size());
      parts.records.push_back(
          {{0, stored.size_bytes()}, index, static_cast<uint16_t>(s), is_constant(stored), entry_bytes});
      json_bytes += entry_bytes;
    }
    return check_header(*model, json_bytes);
  };
  QCACHE_TRY_ASSIGN(Groups groups, Groups::plan(model, scheme, contents, list));
  std::ranges::stable_sort(parts.records, std::greater<>(),
                           [](const SafetensorsRecord& record) { return alignment_of(record.range.size); });

  uint64_t position = 0;
  parts.header.add(parts.header_begin.size());
  for (SafetensorsRecord& record : parts.records) {
    record.range.offset = position;
    QCACHE_TRY_ASSIGN(position, end_of(*model, scheme, position, record.range.size));
    const uint64_t offsets_bytes = offsets_text(record.range.offset, position).size();
    parts.header.add(record.entry_bytes + offsets_bytes);
    json_bytes += offsets_bytes;
  }
  parts.header_end = "}";
  json_bytes += parts.header_end.size();
  QCACHE_TRY(check_header(*model, json_bytes));
  parts.header_end.append(padded_json_bytes(json_bytes) - json_bytes, ' ');
  parts.header.add(parts.header_end.size());
  std::string length;
  append_le(length, padded_json_bytes(json_bytes));
  parts.header_begin.replace(0, kLengthBytes, length);

  parts.data_offsets.resize(stored_count);
  for (SafetensorsRecord& record : parts.records) {
    record.range.offset += parts.header.size_bytes();
    parts.data_offsets[parts.first_stored[record.group] + record.stored] = record.range.offset;
  }
  parts.size_bytes = parts.header.size_bytes() + position;
  parts.records.shrink_to_fit();
  parts.first_stored.shrink_to_fit();
  return std::make_shared<const SafetensorsPlan>(std::move(groups), std::move(parts));
}

}  // namespace qcache
