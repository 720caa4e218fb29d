#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/mutex.h"
#include "core/store/catalog.h"
#include "tests/support/fault_rules.h"

namespace qcache {

/// The kinds of call a Catalog has, for FakeCatalog.
enum class CatalogCall {
  kFind,
  kTileDigests,
  kParts,
  kQuality,
  kList,
  kFiles,
  kPut,
  kAmend,
  kErase,
  kTouch,
  kSetPinned
};

inline constexpr CatalogCall kAllCatalogCalls[] = {
    CatalogCall::kFind,  CatalogCall::kTileDigests, CatalogCall::kParts,    CatalogCall::kQuality,
    CatalogCall::kList,  CatalogCall::kFiles,       CatalogCall::kPut,      CatalogCall::kAmend,
    CatalogCall::kErase, CatalogCall::kTouch,       CatalogCall::kSetPinned};

/// A catalog in memory, which keeps the contract of Catalog (tests/store/catalog_contract_test.cpp) until told
/// otherwise, as FakeEnv does:
///
///   const auto catalog = std::make_shared<FakeCatalog>();
///   catalog->fail(CatalogCall::kPut, 1, ErrorKind::kNoSpace);    // the next put fails, once
///   const auto store = Store::open(env, directory, catalog);
///
/// A failing call has no effect. What it holds lives as long as the object: a Store that is given it again finds what
/// an earlier one has put. Safe for concurrent use; hooks run in the calling thread, without a lock.
class FakeCatalog final : public Catalog {
 public:
  /// As FaultRules tells. A call's subject is its file; those that have none, or several, are on "".
  void fail(CatalogCall call, uint64_t nth, ErrorKind kind, const std::string& part = "") {
    rules_.fail(call, nth, kind, part);
  }
  void fail_all(CatalogCall call, ErrorKind kind, const std::string& part = "") { rules_.fail_all(call, kind, part); }
  void before(CatalogCall call, uint64_t nth, std::function<void()> hook, const std::string& part = "") {
    rules_.before(call, nth, std::move(hook), part);
  }
  /// Forgets all faults and hooks.
  void heal() { rules_.heal(); }
  /// Calls of a kind so far, failed ones included.
  [[nodiscard]] uint64_t count(CatalogCall call) const { return rules_.count(call); }

  Result<std::optional<Record>> find(const std::string& file) override;
  Result<std::vector<Sha256Digest>> tile_digests(const std::string& file) override;
  Result<std::vector<TensorQuality>> quality(const std::string& file, const Sha256Digest& contents) override;
  Result<std::vector<Record>> list() override;
  Result<std::vector<std::string>> files() override;
  Result<std::vector<uint8_t>> parts(const std::string& file) override;
  using Catalog::put;
  Status put(const Record& record, std::span<const Sha256Digest> tiles, std::span<const uint8_t> parts,
             std::span<const TensorQuality> quality) override;
  Status amend(const std::string& file, const Sha256Digest& contents, const Amendment& amendment) override;
  Status erase(const std::string& file) override;
  Status touch(std::span<const AccessUpdate> updates) override;
  Status set_pinned(const std::string& file, bool pinned) override;

 private:
  struct Entry {
    Record record;
    std::vector<Sha256Digest> tiles;
    std::vector<uint8_t> parts;
    std::vector<TensorQuality> quality;
  };
  Status enter(CatalogCall call, const std::string& file);

  FaultRules<CatalogCall, ErrorKind> rules_;
  Mutex mutex_;
  std::map<std::string, Entry> entries_ QCACHE_GUARDED_BY(mutex_);
};

}  // namespace qcache
