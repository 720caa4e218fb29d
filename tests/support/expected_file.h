#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/layout/layout_plan.h"

namespace qcache {

/// The plan of `<model>/<dtype>/0.bin` for the model in `folder`, named like the folder. Throws where there is none.
[[nodiscard]] std::shared_ptr<const LayoutPlan> planned_file(const std::string& folder, std::string_view dtype);

/// The bytes that file must have, made the simple way: every tensor whole in memory, encoded in one go, its checksum
/// taken over the result. No tiles, no backing file, no second thread: what the mount delivers is compared with this.
/// Throws where the model cannot be read or served.
[[nodiscard]] std::string expected_file(const std::string& folder, std::string_view dtype);
/// The same of `<model>/<dtype>/0/model.safetensors`.
[[nodiscard]] std::string expected_safetensors(const std::string& folder, std::string_view dtype);

/// What quantizing the weight `tensor` loses, in fp32, row-major: the weight minus what its stored bytes stand for.
/// Empty where it is not quantized.
[[nodiscard]] std::vector<float> expected_residual(const std::string& folder, std::string_view dtype,
                                                   std::string_view tensor);

}  // namespace qcache
