#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

/// What the daemon and qcache-worker say to each other: one message per direction and matrix, over a SOCK_SEQPACKET
/// socket that is the worker's standard input. A request carries a descriptor of shared memory that holds, one after
/// another in fp32 and row-major, the matrix [rows, columns], and room for lora_A [rank, columns] and
/// lora_B [rows, rank]. Both sides are of one build; `version` catches a mixed installation.
namespace qcache {

struct FactorRequest {
  static constexpr uint32_t kVersion = 1;
  uint32_t version = kVersion;
  uint32_t rank = 0;
  uint64_t rows = 0;
  uint64_t columns = 0;
  uint64_t set_size = 0;  ///< see factor_set_size()
  uint64_t seed = 0;
};

struct FactorReply {
  uint32_t done = 0;               ///< 1: both factors are in the shared memory
  std::array<char, 252> reason{};  ///< why not, ended by a zero
};

static_assert(std::is_trivially_copyable_v<FactorRequest> && std::is_trivially_copyable_v<FactorReply>);

/// Floats in the shared memory of a request. The caller has checked that this does not overflow.
[[nodiscard]] inline uint64_t shared_floats(uint64_t rows, uint64_t columns, uint64_t rank) {
  return rows * columns + rank * (rows + columns);
}

}  // namespace qcache
