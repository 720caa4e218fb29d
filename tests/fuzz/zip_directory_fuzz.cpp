// Input: a zip archive.

#include <cstddef>
#include <cstdint>

#include "core/model/text.h"
#include "core/model/zip_directory.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qcache;
  MemoryBytes source({reinterpret_cast<const char*>(data), size});
  const auto directory = ZipDirectory::read(source);
  if (!directory) {
    require(directory.error().kind == ErrorKind::kInvalidModel && is_utf8(directory.error().message));
    return 0;
  }
  for (const ZipDirectory::Entry& entry : directory->entries()) {
    require(directory->find(entry.name) == &entry);
    const auto place = locate_zip_member(source, entry);
    require(place ? place->offset > entry.header_offset && place->size == entry.size && place->end() <= entry.limit &&
                        entry.limit <= size
                  : place.error().kind == ErrorKind::kInvalidModel && is_utf8(place.error().message));
  }
  return 0;
}
