#include <algorithm>
#include <memory>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/model/text.h"
#include "tools/cache_entries.h"
#include "tools/human_text.h"
#include "tools/interrupt_watch.h"
#include "tools/mount_attributes.h"
#include "tools/surroundings.h"
#include "tools/warming.h"

namespace qcache {
namespace {

struct WarmWords {
  NameWords names;
  std::string cache_dir;
  bool all = false;
  bool json = false;
};

using Targets = std::vector<std::unique_ptr<WarmTarget>>;

// The running mount's folder for a model's folder on disk. Only models called like the folder are asked: asking reads
// their headers.
std::optional<MountPath> mount_showing(const Surroundings& around, const FolderPath& folder) {
  for (const RunningMount& mount : around.mounts.running) {
    const auto names = around.context.env.list(mount.mount_point);
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      MountPath place{mount, {name}};
      if (name.ends_with(folder.name) && attribute_or_empty(place.full_path(), "source") == folder.path) {
        return place;
      }
    }
  }
  return std::nullopt;
}

Error dtype_not_served(const std::string& dtype, const std::string& model, std::string_view served,
                       std::string_view refusal) {
  if (!refusal.empty()) {
    return Error{ErrorKind::kInvalidModel, 0,
                 fmt::format("{} cannot be served as {}: {}", in_quotes(model), dtype, refusal)};
  }
  return Error{ErrorKind::kNotFound, 0,
               fmt::format("{} is not served as {}; choose from: {}", in_quotes(model), in_quotes(dtype), served)};
}

// The line "<dtype>: <why not>" of the mount's attribute.
std::string_view refusal_in(std::string_view refused, const std::string& dtype) {
  const std::string head = dtype + ": ";
  while (!refused.empty()) {
    const std::string_view line = refused.substr(0, refused.find('\n'));
    if (line.starts_with(head)) {
      return line.substr(head.size());
    }
    refused.remove_prefix(std::min(line.size() + 1, refused.size()));
  }
  return {};
}

// Why the mount does not have the file, or its folder, that was asked for.
Error not_in_mount(Env& env, const MountPath& file, const std::string& served) {
  const std::string& dtype = file.names[1];
  const MountPath model{file.mount, {file.names[0]}};
  const MountPath folder{file.mount, {file.names[0], dtype}};
  if (env.stat(folder.full_path())) {
    return Error{ErrorKind::kNotFound, 0, fmt::format("there is no {}", in_quotes(file.full_path()))};
  }
  const Scheme* scheme = find_scheme(dtype);
  const std::string canonical(scheme != nullptr ? scheme->name() : std::string_view(dtype));
  const std::string refused = attribute_or_empty(model.full_path(), "refused");
  return dtype_not_served(canonical, file.names[0], served, refusal_in(refused, canonical));
}

Result<Targets> targets_in_mount(Env& env, const MountPath& place, bool all) {
  const MountPath model{place.mount, {place.names[0]}};
  if (place.names[0].starts_with('.') || !env.stat(model.full_path())) {
    return fail(unknown_model(place.names[0]));
  }
  if (const std::string error = attribute_or_empty(model.full_path(), "error"); !error.empty()) {
    return fail(ErrorKind::kInvalidModel, error);
  }
  const std::string served = attribute_or_empty(model.full_path(), "dtypes");  // "bf16 int8"
  Targets targets;
  if (all) {
    for (size_t begin = 0; begin < served.size();) {
      const size_t end = std::min(served.find(' ', begin), served.size());
      targets.push_back(
          warm_target_in_mount(env, {place.mount, {place.names[0], served.substr(begin, end - begin), "0.bin"}}));
      begin = end + 1;
    }
    return targets;
  }
  for (const MountPath& file : files_meant(env, place)) {
    if (const auto stat = env.stat(file.full_path()); !stat) {
      return fail(stat.error().kind == ErrorKind::kNotFound ? not_in_mount(env, file, served) : stat.error());
    }
    targets.push_back(warm_target_in_mount(env, file));
  }
  return targets;
}

Result<Targets> targets_in_engine(Engine& engine, const std::string& model, const NamedFiles& names, bool all) {
  const auto read = engine.model(model);
  if (!read) {
    return fail(of_model(read.error()));
  }
  const std::shared_ptr<const SourceModel>& source = *read;
  Targets targets;
  std::string served;
  std::string refusal;
  for (const DtypeInfo& dtype : Engine::dtypes(*source)) {
    const bool wanted = all || names.dtype == dtype.scheme->name();
    if (!dtype.refusal.empty()) {
      refusal = wanted ? dtype.refusal : refusal;
      continue;
    }
    served += fmt::format("{}{}", served.empty() ? "" : " ", dtype.scheme->name());
    if (wanted) {
      targets.push_back(warm_target_in_engine(engine, ArtifactName{model, dtype.scheme, names.rank.value_or(0),
                                                                   names.kind.value_or(ArtifactKind::kCheckpoint)}));
    }
  }
  if (targets.empty()) {
    return fail(dtype_not_served(names.dtype.value_or("any dtype"), model, served, refusal));
  }
  return targets;
}

void print_warmed(std::ostream& out, const std::string& path, const WarmReport& report) {
  if (report.was_complete) {
    fmt::print(out, "{} is complete already ({})\n", printable(path), format_size(report.size_bytes));
    return;
  }
  constexpr double kShortest = 1e-3;
  fmt::print(out, "{} is complete: {} in {:.1f} s, {}\n", printable(path), format_size(report.size_bytes),
             report.seconds, format_rate(static_cast<double>(report.size_bytes) / std::max(report.seconds, kShortest)));
}

// One after the other: each uses all cores by itself. A file that fails does not keep the others.
ExitCode warm_all(CommandContext& context, const Targets& targets, bool json) {
  const InterruptWatch watch;
  const auto style = json                      ? ProgressBar::Style::kSilent
                     : context.out_is_terminal ? ProgressBar::Style::kTerminal
                                               : ProgressBar::Style::kLines;
  ProgressBar bar(context.out, style, terminal_columns());
  ExitCode exit = ExitCode::kOk;
  Json files = Json::array();
  for (const auto& target : targets) {
    const auto done = warm_and_wait(*target, bar);
    bar.clear();
    if (!done) {
      const ExitCode code = report(context, done.error());
      exit = exit == ExitCode::kOk ? code : exit;
      files.push_back(Json{{"path", target->path()}, {"complete", false}, {"error", done.error().message}});
      if (done.error().kind == ErrorKind::kInterrupted) {
        break;
      }
      continue;
    }
    files.push_back(Json{{"path", target->path()},
                         {"complete", true},
                         {"size_bytes", done->size_bytes},
                         {"was_complete", done->was_complete},
                         {"seconds", done->seconds}});
    if (!json) {
      print_warmed(context.out, target->path(), *done);
    }
  }
  if (json) {
    context.out << json_text({{"files", files}});
  }
  return exit;
}

Result<ExitCode> warm_in_process(const Surroundings& around, const NamedFiles& names, const FolderPath& folder,
                                 const WarmWords& words) {
  if (folder.name.empty()) {
    return fail(no_weights(folder));
  }
  EngineOptions options;
  // A mount of this folder calls the model the same, and so finds these bytes.
  options.roots = {folder.root};
  options.cache_directory = around.cache_directory;
  options.aging_interval = std::chrono::seconds::zero();  // whoever warms a file does not mean to drop others
  QCACHE_TRY_ASSIGN(const std::unique_ptr<Engine> engine, Engine::start(around.context.env, options));
  QCACHE_TRY_ASSIGN(const Targets targets, targets_in_engine(*engine, folder.name, names, words.all));
  return warm_all(around.context, targets, words.json);
}

Result<ExitCode> warm(CommandContext& context, const WarmWords& words) {
  QCACHE_TRY_ASSIGN(const Surroundings around, Surroundings::look_around(context, words.cache_dir));
  QCACHE_TRY_ASSIGN(NamedFiles names, around.resolve(words.names));
  if (const auto* folder = std::get_if<FolderPath>(&names.what)) {
    if (auto shown = mount_showing(around, *folder)) {
      const std::vector<std::string> below = names_below_model(names);
      shown->names.insert(shown->names.end(), below.begin(), below.end());
      names.what = std::move(*shown);
    }
  }
  const auto* place = std::get_if<MountPath>(&names.what);
  const auto* folder = std::get_if<FolderPath>(&names.what);
  if (std::holds_alternative<ModelName>(names.what)) {
    return fail(unknown_model(std::get<ModelName>(names.what).name));
  }
  if ((place == nullptr && folder == nullptr) || (place != nullptr && place->names.empty())) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} is not a model: name one", in_quotes(names.text)));
  }
  const bool has_dtype = place != nullptr ? place->names.size() > 1 : names.dtype.has_value();
  if (has_dtype == words.all) {
    return fail(ErrorKind::kInvalidArgument,
                words.all ? "name a dtype or --all, not both" : "name a dtype, such as int8, or --all");
  }
  if (folder != nullptr) {
    return warm_in_process(around, names, *folder, words);
  }
  QCACHE_TRY_ASSIGN(const Targets targets, targets_in_mount(context.env, *place, words.all));
  return warm_all(context, targets, words.json);
}

}  // namespace

void add_warm_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("warm", "Make quantized files complete before they are read");
  auto words = std::make_shared<WarmWords>();
  command
      ->add_option("model", words->names.model,
                   "A model's name in a mount or its folder, or the path of a file in a mount")
      ->required();
  command->add_option("dtype", words->names.dtype, "The dtype, such as int8")->check(not_empty());
  command
      ->add_option("rank", words->names.rank,
                   "The rank or file: 16, 0.bin (the default), or 0/model.safetensors, which from_pretrained reads")
      ->check(not_empty());
  command->add_flag("--all", words->all, "Every dtype that the model can be served in");
  add_cache_dir_option(*command, words->cache_dir);
  add_json_flag(*command, words->json);
  command->footer(
      "A running mount that shows the model does the work; else this command does, in the cache directory that mounts "
      "share. Ctrl-C stops it; what is made stays.\n\nExample:\n  qcache warm Qwen2.5-0.5B int8");
  command->callback(
      subcommand(context, exit, [&context, words]() -> Result<ExitCode> { return warm(context, *words); }));
}

}  // namespace qcache
