// The tables of views and encodings of a source, and their first rows.

#include <gmock/gmock.h>

#include <algorithm>
#include <set>
#include <string>

#include "core/model/encodings.h"
#include "core/model/views.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

TEST(SourceViews, HaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const SourceView* const view : all_views()) {
    EXPECT_FALSE(view->name.empty());
    EXPECT_TRUE(names.insert(view->name).second) << view->name;
    EXPECT_NE(view->look, nullptr);
  }
}

TEST(SourceViews, AsItIsAModelIsTheSameObject) {
  const auto model = std::make_shared<const SourceModel>();
  EXPECT_EQ(view_as_is().look(model), model);
}

TEST(SourceEncodings, HaveNamesOfTheirOwnAndFindNothingInNothing) {
  std::set<std::string_view> names;
  for (const SourceEncoding* const encoding : all_source_encodings()) {
    EXPECT_TRUE(names.insert(encoding->name()).second) << encoding->name();
    std::vector<TensorInfo> none;
    EXPECT_THAT(encoding->recognize(ModelFacts(), none), is_ok());
    EXPECT_TRUE(none.empty());
  }
}

TEST(SourceEncodings, ATensorWithoutOneIsPlain) {
  EXPECT_EQ(&encoding_of(TensorInfo()), &encoding_plain());
  TensorInfo tensor;
  tensor.encoding = &encoding_plain();
  EXPECT_EQ(&encoding_of(tensor), &encoding_plain());
}

TEST(SourceEncodings, PlainValuesAreTheBytesOfTheFileInRowOrder) {
  std::string file(64, '\0');
  std::ranges::generate(file, [byte = '\0']() mutable { return byte++; });
  const ReadFile read = [&](uint32_t index, uint64_t position, std::span<std::byte> out) -> Status {
    EXPECT_EQ(index, 3U);
    std::ranges::copy(std::as_bytes(std::span(file)).subspan(position, out.size()), out.begin());
    return {};
  };
  TensorInfo tensor{"w", DType::kU8, {2, 3}, 3, {10, 6}};
  const auto values = [&](uint64_t offset, uint64_t size) {
    std::string out(size, 'x');
    EXPECT_THAT(encoding_of(tensor).read(tensor, offset, std::as_writable_bytes(std::span(out)), read), is_ok());
    return out;
  };
  EXPECT_EQ(values(1, 4), file.substr(11, 4));
  tensor.strides = {1, 2};  // transposed
  EXPECT_EQ(values(0, 6), (std::string{10, 12, 14, 11, 13, 15}));
}

}  // namespace
}  // namespace qcache
