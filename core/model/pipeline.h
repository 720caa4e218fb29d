#pragma once

#include <string>
#include <vector>

#include "core/model/source_folders.h"

namespace qcache {

/// The part of a diffusers pipeline that is quantized, its denoising network: the first of the subfolders transformer
/// and unet that holds weights. Empty where `folder`, which holds these names, is no pipeline (it has no
/// model_index.json), or no such part can be listed.
[[nodiscard]] std::string pipeline_component(const SourceFolders& folders, const std::string& folder,
                                             const std::vector<std::string>& names);

}  // namespace qcache
