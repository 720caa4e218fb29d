#include "fs/nodes/generated_file.h"

#include <algorithm>
#include <span>

#include <fmt/format.h>

#include "core/base/digest.h"

namespace qcache {
namespace {

struct Written {
  std::string text;
  NodeAccess access;

  [[nodiscard]] std::string state() const {
    return fmt::format("{} {}", to_hex(sha256(std::as_bytes(std::span(text)))), state_of(access));
  }
};

Result<Written> write(const NodeContext& context, std::string_view model, const Scheme& scheme,
                      const FolderFile& file) {
  Written out;
  QCACHE_TRY_ASSIGN(out.text, context.engine().folder_text(std::string(model), scheme, file));
  QCACHE_TRY_ASSIGN(out.access, context.access_of_model(model));
  return out;
}

}  // namespace

const FolderFile* find_file(const ModelFolder& folder, std::string_view relative) {
  const auto found = std::ranges::find(folder.files, relative, &FolderFile::name);
  return found == folder.files.end() ? nullptr : &*found;
}

Result<FoundNode> GeneratedFileNode::find(const NodeContext& context, std::string_view path, const Scheme& scheme,
                                          uint32_t rank, const FolderFile& file) {
  QCACHE_TRY_ASSIGN(const Written now, write(context, path.substr(0, path.find('/')), scheme, file));
  const FileFacts facts{now.text.size(), 0, context.control().started_ns(), now.access};
  return found_node<GeneratedFileNode>(context, path, now.state(), facts, scheme, rank, file.foretells_load);
}

std::optional<ArtifactName> GeneratedFileNode::foretold_load() const {
  return foretells_load_ ? std::optional(weights_of_folder(std::string(model()), scheme_, rank_)) : std::nullopt;
}

Result<OpenFile> GeneratedFileNode::open(int64_t& settles_in_ns) const {
  settles_in_ns = 0;
  QCACHE_TRY_ASSIGN(const std::shared_ptr<const ModelFolder> folder,
                    engine().folder(std::string(model()), scheme_, rank_));
  const FolderFile* const file = find_file(*folder, path_after(3));
  if (file == nullptr) {
    return no_such("file", path_after(3));
  }
  QCACHE_TRY_ASSIGN(Written now, write(context(), model(), scheme_, *file));
  if (now.state() != state()) {
    return changed();
  }
  return OpenFile{std::move(now.text), ReadThrough::kPageCache};
}

}  // namespace qcache
