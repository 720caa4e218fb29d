#include "core/model/strided_read.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tests/support/result_matchers.h"

namespace qcache {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(size_t count, std::mt19937_64& random) {
  Bytes bytes(count);
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

/// The whole tensor, element by element.
Bytes gathered(const Bytes& file, const TensorInfo& tensor) {
  const uint64_t item = item_bytes(tensor.dtype);
  Bytes out;
  for (uint64_t i = 0; i < tensor.element_count(); ++i) {
    uint64_t position = tensor.data.offset;
    uint64_t rest = i;
    for (size_t d = tensor.shape.size(); d-- > 0; rest /= tensor.shape[d]) {
      position += rest % tensor.shape[d] * tensor.strides[d] * item;
    }
    out.insert(out.end(), file.begin() + static_cast<ptrdiff_t>(position),
               file.begin() + static_cast<ptrdiff_t>(position + item));
  }
  return out;
}

struct Reads {
  uint64_t count = 0;
  uint64_t bytes = 0;
  uint64_t largest = 0;
};

Bytes read(const Bytes& file, const TensorInfo& tensor, uint64_t offset, uint64_t size, Reads& reads) {
  Bytes out(size);
  const Status status = read_strided(tensor, offset, out, [&](uint64_t position, std::span<std::byte> part) -> Status {
    if (position > file.size() || part.size() > file.size() - position) {
      return fail(ErrorKind::kIo, "outside the file");
    }
    std::copy_n(file.begin() + static_cast<ptrdiff_t>(position), part.size(), part.begin());
    ++reads.count;
    reads.bytes += part.size();
    reads.largest = std::max<uint64_t>(reads.largest, part.size());
    return {};
  });
  EXPECT_THAT(status, is_ok());
  return out;
}

TensorInfo tensor_of(DType dtype, Shape shape, std::vector<uint64_t> strides, uint64_t offset = 0) {
  TensorInfo tensor{"t", dtype, std::move(shape), 0, {offset, 0}, std::move(strides)};
  tensor.data.size = tensor.element_count() * item_bytes(dtype);
  return tensor;
}

TEST(StridedRead, AnyRangeOfAnyViewIsThatOfTheGatheredTensor) {
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t end) { return random() % end; };
  constexpr std::array kDTypes = {DType::kU8, DType::kBF16, DType::kF32, DType::kF64};
  for (int round = 0; round < 300; ++round) {
    // Dimensions in a random order of the file, some with gaps, some expanded.
    const size_t rank = 1 + below(5);
    Shape shape(rank);
    std::vector<uint64_t> strides(rank);
    std::vector<size_t> order(rank);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), random);
    uint64_t elements = 1;
    for (const size_t d : order) {
      shape[d] = 1 + below(rank == 1 ? 4000 : 9);
      strides[d] = below(8) == 0 ? 0 : elements * (1 + below(3));
      elements = std::max(elements, strides[d] * shape[d]);
    }
    const TensorInfo tensor = tensor_of(kDTypes[below(kDTypes.size())], shape, strides, below(64));
    const uint64_t item = item_bytes(tensor.dtype);
    // As long as its last element needs, so that a read beyond it is found out.
    uint64_t end = item;
    for (size_t d = 0; d < rank; ++d) {
      end += (shape[d] - 1) * strides[d] * item;
    }
    const Bytes file = random_bytes(tensor.data.offset + end, random);
    const Bytes whole = gathered(file, tensor);
    Reads reads;
    EXPECT_EQ(read(file, tensor, 0, whole.size(), reads), whole);
    for (int part = 0; part < 5; ++part) {
      const uint64_t first = below(tensor.element_count());
      const uint64_t count = below(tensor.element_count() - first + 1);
      const auto begin = whole.begin() + static_cast<ptrdiff_t>(first * item);
      EXPECT_EQ(read(file, tensor, first * item, count * item, reads),
                Bytes(begin, begin + static_cast<ptrdiff_t>(count * item)));
    }
  }
}

TEST(StridedRead, MemoryIsBoundedAndNoByteIsReadManyTimes) {
  std::mt19937_64 random(8);
  struct Case {
    const char* what = "";
    TensorInfo tensor;
    uint64_t rows = 0;  ///< to be read at a time
    uint64_t most_reads = 0;
    uint64_t most_bytes = 0;
  };
  const uint64_t large = uint64_t{2048} * 1024 * 2;
  for (const auto& [what, tensor, rows, most_reads, most_bytes] : std::initializer_list<Case>{
           {"transposed, rows close", tensor_of(DType::kBF16, {1024, 2048}, {1, 1024}), 1024, 20, large + 8192},
           {"transposed, rows far", tensor_of(DType::kBF16, {4096, 512}, {1, 4096}), 64, 512, 64 * 512 * 2},
           {"columns", tensor_of(DType::kBF16, {1024, 1024}, {2048, 1}), 1024, 20, large},
           {"far columns", tensor_of(DType::kBF16, {256, 1024}, {8192, 1}), 256, 256, 256 * 1024 * 2},
           {"every second", tensor_of(DType::kF32, {100'000}, {2}), 100'000, 5, 800'000},
           {"expanded", tensor_of(DType::kF32, {100'000}, {0}), 100'000, 1, 4},
       }) {
    const uint64_t item = item_bytes(tensor.dtype);
    uint64_t end = item;
    for (size_t d = 0; d < tensor.shape.size(); ++d) {
      end += (tensor.shape[d] - 1) * tensor.strides[d] * item;
    }
    const Bytes file = random_bytes(end, random);
    const Bytes whole = gathered(file, tensor);
    const uint64_t size = whole.size() / tensor.shape[0] * rows;
    Reads reads;
    EXPECT_EQ(read(file, tensor, 0, size, reads), Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)));
    EXPECT_LE(reads.largest, 256U << 10) << what;
    EXPECT_LE(reads.count, most_reads) << what;
    EXPECT_LE(reads.bytes, most_bytes) << what;
  }
}

TEST(StridedRead, AFailedReadFails) {
  const TensorInfo tensor = tensor_of(DType::kF32, {4, 4}, {1, 4});
  Bytes out(64);
  EXPECT_THAT(read_strided(tensor, 0, out, [](uint64_t, std::span<std::byte>) { return fail(ErrorKind::kIo, "disk"); }),
              fails_with(ErrorKind::kIo, {"disk"}));
}

}  // namespace
}  // namespace qcache
