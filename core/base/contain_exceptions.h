#pragma once

#include <exception>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace qcache {

/// What `work` returns, a Result. What it throws (out of memory, in practice) becomes kInternal with `what` before its
/// text: for threads that others depend on, where one file's failure must not end the daemon.
template <typename Work>
auto contain_exceptions(std::string_view what, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& e) {
    return fail(ErrorKind::kInternal, std::string(what) + ": " + e.what());
  }
}

}  // namespace qcache
