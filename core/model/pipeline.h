#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/source_folders.h"

namespace qcache {

/// Where the network of a diffusers pipeline may lie.
inline constexpr std::array<std::string_view, 2> kPipelineComponents = {"transformer", "unet"};

/// The part of a diffusers pipeline that is quantized, its denoising network: the first of kPipelineComponents that
/// holds weights. Empty where `folder`, which holds these names, is no pipeline (it has no model_index.json), or no
/// such part can be listed.
[[nodiscard]] std::string pipeline_component(const SourceFolders& folders, const std::string& folder,
                                             const std::vector<std::string>& names);

}  // namespace qcache
