#include "core/base/message.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

namespace qcache {
namespace {

class MessageTest : public testing::Test {
 protected:
  MessageTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
    ours_.reset(ends[0]);
    theirs_.reset(ends[1]);
  }

  UniqueFd ours_;
  UniqueFd theirs_;
  std::array<std::byte, 16> buffer_{};
};

TEST_F(MessageTest, CarriesBytesAndADescriptor) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd out(pipe[0]);
  const UniqueFd in(pipe[1]);
  const std::string text = "request";
  ASSERT_TRUE(send_message(ours_.get(), std::as_bytes(std::span(text)), in.get()));
  const auto received = receive_message(theirs_.get(), buffer_);
  ASSERT_TRUE(received);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(buffer_.data()), received->size), text);
  ASSERT_TRUE(received->fd.valid());
  EXPECT_NE(received->fd.get(), in.get());
  ASSERT_EQ(::write(received->fd.get(), "x", 1), 1);
  char through = 0;
  EXPECT_EQ(::read(out.get(), &through, 1), 1);
  EXPECT_EQ(through, 'x');
}

TEST_F(MessageTest, MayComeWithoutADescriptor) {
  ASSERT_TRUE(send_message(ours_.get(), std::as_bytes(std::span("abc", 3))));
  const auto received = receive_message(theirs_.get(), buffer_);
  ASSERT_TRUE(received);
  EXPECT_EQ(received->size, 3U);
  EXPECT_FALSE(received->fd.valid());
}

TEST_F(MessageTest, AnEndThatIsGoneIsNoSignal) {
  theirs_.reset();
  EXPECT_FALSE(send_message(ours_.get(), std::as_bytes(std::span("abc", 3))));
  EXPECT_FALSE(receive_message(ours_.get(), buffer_));
}

}  // namespace
}  // namespace qcache
