#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/env.h"
#include "core/engine/unstored_tiles.h"
#include "core/layout/layout_plan.h"
#include "core/store/filling_file.h"

namespace qcache {

/// Puts the bytes of one file together: those of tiles from the filling file, or from memory where the disk could not
/// take them; static ones from the plan; trailers from the CRCs that tiles are marked with.
///
/// Keeps nothing of its own: what it is made of must outlive it. Thread-safe. Fails with kCorrupt where the filling
/// file is not what its marks say (somebody else has cut or changed it), else as Env does.
class Assembly {
 public:
  Assembly(Env& env, const LayoutPlan& plan, const FillingFile& filling) : env_(env), plan_(plan), filling_(filling) {}

  /// Fills `out` with the bytes of `range`. REQUIRES: the range lies in the file, and each of plan.tiles_for(range) is
  /// marked, or in `memory`.
  [[nodiscard]] Status read(ByteRange range, const FromMemory& memory, std::span<std::byte> out) const;

  /// Writes every byte that no tile covers into the filling file: headers, gaps, constants, trailers. REQUIRES: all
  /// tiles are marked, with their CRCs.
  [[nodiscard]] Status write_static_bytes() const;
  /// kCorrupt where the file does not have the bytes that write_static_bytes() writes.
  [[nodiscard]] Status check_static_bytes() const;

 private:
  using UseBytes = std::function<Status(std::span<const std::byte> bytes, uint64_t offset)>;
  [[nodiscard]] Status for_static_bytes(const UseBytes& use) const;
  [[nodiscard]] Result<std::vector<std::byte>> trailer(const Piece& piece, const FromMemory& memory) const;
  [[nodiscard]] Result<uint32_t> stored_crc(uint32_t group, uint32_t stored, const FromMemory& memory) const;
  [[nodiscard]] Result<uint32_t> crc_of_file(ByteRange range, const FromMemory& memory) const;
  // Of a file that is not as it was: what happened to it.
  [[nodiscard]] tl::unexpected<Error> corrupt(std::string_view what) const;

  Env& env_;
  const LayoutPlan& plan_;
  const FillingFile& filling_;
};

}  // namespace qcache
