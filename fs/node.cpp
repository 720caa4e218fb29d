#include "fs/node.h"

#include <fmt/format.h>

namespace qcache {
namespace {

// No path has it in it.
constexpr std::string_view kBeforeState = "//";

std::string key_of(std::string_view path, std::string_view state) {
  return state.empty() ? std::string(path) : fmt::format("{}{}{}", path, kBeforeState, state);
}

/// Whether the kernel may send it; children would else be looked for elsewhere than in their folder.
bool is_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace

Node::Node(const NodeContext& context, std::string_view path, std::string_view state)
    : context_(context), key_(key_of(path, state)), path_bytes_(path.size()) {}

std::string_view Node::model() const {
  return path().substr(0, path().find('/'));
}

Status Node::set_xattr(std::string_view name, std::string_view /*value*/, int64_t& /*settles_in_ns*/) const {
  return fail(ErrorKind::kPermission, fmt::format("{} of {} cannot be set", name, path()));
}

Status Node::remove() const {
  return fail(ErrorKind::kPermission, fmt::format("{} cannot be removed", path()));
}

std::string_view Node::state() const {
  return key_.size() == path_bytes_ ? std::string_view()
                                    : std::string_view(key_).substr(path_bytes_ + kBeforeState.size());
}

std::string_view Node::path_after(unsigned names) const {
  std::string_view rest = path();
  for (; names > 0; --names) {
    const size_t slash = rest.find('/');
    if (slash == std::string_view::npos) {
      return {};
    }
    rest.remove_prefix(slash + 1);
  }
  return rest;
}

tl::unexpected<Error> Node::changed() const {
  return fail(ErrorKind::kSourceChanged, fmt::format("{} changed since it was looked up", path()));
}

Result<FoundNode> FolderNode::lookup(const std::string& name) const {
  return is_name(name) ? find(name) : no_such("name", name);
}

NodeAttributes FolderNode::attributes() const {
  return folder_attributes(path(), context().control().started_ns(), access());
}

std::string FolderNode::path_of(std::string_view name) const {
  return path().empty() ? std::string(name) : fmt::format("{}/{}", path(), name);
}

FolderEntry FolderNode::entry(std::string_view name, bool folder) const {
  return {std::string(name), inode_of_path(path_of(name)), folder};
}

tl::unexpected<Error> no_such(std::string_view what, std::string_view name) {
  return fail(ErrorKind::kNotFound, fmt::format("no {} '{}'", what, name));
}

}  // namespace qcache
