#include "core/store/catalog_examination.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/store/named_file.h"

namespace qcache {
namespace {

// The format of LMDB 0.9 on machines of 64 bits (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta). Numbers are in the byte
// order of the machine.
constexpr uint32_t kMagic = 0xBEEFC0DE;
constexpr uint32_t kVersion = 1;
constexpr uint64_t kNoPage = ~uint64_t{0};
constexpr size_t kPageHead = 16;
constexpr size_t kNodeHead = 8;
constexpr size_t kMetaBytes = 136;
constexpr size_t kMaxKey = 511;
constexpr int kMaxDepth = 32;
constexpr uint64_t kFirstDataPage = 2;

constexpr uint16_t kBranchPage = 1;
constexpr uint16_t kLeafPage = 2;
constexpr uint16_t kOverflowPage = 4;
constexpr uint16_t kMetaPage = 8;
constexpr uint16_t kBigData = 1;
constexpr uint16_t kSubTree = 2;

struct Tree {
  uint32_t pad;
  uint16_t flags;
  uint16_t depth;
  uint64_t branch_pages;
  uint64_t leaf_pages;
  uint64_t overflow_pages;
  uint64_t entries;
  uint64_t root;
};
static_assert(sizeof(Tree) == 48);

struct Meta {
  uint32_t magic;
  uint32_t version;
  uint64_t address;
  uint64_t map_bytes;
  Tree free;
  Tree main;
  uint64_t last_page;
  uint64_t snapshot;
};
static_assert(sizeof(Meta) + kPageHead <= 4096 && sizeof(Meta) == kMetaBytes);

struct PageHead {
  uint64_t number;
  uint16_t pad;
  uint16_t flags;
  uint16_t lower;  ///< with `upper` one number where the page begins an overflow: how many pages it has
  uint16_t upper;
};
static_assert(sizeof(PageHead) == kPageHead);

template <typename Value>
Value load(std::span<const std::byte> bytes, size_t at) {
  Value value{};
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

std::string_view text_at(std::span<const std::byte> bytes, size_t at, size_t size) {
  return {static_cast<const char*>(static_cast<const void*>(bytes.data() + at)), size};
}

struct Node {
  uint16_t flags = 0;  // of a leaf's node
  std::string_view key;
  uint64_t data_size = 0;  // of a leaf's node
  uint64_t child = 0;      // of a branch's node
  size_t data_at = 0;      // of a leaf's node, within the page
};

// Text and end of what a subtree may hold: keys from `low` on, up to but without `high`.
struct Range {
  std::optional<std::string> low;
  std::optional<std::string> high;
};

// Walks one data file. Any member that returns false has set reason_.
class Examination {
 public:
  Examination(Env& env, int fd, uint64_t file_bytes) : env_(env), fd_(fd), file_bytes_(file_bytes) {}

  Result<CatalogFinding> run() {
    const bool sound = check();
    if (failed_.has_value()) {
      return fail(std::move(*failed_));
    }
    if (sound) {
      return CatalogFinding{CatalogHealth::kSound, {}};
    }
    return CatalogFinding{blank_ ? CatalogHealth::kNone : CatalogHealth::kDamaged, std::move(reason_)};
  }

 private:
  bool damaged(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }

  bool read(uint64_t offset, std::span<std::byte> out) {
    const auto got = env_.read_at(fd_, out, offset);
    if (!got.has_value()) {
      failed_ = got.error();
      return false;
    }
    return *got == out.size() || damaged("it is cut short");
  }

  bool check() {
    if (!choose_meta()) {
      return false;
    }
    used_.assign(meta_.last_page + 1, false);
    // The high byte is that of the environment which made the file.
    if ((meta_.free.flags & 0xff) != kIntegerKeys || meta_.main.flags != 0) {
      return damaged("its databases are of a kind that is not ours");
    }
    if (meta_.main.root == kNoPage) {
      blank_ = meta_.snapshot == 0 && file_bytes_ <= kFirstDataPage * page_bytes_;
      return damaged("it has pages but names no databases");
    }
    // The trees first, so that a free page that is in use shows.
    if (!walk(meta_.main, Kind::kMain)) {
      return false;
    }
    for (const auto& [name, tree] : std::exchange(databases_, {})) {
      if (tree.flags != 0 || !walk(tree, Kind::kData)) {
        return reason_.empty() ? damaged("a database is of a kind that is not ours") : false;
      }
      names_.push_back(name);
    }
    for (const std::string_view needed : {"meta", "records", "tiles"}) {
      if (std::find(names_.begin(), names_.end(), needed) == names_.end()) {
        return damaged(fmt::format("it has no database '{}'", needed));
      }
    }
    return walk(meta_.free, Kind::kFree) && check_free_pages();
  }

  bool choose_meta() {
    std::array<std::byte, kPageHead + kMetaBytes> page{};
    for (uint64_t number = 0; number < 2; ++number) {
      if (!read(number * page_bytes_, page)) {
        return false;
      }
      const auto head = load<PageHead>(page, 0);
      const auto meta = load<Meta>(page, kPageHead);
      if ((head.flags & kMetaPage) == 0 || meta.magic != kMagic || meta.version != kVersion) {
        return damaged("its first pages are not LMDB's");
      }
      const uint32_t page_bytes = meta.free.pad;
      if (!std::has_single_bit(page_bytes) || page_bytes < 512 || page_bytes > 65536 ||
          (number == 1 && page_bytes != page_bytes_)) {
        return damaged("its pages have no possible size");
      }
      page_bytes_ = page_bytes;
      // LMDB takes the first where both are the same, and writes snapshot N into page N modulo 2.
      if (number == 0 || meta.snapshot > meta_.snapshot) {
        meta_ = meta;
        if (meta.snapshot % 2 != number) {
          return damaged("its newest snapshot is not where it belongs");
        }
      }
    }
    if (meta_.last_page + 1 < kFirstDataPage || meta_.last_page > (uint64_t{1} << 40U) ||
        (meta_.last_page >= kFirstDataPage && meta_.last_page / 2 > file_bytes_ / page_bytes_ + 1024)) {
      return damaged("its newest snapshot has more pages than the file");
    }
    return true;
  }

  enum class Kind { kMain, kData, kFree };
  static constexpr uint16_t kIntegerKeys = 8;

  bool walk(const Tree& tree, Kind kind) {
    Tree counted{};
    if (tree.root == kNoPage) {
      return (tree.depth == 0 && tree.entries == 0 && tree.leaf_pages == 0) || damaged("an empty database has pages");
    }
    if (tree.depth == 0 || tree.depth > kMaxDepth) {
      return damaged("a database is too deep");
    }
    if (!walk_page(tree.root, tree.depth, kind, {}, counted)) {
      return false;
    }
    return (counted.branch_pages == tree.branch_pages && counted.leaf_pages == tree.leaf_pages &&
            counted.overflow_pages == tree.overflow_pages && counted.entries == tree.entries) ||
           damaged("a database has not as much in it as it says");
  }

  bool use(uint64_t number, uint64_t count) {
    if (number < kFirstDataPage || number > meta_.last_page || count > meta_.last_page - number + 1) {
      return damaged(fmt::format("page {} is out of bounds", number));
    }
    for (uint64_t page = number; page < number + count; ++page) {
      if (used_[page]) {
        return damaged(fmt::format("page {} is used twice", page));
      }
      used_[page] = true;
    }
    return true;
  }

  bool walk_page(uint64_t number, int levels, Kind kind, const Range& range, Tree& counted) {
    if (!use(number, 1)) {
      return false;
    }
    std::vector<std::byte> page(page_bytes_);
    if (!read(number * page_bytes_, page)) {
      return false;
    }
    const bool leaf = levels == 1;
    const auto head = load<PageHead>(page, 0);
    if (head.number != number || head.flags != (leaf ? kLeafPage : kBranchPage)) {
      return damaged(fmt::format("page {} is another", number));
    }
    std::vector<Node> nodes;
    if (!read_nodes(page, head, leaf, nodes) || !check_order(nodes, leaf, kind, range)) {
      return reason_.empty() ? damaged(fmt::format("page {} is torn", number)) : false;
    }
    (leaf ? counted.leaf_pages : counted.branch_pages) += 1;
    counted.entries += leaf ? nodes.size() : 0;
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (leaf) {
        if (!check_value(page, nodes[i], kind, counted)) {
          return false;
        }
        continue;
      }
      Range below;
      below.low = i == 0 ? range.low : std::optional(std::string(nodes[i].key));
      below.high = i + 1 == nodes.size() ? range.high : std::optional(std::string(nodes[i + 1].key));
      if (!walk_page(nodes[i].child, levels - 1, kind, below, counted)) {
        return false;
      }
    }
    return true;
  }

  bool read_nodes(std::span<const std::byte> page, const PageHead& head, bool leaf, std::vector<Node>& nodes) const {
    if (head.lower < kPageHead || head.lower % 2 != 0 || head.lower > head.upper || head.upper > page.size()) {
      return false;
    }
    std::vector<std::pair<size_t, size_t>> places;  // begin and end
    for (size_t at = kPageHead; at < head.lower; at += sizeof(uint16_t)) {
      const size_t begin = load<uint16_t>(page, at);
      if (begin < head.upper || begin % 2 != 0 || begin + kNodeHead > page.size()) {
        return false;
      }
      const uint64_t low = load<uint16_t>(page, begin) | uint64_t{load<uint16_t>(page, begin + 2)} << 16U;
      Node node;
      node.flags = load<uint16_t>(page, begin + 4);
      const size_t key_bytes = load<uint16_t>(page, begin + 6);
      node.data_at = begin + kNodeHead + key_bytes;
      node.data_size = low;
      node.child = low | uint64_t{node.flags} << 32U;
      const uint64_t data_bytes = !leaf ? 0 : (node.flags & kBigData) != 0 ? sizeof(uint64_t) : low;
      if (key_bytes > kMaxKey || node.data_at + data_bytes > page.size()) {
        return false;
      }
      node.key = text_at(page, begin + kNodeHead, key_bytes);
      places.emplace_back(begin, node.data_at + data_bytes);
      nodes.push_back(node);
    }
    std::sort(places.begin(), places.end());
    for (size_t i = 1; i < places.size(); ++i) {
      if (places[i].first < places[i - 1].second) {
        return false;
      }
    }
    return !nodes.empty();
  }

  static bool before(std::string_view a, std::string_view b, Kind kind) {
    if (kind == Kind::kFree) {
      return load<uint64_t>(std::as_bytes(std::span(a)), 0) < load<uint64_t>(std::as_bytes(std::span(b)), 0);
    }
    return a < b;  // as LMDB: bytes, then length
  }

  [[nodiscard]] bool check_order(const std::vector<Node>& nodes, bool leaf, Kind kind, const Range& range) const {
    if (!leaf && nodes.size() < 2 && kind != Kind::kFree) {
      return false;
    }
    // The first key of a branch is never looked at.
    for (size_t i = leaf ? 0 : 1; i < nodes.size(); ++i) {
      const std::string_view key = nodes[i].key;
      if (key.empty() || (kind == Kind::kFree && key.size() != sizeof(uint64_t))) {
        return false;
      }
      if ((range.low && before(key, *range.low, kind)) || (range.high && !before(key, *range.high, kind)) ||
          (i > (leaf ? 0U : 1U) && !before(nodes[i - 1].key, key, kind))) {
        return false;
      }
    }
    return true;
  }

  bool check_value(std::span<const std::byte> page, const Node& node, Kind kind, Tree& counted) {
    const uint16_t allowed = kind == Kind::kMain ? kSubTree : kBigData;
    if ((node.flags & ~allowed) != 0 || (kind == Kind::kMain && (node.flags != kSubTree || node.data_size != 48))) {
      return damaged("an entry is of a kind that is not ours");
    }
    if (kind == Kind::kMain) {
      databases_.emplace_back(node.key, load<Tree>(page, node.data_at));
      return true;
    }
    std::vector<std::byte> big;
    std::span<const std::byte> value = page.subspan(node.data_at, (node.flags & kBigData) != 0 ? 0 : node.data_size);
    if ((node.flags & kBigData) != 0) {
      const auto first = load<uint64_t>(page, node.data_at);
      std::array<std::byte, kPageHead> bytes{};
      if (first < kFirstDataPage || first > meta_.last_page) {
        return damaged(fmt::format("page {} is out of bounds", first));
      }
      if (!read(first * page_bytes_, bytes)) {
        return false;
      }
      const auto head = load<PageHead>(bytes, 0);
      const uint64_t pages = load<uint32_t>(bytes, 12);
      if (head.number != first || head.flags != kOverflowPage ||
          pages < (kPageHead - 1 + node.data_size) / page_bytes_ + 1) {
        return damaged(fmt::format("page {} is another", first));
      }
      if (!use(first, pages)) {
        return false;
      }
      if ((first + pages) * page_bytes_ > file_bytes_) {
        return damaged("it is cut short");
      }
      counted.overflow_pages += pages;
      if (kind == Kind::kFree) {
        big.resize(node.data_size);
        if (!read(first * page_bytes_ + kPageHead, big)) {
          return false;
        }
        value = big;
      }
    }
    return kind != Kind::kFree || note_free_pages(load<uint64_t>(std::as_bytes(std::span(node.key)), 0), value);
  }

  // A list of the pages that one transaction freed: how many, and which, in falling order.
  bool note_free_pages(uint64_t freed_by, std::span<const std::byte> list) {
    const uint64_t room = list.size() / sizeof(uint64_t);
    const uint64_t count = room == 0 ? 0 : load<uint64_t>(list, 0);
    if (room == 0 || count > room - 1 || freed_by == 0 || freed_by > meta_.snapshot) {
      return damaged("a list of free pages is torn");
    }
    uint64_t before = kNoPage;
    for (uint64_t i = 1; i <= count; ++i) {
      const auto page = load<uint64_t>(list, i * sizeof(uint64_t));
      if (page >= before || page < kFirstDataPage || page > meta_.last_page) {
        return damaged("a list of free pages is torn");
      }
      before = page;
      free_.push_back(page);
    }
    if (free_.size() > meta_.last_page) {
      return damaged("more pages are free than there are");
    }
    return true;
  }

  bool check_free_pages() {
    for (const uint64_t page : free_) {
      if (!use(page, 1)) {
        return false;
      }
    }
    return true;
  }

  Env& env_;
  const int fd_;
  const uint64_t file_bytes_;
  uint64_t page_bytes_ = 4096;
  Meta meta_{};
  std::vector<bool> used_;  // by page number
  std::vector<uint64_t> free_;
  std::vector<std::pair<std::string, Tree>> databases_;
  std::vector<std::string> names_;
  bool blank_ = false;
  std::string reason_;
  std::optional<Error> failed_;
};

}  // namespace

Result<CatalogFinding> examine_format(Env& env, const std::string& data_file) {
  const auto fd = open_named(env, data_file, O_RDONLY);
  if (!fd.has_value()) {
    return fd.error().kind == ErrorKind::kNotFound ? Result<CatalogFinding>(CatalogFinding{}) : fail(fd.error());
  }
  // Other builds of LMDB have longer or shorter heads before the magic number.
  std::array<std::byte, 64> head{};
  QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd->get(), head, 0));
  if (got == 0) {
    return CatalogFinding{};
  }
  for (size_t at = 0; at + 8 <= got; at += 4) {
    const auto magic = load<uint32_t>(head, at);
    const auto version = load<uint32_t>(head, at + 4);
    if (magic == __builtin_bswap32(kMagic)) {
      return CatalogFinding{CatalogHealth::kForeign, "of a machine with another byte order"};
    }
    if (magic == kMagic && version != kVersion) {
      return CatalogFinding{CatalogHealth::kForeign, fmt::format("of LMDB's data format {}", version)};
    }
    if (magic == kMagic && at != kPageHead) {
      return CatalogFinding{CatalogHealth::kForeign, "of an LMDB that lays its pages out in another way"};
    }
  }
  return CatalogFinding{CatalogHealth::kSound, {}};
}

Result<CatalogFinding> examine_catalog(Env& env, const std::string& data_file) {
  QCACHE_TRY_ASSIGN(const bool in_the_way, is_taken_by_others(env, data_file));
  if (in_the_way) {
    return CatalogFinding{CatalogHealth::kDamaged, "its data.mdb is not a regular file"};
  }
  QCACHE_TRY_ASSIGN(CatalogFinding format, examine_format(env, data_file));
  if (format.health != CatalogHealth::kSound) {
    return format;
  }
  QCACHE_TRY_ASSIGN(const UniqueFd fd, open_named(env, data_file, O_RDONLY));
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd.get()));
  return Examination(env, fd.get(), stat.size_bytes).run();
}

}  // namespace qcache
