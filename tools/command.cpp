#include "tools/command.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <ostream>
#include <utility>

#include <fmt/format.h>

#include "core/base/log.h"
#include "core/model/text.h"
#include "tools/help_formatter.h"
#include "tools/human_text.h"
#include "tools/interrupt_watch.h"
#include "tools/mount_request.h"
#include "tools/suggestion.h"

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
  if (const Status mounted = perform_mount(context, std::move(*request)); !mounted) {
    report(context, mounted.error());
    return ExitCode::kMountHelperFailed;
  }
  return ExitCode::kOk;
}

Error unknown_command(const CLI::App& app, const std::string& word) {
  std::vector<std::string> names = {"help", "version"};
  for (const CLI::App* const command : app.get_subcommands(nullptr)) {
    names.push_back(command->get_name());
  }
  // What other programs call it.
  static constexpr std::array kOthers = {
      std::pair("list", "ls"),  std::pair("remove", "rm"),    std::pair("delete", "rm"), std::pair("clean", "gc"),
      std::pair("prune", "gc"), std::pair("check", "verify"), std::pair("show", "info"), std::pair("pull", "warm")};
  const auto* const other =
      std::find_if(kOthers.begin(), kOthers.end(), [&](const auto& one) { return word == one.first; });
  const std::string guess =
      other != kOthers.end() ? fmt::format("; did you mean {}?", other->second) : did_you_mean(word, names);
  return Error{
      ErrorKind::kInvalidArgument, 0,
      fmt::format("unknown command {}{}", in_quotes(word), guess.empty() ? ": 'qcache --help' lists them" : guess)};
}

// "help", "help ls" and "version" are what people try first.
std::vector<std::string> as_cli11_takes_them(std::vector<std::string> arguments) {
  if (!arguments.empty() && arguments[0] == "help") {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  } else if (arguments.size() == 1 && arguments[0] == "version") {
    arguments[0] = "--version";
  } else if (const auto end = std::find(arguments.begin(), arguments.end(), "--");
             !arguments.empty() && arguments[0] == "mount" && end != arguments.end()) {
    // CLI11 does not take it before as many words as one likes. All of them are paths here.
    std::for_each(end + 1, arguments.end(),
                  [](std::string& word) { word = word.starts_with('-') ? "./" + word : word; });
    arguments.erase(end);
  }
  return arguments;
}

// As a shell says it of a program that the signal has ended.
ExitCode interrupted_by(int signal) {
  constexpr int kSignals = 128;
  return signal == 0 ? ExitCode::kInterrupted : static_cast<ExitCode>(kSignals + signal);
}

std::string parse_failure(const CLI::App* app, const CLI::Error& error) {
  const auto given = app->get_subcommands();
  const CLI::App* const command = given.empty() ? app : given[0];
  std::string text = error.what();
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && given.empty()) {
    text = "name a command";
  } else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    text = text.substr(0, text.find(':')) + " needs a value";
  } else if (const size_t first = text.find(": -");
             dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && first != std::string::npos) {
    const std::string rest = text.substr(first + 2);
    const std::string word = rest.substr(0, rest.find(' '));
    std::vector<std::string> options;
    for (const CLI::Option* const option : command->get_options()) {
      options.push_back(option->get_name());
    }
    text = "unknown option " + in_quotes(word) + did_you_mean(word, options);
  }
  return fmt::format("qcache: {}\nSee 'qcache{}{} --help'.\n", printable(text), given.empty() ? "" : " ",
                     given.empty() ? "" : command->get_name());
}

}  // namespace

ExitCode report(CommandContext& context, const Error& error) {
  context.err << "qcache: " << printable(error.message) << '\n';
  return exit_code_of(error);
}

std::function<void()> subcommand(CommandContext& context, ExitCode& exit, std::function<Result<ExitCode>()> body,
                                 spdlog::level::level_enum log_level) {
  return [&context, &exit, body = std::move(body), log_level] {
    // What the core does is the output of a command already; its log would repeat it.
    if (const Status logging = start_logging({"", log_level}); !logging) {
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
      ->option_text("DIR")
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
    app.formatter(std::make_shared<HelpFormatter>());  // before the subcommands, which take it over
    app.require_subcommand(1);
    ExitCode exit = ExitCode::kOk;
    add_mount_commands(app, context, exit);
    add_status_command(app, context, exit);
    add_list_command(app, context, exit);
    add_info_command(app, context, exit);
    add_warm_command(app, context, exit);
    add_file_commands(app, context, exit);
    add_cache_commands(app, context, exit);
    add_doctor_command(app, context, exit);
    app.failure_message(parse_failure);
    const std::vector<std::string> words = as_cli11_takes_them(arguments);
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
    return exit == ExitCode::kInterrupted ? interrupted_by(InterruptWatch::signal()) : exit;
  } catch (const std::exception& e) {
    return report(context, Error{ErrorKind::kInternal, 0, e.what()});
  }
}

}  // namespace qcache
