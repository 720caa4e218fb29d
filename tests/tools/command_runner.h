#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/fake_env.h"
#include "tests/support/temp_dir.h"
#include "tools/command.h"

namespace qcache {

/// What a command printed and returned.
struct Ran {
  ExitCode exit = ExitCode::kOk;
  std::string out;
  std::string err;

  /// The output as JSON; discarded (and so equal to nothing) where it is none.
  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(out, nullptr, false); }
};

/// Runs commands in this process on folders of its own: models/, cache/, and mnt/, which is made to look like a mount
/// by show_mount(). The machine's own mounts are hidden.
class CommandRunner {
 public:
  CommandRunner();

  /// `qcache WORDS...`. Adds --cache-dir for the commands that have it, unless told not to.
  Ran run(std::vector<std::string> words);
  Ran run_as_is(const std::vector<std::string>& words);
  /// With somebody at the terminal, who types `answer` when asked.
  Ran run_on_terminal(const std::vector<std::string>& words, const std::string& answer = "");

  /// Writes a small model in bf16 that every dtype can serve.
  void write_model(const std::string& name) const;
  /// Makes the `0.bin` of a model complete.
  void warm(const std::string& name, const std::string& dtype);
  /// Begins a file of a model and makes nothing of it.
  void begin(const std::string& name, const std::string& dtype);
  /// A folder with the control files and attributes of a mount, at mnt/; `user_id` is who mounted it.
  void show_mount(uint32_t user_id);

  /// Instead of 10G.
  void ask_above(uint64_t bytes) { ask_above_bytes_ = bytes; }

  [[nodiscard]] std::string cache() const { return dir_ / "cache"; }
  [[nodiscard]] std::string models() const { return dir_ / "models"; }
  [[nodiscard]] std::string mount() const { return dir_ / "mnt"; }
  [[nodiscard]] std::string model(const std::string& name) const { return models() + '/' + name; }
  /// The path of a complete file in the cache directory.
  [[nodiscard]] std::string sealed_path(const std::string& name, const std::string& dtype) const;
  [[nodiscard]] FakeEnv& env() { return env_; }
  [[nodiscard]] const TempDir& dir() const { return dir_; }

 private:
  Ran run_with(const std::vector<std::string>& words, bool terminal, std::istream* answers);

  TempDir dir_;
  FakeEnv env_;
  std::optional<uint64_t> ask_above_bytes_;
};

/// The extended attribute `user.qcache.<name>`, as a mount would have it. Throws where the filesystem has none.
void set_test_attribute(const std::string& path, const std::string& name, const std::string& value);
/// Empty where there is none.
[[nodiscard]] std::string test_attribute(const std::string& path, const std::string& name);
[[nodiscard]] bool attributes_work_in(const std::string& folder);

/// A value of the environment for as long as this lives; null: not set. One thread.
class EnvironmentValue {
 public:
  EnvironmentValue(const char* name, const char* value);
  ~EnvironmentValue();
  EnvironmentValue(const EnvironmentValue&) = delete;
  EnvironmentValue& operator=(const EnvironmentValue&) = delete;

 private:
  const char* const name_;
  std::string previous_;
  bool was_set_ = false;
};

}  // namespace qcache
