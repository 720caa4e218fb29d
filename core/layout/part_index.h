#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace qcache {

/// Where the parts of a long text lie, so that any piece of it can be written by making the parts that it consists of:
/// the text itself is not held. Holds eight bytes for every 64 parts. Immutable once filled; then any thread.
class PartIndex {
 public:
  /// Appends part `part` of the text to `text`.
  using AppendPart = std::function<void(size_t part, std::string& text)>;

  /// The next part is so long.
  void add(uint64_t bytes);
  [[nodiscard]] uint64_t size_bytes() const { return size_bytes_; }

  /// Writes the text's bytes from `offset` on. `append` must give the parts the lengths that were added.
  /// REQUIRES: offset + out.size() <= size_bytes().
  void render(uint64_t offset, std::span<std::byte> out, const AppendPart& append) const;

 private:
  std::vector<uint64_t> starts_;  // of every 64th part
  size_t count_ = 0;
  uint64_t size_bytes_ = 0;
};

}  // namespace qcache
