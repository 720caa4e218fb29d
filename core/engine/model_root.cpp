#include "core/engine/model_root.h"

#include <algorithm>

#include "core/base/contain_exceptions.h"

namespace qcache {
namespace {

// A walk that takes so long is shared, and remembered for a while from its end.
constexpr std::chrono::milliseconds kLongWalk{200};
constexpr std::chrono::seconds kRemembered{1};
// A lookup that takes so long had to list a large folder, which nobody will have to after another walk.
constexpr std::chrono::milliseconds kLongLookup{2};
// A walk that has not moved for so long has met a filesystem that stopped.
constexpr std::chrono::seconds kWalkStops{2};
// What others wait for the answer of one folder about one name: less than anybody notices where it is known already.
constexpr std::chrono::milliseconds kAnswers{30};
constexpr std::chrono::seconds kFirstAnswer{1};
constexpr std::chrono::seconds kGoesOn{2};
constexpr size_t kMostToldLate = 10'000;

}  // namespace

ModelRoot::ModelRoot(Env& env, std::string path, std::shared_ptr<MountWatch> mounts, SourceFolders folders)
    : env_(env), path_(std::move(path)), mounts_(std::move(mounts)), folders_(std::move(folders)) {}

void ModelRoot::stop() {
  walker_.stop();
  askers_.stop();
}

void ModelRoot::begin() {
  walking_ = true;
  ++begun_;
  began_at_ = Clock::now();
  moved_at_ = began_at_;
  steps_seen_ = steps_;
  walker_.run([self = shared_from_this(), before = last_] {
    std::shared_ptr<const RootWalk> walk;
    const Status done = contain_exceptions("cannot look for models", [&]() -> Status {
      walk = walk_root(self->env_, self->folders_, self->path_, *self->mounts_->now(), before.get(), self->steps_);
      return {};
    });
    if (!done) {
      auto failed = std::make_shared<RootWalk>();
      failed->problems.push_back(done.error().message);
      walk = std::move(failed);
    }
    const MutexLock lock(self->mutex_);
    self->last_ = std::move(walk);
    self->told_late_.clear();
    self->walking_ = false;
    self->ended_ = self->begun_;
    self->ended_at_ = Clock::now();
    self->changed_.notify_all();
  });
}

void ModelRoot::begin_walk() {
  const MutexLock lock(mutex_);
  if (!walking_) {
    begin();
  }
}

bool ModelRoot::moves() {
  const uint64_t steps = steps_;
  const Clock::time_point now = Clock::now();
  if (steps != steps_seen_) {
    steps_seen_ = steps;
    moved_at_ = now;
  }
  return now - moved_at_ < kWalkStops;
}

ModelRoot::Seen ModelRoot::walk() {
  constexpr std::chrono::milliseconds kLook{100};
  const MutexLock lock(mutex_);
  const uint64_t begun_before = begun_;
  for (;;) {
    const bool took_long = ended_at_ - began_at_ >= kLongWalk;
    if (!walking_ && (ended_ > begun_before || (last_ && took_long && Clock::now() - ended_at_ < kRemembered))) {
      return {last_, true};
    }
    if (walking_ && !moves()) {
      return {last_, false};
    }
    if (!walking_) {
      begin();
    }
    changed_.wait_for(mutex_, kLook);
  }
}

ModelRoot::Answer ModelRoot::as_last_seen(const std::string& name) const {
  Answer out;
  out.answered = false;
  out.walked = last_ != nullptr;
  if (const auto told = told_late_.find(name); told != told_late_.end()) {
    out.lookup.found = told->second;
  } else if (last_) {
    const auto path = last_->paths.find(name);
    if (path != last_->paths.end()) {
      out.lookup.found = FoundModel{name, path->second};
    }
  }
  return out;
}

ModelRoot::Answer ModelRoot::look_up(const std::string& name) {
  const std::shared_ptr<const MountTable> mounts = mounts_->now();
  std::shared_ptr<const RootWalk> last;
  {
    const MutexLock lock(mutex_);
    if (late_ > 0) {
      return as_last_seen(name);
    }
    last = last_;
  }
  if (!mounts->may_stop(path_)) {
    const Clock::time_point start = Clock::now();
    Answer answer{look_up_in_root(env_, folders_, path_, *mounts, name, last.get()), true, last != nullptr};
    if (Clock::now() - start >= kLongLookup) {
      const MutexLock lock(mutex_);
      if (!walking_ && (!last_ || Clock::now() - ended_at_ >= kRemembered)) {
        begin();
      }
    }
    return answer;
  }

  struct Question {
    RootLookup lookup;  // what follows is guarded by the root's mutex
    bool done = false;
    bool late = false;
  };
  const auto question = std::make_shared<Question>();
  askers_.run([self = shared_from_this(), question, mounts, last, name] {
    RootLookup lookup;
    const Status done = contain_exceptions("cannot look for the model", [&]() -> Status {
      lookup = look_up_in_root(self->env_, self->folders_, self->path_, *mounts, name, last.get());
      return {};
    });
    if (!done) {
      lookup.problems.push_back(done.error().message);
    }
    const MutexLock lock(self->mutex_);
    if (question->late) {
      --self->late_;
      if (self->told_late_.size() >= kMostToldLate) {
        self->told_late_.clear();
      }
      self->told_late_[name] = lookup.found;
    }
    question->lookup = std::move(lookup);
    question->done = true;
    self->changed_.notify_all();
  });
  const MutexLock lock(mutex_);
  const Clock::time_point until = Clock::now() + (last ? std::chrono::milliseconds(kAnswers) : kFirstAnswer);
  while (!question->done) {
    const auto left = until - Clock::now();
    if (left <= std::chrono::nanoseconds(0)) {
      question->late = true;
      if (late_++ == 0) {
        late_since_ = Clock::now();
      }
      return as_last_seen(name);
    }
    changed_.wait_for(mutex_, left);
  }
  return {std::move(question->lookup), true, last != nullptr};
}

bool ModelRoot::wait_until_it_goes_on() {
  const MutexLock lock(mutex_);
  while (late_ > 0) {
    const auto left = late_since_ + kGoesOn - Clock::now();
    if (left <= std::chrono::nanoseconds(0)) {
      return false;
    }
    changed_.wait_for(mutex_, left);
  }
  return true;
}

std::optional<std::chrono::seconds> ModelRoot::stopped_for() const {
  const MutexLock lock(mutex_);
  const Clock::time_point now = Clock::now();
  std::optional<Clock::time_point> since;
  if (late_ > 0) {
    since = late_since_;
  }
  if (walking_ && steps_ == steps_seen_ && now - moved_at_ >= kWalkStops) {
    since = std::min(since.value_or(moved_at_), moved_at_);
  }
  return since ? std::optional(std::chrono::duration_cast<std::chrono::seconds>(now - *since)) : std::nullopt;
}

}  // namespace qcache
