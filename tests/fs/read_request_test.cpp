// How reads are answered, with a libfuse that only counts.

#include "fs/read_request.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <new>
#include <utility>
#include <vector>

namespace {

struct Answers {
  std::vector<int> errors;  // 0: bytes
  fuse_interrupt_func_t interrupt = nullptr;
  void* data = nullptr;
};

Answers& answers_of(fuse_req_t request) {
  return *reinterpret_cast<Answers*>(request);
}

}  // namespace

extern "C" {

int fuse_reply_err(fuse_req_t request, int error) {
  answers_of(request).errors.push_back(error);
  return 0;
}
int fuse_reply_buf(fuse_req_t request, const char* /*bytes*/, size_t /*size*/) {
  answers_of(request).errors.push_back(0);
  return 0;
}
void fuse_req_interrupt_func(fuse_req_t request, fuse_interrupt_func_t function, void* data) {
  answers_of(request).interrupt = function;
  answers_of(request).data = data;
}

}  // extern "C"

namespace qcache {
namespace {

/// Keeps the callback of a read; then does as told.
class KeepsCallback final : public Artifact {
 public:
  [[nodiscard]] const Sha256Digest& recipe() const override { return recipe_; }
  [[nodiscard]] uint64_t size_bytes() const override { return 100; }
  [[nodiscard]] int complete_fd() const override { return -1; }
  std::shared_ptr<PendingRead> read(ByteRange /*range*/, ReadIntent /*intent*/, ReadCallback callback) override {
    kept = std::move(callback);
    if (throws) {
      throw std::bad_alloc();
    }
    struct Pending final : PendingRead {
      explicit Pending(const ReadCallback& answer) : answer_(answer) {}
      void cancel() override { answer_(fail(ErrorKind::kInterrupted, "")); }
      const ReadCallback& answer_;
    };
    return std::make_shared<Pending>(kept);
  }

  bool throws = false;
  ReadCallback kept;

 private:
  Sha256Digest recipe_{};
};

class ReadRequestTest : public testing::Test {
 protected:
  void start() { ReadRequest::start(reinterpret_cast<fuse_req_t>(&answers_), artifact_, {0, 10}, ReadIntent::kWanted); }
  void deliver() { artifact_.kept(std::span<const std::byte>(bytes_)); }

  std::array<std::byte, 10> bytes_{};
  KeepsCallback artifact_;
  Answers answers_;
};

TEST_F(ReadRequestTest, IsAnsweredByTheCallback) {
  start();
  EXPECT_TRUE(answers_.errors.empty());
  deliver();
  EXPECT_EQ(answers_.errors, std::vector<int>{0});
  EXPECT_EQ(answers_.interrupt, nullptr);
}

TEST_F(ReadRequestTest, IsAnsweredOnceWhereTheReadThrowsAndItsWaiterStays) {
  artifact_.throws = true;
  start();
  EXPECT_EQ(answers_.errors, std::vector<int>{EIO});
  deliver();
  EXPECT_EQ(answers_.errors, std::vector<int>{EIO}) << "answered twice";
}

TEST_F(ReadRequestTest, AnInterruptAnswersOnce) {
  start();
  answers_.interrupt(reinterpret_cast<fuse_req_t>(&answers_), answers_.data);
  deliver();
  EXPECT_EQ(answers_.errors, std::vector<int>{EINTR});
}

}  // namespace
}  // namespace qcache
