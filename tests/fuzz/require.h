#pragma once

#include <cstdlib>

namespace qcache {

/// Ends the run, and so makes the input a finding, where a promise does not hold.
inline void require(bool promise) {
  if (!promise) {
    std::abort();
  }
}

}  // namespace qcache
