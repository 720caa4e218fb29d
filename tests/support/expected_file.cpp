#include "tests/support/expected_file.h"

#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <vector>

#include "core/base/digest.h"
#include "core/layout/safetensors_layout.h"
#include "core/layout/torch_zip.h"
#include "core/quant/number_formats.h"
#include "core/quant/scheme.h"
#include "tests/support/plans.h"

namespace qcache {
namespace {

using Bytes = std::vector<std::byte>;

SourceModel model_in(const std::string& folder) {
  auto model = read_source_model(Env::posix(), folder, std::filesystem::path(folder).filename());
  if (!model) {
    throw std::runtime_error(model.error().message);
  }
  return std::move(*model);
}

const Scheme& scheme_called(std::string_view dtype) {
  const Scheme* const scheme = find_scheme(dtype);
  if (scheme == nullptr) {
    throw std::runtime_error("no dtype " + std::string(dtype));
  }
  return *scheme;
}

std::shared_ptr<const LayoutPlan> usable(Result<std::shared_ptr<const LayoutPlan>> plan) {
  if (!plan) {
    throw std::runtime_error(plan.error().message);
  }
  return std::move(*plan);
}

// Element by element where the tensor has strides, as simply as can be.
Bytes source_bytes(const SourceModel& model, const TensorInfo& tensor) {
  Bytes bytes(tensor.data.size);
  std::ifstream file(model.files.at(tensor.file), std::ios::binary);
  const auto read = [&](uint64_t position, uint64_t to, uint64_t size) {
    file.seekg(static_cast<std::streamoff>(position));
    file.read(reinterpret_cast<char*>(bytes.data() + to), static_cast<std::streamsize>(size));
  };
  const uint64_t item = item_bytes(tensor.dtype);
  if (tensor.strides.empty()) {
    read(tensor.data.offset, 0, bytes.size());
  }
  for (uint64_t i = 0; i < tensor.element_count() && !tensor.strides.empty(); ++i) {
    uint64_t position = tensor.data.offset;
    uint64_t rest = i;
    for (size_t d = tensor.shape.size(); d-- > 0; rest /= tensor.shape[d]) {
      position += rest % tensor.shape[d] * tensor.strides[d] * item;
    }
    read(position, i * item, item);
  }
  if (!file) {
    throw std::runtime_error("cannot read tensor " + tensor.name);
  }
  return bytes;
}

Bytes gather(const Bytes& from, const std::vector<ByteRange>& ranges) {
  Bytes out;
  for (const ByteRange& range : ranges) {
    const auto begin = from.begin() + static_cast<ptrdiff_t>(range.offset);
    out.insert(out.end(), begin, begin + static_cast<ptrdiff_t>(range.size));
  }
  return out;
}

/// Every tensor stored for one source tensor, each whole.
std::vector<Bytes> encode(const Encoding& encoding, const Bytes& source) {
  const UnitRange all{0, encoding.unit_count()};
  const Bytes input = gather(source, encoding.source_ranges(all));
  Survey survey;
  if (encoding.survey != nullptr) {
    encoding.survey(encoding.source_dtype, source, survey);
  }
  std::vector<Bytes> outputs(encoding.stored.size());
  std::vector<std::span<std::byte>> spans(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const StoredTensor& tensor = encoding.stored[i];
    if (tensor.order == UnitOrder::kOnce) {
      const std::string text = tensor.once(survey);
      const auto bytes = std::as_bytes(std::span(text));
      outputs[i].assign(bytes.begin(), bytes.end());
    } else {
      outputs[i].resize(tensor.constant.empty() ? total_size(encoding.stored_ranges(i, all)) : 0);
      spans[i] = outputs[i];
    }
  }
  if (all.count > 0) {
    encoding.encode_units(input, spans, &survey);
  }
  std::vector<Bytes> stored(encoding.stored.size());
  for (size_t i = 0; i < stored.size(); ++i) {
    stored[i].resize(outputs[i].size());
    size_t done = 0;
    for (const ByteRange& range : encoding.stored_ranges(i, all)) {
      if (!outputs[i].empty()) {
        std::copy_n(outputs[i].begin() + static_cast<ptrdiff_t>(done), range.size,
                    stored[i].begin() + static_cast<ptrdiff_t>(range.offset));
        done += range.size;
      }
    }
  }
  return stored;
}

void place(std::span<std::byte> file, uint64_t offset, const Bytes& bytes) {
  std::copy(bytes.begin(), bytes.end(), file.subspan(offset, bytes.size()).begin());
}

std::string bytes_of(const SourceModel& model, const LayoutPlan& plan) {
  std::string text(plan.size_bytes(), '\0');
  const std::span<std::byte> file = std::as_writable_bytes(std::span(text));
  plan.render_static(ByteRange{0, plan.size_bytes()}, file);
  for (uint32_t g = 0; g < plan.group_count(); ++g) {
    const Group group = *plan.group(g);
    const std::vector<Bytes> stored = encode(group.encoding, source_bytes(model, model.tensors[group.tensor]));
    for (uint32_t i = 0; i < stored.size(); ++i) {
      if (group.encoding.stored[i].constant.empty()) {
        place(file, group.data_offsets[i], stored[i]);
        place(file, group.data_offsets[i] + stored[i].size(), plan.trailer(g, i, crc32(0, stored[i])));
      }
    }
  }
  return text;
}

}  // namespace

std::shared_ptr<const LayoutPlan> planned_file(const std::string& folder, std::string_view dtype) {
  return usable(plan_torch_zip(model_in(folder), scheme_called(dtype)));
}

std::string expected_file(const std::string& folder, std::string_view dtype) {
  const SourceModel model = model_in(folder);
  return bytes_of(model, *usable(plan_torch_zip(model, scheme_called(dtype))));
}

std::string expected_safetensors(const std::string& folder, std::string_view dtype) {
  const SourceModel model = model_in(folder);
  return bytes_of(model, *usable(plan_safetensors(model, scheme_called(dtype))));
}

std::vector<float> expected_residual(const std::string& folder, std::string_view dtype, std::string_view tensor) {
  const SourceModel model = model_in(folder);
  const std::shared_ptr<const LayoutPlan> plan = usable(plan_safetensors(model, scheme_called(dtype)));
  for (uint32_t g = 0; g < plan->group_count(); ++g) {
    const Group group = *plan->group(g);
    const TensorInfo& info = model.tensors[group.tensor];
    if (info.name != tensor || !group.encoding.quantized) {
      continue;
    }
    const Bytes weights = source_bytes(model, info);
    const std::vector<Bytes> stored = encode(group.encoding, weights);
    Survey survey;
    if (group.encoding.survey != nullptr) {
      group.encoding.survey(info.dtype, weights, survey);
    }
    std::vector<float> values(info.element_count());
    group.encoding.decode_units(std::vector<std::span<const std::byte>>(stored.begin(), stored.end()), &survey, values);
    for (uint64_t i = 0; i < values.size(); ++i) {
      values[i] = load_as_float(info.dtype, weights.data() + i * item_bytes(info.dtype)) - values[i];
    }
    return values;
  }
  return {};
}

}  // namespace qcache
