#pragma once

#include "core/engine/factor_workers.h"
#include "core/engine/source_reader.h"
#include "core/engine/stats.h"
#include "core/engine/surveys.h"
#include "core/layout/layout_plan.h"
#include "core/store/filling_file.h"

namespace qcache {

/// Makes or verifies single tiles of one filling file.
///
/// ensure() is the only way by which bytes become servable, and leaves a tile in one of two states: written, hashed by
/// this process and marked; or unmarked, with an error. Stateless apart from its collaborators; thread-safe as long as
/// no two threads work on one tile (FillingArtifact sees to that).
class TileMaker {
 public:
  TileMaker(Env& env, const LayoutPlan& plan, const SourceReader& source, Surveys& surveys, FactorWorkers& workers,
            FillingFile& filling, Stats& stats);

  /// Brings one tile to "present and verified by this process": hashes it where somebody else has marked it, and makes
  /// it where nobody has or where the hash is wrong.
  [[nodiscard]] Status ensure(uint32_t index) const;

 private:
  /// True where the bytes on disk are those that the mark names. Fills in CRCs that the mark lacks.
  [[nodiscard]] Result<bool> verify(uint32_t index, const Tile& tile, TileMark mark) const;
  [[nodiscard]] Status make(uint32_t index, const Tile& tile) const;
  /// Fills the tile's buffers from the source.
  [[nodiscard]] Status encode(const Tile& tile) const;
  [[nodiscard]] Status factorize(const Group& group, const Survey* survey) const;

  Env& env_;
  const LayoutPlan& plan_;
  const SourceReader& source_;
  Surveys& surveys_;
  FactorWorkers& workers_;
  FillingFile& filling_;
  Stats& stats_;
};

}  // namespace qcache
