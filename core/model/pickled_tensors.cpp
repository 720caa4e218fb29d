#include "core/model/pickled_tensors.h"

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "core/model/text.h"

namespace qcache {
namespace {

constexpr size_t kMaxRank = 64;  // torch's own limit
constexpr size_t kMaxNameBytes = size_t{64} << 10;
constexpr size_t kMaxExtents = size_t{4} << 20;  // of all tensors together; a pickle may give one shape to many

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

struct StorageType {
  std::string_view name;
  DType dtype;
};
constexpr std::array kStorageTypes = {
    StorageType{"DoubleStorage", DType::kF64},       StorageType{"FloatStorage", DType::kF32},
    StorageType{"HalfStorage", DType::kF16},         StorageType{"BFloat16Storage", DType::kBF16},
    StorageType{"LongStorage", DType::kI64},         StorageType{"IntStorage", DType::kI32},
    StorageType{"ShortStorage", DType::kI16},        StorageType{"CharStorage", DType::kI8},
    StorageType{"ByteStorage", DType::kU8},          StorageType{"BoolStorage", DType::kBool},
    StorageType{"ComplexFloatStorage", DType::kC64}, StorageType{"ComplexDoubleStorage", DType::kC128},
};

/// A call that a pickle describes: what, and with which arguments.
struct Call {
  PickleRef callable = 0;
  PickleRef arguments = 0;
};

/// Reads the values of one graph as torch's functions would take them.
class TensorReader {
 public:
  explicit TensorReader(const PickleGraph& graph) : graph_(graph) {}

  Result<std::vector<PickledTensor>> read();

 private:
  using Kind = PickleKind;
  using Refs = std::span<const PickleRef>;

  [[nodiscard]] bool is_global(PickleRef ref, std::string_view module, std::string_view name) const {
    return graph_.kind(ref) == Kind::kGlobal && graph_.module(ref) == module && graph_.text(ref) == name;
  }
  [[nodiscard]] Refs tuple(PickleRef ref) const {
    return graph_.kind(ref) == Kind::kTuple ? graph_.items(ref) : Refs();
  }
  [[nodiscard]] std::optional<uint64_t> unsigned_number(PickleRef ref) const {
    return graph_.kind(ref) == Kind::kInt && graph_.number(ref) >= 0
               ? std::optional(static_cast<uint64_t>(graph_.number(ref)))
               : std::nullopt;
  }
  [[nodiscard]] std::optional<Call> rebuild_call(PickleRef value) const;
  [[nodiscard]] bool may_be_tensor(const Call& call) const;
  [[nodiscard]] bool holds_tensors(PickleRef dict) const;
  [[nodiscard]] PickleRef state_dict() const;
  [[nodiscard]] std::string callable_name(PickleRef callable) const;
  Result<PickledTensor> tensor(std::string_view name, const Call& call);
  [[nodiscard]] Status check_plain(Refs arguments, size_t known, std::string_view name) const;
  Status read_dtype(PickledTensor& tensor, Refs arguments, bool has_dtype) const;
  Result<std::vector<uint64_t>> extents(PickleRef ref, std::string_view what, std::string_view name);

  const PickleGraph& graph_;
  size_t extents_ = 0;
};

// The call that makes the tensor inside parameters and tensors with attributes; none where the value is no call.
std::optional<Call> TensorReader::rebuild_call(PickleRef value) const {
  constexpr int kMaxWraps = 8;
  std::optional<Call> call;
  for (int i = 0; i < kMaxWraps; ++i) {
    if (!call) {
      if (graph_.kind(value) != Kind::kCall) {
        return std::nullopt;
      }
      call = Call{graph_.callable(value), graph_.argument(value)};
    }
    const Refs arguments = tuple(call->arguments);
    if (!arguments.empty() && (is_global(call->callable, "torch._utils", "_rebuild_parameter") ||
                               is_global(call->callable, "torch._utils", "_rebuild_parameter_with_state"))) {
      value = arguments[0];
      call.reset();
    } else if (arguments.size() >= 3 && is_global(call->callable, "torch._tensor", "_rebuild_from_type_v2") &&
               (is_global(arguments[1], "torch", "Tensor") ||
                is_global(arguments[1], "torch.nn.parameter", "Parameter"))) {
      call = Call{arguments[0], arguments[2]};
    } else {
      break;
    }
  }
  return call;
}

// What torch itself makes tensors with, known to us or not: such a value must not be left out silently.
bool TensorReader::may_be_tensor(const Call& call) const {
  if (graph_.kind(call.callable) != Kind::kGlobal || !graph_.module(call.callable).starts_with("torch")) {
    return false;
  }
  const std::string_view name = graph_.text(call.callable);
  return name.starts_with("_rebuild") || name.ends_with("Tensor") || name.ends_with("Parameter");
}

bool TensorReader::holds_tensors(PickleRef dict) const {
  const Refs items = graph_.items(dict);
  for (size_t i = 1; i < items.size(); i += 2) {
    const auto call = rebuild_call(items[i]);
    if (call && may_be_tensor(*call)) {
      return true;
    }
  }
  return false;
}

PickleRef TensorReader::state_dict() const {
  const Refs items = graph_.items(graph_.root());
  for (const std::string_view wrapper : {"state_dict", "model"}) {
    for (size_t i = items.size(); i >= 2; i -= 2) {  // of equal keys the last one counts
      const PickleRef key = items[i - 2];
      if (graph_.kind(key) != Kind::kText || graph_.text(key) != wrapper) {
        continue;
      }
      if (graph_.kind(items[i - 1]) == Kind::kDict && holds_tensors(items[i - 1])) {
        return items[i - 1];
      }
      break;
    }
  }
  return graph_.root();
}

std::string TensorReader::callable_name(PickleRef callable) const {
  return graph_.kind(callable) == Kind::kGlobal
             ? in_quotes(std::string(graph_.module(callable)) + '.' + std::string(graph_.text(callable)))
             : "something that is no function";
}

Result<std::vector<PickledTensor>> TensorReader::read() {
  if (graph_.kind(graph_.root()) != Kind::kDict) {
    const bool object = graph_.kind(graph_.root()) == Kind::kCall;
    return invalid(object ? fmt::format("the checkpoint is a whole object made by {}, which qcache does not run: save "
                                        "its state_dict() instead",
                                        callable_name(graph_.callable(graph_.root())))
                          : "the checkpoint is not a dictionary of tensors: save a state_dict()");
  }
  std::vector<PickledTensor> tensors;
  std::unordered_map<std::string_view, size_t> names;
  const Refs items = graph_.items(state_dict());
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const auto call = rebuild_call(items[i + 1]);
    if (graph_.kind(items[i]) != Kind::kText || !call || !may_be_tensor(*call)) {
      continue;
    }
    const std::string_view name = graph_.text(items[i]);
    if (name.size() > kMaxNameBytes || !is_utf8(name)) {
      return invalid(fmt::format("tensor {} has a name that is not UTF-8 or longer than 64 KiB", in_quotes(name)));
    }
    QCACHE_TRY_ASSIGN(PickledTensor tensor, this->tensor(name, *call));
    if (const auto [first, is_new] = names.try_emplace(name, tensors.size()); !is_new) {
      if (tensors[first->second] != tensor) {
        return invalid(fmt::format("tensor {} is in the checkpoint twice", in_quotes(name)));
      }
      continue;
    }
    tensors.push_back(std::move(tensor));
  }
  if (tensors.empty()) {
    return invalid("the checkpoint's dictionary holds no tensors: save a state_dict()");
  }
  return tensors;
}

Result<PickledTensor> TensorReader::tensor(std::string_view name, const Call& call) {
  const bool v1 = is_global(call.callable, "torch._utils", "_rebuild_tensor");
  const bool v2 = is_global(call.callable, "torch._utils", "_rebuild_tensor_v2");
  const bool v3 = is_global(call.callable, "torch._utils", "_rebuild_tensor_v3");
  if (!v1 && !v2 && !v3) {
    return invalid(
        fmt::format("tensor {} is made by {}: qcache reads plain tensors only, none that are quantized, "
                    "sparse or of another class",
                    in_quotes(name), callable_name(call.callable)));
  }
  const Refs arguments = tuple(call.arguments);
  const size_t known = v1 ? 4 : v2 ? 6 : 7;
  if (arguments.size() < known || graph_.kind(arguments[0]) != Kind::kPersistent) {
    return invalid(fmt::format("tensor {} lacks its storage, place, shape or dtype", in_quotes(name)));
  }
  QCACHE_TRY(check_plain(arguments, known, name));
  PickledTensor tensor;
  tensor.name = name;
  auto storage = pickled_storage(graph_, arguments[0]);
  if (!storage) {
    return fail(storage.error().with_context("tensor " + in_quotes(name)));
  }
  tensor.storage = *storage;
  QCACHE_TRY(read_dtype(tensor, arguments, v3));
  const auto offset = unsigned_number(arguments[1]);
  if (!offset) {
    return invalid(fmt::format("tensor {} does not begin at a number of elements", in_quotes(name)));
  }
  tensor.offset = *offset;
  QCACHE_TRY_ASSIGN(tensor.shape, extents(arguments[2], "shape", name));
  QCACHE_TRY_ASSIGN(tensor.strides, extents(arguments[3], "strides", name));
  if (tensor.shape.size() != tensor.strides.size()) {
    return invalid(fmt::format("tensor {} has {} extents, but {} strides", in_quotes(name), tensor.shape.size(),
                               tensor.strides.size()));
  }
  return tensor;
}

// Arguments beyond the known ones are flags: a tensor may be stored negated or conjugated.
Status TensorReader::check_plain(Refs arguments, size_t known, std::string_view name) const {
  for (const PickleRef extra : arguments.subspan(known)) {
    const bool none = graph_.kind(extra) == Kind::kNone;
    const bool empty = graph_.kind(extra) == Kind::kDict && graph_.items(extra).empty();
    if (!none && !empty) {
      return invalid(
          fmt::format("tensor {} is stored with flags such as 'neg', which qcache does not know: clone() it "
                      "before it is saved",
                      in_quotes(name)));
    }
  }
  return {};
}

Status TensorReader::read_dtype(PickledTensor& tensor, Refs arguments, bool has_dtype) const {
  std::optional<DType> dtype = tensor.storage.dtype;
  std::string_view name = tensor.storage.type;
  if (has_dtype) {
    constexpr size_t kPosition = 6;
    const PickleRef given = arguments[kPosition];
    const bool named = graph_.kind(given) == Kind::kGlobal && graph_.module(given) == "torch";
    name = named ? graph_.text(given) : "unnamed";
    dtype = named ? dtype_from_torch(name) : std::nullopt;
  }
  if (!dtype) {
    return invalid(
        fmt::format("tensor {} has the dtype {}, which qcache does not know", in_quotes(tensor.name), in_quotes(name)));
  }
  tensor.dtype = *dtype;
  return {};
}

Result<std::vector<uint64_t>> TensorReader::extents(PickleRef ref, std::string_view what, std::string_view name) {
  // torch.Size(...) in some old files.
  if (graph_.kind(ref) == Kind::kCall && is_global(graph_.callable(ref), "torch", "Size")) {
    const Refs arguments = tuple(graph_.argument(ref));
    ref = arguments.size() == 1 ? arguments[0] : ref;
  }
  if (graph_.kind(ref) != Kind::kTuple) {
    return invalid(fmt::format("the {} of tensor {} are not non-negative integers", what, in_quotes(name)));
  }
  const Refs numbers = graph_.items(ref);
  extents_ += numbers.size();
  if (numbers.size() > kMaxRank || extents_ > kMaxExtents) {
    return invalid(fmt::format("the {} of tensor {} have more than {} numbers, or those of all tensors more than {}",
                               what, in_quotes(name), kMaxRank, kMaxExtents));
  }
  std::vector<uint64_t> out;
  out.reserve(numbers.size());
  for (const PickleRef number : numbers) {
    const auto value = unsigned_number(number);
    if (!value) {
      return invalid(fmt::format("the {} of tensor {} are not non-negative integers", what, in_quotes(name)));
    }
    out.push_back(*value);
  }
  return out;
}

}  // namespace

// ('storage', torch.FloatStorage, key, device, items), and in legacy files a view that is always None.
Result<PickledStorage> pickled_storage(const PickleGraph& graph, PickleRef persistent) {
  const PickleRef id = graph.argument(persistent);
  const auto parts = graph.kind(id) == PickleKind::kTuple ? graph.items(id) : std::span<const PickleRef>();
  if (parts.size() < 5 || graph.kind(parts[0]) != PickleKind::kText || graph.text(parts[0]) != "storage" ||
      graph.kind(parts[1]) != PickleKind::kGlobal || graph.kind(parts[2]) != PickleKind::kText ||
      graph.kind(parts[4]) != PickleKind::kInt || graph.number(parts[4]) < 0) {
    return invalid("the checkpoint names a storage in a way that qcache does not know");
  }
  if (parts.size() > 6 || (parts.size() == 6 && graph.kind(parts[5]) != PickleKind::kNone)) {
    return invalid(
        "the checkpoint has storages that are parts of others, as very old torch wrote them: load it in "
        "torch and save it again");
  }
  PickledStorage storage;
  storage.key = graph.text(parts[2]);
  storage.type = graph.text(parts[1]);
  storage.items = static_cast<uint64_t>(graph.number(parts[4]));
  const auto* const known = std::find_if(kStorageTypes.begin(), kStorageTypes.end(),
                                         [&](const StorageType& type) { return type.name == storage.type; });
  if (known != kStorageTypes.end()) {
    storage.dtype = known->dtype;
  }
  return storage;
}

Result<std::vector<PickledTensor>> pickled_tensors(const PickleGraph& graph) {
  return TensorReader(graph).read();
}

}  // namespace qcache
