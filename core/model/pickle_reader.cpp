// The opcodes are those of Python's Lib/pickletools.py.

#include "core/model/pickle_reader.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace qcache {
namespace {

constexpr uint64_t kMaxPickleBytes = uint64_t{256} << 20;
constexpr uint64_t kChunkBytes = uint64_t{256} << 10;
constexpr size_t kMaxValues = size_t{4} << 20;
constexpr size_t kMaxMemo = kMaxValues;
constexpr size_t kMaxMarks = 10'000;
constexpr uint8_t kMaxProtocol = 5;

tl::unexpected<Error> invalid(std::string message) {
  return fail(ErrorKind::kInvalidModel, std::move(message));
}

/// Places in a PickleGraph's bytes.
struct Text {
  uint32_t offset = 0;
  uint32_t size = 0;
};

}  // namespace

std::string_view PickleGraph::text(PickleRef ref) const {
  const Node& node = nodes_[ref];
  return {bytes_.data() + static_cast<uint32_t>(node.number), node.a};
}

std::string_view PickleGraph::module(PickleRef ref) const {
  const Node& node = nodes_[ref];
  return {bytes_.data() + (static_cast<uint64_t>(node.number) >> 32), node.b};
}

std::span<const PickleRef> PickleGraph::items(PickleRef ref) const {
  const Node& node = nodes_[ref];
  if (node.kind == PickleKind::kTuple) {
    return std::span(tuple_items_).subspan(node.a, node.b);
  }
  return containers_[node.a];
}

/// Reads one pickle; run() is called once. The bytes are fetched in pieces as they are needed, since a legacy
/// checkpoint does not say how long its pickles are.
class PickleMachine {
 public:
  PickleMachine(ByteSource& source, uint64_t offset, uint64_t end) : source_(source), offset_(offset), end_(end) {}

  Result<Pickle> run();

 private:
  using Kind = PickleKind;
  using Node = PickleGraph::Node;

  // Input. A text or number handed out is inside bytes_.
  Status need(uint64_t count);
  Result<uint64_t> number(size_t width);
  Result<Text> text(uint64_t size);
  Result<Text> line();
  [[nodiscard]] std::string_view view(Text text) const { return {graph_.bytes_.data() + text.offset, text.size}; }

  // Stack.
  Status push(PickleRef ref);
  Status push(const Node& node);
  Status push_text(size_t width);
  Status push_bytes(size_t width);
  Result<PickleRef> pop();
  Result<std::vector<PickleRef>> pop_to_mark();
  Result<std::vector<PickleRef>> pop_many(size_t count);
  [[nodiscard]] size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  Status step(uint8_t opcode);
  Status step_container(uint8_t opcode);
  Status step_object(uint8_t opcode);
  Status step_memo(uint8_t opcode);
  Status push_tuple(const std::vector<PickleRef>& items);
  Status push_container(Kind kind, std::vector<PickleRef> items);
  Status extend(Kind kind, const std::vector<PickleRef>& items);
  Status push_integer(uint64_t bytes);
  Status push_global();
  Status push_named_global();
  Status push_call(PickleRef callable, PickleRef arguments);
  Status remember(uint64_t slot);
  Status recall(uint64_t slot);

  ByteSource& source_;
  const uint64_t offset_;
  const uint64_t end_;
  PickleGraph graph_;
  size_t position_ = 0;  // in graph_.bytes_
  size_t pushes_ = 0;
  std::vector<PickleRef> stack_;
  std::vector<size_t> marks_;  // stack heights
  std::vector<std::optional<PickleRef>> memo_;
  size_t memo_used_ = 0;
};

Status PickleMachine::need(uint64_t count) {
  std::vector<char>& bytes = graph_.bytes_;
  if (count <= bytes.size() - position_) {
    return {};
  }
  const uint64_t left = end_ - offset_ - bytes.size();
  const uint64_t wanted = count - (bytes.size() - position_);
  if (wanted > left) {
    return invalid("the pickle ends in the middle: is the file complete?");
  }
  if (wanted > kMaxPickleBytes - bytes.size()) {
    return invalid(fmt::format("the pickle has more than the {} bytes that qcache reads", kMaxPickleBytes));
  }
  const uint64_t more = std::min({std::max(wanted, kChunkBytes), left, kMaxPickleBytes - bytes.size()});
  const size_t old_size = bytes.size();
  bytes.resize(old_size + more);
  return source_.read(offset_ + old_size, std::as_writable_bytes(std::span(bytes).subspan(old_size)));
}

Result<uint64_t> PickleMachine::number(size_t width) {
  QCACHE_TRY(need(width));
  uint64_t value = 0;
  for (size_t i = width; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(graph_.bytes_[position_ + i]);
  }
  position_ += width;
  return value;
}

Result<Text> PickleMachine::text(uint64_t size) {
  QCACHE_TRY(need(size));
  const Text text{static_cast<uint32_t>(position_), static_cast<uint32_t>(size)};
  position_ += size;
  return text;
}

Result<Text> PickleMachine::line() {
  constexpr uint64_t kMaxLine = 4096;
  for (uint64_t size = 0; size < kMaxLine; ++size) {
    QCACHE_TRY(need(size + 1));
    if (graph_.bytes_[position_ + size] == '\n') {
      QCACHE_TRY_ASSIGN(const Text text, this->text(size));
      ++position_;
      return text;
    }
  }
  return invalid("the pickle holds a name of more than 4096 bytes");
}

Status PickleMachine::push(PickleRef ref) {
  if (++pushes_ > kMaxValues) {
    return invalid(fmt::format("the pickle holds more than the {} values that qcache reads", kMaxValues));
  }
  stack_.push_back(ref);
  return {};
}

Status PickleMachine::push(const Node& node) {
  QCACHE_TRY(push(static_cast<PickleRef>(graph_.nodes_.size())));
  graph_.nodes_.push_back(node);
  return {};
}

Status PickleMachine::push_text(size_t width) {
  QCACHE_TRY_ASSIGN(const uint64_t size, number(width));
  QCACHE_TRY_ASSIGN(const Text text, this->text(size));
  return push(Node{Kind::kText, text.size, 0, text.offset});
}

Status PickleMachine::push_bytes(size_t width) {
  QCACHE_TRY_ASSIGN(const uint64_t size, number(width));
  QCACHE_TRY(text(size));
  return push(Node{Kind::kOpaque});
}

Result<PickleRef> PickleMachine::pop() {
  if (stack_.size() <= floor()) {
    return invalid("the pickle takes a value that is not there");
  }
  const PickleRef ref = stack_.back();
  stack_.pop_back();
  return ref;
}

Result<std::vector<PickleRef>> PickleMachine::pop_many(size_t count) {
  if (stack_.size() - floor() < count) {
    return invalid("the pickle takes a value that is not there");
  }
  std::vector<PickleRef> items(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
  return items;
}

Result<std::vector<PickleRef>> PickleMachine::pop_to_mark() {
  if (marks_.empty()) {
    return invalid("the pickle ends a group that was not started");
  }
  QCACHE_TRY_ASSIGN(auto items, pop_many(stack_.size() - marks_.back()));
  marks_.pop_back();
  return items;
}

Status PickleMachine::push_tuple(const std::vector<PickleRef>& items) {
  auto& all = graph_.tuple_items_;
  const auto first = static_cast<uint32_t>(all.size());
  all.insert(all.end(), items.begin(), items.end());
  return push(Node{Kind::kTuple, first, static_cast<uint32_t>(items.size()), 0});
}

Status PickleMachine::push_container(Kind kind, std::vector<PickleRef> items) {
  const auto container = static_cast<uint32_t>(graph_.containers_.size());
  graph_.containers_.push_back(std::move(items));
  return push(Node{kind, container, 0, 0});
}

// Adds to the container on top of the stack; to anything else nothing is added, as to an object whose class may do
// what it likes with them.
Status PickleMachine::extend(Kind kind, const std::vector<PickleRef>& items) {
  if (stack_.size() <= floor()) {
    return invalid("the pickle adds to a value that is not there");
  }
  if (kind == Kind::kDict && items.size() % 2 != 0) {
    return invalid("the pickle sets a key without a value");
  }
  const Node& node = graph_.nodes_[stack_.back()];
  if (node.kind == kind) {
    auto& all = graph_.containers_[node.a];
    all.insert(all.end(), items.begin(), items.end());
  }
  return {};
}

Status PickleMachine::push_integer(uint64_t bytes) {
  QCACHE_TRY_ASSIGN(const Text digits, text(bytes));
  if (bytes > sizeof(int64_t)) {
    return push(Node{Kind::kOpaque});
  }
  uint64_t value = bytes > 0 && (static_cast<unsigned char>(view(digits).back()) & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (size_t i = bytes; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(view(digits)[i]);
  }
  return push(Node{Kind::kInt, 0, 0, static_cast<int64_t>(value)});
}

Status PickleMachine::push_global() {
  QCACHE_TRY_ASSIGN(const Text module, line());
  QCACHE_TRY_ASSIGN(const Text name, line());
  return push(
      Node{Kind::kGlobal, name.size, module.size, static_cast<int64_t>(uint64_t{module.offset} << 32 | name.offset)});
}

Status PickleMachine::push_named_global() {
  QCACHE_TRY_ASSIGN(const auto names, pop_many(2));
  const Node module = graph_.nodes_[names[0]];
  const Node name = graph_.nodes_[names[1]];
  if (module.kind != Kind::kText || name.kind != Kind::kText) {
    return invalid("the pickle names a global by something that is no text");
  }
  return push(Node{Kind::kGlobal, name.a, module.a, module.number << 32 | name.number});
}

// An OrderedDict is a dict for us: it is filled like one. Python 2 gave its items as argument instead.
Status PickleMachine::push_call(PickleRef callable, PickleRef arguments) {
  const bool ordered = graph_.kind(callable) == Kind::kGlobal && graph_.text(callable) == "OrderedDict" &&
                       graph_.module(callable) == "collections";
  if (!ordered || graph_.kind(arguments) != Kind::kTuple) {
    return push(Node{Kind::kCall, callable, arguments, 0});
  }
  const auto is_sequence = [&](PickleRef ref) {
    return graph_.kind(ref) == Kind::kTuple || graph_.kind(ref) == Kind::kList;
  };
  std::vector<PickleRef> items;
  const auto given = graph_.items(arguments);
  if (given.size() == 1 && is_sequence(given[0])) {
    for (const PickleRef pair : graph_.items(given[0])) {
      if (is_sequence(pair) && graph_.items(pair).size() == 2) {
        items.push_back(graph_.items(pair)[0]);
        items.push_back(graph_.items(pair)[1]);
      }
    }
    pushes_ += items.size();  // one list may be given to many calls
  }
  return push_container(Kind::kDict, std::move(items));
}

Status PickleMachine::remember(uint64_t slot) {
  if (stack_.size() <= floor()) {
    return invalid("the pickle remembers a value that is not there");
  }
  if (slot >= kMaxMemo) {
    return invalid(fmt::format("the pickle remembers more than the {} values that qcache reads", kMaxMemo));
  }
  if (slot >= memo_.size()) {
    memo_.resize(slot + 1);
  }
  memo_used_ += memo_[slot] ? 0U : 1U;
  memo_[slot] = stack_.back();
  return {};
}

Status PickleMachine::recall(uint64_t slot) {
  if (slot >= memo_.size() || !memo_[slot]) {
    return invalid(fmt::format("the pickle asks for value {}, which it did not remember", slot));
  }
  return push(*memo_[slot]);
}

Result<Pickle> PickleMachine::run() {
  QCACHE_TRY_ASSIGN(const uint64_t first, number(1));
  if (first != 0x80) {
    return invalid("there is no pickle of protocol 2 or newer where one should be");
  }
  QCACHE_TRY_ASSIGN(const uint64_t protocol, number(1));
  if (protocol > kMaxProtocol) {
    return invalid(fmt::format("the pickle has protocol {}, which qcache does not know", protocol));
  }
  constexpr uint8_t kStop = '.';
  for (;;) {
    QCACHE_TRY_ASSIGN(const uint64_t opcode, number(1));
    if (opcode == kStop) {
      break;
    }
    QCACHE_TRY(step(static_cast<uint8_t>(opcode)));
  }
  QCACHE_TRY_ASSIGN(graph_.root_, pop());
  return Pickle{std::move(graph_), offset_ + position_};
}

Status PickleMachine::step(uint8_t opcode) {
  switch (opcode) {
    case 0x80:  // PROTO, allowed anywhere
      return number(1).map([](uint64_t) {});
    case 0x95:  // FRAME
      return number(8).map([](uint64_t) {});
    case 'N':  // NONE
      return push(Node{Kind::kNone});
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      return push(Node{Kind::kBool, 0, 0, opcode == 0x88 ? 1 : 0});
    case 'J':  // BININT
      return push_integer(4);
    case 'K':  // BININT1
    case 'M':  // BININT2
    {
      QCACHE_TRY_ASSIGN(const uint64_t value, number(opcode == 'K' ? 1 : 2));
      return push(Node{Kind::kInt, 0, 0, static_cast<int64_t>(value)});
    }
    case 0x8A:  // LONG1
    case 0x8B:  // LONG4
    {
      QCACHE_TRY_ASSIGN(const uint64_t bytes, number(opcode == 0x8A ? 1 : 4));
      return push_integer(bytes);
    }
    case 'G':  // BINFLOAT
      QCACHE_TRY(number(8));
      return push(Node{Kind::kOpaque});
    case 'U':   // SHORT_BINSTRING
    case 0x8C:  // SHORT_BINUNICODE
      return push_text(1);
    case 'T':  // BINSTRING
    case 'X':  // BINUNICODE
      return push_text(4);
    case 0x8D:  // BINUNICODE8
      return push_text(8);
    case 'C':  // SHORT_BINBYTES
      return push_bytes(1);
    case 'B':  // BINBYTES
      return push_bytes(4);
    case 0x8E:  // BINBYTES8
    case 0x96:  // BYTEARRAY8
      return push_bytes(8);
    default:
      return step_container(opcode);
  }
}

Status PickleMachine::step_container(uint8_t opcode) {
  switch (opcode) {
    case '(':  // MARK
      if (marks_.size() >= kMaxMarks) {
        return invalid("the pickle nests too deeply");
      }
      marks_.push_back(stack_.size());
      return {};
    case ')':   // EMPTY_TUPLE
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
    {
      QCACHE_TRY_ASSIGN(const auto items, pop_many(opcode == ')' ? 0 : opcode - 0x84));
      return push_tuple(items);
    }
    case 't':  // TUPLE
    {
      QCACHE_TRY_ASSIGN(const auto items, pop_to_mark());
      return push_tuple(items);
    }
    case ']':   // EMPTY_LIST
    case 0x8F:  // EMPTY_SET
      return push_container(Kind::kList, {});
    case '}':  // EMPTY_DICT
      return push_container(Kind::kDict, {});
    case 'l':   // LIST
    case 0x91:  // FROZENSET
    {
      QCACHE_TRY_ASSIGN(auto items, pop_to_mark());
      return push_container(Kind::kList, std::move(items));
    }
    case 'd':  // DICT
    {
      QCACHE_TRY_ASSIGN(const auto items, pop_to_mark());
      QCACHE_TRY(push_container(Kind::kDict, {}));
      return extend(Kind::kDict, items);
    }
    case 'a':  // APPEND
    case 's':  // SETITEM
    {
      QCACHE_TRY_ASSIGN(const auto items, pop_many(opcode == 'a' ? 1 : 2));
      return extend(opcode == 'a' ? Kind::kList : Kind::kDict, items);
    }
    case 'e':   // APPENDS
    case 0x90:  // ADDITEMS
    case 'u':   // SETITEMS
    {
      QCACHE_TRY_ASSIGN(const auto items, pop_to_mark());
      return extend(opcode == 'u' ? Kind::kDict : Kind::kList, items);
    }
    case '0':  // POP, which also takes back a mark
      if (!marks_.empty() && stack_.size() == marks_.back()) {
        marks_.pop_back();
        return {};
      }
      return pop().map([](PickleRef) {});
    case '1':  // POP_MARK
      return pop_to_mark().map([](const auto&) {});
    default:
      return step_object(opcode);
  }
}

Status PickleMachine::step_object(uint8_t opcode) {
  switch (opcode) {
    case 'c':  // GLOBAL
      return push_global();
    case 0x93:  // STACK_GLOBAL
      return push_named_global();
    case 'R':   // REDUCE
    case 0x81:  // NEWOBJ
    {
      QCACHE_TRY_ASSIGN(const auto parts, pop_many(2));
      return push_call(parts[0], parts[1]);
    }
    case 0x92:  // NEWOBJ_EX, whose last part is named arguments
    {
      QCACHE_TRY_ASSIGN(const auto parts, pop_many(3));
      return push(Node{Kind::kCall, parts[0], parts[1], 0});
    }
    case 'b':  // BUILD
    {
      QCACHE_TRY(pop());
      // The object that would get the state must be there.
      return stack_.size() > floor() ? Status() : invalid("the pickle gives a state to a value that is not there");
    }
    case 'Q':  // BINPERSID
    {
      QCACHE_TRY_ASSIGN(const PickleRef id, pop());
      QCACHE_TRY(push(Node{Kind::kPersistent, 0, id, 0}));
      graph_.persistent_.push_back(stack_.back());
      return {};
    }
    default:
      return step_memo(opcode);
  }
}

Status PickleMachine::step_memo(uint8_t opcode) {
  switch (opcode) {
    case 'q':  // BINPUT
    case 'r':  // LONG_BINPUT
    {
      QCACHE_TRY_ASSIGN(const uint64_t slot, number(opcode == 'q' ? 1 : 4));
      return remember(slot);
    }
    case 0x94:  // MEMOIZE
      return remember(memo_used_);
    case 'h':  // BINGET
    case 'j':  // LONG_BINGET
    {
      QCACHE_TRY_ASSIGN(const uint64_t slot, number(opcode == 'h' ? 1 : 4));
      return recall(slot);
    }
    default:
      return invalid(fmt::format("the pickle uses opcode 0x{:02x}, which qcache does not know", opcode));
  }
}

Result<Pickle> read_pickle(ByteSource& source, uint64_t offset, uint64_t end) {
  if (offset > end) {
    return invalid("the pickle ends in the middle: is the file complete?");
  }
  return PickleMachine(source, offset, end).run();
}

}  // namespace qcache
