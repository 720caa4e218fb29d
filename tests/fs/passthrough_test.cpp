#include "fs/passthrough.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "tests/support/fake_env.h"

namespace qcache {
namespace {

constexpr uint64_t kCache = 1;
constexpr uint64_t kOverlay = 2;

/// With a kernel that answers as told, and hands out ids from 1 on.
class ScriptedPassthrough final : public Passthrough {
 public:
  explicit ScriptedPassthrough(Env& env) : Passthrough(true, env) {}

  std::deque<int> refusals;  // errnos of the next calls
  std::vector<int> offered;  // descriptors
  std::vector<int32_t> taken_back;

 private:
  int32_t open_backing(int fd) override {
    offered.push_back(fd);
    if (!refusals.empty()) {
      const int error = refusals.front();
      refusals.pop_front();
      return -error;
    }
    return ++last_id_;
  }
  void close_backing(int32_t id) override { taken_back.push_back(id); }

  int32_t last_id_ = 0;
};

class PassthroughTest : public testing::Test {
 protected:
  void SetUp() override {
    if (QCACHE_HAS_PASSTHROUGH == 0) {
      GTEST_SKIP() << "built with a libfuse without passthrough";
    }
  }
  FakeEnv env_;
  ScriptedPassthrough passthrough_{env_};
};

TEST_F(PassthroughTest, AllOpensOfANodeShareOneIdUntilTheLastIsReleased) {
  std::optional<Passthrough::Hold> first = passthrough_.open(7, 100, kCache);
  {
    const Passthrough::Hold second = passthrough_.open(7, 101, kCache);
    EXPECT_EQ(second.opened().backing_id, first->opened().backing_id);
    const Passthrough::Hold other = passthrough_.open(8, 102, kCache);
    EXPECT_NE(other.opened().backing_id, first->opened().backing_id);
    Passthrough::Hold moved = std::move(*first);
    first.reset();
    EXPECT_EQ(passthrough_.taken_back, std::vector<int32_t>());
    EXPECT_EQ(moved.opened().mode, SealedMode::kPassthrough);
  }
  EXPECT_EQ(passthrough_.offered, (std::vector<int>{100, 102}));
  EXPECT_EQ(passthrough_.taken_back.size(), 2U);
}

TEST_F(PassthroughTest, ARefusedFilesystemIsTriedAgainAfterAMinuteAndOthersAtOnce) {
  passthrough_.refusals = {ELOOP};
  {
    const Passthrough::Hold held = passthrough_.open(1, 100, kOverlay);
    EXPECT_EQ(held.opened().mode, SealedMode::kPageCache);
    EXPECT_EQ(passthrough_.state_on(kOverlay), PassthroughState::kRefused);
    EXPECT_EQ(passthrough_.state_on(kCache), PassthroughState::kUntried);
    EXPECT_EQ(passthrough_.open(2, 101, kCache).opened().mode, SealedMode::kPassthrough);
    EXPECT_EQ(passthrough_.state_on(kCache), PassthroughState::kWorks);
    EXPECT_EQ(passthrough_.open(3, 102, kOverlay).opened().mode, SealedMode::kPageCache);
    env_.advance(61'000'000'000);
    EXPECT_EQ(passthrough_.open(1, 103, kOverlay).opened().mode, SealedMode::kPageCache)
        << "a node keeps its mode while it is open";
  }
  EXPECT_EQ(passthrough_.offered, (std::vector<int>{100, 101}));
  EXPECT_EQ(passthrough_.open(1, 104, kOverlay).opened().mode, SealedMode::kPassthrough);
  EXPECT_EQ(passthrough_.state_on(kOverlay), PassthroughState::kWorks);
}

TEST_F(PassthroughTest, WithoutThePrivilegeNothingIsOfferedAgain) {
  passthrough_.refusals = {EPERM};
  EXPECT_EQ(passthrough_.open(1, 100, kCache).opened().mode, SealedMode::kPageCache);
  env_.advance(3'600'000'000'000);
  EXPECT_EQ(passthrough_.open(1, 100, kCache).opened().mode, SealedMode::kPageCache);
  EXPECT_EQ(passthrough_.offered, std::vector<int>{100});
  EXPECT_EQ(passthrough_.state(), PassthroughState::kNotPermitted);
  EXPECT_EQ(passthrough_.state_on(kCache), PassthroughState::kNotPermitted);
}

}  // namespace
}  // namespace qcache
