#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/digest.h"
#include "core/base/env.h"
#include "core/base/result.h"
#include "core/model/tensor.h"

namespace qcache {

/// The header of one safetensors file: `u64 N | N bytes of JSON | tensor bytes`.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< by offset; `file` is 0 and `data` is absolute
  Sha256Digest digest{};            ///< of the 8 + N header bytes
};

/// Checks and decodes header JSON (`json` is the N bytes) of a file of `file_bytes` bytes. Pure: no I/O.
/// Takes a tensor that is there again with the same entry for one, and `"__metadata__": null` for none.
/// Rejects, naming the tensor: N beyond 100 MB or the file, JSON that is not one object, one name with two different
/// entries, nesting deeper than 16, names over 64 KiB or not UTF-8, unknown dtypes, shapes that overflow, offsets
/// that are not two non-negative integers, differ from the shape's size, overlap, leave holes, or do not end
/// at the end of the file.
Result<std::vector<TensorInfo>> parse_safetensors_header(std::string_view json, uint64_t file_bytes);

/// Reads and parses the header of an open file; `path` is for messages.
Result<SafetensorsHeader> read_safetensors_header(Env& env, int fd, const std::string& path);

}  // namespace qcache
