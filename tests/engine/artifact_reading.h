#pragma once

#include <chrono>
#include <future>
#include <span>
#include <thread>
#include <vector>

#include "core/engine/artifact.h"

namespace qcache {

/// The bytes of a range, waited for.
inline Result<std::vector<std::byte>> read(Artifact& artifact, ByteRange range) {
  std::promise<Result<std::vector<std::byte>>> answer;
  artifact.read(range, ReadIntent::kWanted, [&](const Result<std::span<const std::byte>>& bytes) {
    answer.set_value(bytes ? Result<std::vector<std::byte>>(std::vector<std::byte>(bytes->begin(), bytes->end()))
                           : fail(bytes.error()));
  });
  return answer.get_future().get();
}

/// Asks until it is so; false after 20 s.
template <typename Condition>
bool eventually(const Condition& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace qcache
