#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_catalog.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

const FillingKey kKey = StoreFixture::key();
const FillingKey kOldKey = StoreFixture::key(0, 9);
const FillingKey kOther = StoreFixture::key(1);
constexpr uint32_t kTiles = 5;

void seal_now(Store& store, const FillingKey& key) {
  ASSERT_THAT(StoreFixture::ensure_sealed(store, key), is_ok());
}

void make_suspect(Store& store) {
  seal_now(store, kKey);
  const std::string path = store.directory().sealed_path(kKey.file);
  StoreFixture::make_writable(path);
  flip_byte(path, 1500);
  set_mtime(path, 1);
}

void lose_record(Store& store) {
  seal_now(store, kKey);
  ASSERT_THAT(store.catalog().erase(kKey.file), is_ok());
}

void lose_file(Store& store) {
  seal_now(store, kKey);
  ASSERT_THAT(store.env().remove(store.directory().sealed_path(kKey.file)), is_ok());
}

void pin(Store& store) {
  seal_now(store, kKey);
  seal_now(store, kOldKey);
  ASSERT_THAT(store.set_pinned(kKey.file, kKey.recipe, true), is_ok());
  ASSERT_THAT(store.set_pinned(kOldKey.file, kOldKey.recipe, true), is_ok());
}

Status fill(Store& store) {
  QCACHE_TRY_ASSIGN(const auto filling, store.open_filling(kKey));
  if (filling) {
    QCACHE_TRY(StoreFixture::fill(store.env(), *filling));
  }
  return {};
}

void fill_now(Store& store) {
  ASSERT_THAT(fill(store), is_ok());
}

Status look(Store& store) {
  SealedFile found;
  QCACHE_TRY_ASSIGN(const SealedState state, store.find_sealed(kKey.file, kKey.recipe, found));
  if (state == SealedState::kTrusted) {
    EXPECT_EQ(StoreFixture::bytes_of(found.fd.get()), StoreFixture::content(kKey));
  }
  return {};
}

Status seal(Store& store) {
  // Of what is filled: the pair under the name, whatever the catalog says.
  QCACHE_TRY_ASSIGN(const auto filling, FillingFile::open(store.env(), store.directory(), kKey));
  QCACHE_TRY(StoreFixture::fill(store.env(), *filling));
  QCACHE_TRY(store.seal(*filling, StoreFixture::draft(kKey)));
  return {};
}

template <typename T>
Status status_of(const Result<T>& result) {
  return result.has_value() ? Status() : qcache::fail(result.error());
}

struct Operation {
  const char* name;
  /// Brings the directory into the state in which it is done.
  std::function<void(Store&)> prepare;
  /// Does it; an error is an answer.
  std::function<Status(Store&)> take;
  /// How many tiles of kKey at most are made again when it is served next.
  uint32_t lost = 0;
};

const Operation kOperations[] = {
    {"find nothing", [](Store&) {}, look, kTiles},
    {"find a good file", [](Store& store) { seal_now(store, kKey); }, look},
    {"find a suspect file", make_suspect, look, 1},
    {"find beside another recipe", [](Store& store) { seal_now(store, kOldKey); }, look, kTiles},
    {"find a file without a record", lose_record, look},
    {"find a record without a file", lose_file, look, kTiles},
    {"begin", [](Store&) {}, [](Store& store) { return status_of(store.open_filling(kKey)); }, kTiles},
    {"begin beside another recipe", [](Store& store) { seal_now(store, kOldKey); },
     [](Store& store) { return status_of(store.open_filling(kKey)); }, kTiles},
    {"resume", fill_now, [](Store& store) { return status_of(store.open_filling(kKey)); }},
    {"seal", fill_now, seal},
    {"seal beside another recipe of the same name",
     [](Store& store) {
       seal_now(store, kOldKey);
       (void)FillingFile::open(store.env(), store.directory(), kKey);
     },
     seal, kTiles},
    {"seal what is sealed already",
     [](Store& store) {
       seal_now(store, kKey);
       (void)FillingFile::open(store.env(), store.directory(), kKey);
     },
     seal},
    {"seal over a suspect file",
     [](Store& store) {
       make_suspect(store);
       const auto filling = *FillingFile::open(store.env(), store.directory(), kKey);
       ASSERT_THAT(StoreFixture::fill(store.env(), *filling), is_ok());
     },
     seal, 1},  // unless it is sealed the suspect file takes the name back
    {"demote", make_suspect, [](Store& store) { return store.demote(kKey.file); }, 1},
    {"demote a good file", [](Store& store) { seal_now(store, kKey); },
     [](Store& store) { return store.demote(kKey.file); }},
    {"drop", [](Store& store) { seal_now(store, kKey); },
     [](Store& store) { return status_of(store.drop(kKey.file, "test")); }, kTiles},
    {"drop all",
     [](Store& store) {
       seal_now(store, kKey);
       seal_now(store, kOldKey);
     },
     [](Store& store) { return status_of(store.drop_all(kKey.file, "test")); }, kTiles},
    {"drop another of the name",
     [](Store& store) {
       seal_now(store, kKey);
       seal_now(store, kOldKey);
     },
     [](Store& store) -> Status {
       QCACHE_TRY_ASSIGN(const auto old, store.peek_sealed(kOldKey.file, kOldKey.recipe));
       return old.has_value() ? status_of(store.drop_sealed(old->record, "test", WhenInUse::kKeep)) : Status();
     }},
    {"drop what is being filled", fill_now,
     [](Store& store) { return status_of(store.drop_filling(kKey.file, "test", WhenInUse::kKeep)); }, kTiles},
    {"pin", [](Store& store) { seal_now(store, kKey); },
     [](Store& store) { return store.set_pinned(kKey.file, kKey.recipe, true); }},
    {"ask for a pin", pin, [](Store& store) { return status_of(store.is_pinned(kKey.file, kKey.recipe)); }},
    {"unpin all", pin, [](Store& store) { return store.unpin_all(kKey.file); }},
    {"remove leftovers",
     [](Store& store) {
       const FillingKey gone = StoreFixture::key(2);
       seal_now(store, gone);
       ASSERT_THAT(store.env().remove(store.directory().sealed_path(gone.file)), is_ok());
       write_file(store.directory().sealed_path(StoreFixture::key(3).file), "without a record or a map");
       lose_record(store);
     },
     [](Store& store) { return status_of(store.remove_leftovers(/*dry_run=*/false)); }},
    {"list", [](Store& store) { seal_now(store, kKey); }, [](Store& store) { return status_of(store.entries()); }},
    {"count", [](Store& store) { seal_now(store, kKey); }, [](Store& store) { return status_of(store.totals()); }},
    {"find all", [](Store& store) { seal_now(store, kKey); },
     [](Store& store) { return status_of(store.find_all(kKey.file)); }},
    {"look in passing", [](Store& store) { seal_now(store, kKey); },
     [](Store& store) { return status_of(store.peek_sealed(kKey.file, kKey.recipe)); }},
    {"open", lose_record,
     [](Store& store) {
       // What it cannot recover now it does when that is read.
       return status_of(Store::open(store.env(), store.directory(),
                                    std::shared_ptr<Catalog>(std::shared_ptr<Catalog>(), &store.catalog())));
     }},
};

// What must hold however an operation ended: all is served with the right bytes, no more is made again than what the
// operation is there to remove, and no half of anything stays.
void expect_nothing_lost(Store& store, uint32_t lost) {
  uint32_t made = 0;
  const auto again = StoreFixture::ensure_sealed(store, kKey, &made);
  ASSERT_THAT(again, is_ok());
  EXPECT_EQ(StoreFixture::bytes_of(again->fd.get()), StoreFixture::content(kKey));
  EXPECT_LE(made, lost) << "complete bytes are lost";
  SealedFile other;
  EXPECT_EQ(store.find_sealed(kOther.file, kOther.recipe, other), SealedState::kTrusted) << "a bystander";
  ASSERT_THAT(store.remove_leftovers(/*dry_run=*/false), is_ok());
  EXPECT_EQ(StoreFixture::unsoundness(store), "");
  const auto entries = store.entries();
  ASSERT_THAT(entries, is_ok());
  const auto pairs = std::ranges::count(*entries, false, &CacheEntry::sealed);
  EXPECT_EQ(store.env().list(store.directory().filling_directory())->size(), 1U + 2U * static_cast<size_t>(pairs));
}

class StoreCatalogFaults : public testing::TestWithParam<size_t> {
 protected:
  const Operation& operation_ = kOperations[GetParam()];
};

TEST_P(StoreCatalogFaults, EachFailingCallIsToldOrCopedWithAndNothingIsLost) {
  for (const CatalogCall call : kAllCatalogCalls) {
    for (const ErrorKind kind : {ErrorKind::kIo, ErrorKind::kNoSpace, ErrorKind::kBusy}) {
      bool reached = true;
      for (uint64_t nth = 1; reached; ++nth) {
        SCOPED_TRACE(testing::Message() << operation_.name << ", call " << static_cast<int>(call) << " #" << nth
                                        << " fails with " << to_string(kind));
        const StoreFixture fixture(CatalogKind::kFake);
        FakeCatalog& catalog = *fixture.fake_catalog();
        const auto store = fixture.open();
        ASSERT_NO_FATAL_FAILURE(seal_now(*store, kOther));
        ASSERT_NO_FATAL_FAILURE(operation_.prepare(*store));
        const uint64_t before = catalog.count(call);
        catalog.fail(call, nth, kind);
        const Status taken = operation_.take(*store);
        reached = catalog.count(call) - before >= nth;
        catalog.heal();
        if (!taken.has_value()) {
          EXPECT_TRUE(reached);
          EXPECT_EQ(taken.error().kind, kind) << taken.error().message;
        }
        ASSERT_NO_FATAL_FAILURE(expect_nothing_lost(*store, operation_.lost));
        EXPECT_THAT(operation_.take(*store), is_ok());
      }
    }
  }
}

TEST_P(StoreCatalogFaults, WhatACatalogThatStaysDownKeepsFromBeingDoneIsDoneLater) {
  for (const CatalogCall call : kAllCatalogCalls) {
    SCOPED_TRACE(testing::Message() << operation_.name << ", call " << static_cast<int>(call));
    const StoreFixture fixture(CatalogKind::kFake);
    FakeCatalog& catalog = *fixture.fake_catalog();
    const auto store = fixture.open();
    ASSERT_NO_FATAL_FAILURE(seal_now(*store, kOther));
    ASSERT_NO_FATAL_FAILURE(operation_.prepare(*store));
    catalog.fail_all(call, ErrorKind::kIo);
    for (int round = 0; round < 2; ++round) {
      const Status taken = operation_.take(*store);
      EXPECT_TRUE(taken.has_value() || taken.error().kind == ErrorKind::kIo) << taken.error().message;
    }
    catalog.heal();
    ASSERT_NO_FATAL_FAILURE(expect_nothing_lost(*store, operation_.lost));
  }
}

std::string name_of(const testing::TestParamInfo<size_t>& operation) {
  std::string name = kOperations[operation.param].name;
  std::ranges::replace(name, ' ', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Operations, StoreCatalogFaults, testing::Range(size_t{0}, std::size(kOperations)), name_of);

// What the operations above promise beyond that.

TEST(StoreCatalog, APinThatCouldNotBeSetIsTold) {
  const StoreFixture fixture(CatalogKind::kFake);
  const auto store = fixture.open();
  seal_now(*store, kKey);
  fixture.fake_catalog()->fail(CatalogCall::kSetPinned, 1, ErrorKind::kNoSpace);
  EXPECT_THAT(store->set_pinned(kKey.file, kKey.recipe, true), fails_with(ErrorKind::kNoSpace, {kKey.file}));
  EXPECT_EQ(*store->is_pinned(kKey.file, kKey.recipe), false);
  ASSERT_THAT(store->set_pinned(kKey.file, kKey.recipe, true), is_ok());
  EXPECT_EQ(*store->is_pinned(kKey.file, kKey.recipe), true);
}

TEST(StoreCatalog, ASealThatCannotBeRecordedKeepsEveryTileAndItsReaders) {
  const StoreFixture fixture(CatalogKind::kFake);
  const auto store = fixture.open();
  const auto filling = *store->open_filling(kKey);
  ASSERT_THAT(StoreFixture::fill(store->env(), *filling), is_ok());
  for (int round = 0; round < 3; ++round) {
    fixture.fake_catalog()->fail(CatalogCall::kPut, 1, ErrorKind::kNoSpace);
    EXPECT_THAT(store->seal(*filling, StoreFixture::draft(kKey)), fails_with(ErrorKind::kNoSpace, {kKey.file}));
    EXPECT_TRUE(filling->is_current());
    EXPECT_EQ(Env::posix().stat(filling->fd())->mode & 0777U, 0600U) << "it is written to again";
  }
  EXPECT_TRUE(store->seal(*filling, StoreFixture::draft(kKey))->has_value());
}

TEST(StoreCatalog, RoomIsMadeWhateverTheCatalogSays) {
  const StoreFixture fixture(CatalogKind::kFake);
  const auto store = fixture.open();
  seal_now(*store, kKey);
  for (const CatalogCall call : kAllCatalogCalls) {
    fixture.fake_catalog()->fail_all(call, ErrorKind::kNoSpace);
  }
  EXPECT_GT(*store->drop_all(kKey.file, "test"), 0U);
  EXPECT_FALSE(StoreFixture::exists(store->directory().sealed_path(kKey.file)));
  fixture.fake_catalog()->heal();
  SealedFile found;
  EXPECT_EQ(store->find_sealed(kKey.file, kKey.recipe, found), SealedState::kAbsent);
  EXPECT_EQ(store->catalog().list()->size(), 0U) << "the record is found out";
}

}  // namespace
}  // namespace qcache
