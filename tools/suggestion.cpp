#include "tools/suggestion.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "tools/human_text.h"

namespace qcache {
namespace {

std::string lower_case(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return out;
}

// Letters to insert, delete or exchange until one word is the other (Levenshtein).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t exchanged = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, exchanged});
    }
  }
  return row.back();
}

// Smaller is nearer; none where one is hardly meant by the other.
std::optional<size_t> apart(const std::string& word, const std::string& name) {
  constexpr size_t kLeastPart = 3;       // letters of a beginning or an end
  constexpr size_t kLettersPerTypo = 3;  // of two letters, one typo leaves nothing
  constexpr size_t kMostTypos = 3;
  constexpr size_t kPartOfName = kMostTypos + 1;
  const size_t typos = distance(word, name);
  if (typos <= std::min(kMostTypos, std::max<size_t>(1, word.size() / kLettersPerTypo + 1)) && typos < name.size()) {
    return typos;
  }
  if (word.size() >= kLeastPart && (name.starts_with(word) || name.ends_with(word))) {
    return kPartOfName;
  }
  return std::nullopt;
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 512;  // nobody mistypes more, and the table of distances is this squared
  const std::string wanted = lower_case(word.substr(0, kLongest));
  std::string best;
  std::optional<size_t> least;
  for (const std::string& name : known) {
    const auto found = name.size() > kLongest ? std::nullopt : apart(wanted, lower_case(name));
    if (found && (!least || *found < *least)) {
      least = found;
      best = name;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string name = nearest(word, known);
  return name.empty() ? "" : fmt::format("; did you mean {}?", printable(name));
}

}  // namespace qcache
