// The parts that make a file and bring it to its end, each without an engine.

#include <gmock/gmock.h>

#include "core/engine/cached_ranks.h"
#include "core/engine/live_files.h"
#include "core/engine/sealer.h"
#include "tests/engine/filling_fixture.h"
#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// --- assembly -------------------------------------------------------------------------------------------------------

using AssemblyTest = FillingFixture;

TEST_F(AssemblyTest, EveryRangeIsThatOfTheWholeFile) {
  const auto file = artifact();
  const auto whole = read_all(*file);
  ASSERT_THAT(whole, is_ok());
  const Assembly assembly(env_, file->plan(), file->filling());
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{200'000}, whole->size() - 30}) {
    for (const uint64_t size : {uint64_t{1}, uint64_t{29}, uint64_t{70'000}}) {
      const ByteRange range = ByteRange{offset, size}.intersect(ByteRange{0, whole->size()});
      std::vector<std::byte> part(range.size);
      ASSERT_THAT(assembly.read(range, {}, part), is_ok());
      EXPECT_TRUE(std::ranges::equal(part, std::span(*whole).subspan(range.offset, range.size))) << offset;
    }
  }
}

TEST_F(AssemblyTest, StaticBytesMakeTheFileWhatReadersGot) {
  const auto file = artifact();
  const auto whole = read_all(*file);
  ASSERT_THAT(whole, is_ok());
  ASSERT_THAT(Assembly(env_, file->plan(), file->filling()).write_static_bytes(), is_ok());
  std::vector<std::byte> on_disk(whole->size());
  ASSERT_THAT(env_.read_at(file->filling().fd(), on_disk, 0), is_ok());
  EXPECT_EQ(on_disk, *whole);
}

TEST_F(AssemblyTest, AFileThatSomebodyCutIsToldFromOneThatIsNot) {
  const auto file = artifact();
  ASSERT_THAT(read_all(*file), is_ok());
  ASSERT_THAT(env_.truncate(file->filling().fd(), 1'000'000), is_ok());
  const Assembly assembly(env_, file->plan(), file->filling());
  std::vector<std::byte> part(100);
  EXPECT_THAT(assembly.read({900'000, 100}, {}, part), is_ok());
  const auto cut = assembly.read({2'000'000, 100}, {}, part);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(cut.error().message, testing::HasSubstr("m/int8/0.bin was cut short"));
}

TEST_F(AssemblyTest, TrailersNeedTheMarksOfTheirTiles) {
  const auto file = artifact();
  ASSERT_THAT(read_all(*file), is_ok());
  ASSERT_THAT(file->filling().unmark(1), is_ok());
  EXPECT_FALSE(Assembly(env_, file->plan(), file->filling()).write_static_bytes());
}

// --- waiting reads --------------------------------------------------------------------------------------------------

class WaitingReadsTest : public FillingFixture {
 protected:
  std::shared_ptr<WaitingRead> waiting_for(const std::vector<uint32_t>& tiles) {
    const auto read = std::make_shared<WaitingRead>(
        ByteRange{0, 1}, [this](const auto& bytes) { ended_.push_back(bytes.error().kind); },
        [this](const WaitingRead& cancelled) { dropped_ = reads_.forget(cancelled); });
    for (const uint32_t tile : tiles) {
      reads_.add(tile, read);
    }
    return read;
  }
  std::vector<WaitingRead*> released(uint32_t tile, const Result<std::shared_ptr<const UnstoredTile>>& made = nullptr) {
    std::vector<WaitingRead*> out;
    for (const auto& [waited_for, read] : reads_.release(artifact_->plan(), tile, made)) {
      out.push_back(read.get());
    }
    return out;
  }

  std::shared_ptr<FillingArtifact> artifact_ = artifact();
  WaitingReads reads_;
  WaitingReads::Reads dropped_;
  std::vector<ErrorKind> ended_;
};

TEST_F(WaitingReadsTest, AReadIsLetGoByTheLastOfItsTiles) {
  const auto both = waiting_for({1, 2});
  const auto one = waiting_for({2});
  EXPECT_FALSE(WaitingReads::has_all(*both));
  EXPECT_TRUE(reads_.any_for(1));
  EXPECT_THAT(released(2), ElementsAre(one.get()));
  EXPECT_FALSE(reads_.any_for(2));
  EXPECT_THAT(released(1), ElementsAre(both.get()));
  EXPECT_FALSE(reads_.any());
}

TEST_F(WaitingReadsTest, AFailedTileLetsAllOfItsReadsGo) {
  const auto both = waiting_for({1, 2});
  const auto one = waiting_for({2});
  EXPECT_THAT(released(2, fail(ErrorKind::kIo, "broken")), UnorderedElementsAre(both.get(), one.get()));
}

TEST_F(WaitingReadsTest, ACancelledReadIsForgottenAndEndsOnce) {
  const auto read = waiting_for({1, 2});
  read->cancel();
  read->cancel();
  EXPECT_THAT(ended_, ElementsAre(ErrorKind::kInterrupted));
  EXPECT_FALSE(reads_.any());
  EXPECT_EQ(dropped_.size(), 2U) << "to be let go of by the caller";
  EXPECT_FALSE(read->claim());
}

// --- the files of one process ---------------------------------------------------------------------------------------

using LiveFilesTest = FillingFixture;

TEST_F(LiveFilesTest, WhatIsUsableKeepsItsName) {
  LiveFiles files;
  const auto first = artifact();
  const auto second = artifact();
  std::shared_ptr<FillingArtifact> replaced;
  const auto usable = [](const FillingArtifact&) { return true; };
  const auto unusable = [](const FillingArtifact&) { return false; };
  EXPECT_EQ(files.find(base()), nullptr);
  EXPECT_EQ(*files.keep(base(), first, usable, replaced), first);
  EXPECT_EQ(*files.keep(base(), second, usable, replaced), first);
  EXPECT_EQ(replaced, nullptr);
  EXPECT_EQ(*files.keep(base(), second, unusable, replaced), second);
  EXPECT_EQ(replaced, first);
  EXPECT_EQ(files.find(base()), second);
  EXPECT_THAT(files.all(), ElementsAre(second));
}

TEST_F(LiveFilesTest, WhatIsForgottenIsNotFoundButEndsWithTheMount) {
  LiveFiles files;
  std::shared_ptr<FillingArtifact> replaced;
  const auto usable = [](const FillingArtifact&) { return true; };
  const auto file = artifact();
  const auto other = artifact("nf4");
  ASSERT_THAT(files.keep(base(), file, usable, replaced), is_ok());
  ASSERT_THAT(files.keep(base("nf4"), other, usable, replaced), is_ok());
  files.forget(file);
  EXPECT_EQ(files.find(base()), nullptr);
  files.forget(file);  // of a name that is not known
  EXPECT_EQ(files.take(base()), nullptr);
  EXPECT_THAT(files.take_if([](const FillingArtifact& one) { return one.name().scheme->name() == "nf4"; }),
              ElementsAre(other));
  EXPECT_THAT(files.all(), IsEmpty());
  EXPECT_THAT(files.stop(), UnorderedElementsAre(file, other));
  EXPECT_EQ(files.keep(base(), file, usable, replaced).error().kind, ErrorKind::kInterrupted);
}

TEST_F(LiveFilesTest, ForgettingOneLeavesAnotherOfItsNameAlone) {
  LiveFiles files;
  std::shared_ptr<FillingArtifact> replaced;
  const auto first = artifact();
  const auto second = artifact();
  ASSERT_THAT(files.keep(
                  base(), first, [](const auto&) { return false; }, replaced),
              is_ok());
  ASSERT_THAT(files.keep(
                  base(), second, [](const auto&) { return false; }, replaced),
              is_ok());
  files.forget(first);
  EXPECT_EQ(files.find(base()), second);
}

// --- sealing --------------------------------------------------------------------------------------------------------

class SealerTest : public FillingFixture, private SealObserver {
 protected:
  ~SealerTest() override {
    sealer_.stop();
    workshop_.stop();
  }

  std::shared_ptr<FillingArtifact> all_made_file(const char* dtype = "int8") {
    auto file = artifact(dtype);
    EXPECT_THAT(read_all(*file), is_ok());
    EXPECT_TRUE(file->all_made());
    return file;
  }
  bool is_sealed(const char* dtype = "int8") {
    const auto look = store_->peek_sealed(base(dtype), recipe_of(name(dtype), *model_));
    return look && look->has_value() && (*look)->trusted;
  }
  /// So much time passes, with a look at what is due.
  void after(nanoseconds time) {
    env_.advance(time.count());
    sealer_.tick();
  }

  std::atomic<int> here_{0};
  std::atomic<int> elsewhere_{0};
  std::atomic<int> failures_{0};
  Sealer sealer_{env_, *store_, workshop_, *this};

 private:
  void on_sealed(const std::shared_ptr<FillingArtifact>& /*artifact*/, const Record* record) override {
    ++(record != nullptr ? here_ : elsewhere_);
  }
  void on_seal_failure(const std::shared_ptr<FillingArtifact>& /*artifact*/, const Error& /*error*/) override {
    ++failures_;
  }
};

TEST_F(SealerTest, AFileThatNobodyReadsIsSealedAtOnce) {
  sealer_.add(all_made_file());
  EXPECT_TRUE(eventually([&] { return here_ == 1; }));
  EXPECT_TRUE(is_sealed());
}

TEST_F(SealerTest, AReaderHoldsSealingBackUntilHeIsQuietOrPatienceEnds) {
  const auto file = all_made_file();
  file->add_opener();
  ASSERT_THAT(read(*file, {0, 1}), is_ok());
  sealer_.add(file);
  after(Readers::kQuiet / 2);
  EXPECT_EQ(here_, 0);
  after(Readers::kQuiet);
  EXPECT_TRUE(eventually([&] { return here_ == 1; }));
  file->remove_opener();
}

TEST_F(SealerTest, AReaderWhoLeavesIsNotWaitedForAnyMore) {
  const auto file = all_made_file();
  file->add_opener();
  ASSERT_THAT(read(*file, {0, 1}), is_ok());
  sealer_.add(file);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(here_, 0);
  file->remove_opener();
  sealer_.reader_left();
  EXPECT_TRUE(eventually([&] { return here_ == 1; }));
}

TEST_F(SealerTest, WhatFailsIsTriedAgainAfterPausesThatDouble) {
  const auto file = all_made_file();
  file->add_opener();  // somebody still uses it
  after(Readers::kQuiet);
  env_.fail_all(EnvCall::kRename, ENOSPC, "filling/quantized");
  sealer_.add(file);
  // Its job ends after it has told of the failure: a look before that starts nothing.
  const auto comes_to = [&](const std::atomic<int>& count, int number) {
    return eventually([&] {
      sealer_.tick();
      return count == number;
    });
  };
  seconds pause = Sealer::kFirstPause;
  for (int round = 1; round <= 3; ++round) {
    ASSERT_TRUE(comes_to(failures_, round));
    ASSERT_TRUE(file->failure());
    after(pause / 2);
    after(pause / 4);
    EXPECT_EQ(failures_, round);
    after(pause);
    pause *= 2;
  }
  ASSERT_TRUE(comes_to(failures_, 4));
  env_.heal();
  after(Sealer::kLongestPause);
  EXPECT_TRUE(comes_to(here_, 1));
  file->remove_opener();
}

TEST_F(SealerTest, WhatFailsAndNobodyUsesIsGivenUp) {
  auto file = all_made_file();
  const std::weak_ptr<FillingArtifact> watched = file;
  env_.fail_all(EnvCall::kRename, ENOSPC, "filling/quantized");
  sealer_.add(std::move(file));
  ASSERT_TRUE(eventually([&] { return failures_ >= 1; }));
  EXPECT_TRUE(eventually([&] {
    after(seconds(11));
    return watched.expired();
  }));
}

TEST_F(SealerTest, WhatAnotherProcessIsSealingIsLeftToItUntilItIsDone) {
  const auto ours = all_made_file();
  const auto theirs = all_made_file();
  ASSERT_TRUE(theirs->filling().try_lock_seal());
  sealer_.add(ours);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  sealer_.tick();
  EXPECT_EQ(here_ + elsewhere_ + failures_, 0);
  ASSERT_THAT(theirs->set_complete(), is_ok());
  const auto draft = theirs->prepare_seal(*store_, {});
  ASSERT_THAT(draft, is_ok());
  ASSERT_THAT(theirs->commit_seal(*store_, *draft), is_ok());
  theirs->filling().unlock_seal();
  EXPECT_TRUE(eventually([&] {
    sealer_.tick();
    return elsewhere_ == 1;
  }));
  EXPECT_TRUE(is_sealed());
}

TEST_F(SealerTest, NothingBeginsOnceItIsStopped) {
  sealer_.stop();
  sealer_.add(all_made_file());
  sealer_.tick();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(here_, 0);
  EXPECT_FALSE(is_sealed());
}

TEST_F(SealerTest, ADroppedFileIsNotSealed) {
  const auto file = all_made_file();
  file->drop();
  ASSERT_THAT(store_->drop_all(base(), "a test"), is_ok());
  sealer_.add(file);
  EXPECT_TRUE(eventually([&] { return elsewhere_ == 1; }));
  EXPECT_FALSE(is_sealed());
}

// --- complete files -------------------------------------------------------------------------------------------------

class CompleteFileTest : public SealerTest {
 protected:
  /// A file that this process has completed; somebody has it open, so that it is not sealed yet.
  std::shared_ptr<FillingArtifact> complete_file() {
    auto file = all_made_file();
    EXPECT_TRUE(file->filling().try_lock_seal());
    EXPECT_THAT(file->set_complete(), is_ok());
    file->filling().unlock_seal();
    return file;
  }
  std::vector<std::byte> bytes_on_disk(FillingArtifact& file) {
    std::vector<std::byte> bytes(file.size_bytes());
    EXPECT_THAT(env_.read_at(file.filling().fd(), bytes, 0), is_ok());
    return bytes;
  }
  void damage(FillingArtifact& file, uint64_t offset) {
    EXPECT_THAT(env_.write_at(file.filling().fd(), std::as_bytes(std::span("xx", 2)), offset), is_ok());
  }
};

TEST_F(CompleteFileTest, EveryByteIsInPlaceForWhoeverReadsTheFileItself) {
  const auto file = all_made_file();
  EXPECT_LT(file->complete_fd(), 0);
  EXPECT_EQ(file->completed_ns(), 0);
  const auto whole = read_all(*file);
  ASSERT_THAT(file->set_complete(), is_ok());
  ASSERT_GE(file->complete_fd(), 0);
  EXPECT_NE(file->completed_ns(), 0);
  std::vector<std::byte> found(file->size_bytes());
  ASSERT_THAT(env_.read_at(file->complete_fd(), found, 0), is_ok());
  EXPECT_EQ(found, *whole);
  EXPECT_FALSE(env_.write_at(file->complete_fd(), std::span(found).first(1), 0)) << "it is for reading";
  EXPECT_EQ(*read_all(*file), *whole);
}

TEST_F(CompleteFileTest, IsThereAtOnceAndSealedWhenItsReadersAreDone) {
  const auto file = all_made_file();
  file->add_opener();
  ASSERT_THAT(read(*file, {0, 1}), is_ok());
  sealer_.add(file);
  ASSERT_TRUE(eventually([&] { return file->complete_fd() >= 0; }));
  file->add_opener();  // who reads what is handed to the kernel is seen by nobody
  file->remove_opener();
  after(Readers::kQuiet);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(here_, 0);
  after(Readers::kUnseenPatience);
  EXPECT_TRUE(eventually([&] { return here_ == 1; }));
  file->remove_opener();
}

TEST_F(CompleteFileTest, NobodyWritesIntoItEvenWhereATileProvesWrong) {
  const auto file = complete_file();
  const auto whole = bytes_on_disk(*file);
  constexpr uint64_t kInATile = 200'000;
  damage(*file, kInATile);
  const auto damaged = bytes_on_disk(*file);
  ASSERT_NE(damaged, whole);
  const auto other = artifact();  // as another process would go on with it
  const auto read_again = read(*other, {kInATile - 100, 1000});
  ASSERT_THAT(read_again, is_ok()) << "made anew, in memory";
  EXPECT_TRUE(std::ranges::equal(*read_again, std::span(whole).subspan(kInATile - 100, 1000)));
  EXPECT_EQ(bytes_on_disk(*file), damaged);
  ASSERT_TRUE(other->failure());
  EXPECT_EQ(other->failure()->kind, ErrorKind::kCorrupt);
  EXPECT_EQ(failed_, 1);
}

TEST_F(CompleteFileTest, AnotherProcessHandsItOutOnceItHasCheckedAllOfIt) {
  const auto whole = bytes_on_disk(*complete_file());
  const auto other = artifact();
  EXPECT_LT(other->complete_fd(), 0);
  ASSERT_THAT(read_all(*other), is_ok());
  EXPECT_EQ(stats_.tiles_rejected, 0U);
  ASSERT_THAT(other->set_complete(), is_ok());
  EXPECT_EQ(bytes_on_disk(*other), whole);
}

TEST_F(CompleteFileTest, WhoWaitedForItsLastTileFindsItMade) {
  const auto ours = artifact();
  const auto theirs = artifact();
  // After our first look at the tile's mark, and before we have its lock.
  env_.before(EnvCall::kLockByte, 1, [&] {
    EXPECT_THAT(read_all(*theirs), is_ok());
    EXPECT_THAT(theirs->set_complete(), is_ok());
  });
  EXPECT_THAT(read(*ours, {1'000'000, 1}), is_ok());
  EXPECT_TRUE(theirs->all_made());
  EXPECT_EQ(ours->failure(), std::nullopt);
  EXPECT_EQ(failed_, 0);
}

TEST_F(CompleteFileTest, WhatIsNoTileIsCheckedToo) {
  damage(*complete_file(), 0);
  const auto other = artifact();
  ASSERT_THAT(read_all(*other), is_ok());
  const Status completed = other->set_complete();
  ASSERT_FALSE(completed);
  EXPECT_EQ(completed.error().kind, ErrorKind::kCorrupt);
}

TEST_F(CompleteFileTest, IsNotSealedWithATileThatIsNotTheOneThatWasMade) {
  const auto file = complete_file();
  damage(*file, 200'000);
  sealer_.add(file);
  EXPECT_TRUE(eventually([&] { return failures_ == 1; }));
  after(Sealer::kLongestPause);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(failures_, 1) << "it will not get better";
  EXPECT_FALSE(is_sealed());
}

TEST_F(CompleteFileTest, IsListedAndCanBePinnedBeforeItIsSealed) {
  const auto file = complete_file();
  const auto entries = store_->entries();
  ASSERT_THAT(entries, is_ok());
  ASSERT_EQ(entries->size(), 1U);
  EXPECT_TRUE(entries->front().complete);
  EXPECT_FALSE(entries->front().sealed);
  ASSERT_THAT(store_->set_pinned(base(), file->recipe(), true), is_ok());
  EXPECT_EQ(*store_->is_pinned(base(), file->recipe()), true);
  sealer_.add(file);
  ASSERT_TRUE(eventually([&] { return here_ == 1; }));
  EXPECT_TRUE(store_->find_all(base())->front().pinned);
}

// --- loads that were announced --------------------------------------------------------------------------------------

using AnnouncedLoadTest = CompleteFileTest;

TEST_F(AnnouncedLoadTest, IsWaitedForUntilTheFileIsCompleteAndOnlyIfItWasAnnounced) {
  const auto file = artifact();
  EXPECT_EQ(file->load_comes_in(), std::nullopt);
  file->expect_reader();
  ASSERT_TRUE(file->load_comes_in());
  EXPECT_GT(file->load_comes_in()->count(), 0);
  ASSERT_TRUE(eventually([&] { return file->all_made(); }));
  EXPECT_GT(file->load_comes_in()->count(), 0) << "its static bytes are not there yet";
  ASSERT_THAT(file->set_complete(), is_ok());
  EXPECT_EQ(file->load_comes_in()->count(), 0);
}

TEST_F(AnnouncedLoadTest, IsNotWaitedForWhereItFailedOrTakesLong) {
  const auto file = artifact();
  std::atomic<bool> goes_on{false};
  env_.before(
      EnvCall::kReadAt, 1, [&] { EXPECT_TRUE(eventually([&] { return goes_on.load(); })); }, "model.safetensors");
  file->expect_reader();
  EXPECT_TRUE(file->load_comes_in());
  env_.advance(nanoseconds(seconds(1)).count());
  EXPECT_EQ(file->load_comes_in(), std::nullopt) << "a second, and not half of it is there";
  goes_on = true;
  ASSERT_TRUE(eventually([&] { return file->all_made(); }));

  const auto failing = artifact("nf4");
  env_.fail_all(EnvCall::kReadAt, EIO, "model.safetensors");
  failing->expect_reader();
  ASSERT_TRUE(eventually([&] { return failing->failure().has_value(); }));
  EXPECT_EQ(failing->load_comes_in(), std::nullopt);
}

// --- ranks ----------------------------------------------------------------------------------------------------------

using CachedRanksTest = FillingFixture;

TEST_F(CachedRanksTest, WhatWasFoundHoldsForASecondOrUntilAChange) {
  CachedRanks ranks(env_, *store_);
  EXPECT_THAT(ranks.all(), IsEmpty());
  const ArtifactName adapter{"m", find_scheme("nf4"), 8, &container_adapter()};
  const std::string file = base_file_name_of(adapter, model_->path);
  const auto begin = [&] {
    return store_->open_filling({file, adapter.virtual_path(), recipe_of(adapter, *model_), 4096, 1});
  };
  ASSERT_THAT(begin(), is_ok());
  EXPECT_THAT(ranks.all(), IsEmpty()) << "as another process would have begun it";
  ranks.changed();
  const auto found = ranks.all();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].base, file);
  EXPECT_EQ(found[0].path.rank, 8U);
  EXPECT_EQ(found[0].path.container, &container_adapter());
  ASSERT_THAT(store_->drop_all(file, "a test"), is_ok());
  EXPECT_EQ(ranks.all().size(), 1U);
  env_.advance(nanoseconds(seconds(1)).count());
  EXPECT_THAT(ranks.all(), IsEmpty());
}

}  // namespace
}  // namespace qcache
