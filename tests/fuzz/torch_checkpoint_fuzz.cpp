// Input: a checkpoint, zip or legacy.

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "core/model/text.h"
#include "core/model/torch_checkpoint.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qcache;
  MemoryBytes source({reinterpret_cast<const char*>(data), size});
  const auto tensors = find_torch_tensors(source);
  if (!tensors) {
    require(tensors.error().kind == ErrorKind::kInvalidModel && is_utf8(tensors.error().message));
    return 0;
  }
  std::set<std::string> names;
  for (const TensorInfo& tensor : *tensors) {
    require(is_utf8(tensor.name) && names.insert(tensor.name).second);
    require(tensor.data.size == tensor.element_count() * item_bytes(tensor.dtype));
    uint64_t last = 0;  // element, counted from the first
    for (size_t d = 0; d < tensor.strides.size(); ++d) {
      last += (tensor.shape.at(d) - 1) * tensor.strides[d];
    }
    const uint64_t reach = tensor.strides.empty() ? tensor.data.size : (last + 1) * item_bytes(tensor.dtype);
    require(tensor.data.offset <= size && reach <= size - tensor.data.offset);
  }
  return 0;
}
