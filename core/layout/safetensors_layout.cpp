#include "core/layout/safetensors_layout.h"

#include <fmt/format.h>

#include <algorithm>
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

/// Tensors are placed by falling alignment, so that each starts at a multiple of its own.
uint64_t alignment_of(uint64_t bytes) {
  return std::min(kBestAlignment, bytes & (~bytes + 1));
}

std::string json_string(std::string_view text) {
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
  // Empty tensors, whose alignment is 0, come last.
  std::stable_sort(records.begin(), records.end(), [](const SafetensorsRecord& a, const SafetensorsRecord& b) {
    return alignment_of(a.range.size) > alignment_of(b.range.size);
  });
  return records;
}

void append_entry(std::string& header, const StoredTensor& stored, ByteRange range) {
  header += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", json_string(stored.name),
                        safetensors_name(stored.dtype), fmt::join(stored.shape, ","), range.offset, range.end());
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

  // Some loaders refuse a file that does not say whose tensors it holds.
  std::string json =
      fmt::format(R"({{"{}":{{"format":"pt","qcache":"{} {}"}})", kMetadataName, scheme.name(), scheme.version());
  uint64_t position = 0;
  for (SafetensorsRecord& record : parts.records) {
    const StoredTensor& stored = parts.groups[record.group].encoding.stored[record.stored];
    record.range.offset = position;
    const auto end = checked_add(position, record.range.size);
    if (!end || *end > kMaxFileBytes - 2 * kMaxHeaderBytes) {
      return fail(ErrorKind::kInvalidModel,
                  fmt::format("model '{}' is too large for dtype '{}': its file would exceed 2^63 bytes", model.name,
                              scheme.name()));
    }
    if (stored.name == kMetadataName) {
      return fail(ErrorKind::kInvalidModel,
                  fmt::format("model '{}' cannot be stored as safetensors: a tensor is called '{}', which the format "
                              "reserves; rename it",
                              model.name, kMetadataName));
    }
    append_entry(json, stored, record.range);
    position = *end;
  }
  json += '}';
  constexpr uint64_t kLengthBytes = 8;
  json.append(round_up(json.size() + kLengthBytes, kPage) - kLengthBytes - json.size(), ' ');
  if (json.size() > kMaxHeaderBytes) {
    return fail(ErrorKind::kUnsupported,
                fmt::format("model '{}' has too many tensors for one safetensors file: its header would be {} bytes, "
                            "readers accept {}; use the .bin file",
                            model.name, json.size(), kMaxHeaderBytes));
  }
  append_le(parts.header, uint64_t{json.size()});
  parts.header += json;

  std::erase_if(parts.records, [](const SafetensorsRecord& record) { return record.range.empty(); });
  for (SafetensorsRecord& record : parts.records) {
    record.range.offset += parts.header.size();
    parts.groups[record.group].data_offsets[record.stored] = record.range.offset;
  }
  parts.size_bytes = parts.header.size() + position;
  parts.records.shrink_to_fit();
  return std::make_shared<const SafetensorsPlan>(std::move(parts));
}

}  // namespace qcache
