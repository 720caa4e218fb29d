#include <gmock/gmock.h>

#include "tests/engine/engine_fixture.h"

namespace qcache {
namespace {

TEST_F(EngineTest, DescribesWithoutReadingTensors) {
  Engine& engine = start();
  for (const DtypeInfo& dtype : Engine::dtypes(**engine.model("m"))) {
    const auto info = engine.describe(ArtifactName{"m", dtype.scheme, 0});
    ASSERT_TRUE(info) << info.error().message;
    EXPECT_GT(info->size_bytes, 0U);
    EXPECT_EQ(info->state, ArtifactState::kAbsent);
    EXPECT_EQ(info->disk_bytes, 0U);
  }
  EXPECT_EQ(engine.stats().source_bytes_read, 0U);
  EXPECT_EQ(engine.stats().tiles_quantized, 0U);
}

TEST_F(EngineTest, ReadInPiecesEqualsReadAtOnceAndAfterSealing) {
  Engine& engine = start();
  const auto whole = read_all();
  ASSERT_TRUE(whole);
  ASSERT_TRUE(sealed());
  const auto opened = engine.open(name());
  ASSERT_TRUE(opened);
  EXPECT_GE((*opened)->complete_fd(), 0);
  std::vector<std::byte> pieces;
  for (uint64_t offset = 0; offset < whole->size(); offset += 100'003) {
    const auto piece = read(**opened, ByteRange{offset, 100'003});
    ASSERT_TRUE(piece);
    pieces.insert(pieces.end(), piece->begin(), piece->end());
  }
  EXPECT_EQ(pieces, *whole);
}

TEST_F(EngineTest, ConcurrentReadersMakeEachTileOnce) {
  Engine& engine = start();
  std::vector<std::thread> readers;
  std::atomic<int> failures{0};
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] { failures += read_all().has_value() ? 0 : 1; });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(engine.stats().tiles_quantized, tile_count());
}

TEST_F(EngineTest, SmallReadMakesOnlyItsTile) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  ASSERT_TRUE(opened);
  const auto plan = *plan_torch_zip(*engine.model("m"), *find_scheme("int8"));
  const Group group = *plan->group(1);
  ASSERT_TRUE(read(**opened, ByteRange{group.data_offsets[0] + 5, 10}));
  EXPECT_EQ(engine.stats().tiles_quantized, 1U);
  ASSERT_TRUE(read(**opened, ByteRange{0, 100}));  // the header
  EXPECT_EQ(engine.stats().tiles_quantized, 1U);
}

TEST_F(EngineTest, ReadAheadAcrossTheEndOfATensorIsDeclined) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  ASSERT_TRUE(opened);
  const auto plan = *plan_torch_zip(*engine.model("m"), *find_scheme("int8"));
  const Group group = *plan->group(1);
  const uint64_t end = group.data_offsets[0] + group.encoding.stored[0].size_bytes();
  std::promise<ErrorKind> answer;
  (*opened)->read(ByteRange{end - 65'536, 131'072}, ReadIntent::kSpeculative,
                  [&](const auto& bytes) { answer.set_value(bytes ? ErrorKind::kInternal : bytes.error().kind); });
  EXPECT_EQ(answer.get_future().get(), ErrorKind::kBusy);
  EXPECT_EQ(engine.stats().tiles_quantized, 0U);
  EXPECT_TRUE(read(**opened, ByteRange{end - 65'536, 131'072})) << "a program's own read gets it";
}

TEST_F(EngineTest, FillStopsWhenNobodyWantsTheFileAndResumes) {
  Engine& engine = start();
  {
    const auto opened = engine.open(name());
    ASSERT_TRUE(read(**opened, ByteRange{200'000, 1000}));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(2600));  // longer than the fill's delay
  EXPECT_LT(engine.stats().tiles_quantized, tile_count());
  ASSERT_TRUE(engine.set_warm(name(), true));
  EXPECT_TRUE(sealed());
  EXPECT_EQ(engine.stats().tiles_quantized, tile_count());
}

TEST_F(EngineTest, OpenReaderGetsTheWholeFileFilled) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  ASSERT_TRUE(read(**opened, ByteRange{200'000, 1000}));
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, AnExpectedReaderGetsTheFileFilledAndIsNoAccess) {
  Engine& engine = start();
  ASSERT_TRUE(engine.expect_reader(name()));
  ASSERT_TRUE(sealed());
  EXPECT_EQ(engine.stats().tiles_quantized, tile_count());
  const uint64_t opens = engine.stats().opens_sealed;
  ASSERT_TRUE(engine.expect_reader(name()));
  EXPECT_EQ(engine.stats().opens_sealed, opens) << "aging would take it for used";
  EXPECT_FALSE(engine.expect_reader(name("int7"))) << "there is no such file";
}

TEST_F(EngineTest, RemovedWhileReadKeepsItsBytesAndIsNotSealed) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  const auto before = read(**opened, ByteRange{0, 50'000});
  ASSERT_TRUE(engine.remove(name()));
  EXPECT_EQ(engine.describe(name())->disk_bytes, 0U);
  const auto all = read(**opened, ByteRange{0, (*opened)->size_bytes()});
  ASSERT_TRUE(all);
  EXPECT_TRUE(std::equal(before->begin(), before->end(), all->begin()));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(engine.describe(name())->state, ArtifactState::kAbsent);
}

TEST_F(EngineTest, NextRunVerifiesTilesInsteadOfMakingThem) {
  {
    Engine& engine = start();
    const auto opened = engine.open(name());
    ASSERT_TRUE(read(**opened, ByteRange{200'000, 1000}));
    ASSERT_EQ(engine.stats().tiles_quantized, 1U);
  }
  engine_.reset();
  Engine& engine = start();
  ASSERT_TRUE(read_all());
  EXPECT_EQ(engine.stats().tiles_quantized, tile_count() - 1);
  EXPECT_EQ(engine.stats().tiles_verified, 1U);
}

TEST_F(EngineTest, OpeningExpectsTheRecipeOfTheLookup) {
  Engine& engine = start();
  const Sha256Digest old = engine.describe(name())->recipe;
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  builder_.file("config.json", R"({"model_type":"qwen2"})").write(dir_ / "models/m");
  const auto opened = engine.open(name(), &old);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::kSourceChanged);
}

TEST_F(EngineTest, StopAnswersReadersThatWait) {
  Engine& engine = start(1);
  const auto opened = engine.open(name());
  std::promise<void> reading;
  std::promise<void> go_on;
  env_.before(
      EnvCall::kReadAt, 1,
      [&] {
        reading.set_value();
        go_on.get_future().wait();
      },
      "model.safetensors");
  auto answer = std::async(std::launch::async, [&] { return read(**opened, ByteRange{0, (*opened)->size_bytes()}); });
  reading.get_future().wait();
  std::thread stopper([&] { engine.stop(); });
  const auto got = answer.get();
  go_on.set_value();
  stopper.join();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().kind, ErrorKind::kInterrupted);
}

TEST_F(EngineTest, CancelledReadEndsAtOnce) {
  Engine& engine = start(1);
  const auto opened = engine.open(name());
  std::promise<void> reading;
  std::promise<void> go_on;
  env_.before(
      EnvCall::kReadAt, 1,
      [&] {
        reading.set_value();
        go_on.get_future().wait();
      },
      "model.safetensors");
  std::promise<ErrorKind> answer;
  const auto pending =
      (*opened)->read(ByteRange{0, (*opened)->size_bytes()}, ReadIntent::kWanted,
                      [&](const auto& bytes) { answer.set_value(bytes ? ErrorKind::kInternal : bytes.error().kind); });
  ASSERT_TRUE(pending);
  reading.get_future().wait();
  pending->cancel();
  EXPECT_EQ(answer.get_future().get(), ErrorKind::kInterrupted);
  go_on.set_value();
  pending->cancel();  // without effect
  EXPECT_TRUE(read(**opened, ByteRange{0, 100'000}));
}

}  // namespace
}  // namespace qcache
