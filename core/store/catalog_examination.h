#pragma once

#include <string>

#include "core/base/env.h"
#include "core/base/result.h"

namespace qcache {

/// What the data file of a catalog is, before LMDB is let near it.
enum class CatalogHealth {
  kNone,     ///< not there, or empty: nothing was ever stored
  kSound,    ///< LMDB may open it
  kDamaged,  ///< torn, copied while it was written, cut, or never LMDB's
  kForeign,  ///< of an LMDB with another data format, or of another kind of machine
};

struct CatalogFinding {
  CatalogHealth health = CatalogHealth::kNone;
  std::string reason;  ///< of kDamaged and kForeign
};

/// Looks at the first page only: kSound here means that it is not foreign. Never kDamaged.
Result<CatalogFinding> examine_format(Env& env, const std::string& data_file);

/// Reads every page that the newest snapshot uses: the trees of all databases, each page of them where and what it must
/// be, keys in order, counts as recorded; and the list of free pages, none of which may be in use.
///
/// LMDB itself takes its pages at their word: a wrong one is a failed assertion that ends the process, at once or days
/// later when a page that is in use is taken for a free one. So this reads the file by its own means and asks LMDB
/// nothing. It holds one page at a time and looks at none twice, so its cost is that of reading the file, whatever the
/// file holds. REQUIRES: nobody writes the file. An error is one of reading.
Result<CatalogFinding> examine_catalog(Env& env, const std::string& data_file);

}  // namespace qcache
