#pragma once

#include <string>

namespace qcache {

/// What libfuse says: while one of these lives, and a mount is set up, the reason for an error of ours; afterwards,
/// lines of the log. libfuse knows one function for all sessions, so there is one at a time; its words may come from
/// any thread once it is gone.
class LibfuseWords {
 public:
  LibfuseWords();
  ~LibfuseWords();
  LibfuseWords(const LibfuseWords&) = delete;
  LibfuseWords& operator=(const LibfuseWords&) = delete;

  /// "" or ": " and what was said, each once.
  [[nodiscard]] static std::string reason();
};

}  // namespace qcache
