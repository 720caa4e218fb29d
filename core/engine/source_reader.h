#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/base/env.h"
#include "core/base/page_buffer.h"
#include "core/engine/stats.h"
#include "core/model/source_model.h"

namespace qcache {

/// Reads tensor bytes of one source model in one state, or fails: never bytes of two states.
///
/// The files are opened once. After a piece of work the opened file must still have the stat of the identity. A write
/// to a file sets its times before it copies bytes, and the identity is settled (older than the clock's granularity),
/// so bytes of another state imply another stat. (A writer that changes the file through a shared mapping it dirtied
/// before may go unseen until its pages are written back; docs/SEMANTICS.md says so.) Thread-safe.
///
/// A MemorySource is one whose bytes are not in files.
class SourceReader {
 public:
  virtual ~SourceReader() = default;
  SourceReader(const SourceReader&) = delete;
  SourceReader& operator=(const SourceReader&) = delete;

  /// Opens the model's weight files. kSourceChanged where they are not those of its identity.
  static Result<std::unique_ptr<SourceReader>> open(Env& env, std::shared_ptr<const SourceModel> model, Stats& stats);

  /// Fills `out` from the bytes at `offset` of the values of `tensor`, row-major whatever its strides and encoding;
  /// where it has either, both are whole elements. kSourceChanged where the file is shorter than its header said.
  [[nodiscard]] Status read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out) const;

  /// The same for several ranges of a tensor, one after another into `out`, which gets their size.
  [[nodiscard]] Status read(const TensorInfo& tensor, std::span<const ByteRange> ranges, PageBuffer& out) const;

  /// Whether the opened files of `tensor` still are in the identity's state. To be called after the last read() of a
  /// piece of work and before anybody sees what was made from it.
  [[nodiscard]] Status check(const TensorInfo& tensor) const;

  /// Of the filesystem that holds the files; 0 where there are none.
  [[nodiscard]] uint64_t device() const { return device_; }
  [[nodiscard]] const SourceModel& model() const { return *model_; }

 protected:
  SourceReader(Env& env, std::shared_ptr<const SourceModel> model, Stats& stats);
  [[nodiscard]] virtual Status check_file(size_t file) const;
  [[nodiscard]] virtual Status read_file(size_t file, uint64_t position, std::span<std::byte> out) const;

 private:
  Env& env_;
  const std::shared_ptr<const SourceModel> model_;
  Stats& stats_;
  std::vector<UniqueFd> files_;  // constant after open
  uint64_t device_ = 0;          // likewise
};

}  // namespace qcache
