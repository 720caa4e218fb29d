#include "core/layout/container.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/layout/containers.h"

namespace qcache {
namespace {

constexpr std::string_view kRank = "{rank}";
constexpr std::string_view kComponent = "{component}";

/// The rank in a path that is made by `pattern`. "{rank}" is the first thing in every pattern, "{component}" a whole
/// name.
std::optional<uint32_t> rank_in(std::string_view path, std::string_view pattern) {
  pattern.remove_prefix(kRank.size());
  const size_t digits = std::min(path.find_first_not_of("0123456789"), path.size());
  std::string_view rest = path.substr(digits);
  if (const size_t component = pattern.find(kComponent); component != std::string_view::npos) {
    if (!rest.starts_with(pattern.substr(0, component))) {
      return std::nullopt;
    }
    rest.remove_prefix(component);
    pattern.remove_prefix(component + kComponent.size());
    const size_t name = std::min(rest.find('/'), rest.size());
    if (name == 0) {
      return std::nullopt;
    }
    rest.remove_prefix(name);
  }
  return rest == pattern ? parse_rank(path.substr(0, digits)) : std::nullopt;
}

}  // namespace

std::span<const Container* const> all_containers() {
#define QCACHE_ADDRESS_OF_CONTAINER(name) &container_##name(),
  static const std::array kAll = {QCACHE_CONTAINERS(QCACHE_ADDRESS_OF_CONTAINER)};
#undef QCACHE_ADDRESS_OF_CONTAINER
  return kAll;
}

std::string Container::path_of(uint32_t rank, std::string_view component) const {
  std::string out(component.empty() ? path : pipeline_path);
  out.replace(0, kRank.size(), std::to_string(rank));
  if (const size_t place = out.find(kComponent); place != std::string::npos) {
    out.replace(place, kComponent.size(), component);
  }
  return out;
}

std::optional<ContainerFile> parse_container_path(std::string_view path) {
  for (const Container* const container : all_containers()) {
    for (const std::string_view pattern : {container->path, container->pipeline_path}) {
      if (const auto rank = rank_in(path, pattern)) {
        return ContainerFile{container, *rank};
      }
    }
  }
  return std::nullopt;
}

std::optional<uint32_t> parse_rank(std::string_view digits) {
  const bool leading_zero = digits.size() > 1 && digits[0] == '0';
  const bool all_digits = std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  uint32_t rank = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (digits.empty() || leading_zero || !all_digits || parsed.ec != std::errc() || rank > INT32_MAX) {
    return std::nullopt;
  }
  return rank;
}

}  // namespace qcache
