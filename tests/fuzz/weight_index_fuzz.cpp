// Input: the text of a model.safetensors.index.json.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/model/text.h"
#include "core/model/weight_files.h"
#include "core/model/weight_index.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qcache;
  const auto index = parse_weight_index({reinterpret_cast<const char*>(data), size});
  if (!index) {
    require(index.error().kind == ErrorKind::kInvalidModel && is_utf8(index.error().message));
    return 0;
  }
  require(!index->weight_map.empty());
  for (size_t i = 0; i < index->weight_map.size(); ++i) {
    const auto& [tensor, shard] = index->weight_map[i];
    require(i == 0 || index->weight_map[i - 1].first < tensor);
    require(is_plain_file_name(shard));
    require(std::binary_search(index->shards.begin(), index->shards.end(), shard));
  }
  return 0;
}
