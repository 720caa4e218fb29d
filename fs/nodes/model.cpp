#include "fs/nodes/model.h"

#include <fmt/format.h>

#include "fs/nodes/dtype.h"

namespace qcache {

Result<FoundNode> ModelNode::find(const std::string& name) const {
  const Scheme* const scheme = find_scheme(name);
  if (scheme == nullptr) {
    return no_such("dtype", name);
  }
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const SourceModel> source, engine().model(model_name()));
  if (const auto refusal = why_not_served(*source, *scheme)) {
    return fail(ErrorKind::kNotFound, *refusal);
  }
  // An alias is a folder of its own: the kernel allows a folder one name only.
  return found_node<DtypeNode>(context(), path_of(name), *scheme);
}

Result<std::vector<FolderEntry>> ModelNode::list() const {
  std::vector<FolderEntry> entries;
  const auto source = engine().model(model_name());
  if (!source) {
    if (source.error().kind == ErrorKind::kNotFound) {
      return fail(source.error());
    }
    return entries;  // `qcache info` and /.qcache/errors say why
  }
  for (const DtypeInfo& dtype : Engine::dtypes(**source)) {
    if (dtype.refusal.empty()) {
      entries.push_back(entry(dtype.scheme->name(), true));
    }
  }
  return entries;
}

Result<Xattrs> ModelNode::xattrs() const {
  Xattrs out;
  QCACHE_TRY_ASSIGN(const FoundModel found, engine().locate_model(model_name()));
  out.add("source", found.path);
  const auto source = engine().model(model_name());
  if (!source) {
    out.add("error", source.error().message);
    return out;
  }
  std::vector<std::string_view> served;
  std::string refused;
  for (const DtypeInfo& dtype : Engine::dtypes(**source)) {
    if (dtype.refusal.empty()) {
      served.push_back(dtype.scheme->name());
    } else {
      refused += fmt::format("{}: {}\n", dtype.scheme->name(), dtype.refusal);
    }
  }
  out.add("dtypes", fmt::format("{}", fmt::join(served, " ")));
  if (!refused.empty()) {
    out.add("refused", refused);
  }
  if (!(*source)->facts.config_problem.empty()) {
    out.add("config_problem", (*source)->facts.config_problem);
  }
  return out;
}

Status ModelNode::remove() const {
  return engine().remove_all(model_name(), nullptr);
}

}  // namespace qcache
