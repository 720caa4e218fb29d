#pragma once

#include "core/engine/factor_workers.h"
#include "core/engine/worker_pool.h"

namespace qcache {

/// The threads and processes that make tiles, shared by all filling artifacts of one process. Thread-safe.
class Workshop {
 public:
  /// `threads`: of each pool that makes tiles; 0: one per core, at least two.
  explicit Workshop(unsigned threads);

  /// Ends what can be ended and waits for the rest; every job that has not begun is dropped. Idempotent.
  void stop();

  [[nodiscard]] WorkerPool& pool() { return pool_; }
  /// For tiles of LoRA factors: each takes up to seconds, and nothing else may wait for it.
  [[nodiscard]] WorkerPool& factor_pool() { return factor_pool_; }
  /// For sealing, one file at a time.
  [[nodiscard]] WorkerPool& seal_pool() { return seal_pool_; }
  /// For what nobody waits for, one job at a time: its jobs may make their thread an idle one.
  [[nodiscard]] WorkerPool& idle_pool() { return idle_pool_; }
  [[nodiscard]] FactorWorkers& factor_workers() { return factor_workers_; }

 private:
  FactorWorkers factor_workers_;
  WorkerPool pool_;
  WorkerPool factor_pool_;
  WorkerPool seal_pool_;
  WorkerPool idle_pool_;
};

}  // namespace qcache
