#include "fs/nodes/artifact_file.h"

#include <fmt/format.h>

#include "core/base/units.h"
#include "core/engine/quality_json.h"

namespace qcache {
namespace {

constexpr std::string_view kPinned = "user.qcache.pinned";
constexpr std::string_view kWarm = "user.qcache.warm";

std::optional<bool> parse_switch(std::string_view value) {
  if (value == "1" || value == "true" || value == "yes") {
    return true;
  }
  if (value == "0" || value == "false" || value == "no") {
    return false;
  }
  return std::nullopt;
}

FileFacts facts_of(const NodeContext& context, const ArtifactInfo& info) {
  return {info.size_bytes, info.disk_bytes, info.source_mtime_ns, context.access_of_weights(*info.source)};
}

NodeAttributes attributes_of(std::string_view path, const ArtifactInfo& info, const FileFacts& facts) {
  return info.record ? complete_file_attributes(path, facts, info.record->accessed_ns) : file_attributes(path, facts);
}

/// Of a file that is absent or being made.
class FillingFileNode final : public ArtifactFileNode {
 public:
  FillingFileNode(const NodeContext& context, const ArtifactInfo& info, const FileFacts& facts, bool borrowed)
      : ArtifactFileNode(context, to_hex(info.recipe), info, facts, borrowed) {}

  [[nodiscard]] OpenAdvice advice() const override {
    const auto comes_in = load_comes_in();
    if (!comes_in) {
      return {};
    }
    return comes_in->count() == 0 ? OpenAdvice{OpenAdvice::What::kLookAgain}
                                  : OpenAdvice{OpenAdvice::What::kWait, *comes_in};
  }

  [[nodiscard]] Result<OpenFile> open(int64_t& settles_in_ns) const override {
    QCACHE_TRY_ASSIGN(OpenArtifact opened, open_artifact(settles_in_ns));
    return OpenFile{std::move(opened), ReadThrough::kDaemon};
  }
};

/// What tells a file of which every byte is in place from others of the recipe.
std::string state_of_complete(const ArtifactInfo& info) {
  return info.record ? fmt::format("{} {}", to_hex(info.recipe), fmt::join(info.record->seal, " "))
                     : fmt::format("{} complete {}", to_hex(info.recipe), info.completed_ns);
}

/// Of a file of which every byte is in place: complete, or sealed.
class CompleteFileNode final : public ArtifactFileNode {
 public:
  CompleteFileNode(const NodeContext& context, const ArtifactInfo& info, const FileFacts& facts, bool borrowed)
      : ArtifactFileNode(context, state_of_complete(info), info, facts, borrowed) {}

  [[nodiscard]] Result<OpenFile> open(int64_t& settles_in_ns) const override {
    QCACHE_TRY_ASSIGN(OpenArtifact opened, open_artifact(settles_in_ns));
    if (opened->complete_fd() < 0) {
      return changed();
    }
    return OpenFile{std::move(opened), ReadThrough::kBackingFile};
  }
};

std::shared_ptr<const Node> node_of(const NodeContext& context, const ArtifactInfo& info, const FileFacts& facts,
                                    bool borrowed) {
  if (info.record || info.completed_ns != 0) {
    return std::make_shared<const CompleteFileNode>(context, info, facts, borrowed);
  }
  return std::make_shared<const FillingFileNode>(context, info, facts, borrowed);
}

}  // namespace

Result<FoundNode> ArtifactFileNode::find(const NodeContext& context, const ArtifactName& name, bool borrowed) {
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, context.engine().describe(name));
  const FileFacts facts = facts_of(context, info);
  std::shared_ptr<const Node> node = node_of(context, info, facts, borrowed);
  const NodeAttributes attributes = attributes_of(node->path(), info, facts);
  return FoundNode{std::move(node), attributes};
}

ArtifactFileNode::ArtifactFileNode(const NodeContext& context, std::string_view state, const ArtifactInfo& info,
                                   const FileFacts& facts, bool borrowed)
    : FileNode(context, info.name.virtual_path(), state),
      name_(info.name),
      recipe_(info.recipe),
      facts_(facts),
      borrowed_(borrowed) {}

Result<OpenArtifact> ArtifactFileNode::open_artifact(int64_t& settles_in_ns) const {
  return engine().open_now(name_, &recipe_, settles_in_ns);
}

std::optional<std::chrono::nanoseconds> ArtifactFileNode::load_comes_in() const {
  return engine().load_comes_in(name_, recipe_);
}

NodeAttributes ArtifactFileNode::attributes() const {
  const auto info = engine().describe(name_);
  if (!info || info->recipe != recipe_) {
    // Only who has the file open asks for a node that its name leads to no more; the kernel does not say which handle.
    return file_attributes(path(), facts_);
  }
  return attributes_of(path(), *info, facts_of(context(), *info));
}

Result<Xattrs> ArtifactFileNode::xattrs() const {
  Xattrs out;
  QCACHE_TRY_ASSIGN(const ArtifactInfo info, engine().describe(name_));
  out.add("state", std::string(to_string(info.state)));
  QCACHE_TRY_ASSIGN(const double progress, engine().progress(info));
  out.add("progress", fmt::format("{:.4f}", progress));
  out.add("source", info.model_path);
  if (info.record) {
    if (info.record->sha256) {
      out.add("sha256", to_hex(*info.record->sha256));
    }
    out.add("created", format_time(info.record->created_ns));
    out.add("accessed", format_time(info.record->accessed_ns));
    out.add("hits", fmt::format("{}", info.record->hits));
    QCACHE_TRY_ASSIGN(const auto tensors, engine().quality(info));
    if (!tensors.empty()) {
      out.add("sqnr", quality_summary(tensors));
    }
  }
  if (!info.backing.empty()) {
    out.add("backing", info.backing);
  }
  QCACHE_TRY_ASSIGN(const auto pinned, engine().is_pinned(info));
  if (pinned) {
    out.add("pinned", *pinned ? "1" : "0");
  }
  if (!info.error.empty()) {
    out.add("error", info.error);
  }
  return out;
}

Status ArtifactFileNode::set_xattr(std::string_view name, std::string_view value, int64_t& settles_in_ns) const {
  if (name != kPinned && name != kWarm) {
    return Node::set_xattr(name, value, settles_in_ns);
  }
  const std::optional<bool> on = parse_switch(value);
  if (!on) {
    return fail(ErrorKind::kInvalidArgument, fmt::format("{} takes 1 or 0, not '{}'", name, value));
  }
  return name == kPinned ? engine().set_pinned(name_, *on) : engine().set_warm_now(name_, *on, settles_in_ns);
}

Status ArtifactFileNode::remove() const {
  return borrowed_ ? Status() : engine().remove(name_);
}

}  // namespace qcache
