#include "tools/model_report.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/engine/artifact_name.h"
#include "core/engine/engine.h"
#include "core/layout/safetensors_layout.h"
#include "core/layout/torch_zip.h"
#include "core/quant/factors.h"
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

std::string progress_text(const FileProgress& progress) {
  if (progress.state == "filling") {
    return "filling " + format_percent(progress.progress);
  }
  return progress.error.empty() ? progress.state : fmt::format("{}: {}", progress.state, progress.error);
}

}  // namespace

bool ModelReport::servable() const {
  return std::any_of(dtypes.begin(), dtypes.end(), [](const DtypeReport& dtype) { return dtype.refusal.empty(); });
}

ProgressLookup progress_in_mount(const MountPath& model) {
  return [folder = model.full_path()](const SourceModel&, const Scheme& scheme) {
    const std::string path = fmt::format("{}/{}/0.bin", folder, scheme.name());
    FileProgress out{attribute_or_empty(path, "state"), parse_share(attribute_or_empty(path, "progress")),
                     attribute_or_empty(path, "error")};
    out.state = out.state.empty() ? "unknown" : out.state;
    return out;
  };
}

ProgressLookup progress_in_cache(const std::vector<CacheEntry>& entries) {
  return [entries](const SourceModel& model, const Scheme& scheme) {
    const Sha256Digest recipe = recipe_of(ArtifactName{model.name, &scheme, 0}, model);
    const std::string base = artifact_file_name(model.path, scheme.name(), 0);
    FileProgress out{"absent", 0, ""};
    for (const CacheEntry& entry : entries) {
      if (base_file_name(entry.record.file) != base) {
        continue;
      }
      if (entry.record.recipe != recipe) {
        out.state = "stale";
      } else {
        return FileProgress{entry.sealed ? "sealed" : "filling", entry.progress, ""};
      }
    }
    return out;
  };
}

ProgressLookup progress_unknown() {
  return [](const SourceModel&, const Scheme&) { return FileProgress{"unknown", 0, ""}; };
}

Result<ModelReport> report_model(Env& env, const SourceFolders& folders, const std::string& path,
                                 const std::string& name, const ProgressLookup& lookup) {
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
    // A model without checkpoints has folders.
    const auto plan =
        why_no_checkpoint(*model) ? plan_safetensors(model, *info.scheme) : plan_torch_zip(model, *info.scheme);
    if (!plan) {
      dtype.refusal = plan.error().message;
      continue;
    }
    dtype.size_bytes = (*plan)->size_bytes();
    const ModelChoices choices = info.scheme->choose(*model);
    for (const TensorInfo& tensor : model->tensors) {
      dtype.largest_rank =
          std::max(dtype.largest_rank, largest_rank(tensor, info.scheme->encoding(*model, choices, tensor)));
    }
    dtype.progress = lookup(*model, *info.scheme);
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
  line("config.json", model.facts.config_problem);
  out << '\n';
  TablePrinter table({{"DTYPE"}, {"SIZE", true}, {"BYTES", true}, {"RANKS", true}, {"STATE"}});
  for (const DtypeReport& dtype : report.dtypes) {
    if (dtype.size_bytes) {
      table.add_row({dtype.dtype, format_size(*dtype.size_bytes), fmt::format("{}", *dtype.size_bytes),
                     fmt::format("0{}", dtype.largest_rank > 0 ? fmt::format("-{}", dtype.largest_rank) : ""),
                     progress_text(dtype.progress)});
    } else {
      table.add_row({dtype.dtype, "-", "-", "-", "not served: " + dtype.refusal});
    }
  }
  table.print(out);
  return out.str();
}

Json to_json(const ModelReport& report) {
  const SourceModel& model = *report.model;
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json dtypes = Json::array();
  for (const DtypeReport& dtype : report.dtypes) {
    const bool served = dtype.size_bytes.has_value();
    dtypes.push_back(Json{{"dtype", dtype.dtype},
                          {"served", served},
                          {"size_bytes", served ? Json(*dtype.size_bytes) : Json()},
                          {"largest_rank", served ? Json(dtype.largest_rank) : Json()},
                          {"state", served ? Json(dtype.progress.state) : Json()},
                          {"progress", served ? Json(dtype.progress.progress) : Json()},
                          {"error", or_null(dtype.progress.error)},
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
