#pragma once

#include <string>
#include <vector>

#include "core/base/log.h"
#include "fs/session.h"
#include "tools/command.h"

namespace qcache {

/// Everything that decides a mount, whether it came from `qcache mount` or from mount(8).
struct MountRequest {
  MountOptions options;
  bool foreground = false;
  std::string log_file;  ///< empty: standard error in the foreground, else <cache directory>/qcache.log
  std::string log_level = "info";
  bool fake = false;  ///< mount -f: check the arguments, mount nothing
};

/// Applies one mount option ("cache_dir=/x", "allow_other", "nofail") to the request. Options that only concern
/// mount(8) and systemd, or mean nothing here, are accepted and ignored; those of the kernel are passed on; others are
/// kInvalidArgument.
Status apply_mount_option(const std::string& option, MountRequest& request);

/// Splits "a,b=c\,d" at commas that no backslash escapes and that are not in double quotes, which stay (SELinux has
/// commas in its labels).
std::vector<std::string> split_mount_options(const std::string& text);

/// Decodes how mount(8) calls a helper: `SPEC DIR [-sfnv] [-N ns] [-o opts] [-t type]`. SPEC is a folder of models, or
/// several joined by ":".
Result<MountRequest> parse_helper_arguments(const std::vector<std::string>& arguments);

/// Which options there are, for people.
[[nodiscard]] std::string mount_option_help();

/// Mounts as asked: in the foreground, or in the background, returning when the mount is usable or has failed. Errors
/// as of serve_mount(). Warns of folders without models.
Status perform_mount(CommandContext& context, MountRequest request);

}  // namespace qcache
