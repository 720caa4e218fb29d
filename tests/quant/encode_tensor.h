#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/model/source_model.h"
#include "core/quant/encoding.h"

namespace qcache {

/// A tensor as a model's header would describe it.
inline TensorInfo tensor_of(std::string name, DType dtype, Shape shape) {
  TensorInfo tensor{.name = std::move(name), .dtype = dtype, .shape = std::move(shape), .data = {}};
  tensor.data.size = tensor.element_count() * item_bytes(dtype);
  return tensor;
}

/// The bytes of every stored tensor, produced `units_per_call` units at a time as the engine does, by
/// `function` or else by the encoding's own.
inline std::vector<std::vector<std::byte>> encode_tensor(const Encoding& encoding, std::span<const std::byte> source,
                                                         uint64_t units_per_call = 7,
                                                         EncodeFunction function = nullptr) {
  std::vector<std::vector<std::byte>> out;
  for (const StoredTensor& tensor : encoding.stored) {
    const auto* constant = reinterpret_cast<const std::byte*>(tensor.constant.data());
    out.emplace_back(constant, constant + tensor.constant.size());
    out.back().resize(tensor.size_bytes());
  }
  for (UnitRange units{0, 0}; units.end() < encoding.unit_count();) {
    units = {units.end(), std::min(units_per_call, encoding.unit_count() - units.end())};
    const ByteRange from = encoding.source_ranges(units).at(0);
    std::vector<std::span<std::byte>> targets(encoding.stored.size());
    for (size_t i = 0; i < targets.size(); ++i) {
      if (encoding.stored[i].constant.empty()) {
        const ByteRange to = encoding.stored_ranges(i, units).at(0);
        targets[i] = std::span(out[i]).subspan(to.offset, to.size);
      }
    }
    const EncodeArgs args{.source_dtype = encoding.source_dtype,
                          .row_elements = encoding.row_elements,
                          .source = source.subspan(from.offset, from.size),
                          .stored = targets};
    (function != nullptr ? function : encoding.encode)(args);
  }
  return out;
}

}  // namespace qcache
