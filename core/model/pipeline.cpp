#include "core/model/pipeline.h"

#include <algorithm>
#include <string_view>

#include "core/model/weight_files.h"

namespace qcache {

std::string pipeline_component(const SourceFolders& folders, const std::string& folder,
                               const std::vector<std::string>& names) {
  const auto listed = [&](std::string_view name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  if (!listed("model_index.json")) {
    return {};
  }
  for (const std::string_view component : kPipelineComponents) {
    if (!listed(component)) {
      continue;
    }
    const auto inside = folders.list(folder + '/' + std::string(component));
    if (inside && weight_signs(*inside) != WeightSigns::kNone) {
      return std::string(component);
    }
  }
  return {};
}

}  // namespace qcache
