#pragma once

#include <memory>
#include <string>

#include "core/store/catalog.h"

namespace qcache {

/// Catalog::open() without the promise that a process has one object per directory. `path` has no links.
Result<std::unique_ptr<Catalog>> open_lmdb_catalog(const std::string& path, const CatalogOptions& options);

}  // namespace qcache
