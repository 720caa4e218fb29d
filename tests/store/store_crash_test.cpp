#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <random>

#include "tests/store/store_fixture.h"
#include "tests/support/fake_env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

// Each step of the store is run with each of its calls to the operating system failing, and with the process dying
// before each of them. Whatever happens, no record may stand for anything but the right bytes, and the file must come
// to be served with the right bytes afterwards.
struct Step {
  const char* name;
  /// Brings the directory into the state in which the step is taken.
  std::function<void(Store&)> prepare;
  /// Takes it; an error is an answer.
  std::function<Status(Store&)> take;
};

const FillingKey kKey = StoreFixture::key();
const FillingKey kOldKey = StoreFixture::key(0, 9);

void seal_now(Store& store, const FillingKey& key) {
  const auto sealed = StoreFixture::ensure_sealed(store, key);
  ASSERT_THAT(sealed, is_ok());
}

Status fill_and_seal(Store& store) {
  QCACHE_TRY_ASSIGN(const auto filling, store.open_filling(kKey));
  if (!filling) {
    return {};
  }
  QCACHE_TRY(StoreFixture::fill(store.env(), *filling));
  QCACHE_TRY(store.seal(*filling, StoreFixture::draft(kKey)));
  return {};
}

Status look(Store& store) {
  SealedFile found;
  QCACHE_TRY_ASSIGN(const SealedState state, store.find_sealed(kKey.file, kKey.recipe, found));
  if (state == SealedState::kTrusted && StoreFixture::bytes_of(found.fd.get()) != StoreFixture::content(kKey)) {
    ADD_FAILURE() << "wrong bytes were trusted";
  }
  return {};
}

void make_suspect(Store& store) {
  seal_now(store, kKey);
  const std::string path = store.directory().sealed_path(kKey.file);
  StoreFixture::make_writable(path);
  std::string bytes = read_file(path);
  bytes[1500] = static_cast<char>(bytes[1500] ^ 1);
  write_file(path, bytes);
  set_mtime(path, 1);
}

const Step kSteps[] = {
    {"fill and seal", [](Store&) {}, fill_and_seal},
    {"fill and seal beside another recipe", [](Store& store) { seal_now(store, kOldKey); }, fill_and_seal},
    {"look at a good file", [](Store& store) { seal_now(store, kKey); }, look},
    {"look beside another recipe", [](Store& store) { seal_now(store, kOldKey); }, look},
    {"look at a record without a file",
     [](Store& store) {
       seal_now(store, kKey);
       ASSERT_THAT(store.env().remove(store.directory().sealed_path(kKey.file)), is_ok());
     },
     look},
    {"demote", make_suspect, [](Store& store) { return store.demote(kKey.file); }},
    {"demote, fill and seal", make_suspect,
     [](Store& store) -> Status {
       QCACHE_TRY(store.demote(kKey.file));
       return fill_and_seal(store);
     }},
    {"drop", [](Store& store) { seal_now(store, kKey); },
     [](Store& store) -> Status {
       QCACHE_TRY(store.drop(kKey.file, "test"));
       return {};
     }},
    {"remove leftovers",
     [](Store& store) {
       seal_now(store, StoreFixture::key(1));
       write_file(store.directory().sealed_path(kKey.file), "no record");
       write_file(store.directory().map_path(kKey.file), "no map");
     },
     [](Store& store) -> Status {
       QCACHE_TRY(store.remove_leftovers(false));
       return {};
     }},
};

constexpr EnvCall kCalls[] = {
    EnvCall::kOpen,     EnvCall::kReadAt,        EnvCall::kWriteAt, EnvCall::kTruncate, EnvCall::kSync,
    EnvCall::kRename,   EnvCall::kRemove,        EnvCall::kStat,    EnvCall::kList,     EnvCall::kSyncDirectory,
    EnvCall::kAllocate, EnvCall::kChangeMode,    EnvCall::kLock,    EnvCall::kUnlock,   EnvCall::kTouch,
    EnvCall::kAdvise,   EnvCall::kStartWriteback};

// What must hold after any failure or crash. A suspect file keeps its (right) record, so records are checked once the
// file has been looked at by the ordinary way.
void expect_recovery(Store& store) {
  const auto again = StoreFixture::ensure_sealed(store, kKey);
  ASSERT_THAT(again, is_ok());
  EXPECT_EQ(StoreFixture::bytes_of(again->fd.get()), StoreFixture::content(kKey));
  EXPECT_EQ(StoreFixture::unsoundness(store), "");
  ASSERT_THAT(store.remove_leftovers(false), is_ok());
  EXPECT_EQ(store.env().list(store.directory().filling_directory())->size(), 1U) << "more than the lock file stayed";
  EXPECT_EQ(StoreFixture::unsoundness(store), "");
}

TEST(StoreCrash, EveryFailingCallLeavesAStateFromWhichItGoesOn) {
  uint64_t failures = 0;
  for (const Step& step : kSteps) {
    for (const EnvCall call : kCalls) {
      for (const int sys_errno : {EIO, ENOSPC}) {
        bool reached = true;
        for (uint64_t nth = 1; reached; ++nth) {
          SCOPED_TRACE(testing::Message() << step.name << ", call " << static_cast<int>(call) << " #" << nth
                                          << " fails with " << sys_errno);
          const StoreFixture fixture(CatalogKind::kFake);  // LMDB's calls go around Env, and take most of the time
          FakeEnv env;
          const auto store = fixture.open(env);
          ASSERT_NO_FATAL_FAILURE(step.prepare(*store));
          const uint64_t before = env.count(call);
          env.fail(call, nth, sys_errno);
          const Status taken = step.take(*store);
          reached = env.count(call) - before >= nth;
          env.heal();
          failures += taken.has_value() ? 0U : 1U;
          if (!reached) {
            EXPECT_THAT(taken, is_ok());
          } else if (!taken.has_value()) {
            // A mark that cannot be read counts as none.
            const bool not_yet = call == EnvCall::kReadAt && taken.error().kind == ErrorKind::kBusy;
            EXPECT_EQ(taken.error().sys_errno, not_yet ? 0 : sys_errno) << taken.error().message;
          }
          ASSERT_NO_FATAL_FAILURE(expect_recovery(*store));
        }
      }
    }
  }
  EXPECT_GT(failures, 100U) << "hardly anything failed: the test tests nothing";
}

TEST(StoreCrash, DeathBeforeEveryCallLeavesAStateFromWhichItGoesOn) {
  uint64_t deaths = 0;
  for (const Step& step : kSteps) {
    for (const EnvCall call : kCalls) {
      bool reached = true;
      for (uint64_t nth = 1; reached; ++nth) {
        SCOPED_TRACE(testing::Message() << step.name << ", death before call " << static_cast<int>(call) << " #"
                                        << nth);
        StoreFixture fixture;
        step.prepare(*fixture.open());
        constexpr int kDied = 42;
        const int status = run_child([&] {
          FakeEnv env;
          const auto store = fixture.open();
          auto faulty = Store::open(env, store->directory());
          env.before(call, nth, [] { ::_exit(kDied); });
          (void)step.take(**faulty);
          return 0;
        });
        reached = status == kDied;
        deaths += reached ? 1U : 0U;
        ASSERT_TRUE(reached || status == 0) << status;
        const auto store = fixture.open();
        ASSERT_NO_FATAL_FAILURE(expect_recovery(*store));
      }
    }
  }
  EXPECT_GT(deaths, 100U);
}

// The moments of docs/ARCHITECTURE.md, "What a crash leaves", which lie between two calls.
TEST(StoreCrash, DeathBetweenAFileAndItsRecordCostsNoByteThatIsRight) {
  const struct {
    const char* point;
    std::function<void(Store&)> prepare;
    std::function<Status(Store&)> take;
    uint32_t made_again;
  } rows[] = {
      {"sealed, not recorded", [](Store&) {}, fill_and_seal, 0},
      {"demoted, still recorded", make_suspect, [](Store& store) { return store.demote(kKey.file); }, 1},
      {"dropped, still recorded", [](Store& store) { seal_now(store, kKey); },
       [](Store& store) -> Status {
         QCACHE_TRY(store.drop(kKey.file, "test"));
         return {};
       },
       kKey.tile_count},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.point);
    const StoreFixture fixture;
    ASSERT_NO_FATAL_FAILURE(row.prepare(*fixture.open()));
    constexpr int kDied = 42;
    ASSERT_EQ(run_child([&] {
                FakeEnv env;
                const auto store = fixture.open(env);
                env.at(row.point, [] { ::_exit(kDied); });
                (void)row.take(*store);
                return 0;
              }),
              kDied);
    const auto store = fixture.open();
    SealedFile found;
    ASSERT_EQ(store->find_sealed(kKey.file, kKey.recipe, found), SealedState::kAbsent);
    EXPECT_EQ(StoreFixture::fill(store->env(), **store->open_filling(kKey)), row.made_again);
    ASSERT_NO_FATAL_FAILURE(expect_recovery(*store));
  }
}

TEST(StoreCrash, ASealThatFailsLosesNoTileExceptAfterAFailedSync) {
  uint64_t failures = 0;
  for (const EnvCall call : kCalls) {
    bool reached = true;
    for (uint64_t nth = 1; reached; ++nth) {
      SCOPED_TRACE(testing::Message() << "call " << static_cast<int>(call) << " #" << nth);
      const StoreFixture fixture;
      FakeEnv env;
      const auto store = fixture.open(env);
      {
        const auto filling = *FillingFile::open(env, store->directory(), kKey);
        ASSERT_THAT(StoreFixture::fill(env, *filling), is_ok());
        const uint64_t before = env.count(call);
        env.fail(call, nth, EIO);
        const auto sealed = store->seal(*filling, StoreFixture::draft(kKey));
        reached = env.count(call) - before >= nth;
        env.heal();
        if (sealed.has_value()) {
          EXPECT_TRUE(sealed->has_value());
          continue;
        }
        ++failures;
      }
      const auto again = *FillingFile::open(env, store->directory(), kKey);
      EXPECT_EQ(StoreFixture::fill(env, *again), call == EnvCall::kSync ? kKey.tile_count : 0U);
      EXPECT_TRUE(store->seal(*again, StoreFixture::draft(kKey))->has_value());
    }
  }
  EXPECT_GT(failures, 8U);
}

// One cached file after the other is sealed, read, made suspect, demoted and dropped, until the kill comes.
int live(const StoreFixture& fixture, unsigned seed) {
  std::minstd_rand random(seed);
  const auto store = fixture.open();
  for (;;) {
    const FillingKey key =
        StoreFixture::key(static_cast<uint32_t>(random() % 3), static_cast<uint8_t>(1 + random() % 2));
    switch (random() % 5) {
      case 0:
        (void)store->drop(key.file, "test");
        break;
      case 1:
        if (const std::string path = store->directory().sealed_path(key.file); StoreFixture::exists(path)) {
          set_mtime(path, 1);
          (void)store->demote(key.file);
        }
        break;
      default:
        const auto sealed = StoreFixture::ensure_sealed(*store, key);
        if (!sealed.has_value() || StoreFixture::bytes_of(sealed->fd.get()) != StoreFixture::content(key)) {
          return 1;
        }
    }
  }
}

TEST(StoreCrash, TwoHundredKillsAtAnyTimeHarmNothing) {
  const StoreFixture fixture;
  std::minstd_rand random(1);
  constexpr int kKills = 200;
  for (int kill = 0; kill < kKills; ++kill) {
    SCOPED_TRACE(kill);
    const pid_t child = start_child([&] { return live(fixture, static_cast<unsigned>(kill + 1)); });
    ::usleep(static_cast<useconds_t>(2'000 + random() % 30'000));
    ::kill(child, SIGKILL);
    ASSERT_EQ(wait_for_child(child), 128 + SIGKILL);
    const auto store = fixture.open();
    ASSERT_THAT(store->remove_leftovers(false), is_ok());  // such as a record whose file was just dropped
    const auto records = store->catalog().list();
    ASSERT_THAT(records, is_ok());
    for (const Record& record : *records) {
      // A child may die between touching a file and demoting it; its bytes are right all the same. What may not be is a
      // record whose bytes differ. One that is being demoted may lie in filling/ already.
      if (!StoreFixture::was_demoted(*store, record)) {
        EXPECT_EQ(store->verify(record), true) << record.file;
      }
    }
    EXPECT_EQ(StoreFixture::unsoundness(*store), "");
    const FillingKey key = StoreFixture::key(static_cast<uint32_t>(kill) % 3);
    const auto sealed = StoreFixture::ensure_sealed(*store, key);
    ASSERT_THAT(sealed, is_ok());
    EXPECT_EQ(StoreFixture::bytes_of(sealed->fd.get()), StoreFixture::content(key));
  }
  const auto store = fixture.open();
  ASSERT_THAT(store->remove_leftovers(false), is_ok());
  EXPECT_EQ(StoreFixture::unsoundness(*store), "");
  const auto names = Env::posix().list(store->directory().path());
  ASSERT_THAT(names, is_ok());
  for (const std::string& name : *names) {
    EXPECT_EQ(name.find("index.corrupt"), std::string::npos);
  }
}

}  // namespace
}  // namespace qcache
