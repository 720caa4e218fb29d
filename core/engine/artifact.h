#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/byte_range.h"
#include "core/base/digest.h"
#include "core/base/result.h"

namespace qcache {

/// A read that may have to wait. Cancel it to get the callback at once with kInterrupted; without effect once the
/// callback has run. Thread-safe.
class PendingRead {
 public:
  virtual ~PendingRead() = default;
  virtual void cancel() = 0;
};

/// Gets the bytes of a read, or why there are none. Called exactly once, from any thread, with no lock held. The span
/// is valid only during the call.
using ReadCallback = std::function<void(Result<std::span<const std::byte>>)>;

/// How a read came about.
enum class ReadIntent : uint8_t {
  kWanted,  ///< a program asked for exactly these bytes
  /// The kernel reads ahead around a page that a program touched in a mapping. It asks again, for single pages, for
  /// what it does not get.
  kSpeculative,
};

/// One opened file of the mount: an artifact as it was when it was opened. Its bytes never change while it is open, not
/// even where the name is removed, sealed or made anew from a changed source in the meantime. Thread-safe.
class Artifact {
 public:
  virtual ~Artifact() = default;

  [[nodiscard]] virtual const Sha256Digest& recipe() const = 0;
  [[nodiscard]] virtual uint64_t size_bytes() const = 0;
  /// The descriptor of the backing file, for reading only, where every byte of the artifact is in place, checked, and
  /// never written any more; else -1. Lives as long as the artifact.
  [[nodiscard]] virtual int complete_fd() const = 0;

  /// Reads the part of `range` that lies inside the file. Never blocks on quantization: the callback runs at once where
  /// the bytes are there, else when they are. Returns the pending read, or null where the callback has run already.
  /// Failures: kSourceChanged, kNoSpace, kIo, kInterrupted; the file can be read again afterwards. A speculative read
  /// is declined (kBusy) where it would need the whole of a tensor that may not be wanted.
  virtual std::shared_ptr<PendingRead> read(ByteRange range, ReadIntent intent, ReadCallback callback) = 0;
};

}  // namespace qcache
