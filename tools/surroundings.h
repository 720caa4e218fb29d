#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/command.h"
#include "tools/named_files.h"

namespace qcache {

/// What the commands on models know of their surroundings. One rule for all of them says which cache directory is
/// meant: that of --cache-dir, else that of the mount which shows what was named, else as choose_cache_directory().
class Surroundings {
 public:
  /// `cache_dir`: the option, which may be empty.
  Surroundings(CommandContext& context, std::string cache_dir)
      : context_(context), cache_dir_(std::move(cache_dir)), mounts_(find_mounts(context)) {}

  [[nodiscard]] CommandContext& context() const { return context_; }
  [[nodiscard]] Env& env() const { return context_.env; }
  [[nodiscard]] const Mounts& mounts() const { return mounts_; }

  /// As resolve_names; what a running mount shows becomes a MountPath, and a name that none knows may be that of a
  /// folder in the working directory, or of a model in the user's hub cache. Fails as find_in_mounts() too.
  [[nodiscard]] Result<NamedFiles> resolve(const NameWords& words) const;

  /// The cache directory of a command that names nothing, or `names`.
  [[nodiscard]] Result<std::string> cache_directory() const;
  [[nodiscard]] Result<std::string> cache_directory_of(const NamedFiles& names) const;
  /// The same for a command that only looks: where cache_directory() would ask, all that this user's mounts use.
  [[nodiscard]] std::vector<std::string> every_cache_directory() const;

  /// The running mount's folder for a model's folder on disk. Only models called like the folder are asked: asking
  /// reads their headers. Fails as the_one_meant().
  [[nodiscard]] Result<std::optional<MountPath>> mount_showing(const FolderPath& folder) const;

  /// That nobody knows a model of this name, or that `place`, where it is one, has none; with one that may be meant,
  /// and with mounts that are dead.
  [[nodiscard]] Error unknown_model(const std::string& name, const RunningMount* place = nullptr) const;

 private:
  /// Whether a mount's files are in the cache directory that was asked for.
  [[nodiscard]] bool counts(const RunningMount& mount) const;

  CommandContext& context_;
  const std::string cache_dir_;
  const Mounts mounts_;
};

/// Adds MODEL, DTYPE and FILE; returns MODEL, which is not required yet.
CLI::Option* add_name_options(CLI::App& command, NameWords& words, const std::string& model_help);

[[nodiscard]] Error no_weights(const FolderPath& folder);
/// The error of reading a model, as one of the model: that its files may not be read says nothing of the cache
/// directory.
[[nodiscard]] Error of_model(Error error);

}  // namespace qcache
