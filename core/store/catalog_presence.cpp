#include "core/store/catalog_presence.h"

#include <fcntl.h>

#include <chrono>

#include "core/base/env.h"
#include "core/store/backoff.h"
#include "core/store/named_file.h"

namespace qcache {
namespace {

constexpr uint64_t kTurn = 0;
constexpr uint64_t kUse = 1;
constexpr std::chrono::milliseconds kOpenPatience{30'000};

}  // namespace

Result<CatalogPresence> CatalogPresence::enter(const std::string& directory) {
  Env& env = Env::posix();
  const std::string path = directory + "/users";
  Backoff backoff(env, kOpenPatience);
  for (;;) {
    QCACHE_TRY_ASSIGN(UniqueFd fd, open_named(env, path, O_RDWR | O_CREAT, 0600));
    QCACHE_TRY_ASSIGN(const bool locked, env.try_lock_byte(fd.get(), kTurn, LockKind::kExclusive));
    if (locked) {
      // The directory may have been moved aside between the two calls.
      QCACHE_TRY_ASSIGN(const bool current, leads_to(env, path, fd.get()));
      if (current) {
        return CatalogPresence(std::move(fd));
      }
    }
    if (!backoff.pause()) {
      return fail(ErrorKind::kBusy, "another process has kept " + path +
                                        " locked for 30 s; `fuser -v` on that file shows which (it may be stopped)");
    }
  }
}

Result<bool> CatalogPresence::alone() {
  return Env::posix().try_lock_byte(fd_.get(), kUse, LockKind::kExclusive);
}

Status CatalogPresence::settle() {
  QCACHE_TRY_ASSIGN(const bool settled, Env::posix().try_lock_byte(fd_.get(), kUse, LockKind::kShared));
  (void)Env::posix().unlock_byte(fd_.get(), kTurn);
  if (!settled) {
    return fail(ErrorKind::kInternal, "the catalog is held exclusively by a process whose turn it is not");
  }
  return {};
}

}  // namespace qcache
