// Input: two bytes, little-endian, how much data the file has; then the JSON of its header.

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "core/model/safetensors.h"
#include "core/model/text.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qcache;
  if (size < 2) {
    return 0;
  }
  const uint64_t data_bytes = data[0] | uint64_t{data[1]} << 8;
  const std::string_view json(reinterpret_cast<const char*>(data + 2), size - 2);
  const uint64_t file_bytes = 8 + json.size() + data_bytes;
  const auto tensors = parse_safetensors_header(json, file_bytes);
  if (!tensors) {
    require(tensors.error().kind == ErrorKind::kInvalidModel && is_utf8(tensors.error().message));
    return 0;
  }
  uint64_t end = 8 + json.size();
  std::set<std::string> names;
  for (const TensorInfo& tensor : *tensors) {
    require(is_utf8(tensor.name) && names.insert(tensor.name).second);
    require(tensor.data.offset == end);
    require(tensor.data.size == tensor.element_count() * item_bytes(tensor.dtype));
    end = tensor.data.end();
  }
  require(end == file_bytes);
  return 0;
}
