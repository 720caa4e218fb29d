#include "core/torch/low_rank.h"

#include <ATen/core/ivalue.h>  // clang cannot read the others unless this one comes first

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>

namespace qcache {
namespace {

// More directions than asked for, so that the last ones asked for are good as well.
constexpr int64_t kOversampling = 10;
// Each costs two passes over the matrix. Of what rank r can take from a Gaussian matrix of 512 by 512, the hardest
// kind, two find over four fifths for r = 16 and two thirds for r = 64.
constexpr int kIterations = 2;

at::Tensor orthonormal(const at::Tensor& tall) {
  return std::get<0>(at::linalg_qr(tall, "reduced"));
}

}  // namespace

void use_one_thread() {
  at::set_num_threads(1);
}

void low_rank_factors(std::span<const float> matrix, uint64_t rows, uint64_t columns, uint32_t rank, uint64_t set_size,
                      uint64_t seed, LowRankFactors into) {
  const at::InferenceMode no_gradients;
  const auto m = static_cast<int64_t>(rows);
  const auto n = static_cast<int64_t>(columns);
  const int64_t kept = std::min({static_cast<int64_t>(rank), m, n});
  const int64_t directions = std::min({static_cast<int64_t>(set_size) + kOversampling, m, n});
  // from_blob wants a mutable pointer; nothing below writes through it.
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
  const at::Tensor e = at::from_blob(const_cast<float*>(matrix.data()), {m, n}, at::kFloat);

  const at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  at::Tensor q = orthonormal(at::matmul(e, at::randn({n, directions}, random, at::kFloat)));
  for (int i = 0; i < kIterations; ++i) {
    q = orthonormal(at::matmul(e.t(), q));
    q = orthonormal(at::matmul(e, q));
  }
  // e ~ q (q^T e) = q (r^T p^T), with p r the QR of (q^T e)^T: the small square r^T is all that needs a real SVD.
  const auto [p, r] = at::linalg_qr(at::matmul(e.t(), q), "reduced");
  const auto [u, s, vh] = at::linalg_svd(r.t(), false);
  // All of the set, whatever is kept of it: a product of another width is rounded in another order.
  at::Tensor left = at::matmul(q, u);                                          // [m, directions]
  at::Tensor right = at::matmul(vh, p.t());                                    // [directions, n]
  const at::Tensor largest = at::gather(left, 0, left.abs().argmax(0, true));  // [1, directions]
  const at::Tensor scale = at::where(largest < 0, -1.0F, 1.0F) * s.sqrt().unsqueeze(0);
  left = (left * scale).narrow(1, 0, kept);
  right = (right * scale.t()).narrow(0, 0, kept);

  std::ranges::fill(into.a, 0.0F);
  std::ranges::fill(into.b, 0.0F);
  at::from_blob(into.a.data(), {static_cast<int64_t>(rank), n}, at::kFloat).narrow(0, 0, kept).copy_(right);
  at::from_blob(into.b.data(), {m, static_cast<int64_t>(rank)}, at::kFloat).narrow(1, 0, kept).copy_(left);
}

}  // namespace qcache
