#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "core/base/result.h"
#include "core/model/tensor.h"

namespace qcache {

/// Fills the span from the file's bytes at this position.
using ReadBytes = std::function<Status(uint64_t position, std::span<std::byte> out)>;

/// Fills `out` with the bytes at `offset` of a tensor that has strides, as if it were row-major and contiguous: gathers
/// its elements from where they lie in the file. REQUIRES: offset and size are whole elements inside the tensor.
///
/// Reads in the order of the file, in pieces of at most 256 KiB, which bounds the memory. Where the wanted elements lie
/// close together a piece covers many of them, with what is between; where they lie far apart, as in a few rows of a
/// large transposed matrix, each run of neighbours is read alone.
Status read_strided(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out, const ReadBytes& read);

}  // namespace qcache
