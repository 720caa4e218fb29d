// That the engine can make whatever an encoding asks for: bytes of one tile in two places, and surveys.

#include <gmock/gmock.h>

#include "tests/engine/engine_fixture.h"
#include "tests/support/expected_file.h"

namespace qcache {
namespace {

class EngineSchemeTest : public EngineTest, public testing::WithParamInterface<const Scheme*> {};

TEST_P(EngineSchemeTest, AnyOrderOfReadsGivesTheBytesOfTheScheme) {
  const std::string_view dtype = GetParam()->name();
  const std::string text = expected_file(dir_ / "models/m", dtype);
  const auto expected = std::as_bytes(std::span(text));
  Engine& engine = start();
  const auto opened = engine.open(name(dtype));
  ASSERT_TRUE(opened) << opened.error().message;
  ASSERT_EQ((*opened)->size_bytes(), expected.size());
  constexpr uint64_t kPiece = 400'009;
  for (uint64_t end = expected.size(); end > 0;) {
    const uint64_t begin = end > kPiece ? end - kPiece : 0;
    const auto piece = read(**opened, ByteRange{begin, end - begin});
    ASSERT_TRUE(piece) << piece.error().message;
    ASSERT_TRUE(std::ranges::equal(*piece, expected.subspan(begin, end - begin))) << "bytes from " << begin;
    end = begin;
  }
  ASSERT_TRUE(sealed(dtype));
  const auto whole = read_all(dtype);
  ASSERT_TRUE(whole);
  EXPECT_TRUE(std::ranges::equal(*whole, expected));
}

INSTANTIATE_TEST_SUITE_P(All, EngineSchemeTest, testing::ValuesIn(all_schemes().begin(), all_schemes().end()),
                         [](const testing::TestParamInfo<const Scheme*>& scheme) {
                           std::string name(scheme.param->name());
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_F(EngineTest, ConcurrentReadersSurveyEachTensorOnce) {
  Engine& engine = start(4);
  std::vector<std::thread> readers;
  std::atomic<int> failures{0};
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] { failures += read_all("nvfp4").has_value() ? 0 : 1; });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(failures, 0);
  ASSERT_GE(tile_count("nvfp4"), 4U);
  constexpr uint64_t kQuantized = 2048 * 2048 * 2;  // q_proj: surveyed, then read
  constexpr uint64_t kDense = (256 * 512 + 512) * 2;
  constexpr uint64_t kSample = kQuantized / 8;  // may be read by the sealer meanwhile, for quality figures
  EXPECT_GE(engine.stats().source_bytes_read, 2 * kQuantized + kDense);
  EXPECT_LE(engine.stats().source_bytes_read, 2 * kQuantized + kDense + kSample);
}

TEST_F(EngineTest, ASurveyThatFailsIsMadeAgain) {
  Engine& engine = start();
  const auto opened = engine.open(name("nvfp4"));
  ASSERT_TRUE(opened);
  env_.fail_all(EnvCall::kReadAt, EIO, "model.safetensors");
  const auto failed = read(**opened, ByteRange{0, (*opened)->size_bytes()});
  ASSERT_FALSE(failed);
  env_.heal();
  bool right = false;
  for (int attempt = 0; attempt < 10 && !right; ++attempt) {
    right = read_all("nvfp4").has_value();
  }
  EXPECT_TRUE(right);
}

}  // namespace
}  // namespace qcache
