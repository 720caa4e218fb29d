#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/model/dtype.h"

namespace qcache {

/// The pickle of a torch checkpoint: one plain dict of contiguous tensors, each alone in its storage. It is
/// pickle_begin(), each tensor in turn, and pickle_end().
///
/// Only opcodes and globals that every reader takes: Python's pickle, `weights_only=True` since torch 1.13,
/// and libtorch's C++ unpickler (which knows no OrderedDict, hence the plain dict). Types that torch has no
/// typed storage for (float8, uint16 and wider) use `_rebuild_tensor_v3`, which only Python knows, since
/// torch 2.2. There are no floats in it: torch 1.13 refuses their opcode.
[[nodiscard]] std::string_view pickle_begin();

/// Appends a tensor to the pickle whose storage, the record `data/<record>`, is `storage_bytes` long: as long as the
/// record, not as the tensor, because torch 2.10 refuses a record of another length. False, with nothing appended,
/// where the shape's extents or strides do not fit torch's signed 64 bits.
[[nodiscard]] bool append_pickled_tensor(std::string& pickle, uint64_t record, std::string_view name, DType dtype,
                                         std::span<const uint64_t> shape, uint64_t storage_bytes);

[[nodiscard]] std::string_view pickle_end();

}  // namespace qcache
