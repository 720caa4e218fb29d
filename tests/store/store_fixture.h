#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>

#include "core/store/store.h"
#include "tests/support/fake_catalog.h"
#include "tests/support/temp_dir.h"

namespace qcache {

/// Which catalog the stores of a test have.
enum class CatalogKind { kLmdb, kFake };
inline std::ostream& operator<<(std::ostream& out, CatalogKind kind) {
  return out << (kind == CatalogKind::kLmdb ? "Lmdb" : "Fake");
}

/// Small cached files whose right bytes are known, and the steps that tests of the store take with them. A tile is
/// kTileBytes of the file, the last one shorter. One thread, unless a function says otherwise.
class StoreFixture {
 public:
  explicit StoreFixture(CatalogKind catalog = CatalogKind::kLmdb);

  static constexpr uint64_t kTileBytes = 1000;

  [[nodiscard]] const std::string& path() const { return path_; }
  /// A store on the test's directory. Throws where it cannot be opened.
  [[nodiscard]] std::shared_ptr<Store> open(Env& env = Env::posix()) const;
  /// The catalog of all stores that are opened; null where that is LMDB's.
  [[nodiscard]] const std::shared_ptr<FakeCatalog>& fake_catalog() const { return fake_catalog_; }

  /// The key of the `number`th file in the state `recipe` of its source. Safe from any thread, as all that follow.
  [[nodiscard]] static FillingKey key(uint32_t number = 0, uint8_t recipe = 1, uint64_t size_bytes = 4500);
  [[nodiscard]] static std::string content(const FillingKey& key);
  [[nodiscard]] static std::string tile_content(const FillingKey& key, uint32_t tile);
  [[nodiscard]] static TileMark right_mark(const FillingKey& key, uint32_t tile);
  [[nodiscard]] static Record draft(const FillingKey& key, int64_t now_ns = 1'000);

  /// Makes every tile that is not made, or whose bytes are not those of its mark. Returns how many it made.
  static Result<uint32_t> fill(Env& env, FillingFile& filling);
  /// As the engine does: looks, demotes, fills and seals until the file may be served. Errors end it. `made` is raised
  /// by the tiles that it makes.
  static Result<SealedFile> ensure_sealed(Store& store, const FillingKey& key, uint32_t* made = nullptr);

  [[nodiscard]] static std::string bytes_of(int fd);
  [[nodiscard]] static bool exists(const std::string& path);
  /// Sealed files may be written by root only; what damages them asks for this first. Absent is fine.
  static void make_writable(const std::string& path);

  /// Whether a kill has left the record of a file that was turned into a filling one.
  [[nodiscard]] static bool was_demoted(Store& store, const Record& record);
  /// Says (as text, empty where all is well) what is wrong with the directory: a record whose file is absent (and was
  /// not demoted) or does not hold what the record says, or a record whose bytes are not the right ones for its recipe.
  [[nodiscard]] static std::string unsoundness(Store& store);

 private:
  TempDir dir_;
  std::string path_;
  std::shared_ptr<FakeCatalog> fake_catalog_;
};

/// Runs `body` in a child process. The exit status is what it returns (1 where it throws).
[[nodiscard]] pid_t start_child(const std::function<int()>& body);
/// Waits for a child: its exit status, or 128 + the signal that ended it.
[[nodiscard]] int wait_for_child(pid_t child);
inline int run_child(const std::function<int()>& body) {
  return wait_for_child(start_child(body));
}

}  // namespace qcache
