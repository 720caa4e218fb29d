#pragma once

#include <spdlog/spdlog.h>

#include <string>

#include "core/base/result.h"

namespace qcache {

/// Where a process writes its log. Messages go through spdlog's default logger: `spdlog::info("...")`.
struct LogOptions {
  /// Empty: standard error. Otherwise a file that is kept below 10 MiB and rotated twice.
  std::string file;
  spdlog::level::level_enum level = spdlog::level::info;
};

/// Installs the default logger; call once, before threads start (and after a fork). Fails where the file
/// cannot be opened.
Status start_logging(const LogOptions& options);

}  // namespace qcache
