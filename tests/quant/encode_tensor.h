#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/model/source_model.h"
#include "core/quant/scheme.h"

namespace qcache {

/// A tensor as a model's header would describe it.
inline TensorInfo tensor_of(std::string name, DType dtype, Shape shape) {
  TensorInfo tensor{.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .data = {}};
  tensor.data.size = tensor.element_count() * item_bytes(dtype);
  return tensor;
}

/// What the encoding wants to know of the whole tensor.
inline Survey survey_of(const Encoding& encoding, std::span<const std::byte> source) {
  Survey survey;
  if (encoding.survey != nullptr) {
    encoding.survey(encoding.source_dtype, source, survey);
  }
  return survey;
}

/// The bytes of these ranges, one after another.
inline std::vector<std::byte> gathered(std::span<const std::byte> from, const std::vector<ByteRange>& ranges) {
  std::vector<std::byte> out;
  for (const ByteRange& range : ranges) {
    const auto part = from.subspan(range.offset, range.size);
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

/// Copies `from` to these ranges, in order.
template <typename T>
void scatter(std::span<const T> from, const std::vector<ByteRange>& ranges, std::span<T> to) {
  for (const ByteRange& range : ranges) {
    const size_t first = range.offset / sizeof(T);
    const size_t count = range.size / sizeof(T);
    std::copy_n(from.begin(), count, to.subspan(first, count).begin());
    from = from.subspan(count);
  }
}

/// The bytes of every stored tensor, produced `units_per_call` units at a time as the engine does.
inline std::vector<std::vector<std::byte>> encode_tensor(const Encoding& encoding, std::span<const std::byte> source,
                                                         uint64_t units_per_call = 7) {
  const Survey survey = survey_of(encoding, source);
  std::vector<std::vector<std::byte>> out;
  for (const StoredTensor& tensor : encoding.stored) {
    const std::string known = tensor.order == UnitOrder::kOnce ? tensor.once(survey) : tensor.constant;
    const auto bytes = std::as_bytes(std::span(known));
    out.emplace_back(bytes.begin(), bytes.end());
    out.back().resize(tensor.size_bytes());
  }
  for (UnitRange units{0, 0}; units.end() < encoding.unit_count();) {
    units = {units.end(), std::min(units_per_call, encoding.unit_count() - units.end())};
    std::vector<std::vector<std::byte>> made(out.size());
    std::vector<std::span<std::byte>> targets(out.size());
    for (size_t i = 0; i < out.size(); ++i) {
      if (encoding.stored[i].bytes_per_unit > 0) {
        made[i] = gathered(out[i], encoding.stored_ranges(i, units));
        targets[i] = made[i];
      }
    }
    encoding.encode_units(gathered(source, encoding.source_ranges(units)), targets, &survey);
    for (size_t i = 0; i < out.size(); ++i) {
      if (encoding.stored[i].bytes_per_unit > 0) {
        scatter<std::byte>(made[i], encoding.stored_ranges(i, units), out[i]);
      }
    }
  }
  return out;
}

/// The values that stored bytes stand for, decoded `units_per_call` units at a time.
inline std::vector<float> decode_tensor(const Encoding& encoding, const std::vector<std::vector<std::byte>>& stored,
                                        const Survey& survey, uint64_t units_per_call = 5) {
  const uint64_t item = item_bytes(encoding.source_dtype);
  std::vector<float> out(encoding.source_bytes / item);
  for (UnitRange units{0, 0}; units.end() < encoding.unit_count();) {
    units = {units.end(), std::min(units_per_call, encoding.unit_count() - units.end())};
    std::vector<std::vector<std::byte>> parts(stored.size());
    std::vector<std::span<const std::byte>> spans(stored.size());
    for (size_t i = 0; i < stored.size(); ++i) {
      if (encoding.stored[i].bytes_per_unit > 0) {
        parts[i] = gathered(stored[i], encoding.stored_ranges(i, units));
        spans[i] = parts[i];
      }
    }
    std::vector<ByteRange> places = encoding.source_ranges(units);
    uint64_t count = 0;
    for (ByteRange& place : places) {
      place = {place.offset / item * sizeof(float), place.size / item * sizeof(float)};
      count += place.size / sizeof(float);
    }
    std::vector<float> values(count);
    encoding.decode_units(spans, &survey, values);
    scatter<float>(values, places, out);
  }
  return out;
}

/// How `scheme` stores `tensor` where it is the only one of a model that is otherwise like `model`.
inline Encoding encoding_alone(const Scheme& scheme, const TensorInfo& tensor, SourceModel model = {}) {
  model.tensors = {tensor};
  return scheme.encoding(model, scheme.choose(model), tensor);
}

}  // namespace qcache
