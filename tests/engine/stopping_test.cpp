// What goes on while a filesystem has stopped: walks and jobs that hang.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <thread>
#include <vector>

#include "core/engine/helper_threads.h"
#include "core/engine/model_root.h"
#include "core/engine/worker_pool.h"
#include "tests/support/fake_env.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using std::chrono::milliseconds;

class ModelRootTest : public testing::Test {
 protected:
  ModelRootTest() {
    write_file(dir_ / "m/model.safetensors", "");
    root_ = std::make_shared<ModelRoot>(env_, dir_.path(), std::make_shared<MountWatch>(env_),
                                        SourceFolders(env_, resolve_folders(env_, {dir_.path()})));
  }
  ~ModelRootTest() override { root_->stop(); }

  const TempDir dir_;
  FakeEnv env_;
  std::shared_ptr<ModelRoot> root_;
};

TEST_F(ModelRootTest, AQuickWalkIsNeverRemembered) {
  EXPECT_EQ(root_->walk().walk->paths.size(), 1U);
  write_file(dir_ / "n/model.safetensors", "");
  EXPECT_EQ(root_->walk().walk->paths.size(), 2U);
  std::filesystem::remove_all(dir_ / "m");
  EXPECT_EQ(root_->walk().walk->paths.count("m"), 0U);
}

TEST_F(ModelRootTest, AWalkThatTakesLongIsSharedAndCountsFromItsEnd) {
  env_.before(EnvCall::kList, 1, [] { std::this_thread::sleep_for(milliseconds(400)); });
  std::vector<std::future<std::shared_ptr<const RootWalk>>> walks;
  for (int i = 0; i < 8; ++i) {
    walks.push_back(std::async(std::launch::async, [&] { return root_->walk().walk; }));
    std::this_thread::sleep_for(milliseconds(20));
  }
  const auto first = walks[0].get();
  for (size_t i = 1; i < walks.size(); ++i) {
    EXPECT_EQ(walks[i].get(), first);
  }
  EXPECT_EQ(root_->walk().walk, first) << "0.4 s after its beginning, at once after its end";
  std::this_thread::sleep_for(milliseconds(1100));
  EXPECT_NE(root_->walk().walk, first);
}

TEST_F(ModelRootTest, AWalkThatHangsLeavesWhatWasLastSeen) {
  const auto before = root_->walk().walk;
  std::promise<void> goes_on;
  env_.before(EnvCall::kStat, 1, [&] { goes_on.get_future().wait(); });
  const auto start = std::chrono::steady_clock::now();
  const ModelRoot::Seen seen = root_->walk();
  EXPECT_FALSE(seen.answered);
  EXPECT_EQ(seen.walk, before);
  EXPECT_FALSE(root_->walk().answered);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_TRUE(root_->stopped_for());
  EXPECT_TRUE(root_->look_up("m").lookup.found) << "names are looked up all the same";
  goes_on.set_value();
  while (root_->stopped_for()) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(root_->walk().answered);
}

TEST(HelperThreads, LeavesAJobThatHangsBehind) {
  const auto goes_on = std::make_shared<std::promise<void>>();
  const auto done = std::make_shared<std::promise<void>>();
  std::atomic<int> others{0};
  const auto start = std::chrono::steady_clock::now();
  {
    HelperThreads threads(2);
    threads.run([goes_on, done] {
      goes_on->get_future().wait();
      done->set_value();
    });
    for (int i = 0; i < 10; ++i) {
      threads.run([&] { ++others; });
    }
    while (others < 10) {
      std::this_thread::yield();
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  goes_on->set_value();
  done->get_future().wait();
}

TEST(WorkerPool, WorkersThatWaitForAStoppedSourceAreReplaced) {
  WorkerPool pool(2);
  std::promise<void> goes_on;
  const std::shared_future<void> going(goes_on.get_future());
  std::atomic<int> stopped{0};
  std::atomic<int> others{0};
  for (int i = 0; i < 6; ++i) {
    pool.submit(
        Priority::kDemand,
        [&] {
          const WorkerPool::SourceCall call;
          going.wait();
          ++stopped;
        },
        7);
  }
  pool.submit(
      Priority::kFill, [&] { ++others; }, 8);
  std::this_thread::sleep_for(milliseconds(1100));
  EXPECT_EQ(others, 0);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (others == 0 && std::chrono::steady_clock::now() < give_up) {
    pool.replace_stopped();
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(others, 1);
  pool.submit(Priority::kFill, [&] { ++others; });
  while (others < 2) {
    std::this_thread::yield();
  }
  EXPECT_EQ(stopped, 0);
  goes_on.set_value();
  while (stopped < 6) {
    std::this_thread::yield();
  }
}

}  // namespace
}  // namespace qcache
