#include "fs/errno_of.h"

#include <cerrno>

namespace qcache {

int errno_of(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kInvalidArgument:
      return EINVAL;
    case ErrorKind::kNotFound:
    case ErrorKind::kUnsupported:
      return ENOENT;
    case ErrorKind::kSourceChanged:
      return ESTALE;
    case ErrorKind::kNoSpace:
      return error.sys_errno == EDQUOT ? EDQUOT : ENOSPC;
    case ErrorKind::kPermission:
      return EACCES;
    case ErrorKind::kBusy:
      return EBUSY;
    case ErrorKind::kInterrupted:
      return EINTR;
    case ErrorKind::kInvalidModel:
    case ErrorKind::kCorrupt:
    case ErrorKind::kCacheUnusable:
    case ErrorKind::kIo:
    case ErrorKind::kInternal:
      return EIO;
  }
  return EIO;
}

}  // namespace qcache
