#include "tools/warming.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <iterator>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/base/units.h"
#include "core/engine/artifact_name.h"
#include "core/model/text.h"
#include "tools/exit_code.h"
#include "tools/interrupt_watch.h"
#include "tools/mount_attributes.h"
#include "tools/surroundings.h"

namespace qcache {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLookInterval{200};
constexpr std::chrono::milliseconds kLeastLookInterval{5};
// After this long without progress the work is asked for again: somebody else may have stopped or removed it.
constexpr std::chrono::seconds kPatience{10};

constexpr int kFullDisk[] = {ENOSPC, EDQUOT};

ArtifactState parse_state(const std::string& word) {
  for (const ArtifactState state :
       {ArtifactState::kFilling, ArtifactState::kComplete, ArtifactState::kSealed, ArtifactState::kFailed}) {
    if (word == to_string(state)) {
      return state;
    }
  }
  return ArtifactState::kAbsent;
}

class MountTarget final : public WarmTarget {
 public:
  MountTarget(Env& env, const MountPath& place)
      : env_(env), place_(place), path_(fmt::format("{}", fmt::join(place.names, "/"))) {}

  [[nodiscard]] const std::string& path() const override { return path_; }

  Status start() override {
    QCACHE_TRY(refuse_what_would_not_stay());
    Status set = set_attribute(place_.full_path(), "warm", true);
    if (!set && set.error().kind == ErrorKind::kPermission) {
      // Whoever may read a file but not change its attributes makes it whole by having it open.
      set = read_a_little();
    }
    if (!set && set.error().kind == ErrorKind::kPermission) {
      return fail(of_model(set.error()));
    }
    if (!set && set.error().kind == ErrorKind::kNoSpace) {
      return fail(ErrorKind::kNoSpace, fmt::format("there is no room in {}: drop files with 'qcache gc' or 'qcache rm'",
                                                   place_.mount.cache_directory));
    }
    return set;
  }

  [[nodiscard]] Result<WarmState> look() override {
    const std::string file = place_.full_path();
    const auto state_or = get_attribute(file, "state");
    const auto stat_or = env_.stat(file);
    if (!state_or || !stat_or) {
      return fail(lost(state_or ? stat_or.error() : state_or.error()));
    }
    const std::optional<std::string>& state = *state_or;
    const FileStat& stat = *stat_or;
    if (!state) {
      return fail(
          ErrorKind::kInvalidArgument,
          fmt::format("{} is not made by qcache, but read as it is: there is nothing to warm", in_quotes(file)));
    }
    WarmState out;
    out.state = parse_state(*state);
    out.size_bytes = stat.size_bytes;
    const std::string progress = attribute_or_empty(file, "progress");
    std::from_chars(progress.data(), progress.data() + progress.size(), out.progress);
    out.error = attribute_or_empty(file, "error");
    return out;
  }

  void stop() override {
    reader_.reset();
    static_cast<void>(set_attribute(place_.full_path(), "warm", false));  // else it ends with its mount
  }

 private:
  // Why the file can no longer be asked for.
  [[nodiscard]] Error lost(Error error) const {
    if (is_dead_mount(error)) {
      return dead_mount(place_.mount.mount_point);
    }
    if (error.kind == ErrorKind::kNotFound && !env_.stat(place_.mount.mount_point + "/.qcache")) {
      error.message =
          fmt::format("the mount on {} was taken down; what is made stays, and the next warm goes on from there",
                      place_.mount.mount_point);
    }
    return of_model(std::move(error));
  }

  // What is larger than all that the mount keeps would be dropped as soon as it is made.
  [[nodiscard]] Status refuse_what_would_not_stay() const {
    const auto status = nlohmann::json::parse(place_.mount.status, nullptr, false);
    const auto limit = status.is_object() ? status.find("max_size") : status.end();
    if (!status.is_object() || limit == status.end() || !limit->is_number_unsigned()) {
      return {};
    }
    QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(place_.full_path()));
    const auto most = limit->get<uint64_t>();
    return stat.size_bytes <= most
               ? Status()
               : fail(ErrorKind::kNoSpace,
                      fmt::format("it has {}, more than the {} that the mount on {} keeps in all (--max-size)",
                                  format_size(stat.size_bytes), format_size(most), place_.mount.mount_point));
  }

  // In the middle, where the tensors are: reading the head makes nothing, so it does not count as a wish for the rest.
  Status read_a_little() {
    constexpr uint64_t kPieceBytes = uint64_t{64} << 10U;  // no gap between tensors is as long
    if (!reader_.valid()) {
      QCACHE_TRY_ASSIGN(reader_, env_.open(place_.full_path(), O_RDONLY));
    }
    QCACHE_TRY_ASSIGN(const FileStat stat, env_.stat(reader_.get()));
    const uint64_t middle = stat.size_bytes > kPieceBytes ? stat.size_bytes / 2 : 0;
    std::vector<std::byte> piece(kPieceBytes);
    QCACHE_TRY(env_.read_at(reader_.get(), piece, middle));
    return {};
  }

  Env& env_;
  const MountPath place_;
  const std::string path_;
  UniqueFd reader_;
};

class EngineTarget final : public WarmTarget {
 public:
  EngineTarget(Engine& engine, ArtifactName name)
      : engine_(engine), name_(std::move(name)), path_(name_.virtual_path()) {}

  [[nodiscard]] const std::string& path() const override { return path_; }

  Status start() override { return engine_.set_warm(name_, true); }

  [[nodiscard]] Result<WarmState> look() override {
    QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine_.describe(name_));
    QCACHE_TRY_ASSIGN(const double progress, engine_.progress(info));
    return WarmState{info.state, progress, info.size_bytes, info.error};
  }

  void stop() override { static_cast<void>(engine_.set_warm(name_, false)); }

 private:
  Engine& engine_;
  const ArtifactName name_;
  const std::string path_;
};

}  // namespace

std::unique_ptr<WarmTarget> warm_target_in_mount(Env& env, const MountPath& place) {
  return std::make_unique<MountTarget>(env, place);
}

std::unique_ptr<WarmTarget> warm_target_in_engine(Engine& engine, const ArtifactName& name) {
  return std::make_unique<EngineTarget>(engine, name);
}

namespace {

// A mount tells why a file failed by a sentence only.
bool is_full_disk(const std::string& error) {
  return std::any_of(std::begin(kFullDisk), std::end(kFullDisk), [&](int number) {
    return error.find(std::generic_category().message(number)) != std::string::npos;
  });
}

// "Qwen2.5-0.5B int8" for the weights of the folder, else with the file: "Qwen2.5-0.5B int8 16.bin".
std::string label_of(const std::string& path) {
  const auto artifact = parse_artifact_path(path);
  if (!artifact) {
    return path;
  }
  const std::string file = path.substr(artifact->model.size() + artifact->dtype.size() + 2);
  const bool is_folder = artifact->container == &container_folder_weights() && artifact->rank == 0;
  return fmt::format("{} {}{}", artifact->model, artifact->dtype, is_folder ? "" : ' ' + file);
}

}  // namespace

Result<WarmReport> warm_and_wait(WarmTarget& target, ProgressBar& bar) {
  const Clock::time_point began = Clock::now();
  QCACHE_TRY_ASSIGN(WarmState state, target.look());
  WarmReport report;
  report.size_bytes = state.size_bytes;
  if (state.state == ArtifactState::kSealed) {
    report.was_complete = true;
    return report;
  }
  const auto cannot_make = [&](const Error& error) { return fail(error.with_context("cannot make " + target.path())); };
  if (const Status started = target.start(); !started) {
    return cannot_make(started.error());
  }
  bar.start(label_of(target.path()), state.size_bytes, "being checked and sealed");
  double best = -1;
  Clock::time_point last_progress = began;
  for (;;) {
    QCACHE_TRY_ASSIGN(state, target.look());
    if (state.state == ArtifactState::kSealed) {
      break;
    }
    if (state.state == ArtifactState::kFailed) {
      target.stop();  // so that it can be dropped, which may be the way out
      const bool is_full = is_full_disk(state.error);
      return fail(is_full ? ErrorKind::kNoSpace : ErrorKind::kIo,
                  fmt::format("cannot make {}: {}{}", target.path(), state.error,
                              is_full ? "; drop files with 'qcache gc' or 'qcache rm', and warm it again" : ""));
    }
    const Clock::time_point now = Clock::now();
    if (state.progress > best) {
      best = state.progress;
      last_progress = now;
    } else if (state.state == ArtifactState::kAbsent && best >= 1) {
      return fail(ErrorKind::kNoSpace,
                  fmt::format("{} was complete and was dropped at once: by somebody, or because the mount's --max-size "
                              "leaves no room beside what is pinned or in use",
                              target.path()));
    } else if (now - last_progress > (state.state == ArtifactState::kAbsent ? kLookInterval : kPatience)) {
      if (const Status started = target.start(); !started) {
        return cannot_make(started.error());
      }
      best = -1;
    }
    bar.update(static_cast<uint64_t>(state.progress * static_cast<double>(state.size_bytes)));
    if (InterruptWatch::interrupted()) {
      target.stop();
      return fail(ErrorKind::kInterrupted,
                  fmt::format("stopped {}; what is made stays and the next warm goes on from there", target.path()));
    }
    // What is soon made is looked at often.
    const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
    std::this_thread::sleep_for(std::clamp(waited / 16, kLeastLookInterval, kLookInterval));
  }
  bar.clear();
  report.size_bytes = state.size_bytes;
  report.seconds = std::chrono::duration<double>(Clock::now() - began).count();
  return report;
}

}  // namespace qcache
