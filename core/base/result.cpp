#include "core/base/result.h"

#include <cerrno>
#include <system_error>

namespace qcache {

Error Error::with_context(std::string_view context) const {
  Error out = *this;
  out.message.insert(0, ": ");
  out.message.insert(0, context);
  return out;
}

ErrorKind kind_of_errno(int sys_errno) {
  switch (sys_errno) {
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::kPermission;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorKind::kNoSpace;
    case EINTR:
    case ECANCELED:
      return ErrorKind::kInterrupted;
    case EBUSY:
    case EAGAIN:
    case ETXTBSY:
      return ErrorKind::kBusy;
    case ESTALE:
      return ErrorKind::kSourceChanged;
    case EINVAL:
    case ENAMETOOLONG:
      return ErrorKind::kInvalidArgument;
    default:
      return ErrorKind::kIo;
  }
}

Error system_error(int sys_errno, std::string_view what) {
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(sys_errno);
  return Error{kind_of_errno(sys_errno), sys_errno, std::move(message)};
}

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidArgument:
      return "invalid-argument";
    case ErrorKind::kNotFound:
      return "not-found";
    case ErrorKind::kInvalidModel:
      return "invalid-model";
    case ErrorKind::kUnsupported:
      return "unsupported";
    case ErrorKind::kSourceChanged:
      return "source-changed";
    case ErrorKind::kCorrupt:
      return "corrupt";
    case ErrorKind::kNoSpace:
      return "no-space";
    case ErrorKind::kCacheUnusable:
      return "cache-unusable";
    case ErrorKind::kPermission:
      return "permission";
    case ErrorKind::kBusy:
      return "busy";
    case ErrorKind::kInterrupted:
      return "interrupted";
    case ErrorKind::kIo:
      return "io";
    case ErrorKind::kInternal:
      return "internal";
  }
  return "internal";
}

}  // namespace qcache
