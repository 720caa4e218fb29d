#include "tools/exit_code.h"

namespace qcache {

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
    case ErrorKind::kIo:
    case ErrorKind::kInternal:
      return ExitCode::kFailure;
  }
  return ExitCode::kFailure;
}

}  // namespace qcache
