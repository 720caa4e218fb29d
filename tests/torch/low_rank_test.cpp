#include "core/torch/low_rank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

namespace qcache {
namespace {

using Matrix = std::vector<float>;

struct Factors {
  Matrix a;
  Matrix b;
};

Matrix gaussian(uint64_t rows, uint64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix out(rows * columns);
  std::ranges::generate(out, [&] { return normal(random); });
  return out;
}

Factors factors_of(const Matrix& matrix, uint64_t rows, uint64_t columns, uint32_t rank, uint64_t set_size = 64,
                   uint64_t seed = 7) {
  use_one_thread();
  Factors out{Matrix(rank * columns, -1), Matrix(rows * rank, -1)};
  low_rank_factors(matrix, rows, columns, rank, set_size, seed, {out.a, out.b});
  return out;
}

/// Norm of matrix - b * a, as a share of that of the matrix.
double rest(const Matrix& matrix, uint64_t rows, uint64_t columns, uint32_t rank, const Factors& factors) {
  double left = 0;
  double all = 0;
  for (uint64_t i = 0; i < rows; ++i) {
    for (uint64_t j = 0; j < columns; ++j) {
      double value = matrix[i * columns + j];
      all += value * value;
      for (uint32_t k = 0; k < rank; ++k) {
        value -= static_cast<double>(factors.b[i * rank + k]) * factors.a[k * columns + j];
      }
      left += value * value;
    }
  }
  return std::sqrt(left / all);
}

TEST(LowRank, FindsAMatrixOfThatRank) {
  constexpr uint64_t kRows = 90;
  constexpr uint64_t kColumns = 140;
  const Matrix left = gaussian(kRows, 3, 1);
  const Matrix right = gaussian(3, kColumns, 2);
  Matrix product(kRows * kColumns);
  for (uint64_t i = 0; i < kRows; ++i) {
    for (uint64_t j = 0; j < kColumns; ++j) {
      for (uint64_t k = 0; k < 3; ++k) {
        product[i * kColumns + j] += left[i * 3 + k] * right[k * kColumns + j];
      }
    }
  }
  EXPECT_LT(rest(product, kRows, kColumns, 3, factors_of(product, kRows, kColumns, 3)), 1e-5);
  EXPECT_GT(rest(product, kRows, kColumns, 2, factors_of(product, kRows, kColumns, 2)), 0.1);
}

// The best rank r of an n x n Gaussian matrix takes 1 - sqrt(1 - 4r/n) of its norm away. No matrix is harder: what its
// directions hold falls as slowly as can be. Ranks that are a small part of their set come near the best.
TEST(LowRank, TakesFromAGaussianMatrixWhatTheoryPromises) {
  constexpr uint64_t kSide = 512;
  const Matrix matrix = gaussian(kSide, kSide, 3);
  for (const auto& [rank, share] : {std::pair(4U, 0.85), std::pair(16U, 0.8), std::pair(64U, 0.6)}) {
    const double best = 1 - std::sqrt(1 - 4.0 * rank / kSide);
    const double removed = 1 - rest(matrix, kSide, kSide, rank, factors_of(matrix, kSide, kSide, rank));
    EXPECT_GT(removed, share * best) << rank << ": " << removed / best;
    EXPECT_LT(removed, 1.1 * best) << rank;
  }
}

TEST(LowRank, MakesTheSameBytesTwiceAndOthersFromAnotherSeed) {
  const Matrix matrix = gaussian(130, 100, 4);
  const Factors once = factors_of(matrix, 130, 100, 8);
  const Factors twice = factors_of(matrix, 130, 100, 8);
  EXPECT_EQ(once.a, twice.a);
  EXPECT_EQ(once.b, twice.b);
  EXPECT_NE(once.a, factors_of(matrix, 130, 100, 8, 64, 8).a);
}

TEST(LowRank, RanksOfOneSetAgreeInWhatTheyShare) {
  const Matrix matrix = gaussian(130, 100, 5);
  const Factors small = factors_of(matrix, 130, 100, 8);
  const Factors large = factors_of(matrix, 130, 100, 64);
  EXPECT_TRUE(std::equal(small.a.begin(), small.a.end(), large.a.begin()));
  for (uint64_t i = 0; i < 130; ++i) {
    EXPECT_TRUE(std::equal(&small.b[i * 8], &small.b[i * 8] + 8, &large.b[i * 64])) << "row " << i;
  }
}

TEST(LowRank, IsZeroBeyondTheSmallerSideAndExactAtIt) {
  const Matrix matrix = gaussian(20, 50, 6);
  const Factors factors = factors_of(matrix, 20, 50, 32);
  EXPECT_LT(rest(matrix, 20, 50, 32, factors), 1e-5);
  EXPECT_TRUE(std::all_of(factors.a.begin() + 20 * 50, factors.a.end(), [](float x) { return x == 0; }));
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_TRUE(std::all_of(&factors.b[i * 32 + 20], &factors.b[i * 32] + 32, [](float x) { return x == 0; }));
  }
}

TEST(LowRank, TheLargestElementOfEachColumnOfBIsPositive) {
  const Factors factors = factors_of(gaussian(70, 60, 9), 70, 60, 16);
  for (uint32_t k = 0; k < 16; ++k) {
    float largest = 0;
    for (uint64_t i = 0; i < 70; ++i) {
      const float value = factors.b[i * 16 + k];
      largest = std::abs(value) > std::abs(largest) ? value : largest;
    }
    EXPECT_GT(largest, 0) << k;
  }
}

TEST(LowRank, AZeroMatrixHasZeroFactors) {
  const Factors factors = factors_of(Matrix(30 * 40), 30, 40, 4);
  EXPECT_TRUE(std::ranges::all_of(factors.a, [](float x) { return x == 0; }));
  EXPECT_TRUE(std::ranges::all_of(factors.b, [](float x) { return x == 0; }));
}

}  // namespace
}  // namespace qcache
