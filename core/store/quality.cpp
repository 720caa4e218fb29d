#include "core/store/quality.h"

#include <cmath>
#include <cstring>

namespace qcache {
namespace {

void append(std::vector<uint8_t>& out, const void* data, size_t size) {
  const auto* const bytes = static_cast<const uint8_t*>(data);
  out.insert(out.end(), bytes, bytes + size);
}

/// Takes bytes from the front of a text, and remembers whether there were too few.
class Taker {
 public:
  explicit Taker(std::span<const uint8_t> bytes) : rest_(bytes) {}

  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }

  std::span<const uint8_t> take(size_t size) {
    good_ = good_ && size <= rest_.size();
    const auto taken = rest_.first(good_ ? size : 0);
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  template <typename Value>
  void take_into(Value& value) {
    if (const auto bytes = take(sizeof(value)); bytes.size() == sizeof(value)) {
      std::memcpy(&value, bytes.data(), sizeof(value));
    }
  }

 private:
  std::span<const uint8_t> rest_;
  bool good_ = true;
};

}  // namespace

std::optional<double> TensorQuality::sqnr_db() const {
  const double db = 10 * std::log10(signal / noise);
  return std::isfinite(db) ? std::optional(db) : std::nullopt;
}

std::vector<uint8_t> encode_quality(const Sha256Digest& contents, std::span<const TensorQuality> tensors) {
  std::vector<uint8_t> out(contents.begin(), contents.end());
  for (const TensorQuality& tensor : tensors) {
    const auto name_bytes = static_cast<uint32_t>(tensor.module.size());
    append(out, &tensor.signal, sizeof(tensor.signal));
    append(out, &tensor.noise, sizeof(tensor.noise));
    append(out, &tensor.elements, sizeof(tensor.elements));
    append(out, &name_bytes, sizeof(name_bytes));
    append(out, tensor.module.data(), name_bytes);
  }
  return out;
}

Result<std::vector<TensorQuality>> decode_quality(const Sha256Digest& contents, std::span<const uint8_t> bytes) {
  Taker taker(bytes);
  Sha256Digest of{};
  taker.take_into(of);
  std::vector<TensorQuality> tensors;
  if (taker.good() && of != contents) {
    return tensors;
  }
  while (taker.good() && !taker.at_end()) {
    TensorQuality& tensor = tensors.emplace_back();
    uint32_t name_bytes = 0;
    taker.take_into(tensor.signal);
    taker.take_into(tensor.noise);
    taker.take_into(tensor.elements);
    taker.take_into(name_bytes);
    const auto name = taker.take(name_bytes);
    tensor.module.assign(name.begin(), name.end());
  }
  if (!taker.good()) {
    return fail(ErrorKind::kCorrupt, "the quality figures of a cached file are damaged in the catalog");
  }
  return tensors;
}

}  // namespace qcache
