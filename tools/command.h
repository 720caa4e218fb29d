#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/env.h"
#include "core/base/log.h"
#include "tools/exit_code.h"

namespace qcache {

/// Where a command reads and writes, so that tests run commands inside their own process.
struct CommandContext {
  Env& env;
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  std::istream* in = nullptr;  ///< where a person at the terminal answers what `err` asks; null where nobody does
  uint64_t ask_above_bytes = uint64_t{10} << 30U;  ///< how much is dropped without a question to a person
  bool color = false;  ///< whether output may be coloured: on a terminal, and NO_COLOR is not set
  std::string mount_table = "/proc/self/mountinfo";  ///< where running mounts are looked for
};

/// Adds one or more subcommands to `app`. When its subcommand was given, parsing runs the command and stores its result
/// in `exit`.
void add_mount_commands(CLI::App& app, CommandContext& context, ExitCode& exit);  // mount, unmount
void add_list_command(CLI::App& app, CommandContext& context, ExitCode& exit);    // ls
void add_cache_commands(CLI::App& app, CommandContext& context, ExitCode& exit);  // gc, verify
void add_file_commands(CLI::App& app, CommandContext& context, ExitCode& exit);   // rm, pin, unpin
void add_info_command(CLI::App& app, CommandContext& context, ExitCode& exit);
void add_warm_command(CLI::App& app, CommandContext& context, ExitCode& exit);
void add_status_command(CLI::App& app, CommandContext& context, ExitCode& exit);
void add_doctor_command(CLI::App& app, CommandContext& context, ExitCode& exit);

/// The whole command: `arguments` without the program's name. Also acts as mount helper when `program` is
/// "mount.fuse.qcache" or the like. Never throws.
ExitCode run_command(const std::string& program, const std::vector<std::string>& arguments, CommandContext& context);

/// What CLI11 is to call for a subcommand: runs `body`, with what the core has to say from `log_level` on going to
/// standard error, and stores what it returns, or reports its error.
std::function<void()> subcommand(CommandContext& context, ExitCode& exit, std::function<Result<ExitCode>()> body,
                                 spdlog::level::level_enum log_level = spdlog::level::warn);

/// For options whose absence means a default, which an empty variable of a script does not ask for.
[[nodiscard]] CLI::Validator not_empty();

/// Adds the options that several commands have.
void add_cache_dir_option(CLI::App& command, std::string& cache_dir);
void add_json_flag(CLI::App& command, bool& json);

/// Prints "qcache: <message>" and returns the code that goes with the error.
ExitCode report(CommandContext& context, const Error& error);

}  // namespace qcache
