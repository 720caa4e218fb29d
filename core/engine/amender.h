#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "core/base/mutex.h"
#include "core/engine/quality_probe.h"
#include "core/engine/worker_pool.h"
#include "core/store/store.h"

namespace qcache {

/// Makes a quality_probe() for the file of a record, and takes what locks that needs. Null where their source is not
/// there any more, or may not answer.
using FindSource = std::function<Result<MeasureQuality>(const Record& record)>;

/// Adds to a record what only a pass over all of the file tells: the SHA-256 of the whole, and the quality of its
/// weights. Nothing is done where it has them, or the file is not the record's any more. A quality that cannot be
/// measured is logged and left out; else fails as Store, Env and Catalog do.
Status amend_record(Store& store, const Record& record, const FindSource& find_source, const KeepGoing& keep_going);

/// Amends the records of one cache directory in quiet, one after another: files are read by a thread that works when
/// nobody else does; another finds them and commits what was found, as who holds locks must not be kept from the
/// processor. Several processes may come to amend the same one: both find the same. What fails is tried again by the
/// next look(). Thread-safe.
class Amender {
 public:
  /// What is given must outlive it, and the pools end before it.
  Amender(Store& store, WorkerPool& pool, WorkerPool& idle_pool, FindSource find_source)
      : store_(store), pool_(pool), idle_pool_(idle_pool), find_source_(std::move(find_source)) {}

  /// Begins with a file that was just sealed; `source`: as WorkerPool::submit(), of what `measure` reads.
  void add(const Record& record, MeasureQuality measure, uint64_t source) QCACHE_EXCLUDES(mutex_);
  /// Begins with all other records that lack something.
  Status look() QCACHE_EXCLUDES(mutex_);
  /// Whether all that was begun is done.
  [[nodiscard]] bool is_done() const QCACHE_EXCLUDES(mutex_);
  /// Begins nothing any more, and ends what goes on as soon as it can be ended.
  void stop() QCACHE_EXCLUDES(mutex_);

 private:
  struct Job {
    Record record;
    Result<MeasureQuality> measure;
    uint64_t source = 0;
    UniqueFd fd;
    Amendment amendment;
  };
  // The steps, each a job of a pool.
  void find(const std::shared_ptr<Job>& job) QCACHE_EXCLUDES(mutex_);
  void examine(const std::shared_ptr<Job>& job) QCACHE_EXCLUDES(mutex_);
  void commit(const Job& job) QCACHE_EXCLUDES(mutex_);
  // Whether a step went well and told to go on; else the job is over.
  bool goes_on(const Record& record, const Result<bool>& step) QCACHE_EXCLUDES(mutex_);
  // Whether nobody has begun with the record yet; then the caller is to.
  [[nodiscard]] bool begin(const Record& record) QCACHE_REQUIRES(mutex_);
  [[nodiscard]] bool may_go_on() QCACHE_EXCLUDES(mutex_);

  Store& store_;
  WorkerPool& pool_;
  WorkerPool& idle_pool_;
  const FindSource find_source_;
  mutable Mutex mutex_;
  // What tells a sealed file from the next of its name, which may have the same bytes.
  using Key = std::tuple<std::string, uint64_t, int64_t>;
  static Key key_of(const Record& record) { return {record.file, record.backing.inode, record.backing.ctime_ns}; }
  std::set<Key> begun_ QCACHE_GUARDED_BY(mutex_);  // and not ended
  bool stopping_ QCACHE_GUARDED_BY(mutex_) = false;
};

}  // namespace qcache
