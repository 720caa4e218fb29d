#pragma once

#include <memory>
#include <vector>

#include "core/store/store.h"
#include "tools/surroundings.h"

namespace qcache {

/// Cached files that words name, with the store that holds them.
struct MatchedFiles {
  std::shared_ptr<Store> store;
  std::vector<CacheEntry> entries;  ///< at least one
};

/// What was named. Fails only where that lies in a mount that cannot be used, which is not looked for by any other way;
/// all other errors count where nothing is listed by these words either, and are for match().
Result<Result<NamedFiles>> resolve_cached(const Surroundings& around, const NameWords& words);

/// The files in the cache directory that is meant (Surroundings::cache_directory_of()) which `names` match, and else
/// those that `qcache ls` lists by these very words. kNotFound, with what may have been meant, where there are none.
Result<MatchedFiles> match(const Surroundings& around, const NameWords& words, const Result<NamedFiles>& names);
Result<MatchedFiles> match(const Surroundings& around, const NameWords& words);

}  // namespace qcache
