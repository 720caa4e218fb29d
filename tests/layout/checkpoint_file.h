#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/layout/layout_plan.h"

namespace qcache {

/// Fills `out` with the bytes from `offset` on of a stored tensor.
using TensorBytes = std::function<void(uint32_t group, uint32_t stored, uint64_t offset, std::span<std::byte> out)>;

/// A function of the arguments that differs everywhere.
void scrambled_bytes(uint32_t group, uint32_t stored, uint64_t offset, std::span<std::byte> out);
/// Zeros: files of many GB that take no disk space.
void zero_bytes(uint32_t group, uint32_t stored, uint64_t offset, std::span<std::byte> out);

/// CRC-32 of all bytes of a stored tensor, constant or not.
[[nodiscard]] uint32_t tensor_crc(const LayoutPlan& plan, uint32_t group, uint32_t stored, const TensorBytes& tensors);

/// The bytes of `range` as a server makes them: piece by piece.
[[nodiscard]] std::vector<std::byte> make_bytes(const LayoutPlan& plan, ByteRange range, const TensorBytes& tensors);

/// Writes the whole file, sparse where it holds zeros, and beside it `<path>.json`: name, dtype, shape and CRC
/// of each tensor that a reader must find, in order. Throws std::runtime_error where it cannot.
void write_checkpoint(const LayoutPlan& plan, const std::string& path, const TensorBytes& tensors);

}  // namespace qcache
