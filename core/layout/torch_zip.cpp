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

/// What `archive/qcache.json` says before the names. Only what follows from the model's content, nothing of where or
/// when it was read or by which name it is shown: the same model gives the same file everywhere.
std::string description_begin(const Scheme& scheme, uint32_t rank) {
  const nlohmann::ordered_json description = {{"qcache", 1},
                                              {"dtype", scheme.name()},
                                              {"scheme_version", scheme.version()},
                                              {"rank", rank},
                                              {"quantized", nlohmann::ordered_json::array()}};
  std::string text = description.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize(text.size() - kDescriptionEnd.size());
  return text;
}

/// A text that is counted part by part.
struct CountedText {
  PartIndex parts;
  uint32_t crc = 0;

  void add(std::string_view part) {
    parts.add(part.size());
    crc = crc32(crc, std::as_bytes(std::span(part)));
  }
};

/// Lists every stored tensor as a record without a place yet, and what the pickle and the description say of it.
class RecordLister {
 public:
  RecordLister(const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options,
               TorchZipPlan::Parts& parts)
      : model_(model), parts_(parts), describe_(options.describe) {
    pickle_.add(pickle_begin());
    if (describe_) {
      parts_.description_begin = description_begin(scheme, options.rank);
      description_.add(parts_.description_begin);
    }
  }

  Status add(const Group& group) {
    const auto index = static_cast<uint32_t>(parts_.first_records.size());
    parts_.first_records.push_back(static_cast<uint32_t>(parts_.records.size()));
    for (size_t s = 0; s < group.encoding.stored.size(); ++s) {
      QCACHE_TRY(add(index, group, s));
    }
    if (describe_) {
      text_.clear();
      if (group.encoding.quantized) {
        append_quantized_name(text_, model_.tensors[group.tensor].name, !any_quantized_);
        parts_.first_quantized = any_quantized_ ? parts_.first_quantized : index;
        any_quantized_ = true;
      }
      description_.add(text_);
    }
    return {};
  }

  /// Writes the small records from byte 0 on, but the pickle and the description, and their entries of the directory.
  /// Returns the position behind them, and how many there are.
  std::pair<uint64_t, uint64_t> finish() && {
    pickle_.add(pickle_end());
    uint64_t position = begin_small(kSmallRecords[0], pickle_, 0, parts_.before_pickle);
    position = add_small(kSmallRecords[1], kByteOrder, position);
    position = add_small(kSmallRecords[2], kVersion, position);
    if (describe_) {
      description_.add(kDescriptionEnd);
      position = begin_small(kSmallRecords[3], description_, position, parts_.before_description);
    }
    parts_.pickle = std::move(pickle_.parts);
    parts_.description = std::move(description_.parts);
    return {position, kSmallRecords.size() - (describe_ ? 0 : 1)};
  }

 private:
  Status add(uint32_t index, const Group& group, size_t s) {
    const StoredTensor& stored = group.encoding.stored[s];
    if (torch_name(stored.dtype).empty()) {
      return fail(ErrorKind::kUnsupported, no_torch_type(model_, model_.tensors[group.tensor]));
    }
    TorchRecord record;
    record.group = index;
    record.stored = static_cast<uint16_t>(s);
    record.tensor_bytes = stored.size_bytes();
    record.trailer_bytes = trailer_bytes(record.tensor_bytes, stored.dtype);
    record.constant = is_constant(stored);
    text_.clear();
    if (!append_pickled_tensor(text_, parts_.records.size(), stored.name, stored.dtype, stored.shape, record.size())) {
      return fail(
          ErrorKind::kInvalidModel,
          fmt::format("tensor '{}' of model '{}' cannot be stored as '{}': its shape, strides or size exceed 63 bits",
                      model_.tensors[group.tensor].name, model_.name, stored.name));
    }
    pickle_.add(text_);
    parts_.records.push_back(record);
    return {};
  }

  /// Appends the header of a record with these bytes, at `position`, to `out`. Returns the position behind the record.
  uint64_t begin_small(std::string_view name, const CountedText& bytes, uint64_t position, std::string& out) {
    const ZipMember member{name, bytes.crc, bytes.parts.size_bytes(), position};
    const ZipLocalHeader header = local_header(member, kSmallRecordAlignment);
    out += header.fixed;
    out.append(header.padding, 'Z');
    append_central_entry(parts_.directory_begin, member);
    return position + header.size() + member.size;
  }

  uint64_t add_small(std::string_view name, std::string_view bytes, uint64_t position) {
    CountedText text;
    text.add(bytes);
    position = begin_small(name, text, position, parts_.before_description);
    parts_.before_description += bytes;
    return position;
  }

  const SourceModel& model_;
  TorchZipPlan::Parts& parts_;
  const bool describe_;
  CountedText pickle_;
  CountedText description_;
  std::string text_;
  bool any_quantized_ = false;
};

tl::unexpected<Error> too_large(const SourceModel& model, const Scheme& scheme) {
  return fail(ErrorKind::kInvalidModel,
              fmt::format("model '{}' is too large for dtype '{}': its file would exceed 2^63 bytes", model.name,
                          scheme.name()));
}

/// Gives the record of number `index` its place, the first free one from `position` on. `name` is storage for its name.
/// Returns it as a member of the file.
Result<ZipMember> place_record(const SourceModel& model, const Scheme& scheme, const TorchZipOptions& options,
                               uint64_t position, TorchRecord& record, uint64_t index, std::string& name) {
  // Below 2^63, so that rounding up to an alignment or adding a header cannot overflow.
  record.header_offset = options.header_alignment > 0 ? round_up(position, options.header_alignment) : position;
  const ZipMember member = zip_member(record, index, name);
  record.data_offset = record.header_offset + local_header_bytes(member, options.data_alignment);
  if (record.data_offset > kMaxFileBytes || record.size() > kMaxFileBytes - record.data_offset) {
    return too_large(model, scheme);
  }
  return member;
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

Result<std::shared_ptr<const LayoutPlan>> plan_torch_zip(const std::shared_ptr<const SourceModel>& model,
                                                         const Scheme& scheme, const TorchZipOptions& options) {
  QCACHE_TRY(check_options(options));
  TorchZipPlan::Parts parts;
  parts.data_alignment = options.data_alignment;
  RecordLister lister(*model, scheme, options, parts);
  QCACHE_TRY_ASSIGN(Groups groups, Groups::plan(model, scheme, {.rank = options.rank},
                                                [&](const Group& group) { return lister.add(group); }));
  auto [position, small_count] = std::move(lister).finish();

  parts.directory.add(parts.directory_begin.size());
  std::string name;
  std::string entry;
  for (size_t i = 0; i < parts.records.size(); ++i) {
    TorchRecord& record = parts.records[i];
    QCACHE_TRY_ASSIGN(const ZipMember member, place_record(*model, scheme, options, position, record, i, name));
    position = record.end();
    entry.clear();
    append_central_entry(entry, member);
    parts.directory.add(entry.size());
  }
  parts.directory_offset = directory_offset(position, options);

  append_directory_end(parts.directory_end, small_count + parts.records.size(), parts.directory_offset,
                       parts.directory.size_bytes());
  parts.directory.add(parts.directory_end.size());
  if (parts.directory_offset > kMaxFileBytes - parts.directory.size_bytes()) {
    return too_large(*model, scheme);
  }
  parts.records.shrink_to_fit();
  parts.first_records.shrink_to_fit();
  return std::make_shared<const TorchZipPlan>(std::move(groups), std::move(parts));
}

}  // namespace qcache
