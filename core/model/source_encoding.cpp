#include "core/model/source_encoding.h"

#include <array>

#include "core/model/encodings.h"

namespace qcache {

std::span<const SourceEncoding* const> all_source_encodings() {
#define QCACHE_ADDRESS_OF_SOURCE_ENCODING(name) &encoding_##name(),
  static const std::array kAll = {QCACHE_SOURCE_ENCODINGS(QCACHE_ADDRESS_OF_SOURCE_ENCODING)};
#undef QCACHE_ADDRESS_OF_SOURCE_ENCODING
  return kAll;
}

const SourceEncoding& encoding_of(const TensorInfo& tensor) {
  return tensor.encoding == nullptr ? encoding_plain() : *tensor.encoding;
}

}  // namespace qcache
