#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace qcache {

/// What went wrong, in the terms a caller can act on. `fs` maps each kind to one errno and `tools` to
/// one exit code; no other place does.
enum class ErrorKind {
  kInvalidArgument,  ///< the caller asked for something malformed
  kNotFound,         ///< the named thing does not exist
  kInvalidModel,     ///< a model file is malformed or lies about its content
  kUnsupported,      ///< well-formed, but this build or this scheme cannot serve it
  kSourceChanged,    ///< a model file changed under an artifact that was made from it
  kCorrupt,          ///< cached bytes or records differ from what was written
  kNoSpace,          ///< the cache directory's filesystem is full or over quota
  kCacheUnusable,    ///< the cache directory as a whole is not one that can be used
  kPermission,       ///< the operating system refused access
  kBusy,             ///< in use now; the same call may work later
  kInterrupted,      ///< the caller gave up, or the daemon is shutting down
  kIo,               ///< the operating system reported an I/O failure
  kInternal,         ///< a bug in qcache
};

/// A failure: its kind, the errno behind it (0 where there is none), and one sentence for a person that
/// says what failed, where, and where possible what to do.
struct Error {
  ErrorKind kind = ErrorKind::kInternal;
  int sys_errno = 0;
  std::string message;

  /// The same failure seen from one layer up: "context: message".
  [[nodiscard]] Error with_context(std::string_view context) const;

  friend bool operator==(const Error&, const Error&) = default;
};

/// Every fallible function returns one of these. "Not there" is an empty optional inside a Result where
/// absence is an expected answer, and ErrorKind::kNotFound where it is not.
template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

[[nodiscard]] inline tl::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return tl::unexpected<Error>(Error{kind, 0, std::move(message)});
}
[[nodiscard]] inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

/// The failure of a system call: `what` names the call's purpose and object ("cannot open /x/y"); the
/// system's text for `sys_errno` is appended. The kind follows from the errno.
[[nodiscard]] Error system_error(int sys_errno, std::string_view what);

/// The kind that an errno from the operating system stands for.
[[nodiscard]] ErrorKind kind_of_errno(int sys_errno);

/// A stable lower-case word for logs and JSON, such as "source-changed".
[[nodiscard]] std::string_view to_string(ErrorKind kind);

}  // namespace qcache

#define QCACHE_CONCAT_INNER(a, b) a##b
#define QCACHE_CONCAT(a, b) QCACHE_CONCAT_INNER(a, b)

/// Returns the error of a Status or Result from the enclosing function, if it is one.
#define QCACHE_TRY(expr)                                                          \
  do {                                                                            \
    if (auto qcache_status = (expr); !qcache_status.has_value()) {                \
      return ::tl::unexpected<::qcache::Error>(std::move(qcache_status).error()); \
    }                                                                             \
  } while (false)

/// `QCACHE_TRY_ASSIGN(auto x, f());` declares or assigns x from a Result, or returns its error.
#define QCACHE_TRY_ASSIGN(lhs, expr) QCACHE_TRY_ASSIGN_IMPL(lhs, expr, QCACHE_CONCAT(qcache_result_, __LINE__))
#define QCACHE_TRY_ASSIGN_IMPL(lhs, expr, tmp)                        \
  auto tmp = (expr);                                                  \
  if (!tmp.has_value()) {                                             \
    return ::tl::unexpected<::qcache::Error>(std::move(tmp).error()); \
  }                                                                   \
  lhs = std::move(tmp).value()
