#include "core/quant/scheme.h"

#include <algorithm>
#include <array>

#include "core/quant/schemes.h"

namespace qcache {
namespace {

/// Folds case (ASCII only, whatever the locale) and "-" to "_".
char folded(char c) {
  if (c >= 'A' && c <= 'Z') {
    return static_cast<char>(c - 'A' + 'a');
  }
  return c == '-' ? '_' : c;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return folded(x) == folded(y); });
}

bool is_called(const Scheme& scheme, std::string_view name) {
  return same_name(scheme.name(), name) ||
         std::any_of(scheme.aliases().begin(), scheme.aliases().end(),
                     [name](std::string_view alias) { return same_name(alias, name); });
}

}  // namespace

std::span<const Scheme* const> all_schemes() {
#define QCACHE_SCHEME_ADDRESS(name) &scheme_##name(),
  static const std::array kSchemes = {QCACHE_SCHEMES(QCACHE_SCHEME_ADDRESS)};
#undef QCACHE_SCHEME_ADDRESS
  return kSchemes;
}

const Scheme* find_scheme(std::string_view name) {
  const auto schemes = all_schemes();
  const auto found =
      std::find_if(schemes.begin(), schemes.end(), [name](const Scheme* scheme) { return is_called(*scheme, name); });
  return found == schemes.end() ? nullptr : *found;
}

}  // namespace qcache
