#include "core/layout/torch_zip.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
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

/// In the order of the file; the last one is left out where the options say so.
constexpr std::array<std::string_view, 4> kSmallRecords = {"archive/data.pkl", "archive/byteorder", "archive/version",
                                                           "archive/qcache.json"};
constexpr std::string_view kByteOrder = "little";
constexpr std::string_view kVersion = "3\n";

std::string no_torch_type(const SourceModel& model, const TensorInfo& tensor) {
  return fmt::format("model '{}' has no .bin file: torch has no type for {}, the dtype of tensor '{}'; use the folder",
                     model.name, safetensors_name(tensor.dtype), tensor.name);
}

/// A member that is known whole: its name and bytes.
struct SmallRecord {
  std::string_view name;
  std::string bytes;
};

/// What `archive/qcache.json` says. Only what follows from the model's content, nothing of where or when it was read or
/// by which name it is shown: the same model gives the same file everywhere.
class Description {
 public:
  Description(const Scheme& scheme, uint32_t rank)
      : text_(json_of({{"qcache", 1},
                       {"dtype", scheme.name()},
                       {"scheme_version", scheme.version()},
                       {"rank", rank},
                       {"quantized", nlohmann::ordered_json::array()}})) {
    text_.resize(text_.size() - kEnd.size());
  }

  void add_quantized(const std::string& tensor) {
    text_ += any_ ? "," : "";
    text_ += json_of(tensor);
    any_ = true;
  }
  /// Forgets what was written until now, but not how much it was.
  void forget() {
    forgotten_ += text_.size();
    text_.clear();
  }
  [[nodiscard]] uint64_t size() const { return forgotten_ + text_.size() + kEnd.size(); }
  [[nodiscard]] std::string finish() && {
    text_ += kEnd;
    return std::move(text_);
  }

 private:
  static constexpr std::string_view kEnd = "]}";

  // A folder's name may be any bytes; JSON must be UTF-8.
  static std::string json_of(const nlohmann::ordered_json& json) {
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

  std::string text_;
  uint64_t forgotten_ = 0;
  bool any_ = false;
};

/// The record of a stored tensor, without a place yet, which is added to the pickle.
Result<TorchRecord> record_of(const SourceModel& model, const Group& group, uint32_t stored_index,
                              TorchPickle& pickle) {
  const StoredTensor& stored = group.encoding.stored[stored_index];
  if (torch_name(stored.dtype).empty()) {
    return fail(ErrorKind::kUnsupported, no_torch_type(model, model.tensors[group.tensor]));
  }
  TorchRecord record;
  record.stored = stored_index;
  record.tensor_bytes = stored.size_bytes();
  record.trailer_bytes = trailer_bytes(record.tensor_bytes, stored.dtype);
  if (is_constant(stored)) {
    record.constant_crc = crc32(0, std::as_bytes(std::span(stored.constant)));
  }
  if (!pickle.add(stored.name, stored.dtype, stored.shape, record.size())) {
    return fail(
        ErrorKind::kInvalidModel,
        fmt::format("tensor '{}' of model '{}' cannot be stored as '{}': its shape, strides or size exceed 63 bits",
                    model.tensors[group.tensor].name, model.name, stored.name));
  }
  return record;
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
      QCACHE_TRY_ASSIGN(TorchRecord record, record_of(model, group, s, pickle));
      record.group = g;
      group.trailer_bytes[s] = is_constant(stored[s]) ? 0 : record.trailer_bytes;
      records.push_back(record);
    }
  }
  return std::move(pickle).finish();
}

/// Writes the small records from byte 0 on, and their entries of the directory.
void write_small_records(std::vector<SmallRecord> small, TorchZipPlan::Parts& parts) {
  std::string& out = parts.small_records;
  for (SmallRecord& record : small) {
    const ZipMember member{record.name, crc32(0, std::as_bytes(std::span(record.bytes))), record.bytes.size(),
                           out.size()};
    const ZipLocalHeader header = local_header(member, kSmallRecordAlignment);
    out += header.fixed;
    out.append(header.padding, 'Z');
    out += record.bytes;
    record.bytes = {};  // the pickle of a large model is not held twice for long
    append_central_entry(parts.directory, member);
  }
}

tl::unexpected<Error> too_large(const SourceModel& model, const Scheme& scheme) {
  return fail(ErrorKind::kInvalidModel,
              fmt::format("model '{}' is too large for dtype '{}': its file would exceed 2^63 bytes", model.name,
                          scheme.name()));
}

/// Gives the record of number `index` its place, the first free one from `position` on, and its entry of the directory.
/// `name` is storage for its name. Returns the position behind it.
Result<uint64_t> place_record(const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options,
                              uint64_t position, TorchRecord& record, uint64_t index, std::string& name,
                              std::string& directory) {
  // Below 2^63, so that rounding up to an alignment or adding a header cannot overflow.
  record.header_offset = options.header_alignment > 0 ? round_up(position, options.header_alignment) : position;
  const ZipMember member = zip_member(record, index, name);
  record.data_offset = record.header_offset + local_header_bytes(member, options.data_alignment);
  if (record.data_offset > kMaxFileBytes || record.size() > kMaxFileBytes - record.data_offset) {
    return too_large(model, scheme);
  }
  append_central_entry(directory, member);
  return record.end();
}

// Readers begin with the last page of the file: on its own pages, the directory drags no tensor along.
uint64_t directory_offset(uint64_t position, const TorchZipOptions& options) {
  return options.isolate_directory ? round_up(position, kPage) + kPage : position;
}

Status check_options(const TorchZipOptions& options) {
  if (options.data_alignment == 0 || options.data_alignment > kMaxZipAlignment ||
      options.header_alignment > kMaxZipAlignment) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("torch zip layout: alignments {} (data) and {} (headers) must be at most {}, and that of "
                            "data at least 1",
                            options.data_alignment, options.header_alignment, kMaxZipAlignment));
  }
  return {};
}

}  // namespace

std::optional<std::string> why_no_checkpoint(const SourceModel& model) {
  for (const TensorInfo& tensor : model.tensors) {
    if (torch_name(tensor.dtype).empty()) {
      return no_torch_type(model, tensor);
    }
  }
  return std::nullopt;
}

Result<std::shared_ptr<const LayoutPlan>> plan_torch_zip(const SourceModel& model, const Scheme& scheme,
                                                         const TorchZipOptions& options) {
  QCACHE_TRY(check_options(options));
  TorchZipPlan::Parts parts;
  parts.data_alignment = options.data_alignment;
  QCACHE_TRY_ASSIGN(parts.groups, plan_groups(model, scheme, {.rank = options.rank}));
  QCACHE_TRY_ASSIGN(std::string pickle, list_records(model, parts.groups, parts.records));

  std::vector<SmallRecord> small;
  small.push_back({kSmallRecords[0], std::move(pickle)});
  small.push_back({kSmallRecords[1], std::string(kByteOrder)});
  small.push_back({kSmallRecords[2], std::string(kVersion)});
  if (options.describe) {
    Description description(scheme, options.rank);
    for (const Group& group : parts.groups) {
      if (group.encoding.quantized) {
        description.add_quantized(model.tensors[group.tensor].name);
      }
    }
    small.push_back({kSmallRecords[3], std::move(description).finish()});
  }
  const size_t small_count = small.size();
  write_small_records(std::move(small), parts);
  uint64_t position = parts.small_records.size();
  std::string name;
  for (size_t i = 0; i < parts.records.size(); ++i) {
    TorchRecord& record = parts.records[i];
    QCACHE_TRY_ASSIGN(position, place_record(model, scheme, options, position, record, i, name, parts.directory));
    parts.groups[record.group].data_offsets[record.stored] = record.data_offset;
  }
  parts.directory_offset = directory_offset(position, options);

  const uint64_t directory_bytes = parts.directory.size();
  append_directory_end(parts.directory, small_count + parts.records.size(), parts.directory_offset, directory_bytes);
  if (parts.directory_offset > kMaxFileBytes - parts.directory.size()) {
    return too_large(model, scheme);
  }
  parts.small_records.shrink_to_fit();
  parts.directory.shrink_to_fit();
  parts.records.shrink_to_fit();
  return std::make_shared<const TorchZipPlan>(std::move(parts));
}

Result<uint64_t> torch_zip_size(const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options) {
  QCACHE_TRY(check_options(options));
  std::vector<uint64_t> record_bytes;
  TorchPickle pickle;
  Description description(scheme, options.rank);
  const auto count = [&](const Group& group) -> Status {
    for (uint32_t s = 0; s < group.encoding.stored.size(); ++s) {
      QCACHE_TRY_ASSIGN(const TorchRecord record, record_of(model, group, s, pickle));
      record_bytes.push_back(record.size());
    }
    if (group.encoding.quantized) {
      description.add_quantized(model.tensors[group.tensor].name);
    }
    pickle.forget();
    description.forget();
    return {};
  };
  QCACHE_TRY(visit_groups(model, scheme, {.rank = options.rank}, count));

  uint64_t position = 0;
  uint64_t directory_bytes = 0;
  std::string directory;
  const auto count_directory = [&]() {
    directory_bytes += directory.size();
    directory.clear();
  };
  const std::array<uint64_t, kSmallRecords.size()> small_bytes = {pickle.size(), kByteOrder.size(), kVersion.size(),
                                                                  description.size()};
  const size_t small_count = kSmallRecords.size() - (options.describe ? 0 : 1);
  for (size_t i = 0; i < small_count; ++i) {
    const ZipMember member{kSmallRecords.at(i), 0, small_bytes.at(i), position};
    position += local_header_bytes(member, kSmallRecordAlignment) + member.size;
    append_central_entry(directory, member);
    count_directory();
  }
  std::string name;
  for (size_t i = 0; i < record_bytes.size(); ++i) {
    TorchRecord record;
    record.tensor_bytes = record_bytes[i];
    QCACHE_TRY_ASSIGN(position, place_record(model, scheme, options, position, record, i, name, directory));
    count_directory();
  }
  const uint64_t directory_at = directory_offset(position, options);
  append_directory_end(directory, small_count + record_bytes.size(), directory_at, directory_bytes);
  count_directory();
  if (directory_at > kMaxFileBytes - directory_bytes) {
    return too_large(model, scheme);
  }
  return directory_at + directory_bytes;
}

}  // namespace qcache
