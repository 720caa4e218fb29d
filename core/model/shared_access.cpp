#include "core/model/shared_access.h"

#include <bit>

namespace qcache {
namespace {

constexpr mode_t kAll = 07;

/// What one step on the way leaves.
struct Step {
  uint32_t gid = 0;
  mode_t group = 0;
  mode_t others = 0;
};

Step step_of(const AccessBits& thing, bool passed) {
  const auto bits = [passed](mode_t mode) -> mode_t {
    if (!passed) {
      return mode & kAll;
    }
    return (mode & 01) != 0 ? kAll : mode_t{0};  // whoever may not search a folder gets nowhere
  };
  return {thing.gid, bits(thing.mode >> 3), bits(thing.mode)};
}

}  // namespace

SharedAccess shared_access(std::span<const AccessBits> folders, std::span<const AccessBits> things) {
  SharedAccess best;
  int best_count = -1;
  const auto try_group = [&](uint32_t gid) {
    mode_t group = kAll;
    mode_t others = kAll;
    const auto add = [&](const Step& step) {
      const mode_t anybody = step.group & step.others;  // who is not in `gid` may be in that group, or not
      group &= step.gid == gid ? step.group : anybody;
      others &= step.gid == gid ? step.others : anybody;
    };
    for (const AccessBits& folder : folders) {
      add(step_of(folder, true));
    }
    for (const AccessBits& thing : things) {
      add(step_of(thing, false));
    }
    const int count = std::popcount(group) + std::popcount(others);
    if (count > best_count) {
      best_count = count;
      best = {(group << 3) | others, gid};
    }
  };
  for (const AccessBits& thing : things) {
    try_group(thing.gid);
  }
  for (const AccessBits& folder : folders) {
    if (!things.empty()) {
      try_group(folder.gid);
    }
  }
  return best;
}

}  // namespace qcache
