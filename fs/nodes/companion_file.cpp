#include "fs/nodes/companion_file.h"

#include <fmt/format.h>

namespace qcache {
namespace {

std::string state_of_file(const FileStat& stat, const NodeAccess& access) {
  return fmt::format("{} {} {} {} {} {}", stat.device, stat.inode, stat.size_bytes, stat.mtime_ns, stat.ctime_ns,
                     state_of(access));
}

}  // namespace

CompanionFileNode::CompanionFileNode(const NodeContext& context, std::string_view path, const SourcePlace& place)
    : CompanionFileNode(context, path, place.stat,
                        context.access_of(SourceSpot{place.real, place.stat.mode, place.stat.gid})) {}

CompanionFileNode::CompanionFileNode(const NodeContext& context, std::string_view path, const FileStat& stat,
                                     const NodeAccess& access)
    : FileNode(context, path, state_of_file(stat, access)),
      facts_{stat.size_bytes, stat.allocated_bytes, stat.mtime_ns, access} {}

Result<OpenFile> CompanionFileNode::open(int64_t& settles_in_ns) const {
  settles_in_ns = 0;
  QCACHE_TRY_ASSIGN(const CompanionFiles companions, engine().companions(std::string(model())));
  QCACHE_TRY_ASSIGN(SourceFile source, companions.open(std::string(path_after(3))));
  if (state_of_file(source.stat(), context().access_of(source.spot())) != state()) {
    return changed();
  }
  return OpenFile{std::move(source), ReadThrough::kBackingFile};
}

}  // namespace qcache
