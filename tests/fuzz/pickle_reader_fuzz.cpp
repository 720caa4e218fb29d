// Input: a pickle.

#include <cstddef>
#include <cstdint>

#include "core/model/pickle_reader.h"
#include "core/model/pickled_tensors.h"
#include "core/model/text.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qcache;
  MemoryBytes source({reinterpret_cast<const char*>(data), size});
  const auto pickle = read_pickle(source, 0, size);
  if (!pickle) {
    require(pickle.error().kind == ErrorKind::kInvalidModel && is_utf8(pickle.error().message));
    return 0;
  }
  require(pickle->end <= size);
  const auto tensors = pickled_tensors(pickle->graph);
  require(tensors ? !tensors->empty()
                  : tensors.error().kind == ErrorKind::kInvalidModel && is_utf8(tensors.error().message));
  return 0;
}
