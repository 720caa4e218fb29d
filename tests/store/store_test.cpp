#include "core/store/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <sstream>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using testing::HasSubstr;

// On the real catalog and on the fake one: what is promised here depends on neither.
class StoreTest : public testing::TestWithParam<CatalogKind> {
 protected:
  std::shared_ptr<FillingFile> filled(const FillingKey& key) {
    auto filling = *FillingFile::open(env_, store_->directory(), key);
    EXPECT_THAT(StoreFixture::fill(env_, *filling), is_ok());
    return filling;
  }
  Record seal(const FillingKey& key) {
    const auto record = store_->seal(*filled(key), StoreFixture::draft(key));
    EXPECT_THAT(record, is_ok());
    return record->value();
  }
  SealedState look(const FillingKey& key) {
    found_ = {};
    const auto state = store_->find_sealed(key.file, key.recipe, found_);
    EXPECT_THAT(state, is_ok());
    return *state;
  }
  void damage(uint64_t at) {
    StoreFixture::make_writable(sealed_);
    flip_byte(sealed_, at);
  }

  StoreFixture fixture_{GetParam()};
  FakeEnv env_;
  std::shared_ptr<Store> store_ = fixture_.open(env_);
  const FillingKey key_ = StoreFixture::key();
  const std::string sealed_ = store_->directory().sealed_path(key_.file);
  SealedFile found_;
};

// The SHA-256 of the whole is not known then: digests of the tiles, which are there, and of the rest vouch for the
// bytes.
TEST_P(StoreTest, AFileThatIsSealedByItsPartsIsVerifiedByThem) {
  const auto filling = filled(key_);
  TilePlaces places;
  for (uint32_t tile = 0; tile < key_.tile_count; ++tile) {
    const uint64_t offset = tile * StoreFixture::kTileBytes;
    places.add(std::vector<ByteRange>{{offset, std::min(StoreFixture::kTileBytes, key_.size_bytes - offset)}});
  }
  const auto hashed = store_->prepare_seal(*filling, places);
  ASSERT_THAT(hashed, is_ok());
  const auto sealed = store_->commit_seal(*filling, StoreFixture::draft(key_), *hashed);
  ASSERT_THAT(sealed, is_ok());
  const Record record = **sealed;
  EXPECT_TRUE(record.has_parts());
  EXPECT_FALSE(record.is_hashed());
  EXPECT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_TRUE(*store_->verify(record));
  for (const uint64_t at : {uint64_t{0}, key_.size_bytes / 2, key_.size_bytes - 1}) {
    damage(at);
    EXPECT_FALSE(*store_->verify(record)) << at;
    damage(at);
  }
  EXPECT_TRUE(*store_->verify(record));
  EXPECT_EQ(look(key_), SealedState::kSuspect) << "it was written";
  ASSERT_THAT(store_->demote(record.file), is_ok());
  EXPECT_EQ(*StoreFixture::fill(env_, **store_->open_filling(key_)), 0U) << "its tiles are vouched for";
}

TEST_P(StoreTest, APinIsSeenWhileTheFileIsBeingSealed) {
  const auto filling = filled(key_);
  ASSERT_THAT(filling->set_complete(), is_ok());
  ASSERT_THAT(store_->set_pinned(key_.file, key_.recipe, true), is_ok());
  // Between the look at what the map is of, and the look at what is kept in it.
  env_.before(
      EnvCall::kOpen, 2, [&] { EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), is_ok()); }, ".map");
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), true);
  EXPECT_EQ(look(key_), SealedState::kTrusted) << "it was sealed meanwhile";
}

TEST_P(StoreTest, PartsOfAnotherFileVouchForNothing) {
  const auto filling = filled(key_);
  TilePlaces places;
  for (uint32_t tile = 0; tile < key_.tile_count; ++tile) {
    places.add({});
  }
  const auto hashed = store_->prepare_seal(*filling, places);
  ASSERT_THAT(hashed, is_ok());
  const Record record = **store_->commit_seal(*filling, StoreFixture::draft(key_), *hashed);
  FileParts other = *hashed->parts;
  other.places.add({});
  ASSERT_THAT(store_->catalog().put(record, hashed->tiles, other.encode(), {}), is_ok());
  EXPECT_FALSE(*store_->verify(record));
}

TEST_P(StoreTest, SealsAndServes) {
  const auto filling = filled(key_);
  const auto record = store_->seal(*filling, StoreFixture::draft(key_, 77));
  ASSERT_THAT(record, is_ok());
  ASSERT_TRUE(record->has_value());
  EXPECT_EQ((*record)->file, key_.file);
  EXPECT_EQ((*record)->recipe, key_.recipe);
  EXPECT_EQ((*record)->size_bytes, key_.size_bytes);
  EXPECT_EQ((*record)->tile_count, key_.tile_count);
  EXPECT_EQ((*record)->created_ns, 77);
  const std::string content = StoreFixture::content(key_);
  EXPECT_EQ((*record)->sha256, sha256(std::as_bytes(std::span(content))));

  ASSERT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key_));
  EXPECT_EQ(found_.record.scheme_version, 3U);
  EXPECT_EQ(store_->peek_sealed(key_.file, key_.recipe)->value().record.sha256, (*record)->sha256);
  EXPECT_EQ(Env::posix().stat(sealed_)->mode & 0777U, 0444U);
  EXPECT_FALSE(filling->is_current());
  EXPECT_FALSE(StoreFixture::exists(store_->directory().map_path(key_.file)));
  EXPECT_FALSE(StoreFixture::exists(store_->directory().filling_path(key_.file)));
  EXPECT_EQ(StoreFixture::bytes_of(filling->fd()), StoreFixture::content(key_)) << "old handles must go on";
}

TEST_P(StoreTest, SealsAnEmptyFileAndOneOfManyTiles) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, 2'000 * StoreFixture::kTileBytes}) {
    const FillingKey key = StoreFixture::key(static_cast<uint32_t>(size), 1, size);
    seal(key);
    EXPECT_EQ(look(key), SealedState::kTrusted);
    EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key));
  }
  EXPECT_EQ(StoreFixture::unsoundness(*store_), "");
}

TEST_P(StoreTest, AbsentIsAbsent) {
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  EXPECT_EQ(*store_->peek_sealed(key_.file, key_.recipe), std::nullopt);
  EXPECT_FALSE(found_.fd.valid());
}

TEST_P(StoreTest, DoesNotSealWithTilesMissing) {
  const auto filling = filled(key_);
  ASSERT_THAT(filling->unmark(2), is_ok());
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kBusy, {"tile 2"}));
  EXPECT_TRUE(filling->is_current());
}

TEST_P(StoreTest, DoesNotSealWhatWasRemovedOrReplaced) {
  const auto removed = filled(key_);
  ASSERT_THAT(store_->drop(key_.file, "test"), is_ok());
  EXPECT_EQ(*store_->seal(*removed, StoreFixture::draft(key_)), std::nullopt);
  const auto replaced = filled(key_);
  const auto newer = filled(StoreFixture::key(0, 2));
  EXPECT_EQ(*store_->seal(*replaced, StoreFixture::draft(key_)), std::nullopt);
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  EXPECT_THAT(store_->seal(*newer, StoreFixture::draft(key_)), is_ok());
  EXPECT_EQ(look(newer->key()), SealedState::kTrusted);
}

TEST_P(StoreTest, DoesNotSealWhenATileIsMadeAgainMeanwhile) {
  const auto filling = filled(key_);
  env_.before(EnvCall::kSync, 1, [&] { EXPECT_THAT(filling->unmark(1), is_ok()); });
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kBusy, {"tile"}));
  ASSERT_THAT(filling->mark(1, StoreFixture::right_mark(key_, 1)), is_ok());
  env_.before(EnvCall::kSync, 1, [&] { EXPECT_THAT(filling->mark(1, StoreFixture::right_mark(key_, 2)), is_ok()); });
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kBusy, {"tile"}));
  ASSERT_THAT(filling->mark(1, StoreFixture::right_mark(key_, 1)), is_ok());
  EXPECT_TRUE(store_->seal(*filling, StoreFixture::draft(key_))->has_value());
}

TEST_P(StoreTest, ALongHashCanBeInterrupted) {
  const auto filling = filled(key_);
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_), {}, [] { return false; }),
              fails_with(ErrorKind::kInterrupted, {}));
  EXPECT_TRUE(filling->is_current());
  const Record record = store_->seal(*filling, StoreFixture::draft(key_), {}, [] { return true; })->value();
  EXPECT_THAT(store_->verify(record, [] { return false; }), fails_with(ErrorKind::kInterrupted, {}));
}

TEST_P(StoreTest, AFailedSyncLosesTheFileBecauseASecondOneWouldProveNothing) {
  const auto filling = filled(key_);
  env_.fail(EnvCall::kSync, 1, EIO);
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kIo, {}));
  EXPECT_EQ(*store_->seal(*filling, StoreFixture::draft(key_)), std::nullopt);
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  EXPECT_EQ((*FillingFile::open(env_, store_->directory(), key_))->marked_count(), 0U);
}

TEST_P(StoreTest, AModeThatCannotBeSetAtSealingLosesNothing) {
  const auto filling = filled(key_);
  env_.fail(EnvCall::kChangeMode, 1, EPERM);
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kPermission, {key_.file}));
  EXPECT_EQ(store_->catalog().list()->size(), 0U);
  EXPECT_TRUE(filling->is_current());
  env_.fail_all(EnvCall::kChangeMode, EPERM);  // nor set back
  EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kPermission, {key_.file}));
  env_.heal();
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  const auto again = *store_->open_filling(key_);
  EXPECT_EQ(StoreFixture::fill(env_, *again), 0U);
  ASSERT_TRUE(store_->seal(*again, StoreFixture::draft(key_))->has_value());
  ASSERT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key_));
}

TEST_P(StoreTest, NothingIsRecordedWhereTheNamesAreNotDurable) {
  for (const uint64_t nth : {uint64_t{1}, uint64_t{2}}) {
    const auto filling = filled(key_);
    env_.fail(EnvCall::kSyncDirectory, nth, EIO);
    EXPECT_THAT(store_->seal(*filling, StoreFixture::draft(key_)), fails_with(ErrorKind::kIo, {}));
    EXPECT_EQ(store_->catalog().list()->size(), 0U);
    EXPECT_TRUE(filling->is_current()) << "the bytes were right, and need not be made again";
  }
  EXPECT_EQ(seal(key_).file, key_.file);
}

TEST_P(StoreTest, SealingTwiceTheSameBytesKeepsTheFirst) {
  const auto first = filled(key_);
  const Record record = store_->seal(*first, StoreFixture::draft(key_))->value();
  const auto second = filled(key_);
  const auto again = store_->seal(*second, StoreFixture::draft(key_));
  ASSERT_THAT(again, is_ok());
  EXPECT_EQ((*again)->backing, record.backing);
  EXPECT_FALSE(StoreFixture::exists(store_->directory().filling_path(key_.file)));
  EXPECT_EQ(look(key_), SealedState::kTrusted);
}

TEST_P(StoreTest, FilesOfSeveralRecipesLieSideBySide) {
  seal(key_);
  const FillingKey second = StoreFixture::key(0, 2, 3000);
  const FillingKey third = StoreFixture::key(0, 3);
  EXPECT_EQ(*store_->peek_sealed(second.file, second.recipe), std::nullopt);
  for (const FillingKey& key : {second, third}) {
    EXPECT_EQ(look(key), SealedState::kAbsent);
    const auto filling = *store_->open_filling(key);
    EXPECT_EQ(filling->key().file, file_name_beside(key.file, key.recipe));
    EXPECT_EQ(store_->peek_filling(key.file, key.recipe)->value().file, filling->key().file);
    EXPECT_THAT(StoreFixture::fill(env_, *filling), is_ok());
    ASSERT_TRUE(store_->seal(*filling, StoreFixture::draft(key))->has_value());
    EXPECT_EQ(*store_->open_filling(key), nullptr) << "it is sealed already";
  }
  for (const FillingKey& key : {key_, second, third}) {
    ASSERT_EQ(look(key), SealedState::kTrusted);
    EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key));
    EXPECT_EQ(store_->peek_sealed(key.file, key.recipe)->value().record.recipe, key.recipe);
  }
  EXPECT_EQ(store_->find_all(key_.file)->size(), 3U);
  EXPECT_EQ(StoreFixture::unsoundness(*store_), "");
  ASSERT_THAT(store_->drop(key_.file, "test"), is_ok());
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  EXPECT_EQ(look(second), SealedState::kTrusted);
  EXPECT_GT(*store_->drop_all(key_.file, "test"), 0U);
  EXPECT_EQ(store_->entries()->size(), 0U);
}

TEST_P(StoreTest, ProcessesThatDidNotSeeEachOtherKeepBothRecipes) {
  const FillingKey other = StoreFixture::key(0, 2);
  seal(key_);
  seal(other);  // begun under the same name, as an earlier qcache does
  EXPECT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_EQ(look(other), SealedState::kTrusted);
  EXPECT_EQ(StoreFixture::unsoundness(*store_), "");
}

TEST_P(StoreTest, AFileThatIsBeingMadeKeepsItsNameFromOtherRecipes) {
  const FillingKey other = StoreFixture::key(0, 2);
  auto mine = *store_->open_filling(key_);
  EXPECT_EQ(mine->key().file, key_.file);
  EXPECT_EQ((*store_->open_filling(other))->key().file, file_name_beside(key_.file, other.recipe));
  EXPECT_TRUE(mine->is_current());
  mine.reset();
  ASSERT_THAT(store_->drop_all(key_.file, "test"), is_ok());

  ASSERT_NE(*store_->open_filling(key_), nullptr);
  EXPECT_EQ((*store_->open_filling(other))->key().file, key_.file) << "what nobody makes gives way";
  EXPECT_EQ(*store_->peek_filling(key_.file, key_.recipe), std::nullopt);

  ASSERT_THAT(store_->drop_all(key_.file, "test"), is_ok());
  ASSERT_THAT(StoreFixture::fill(env_, **store_->open_filling(key_)), is_ok());
  EXPECT_NE((*store_->open_filling(other))->key().file, key_.file) << "all of it is made: it only waits for its seal";
}

TEST_P(StoreTest, AFileReplacedWhileItIsOpenedIsLookedAtAgain) {
  seal(key_);
  env_.before(
      EnvCall::kStat, 1,
      [&] {
        ASSERT_THAT(store_->drop(key_.file, "test"), is_ok());
        seal(key_);
      },
      key_.file);
  EXPECT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_EQ(StoreFixture::exists(sealed_), true);
  struct ::stat named {};
  struct ::stat held {};
  ASSERT_EQ(::stat(sealed_.c_str(), &named), 0);
  ASSERT_EQ(::fstat(found_.fd.get(), &held), 0);
  EXPECT_EQ(named.st_ino, held.st_ino);
}

TEST_P(StoreTest, AnyTouchMakesItSuspect) {
  const struct {
    const char* what;
    std::function<void()> touch;
  } rows[] = {
      {"time", [&] { set_mtime(sealed_, 5); }},
      {"mode", [&] { ASSERT_EQ(::chmod(sealed_.c_str(), 0600), 0); }},
      {"content", [&] { damage(1234); }},
      {"copied back",
       [&] {
         const std::string bytes = read_file(sealed_);
         ASSERT_EQ(::unlink(sealed_.c_str()), 0);
         write_file(sealed_, bytes);
       }},
      {"renamed and back",
       [&] {
         ASSERT_EQ(::rename(sealed_.c_str(), (sealed_ + "x").c_str()), 0);
         ASSERT_EQ(::rename((sealed_ + "x").c_str(), sealed_.c_str()), 0);
       }},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    seal(key_);
    ::usleep(20'000);  // the clock of ctime ticks only every few milliseconds
    row.touch();
    EXPECT_EQ(look(key_), SealedState::kSuspect);
    EXPECT_FALSE(found_.fd.valid());
    EXPECT_FALSE(store_->peek_sealed(key_.file, key_.recipe)->value().trusted);
    ASSERT_THAT(store_->drop(key_.file, "test"), is_ok());
  }
}

TEST_P(StoreTest, ADemotedFileKeepsItsBytesAndOnlyWrongTilesAreMadeAgain) {
  seal(key_);
  damage(2 * StoreFixture::kTileBytes + 7);
  ASSERT_EQ(look(key_), SealedState::kSuspect);
  const uint64_t inode = Env::posix().stat(sealed_)->inode;
  ASSERT_THAT(store_->demote(key_.file), is_ok());
  EXPECT_EQ(look(key_), SealedState::kAbsent);

  const auto filling = *FillingFile::open(env_, store_->directory(), key_);
  EXPECT_EQ(Env::posix().stat(filling->fd())->inode, inode);
  EXPECT_EQ(filling->marked_count(), key_.tile_count);
  for (uint32_t tile = 0; tile < key_.tile_count; ++tile) {
    EXPECT_EQ(filling->mark_of(tile)->digest, StoreFixture::right_mark(key_, tile).digest);
    EXPECT_EQ(filling->mark_of(tile)->crc, std::nullopt);
  }
  EXPECT_EQ(StoreFixture::fill(env_, *filling), 1U);
  ASSERT_TRUE(store_->seal(*filling, StoreFixture::draft(key_))->has_value());
  ASSERT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key_));
}

TEST_P(StoreTest, DemotingATrustedOrAbsentFileDoesNothing) {
  ASSERT_THAT(store_->demote(key_.file), is_ok());
  seal(key_);
  ASSERT_THAT(store_->demote(key_.file), is_ok());
  EXPECT_EQ(look(key_), SealedState::kTrusted);
}

TEST_P(StoreTest, OfASuspectFileOfTheWrongLengthTheRightTilesAreKept) {
  struct Row {
    off_t size;
    uint32_t wrong_tiles;
  };
  for (const Row& row : {Row{0, 5}, Row{4499, 1}, Row{4501, 0}, Row{2000, 3}}) {
    SCOPED_TRACE(row.size);
    seal(key_);
    ASSERT_THAT(store_->set_pinned(key_.file, key_.recipe, true), is_ok());
    StoreFixture::make_writable(sealed_);
    ASSERT_EQ(::truncate(sealed_.c_str(), row.size), 0);
    ASSERT_EQ(look(key_), SealedState::kSuspect);
    ASSERT_THAT(store_->demote(key_.file), is_ok());
    EXPECT_EQ(look(key_), SealedState::kAbsent);
    const auto filling = *store_->open_filling(key_);
    EXPECT_EQ(Env::posix().stat(filling->fd())->size_bytes, key_.size_bytes);
    EXPECT_EQ(StoreFixture::fill(env_, *filling), row.wrong_tiles);
    ASSERT_TRUE(store_->seal(*filling, StoreFixture::draft(key_))->has_value());
    ASSERT_EQ(look(key_), SealedState::kTrusted);
    EXPECT_TRUE(found_.record.pinned);
    EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key_));
    ASSERT_THAT(store_->drop(key_.file, "test"), is_ok());
  }
}

TEST_P(StoreTest, ADemotedFileKeepsWhatPeopleSetAndHowItWasUsed) {
  const auto draft = [&](int64_t now_ns) { return StoreFixture::draft(key_, now_ns); };
  ASSERT_TRUE(store_->seal(*filled(key_), draft(50))->has_value());
  ASSERT_THAT(store_->set_pinned(key_.file, key_.recipe, true), is_ok());
  const std::array<AccessUpdate, 1> reads = {AccessUpdate{key_.file, 70, 3}};
  ASSERT_THAT(store_->catalog().touch(reads), is_ok());
  set_mtime(sealed_, 5);
  ASSERT_THAT(store_->demote(key_.file), is_ok());
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), true);
  ASSERT_EQ(store_->entries()->size(), 1U);
  EXPECT_TRUE(store_->entries()->front().record.pinned) << "aging leaves it alone";
  EXPECT_EQ((*store_->open_filling(StoreFixture::key(0, 2)))->key().file,
            file_name_beside(key_.file, StoreFixture::key(0, 2).recipe))
      << "nor does another recipe take its name, though nobody makes it";
  {
    const auto again = fixture_.open(env_);  // as after a kill
    const auto filling = *again->open_filling(key_);
    filling->unmark(1);
    EXPECT_EQ(StoreFixture::fill(env_, *filling), 1U);
    Record late = draft(90);
    late.accessed_ns = 60;
    ASSERT_TRUE(again->seal(*filling, late)->has_value());
  }
  ASSERT_EQ(look(key_), SealedState::kTrusted);
  EXPECT_TRUE(found_.record.pinned);
  EXPECT_EQ(found_.record.created_ns, 50);
  EXPECT_EQ(found_.record.accessed_ns, 70);
  EXPECT_EQ(found_.record.hits, 3U);
}

TEST_P(StoreTest, ADemotedFileCanBeUnpinned) {
  seal(key_);
  ASSERT_THAT(store_->set_pinned(key_.file, key_.recipe, true), is_ok());
  set_mtime(sealed_, 5);
  ASSERT_THAT(store_->demote(key_.file), is_ok());
  ASSERT_THAT(store_->unpin_all(key_.file), is_ok());
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), false);
  ASSERT_TRUE(store_->seal(*filled(key_), StoreFixture::draft(key_))->has_value());
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), false);
}

TEST_P(StoreTest, PinningIsForTheCompleteFileOfOneRecipe) {
  const FillingKey other = StoreFixture::key(0, 2);
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), std::nullopt);
  EXPECT_THAT(store_->unpin_all(key_.file), fails_with(ErrorKind::kNotFound, {key_.file}));
  seal(other);
  EXPECT_THAT(store_->set_pinned(key_.file, key_.recipe, true), fails_with(ErrorKind::kNotFound, {key_.file}));
  const auto filling = filled(key_);
  EXPECT_THAT(store_->set_pinned(key_.file, key_.recipe, true), fails_with(ErrorKind::kNotFound, {key_.file}));
  ASSERT_TRUE(store_->seal(*filling, StoreFixture::draft(key_))->has_value());
  ASSERT_THAT(store_->set_pinned(key_.file, key_.recipe, true), is_ok());
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), true);
  EXPECT_EQ(*store_->is_pinned(other.file, other.recipe), false);
  ASSERT_THAT(store_->unpin_all(other.file), is_ok());
  EXPECT_EQ(*store_->is_pinned(key_.file, key_.recipe), false);
}

TEST_P(StoreTest, StaleIsWhatWasNotOpenedSinceALaterStateWasComplete) {
  const auto seal_at = [&](uint8_t recipe, uint8_t method, int64_t now_ns) {
    const FillingKey key = StoreFixture::key(0, recipe);
    Record draft = StoreFixture::draft(key, now_ns);
    draft.method.fill(method);
    const auto filling = *store_->open_filling(key);
    EXPECT_THAT(StoreFixture::fill(env_, *filling), is_ok());
    return store_->seal(*filling, draft)->value().file;
  };
  const auto stale = [&] {
    std::vector<std::string> files;
    const auto entries = store_->entries();
    for (const CacheEntry& entry : *entries) {
      if (entry.stale) {
        files.push_back(entry.record.file);
      }
    }
    return files;
  };
  const std::string first = seal_at(1, 1, 100);
  seal_at(2, 2, 200);  // by another build
  seal_at(3, 0, 300);  // by one that did not say how
  EXPECT_THAT(stale(), testing::IsEmpty());
  const std::string later = seal_at(4, 1, 400);
  EXPECT_THAT(stale(), testing::ElementsAre(first));
  const std::array<AccessUpdate, 1> read = {AccessUpdate{first, 500, 1}};
  ASSERT_THAT(store_->catalog().touch(read), is_ok());
  EXPECT_THAT(stale(), testing::IsEmpty()) << "both are in use";
  seal_at(5, 1, 600);
  EXPECT_THAT(stale(), testing::UnorderedElementsAre(first, later));
}

TEST_P(StoreTest, DemotingTakesTheNameFromAPairThatIsBeingFilled) {
  seal(key_);
  set_mtime(sealed_, 5);
  const auto rival = *FillingFile::open(env_, store_->directory(), key_);
  ASSERT_THAT(store_->demote(key_.file), is_ok());
  EXPECT_FALSE(rival->is_current());
  EXPECT_EQ((*FillingFile::open(env_, store_->directory(), key_))->marked_count(), key_.tile_count);
}

TEST_P(StoreTest, ARecordWithoutAFileAndAFileWithoutARecordAreRemoved) {
  seal(key_);
  ASSERT_THAT(Env::posix().remove(sealed_), is_ok());
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  EXPECT_EQ(store_->catalog().list()->size(), 0U);
  write_file(sealed_, "who made this?");
  EXPECT_EQ(look(key_), SealedState::kAbsent);
  EXPECT_FALSE(StoreFixture::exists(sealed_));
}

TEST_P(StoreTest, DropTakesAllAndReadersKeepTheirBytes) {
  seal(key_);
  ASSERT_EQ(look(key_), SealedState::kTrusted);
  const auto filling = filled(StoreFixture::key(1));
  const uint64_t sealed_bytes = Env::posix().stat(sealed_)->allocated_bytes;
  EXPECT_EQ(store_->drop(key_.file, "test"), sealed_bytes);
  EXPECT_EQ(StoreFixture::bytes_of(found_.fd.get()), StoreFixture::content(key_));
  EXPECT_EQ(store_->catalog().list()->size(), 0U);
  EXPECT_GT(*store_->drop(filling->key().file, "test"), 0U);
  EXPECT_EQ(StoreFixture::bytes_of(filling->fd()), StoreFixture::content(filling->key()));
  EXPECT_EQ(store_->entries()->size(), 0U);
  EXPECT_EQ(store_->drop(key_.file, "test"), 0U) << "absent is fine";
}

TEST_P(StoreTest, RefusesNamesThatLeadElsewhere) {
  write_file(fixture_.path() + "/../precious", "x");
  for (const std::string& name : {std::string("../precious"), std::string("index"), std::string("filling/lock"),
                                  std::string(""), std::string("CACHEDIR.TAG")}) {
    EXPECT_THAT(store_->drop(name, "test"), fails_with(ErrorKind::kInvalidArgument, {name}));
    EXPECT_THAT(store_->drop_filling(name, "test", WhenInUse::kDrop), fails_with(ErrorKind::kInvalidArgument, {}));
    EXPECT_THAT(store_->demote(name), fails_with(ErrorKind::kInvalidArgument, {}));
    EXPECT_THAT(store_->find_sealed(name, {}, found_), fails_with(ErrorKind::kInvalidArgument, {}));
  }
  EXPECT_TRUE(StoreFixture::exists(fixture_.path() + "/../precious"));
}

TEST_P(StoreTest, VerifyFindsEveryFlippedByte) {
  const Record record = seal(key_);
  EXPECT_EQ(store_->verify(record), true);
  for (const uint64_t at : {uint64_t{0}, uint64_t{2222}, key_.size_bytes - 1}) {
    damage(at);
    EXPECT_EQ(store_->verify(record), false) << at;
    damage(at);
    EXPECT_EQ(store_->verify(record), true);
  }
  ASSERT_EQ(::truncate(sealed_.c_str(), 4000), 0);
  EXPECT_EQ(store_->verify(record), false);
  ASSERT_THAT(Env::posix().remove(sealed_), is_ok());
  EXPECT_THAT(store_->verify(record), fails_with(ErrorKind::kNotFound, {key_.file}));
}

TEST_P(StoreTest, ListsSealedAndFillingFilesByVirtualPath) {
  const FillingKey half = StoreFixture::key(2);
  const auto filling = *FillingFile::open(env_, store_->directory(), half);
  ASSERT_THAT(filling->mark(0, {}), is_ok());
  ASSERT_THAT(filling->mark(4, {}), is_ok());
  seal(StoreFixture::key(1));
  seal(StoreFixture::key(3));
  ASSERT_EQ(look(StoreFixture::key(3)), SealedState::kTrusted);
  const auto entries = store_->entries();
  ASSERT_THAT(entries, is_ok());
  ASSERT_EQ(entries->size(), 3U);
  const CacheEntry& one = (*entries)[0];
  EXPECT_EQ(one.record.virtual_path, "m1/int8/0.bin");
  EXPECT_TRUE(one.sealed);
  EXPECT_FALSE(one.in_use);
  EXPECT_EQ(one.progress, 1.0);
  EXPECT_GT(one.disk_bytes, 0U);
  const CacheEntry& two = (*entries)[1];
  EXPECT_EQ(two.record.virtual_path, "m2/int8/0.bin");
  EXPECT_EQ(two.record.file, half.file);
  EXPECT_EQ(two.record.recipe, half.recipe);
  EXPECT_EQ(two.record.size_bytes, half.size_bytes);
  EXPECT_FALSE(two.sealed);
  EXPECT_TRUE(two.in_use);
  EXPECT_DOUBLE_EQ(two.progress, 0.4);
  EXPECT_TRUE((*entries)[2].in_use);
  const auto totals = store_->totals();
  EXPECT_EQ(totals->sealed_files, 2U);
  EXPECT_EQ(totals->filling_files, 1U);
  EXPECT_EQ(totals->disk_bytes, one.disk_bytes + two.disk_bytes + (*entries)[2].disk_bytes);
}

TEST_P(StoreTest, TellsTheLogWhatItSavedAndDroppedAndWhy) {
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  const Record record = seal(key_);
  ASSERT_THAT(store_->drop(key_.file, "removed by rm"), is_ok());
  spdlog::set_default_logger(before);
  EXPECT_THAT(log.str(),
              HasSubstr("saved m0/int8/0.bin: 4500 bytes, sha256 " + to_hex(record.sha256).substr(0, 8) + "...\n"));
  EXPECT_THAT(log.str(), HasSubstr("dropped m0/int8/0.bin: removed by rm\n"));
}

TEST_P(StoreTest, TwoStoresOnOneDirectoryShareEverything) {
  const auto other = fixture_.open();
  seal(key_);
  SealedFile found;
  EXPECT_EQ(other->find_sealed(key_.file, key_.recipe, found), SealedState::kTrusted);
}

INSTANTIATE_TEST_SUITE_P(Catalogs, StoreTest, testing::Values(CatalogKind::kLmdb, CatalogKind::kFake),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace qcache
