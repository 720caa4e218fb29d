#include "tools/command.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <ostream>
#include <utility>

#include <fmt/format.h>

#include "core/base/log.h"
#include "core/model/text.h"
#include "tools/human_text.h"
#include "tools/mount_request.h"

namespace qcache {
namespace {

// mount(8) runs /sbin/mount.fuse.qcache; mount.fuse3 runs `qcache SPEC DIR -o ...`.
bool called_as_mount_helper(const std::string& program, const std::vector<std::string>& arguments) {
  const std::string name = std::filesystem::path(program).filename().string();
  return name.starts_with("mount.") || (arguments.size() >= 2 && arguments[0].starts_with("/"));
}

ExitCode run_mount_helper(const std::vector<std::string>& arguments, CommandContext& context) {
  auto request = parse_helper_arguments(arguments);
  if (!request) {
    report(context, request.error());
    return ExitCode::kMountHelperUsage;
  }
  if (const Status mounted = perform_mount(context.env, std::move(*request)); !mounted) {
    report(context, mounted.error());
    return ExitCode::kMountHelperFailed;
  }
  return ExitCode::kOk;
}

// Letters to insert, delete or exchange until one word is the other (Levenshtein).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t exchanged = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, exchanged});
    }
  }
  return row.back();
}

Error unknown_command(const CLI::App& app, const std::string& word) {
  constexpr size_t kMostTypos = 2;
  std::string nearest;
  size_t typos = kMostTypos + 1;
  for (const CLI::App* const command : app.get_subcommands(nullptr)) {
    if (const size_t apart = distance(word, command->get_name()); apart < typos) {
      typos = apart;
      nearest = command->get_name();
    }
  }
  return Error{ErrorKind::kInvalidArgument, 0,
               nearest.empty()
                   ? fmt::format("there is no command {}: 'qcache --help' lists them", in_quotes(word))
                   : fmt::format("there is no command {}: did you mean {}?", in_quotes(word), in_quotes(nearest))};
}

// "help" and "help ls" are what people try first.
std::vector<std::string> with_help_as_option(std::vector<std::string> arguments) {
  if (!arguments.empty() && arguments[0] == "help") {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  }
  return arguments;
}

std::string parse_failure(const CLI::App* app, const CLI::Error& error) {
  const auto given = app->get_subcommands();
  return fmt::format("qcache: {}\nSee 'qcache{}{} --help'.\n", printable(error.what()), given.empty() ? "" : " ",
                     given.empty() ? "" : given[0]->get_name());
}

}  // namespace

ExitCode report(CommandContext& context, const Error& error) {
  context.err << "qcache: " << printable(error.message) << '\n';
  return exit_code_of(error);
}

std::function<void()> subcommand(CommandContext& context, ExitCode& exit, std::function<Result<ExitCode>()> body) {
  return [&context, &exit, body = std::move(body)] {
    // What the core does is the output of a command already; its log would repeat it.
    if (const Status logging = start_logging({"", spdlog::level::warn}); !logging) {
      exit = report(context, logging.error());
      return;
    }
    const Result<ExitCode> done = body();
    exit = done ? *done : report(context, done.error());
  };
}

CLI::Validator not_empty() {
  return {[](const std::string& text) { return std::string(text.empty() ? "needs a value that is not empty" : ""); },
          ""};
}

void add_cache_dir_option(CLI::App& command, std::string& cache_dir) {
  command
      .add_option("--cache-dir", cache_dir,
                  "The cache directory (default: $QWEN_CACHE, else that of your running mounts, else "
                  "~/.cache/qwen_quantized)")
      ->check(not_empty());
}

void add_json_flag(CLI::App& command, bool& json) {
  command.add_flag("--json", json, "Print one JSON document");
}

ExitCode run_command(const std::string& program, const std::vector<std::string>& arguments, CommandContext& context) {
  try {
    if (called_as_mount_helper(program, arguments)) {
      return run_mount_helper(arguments, context);
    }
    CLI::App app("Quantized models as plain files: <mount>/<model>/<dtype>/0.bin", "qcache");
    app.set_version_flag("--version", "qcache " QCACHE_VERSION);
    app.require_subcommand(1);
    ExitCode exit = ExitCode::kOk;
    add_mount_commands(app, context, exit);
    add_cache_commands(app, context, exit);
    add_file_commands(app, context, exit);
    add_info_command(app, context, exit);
    add_warm_command(app, context, exit);
    app.failure_message(parse_failure);
    const std::vector<std::string> words = with_help_as_option(arguments);
    const std::string first = words.empty() ? std::string() : words[0];
    const auto known = app.get_subcommands([&](const CLI::App* command) { return command->check_name(first); });
    if (!first.empty() && !first.starts_with('-') && known.empty()) {
      return report(context, unknown_command(app, first));
    }
    try {
      std::vector<std::string> reversed(words.rbegin(), words.rend());  // CLI11 takes them backwards
      app.parse(reversed);
    } catch (const CLI::ParseError& e) {
      const int code = app.exit(e, context.out, context.err);
      return code == 0 ? ExitCode::kOk : ExitCode::kUsage;
    }
    return exit;
  } catch (const std::exception& e) {
    return report(context, Error{ErrorKind::kInternal, 0, e.what()});
  }
}

}  // namespace qcache
