#include "core/engine/amender.h"

#include <utility>

#include "core/base/contain_exceptions.h"
#include "core/base/log.h"
#include "core/engine/idle_thread.h"

namespace qcache {

namespace {

/// False where the file was cut meanwhile, which its next reader will find.
Result<bool> find_out(Env& env, const Record& record, int fd, const Result<MeasureQuality>& measure,
                      const KeepGoing& keep_going, Amendment& amendment) {
  auto quality = [&]() -> Result<std::vector<TensorQuality>> {
    QCACHE_TRY(measure);
    return *measure ? (*measure)(fd, keep_going) : std::vector<TensorQuality>();
  }();
  if (quality) {
    amendment.quality = std::move(*quality);
  } else if (quality.error().kind == ErrorKind::kInterrupted) {
    return fail(quality.error());
  } else {
    spdlog::warn("the quality of {} stays unknown: {}", record.virtual_path, quality.error().message);
  }
  QCACHE_TRY_ASSIGN(const auto digest, digest_of_file(env, fd, record.size_bytes, keep_going));
  amendment.sha256 = digest.value_or(Sha256Digest{});
  return digest.has_value();
}

Status commit_amendment(Store& store, const Record& record, const Amendment& amendment) {
  const Status amended = store.catalog().amend(record.file, record.contents(), amendment);
  return !amended && amended.error().kind == ErrorKind::kNotFound ? Status() : amended;  // dropped meanwhile
}

}  // namespace

Status amend_record(Store& store, const Record& record, const FindSource& find_source, const KeepGoing& keep_going) {
  QCACHE_TRY_ASSIGN(const UniqueFd fd, store.open_in_passing(record));
  if (!fd.valid() || record.is_hashed()) {
    return {};
  }
  Amendment amendment;
  QCACHE_TRY_ASSIGN(const bool found,
                    find_out(store.env(), record, fd.get(), find_source(record), keep_going, amendment));
  return found ? commit_amendment(store, record, amendment) : Status();
}

bool Amender::begin(const Record& record) {
  return !stopping_ && !record.is_hashed() && begun_.insert(key_of(record)).second;
}

void Amender::add(const Record& record, MeasureQuality measure, uint64_t source) {
  {
    const MutexLock lock(mutex_);
    if (!begin(record)) {
      return;
    }
  }
  const auto job = std::make_shared<Job>(Job{record, std::move(measure), source, {}, {}});
  pool_.submit(Priority::kFill, [this, job] { find(job); });
}

Status Amender::look() {
  QCACHE_TRY_ASSIGN(std::vector<Record> records, store_.catalog().list());
  {
    const MutexLock lock(mutex_);
    std::erase_if(records, [&](const Record& record) QCACHE_REQUIRES(mutex_) { return !begin(record); });
  }
  for (const Record& record : records) {
    pool_.submit(Priority::kFill, [this, record] {
      const auto job = std::make_shared<Job>(Job{record, find_source_(record), 0, {}, {}});
      find(job);
    });
  }
  return {};
}

bool Amender::goes_on(const Record& record, const Result<bool>& step) {
  if (step && *step) {
    return true;
  }
  if (!step && step.error().kind != ErrorKind::kInterrupted) {
    spdlog::warn("the SHA-256 of {} stays unknown: {}", record.virtual_path, step.error().message);
  }
  const MutexLock lock(mutex_);
  begun_.erase(key_of(record));
  return false;
}

void Amender::find(const std::shared_ptr<Job>& job) {
  const auto found = contain_exceptions("cannot open a cached file", [&]() -> Result<bool> {
    QCACHE_TRY_ASSIGN(job->fd, store_.open_in_passing(job->record));
    return job->fd.valid();
  });
  if (goes_on(job->record, found)) {
    idle_pool_.submit(
        Priority::kFill, [this, job] { examine(job); }, job->source);
  }
}

void Amender::examine(const std::shared_ptr<Job>& job) {
  make_thread_idle();
  const auto found = contain_exceptions("cannot hash a cached file", [&] {
    return find_out(
        store_.env(), job->record, job->fd.get(), job->measure, [this] { return may_go_on(); }, job->amendment);
  });
  if (goes_on(job->record, found)) {
    pool_.submit(Priority::kFill, [this, job] { commit(*job); });
  }
}

void Amender::commit(const Job& job) {
  const auto committed = contain_exceptions("cannot record what was found", [&]() -> Result<bool> {
    QCACHE_TRY(commit_amendment(store_, job.record, job.amendment));
    return false;
  });
  (void)goes_on(job.record, committed);
}

bool Amender::is_done() const {
  const MutexLock lock(mutex_);
  return begun_.empty();
}

bool Amender::may_go_on() {
  const MutexLock lock(mutex_);
  return !stopping_;
}

void Amender::stop() {
  const MutexLock lock(mutex_);
  stopping_ = true;
}

}  // namespace qcache
