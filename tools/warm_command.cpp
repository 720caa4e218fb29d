#include <algorithm>
#include <chrono>
#include <memory>
#include <ostream>
#include <thread>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/model/text.h"
#include "tools/cache_entries.h"
#include "tools/human_text.h"
#include "tools/interrupt_watch.h"
#include "tools/model_report.h"
#include "tools/mount_attributes.h"
#include "tools/suggestion.h"
#include "tools/surroundings.h"
#include "tools/warming.h"

namespace qcache {
namespace {

struct WarmWords {
  NameWords names;
  std::string rank;
  std::string cache_dir;
  bool all = false;
  bool json = false;
};

using Targets = std::vector<std::unique_ptr<WarmTarget>>;

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

Error dtype_not_served(const std::string& dtype, const std::string& model, std::string_view served,
                       std::string_view refusal) {
  if (!refusal.empty()) {
    return Error{ErrorKind::kInvalidModel, 0,
                 fmt::format("{} cannot be served as {}: {}", in_quotes(model), dtype, refusal)};
  }
  const std::string guess = did_you_mean(dtype, words_of(served));
  return Error{ErrorKind::kNotFound, 0,
               fmt::format("{} is not served as {}{} choose from: {}", in_quotes(model), in_quotes(dtype),
                           guess.empty() ? ";" : guess + " Or", served)};
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

Error rank_out_of_range(const std::string& model, const std::string& dtype, uint32_t rank, uint64_t largest) {
  return Error{ErrorKind::kNotFound, 0,
               largest == 0 ? fmt::format("{} has only rank 0 as {}, which quantizes nothing", in_quotes(model), dtype)
                            : fmt::format("{} has no rank {} as {}: its ranks are 0 to {}", in_quotes(model), rank,
                                          dtype, largest)};
}

// The largest rank of a model that a mount shows; none where that cannot be told.
std::optional<uint64_t> largest_rank_in_mount(const Surroundings& around, const MountPath& model,
                                              const std::string& dtype) {
  const std::string source = attribute_or_empty(model.full_path(), "source");
  const Scheme* const scheme = find_scheme(dtype);
  if (source.empty() || scheme == nullptr) {
    return std::nullopt;
  }
  const auto read = read_source_model(around.env(), SourceFolders(around.env(), {"/"}), source, model.names[0]);
  return read ? std::optional(largest_rank_of(*read, *scheme)) : std::nullopt;
}

// Why the mount does not have the file, or its folder, that was asked for.
Error not_in_mount(const Surroundings& around, const MountPath& file, const std::string& served) {
  const std::string& dtype = file.names[1];
  const MountPath model{file.mount, {file.names[0]}};
  const MountPath folder{file.mount, {file.names[0], dtype}};
  const Scheme* const scheme = find_scheme(dtype);
  const std::string canonical(scheme != nullptr ? scheme->name() : std::string_view(dtype));
  if (!around.env().stat(folder.full_path())) {
    const std::string refused = attribute_or_empty(model.full_path(), "refused");
    return dtype_not_served(canonical, file.names[0], served, refusal_in(refused, canonical));
  }
  const std::string& name = file.names[2];
  const auto beside_folders = parse_container_path(name);
  const auto rank = beside_folders ? beside_folders->rank : parse_rank(name);
  if (rank.value_or(0) > 0) {
    const auto largest = largest_rank_in_mount(around, model, canonical);
    if (largest && *rank > *largest) {
      return rank_out_of_range(file.names[0], canonical, *rank, *largest);
    }
  }
  return Error{ErrorKind::kNotFound, 0,
               fmt::format("there is no {}; 'qcache info {}' lists the files", in_quotes(file.full_path()),
                           printable(file.names[0]))};
}

// Where the files lie that are meant: `place`, or with `all` the same of every dtype.
std::vector<MountPath> places_meant(const MountPath& place, const std::string& served, const WarmWords& words) {
  if (!words.all) {
    return {place};
  }
  std::vector<MountPath> places;
  for (const std::string& dtype : words_of(served)) {
    MountPath& of_dtype = places.emplace_back(MountPath{place.mount, {place.names[0], dtype}});
    if (!words.rank.empty()) {
      of_dtype.names.push_back(words.rank);
    }
  }
  return places;
}

Result<Targets> targets_in_mount(const Surroundings& around, const MountPath& place, const WarmWords& words) {
  const MountPath model{place.mount, {place.names[0]}};
  if (place.names[0].starts_with('.') || !around.env().stat(model.full_path())) {
    return fail(around.unknown_model(place.names[0], &place.mount));
  }
  if (const std::string error = attribute_or_empty(model.full_path(), "error"); !error.empty()) {
    return fail(ErrorKind::kInvalidModel, error);
  }
  const std::string served = attribute_or_empty(model.full_path(), "dtypes");  // "bf16 int8"
  Targets targets;
  std::optional<Error> missing;
  for (const MountPath& wanted : places_meant(place, served, words)) {
    for (const MountPath& file : files_meant(around.env(), wanted)) {
      if (const auto stat = around.env().stat(file.full_path())) {
        targets.push_back(warm_target_in_mount(around.env(), file));
      } else {
        missing = stat.error().kind == ErrorKind::kNotFound ? not_in_mount(around, file, served) : stat.error();
      }
    }
  }
  if (missing && (targets.empty() || !words.all)) {  // not every dtype has every rank
    return fail(*missing);
  }
  return targets;
}

// The files of a dtype that the words mean: the named one, or all that a rank's folder has of its own.
std::vector<ArtifactName> files_in_engine(Engine& engine, const SourceModel& source, const Scheme& scheme,
                                          const NamedFiles& names) {
  const uint32_t rank = names.rank.value_or(0);
  const bool has_folder = engine.folder(source.name, scheme, 0).has_value();
  std::vector<ArtifactName> files;
  for (const Container* const container : all_containers()) {
    const bool of_rank = container->has_rank(rank) && container->stands_in_folder() == has_folder;
    if (names.container != nullptr ? container == names.container : of_rank) {
      files.push_back({source.name, &scheme, container->rank_behind(rank), container, source.component});
    }
  }
  return files;
}

Result<Targets> targets_in_engine(Engine& engine, const std::string& model, const NamedFiles& names, bool all) {
  const auto read = engine.model(model);
  if (!read) {
    return fail(of_model(read.error()));
  }
  const SourceModel& source = **read;
  Targets targets;
  std::string served;
  std::string refusal;
  std::optional<Error> out_of_range;
  for (const DtypeInfo& dtype : Engine::dtypes(source)) {
    const bool wanted = all || names.dtype == dtype.scheme->name();
    if (!dtype.refusal.empty()) {
      refusal = wanted ? dtype.refusal : refusal;
      continue;
    }
    served += fmt::format("{}{}", served.empty() ? "" : " ", dtype.scheme->name());
    const uint64_t largest = wanted && names.rank.value_or(0) > 0 ? largest_rank_of(source, *dtype.scheme) : 0;
    if (wanted && names.rank.value_or(0) > largest) {
      out_of_range = rank_out_of_range(model, std::string(dtype.scheme->name()), *names.rank, largest);
    } else if (wanted) {
      for (const ArtifactName& file : files_in_engine(engine, source, *dtype.scheme, names)) {
        targets.push_back(warm_target_in_engine(engine, file));
      }
    }
  }
  if (targets.empty()) {
    return fail(out_of_range.value_or(dtype_not_served(names.dtype.value_or("any dtype"), model, served, refusal)));
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

constexpr std::chrono::milliseconds kAmendLook{20};

// One after the other: each uses all cores by itself. A file that fails does not keep the others.
// REQUIRES: an InterruptWatch lives.
ExitCode warm_all(CommandContext& context, const Targets& targets, bool json) {
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
  QCACHE_TRY_ASSIGN(options.cache_directory, around.cache_directory());
  options.aging_interval = std::chrono::seconds::zero();  // whoever warms a file does not mean to drop others
  QCACHE_TRY_ASSIGN(const std::unique_ptr<Engine> engine, Engine::start(around.env(), options));
  QCACHE_TRY_ASSIGN(const Targets targets, targets_in_engine(*engine, folder.name, names, words.all));
  const InterruptWatch watch;
  const ExitCode exit = warm_all(around.context(), targets, words.json);
  for (;;) {  // no mount is there that would do it later
    QCACHE_TRY_ASSIGN(const bool amended, engine->is_amended());
    if (amended || InterruptWatch::interrupted()) {
      return exit;
    }
    std::this_thread::sleep_for(kAmendLook);
  }
}

// The words as one name, and --rank as part of it.
Result<WarmWords> joined(WarmWords words) {
  if (!words.rank.empty() && !parse_rank(words.rank)) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("--rank takes a number, not {}", in_quotes(words.rank)));
  }
  if (!words.rank.empty() && !words.names.file.empty()) {
    return fail(ErrorKind::kInvalidArgument, "name a file or --rank, not both");
  }
  words.names.file = words.all ? "" : words.names.file + words.rank;
  return words;
}

Result<ExitCode> warm(CommandContext& context, const WarmWords& given) {
  QCACHE_TRY_ASSIGN(const WarmWords words, joined(given));
  const Surroundings around(context, words.cache_dir);
  QCACHE_TRY_ASSIGN(NamedFiles names, around.resolve(words.names));
  if (const auto* named = std::get_if<ModelName>(&names.what)) {
    return fail(around.unknown_model(named->name));
  }
  if (const auto* folder = std::get_if<FolderPath>(&names.what)) {
    QCACHE_TRY_ASSIGN(auto shown, around.mount_showing(*folder));
    if (shown) {
      for (const std::string& name : split_path(names.dtype.value_or("") + '/' + names.file)) {
        shown->names.push_back(name);
      }
      names.what = std::move(*shown);
    }
  }
  const auto* place = std::get_if<MountPath>(&names.what);
  const auto* folder = std::get_if<FolderPath>(&names.what);
  if ((place == nullptr && folder == nullptr) || (place != nullptr && place->names.empty())) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} is not a model: name one", in_quotes(names.text)));
  }
  const bool has_dtype = place != nullptr ? place->names.size() > 1 : names.dtype.has_value();
  if (has_dtype == words.all) {
    return fail(ErrorKind::kInvalidArgument,
                words.all ? "name a dtype or --all, not both" : "name a dtype, such as int8, or --all");
  }
  if (folder != nullptr) {
    if (words.all && !words.rank.empty()) {
      names.rank = parse_rank(words.rank);
    }
    return warm_in_process(around, names, *folder, words);
  }
  QCACHE_TRY_ASSIGN(const Targets targets, targets_in_mount(around, *place, words));
  const InterruptWatch watch;
  return warm_all(context, targets, words.json);
}

}  // namespace

void add_warm_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("warm", "Make quantized files complete before they are read");
  auto words = std::make_shared<WarmWords>();
  command
      ->add_option("MODEL", words->names.model,
                   "A model: its name in a mount, its id in the hub (org/name), its folder, or its path in a mount")
      ->required();
  command->add_option("DTYPE", words->names.dtype, "What to make it in, such as int8")->check(not_empty());
  command
      ->add_option(
          "FILE", words->names.file,
          "One file of it, such as 0.bin. Without it: the weights of the folder 0/, which from_pretrained reads")
      ->check(not_empty());
  command->add_flag("--all", words->all, "Every dtype that the model can be served in");
  command->add_option("--rank", words->rank, "The folder of this LoRA rank: its weights and its adapter")
      ->option_text("R")
      ->check(not_empty());
  add_cache_dir_option(*command, words->cache_dir);
  add_json_flag(*command, words->json);
  command->footer(
      "A running mount that shows the model does the work; else this command does, in the cache directory that mounts "
      "share. Ctrl-C stops it; what is made stays.\n\nExample:\n  qcache warm Qwen2.5-0.5B int8\n"
      "  qcache warm Qwen2.5-0.5B nf4 --rank 16\n  qcache warm Qwen2.5-0.5B int8 0.bin");
  // Files that fail are told by the command itself.
  command->callback(subcommand(
      context, exit, [&context, words]() -> Result<ExitCode> { return warm(context, *words); }, spdlog::level::err));
}

}  // namespace qcache
