#include "core/layout/part_index.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace qcache {
namespace {

TEST(PartIndex, AnyPieceIsThatOfTheWholeTextAndIsMadeOfFewParts) {
  std::mt19937 random(7);
  std::vector<std::string> parts;
  PartIndex index;
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    std::string part(random() % 4 == 0 ? 0 : random() % 50, static_cast<char>('a' + i % 26));
    index.add(part.size());
    text += part;
    parts.push_back(std::move(part));
  }
  ASSERT_EQ(index.size_bytes(), text.size());
  for (int i = 0; i < 2000; ++i) {
    const size_t offset = random() % (text.size() + 1);
    const size_t size = random() % std::min<size_t>(text.size() - offset + 1, 300);
    std::string piece(size, '\0');
    size_t made = 0;
    index.render(offset, std::as_writable_bytes(std::span(piece)), [&](size_t part, std::string& out) {
      out += parts.at(part);
      ++made;
    });
    ASSERT_EQ(piece, text.substr(offset, size));
    ASSERT_LE(made, 64 + size + 20) << "those before it since the last known one, its own, and empty ones";
  }
}

TEST(PartIndex, OfNothingIsEmpty) {
  const PartIndex index;
  EXPECT_EQ(index.size_bytes(), 0U);
  index.render(0, {}, [](size_t, std::string&) { FAIL(); });
}

}  // namespace
}  // namespace qcache
