#include "core/base/log.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <exception>
#include <memory>

namespace qcache {

Status start_logging(const LogOptions& options) {
  constexpr size_t kMaxFileBytes = 10U << 20U;
  constexpr size_t kRotatedFiles = 2;
  try {
    spdlog::sink_ptr sink;
    if (options.file.empty()) {
      sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    } else {
      sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(options.file, kMaxFileBytes, kRotatedFiles);
    }
    auto logger = std::make_shared<spdlog::logger>("qcache", std::move(sink));
    logger->set_level(options.level);
    // A daemon that is killed must have said what happened last.
    logger->flush_on(spdlog::level::info);
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    spdlog::set_default_logger(std::move(logger));
    return {};
  } catch (const std::exception& e) {
    return fail(ErrorKind::kIo, "cannot write the log file " + options.file + ": " + e.what());
  }
}

}  // namespace qcache
