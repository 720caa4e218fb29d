#include "core/model/model_finder.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "core/model/hub_cache.h"
#include "core/model/pipeline.h"
#include "core/model/source_folders.h"
#include "core/model/text.h"
#include "core/model/torch_checkpoint.h"
#include "core/model/weight_files.h"

namespace qcache {
namespace {

constexpr int kMaxDepth = 2;  // below a folder in a root
constexpr size_t kMaxNameBytes = 255;
constexpr std::string_view kJoint = "--";  // between the parts of a name

std::string_view base_name(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) {
    path.remove_suffix(1);
  }
  return path.substr(path.rfind('/') + 1);
}

// "models/" and a link "current" are called so; "." and ".." are not.
std::string name_of_root(const std::string& path, const std::string& real) {
  const std::string_view name = base_name(path);
  return std::string(name.empty() || name == "." || name == ".." || name == "/" ? base_name(real) : name);
}

// "--transformer" for the subfolder transformer of a snapshot that is itself a root.
std::string rest_of_snapshot(const std::string& path, const HubLocation& hub) {
  const size_t commit = hub.repo_folder.size() + std::string_view("/snapshots/").size();
  std::string rest;
  for (size_t slash = path.find('/', commit); slash != std::string::npos;) {
    const size_t next = path.find('/', slash + 1);
    rest += kJoint;
    rest += path.substr(slash + 1, next == std::string::npos ? next : next - slash - 1);
    slash = next;
  }
  return rest;
}

bool is_skipped(std::string_view child) {
  return child.starts_with('.') || child.starts_with("datasets--") || child.starts_with("spaces--");
}

bool has(const std::vector<std::string>& sorted, std::string_view name) {
  return std::binary_search(sorted.begin(), sorted.end(), name);
}

// What lies in every cache directory (core/store/cache_directory.h), and together nowhere else.
bool is_cache_directory(const std::vector<std::string>& names) {
  return has(names, "CACHEDIR.TAG") && has(names, "filling") && has(names, "index");
}

std::string join(const std::string& folder, std::string_view name) {
  std::string path = folder;
  path += path.ends_with('/') ? "" : "/";
  path += name;
  return path;
}

/// Looks at single folders: what each is, from memory where that holds.
class FolderView {
 public:
  FolderView(Env& env, const SourceFolders& folders, const MountTable& mounts, const RootWalk* last,
             std::vector<std::string>& problems)
      : env_(env), folders_(folders), mounts_(mounts), last_(last), problems_(problems) {}

  /// `lasting`: it will be the same as long as its stat is.
  struct Seen {
    std::shared_ptr<const RootWalk::Folder> folder;
    bool lasting = false;
  };

  /// Null where there is no folder, or one that is left out. One that is `expected` to be there is a problem then.
  Seen look(const std::string& path, bool expected, bool is_root = false) {
    if (mounts_.is_qcache(path)) {
      return {};
    }
    const int64_t now_ns = env_.now_ns();  // first: what is old by now was so when it was listed
    const auto stat = env_.stat(path);
    if (!stat) {
      return nothing(stat.error(), expected);
    }
    if (!stat->is_directory() && !expected) {
      return {};
    }
    if (mounts_.is_qcache_device(stat->device)) {
      return {};
    }
    if (auto known = remembered(path, *stat)) {
      return {std::move(known), true};
    }
    auto names = folders_.list(path);
    if (!names) {
      return nothing(names.error(), expected);
    }
    std::sort(names->begin(), names->end());
    if (is_cache_directory(*names)) {
      return {};
    }
    // What the names alone tell lasts; what other files' bytes or other folders tell does not.
    const bool may_be_pipeline = has(*names, "model_index.json") && (has(*names, "transformer") || has(*names, "unet"));
    const WeightSigns signs = weight_signs(*names);
    auto folder = std::make_shared<RootWalk::Folder>();
    folder->device = stat->device;
    folder->inode = stat->inode;
    folder->mtime_ns = stat->mtime_ns;
    folder->ctime_ns = stat->ctime_ns;
    folder->model = holds_pipeline(path, *names) || holds_weights(path, *names, signs);
    const bool lasting = !may_be_pipeline && signs != WeightSigns::kLooseTorch && settle_time_ns(*stat) < now_ns;
    if (!folder->model || is_root) {
      folder->names = std::move(*names);
    }
    return {std::move(folder), lasting};
  }

  /// Whether something may be there, by one stat and without a word.
  [[nodiscard]] bool is_folder(const std::string& path) const {
    if (mounts_.is_qcache(path)) {
      return false;
    }
    const auto stat = env_.stat(path);
    return stat ? stat->is_directory() : !is_absence(stat.error());
  }

  /// Whether the folder is as the last walk saw it.
  [[nodiscard]] bool unchanged(const std::string& path) const {
    const auto stat = env_.stat(path);
    return stat && remembered(path, *stat) != nullptr;
  }

  // A pipeline is one model, not one for each of its parts.
  bool holds_pipeline(const std::string& path, const std::vector<std::string>& names) {
    return !pipeline_component(folders_, path, names).empty();
  }

  std::optional<std::string> snapshot_of(const std::string& repo) {
    if (mounts_.is_qcache(repo)) {
      return std::nullopt;
    }
    auto snapshot = current_snapshot(env_, repo);
    if (!snapshot) {
      if (!is_absence(snapshot.error())) {
        problems_.push_back(snapshot.error().message);
      }
      return std::nullopt;
    }
    return std::move(*snapshot);
  }

 private:
  static bool is_absence(const Error& error) {
    return error.sys_errno == ENOTDIR || error.sys_errno == ENOENT || error.sys_errno == ELOOP;
  }

  Seen nothing(const Error& error, bool expected) {
    if (expected || !is_absence(error)) {
      problems_.push_back(error.message);
    }
    return {};
  }

  [[nodiscard]] std::shared_ptr<const RootWalk::Folder> remembered(const std::string& path,
                                                                   const FileStat& stat) const {
    if (last_ == nullptr) {
      return nullptr;
    }
    const auto known = last_->folders.find(path);
    return known != last_->folders.end() && known->second->matches(stat) ? known->second : nullptr;
  }

  // Firmware, vocabularies and much else are called *.bin, too. A folder is shown for such a name only where a file of
  // this kind begins as torch writes it; one that may not be read may: its model then says why it is not served.
  bool holds_weights(const std::string& path, const std::vector<std::string>& names, WeightSigns signs) {
    if (signs != WeightSigns::kLooseTorch) {
      return signs == WeightSigns::kSure;
    }
    const auto chosen = choose_weight_files(names);
    return chosen && std::any_of(chosen->names.begin(), chosen->names.end(), [&](const std::string& name) {
             const auto place = folders_.look(join(path, name));
             if (!place) {
               return place.error().kind == ErrorKind::kPermission || place.error().kind == ErrorKind::kInvalidModel;
             }
             const auto file = folders_.open(*place, join(path, name));
             if (!file) {
               return file.error().kind == ErrorKind::kPermission;
             }
             std::array<char, kTorchMagicBytes> beginning{};
             const auto got = env_.read_at(file->fd(), std::as_writable_bytes(std::span(beginning)), 0);
             return got && has_torch_magic({beginning.data(), *got});
           });
  }

  Env& env_;
  const SourceFolders& folders_;
  const MountTable& mounts_;
  const RootWalk* const last_;
  std::vector<std::string>& problems_;
};

/// Walks one root depth first, names in byte order, and writes down what it sees.
class Walk {
 public:
  Walk(Env& env, const SourceFolders& folders, const MountTable& mounts, const RootWalk* before,
       std::atomic<uint64_t>& steps, RootWalk& out)
      : env_(env), view_(env, folders, mounts, before, out.problems), steps_(steps), out_(out) {}

  void root(const std::string& path) {
    const auto real = env_.real_path(path);
    if (!real) {
      out_.problems.push_back(real.error().message);
      return;
    }
    out_.root = *real;
    if (const auto hub = hub_location(*real)) {
      folder(*real, hub->repo_name + rest_of_snapshot(*real, *hub), 0, true);
    } else if (const auto repo = hub_repo_name(base_name(*real)); !repo.empty()) {
      hub_repo(*real, std::string(repo));
    } else {
      plain_root(*real, name_of_root(path, *real));
    }
    std::move(nested_.begin(), nested_.end(), std::back_inserter(out_.models));
    for (const FoundModel& found : out_.models) {
      out_.paths.emplace(found.name, found.path);
    }
  }

 private:
  void plain_root(const std::string& real, const std::string& name) {
    const auto seen = look(real, true, true);
    if (!seen) {
      return;
    }
    out_.looked_into.push_back(real);
    const bool is_pipeline = view_.holds_pipeline(real, seen->names);
    if (seen->model) {
      model(real, name);
    }
    const bool is_one_model = is_pipeline || (seen->model && has(seen->names, "config.json"));
    if (!is_one_model) {
      above_.push_back(seen);
      children(real, {}, seen->names, kMaxDepth);
      above_.pop_back();
    }
  }

  void children(const std::string& path, const std::string& prefix, const std::vector<std::string>& names, int depth) {
    for (const std::string& name : names) {
      if (is_skipped(name)) {
        continue;
      }
      const std::string child = join(path, name);
      if (const auto repo = hub_repo_name(name); !repo.empty()) {
        const bool outermost = !nested_in_folder_ && prefix.empty();
        if (!outermost) {
          out_.hub_repos.push_back({child, std::string(repo)});
        }
        const bool before = std::exchange(nested_in_folder_, !outermost);
        hub_repo(child, std::string(repo));
        nested_in_folder_ = before;
      } else {
        folder(child, prefix.empty() ? name : fmt::format("{}{}{}", prefix, kJoint, name), depth, false);
      }
    }
  }

  // `path` may turn out to be no folder at all. `depth` levels below it are looked into.
  void folder(const std::string& path, const std::string& name, int depth, bool expected) {
    const auto seen = look(path, expected);
    if (!seen || is_above(*seen)) {
      return;
    }
    if (seen->model) {
      model(path, name);
    } else if (depth > 0) {
      out_.looked_into.push_back(path);
      above_.push_back(seen);
      children(path, name, seen->names, depth - 1);
      above_.pop_back();
    }
  }

  // A link to a folder that it lies in would show everything there once more.
  [[nodiscard]] bool is_above(const RootWalk::Folder& folder) const {
    return std::any_of(above_.begin(), above_.end(), [&](const auto& above) {
      return above->device == folder.device && above->inode == folder.inode;
    });
  }

  void hub_repo(const std::string& path, const std::string& name) {
    if (const auto snapshot = view_.snapshot_of(path)) {
      folder(*snapshot, name, kMaxDepth, true);
    }
  }

  void model(const std::string& path, const std::string& name) {
    if (!is_utf8(name)) {
      out_.problems.push_back(fmt::format("the model folder {} is not shown: its name is not UTF-8", in_quotes(path)));
    } else if (name.size() > kMaxNameBytes) {
      out_.problems.push_back(fmt::format("the model folder {} is not shown: its name {} is longer than {} bytes", path,
                                          in_quotes(name), kMaxNameBytes));
    } else {
      (nested_in_folder_ ? nested_ : out_.models).push_back({name, path});
    }
  }

  std::shared_ptr<const RootWalk::Folder> look(const std::string& path, bool expected, bool is_root = false) {
    steps_.fetch_add(1, std::memory_order_relaxed);
    auto seen = view_.look(path, expected, is_root);
    if (seen.folder && seen.lasting) {
      out_.folders.emplace(path, seen.folder);
    }
    return std::move(seen.folder);
  }

  Env& env_;
  FolderView view_;
  std::atomic<uint64_t>& steps_;
  RootWalk& out_;
  std::vector<std::shared_ptr<const RootWalk::Folder>> above_;  // where the walk is now
  bool nested_in_folder_ = false;                               // inside a hub repo that no name leads to
  std::vector<FoundModel> nested_;                              // found there: they come last
};

/// Follows one name into a root: the folders it may lead to, in the order in which a walk meets them.
class NameLookup {
 public:
  NameLookup(Env& env, const SourceFolders& folders, const MountTable& mounts, const std::string& name,
             const RootWalk* last, RootLookup& out)
      : env_(env), view_(env, folders, mounts, last, out.problems), name_(name), last_(last), out_(out) {}

  void root(const std::string& path) {
    const auto real =
        last_ != nullptr && !last_->root.empty() ? Result<std::string>(last_->root) : env_.real_path(path);
    if (!real) {
      out_.problems.push_back(real.error().message);
      return;
    }
    if (const auto hub = hub_location(*real)) {
      out_.found = folder(*real, hub->repo_name + rest_of_snapshot(*real, *hub), 0);
      return;
    }
    if (const auto repo = hub_repo_name(base_name(*real)); !repo.empty()) {
      out_.found = hub_repo(*real, std::string(repo));
    } else if (!plain_root(*real, name_of_root(path, *real))) {
      return;
    }
    if (!out_.found) {
      nested();
    }
  }

 private:
  // False where nothing below the root can count.
  bool plain_root(const std::string& real, const std::string& name) {
    const auto seen = view_.look(real, true, true);
    if (!seen.folder) {
      return false;
    }
    const std::vector<std::string>& names = seen.folder->names;
    if (seen.folder->model && name == name_) {
      out_.found = FoundModel{name_, real};
      return true;
    }
    if (view_.holds_pipeline(real, names) || (seen.folder->model && has(names, "config.json"))) {
      return false;
    }
    out_.found = children(real, {}, kMaxDepth);
    return true;
  }

  // `prefix` is the part of the name that leads to `path`, with its joint.
  std::optional<FoundModel> children(const std::string& path, const std::string& prefix, int depth) {
    const std::string_view rest = std::string_view(name_).substr(prefix.size());
    std::vector<std::string> candidates;
    for (size_t end = rest.find(kJoint, 1);; end = rest.find(kJoint, end + 1)) {
      const bool last = end == std::string_view::npos;
      const std::string first(rest.substr(0, end));
      if (!is_skipped(first) && hub_repo_name(first).empty() && (last || depth > 0)) {
        candidates.push_back(first);
      }
      if (prefix.empty()) {
        candidates.push_back(std::string(kHubModelPrefix) + first);
      }
      if (last) {
        break;
      }
    }
    std::sort(candidates.begin(), candidates.end());
    for (const std::string& candidate : candidates) {
      const std::string child = join(path, candidate);
      const auto repo = hub_repo_name(candidate);
      auto found = repo.empty() ? folder(child, prefix + candidate, depth) : hub_repo(child, std::string(repo));
      if (found) {
        return found;
      }
    }
    return std::nullopt;
  }

  std::optional<FoundModel> folder(const std::string& path, const std::string& name, int depth) {
    if (name == name_) {
      const auto seen = view_.look(path, false);
      return seen.folder && seen.folder->model ? std::optional(FoundModel{name_, path}) : std::nullopt;
    }
    if (depth == 0 || !leads_on(name) || !view_.is_folder(path)) {
      return std::nullopt;
    }
    auto found = children(path, name + std::string(kJoint), depth - 1);
    if (!found) {
      return std::nullopt;
    }
    const auto seen = view_.look(path, false);  // a folder with weights hides what is in it
    return seen.folder && !seen.folder->model ? found : std::nullopt;
  }

  std::optional<FoundModel> hub_repo(const std::string& path, const std::string& name) {
    if ((name != name_ && !leads_on(name)) || !view_.is_folder(path)) {
      return std::nullopt;
    }
    const auto snapshot = view_.snapshot_of(path);
    return snapshot ? folder(*snapshot, name, kMaxDepth) : std::nullopt;
  }

  [[nodiscard]] bool leads_on(const std::string& name) const {
    return name_.size() > name.size() + kJoint.size() && name_.starts_with(name) &&
           std::string_view(name_).substr(name.size()).starts_with(kJoint);
  }

  // Hub repos in other folders: no name tells which. The last walk does, as long as those folders are as they were.
  void nested() {
    out_.sure = last_ != nullptr && std::all_of(last_->looked_into.begin(), last_->looked_into.end(),
                                                [&](const std::string& path) { return view_.unchanged(path); });
    if (!out_.sure) {
      return;
    }
    for (const RootWalk::HubRepo& repo : last_->hub_repos) {
      if (!out_.found) {
        out_.found = hub_repo(repo.path, repo.name);
      }
    }
  }

  Env& env_;
  FolderView view_;
  const std::string& name_;
  const RootWalk* const last_;
  RootLookup& out_;
};

}  // namespace

bool RootWalk::Folder::matches(const FileStat& now) const {
  return now.is_directory() && device == now.device && inode == now.inode && mtime_ns == now.mtime_ns &&
         ctime_ns == now.ctime_ns;
}

bool would_be_walked(std::string_view root, std::string_view path) {
  if (!lies_within(path, root)) {
    return false;
  }
  int depth = kMaxDepth + 1;
  std::string_view rest = path.substr(root.size());
  while (!rest.empty() && depth >= 0) {
    rest.remove_prefix(rest.starts_with('/') ? 1 : 0);
    const std::string_view name = rest.substr(0, rest.find('/'));
    rest.remove_prefix(name.size());
    if (is_skipped(name)) {
      return false;
    }
    // In a hub cache the walk goes on at the snapshot, two folders further down.
    depth = hub_repo_name(name).empty() ? depth - 1 : kMaxDepth + 2;
  }
  return depth >= 0;
}

std::shared_ptr<const RootWalk> walk_root(Env& env, const SourceFolders& folders, const std::string& root,
                                          const MountTable& mounts, const RootWalk* before,
                                          std::atomic<uint64_t>& steps) {
  auto out = std::make_shared<RootWalk>();
  Walk(env, folders, mounts, before, steps, *out).root(root);
  return out;
}

RootLookup look_up_in_root(Env& env, const SourceFolders& folders, const std::string& root, const MountTable& mounts,
                           const std::string& name, const RootWalk* last) {
  RootLookup out;
  const bool possible = !name.empty() && name.size() <= kMaxNameBytes && is_utf8(name) &&
                        name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
  if (possible) {
    NameLookup(env, folders, mounts, name, last, out).root(root);
  }
  return out;
}

FoundModels join_walks(const std::vector<std::shared_ptr<const RootWalk>>& walks) {
  FoundModels out;
  std::unordered_map<std::string_view, std::string_view> shown;  // name -> path
  for (const auto& walk : walks) {
    for (const FoundModel& model : walk->models) {
      const auto [first, is_new] = shown.emplace(model.name, model.path);
      if (is_new) {
        out.models.push_back(model);
      } else if (first->second != model.path) {  // a root given twice shadows nothing
        out.shadowed.push_back(model);
      }
    }
    out.problems.insert(out.problems.end(), walk->problems.begin(), walk->problems.end());
  }
  std::sort(out.models.begin(), out.models.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

FoundModels find_models(Env& env, const std::vector<std::string>& roots) {
  const MountTable mounts = MountTable::read(env);
  const SourceFolders folders(env, resolve_folders(env, roots));
  std::atomic<uint64_t> steps{0};
  std::vector<std::shared_ptr<const RootWalk>> walks;
  walks.reserve(roots.size());
  for (const std::string& root : roots) {
    walks.push_back(walk_root(env, folders, root, mounts, nullptr, steps));
  }
  return join_walks(walks);
}

Result<FoundModel> find_model(Env& env, const std::vector<std::string>& roots, const std::string& name) {
  const MountTable mounts = MountTable::read(env);
  const SourceFolders folders(env, resolve_folders(env, roots));
  std::vector<std::string> problems;
  for (const std::string& root : roots) {
    RootLookup looked = look_up_in_root(env, folders, root, mounts, name, nullptr);
    if (!looked.found && !looked.sure) {
      std::atomic<uint64_t> steps{0};
      const auto walk = walk_root(env, folders, root, mounts, nullptr, steps);
      if (const auto path = walk->paths.find(name); path != walk->paths.end()) {
        looked.found = FoundModel{name, path->second};
      }
    }
    if (looked.found) {
      return std::move(*looked.found);
    }
    std::move(looked.problems.begin(), looked.problems.end(), std::back_inserter(problems));
  }
  std::string message = fmt::format("there is no model {} below the model folders", in_quotes(name));
  if (!problems.empty()) {
    message += " (" + problems.front() + ')';
  }
  return fail(ErrorKind::kNotFound, std::move(message));
}

}  // namespace qcache
