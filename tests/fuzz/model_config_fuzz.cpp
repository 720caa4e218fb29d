// Input: the text of a config.json.

#include <cstddef>
#include <cstdint>

#include "core/model/model_facts.h"
#include "core/model/text.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qcache;
  const ModelFacts facts = parse_model_facts({reinterpret_cast<const char*>(data), size});
  require(facts.has_config == facts.config_problem.empty());
  require(is_utf8(facts.config_problem) && is_utf8(facts.model_type) && is_utf8(facts.quant_method));
  return 0;
}
