#include "core/store/catalog_locks.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/base/env.h"
#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"

namespace qcache {
namespace {

using std::chrono::milliseconds;

// Each opening of the file is to the kernel what another process would be.
class CatalogLocksTest : public testing::Test {
 protected:
  UniqueFd open() { return std::move(*Env::posix().open(path_, O_RDWR | O_CREAT, 0600)); }

  TempDir dir_;
  const std::string path_ = dir_ / "users";
  const UniqueFd one_fd_ = open();
  const UniqueFd other_fd_ = open();
  CatalogLocks one_{one_fd_.get(), milliseconds(400)};
  CatalogLocks other_{other_fd_.get(), milliseconds(400)};
};

TEST_F(CatalogLocksTest, ReadersOfTheNewestSnapshotAndTheWriterOfTheNextDoNotMeet) {
  ASSERT_TRUE(*one_.try_read(6));
  ASSERT_THAT(other_.begin_write(), is_ok());
  ASSERT_THAT(other_.begin_replacing(7), is_ok());
  EXPECT_TRUE(*one_.try_read(6));
  EXPECT_TRUE(*other_.try_read(6));  // of the writer's own process
  one_.end_read(6);
  one_.end_read(6);
  EXPECT_TRUE(*one_.try_read(6));
  other_.end_read(6);
  other_.end_replacing(7);
  other_.end_write();
}

TEST_F(CatalogLocksTest, NobodyReadsASnapshotBeforeItsWriterLetsGo) {
  ASSERT_THAT(one_.begin_write(), is_ok());
  ASSERT_THAT(one_.begin_replacing(7), is_ok());
  EXPECT_FALSE(*one_.try_read(7));
  EXPECT_FALSE(*other_.try_read(7));
  one_.end_replacing(7);
  EXPECT_TRUE(*one_.try_read(7));
  EXPECT_TRUE(*other_.try_read(7));
}

TEST_F(CatalogLocksTest, AWriterWaitsForReadersThatAreTwoSnapshotsBehind) {
  for (CatalogLocks* const reader : {&one_, &other_}) {
    ASSERT_TRUE(*reader->try_read(5));
    ASSERT_THAT(one_.begin_write(), is_ok());
    EXPECT_THAT(one_.begin_replacing(7), fails_with(ErrorKind::kBusy, {"locked"}));
    EXPECT_TRUE(*one_.try_read(5)) << "a writer that gave up is in nobody's way";
    one_.end_read(5);
    std::thread leaves([&] {
      std::this_thread::sleep_for(milliseconds(10));
      reader->end_read(5);
    });
    EXPECT_THAT(one_.begin_replacing(7), is_ok());
    leaves.join();
    one_.end_replacing(7);
    one_.end_write();
  }
}

TEST_F(CatalogLocksTest, ThereIsOneWriterAndTheNextWaitsForABoundedTime) {
  ASSERT_THAT(one_.begin_write(), is_ok());
  EXPECT_THAT(one_.begin_write(), fails_with(ErrorKind::kBusy, {"locked"}));
  EXPECT_THAT(other_.begin_write(), fails_with(ErrorKind::kBusy, {"locked"}));
  one_.end_write();
  ASSERT_THAT(other_.begin_write(), is_ok());
  other_.end_write();
  EXPECT_THAT(one_.begin_write(), is_ok());
}

TEST_F(CatalogLocksTest, WritersOfSeveralProcessesTakeTurns) {
  CatalogLocks patient(one_fd_.get(), milliseconds(20'000));
  CatalogLocks rival(other_fd_.get(), milliseconds(20'000));
  std::atomic<bool> stop = false;
  std::thread greedy([&] {
    while (!stop) {
      ASSERT_THAT(rival.begin_write(), is_ok());
      std::this_thread::sleep_for(milliseconds(2));
      rival.end_write();
    }
  });
  for (int turn = 0; turn < 20; ++turn) {
    EXPECT_THAT(patient.begin_write(), is_ok());
    patient.end_write();
  }
  stop = true;
  greedy.join();
}

}  // namespace
}  // namespace qcache
