#pragma once

#include <gmock/gmock.h>

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// EXPECT_THAT(result, is_ok()) prints the message of a failure.
class IsOkMatcher {
 public:
  using is_gtest_matcher = void;
  template <typename T>
  bool MatchAndExplain(const Result<T>& result, std::ostream* out) const {
    if (!result.has_value() && out != nullptr) {
      *out << "which failed with " << to_string(result.error().kind) << ": " << result.error().message;
    }
    return result.has_value();
  }
  void DescribeTo(std::ostream* out) const { *out << "is ok"; }
  void DescribeNegationTo(std::ostream* out) const { *out << "is a failure"; }
};
[[nodiscard]] inline IsOkMatcher is_ok() {
  return {};
}

/// EXPECT_THAT(result, fails_with(ErrorKind::kInvalidModel, {"tensor 'x'", "overlaps"})): a failure of this
/// kind whose message holds all the words.
class FailsWithMatcher {
 public:
  using is_gtest_matcher = void;
  FailsWithMatcher(ErrorKind kind, std::vector<std::string> words) : kind_(kind), words_(std::move(words)) {}

  template <typename T>
  bool MatchAndExplain(const Result<T>& result, std::ostream* out) const {
    if (result.has_value()) {
      return false;
    }
    const Error& error = result.error();
    if (out != nullptr) {
      *out << "which failed with " << to_string(error.kind) << ": " << error.message;
    }
    bool all = error.kind == kind_;
    for (const std::string& word : words_) {
      all = all && error.message.find(word) != std::string::npos;
    }
    return all;
  }
  void DescribeTo(std::ostream* out) const {
    *out << "fails with " << to_string(kind_) << " and a message with " << ::testing::PrintToString(words_);
  }
  void DescribeNegationTo(std::ostream* out) const { *out << "does not fail so"; }

 private:
  ErrorKind kind_;
  std::vector<std::string> words_;
};
[[nodiscard]] inline FailsWithMatcher fails_with(ErrorKind kind, std::vector<std::string> words) {
  return {kind, std::move(words)};
}

}  // namespace qcache
