#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/byte_source.h"
#include "core/model/tensor.h"

namespace qcache {

/// What torch.save wrote into one file, as far as qcache needs it.
struct TorchCheckpoint {
  /// By the position of their first element, equal ones in the order of the checkpoint; `file` is 0. Tensors may share
  /// bytes, wholly or in part: tied weights are several names for one storage.
  std::vector<TensorInfo> tensors;
  Sha256Digest digest{};  ///< of all bytes that the reader looked at
};

/// Whether a file that begins so may be a torch checkpoint, zip or legacy. `beginning` has kTorchMagicBytes bytes, or
/// fewer where the file has.
[[nodiscard]] bool has_torch_magic(std::string_view beginning);
constexpr size_t kTorchMagicBytes = 32;

/// Finds the tensors of a checkpoint: a zip archive with `data.pkl`, or the legacy format of five pickles and then the
/// storages. Runs no code of the file. What holds for the result: every element of every tensor lies inside its
/// storage, and every storage inside the file.
///
/// Fails with kInvalidModel and a sentence where the file is malformed, incomplete or lies about its content, is a
/// TorchScript archive or of another byte order, where a tensor or all of them together are larger than 64 times the
/// file, or where the rules of pickled_tensors are broken.
Result<std::vector<TensorInfo>> find_torch_tensors(ByteSource& source);

/// The same for an open file of `size_bytes` bytes; `path` is for messages.
Result<TorchCheckpoint> read_torch_checkpoint(Env& env, int fd, const std::string& path, uint64_t size_bytes);

}  // namespace qcache
