#include "core/layout/torch_zip.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/checked.h"
#include "core/base/digest.h"
#include "core/layout/groups.h"
#include "core/layout/torch_pickle.h"
#include "core/layout/torch_zip_plan.h"
#include "core/layout/zip_format.h"

namespace qcache {
namespace {

constexpr uint32_t kPage = 4096;
constexpr uint32_t kSmallRecordAlignment = 64;

/// A member that is known whole: its name and bytes.
struct SmallRecord {
  std::string_view name;
  std::string bytes;
};

/// What `archive/qcache.json` says. Only what follows from the model's content and name, nothing of where or
/// when it was read: the same model gives the same file everywhere.
std::string describe(const SourceModel& model, const Scheme& scheme, uint32_t rank, const std::vector<Group>& groups) {
  nlohmann::ordered_json quantized = nlohmann::ordered_json::array();
  for (const Group& group : groups) {
    if (group.encoding.quantized) {
      quantized.push_back(model.tensors[group.tensor].name);
    }
  }
  const nlohmann::ordered_json description = {
      {"qcache", 1},  {"dtype", scheme.name()}, {"scheme_version", scheme.version()},
      {"rank", rank}, {"model", model.name},    {"quantized", std::move(quantized)}};
  // A folder's name may be any bytes; JSON must be UTF-8.
  return description.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// Lists every stored tensor as a record without a place yet. The pickle comes first in the file and depends
/// on all of them.
Result<std::string> list_records(const SourceModel& model, std::vector<Group>& groups,
                                 std::vector<TorchRecord>& records) {
  TorchPickle pickle;
  for (uint32_t g = 0; g < groups.size(); ++g) {
    Group& group = groups[g];
    const std::vector<StoredTensor>& stored = group.encoding.stored;
    group.data_offsets.resize(stored.size());
    group.trailer_bytes.resize(stored.size());
    for (uint32_t s = 0; s < stored.size(); ++s) {
      TorchRecord record;
      record.group = g;
      record.stored = s;
      record.tensor_bytes = stored[s].size_bytes();
      record.trailer_bytes = trailer_bytes(record.tensor_bytes, stored[s].dtype);
      if (is_constant(stored[s])) {
        record.constant_crc = crc32(0, std::as_bytes(std::span(stored[s].constant)));
      } else {
        group.trailer_bytes[s] = record.trailer_bytes;
      }
      if (!pickle.add(stored[s].name, stored[s].dtype, stored[s].shape, record.size())) {
        return fail(
            ErrorKind::kInvalidModel,
            fmt::format("tensor '{}' of model '{}' cannot be stored as '{}': its shape, strides or size exceed 63 bits",
                        model.tensors[group.tensor].name, model.name, stored[s].name));
      }
      records.push_back(record);
    }
  }
  return std::move(pickle).finish();
}

/// Writes the small records from byte 0 on, and their entries of the directory.
void write_small_records(const std::vector<SmallRecord>& small, TorchZipPlan::Parts& parts) {
  std::string& out = parts.small_records;
  for (const SmallRecord& record : small) {
    const ZipMember member{record.name, crc32(0, std::as_bytes(std::span(record.bytes))), record.bytes.size(),
                           out.size()};
    const ZipLocalHeader header = local_header(member, kSmallRecordAlignment);
    out += header.fixed;
    out.append(header.padding, 'Z');
    out += record.bytes;
    append_central_entry(parts.directory, member);
  }
}

tl::unexpected<Error> too_large(const SourceModel& model, const Scheme& scheme) {
  return fail(ErrorKind::kInvalidModel,
              fmt::format("model '{}' is too large for dtype '{}': its file would exceed 2^63 bytes", model.name,
                          scheme.name()));
}

/// Gives each record its place and its entry of the directory, and the directory its place.
Status place_records(const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options,
                     TorchZipPlan::Parts& parts) {
  // Below 2^63, so that rounding up to an alignment or adding a header cannot overflow.
  uint64_t position = parts.small_records.size();
  std::string name;
  for (size_t i = 0; i < parts.records.size(); ++i) {
    TorchRecord& record = parts.records[i];
    record.header_offset = options.header_alignment > 0 ? round_up(position, options.header_alignment) : position;
    const ZipMember member = zip_member(record, i, name);
    record.data_offset = record.header_offset + local_header_bytes(member, options.data_alignment);
    if (record.data_offset > kMaxFileBytes || record.size() > kMaxFileBytes - record.data_offset) {
      return too_large(model, scheme);
    }
    position = record.end();
    parts.groups[record.group].data_offsets[record.stored] = record.data_offset;
    append_central_entry(parts.directory, member);
  }
  // Readers begin with the last page of the file: on its own pages, the directory drags no tensor along.
  parts.directory_offset = options.isolate_directory ? round_up(position, kPage) + kPage : position;
  return {};
}

}  // namespace

Result<std::shared_ptr<const LayoutPlan>> plan_torch_zip(const SourceModel& model, const Scheme& scheme,
                                                         const TorchZipOptions& options) {
  if (options.data_alignment == 0 || options.data_alignment > kMaxZipAlignment ||
      options.header_alignment > kMaxZipAlignment) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("torch zip layout: alignments {} (data) and {} (headers) must be at most {}, and that of "
                            "data at least 1",
                            options.data_alignment, options.header_alignment, kMaxZipAlignment));
  }
  TorchZipPlan::Parts parts;
  parts.data_alignment = options.data_alignment;
  QCACHE_TRY_ASSIGN(parts.groups, plan_groups(model, scheme, {.rank = options.rank}));
  QCACHE_TRY_ASSIGN(std::string pickle, list_records(model, parts.groups, parts.records));

  std::vector<SmallRecord> small;
  small.push_back({"archive/data.pkl", std::move(pickle)});
  small.push_back({"archive/byteorder", "little"});
  small.push_back({"archive/version", "3\n"});
  if (options.describe) {
    small.push_back({"archive/qcache.json", describe(model, scheme, options.rank, parts.groups)});
  }
  write_small_records(small, parts);
  QCACHE_TRY(place_records(model, scheme, options, parts));

  const uint64_t directory_bytes = parts.directory.size();
  append_directory_end(parts.directory, small.size() + parts.records.size(), parts.directory_offset, directory_bytes);
  if (parts.directory_offset > kMaxFileBytes - parts.directory.size()) {
    return too_large(model, scheme);
  }
  parts.small_records.shrink_to_fit();
  parts.directory.shrink_to_fit();
  parts.records.shrink_to_fit();
  return std::make_shared<const TorchZipPlan>(std::move(parts));
}

}  // namespace qcache
