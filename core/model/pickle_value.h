#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qcache {

/// Names one value of a PickleGraph.
using PickleRef = uint32_t;

enum class PickleKind : uint8_t {
  kNone,
  kBool,        ///< number is 0 or 1
  kInt,         ///< number
  kText,        ///< text
  kTuple,       ///< items
  kList,        ///< items
  kDict,        ///< items: key, value, key, value, ... as they were set
  kGlobal,      ///< `module` and `text`, the name: a function or class. Never looked up
  kCall,        ///< callable and arguments: what the pickle says to call. Never called
  kPersistent,  ///< argument: what the file calls an object outside the pickle
  kOpaque,      ///< anything else, such as a float or an integer beyond 64 bits
};

/// What a pickle describes, as data: values that name each other by number, nothing looked up, imported or called.
/// Values may name themselves by way of others (a list that holds itself), so who follows references must bound how
/// far; building and destroying the graph never follows any. Movable. Immutable once read.
class PickleGraph {
 public:
  [[nodiscard]] PickleKind kind(PickleRef ref) const { return nodes_[ref].kind; }
  /// Of kBool and kInt.
  [[nodiscard]] int64_t number(PickleRef ref) const { return nodes_[ref].number; }
  /// Of kText; the name of kGlobal. Any bytes; valid as long as the graph.
  [[nodiscard]] std::string_view text(PickleRef ref) const;
  /// Of kGlobal.
  [[nodiscard]] std::string_view module(PickleRef ref) const;
  /// Of kTuple, kList and kDict.
  [[nodiscard]] std::span<const PickleRef> items(PickleRef ref) const;
  /// Of kCall.
  [[nodiscard]] PickleRef callable(PickleRef ref) const { return nodes_[ref].a; }
  /// Of kCall and kPersistent.
  [[nodiscard]] PickleRef argument(PickleRef ref) const { return nodes_[ref].b; }

  /// What the pickle stands for.
  [[nodiscard]] PickleRef root() const { return root_; }
  /// All kPersistent values, in the order of the pickle, referred to from the root or not.
  [[nodiscard]] const std::vector<PickleRef>& persistent() const { return persistent_; }

 private:
  friend class PickleMachine;

  /// Places of texts in bytes_ are 32 bits: pickles beyond 256 MiB are refused.
  struct Node {
    PickleKind kind = PickleKind::kNone;
    uint32_t a = 0;      ///< kText, kGlobal: bytes of the text; containers: where items are; kCall: callable
    uint32_t b = 0;      ///< kGlobal: bytes of the module; kTuple: how many items; kCall, kPersistent: argument
    int64_t number = 0;  ///< kText, kGlobal: place of the text; kGlobal: place of the module << 32
  };

  std::vector<char> bytes_;
  std::vector<Node> nodes_;
  std::vector<PickleRef> tuple_items_;
  std::vector<std::vector<PickleRef>> containers_;  // of lists and dicts, which grow
  std::vector<PickleRef> persistent_;
  PickleRef root_ = 0;
};

}  // namespace qcache
