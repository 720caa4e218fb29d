#include "core/engine/maintenance.h"

#include <gmock/gmock.h>

#include <future>
#include <new>

#include "tests/support/fake_env.h"

namespace qcache {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

class MaintenanceTest : public testing::Test {
 protected:
  MaintenanceTest() { env_.set_time(0); }

  std::function<Status()> note(const std::string& name) {
    return [this, name]() -> Status {
      done_.push_back(name);
      return {};
    };
  }
  /// What one look does after so much time.
  std::vector<std::string> after(seconds time) {
    env_.advance(std::chrono::nanoseconds(time).count());
    done_.clear();
    maintenance_.run_due();
    return done_;
  }

  FakeEnv env_;
  ErrorLog errors_;
  Maintenance maintenance_{env_, errors_};
  std::vector<std::string> done_;
};

TEST_F(MaintenanceTest, EachTaskIsDoneAfterItsInterval) {
  maintenance_.add({.name = "always", .run = note("always")});
  maintenance_.add({.name = "now and then", .interval = seconds(10), .run = note("10")});
  maintenance_.add({.name = "later", .interval = seconds(25), .at_once = false, .run = note("25")});
  EXPECT_THAT(after(seconds(0)), ElementsAre("always", "10"));
  EXPECT_THAT(after(seconds(9)), ElementsAre("always"));
  EXPECT_THAT(after(seconds(2)), ElementsAre("always", "10"));
  EXPECT_THAT(after(seconds(9)), ElementsAre("always")) << "the interval counts from when it was done";
  EXPECT_THAT(after(seconds(60)), ElementsAre("always", "10", "25")) << "once, however late";
}

TEST_F(MaintenanceTest, WhatIsUrgentIsDoneBeforeItIsDue) {
  bool urgent = false;
  maintenance_.add(
      {.name = "a", .interval = seconds(100), .at_once = false, .run = note("a"), .urgent = [&] { return urgent; }});
  EXPECT_THAT(after(seconds(1)), ElementsAre());
  urgent = true;
  EXPECT_THAT(after(seconds(1)), ElementsAre("a"));
}

TEST_F(MaintenanceTest, AFailureIsToldAndKeepsNothingElse) {
  maintenance_.add({.name = "throws", .run = []() -> Status { throw std::bad_alloc(); }});
  maintenance_.add({.name = "fails", .run = [] { return Status(fail(ErrorKind::kIo, "no disk")); }});
  maintenance_.add({.name = "works", .run = note("works")});
  EXPECT_THAT(after(seconds(0)), ElementsAre("works"));
  EXPECT_THAT(after(seconds(0)), ElementsAre("works"));
  const auto told = errors_.recent();
  ASSERT_EQ(told.size(), 2U);
  for (const ErrorEntry& entry : told) {
    EXPECT_TRUE(entry.subject == "throws" || entry.subject == "fails") << entry.subject;
    EXPECT_EQ(entry.count, 2U);
  }
}

TEST_F(MaintenanceTest, ItsThreadLooksWhenItIsWokenAndEnds) {
  std::promise<void> looked;
  bool first = true;
  maintenance_.add({.name = "a", .run = [&]() -> Status {
                      if (std::exchange(first, false)) {
                        looked.set_value();
                      }
                      return {};
                    }});
  maintenance_.start();
  maintenance_.wake();
  looked.get_future().wait();
  maintenance_.stop();
  maintenance_.stop();
}

}  // namespace
}  // namespace qcache
