// What the engine does when the disk, the source or the cached bytes misbehave.

#include <fcntl.h>
#include <gmock/gmock.h>

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <new>
#include <optional>
#include <utility>

#include "tests/engine/engine_fixture.h"
#include "tests/store/store_fixture.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using testing::HasSubstr;

/// Holds up the next read of the model, in whichever thread that is.
class HeldUp {
 public:
  explicit HeldUp(FakeEnv& env) : state_(std::make_shared<State>()) {
    env.before(
        EnvCall::kReadAt, 1,
        [state = state_] {
          state->reached.set_value();
          state->go_on.get_future().wait();
        },
        "model.safetensors");
  }
  ~HeldUp() { go_on(); }
  HeldUp(const HeldUp&) = delete;
  HeldUp& operator=(const HeldUp&) = delete;

  void wait() { state_->reached.get_future().wait(); }
  void go_on() {
    if (!std::exchange(done_, true)) {
      state_->go_on.set_value();
    }
  }

 private:
  struct State {
    std::promise<void> reached;
    std::promise<void> go_on;
  };
  const std::shared_ptr<State> state_;
  bool done_ = false;
};

TEST_F(EngineTest, AFullDiskIsReadFromMemoryAndFilledWhenThereIsRoom) {
  Engine& engine = start();
  const auto right = made_and_removed();
  const auto opened = engine.open(name());
  ASSERT_TRUE(opened);
  const uint64_t size = (*opened)->size_bytes();
  env_.fail_all(EnvCall::kWriteAt, ENOSPC, "filling/");
  EXPECT_EQ(read(**opened, ByteRange{0, size}), right);
  constexpr uint64_t kPiece = 131'072;  // as the kernel asks for a mapping's pages
  std::vector<std::byte> pieces;
  for (uint64_t offset = 0; offset < size; offset += kPiece) {
    const auto piece = read(**opened, ByteRange{offset, kPiece});
    ASSERT_TRUE(piece) << piece.error().message;
    pieces.insert(pieces.end(), piece->begin(), piece->end());
  }
  EXPECT_EQ(pieces, *right);
  EXPECT_LE(engine.stats().tiles_quantized, uint64_t{5} * tile_count()) << "each tile for each piece";
  EXPECT_EQ(engine.stats().read_errors, 0U);
  const auto info = engine.describe(name());
  EXPECT_EQ(info->state, ArtifactState::kFailed);
  EXPECT_THAT(info->error, HasSubstr("No space left"));
  EXPECT_EQ(info->progress, 0.0) << "what is not stored must not be marked";
  EXPECT_LT(info->disk_bytes, size / 16) << "what half a tile occupies is to be given back";
  ASSERT_FALSE(engine.errors().empty());
  EXPECT_EQ(engine.errors()[0].subject, "m/int8/0.bin");
  env_.heal();
  EXPECT_TRUE(sealed()) << "its reader is still there";
  EXPECT_EQ(read_all(), right);
}

TEST_F(EngineTest, EveryDtypeIsReadFromMemoryWhereTheDiskIsFull) {
  Engine& engine = start();
  for (const Scheme* scheme : all_schemes()) {
    const std::string dtype(scheme->name());
    SCOPED_TRACE(dtype);
    if (why_not_served(**engine.model("m"), *scheme)) {
      continue;
    }
    const auto right = read_all(dtype);
    ASSERT_TRUE(right);
    ASSERT_TRUE(engine.remove(name(dtype)));
    const auto opened = engine.open(name(dtype));
    ASSERT_TRUE(opened);
    env_.fail_all(EnvCall::kWriteAt, ENOSPC, "filling/");
    EXPECT_TRUE(read(**opened, ByteRange{0, (*opened)->size_bytes()}) == right);
    env_.heal();
    ASSERT_TRUE(engine.remove(name(dtype)));
  }
}

TEST_F(EngineTest, WarmingEndsWhereTheDiskIsFull) {
  Engine& engine = start();
  ASSERT_TRUE(engine.open(name()));  // it stays for a while
  env_.fail_all(EnvCall::kWriteAt, ENOSPC, "filling/");
  ASSERT_TRUE(engine.set_warm(name(), true));
  ASSERT_TRUE(reaches(ArtifactState::kFailed));
  const uint64_t made = engine.stats().tiles_quantized;
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_LE(engine.stats().tiles_quantized, made + 2) << "it goes on although nothing can be stored";
  env_.heal();
  ASSERT_TRUE(engine.set_warm(name(), true));
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, OutOfMemoryFailsOneReadOnly) {
  start();
  const auto opened = engine_->open(name());
  const ByteRange range{200'000, 1000};
  const struct {
    const char* thread;
    uint64_t nth;
  } rows[] = {
      {"a worker, which has looked twice for the tile's mark, and whether the file is complete, and made it", 4},
      {"the reader's own, where the tile is there", 1}};
  for (const auto& row : rows) {
    env_.before(
        EnvCall::kReadAt, row.nth, [] { throw std::bad_alloc(); }, "filling/");
    const auto failed = read(**opened, range);
    ASSERT_FALSE(failed) << row.thread;
    EXPECT_EQ(failed.error().kind, ErrorKind::kInternal);
    EXPECT_THAT(failed.error().message, HasSubstr("m/int8/0.bin"));
  }
  EXPECT_TRUE(read(**opened, range));
}

TEST_F(EngineTest, OutOfMemoryWhileSealingHarmsThatFileOnly) {
  Engine& engine = start();
  env_.before(
      EnvCall::kSync, 1, [] { throw std::bad_alloc(); }, "filling/");
  const auto whole = read_all();
  ASSERT_TRUE(whole);
  while (engine.errors().empty()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(engine.errors()[0].subject, "m/int8/0.bin");
  EXPECT_THAT(engine.errors()[0].error.message, HasSubstr("cannot seal"));
  EXPECT_EQ(read_all(), whole);
  EXPECT_TRUE(read_all("nf4"));
  EXPECT_TRUE(sealed("nf4")) << "the sealer goes on";
}

TEST_F(EngineTest, OutOfMemoryInMaintenanceDoesNotEndIt) {
  Engine& engine = start();
  std::atomic<int> passes{0};
  env_.before(EnvCall::kSpace, 1, [&] {
    ++passes;
    throw std::bad_alloc();
  });
  while (passes == 0) {  // the first pass looks at the free space
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const auto opened = engine.open(name());
  ASSERT_TRUE(read(**opened, ByteRange{200'000, 1000}));
  EXPECT_TRUE(sealed()) << "it still starts the background fill";
  ASSERT_FALSE(engine.errors().empty());
  EXPECT_EQ(engine.errors()[0].subject, "maintenance");
}

// A full disk refuses both, and what aging drops is what makes room.
TEST_F(EngineTest, AgingGoesOnWhereAccessesCannotBeRecorded) {
  const auto directory = CacheDirectory::open(env_, dir_ / "cache");
  ASSERT_TRUE(directory);
  const auto impatient =
      Catalog::open(directory->index_path(), {.write_patience = std::chrono::milliseconds(50)});  // the engine's, too
  ASSERT_TRUE(impatient);
  Engine& engine = start();
  ASSERT_TRUE(read_all() && sealed());
  const auto users = env_.open(directory->index_path() + "/users", O_RDWR, 0);
  ASSERT_TRUE(users);
  constexpr uint64_t kWriter = 3;  // the byte of who commits (catalog_locks.cpp)
  ASSERT_TRUE(eventually([&] { return env_.try_lock_byte(users->get(), kWriter, LockKind::kExclusive) == true; }));
  ASSERT_TRUE(read_all());  // an access to be recorded
  EXPECT_TRUE(engine.age());
  ASSERT_FALSE(engine.errors().empty());
  EXPECT_EQ(engine.errors()[0].subject, "catalog");
}

TEST_F(EngineTest, OpenThatFailsIsListedAmongTheErrors) {
  Engine& engine = start();
  env_.fail_all(EnvCall::kOpen, ENOSPC, "filling/");
  const auto failed = engine.open(name());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind, ErrorKind::kNoSpace);
  ASSERT_FALSE(engine.errors().empty());
  EXPECT_EQ(engine.errors()[0].subject, "m/int8/0.bin");
}

TEST_F(EngineTest, SourceReadErrorReachesTheReader) {
  start();
  const auto opened = engine_->open(name());
  env_.fail(EnvCall::kReadAt, 1, EIO, "model.safetensors");
  const auto failed = read(**opened, ByteRange{0, (*opened)->size_bytes()});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind, ErrorKind::kIo);
  EXPECT_TRUE(read(**opened, ByteRange{0, (*opened)->size_bytes()}));
}

TEST_F(EngineTest, SourceRewrittenBetweenReadAndCheckIsNeverServed) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  const std::string source = dir_ / "models/m/model.safetensors";
  env_.before(
      EnvCall::kReadAt, 1, [&] { flip_byte(source, 300'000); }, "model.safetensors");
  const auto failed = read(**opened, ByteRange{0, (*opened)->size_bytes()});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().kind, ErrorKind::kSourceChanged);
  EXPECT_FALSE(read(**opened, ByteRange{200'000, 4'000'000})) << "the handle stays with the state that is gone";
  EXPECT_TRUE(read_all()) << "a new open serves what is there now";
}

TEST_F(EngineTest, FailedSealLosesNothing) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  env_.fail(EnvCall::kRename, 1, EIO, "filling/quantized");
  const auto first = read(**opened, ByteRange{0, (*opened)->size_bytes()});
  ASSERT_TRUE(first);
  for (int i = 0; i < 500 && engine.errors().empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_FALSE(engine.errors().empty());
  EXPECT_EQ(read_all(), first);
}

TEST_F(EngineTest, SealingThatFailsIsToldAndTriedAgainWhileTheFileIsOpen) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  env_.fail_all(EnvCall::kRename, ENOSPC, "filling/quantized");
  ASSERT_TRUE(read(**opened, ByteRange{0, (*opened)->size_bytes()}));
  ASSERT_TRUE(reaches(ArtifactState::kFailed));
  EXPECT_THAT(engine.describe(name())->error, HasSubstr("No space left"));
  env_.heal();
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, WarmingAFileThatCannotBeSealedFailsAndTheNextTriesAtOnce) {
  Engine& engine = start();
  ASSERT_TRUE(engine.open(name()));  // it stays for a while
  env_.fail_all(EnvCall::kRename, ENOSPC, "filling/quantized");
  for (int round = 0; round < 4; ++round) {  // without trying at once the third would wait for four seconds
    ASSERT_TRUE(engine.set_warm(name(), true));
    EXPECT_NE(engine.describe(name())->state, ArtifactState::kFailed) << "of an earlier round";
    ASSERT_TRUE(reaches(ArtifactState::kFailed));
  }
  env_.heal();
  ASSERT_TRUE(engine.set_warm(name(), true));
  EXPECT_TRUE(sealed());
}

TEST_F(EngineTest, ASurveyThatThrowsLeavesNobodyWaiting) {
  Engine& engine = start();
  const auto opened = engine.open(name("nvfp4"));
  ASSERT_TRUE(opened);
  env_.before(
      EnvCall::kReadAt, 1, [] { throw std::bad_alloc(); }, "model.safetensors");
  const ByteRange range{300'000, 1000};
  ASSERT_FALSE(read(**opened, range));
  auto again = std::async(std::launch::async, [&] { return read(**opened, range); });
  ASSERT_EQ(again.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_TRUE(again.get());
}

TEST_F(EngineTest, ATileThatThrowsIsNotLeftLocked) {
  Engine& engine = start();
  const auto opened = engine.open(name());
  ASSERT_TRUE(opened);
  env_.before(
      EnvCall::kReadAt, 1, [] { throw std::bad_alloc(); }, "model.safetensors");
  ASSERT_FALSE(read(**opened, ByteRange{200'000, 1000}));
  const CacheDirectory& directory = engine.store().directory();
  const auto map = env_.open(directory.map_path(engine.describe(name())->file), O_RDWR, 0);
  ASSERT_TRUE(map);
  for (uint32_t tile = 0; tile < tile_count(); ++tile) {
    EXPECT_EQ(env_.try_lock_byte(map->get(), tile, LockKind::kExclusive), true) << tile;
  }
}

TEST_F(EngineTest, DeathBetweenATilesBytesAndItsMarkCostsThatTile) {
  constexpr int kDied = 42;
  constexpr int kWritten = 3;
  EXPECT_EQ(run_child([&] {
              std::atomic<int> written{0};
              env_.at("tile written", [&] {
                if (++written == kWritten) {
                  ::_exit(kDied);
                }
              });
              start(1);
              (void)read_all();
              return 0;
            }),
            kDied);
  Engine& engine = start();
  const auto left = engine.store().entries();
  ASSERT_EQ(left->size(), 1U);
  EXPECT_DOUBLE_EQ(left->front().progress, static_cast<double>(kWritten - 1) / tile_count());
  const auto resumed = read_all();
  ASSERT_TRUE(resumed);
  EXPECT_EQ(engine.stats().tiles_quantized, tile_count() - (kWritten - 1));
  EXPECT_EQ(engine.stats().tiles_rejected, 0U);
  ASSERT_TRUE(sealed());
  ASSERT_TRUE(engine.remove(name()));
  EXPECT_EQ(read_all(), resumed);
}

// As on some network filesystems, where nobody can be kept away.
TEST_F(EngineTest, WithoutByteLocksAFileIsMadeAndSealedAllTheSame) {
  start();
  const auto right = made_and_removed();
  env_.fail_all(EnvCall::kLockByte, ENOLCK);
  const auto got = read_all();
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got, right);
  EXPECT_TRUE(sealed());
  EXPECT_EQ(read_all(), right);
}

TEST_F(EngineTest, StopAnswersReadersOfRemovedFiles) {
  Engine& engine = start(1);
  const auto opened = engine.open(name());
  HeldUp held(env_);
  auto answer = std::async(std::launch::async, [&] { return read(**opened, ByteRange{0, (*opened)->size_bytes()}); });
  held.wait();
  ASSERT_TRUE(engine.remove(name()));
  std::thread stopper([&] { engine.stop(); });
  const bool answered = answer.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  held.go_on();
  stopper.join();
  ASSERT_TRUE(answered);
  const auto got = answer.get();
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().kind, ErrorKind::kInterrupted);
}

TEST_F(EngineTest, RemovingAFileEndsItsBackgroundFill) {
  Engine& engine = start(1);
  for (const bool by_another_process : {false, true}) {
    const uint64_t before = engine.stats().tiles_quantized;
    const auto reader = engine.open(name());
    ASSERT_TRUE(reader);
    HeldUp held(env_);
    ASSERT_TRUE(engine.set_warm(name(), true));
    held.wait();
    if (by_another_process) {
      ASSERT_TRUE(engine.store().drop(engine.describe(name())->file, "as another process would"));
      std::this_thread::sleep_for(std::chrono::seconds(1));  // the fill finds it out
    } else {
      ASSERT_TRUE(engine.remove(name()));
    }
    held.go_on();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_EQ(engine.stats().tiles_quantized - before, 1U) << "the one that was being made";
    EXPECT_TRUE(read(**reader, ByteRange{0, (*reader)->size_bytes()})) << "who has it open still gets what he reads";
    EXPECT_EQ(engine.describe(name())->state, ArtifactState::kAbsent);
  }
}

// Closing the last descriptor of a large file that was removed frees its blocks, which takes seconds: neither who
// removes it nor who opens another file waits for that.
TEST_F(EngineTest, RemovedFilesAreClosedByAWorker) {
  Engine& engine = start(1);
  const auto held_open = [] {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      count += std::filesystem::read_symlink(entry, gone).string().ends_with(".bin (deleted)") ? 1U : 0U;
    }
    return count;
  };
  {
    const auto opened = engine.open(name());
    ASSERT_TRUE(read(**opened, ByteRange{200'000, 1000}));
  }
  const auto other = engine.open(name("fp8"));
  HeldUp held(env_);
  auto answer = std::async(std::launch::async, [&] { return read(**other, ByteRange{200'000, 1000}); });
  held.wait();  // the only worker is busy
  ASSERT_TRUE(engine.remove(name()));
  EXPECT_GE(held_open(), 1U);
  held.go_on();
  EXPECT_TRUE(answer.get());
  for (int i = 0; i < 500 && held_open() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(held_open(), 0U);
}

TEST_F(EngineTest, AnOpenFileCountsAsUsedUntilItIsClosed) {
  constexpr int64_t kDay = int64_t{86'400} * 1'000'000'000;
  Engine& engine = start();
  ASSERT_TRUE(read_all());
  ASSERT_TRUE(sealed());
  const auto used_since = [&](int64_t time) {
    for (int i = 0; i < 500; ++i) {
      if (engine.describe(name())->record->accessed_ns >= time) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  };
  std::optional<OpenArtifact> opened(std::move(*engine.open(name())));
  ASSERT_GE((*opened)->complete_fd(), 0);
  env_.advance(8 * kDay);
  EXPECT_TRUE(used_since(env_.now_ns())) << "while it is open";
  env_.advance(60'000'000'000);
  const int64_t closed_at = env_.now_ns();
  opened.reset();
  EXPECT_TRUE(used_since(closed_at)) << "when it is closed";
  const uint64_t hits = engine.describe(name())->record->hits;
  EXPECT_EQ(hits, 1U);

  opened.emplace(std::move(*engine.open(name())));
  env_.advance(60'000'000'000);
  engine.stop();
  EXPECT_TRUE(used_since(env_.now_ns())) << "when the daemon ends";
  opened.reset();
}

TEST_F(EngineTest, AFileBeingMadeCountsAsUsedWhileItIsOpenAndByItsCloseEvenOnceSealed) {
  constexpr int64_t kDay = int64_t{86'400} * 1'000'000'000;
  Engine& engine = start();
  std::optional<OpenArtifact> opened(std::move(*engine.open(name())));
  const std::string map = engine.store().directory().map_path(engine.describe(name())->file);
  const auto used_lately = [&] {
    for (int i = 0; i < 500; ++i) {
      if (env_.stat(map)->mtime_ns > Env::posix().now_ns() - kDay) {
        return true;
      }
      env_.advance(kDay);  // more than once, as the maintenance thread may only just have begun to count
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  };
  const auto make_old = [&] { set_mtime(map, Env::posix().now_ns() - 8 * kDay); };
  make_old();
  EXPECT_TRUE(used_lately()) << "while it is open";
  make_old();
  opened.reset();
  EXPECT_TRUE(used_lately()) << "when it is closed";

  opened.emplace(std::move(*engine.open(name())));
  ASSERT_TRUE(read(**opened, ByteRange{0, (*opened)->size_bytes()}));
  ASSERT_TRUE(sealed());
  env_.advance(60'000'000'000);
  const int64_t closed_at = env_.now_ns();
  opened.reset();  // of a file that was opened before it was complete
  for (int i = 0; i < 500 && engine.describe(name())->record->accessed_ns < closed_at; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_GE(engine.describe(name())->record->accessed_ns, closed_at);
}

}  // namespace
}  // namespace qcache
