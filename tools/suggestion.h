#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qcache {

/// The one of `known` that somebody may have meant by `word`: a few letters apart, or the same in other letter cases,
/// or what `word` is the beginning or the end of. Empty where none comes near.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& known);

/// "; did you mean NAME?" or nothing.
[[nodiscard]] std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace qcache
