#include "core/layout/torch_pickle.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <vector>

#include "core/base/checked.h"
#include "core/layout/little_endian.h"

namespace qcache {
namespace {

// Opcodes, named as in Python's pickletools.
constexpr char kProto = '\x80';
constexpr char kStop = '.';
constexpr char kMark = '(';
constexpr char kEmptyDict = '}';
constexpr char kSetItems = 'u';
constexpr char kEmptyTuple = ')';
constexpr char kTuple1 = '\x85';
constexpr char kTuple2 = '\x86';
constexpr char kTuple3 = '\x87';
constexpr char kTuple = 't';
constexpr char kBinUnicode = 'X';
constexpr char kBinInt1 = 'K';
constexpr char kBinInt2 = 'M';
constexpr char kBinInt = 'J';
constexpr char kLong1 = '\x8a';
constexpr char kNewFalse = '\x89';
constexpr char kGlobal = 'c';
constexpr char kReduce = 'R';
constexpr char kBinPersId = 'Q';

constexpr uint64_t kMaxInt = std::numeric_limits<int64_t>::max();

void append_text(std::string& out, std::string_view text) {
  out += kBinUnicode;
  append_le(out, static_cast<uint32_t>(text.size()));
  out += text;
}

void append_int(std::string& out, uint64_t value) {
  if (value <= std::numeric_limits<uint8_t>::max()) {
    out += kBinInt1;
    append_le(out, static_cast<uint8_t>(value));
  } else if (value <= std::numeric_limits<uint16_t>::max()) {
    out += kBinInt2;
    append_le(out, static_cast<uint16_t>(value));
  } else if (value <= static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
    out += kBinInt;
    append_le(out, static_cast<uint32_t>(value));
  } else {
    out += kLong1;
    out += '\x08';  // libtorch insists on eight bytes
    append_le(out, value);
  }
}

void append_int_tuple(std::string& out, std::span<const uint64_t> values) {
  constexpr char kEnds[] = {kEmptyTuple, kTuple1, kTuple2, kTuple3};
  const bool marked = values.size() >= std::size(kEnds);
  if (marked) {
    out += kMark;
  }
  for (const uint64_t value : values) {
    append_int(out, value);
  }
  out += marked ? kTuple : kEnds[values.size()];
}

void append_global(std::string& out, std::string_view module, std::string_view name) {
  out += kGlobal;
  out += module;
  out += '\n';
  out += name;
  out += '\n';
}

/// The class of typed storages for `dtype`; empty where torch has none that all versions load.
std::string_view typed_storage(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "DoubleStorage";
    case DType::kF32:
      return "FloatStorage";
    case DType::kF16:
      return "HalfStorage";
    case DType::kBF16:
      return "BFloat16Storage";
    case DType::kI64:
      return "LongStorage";
    case DType::kI32:
      return "IntStorage";
    case DType::kI16:
      return "ShortStorage";
    case DType::kI8:
      return "CharStorage";
    case DType::kU8:
      return "ByteStorage";
    case DType::kBool:
      return "BoolStorage";
    case DType::kC64:
      return "ComplexFloatStorage";
    case DType::kC128:
      return "ComplexDoubleStorage";
    case DType::kU64:
    case DType::kU32:
    case DType::kU16:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
    case DType::kF8E4M3Fnuz:
    case DType::kF8E5M2Fnuz:
    case DType::kF4:
    case DType::kF6E2M3:
    case DType::kF6E3M2:
    case DType::kC32:
      break;
  }
  return {};
}

/// Strides of a contiguous tensor in elements, extents of 0 counting as 1, as torch has it; nothing where an
/// extent or a stride exceeds 63 bits.
std::optional<std::vector<uint64_t>> contiguous_strides(std::span<const uint64_t> shape) {
  std::vector<uint64_t> strides(shape.size());
  std::optional<uint64_t> stride = 1;
  for (size_t i = shape.size(); i > 0; --i) {
    if (!stride || *stride > kMaxInt || shape[i - 1] > kMaxInt) {
      return std::nullopt;
    }
    strides[i - 1] = *stride;
    stride = checked_mul(*stride, std::max<uint64_t>(shape[i - 1], 1));
  }
  return strides;
}

}  // namespace

std::string_view pickle_begin() {
  static constexpr char kBegin[] = {kProto, '\x02', kEmptyDict, kMark};
  return {kBegin, std::size(kBegin)};
}

std::string_view pickle_end() {
  // SETITEMS even for one item: some versions of libtorch crash on SETITEM.
  static constexpr char kEnd[] = {kSetItems, kStop};
  return {kEnd, std::size(kEnd)};
}

bool append_pickled_tensor(std::string& pickle, uint64_t record, std::string_view name, DType dtype,
                           std::span<const uint64_t> shape, uint64_t storage_bytes) {
  const std::optional<std::vector<uint64_t>> strides = contiguous_strides(shape);
  if (!strides || storage_bytes > kMaxInt || name.size() > std::numeric_limits<uint32_t>::max()) {
    return false;
  }
  const std::string_view storage = typed_storage(dtype);
  const bool typed = !storage.empty();

  append_text(pickle, name);
  append_global(pickle, "torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  pickle += kMark;
  {
    pickle += kMark;
    append_text(pickle, "storage");
    append_global(pickle, typed ? "torch" : "torch.storage", typed ? storage : "UntypedStorage");
    append_text(pickle, std::to_string(record));
    append_text(pickle, "cpu");
    append_int(pickle, typed ? storage_bytes / item_bytes(dtype) : storage_bytes);
    pickle += kTuple;
    pickle += kBinPersId;
  }
  append_int(pickle, 0);  // offset in the storage
  append_int_tuple(pickle, shape);
  append_int_tuple(pickle, *strides);
  pickle += kNewFalse;                                  // requires_grad
  append_global(pickle, "collections", "OrderedDict");  // backward hooks: none
  pickle += kEmptyTuple;
  pickle += kReduce;
  if (!typed) {
    append_global(pickle, "torch", torch_name(dtype));
  }
  pickle += kTuple;
  pickle += kReduce;
  return true;
}

}  // namespace qcache
