#include "core/model/encodings.h"
#include "core/model/strided_read.h"

namespace qcache {
namespace {

class Plain final : public SourceEncoding {
 public:
  [[nodiscard]] std::string_view name() const override { return "plain"; }

  [[nodiscard]] Status recognize(const ModelFacts& /*facts*/, std::vector<TensorInfo>& /*tensors*/) const override {
    return {};  // it is what headers describe
  }

  [[nodiscard]] Status read(const TensorInfo& tensor, uint64_t offset, std::span<std::byte> out,
                            const ReadFile& read) const override {
    if (tensor.strides.empty()) {
      return read(tensor.file, tensor.data.offset + offset, out);
    }
    return read_strided(tensor, offset, out, [&](uint64_t position, std::span<std::byte> part) {
      return read(tensor.file, position, part);
    });
  }
};

}  // namespace

/// Values as they are, in the dtype that the header names, perhaps with strides.
const SourceEncoding& encoding_plain() {
  static const Plain encoding;
  return encoding;
}

}  // namespace qcache
