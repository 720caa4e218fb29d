#include "core/store/tile_map.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <type_traits>
#include <vector>

namespace qcache {
namespace {

constexpr std::array<char, 8> kMagic = {'q', 'c', 'a', 'c', 'h', 'e', 'M', '2'};
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kEntryBytes = 64;

struct Header {
  std::array<char, 8> magic;
  uint64_t size_bytes;
  uint32_t tile_count;
  uint32_t file_bytes;
  uint32_t path_bytes;
  uint32_t reserved;
  Sha256Digest recipe;
  std::array<char, FillingKey::kMaxFileName> file;
  std::array<char, FillingKey::kMaxVirtualPath> path;
  Sha256Digest digest;  ///< of all that precedes it
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) <= kHeaderBytes);

// The state of an entry: its kind in the low two bits, above them a count of changes. Thus a reader that finds the
// same state before and after has read one whole mark.
constexpr uint32_t kAbsent = 0;
constexpr uint32_t kWriting = 1;
constexpr uint32_t kMade = 2;
constexpr uint32_t kKindMask = 3;
constexpr uint32_t kOneChange = 4;

// Flags of an entry.
constexpr uint32_t kHasCrc = 1;
constexpr uint32_t kHasDigest = 2;

Sha256Digest digest_of(const Header& header) {
  return sha256(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, digest)));
}

uint64_t map_bytes(uint32_t tile_count) {
  return kHeaderBytes + uint64_t{tile_count} * kEntryBytes;
}

Result<Header> make_header(const FillingKey& key) {
  if (key.file.size() > FillingKey::kMaxFileName || key.virtual_path.size() > FillingKey::kMaxVirtualPath) {
    return fail(ErrorKind::kInvalidArgument,
                fmt::format("the path of '{}' is too long to be cached", key.virtual_path));
  }
  Header header{};
  header.magic = kMagic;
  header.size_bytes = key.size_bytes;
  header.tile_count = key.tile_count;
  header.file_bytes = static_cast<uint32_t>(key.file.size());
  header.path_bytes = static_cast<uint32_t>(key.virtual_path.size());
  header.recipe = key.recipe;
  std::memcpy(header.file.data(), key.file.data(), key.file.size());
  std::memcpy(header.path.data(), key.virtual_path.data(), key.virtual_path.size());
  header.digest = digest_of(header);
  return header;
}

// Reads and checks the header, and that the file is exactly as long as it says.
Result<FillingKey> read_key(Env& env, int fd) {
  const auto broken = [] { return fail(ErrorKind::kCorrupt, "the map of a filling file is damaged"); };
  QCACHE_TRY_ASSIGN(const FileStat stat, env.stat(fd));
  Header header{};
  QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, std::as_writable_bytes(std::span(&header, 1)), 0));
  if (got != sizeof(header) || header.magic != kMagic || header.digest != digest_of(header) ||
      header.file_bytes > FillingKey::kMaxFileName || header.path_bytes > FillingKey::kMaxVirtualPath ||
      stat.size_bytes != map_bytes(header.tile_count)) {
    return broken();
  }
  FillingKey key;
  key.file.assign(header.file.data(), header.file_bytes);
  key.virtual_path.assign(header.path.data(), header.path_bytes);
  key.recipe = header.recipe;
  key.size_bytes = header.size_bytes;
  key.tile_count = header.tile_count;
  return key;
}

}  // namespace

struct alignas(kEntryBytes) TileMap::Entry {
  uint32_t state;
  uint32_t flags;
  std::array<uint64_t, 4> digest;
  std::array<uint32_t, TileMark::kMaxStored> crc;
};

bool FillingKey::makes_same_bytes(const FillingKey& other) const {
  return file == other.file && recipe == other.recipe && size_bytes == other.size_bytes &&
         tile_count == other.tile_count;
}

Status TileMap::format(Env& env, int fd, const FillingKey& key) {
  QCACHE_TRY_ASSIGN(const Header header, make_header(key));
  const uint64_t bytes = map_bytes(key.tile_count);
  QCACHE_TRY(env.truncate(fd, bytes));
  // A store into a hole of a mapped file on a full disk is SIGBUS, so there must be no holes.
  if (const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    return fail(system_error(error, fmt::format("cannot allocate {} bytes in the cache directory", bytes)));
  }
  return env.write_at(fd, std::as_bytes(std::span(&header, 1)), 0);
}

Result<std::unique_ptr<TileMap>> TileMap::map(Env& env, int fd) {
  static_assert(sizeof(Entry) == kEntryBytes && std::is_trivially_copyable_v<Entry>);
  static_assert(std::atomic_ref<uint32_t>::is_always_lock_free && std::atomic_ref<uint64_t>::is_always_lock_free);
  QCACHE_TRY_ASSIGN(FillingKey key, read_key(env, fd));
  const uint64_t bytes = map_bytes(key.tile_count);
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    return fail(system_error(errno, "cannot map " + key.file + ".map into memory"));
  }
  return std::unique_ptr<TileMap>(new TileMap(std::move(key), static_cast<std::byte*>(memory), bytes));
}

Result<TileMap::Summary> TileMap::summarize(Env& env, int fd) {
  Summary summary;
  QCACHE_TRY_ASSIGN(summary.key, read_key(env, fd));
  constexpr uint64_t kEntriesPerRead = 4096;
  std::vector<Entry> entries;
  for (uint64_t done = 0; done < summary.key.tile_count; done += entries.size()) {
    entries.resize(std::min(kEntriesPerRead, summary.key.tile_count - done));
    const std::span<std::byte> out = std::as_writable_bytes(std::span(entries));
    QCACHE_TRY_ASSIGN(const size_t got, env.read_at(fd, out, kHeaderBytes + done * kEntryBytes));
    if (got != out.size()) {
      return fail(ErrorKind::kCorrupt, "the map of a filling file is cut short");
    }
    for (const Entry& entry : entries) {
      summary.marked_count += (entry.state & kKindMask) == kMade ? 1U : 0U;
    }
  }
  return summary;
}

TileMap::TileMap(FillingKey key, std::byte* memory, size_t bytes)
    : key_(std::move(key)), memory_(memory), bytes_(bytes) {}

TileMap::~TileMap() {
  ::munmap(memory_, bytes_);
}

TileMap::Entry& TileMap::entry(uint32_t tile) const {
  // The mapping is page-aligned and the header one page, so each entry is aligned; implicit-lifetime types live in it.
  return *static_cast<Entry*>(static_cast<void*>(memory_ + kHeaderBytes + uint64_t{tile} * kEntryBytes));
}

// Reading and writing a mark is a sequence lock over atomic words: acquire loads keep the second look at the state
// behind the words, release stores keep the words behind the change to kWriting.
std::optional<TileMark> TileMap::mark_of(uint32_t tile) const {
  Entry& shared = entry(tile);
  const std::atomic_ref state(shared.state);
  for (;;) {
    const uint32_t before = state.load(std::memory_order_acquire);
    if ((before & kKindMask) != kMade) {
      return std::nullopt;
    }
    // First, as add_digest() stores it last.
    const uint32_t flags = std::atomic_ref(shared.flags).load(std::memory_order_acquire);
    std::array<uint64_t, 4> digest{};
    std::array<uint32_t, TileMark::kMaxStored> crc{};
    for (size_t i = 0; i < digest.size(); ++i) {
      digest[i] = std::atomic_ref(shared.digest[i]).load(std::memory_order_acquire);
    }
    for (size_t i = 0; i < crc.size(); ++i) {
      crc[i] = std::atomic_ref(shared.crc[i]).load(std::memory_order_acquire);
    }
    if (state.load(std::memory_order_relaxed) != before) {
      continue;
    }
    TileMark mark;
    if ((flags & kHasDigest) != 0) {
      std::memcpy(mark.digest.emplace().data(), digest.data(), sizeof(Sha256Digest));
    }
    if ((flags & kHasCrc) != 0) {
      mark.crc = crc;
    }
    return mark;
  }
}

void TileMap::mark(uint32_t tile, const TileMark& mark) {
  Entry& shared = entry(tile);
  const auto crc = mark.crc.value_or(std::array<uint32_t, TileMark::kMaxStored>{});
  const uint32_t flags = (mark.digest ? kHasDigest : 0) | (mark.crc ? kHasCrc : 0);
  const std::atomic_ref state(shared.state);
  for (;;) {
    // An entry found in kWriting is taken over: its writer may have been killed. If it was not, it fails to publish
    // below and writes once more.
    uint32_t seen = state.load(std::memory_order_relaxed);
    uint32_t writing = 0;
    do {
      writing = ((seen & ~kKindMask) + kOneChange) | kWriting;
    } while (!state.compare_exchange_weak(seen, writing, std::memory_order_acq_rel, std::memory_order_relaxed));
    if (mark.digest) {  // else left as they are: another process may be adding them
      store_digest(shared, *mark.digest);
    }
    for (size_t i = 0; i < crc.size(); ++i) {
      std::atomic_ref(shared.crc[i]).store(crc[i], std::memory_order_release);
    }
    std::atomic_ref(shared.flags).store(flags, std::memory_order_release);
    if (state.compare_exchange_strong(writing, (writing & ~kKindMask) | kMade, std::memory_order_release,
                                      std::memory_order_relaxed)) {
      return;
    }
  }
}

void TileMap::add_digest(uint32_t tile, const Sha256Digest& digest) {
  Entry& shared = entry(tile);
  store_digest(shared, digest);
  std::atomic_ref(shared.flags).fetch_or(kHasDigest, std::memory_order_release);
}

void TileMap::store_digest(Entry& entry, const Sha256Digest& digest) {
  std::array<uint64_t, 4> words{};
  std::memcpy(words.data(), digest.data(), digest.size());
  for (size_t i = 0; i < words.size(); ++i) {
    std::atomic_ref(entry.digest[i]).store(words[i], std::memory_order_release);
  }
}

void TileMap::unmark(uint32_t tile) {
  const std::atomic_ref state(entry(tile).state);
  uint32_t seen = state.load(std::memory_order_relaxed);
  while (!state.compare_exchange_weak(seen, ((seen & ~kKindMask) + kOneChange) | kAbsent, std::memory_order_release,
                                      std::memory_order_relaxed)) {
  }
}

uint32_t TileMap::marked_count() const {
  uint32_t count = 0;
  for (uint32_t tile = 0; tile < key_.tile_count; ++tile) {
    const std::atomic_ref state(entry(tile).state);
    count += (state.load(std::memory_order_acquire) & kKindMask) == kMade ? 1U : 0U;
  }
  return count;
}

}  // namespace qcache
