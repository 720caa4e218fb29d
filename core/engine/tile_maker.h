#pragma once

#include <functional>
#include <memory>

#include "core/base/mutex.h"
#include "core/engine/factor_workers.h"
#include "core/engine/source_reader.h"
#include "core/engine/stats.h"
#include "core/engine/surveys.h"
#include "core/engine/unstored_tiles.h"
#include "core/layout/layout_plan.h"
#include "core/store/filling_file.h"

namespace qcache {

/// Makes or verifies single tiles of one filling file.
///
/// ensure() is the only way by which bytes become servable, and leaves a tile in one of two states: written, and marked
/// with what this process computed over its bytes; or unmarked, with an error, or with the bytes in memory where it is
/// the cache directory that cannot take them. Keeps nothing of its own but a lock;
/// thread-safe as long as no two threads work on one tile (FillingArtifact sees to that).
class TileMaker {
 public:
  /// What a tile is marked with. SHA-256 takes about as long as reading, quantizing and writing together, so it waits
  /// where a reader does; the CRC tells until then that the bytes on disk are those that were made.
  enum class Proof : uint8_t { kChecksum, kChecksumAndDigest };

  TileMaker(Env& env, const LayoutPlan& plan, const SourceReader& source, Surveys& surveys, FactorWorkers& workers,
            FillingFile& filling, Stats& stats);

  /// Brings one tile to "present and verified by this process": checks it where somebody else has marked it, and makes
  /// it where nobody has or where its bytes are not those of the mark. Null, or the tile where it was made and could
  /// not be stored: kCorrupt where the file is complete (FillingFile::is_complete()) and this tile of it wrong.
  [[nodiscard]] Result<std::shared_ptr<const UnstoredTile>> ensure(uint32_t index, Proof proof) const;

  /// For a tile of a complete file: adds the digest that its mark lacks, over the bytes on disk. kCorrupt where they
  /// are not those that were made.
  [[nodiscard]] Status add_digest(uint32_t index) const;

 private:
  /// True where the bytes on disk are those that the mark names, and the mark has the CRCs. Completes one that lacks
  /// them, or the digest that `proof` asks for.
  [[nodiscard]] Result<bool> verify(uint32_t index, const Tile& tile, const TileMark& mark, Proof proof) const;
  /// Whether the tile's lock is ours alone, however long others may have waited for it.
  using Alone = std::function<bool()>;
  [[nodiscard]] Result<std::shared_ptr<const UnstoredTile>> make(uint32_t index, const Tile& tile, Proof proof,
                                                                 const Alone& alone) const;
  /// Fills the tile's buffers from the source.
  [[nodiscard]] Status encode(const Tile& tile) const;
  /// Writes the tile's buffers to the backing file; returns how many bytes those are.
  [[nodiscard]] Result<uint64_t> write(const Tile& tile) const QCACHE_EXCLUDES(writing_);
  /// Gives back the blocks of a tile of which a part was written.
  void punch(const Tile& tile) const;
  [[nodiscard]] Error damaged() const;
  [[nodiscard]] Status factorize(const Group& group, const Survey* survey) const;

  Env& env_;
  const LayoutPlan& plan_;
  const SourceReader& source_;
  Surveys& surveys_;
  FactorWorkers& workers_;
  FillingFile& filling_;
  Stats& stats_;
  // One thread at a time: the kernel has it so for writes to one file, but lets the next thread spin meanwhile, on a
  // processor that could quantize or answer reads.
  mutable Mutex writing_;
};

}  // namespace qcache
