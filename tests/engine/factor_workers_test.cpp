#include "core/engine/factor_workers.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <future>
#include <thread>
#include <vector>

#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

class FactorWorkersTest : public testing::Test {
 protected:
  /// A program that does what the shell script says, in place of qcache-worker.
  std::string script(const std::string& text) {
    std::string path = dir_ / "worker";
    write_file(path, "#!/bin/sh\n" + text);
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }

  /// Factors of a 20 x 30 matrix of ones.
  static Status compute(FactorWorkers& workers) {
    FactorRequest request;
    request.rows = 20;
    request.columns = 30;
    request.rank = 1;
    request.set_size = 64;
    std::vector<float> a(30);
    std::vector<float> b(20);
    Status done = workers.compute(
        request,
        [](std::span<float> matrix) -> Status {
          std::ranges::fill(matrix, 1.0F);
          return {};
        },
        std::as_writable_bytes(std::span(a)), std::as_writable_bytes(std::span(b)));
    if (done) {
      EXPECT_NEAR(a[7] * b[3], 1, 1e-5);
    }
    return done;
  }

  TempDir dir_;
};

TEST_F(FactorWorkersTest, ComputesAgainAndAgain) {
  FactorWorkers workers(worker_programs());
  EXPECT_TRUE(compute(workers));
  EXPECT_TRUE(compute(workers));
}

TEST_F(FactorWorkersTest, AWorkerThatIsNotInstalledIsNamedWithItsPlaces) {
  FactorWorkers workers({dir_ / "here/qcache-worker", dir_ / "there/qcache-worker"});
  EXPECT_THAT(compute(workers), fails_with(ErrorKind::kIo, {"here/qcache-worker", "there/qcache-worker", "install"}));
}

TEST_F(FactorWorkersTest, TheEndOfAWorkerIsToldAndTheNextOneWorks) {
  struct Case {
    const char* script;
    const char* told;
  };
  for (const Case& c :
       {Case{"exit 3", "exit code 3"}, Case{"kill -9 $$", "signal 9"}, Case{"kill -SEGV $$", "signal 11"}}) {
    FactorWorkers workers({script(c.script)});
    EXPECT_THAT(compute(workers), fails_with(ErrorKind::kIo, {"qcache-worker", c.told, "try again"})) << c.script;
    std::filesystem::remove(dir_ / "worker");
    std::filesystem::create_symlink(worker_programs().front(), dir_ / "worker");
    EXPECT_TRUE(compute(workers)) << c.script;
    std::filesystem::remove(dir_ / "worker");
  }
}

TEST_F(FactorWorkersTest, AnIdleWorkerThatWasKilledFailsOneComputation) {
  FactorWorkers workers(worker_programs());
  ASSERT_TRUE(compute(workers));
  const std::string children = read_file("/proc/self/task/" + std::to_string(::gettid()) + "/children");
  ASSERT_EQ(::kill(std::stoi(children), SIGKILL), 0) << children;
  EXPECT_THAT(compute(workers), fails_with(ErrorKind::kIo, {"signal 9"}));
  EXPECT_TRUE(compute(workers));
}

TEST_F(FactorWorkersTest, StopEndsAComputationAtOnce) {
  FactorWorkers workers({script("exec sleep 1000")});
  auto done = std::async(std::launch::async, [&] { return compute(workers); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  workers.stop();
  EXPECT_THAT(done.get(), fails_with(ErrorKind::kInterrupted, {"unmounted"}));
  EXPECT_THAT(compute(workers), fails_with(ErrorKind::kInterrupted, {"unmounted"}));
}

TEST_F(FactorWorkersTest, AMatrixThatCannotBeReadCostsNoWorker) {
  FactorWorkers workers(worker_programs());
  FactorRequest request;
  request.rows = request.columns = request.rank = 1;
  const Status failed = workers.compute(
      request, [](std::span<float>) -> Status { return fail(ErrorKind::kSourceChanged, "gone"); }, {}, {});
  EXPECT_THAT(failed, fails_with(ErrorKind::kSourceChanged, {"gone"}));
  EXPECT_TRUE(compute(workers));
}

TEST_F(FactorWorkersTest, AllComputationsTogetherStayWithinAQuarterOfTheMemory) {
  FactorRequest request;
  request.rows = 20;
  request.columns = 30;
  request.rank = 1;
  request.set_size = 64;
  const uint64_t one = factor_memory(request);
  FactorWorkers workers(worker_programs(), [&](uint64_t /*held*/) { return 4 * (2 * one); });  // room for two
  std::atomic<int> running = 0;
  std::atomic<int> most = 0;
  std::vector<std::future<Status>> all;
  for (int i = 0; i < 6; ++i) {
    all.push_back(std::async(std::launch::async, [&] {
      std::vector<float> a(30);
      std::vector<float> b(20);
      return workers.compute(
          request,
          [&](std::span<float> matrix) -> Status {
            const int now = ++running;
            for (int known = most; now > known && !most.compare_exchange_weak(known, now);) {
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            std::ranges::fill(matrix, 1.0F);
            --running;
            return {};
          },
          std::as_writable_bytes(std::span(a)), std::as_writable_bytes(std::span(b)));
    }));
  }
  for (std::future<Status>& done : all) {
    EXPECT_TRUE(done.get());
  }
  EXPECT_EQ(most, 2);
}

TEST_F(FactorWorkersTest, WhatAloneNeedsMoreIsRefusedWithFigures) {
  FactorWorkers workers(worker_programs(), [](uint64_t /*held*/) { return uint64_t{64} << 20; });
  EXPECT_THAT(compute(workers), fails_with(ErrorKind::kIo, {"memory are needed", "a quarter", "16M"}));
}

TEST_F(FactorWorkersTest, StopEndsTheWaitForMemory) {
  FactorRequest request;
  request.rows = 20;
  request.columns = 30;
  request.rank = 1;
  request.set_size = 64;
  const uint64_t one = factor_memory(request);
  FactorWorkers workers({script("exec sleep 1000")}, [&](uint64_t /*held*/) { return 4 * one; });
  const auto start = [&] { return std::async(std::launch::async, [&] { return compute(workers); }); };
  auto first = start();
  auto second = start();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  workers.stop();
  EXPECT_THAT(first.get(), fails_with(ErrorKind::kInterrupted, {"unmounted"}));
  EXPECT_THAT(second.get(), fails_with(ErrorKind::kInterrupted, {"unmounted"}));
}

TEST_F(FactorWorkersTest, MemoryThatIsNotThereIsSaid) {
  FactorWorkers workers(worker_programs());
  FactorRequest request;
  request.rows = request.columns = uint64_t{1} << 21;
  request.rank = 1;
  EXPECT_THAT(workers.compute(request, [](std::span<float>) -> Status { return {}; }, {}, {}),
              fails_with(ErrorKind::kIo, {"memory"}));
}

}  // namespace
}  // namespace qcache
