#pragma once

#include <cstdint>
#include <vector>

#include "tests/store/store_fixture.h"

namespace qcache {

// Entries for tests of catalogs, which need no files.

inline Record record(uint32_t number, uint32_t tiles = 3) {
  const FillingKey key = StoreFixture::key(number);
  Record record = StoreFixture::draft(key);
  record.file = key.file;
  record.tile_count = tiles;
  return record;
}

inline std::vector<Sha256Digest> tiles(uint8_t seed, uint32_t count = 3) {
  std::vector<Sha256Digest> out(count);
  for (uint32_t i = 0; i < count; ++i) {
    out[i].fill(static_cast<uint8_t>(seed + i));
  }
  return out;
}

inline Status put(Catalog& catalog, uint32_t number, uint32_t count = 3) {
  return catalog.put(record(number, count), tiles(static_cast<uint8_t>(number), count), {});
}

}  // namespace qcache
