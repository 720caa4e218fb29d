#include "tools/exit_code.h"

#include <cerrno>

namespace qcache {

bool is_dead_mount(const Error& error) {
  return error.sys_errno == ENOTCONN || error.sys_errno == ECONNABORTED;
}

ExitCode exit_code_of(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kInvalidArgument:
      return ExitCode::kUsage;
    case ErrorKind::kNotFound:
      return ExitCode::kNotFound;
    case ErrorKind::kInvalidModel:
    case ErrorKind::kSourceChanged:
      return ExitCode::kModelUnusable;
    case ErrorKind::kUnsupported:
    case ErrorKind::kNoSpace:
    case ErrorKind::kCacheUnusable:
    case ErrorKind::kPermission:
      return ExitCode::kCacheUnusable;
    case ErrorKind::kBusy:
      return ExitCode::kBusy;
    case ErrorKind::kCorrupt:
      return ExitCode::kIntegrityFailure;
    case ErrorKind::kInterrupted:
      return ExitCode::kInterrupted;
    case ErrorKind::kIo:
      return is_dead_mount(error) ? ExitCode::kMountFailed : ExitCode::kFailure;
    case ErrorKind::kInternal:
      return ExitCode::kFailure;
  }
  return ExitCode::kFailure;
}

}  // namespace qcache
