#include "tools/model_report.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iterator>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/engine/artifact_name.h"
#include "core/engine/engine.h"
#include "core/layout/model_folder.h"
#include "core/quant/factors.h"
#include "tools/cache_entries.h"
#include "tools/human_text.h"
#include "tools/mount_attributes.h"
#include "tools/table_printer.h"

namespace qcache {
namespace {

double parse_share(const std::string& text) {
  double share = 0;
  std::from_chars(text.data(), text.data() + text.size(), share);
  return share;
}

std::string architecture_of(const ModelFacts& facts) {
  const std::string classes = fmt::format("{}", fmt::join(facts.architectures, ", "));
  if (classes.empty() || facts.model_type.empty()) {
    return classes.empty() ? facts.model_type : classes;
  }
  return fmt::format("{} ({})", classes, facts.model_type);
}

std::vector<std::string> file_names(const SourceModel& model) {
  std::vector<std::string> names;
  for (const std::string& file : model.files) {
    names.push_back(std::filesystem::path(file).filename().string());
  }
  return names;
}

std::string files_text(const SourceModel& model) {
  constexpr size_t kMaxShown = 4;
  const std::vector<std::string> names = file_names(model);
  const auto shown_end = names.begin() + static_cast<ptrdiff_t>(std::min(names.size(), kMaxShown));
  return fmt::format("{} ({}{})", names.size(), fmt::join(names.begin(), shown_end, ", "),
                     names.size() > kMaxShown ? ", ..." : "");
}

std::string state_text(const FileState& state) {
  return state.state == "filling" ? "filling " + format_percent(state.progress) : state.state;
}

class StatesInMount final : public FileStates {
 public:
  StatesInMount(Env& env, const MountPath& model) : env_(env), folder_(model.full_path()) {}

  [[nodiscard]] FileState of(const SourceModel&, const ArtifactName& name) const override {
    return at(fmt::format("{}/{}/{}", folder_, name.scheme->name(), name.file()));
  }

  [[nodiscard]] std::vector<FileReport> ranks(const SourceModel& model, const Scheme& scheme) const override {
    std::vector<FileReport> out;
    const std::string dtype = fmt::format("{}/{}", folder_, scheme.name());
    const auto names = env_.list(dtype);
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      const auto beside_folders = parse_container_path(name);
      const uint32_t rank = beside_folders ? beside_folders->rank : parse_rank(name).value_or(0);
      for (const Container* const container : all_containers()) {
        const bool may_be_there =
            beside_folders ? container == beside_folders->container : container->is_own_of_folder(rank);
        const std::string below = container->path_of(rank, model.component);
        const auto stat = rank > 0 && may_be_there ? env_.stat(fmt::format("{}/{}", dtype, below))
                                                   : Result<FileStat>(fail(ErrorKind::kNotFound, ""));
        if (stat) {
          out.push_back({below, stat->size_bytes, at(fmt::format("{}/{}", dtype, below))});
        }
      }
    }
    std::erase_if(out, [](const FileReport& file) { return file.state.state == "absent"; });
    return out;
  }

 private:
  static FileState at(const std::string& path) {
    FileState out{attribute_or_empty(path, "state"), parse_share(attribute_or_empty(path, "progress")),
                  attribute_or_empty(path, "error")};
    out.state = out.state.empty() ? "unknown" : out.state;
    return out;
  }

  Env& env_;
  const std::string folder_;
};

class StatesInCache final : public FileStates {
 public:
  explicit StatesInCache(std::vector<CacheEntry> entries) : entries_(std::move(entries)) {}

  [[nodiscard]] FileState of(const SourceModel& model, const ArtifactName& name) const override {
    const Sha256Digest recipe = recipe_of(name, model);
    const std::string base = base_file_name_of(name, model.path);
    FileState out{"absent", 0, ""};
    for (const CacheEntry& entry : entries_) {
      if (base_file_name(entry.record.file) != base) {
        continue;
      }
      if (entry.record.recipe != recipe) {
        out.state = "stale";
      } else {
        return FileState{std::string(state_of(entry)), entry.progress, ""};
      }
    }
    return out;
  }

  [[nodiscard]] std::vector<FileReport> ranks(const SourceModel& model, const Scheme& scheme) const override {
    std::vector<FileReport> out;
    for (const CacheEntry& entry : entries_) {
      const auto path = parse_artifact_path(entry.record.virtual_path);
      if (!path || path->rank == 0 || path->dtype != scheme.name() ||
          base_file_name(entry.record.file) != base_file_name_of(*path, model.path)) {
        continue;
      }
      const ArtifactName name{model.name, &scheme, path->rank, path->container, model.component};
      out.push_back({name.file(), entry.record.size_bytes, of(model, name)});
    }
    return out;
  }

 private:
  const std::vector<CacheEntry> entries_;
};

class StatesUnknown final : public FileStates {
 public:
  [[nodiscard]] FileState of(const SourceModel&, const ArtifactName&) const override { return {"unknown", 0, ""}; }
  [[nodiscard]] std::vector<FileReport> ranks(const SourceModel&, const Scheme&) const override { return {}; }
};

// The files of rank 0 that there are, those of its folder first. An error where there is none.
Result<std::vector<FileReport>> files_of_rank_0(const std::shared_ptr<const SourceModel>& model, const Scheme& scheme,
                                                const FileStates& states) {
  std::vector<FileReport> files;
  std::vector<FileReport> beside_folder;
  std::optional<Error> problem;
  const bool has_folder = plan_model_folder(*model, scheme, 0, "").has_value();
  for (const Container* const container : all_containers()) {
    if (!container->is_offered(0, has_folder, *model, scheme)) {
      continue;
    }
    const auto plan = container->plan_of(model, scheme, 0);
    if (!plan) {
      problem = plan.error();
      continue;
    }
    const ArtifactName name{model->name, &scheme, 0, container, model->component};
    (container->stands_in_folder() ? files : beside_folder)
        .push_back({name.file(), (*plan)->size_bytes(), states.of(*model, name)});
  }
  std::ranges::move(beside_folder, std::back_inserter(files));
  return files.empty() && problem ? fail(*problem) : Result<std::vector<FileReport>>(std::move(files));
}

// The reasons why dtypes are not served, each once, with the dtypes that it keeps.
std::vector<std::pair<std::string, std::string>> refusals_of(const ModelReport& report) {
  std::vector<std::pair<std::string, std::string>> out;
  for (const DtypeReport& dtype : report.dtypes) {
    if (dtype.refusal.empty()) {
      continue;
    }
    const auto same =
        std::find_if(out.begin(), out.end(), [&](const auto& one) { return one.second == dtype.refusal; });
    if (same == out.end()) {
      out.emplace_back(dtype.dtype, dtype.refusal);
    } else {
      same->first += ", " + dtype.dtype;
    }
  }
  return out;
}

bool is_checkpoint(const FileReport& file) {
  return file.file == container_checkpoint().path_of(0, "");
}

// Of a file of rank 0, the column that tells its state: "FOLDER 0/", "0.bin"; empty for other ranks' files.
std::string column_of(const std::string& file) {
  const auto parsed = parse_container_path(file);
  if (!parsed || parsed->rank != 0) {
    return "";
  }
  return parsed->container->stands_in_folder() ? "FOLDER 0/" : file;
}

// A column for each that some dtype of some model may have, in the order of the containers, folders first.
std::vector<std::string> file_columns() {
  std::vector<std::string> columns;
  for (const bool in_folder : {true, false}) {
    for (const Container* const container : all_containers()) {
      const std::string column = column_of(container->path_of(0, ""));
      const bool is_new = std::find(columns.begin(), columns.end(), column) == columns.end();
      if (container->has_rank(0) && container->stands_in_folder() == in_folder && is_new) {
        columns.push_back(column);
      }
    }
  }
  return columns;
}

// A line for each dtype, then one for each file of another rank.
void print_files(std::ostream& out, const ModelReport& report) {
  const std::vector<std::string> columns = file_columns();
  std::vector<TablePrinter::Column> heading = {{"DTYPE"}, {"SIZE", true}, {"RANKS", true}};
  for (const std::string& column : columns) {
    heading.push_back({column});
  }
  TablePrinter table(std::move(heading));
  TablePrinter ranks({{"FILE"}, {"SIZE", true}, {"STATE"}});
  bool has_ranks = false;
  for (const DtypeReport& dtype : report.dtypes) {
    if (!dtype.files.empty()) {
      std::vector<std::string> row = {
          dtype.dtype, format_size(dtype.files[0].size_bytes),
          fmt::format("0{}", dtype.largest_rank > 0 ? fmt::format("-{}", dtype.largest_rank) : "")};
      for (const std::string& column : columns) {
        const auto file = std::find_if(dtype.files.begin(), dtype.files.end(),
                                       [&](const FileReport& one) { return column_of(one.file) == column; });
        row.push_back(file == dtype.files.end() ? "-" : state_text(file->state));
      }
      table.add_row(std::move(row));
    }
    for (const FileReport& file : dtype.files) {
      if (column_of(file.file).empty()) {
        ranks.add_row({dtype.dtype + '/' + file.file, format_size(file.size_bytes), state_text(file.state)});
        has_ranks = true;
      }
    }
  }
  if (report.servable()) {
    out << '\n';
    table.print(out);
  }
  if (has_ranks) {
    out << '\n';
    ranks.print(out);
  }
}

}  // namespace

bool ModelReport::servable() const {
  return std::any_of(dtypes.begin(), dtypes.end(), [](const DtypeReport& dtype) { return dtype.refusal.empty(); });
}

std::unique_ptr<FileStates> states_in_mount(Env& env, const MountPath& model) {
  return std::make_unique<StatesInMount>(env, model);
}

std::unique_ptr<FileStates> states_in_cache(std::vector<CacheEntry> entries) {
  return std::make_unique<StatesInCache>(std::move(entries));
}

std::unique_ptr<FileStates> states_unknown() {
  return std::make_unique<StatesUnknown>();
}

uint64_t largest_rank_of(const SourceModel& model, const Scheme& scheme) {
  const ModelChoices choices = scheme.choose(model);
  uint64_t largest = 0;
  for (const TensorInfo& tensor : model.tensors) {
    largest = std::max(largest, largest_rank(tensor, scheme.encoding(model, choices, tensor)));
  }
  return largest;
}

Result<ModelReport> report_model(Env& env, const SourceFolders& folders, const std::string& path,
                                 const std::string& name, const FileStates& states) {
  ModelReport report;
  QCACHE_TRY_ASSIGN(SourceModel found, read_source_model(env, folders, path, name));
  const auto model = std::make_shared<const SourceModel>(std::move(found));
  report.model = model;
  for (const DtypeInfo& info : Engine::dtypes(*model)) {
    DtypeReport& dtype = report.dtypes.emplace_back();
    dtype.dtype = info.scheme->name();
    dtype.refusal = info.refusal;
    if (!info.refusal.empty()) {
      continue;
    }
    auto files = files_of_rank_0(model, *info.scheme, states);
    if (!files) {
      dtype.refusal = files.error().message;
      continue;
    }
    dtype.files = std::move(*files);
    dtype.largest_rank = largest_rank_of(*model, *info.scheme);
    for (FileReport& file : states.ranks(*model, *info.scheme)) {
      dtype.files.push_back(std::move(file));
    }
  }
  return report;
}

std::string text_of(const ModelReport& report) {
  const SourceModel& model = *report.model;
  std::ostringstream out;
  out << printable(model.name) << '\n';
  const auto line = [&](std::string_view label, const std::string& value) {
    if (!value.empty()) {
      fmt::print(out, "  {:<14}{}\n", label, printable(value));
    }
  };
  line("source", model.path);
  line("architecture", architecture_of(model.facts));
  line("files", files_text(model));
  line("tensors", fmt::format("{}", model.tensors.size()));
  line("weights", fmt::format("{} ({} bytes), {}", format_size(model.weight_bytes()), model.weight_bytes(),
                              torch_name(model.model_dtype())));
  line("quantized", model.facts.quant_method);
  const bool lacks_config = !model.facts.has_config && model.facts.config_problem.empty();
  line("config.json", lacks_config ? "none, which from_pretrained needs" : model.facts.config_problem);
  print_files(out, report);
  constexpr size_t kColumns = 80;
  const auto refusals = refusals_of(report);
  if (!refusals.empty()) {
    out << "\nNot served:\n";
  }
  for (const auto& [dtypes, reason] : refusals) {
    out << "  " << filled(printable(fmt::format("{}: {}", dtypes, reason)), kColumns - 4, 4) << '\n';
  }
  for (const DtypeReport& dtype : report.dtypes) {
    for (const FileReport& file : dtype.files) {
      if (!file.state.error.empty()) {
        out << '\n'
            << filled(
                   printable(fmt::format("{}/{} {}: {}", dtype.dtype, file.file, file.state.state, file.state.error)),
                   kColumns - 2, 2)
            << '\n';
      }
    }
  }
  return out.str();
}

Json to_json(const ModelReport& report) {
  const SourceModel& model = *report.model;
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json dtypes = Json::array();
  for (const DtypeReport& dtype : report.dtypes) {
    const bool served = !dtype.files.empty();
    Json files = Json::array();
    for (const FileReport& file : dtype.files) {
      files.push_back(Json{{"file", file.file},
                           {"size_bytes", file.size_bytes},
                           {"state", file.state.state},
                           {"progress", file.state.progress},
                           {"error", or_null(file.state.error)}});
    }
    // The file that has stood here from the beginning, for scripts that know no others.
    const auto checkpoint = std::find_if(dtype.files.begin(), dtype.files.end(), is_checkpoint);
    const auto known = checkpoint == dtype.files.end() ? dtype.files.begin() : checkpoint;
    dtypes.push_back(Json{{"dtype", dtype.dtype},
                          {"served", served},
                          {"size_bytes", served ? Json(known->size_bytes) : Json()},
                          {"largest_rank", served ? Json(dtype.largest_rank) : Json()},
                          {"state", served ? Json(known->state.state) : Json()},
                          {"progress", served ? Json(known->state.progress) : Json()},
                          {"error", served ? or_null(known->state.error) : Json()},
                          {"files", std::move(files)},
                          {"refusal", or_null(dtype.refusal)}});
  }
  return Json{{"model", model.name},
              {"source", model.path},
              {"architectures", model.facts.architectures},
              {"model_type", or_null(model.facts.model_type)},
              {"files", file_names(model)},
              {"tensors", model.tensors.size()},
              {"weight_bytes", model.weight_bytes()},
              {"model_dtype", torch_name(model.model_dtype())},
              {"quant_method", or_null(model.facts.quant_method)},
              {"config_problem", or_null(model.facts.config_problem)},
              {"dtypes", std::move(dtypes)}};
}

}  // namespace qcache
