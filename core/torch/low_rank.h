#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace qcache {

/// Where low_rank_factors() puts its result: fp32, row-major.
struct LowRankFactors {
  std::span<float> a;  ///< [rank, columns]
  std::span<float> b;  ///< [rows, rank]
};

/// Factors of the best approximation of a matrix that has the given rank: b * a, with singular values in falling
/// order, each shared evenly between its row of `a` and its column of `b` (PEFT: lora_A and lora_B with lora_alpha
/// equal to r). They are the first `rank` of a set of `set_size`, and do not depend on which `rank` of it is asked
/// for. What lies beyond the matrix's smaller side is zero.
///
/// Randomized subspace iteration (Halko, Martinsson, Tropp 2011), with the random start drawn from `seed`, the sign of
/// each pair fixed (the largest element of b's column is positive) and everything computed by one thread: the same
/// input makes the same bytes on machines of one kind. REQUIRES: matrix.size() == rows * columns > 0,
/// all values finite, rank <= set_size.
/// Throws what libtorch throws. Single thread; several threads at once are fine.
void low_rank_factors(std::span<const float> matrix, uint64_t rows, uint64_t columns, uint32_t rank, uint64_t set_size,
                      uint64_t seed, LowRankFactors into);

/// Makes libtorch compute with one thread. OpenBLAS has threads of its own: OPENBLAS_NUM_THREADS=1 must stand in the
/// environment when the process starts.
void use_one_thread();

}  // namespace qcache
