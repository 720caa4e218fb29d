#pragma once

#include <string>
#include <vector>

#include "core/base/result.h"

namespace qcache {

/// How a program ended.
struct Ended {
  int status = 0;    ///< its exit status; 128 where a signal ended it
  std::string said;  ///< on standard error
};

/// Runs a program, found by PATH, and waits for its end. An error where it cannot be run.
Result<Ended> run_to_its_end(std::vector<std::string> words);

/// `text` without line breaks.
[[nodiscard]] std::string one_line(std::string text);

}  // namespace qcache
