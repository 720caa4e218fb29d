#pragma once

#include <cstdint>

#include "core/base/result.h"
#include "core/model/byte_source.h"
#include "core/model/pickle_value.h"

namespace qcache {

/// A pickle and where it ended.
struct Pickle {
  PickleGraph graph;
  uint64_t end = 0;  ///< the position after its last byte
};

/// Reads the pickle at `offset` that ends at or before `end`, as data: no code runs, nothing is imported, and no object
/// is made. Knows the opcodes of protocols 2 to 5 that describe data, calls and persistent ids; how objects would set
/// their state (BUILD) is left out.
///
/// Bounds what a stranger's pickle can cost: 256 MiB of pickle, 4 Mi values, as many memo slots, 10,000 open marks;
/// values do not nest in memory, so their depth needs no bound. Fails with kInvalidModel where a bound is exceeded or
/// the pickle is malformed, incomplete or uses other opcodes; the source's failures pass through.
Result<Pickle> read_pickle(ByteSource& source, uint64_t offset, uint64_t end);

}  // namespace qcache
