#include "core/model/model_finder.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "core/model/hub_cache.h"
#include "core/model/pipeline.h"
#include "core/model/source_file.h"
#include "core/model/text.h"
#include "core/model/torch_checkpoint.h"
#include "core/model/weight_files.h"

namespace qcache {
namespace {

constexpr int kMaxDepth = 2;  // below a folder in a root
constexpr size_t kMaxNameBytes = 255;

std::string_view base_name(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) {
    path.remove_suffix(1);
  }
  return path.substr(path.rfind('/') + 1);
}

/// Receives what a walk finds, in the order of preference.
class ModelSink {
 public:
  virtual ~ModelSink() = default;
  /// False ends the walk.
  virtual bool on_model(FoundModel model) = 0;
  virtual void on_problem(std::string problem) = 0;
};

/// Walks roots depth first, names in byte order. Nothing is remembered, so one walk gives what another gave as
/// long as the folders stay the same.
class Walk {
 public:
  Walk(Env& env, ModelSink& sink) : env_(env), sink_(sink) {}

  /// Each step is false where the sink ended the walk.
  bool root(const std::string& path) {
    const auto real = env_.real_path(path);
    if (!real) {
      sink_.on_problem(real.error().message);
      return true;
    }
    if (const auto hub = hub_location(*real)) {
      return folder(*real, hub->repo_name + rest_of_snapshot(*real, *hub), 0, true);
    }
    if (const auto repo = hub_repo_name(base_name(*real)); !repo.empty()) {
      return hub_repo(*real, std::string(repo));
    }
    // "models/" and a link "current" are called so; "." and ".." are not.
    std::string_view name = base_name(path);
    if (name.empty() || name == "." || name == ".." || name == "/") {
      name = base_name(*real);
    }
    const auto names = sorted_list(*real);
    if (!names) {
      sink_.on_problem(names.error().message);
      return true;
    }
    const bool is_pipeline = holds_pipeline(*real, *names);
    const bool is_model = is_pipeline || holds_weights(*real, *names);
    if (is_model && !model(*real, std::string(name))) {
      return false;
    }
    const bool is_one_model =
        is_pipeline || (is_model && std::binary_search(names->begin(), names->end(), "config.json"));
    return is_one_model || children(*real, {}, *names, kMaxDepth);
  }

 private:
  // "--transformer" for the subfolder transformer of a snapshot that is itself a root.
  static std::string rest_of_snapshot(const std::string& path, const HubLocation& hub) {
    const size_t commit = hub.repo_folder.size() + std::string_view("/snapshots/").size();
    std::string rest;
    for (size_t slash = path.find('/', commit); slash != std::string::npos;) {
      const size_t next = path.find('/', slash + 1);
      rest += "--" + path.substr(slash + 1, next == std::string::npos ? next : next - slash - 1);
      slash = next;
    }
    return rest;
  }

  bool children(const std::string& path, const std::string& prefix, const std::vector<std::string>& names, int depth) {
    return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
      if (name.starts_with('.') || name.starts_with("datasets--") || name.starts_with("spaces--")) {
        return true;
      }
      const std::string child = path + '/' + name;
      if (const auto repo = hub_repo_name(name); !repo.empty()) {
        return hub_repo(child, std::string(repo));
      }
      return folder(child, prefix.empty() ? name : prefix + "--" + name, depth, false);
    });
  }

  // `path` may turn out to be no folder at all. `depth` levels below it are looked into.
  bool folder(const std::string& path, const std::string& name, int depth, bool expected) {
    const auto names = sorted_list(path);
    if (!names) {
      const int cause = names.error().sys_errno;
      if (expected || (cause != ENOTDIR && cause != ENOENT && cause != ELOOP)) {
        sink_.on_problem(names.error().message);
      }
      return true;
    }
    if (holds_pipeline(path, *names) || holds_weights(path, *names)) {
      return model(path, name);
    }
    return depth == 0 || children(path, name, *names, depth - 1);
  }

  // A pipeline is one model, not one for each of its parts.
  bool holds_pipeline(const std::string& path, const std::vector<std::string>& names) {
    return !pipeline_component(env_, path, names).empty();
  }

  // Firmware, vocabularies and much else are called *.bin, too. A folder is shown for such a name only where a file of
  // this kind begins as torch writes it; one that cannot be read may.
  bool holds_weights(const std::string& path, const std::vector<std::string>& names) {
    const WeightSigns signs = weight_signs(names);
    if (signs != WeightSigns::kLooseTorch) {
      return signs == WeightSigns::kSure;
    }
    const auto chosen = choose_weight_files(names);
    return chosen && std::any_of(chosen->names.begin(), chosen->names.end(), [&](const std::string& name) {
             const auto file = SourceFile::open(env_, path + '/' + name);
             if (!file) {
               return file.error().kind == ErrorKind::kPermission;
             }
             std::array<char, kTorchMagicBytes> beginning{};
             const auto got = env_.read_at(file->fd(), std::as_writable_bytes(std::span(beginning)), 0);
             return got && has_torch_magic({beginning.data(), *got});
           });
  }

  bool hub_repo(const std::string& path, const std::string& name) {
    const auto snapshot = current_snapshot(env_, path);
    if (!snapshot) {
      sink_.on_problem(snapshot.error().message);
      return true;
    }
    return !*snapshot || folder(**snapshot, name, kMaxDepth, true);
  }

  bool model(const std::string& path, std::string name) {
    if (!is_utf8(name)) {
      sink_.on_problem(fmt::format("the model folder {} is not shown: its name is not UTF-8", in_quotes(path)));
      return true;
    }
    if (name.size() > kMaxNameBytes) {
      sink_.on_problem(fmt::format("the model folder {} is not shown: its name {} is longer than {} bytes", path,
                                   in_quotes(name), kMaxNameBytes));
      return true;
    }
    return sink_.on_model({std::move(name), path});
  }

  Result<std::vector<std::string>> sorted_list(const std::string& path) {
    auto names = env_.list(path);
    if (names) {
      std::sort(names->begin(), names->end());
    }
    return names;
  }

  Env& env_;
  ModelSink& sink_;
};

class CollectAll final : public ModelSink {
 public:
  FoundModels found;

  bool on_model(FoundModel model) override {
    const auto [shown, is_new] = shown_.emplace(model.name, model.path);
    if (is_new) {
      found.models.push_back(std::move(model));
    } else if (shown->second != model.path) {  // a root given twice shadows nothing
      found.shadowed.push_back(std::move(model));
    }
    return true;
  }
  void on_problem(std::string problem) override { found.problems.push_back(std::move(problem)); }

 private:
  std::map<std::string, std::string> shown_;  // name -> path
};

class FindOne final : public ModelSink {
 public:
  explicit FindOne(const std::string& name) : name_(name) {}
  std::optional<FoundModel> found;
  std::vector<std::string> problems;

  bool on_model(FoundModel model) override {
    if (model.name == name_) {
      found = std::move(model);
    }
    return !found;
  }
  void on_problem(std::string problem) override { problems.push_back(std::move(problem)); }

 private:
  const std::string& name_;
};

}  // namespace

FoundModels find_models(Env& env, const std::vector<std::string>& roots) {
  CollectAll sink;
  Walk walk(env, sink);
  for (const std::string& root : roots) {
    walk.root(root);
  }
  auto& models = sink.found.models;
  std::sort(models.begin(), models.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return std::move(sink.found);
}

Result<FoundModel> find_model(Env& env, const std::vector<std::string>& roots, const std::string& name) {
  FindOne sink(name);
  Walk walk(env, sink);
  for (const std::string& root : roots) {
    if (!walk.root(root)) {
      return std::move(*sink.found);
    }
  }
  std::string message = fmt::format("there is no model {} below the model folders", in_quotes(name));
  if (!sink.problems.empty()) {
    message += " (" + sink.problems.front() + ')';
  }
  return fail(ErrorKind::kNotFound, std::move(message));
}

}  // namespace qcache
