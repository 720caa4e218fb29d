#include "core/base/result.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace qcache {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) {
    return fail(ErrorKind::kInvalidArgument, "odd");
  }
  return value / 2;
}

Result<int> quarter(int value) {
  QCACHE_TRY_ASSIGN(const int halved, half(value));
  QCACHE_TRY_ASSIGN(const int quartered, half(halved));
  return quartered;
}

TEST(Result, TryPassesTheFirstErrorOn) {
  EXPECT_EQ(quarter(8), 2);
  EXPECT_EQ(quarter(6).error().message, "odd");
  EXPECT_EQ(quarter(7).error().kind, ErrorKind::kInvalidArgument);
}

TEST(Result, ContextComesBeforeTheMessage) {
  const Error error{ErrorKind::kIo, EIO, "disk broken"};
  const Error outer = error.with_context("cannot seal");
  EXPECT_EQ(outer.message, "cannot seal: disk broken");
  EXPECT_EQ(outer.kind, ErrorKind::kIo);
  EXPECT_EQ(outer.sys_errno, EIO);
}

TEST(Result, SystemErrorsNameTheCauseAndKeepTheErrno) {
  const Error error = system_error(ENOSPC, "cannot write /x");
  EXPECT_EQ(error.kind, ErrorKind::kNoSpace);
  EXPECT_EQ(error.sys_errno, ENOSPC);
  EXPECT_EQ(error.message, "cannot write /x: No space left on device");
  EXPECT_EQ(kind_of_errno(ENOENT), ErrorKind::kNotFound);
  EXPECT_EQ(kind_of_errno(EACCES), ErrorKind::kPermission);
  EXPECT_EQ(kind_of_errno(EIO), ErrorKind::kIo);
}

}  // namespace
}  // namespace qcache
