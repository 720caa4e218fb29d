#include "core/model/strided_read.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/base/page_buffer.h"

namespace qcache {
namespace {

constexpr uint64_t kMaxPieceBytes = uint64_t{256} << 10;
// Reading what lies between two runs costs less than another call, up to about here.
constexpr uint64_t kCloseBytes = 4096;

/// One dimension of a part of the tensor: how many elements, how far apart in the file and in the output.
struct Dimension {
  uint64_t extent = 1;
  uint64_t file_stride = 0;  // all in bytes from here on
  uint64_t out_stride = 0;
};

/// Gathers parts of one tensor. Keeps the last piece read, so that neighbouring runs share it.
class Gatherer {
 public:
  Gatherer(const TensorInfo& tensor, std::span<std::byte> out, const ReadBytes& read)
      : item_(item_bytes(tensor.dtype)), out_(out), read_(read) {
    uint64_t inner = item_;
    dimensions_.resize(tensor.shape.size());
    for (size_t i = dimensions_.size(); i-- > 0;) {
      dimensions_[i] = {tensor.shape[i], tensor.strides[i] * item_, inner};
      inner *= tensor.shape[i];
    }
  }

  // The bytes [begin, end) of the part of the tensor that has dimensions `depth` and on: the whole rows in the middle
  // as one box, the broken ones at its ends by themselves. `file` is where the part begins, `out` where `begin` goes.
  Status gather(size_t depth, uint64_t begin, uint64_t end, uint64_t file, uint64_t out) {
    if (begin == end) {
      return {};
    }
    const uint64_t row = dimensions_[depth].out_stride;
    const uint64_t stride = dimensions_[depth].file_stride;
    const uint64_t first = begin / row;
    const uint64_t last = end / row;
    if (first == last) {
      return gather(depth + 1, begin % row, end % row, file + first * stride, out);
    }
    uint64_t whole = first;
    if (begin % row != 0) {
      QCACHE_TRY(gather(depth + 1, begin % row, row, file + first * stride, out));
      out += row - begin % row;
      ++whole;
    }
    if (whole < last) {
      std::vector<Dimension> box(dimensions_.begin() + static_cast<ptrdiff_t>(depth), dimensions_.end());
      box.front().extent = last - whole;
      QCACHE_TRY(gather_box(std::move(box), file + whole * stride, out));
      out += (last - whole) * row;
    }
    return gather(depth + 1, 0, end % row, file + last * stride, out);
  }

 private:
  // All elements of the box, in the order of the file: the dimension with the least stride is the innermost.
  Status gather_box(std::vector<Dimension> box, uint64_t file, uint64_t out) {
    box.erase(std::remove_if(box.begin(), box.end(), [](const Dimension& d) { return d.extent == 1; }), box.end());
    if (box.empty()) {
      return run(Dimension{}, file, out);
    }
    std::stable_sort(box.begin(), box.end(),
                     [](const Dimension& a, const Dimension& b) { return a.file_stride > b.file_stride; });
    const Dimension inner = box.back();
    box.pop_back();
    close_ = !box.empty() && box.back().file_stride <= kCloseBytes;
    box_end_ = file + inner.file_stride * (inner.extent - 1) + item_;
    for (const Dimension& dimension : box) {
      box_end_ += dimension.file_stride * (dimension.extent - 1);
    }
    std::vector<uint64_t> index(box.size(), 0);
    for (;;) {
      QCACHE_TRY(run(inner, file, out));
      size_t d = box.size();
      while (d > 0 && ++index[d - 1] == box[d - 1].extent) {
        --d;
        file -= box[d].file_stride * (box[d].extent - 1);
        out -= box[d].out_stride * (box[d].extent - 1);
        index[d] = 0;
      }
      if (d == 0) {
        return {};
      }
      file += box[d - 1].file_stride;
      out += box[d - 1].out_stride;
    }
  }

  // The elements of one dimension, in pieces.
  Status run(const Dimension& dimension, uint64_t file, uint64_t out) {
    const uint64_t per_piece =
        dimension.file_stride == 0 ? dimension.extent : (kMaxPieceBytes - item_) / dimension.file_stride + 1;
    for (uint64_t done = 0; done < dimension.extent;) {
      const uint64_t count = std::min(per_piece, dimension.extent - done);
      const std::byte* from = nullptr;
      QCACHE_TRY(piece(file + done * dimension.file_stride, dimension.file_stride * (count - 1) + item_, from));
      std::byte* to = out_.data() + out + done * dimension.out_stride;
      if (dimension.file_stride == item_ && dimension.out_stride == item_) {
        std::memcpy(to, from, count * item_);
      } else {
        copy_items(to, dimension.out_stride, from, dimension.file_stride, count);
      }
      done += count;
    }
    return {};
  }

  void copy_items(std::byte* to, uint64_t to_stride, const std::byte* from, uint64_t from_stride,
                  uint64_t count) const {
    const auto copy = [&](auto size) {
      for (uint64_t i = 0; i < count; ++i) {
        std::memcpy(to + i * to_stride, from + i * from_stride, size);
      }
    };
    switch (item_) {  // a constant size makes a move of each memcpy
      case 1:
        return copy(std::integral_constant<size_t, 1>());
      case 2:
        return copy(std::integral_constant<size_t, 2>());
      case 4:
        return copy(std::integral_constant<size_t, 4>());
      default:
        return copy(std::integral_constant<size_t, 8>());
    }
  }

  // `from` is where the bytes [position, position + size) are in memory. size <= kMaxPieceBytes.
  Status piece(uint64_t position, uint64_t size, const std::byte*& from) {
    if (position < piece_position_ || position + size > piece_position_ + piece_.size()) {
      uint64_t wanted = size;
      if (close_ && position + size <= box_end_) {
        wanted = std::min(kMaxPieceBytes, box_end_ - position);
      }
      piece_.resize(wanted);
      piece_position_ = position;
      QCACHE_TRY(read_(position, piece_));
    }
    from = piece_.data() + (position - piece_position_);
    return {};
  }

  const uint64_t item_;
  const std::span<std::byte> out_;
  const ReadBytes& read_;
  std::vector<Dimension> dimensions_;
  PageBuffer piece_;
  uint64_t piece_position_ = 0;
  bool close_ = false;    // whether the runs of the current box lie close together
  uint64_t box_end_ = 0;  // after its last byte in the file
};

}  // namespace

Status read_strided(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out, const ReadBytes& read) {
  return Gatherer(tensor, out, read).gather(0, offset, offset + out.size(), tensor.data.offset, 0);
}

}  // namespace qcache
