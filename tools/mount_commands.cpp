#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "fs/mount_point.h"
#include "tools/command.h"
#include "tools/mount_request.h"
#include "tools/mount_table.h"
#include "tools/process_table.h"

namespace qcache {
namespace {

struct MountWords {
  std::vector<std::string> paths;
  std::vector<std::string> options;
  std::string cache_dir;
  std::string max_age;
  std::string max_size;
  std::string log_file;
  std::string log_level;
  std::string linger;
  std::string threads;
  bool foreground = false;
  bool no_passthrough = false;
  bool allow_other = false;
  bool over = false;
  bool debug = false;
};

Result<MountRequest> to_request(const MountWords& words) {
  if (std::find(words.paths.begin(), words.paths.end(), "") != words.paths.end()) {
    return fail(ErrorKind::kInvalidArgument, "a folder of models, or where to mount them, must not be empty");
  }
  if (words.paths.size() < 2) {
    return fail(ErrorKind::kInvalidArgument,
                "name the folders of models and where to mount them: qcache mount MODELS... MOUNTPOINT");
  }
  MountRequest request;
  request.options.mount_point = words.paths.back();
  request.options.engine.roots.assign(words.paths.begin(), words.paths.end() - 1);
  request.options.debug = words.debug;
  request.foreground = words.foreground || words.debug;
  std::vector<std::string> options;
  for (const std::string& group : words.options) {
    for (std::string& option : split_mount_options(group)) {
      options.push_back(std::move(option));
    }
  }
  const auto add = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) {
      options.push_back(name + "=" + value);
    }
  };
  add("cache_dir", words.cache_dir);
  add("max_age", words.max_age);
  add("max_size", words.max_size);
  add("log_file", words.log_file);
  add("log_level", words.log_level);
  add("linger", words.linger);
  add("threads", words.threads);
  if (words.no_passthrough) {
    options.emplace_back("no_passthrough");
  }
  if (words.allow_other) {
    options.emplace_back("allow_other");
  }
  if (words.over) {
    options.emplace_back("over");
  }
  for (const std::string& option : options) {
    QCACHE_TRY(apply_mount_option(option, request));
  }
  return request;
}

ExitCode mount_exit_code(const Error& error) {
  const ExitCode code = exit_code_of(error);
  return code == ExitCode::kFailure || code == ExitCode::kNotFound ? ExitCode::kMountFailed : code;
}

ExitCode unmount_exit_code(const Error& error) {
  const bool told_apart = error.kind == ErrorKind::kNotFound || error.kind == ErrorKind::kBusy;
  return told_apart ? exit_code_of(error) : ExitCode::kMountFailed;
}

Status mount(CommandContext& context, const MountWords& words) {
  QCACHE_TRY_ASSIGN(MountRequest request, to_request(words));
  std::vector<std::string> places = words.paths;
  if (!request.options.engine.cache_directory.empty()) {
    places.push_back(request.options.engine.cache_directory);
  }
  QCACHE_TRY(words.over ? refuse_silent_mounts(context, places) : refuse_below_silent_mounts(context, places));
  return perform_mount(context, std::move(request));
}

std::string in_use_message(Env& env, const std::string& mount_point) {
  const auto point = look_at_mount_point(env, mount_point);
  const std::string& path = point ? point->path : mount_point;
  const std::string holders = names_of(find_holders({path}));
  return holders.empty()
             ? fmt::format(
                   "cannot unmount {}: files in it are open, by processes that you may not look into; let them "
                   "end, or use --lazy",
                   path)
             : fmt::format("cannot unmount {}: files in it are open, by {}; let them end, or use --lazy", path,
                           holders);
}

Status unmount_if_it_answers(CommandContext& context, const std::string& mount_point, bool lazy) {
  QCACHE_TRY(refuse_below_silent_mounts(context, {mount_point}));
  Status done = unmount(context.env, mount_point, lazy);
  if (!done && done.error().kind == ErrorKind::kBusy) {
    done.error().message = in_use_message(context.env, mount_point);
  }
  return done;
}

void add_mount(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("mount", "Show the models below MODELS as quantized files in MOUNTPOINT");
  auto words = std::make_shared<MountWords>();
  command->add_option("MODELS... MOUNTPOINT", words->paths, "Folders of models, then where to mount")->expected(0, -1);
  command
      ->add_option("--cache-dir", words->cache_dir,
                   "Where quantized files are kept (default: $QWEN_CACHE, else ~/.cache/qwen_quantized)")
      ->option_text("DIR");
  command->add_flag("-f,--foreground", words->foreground,
                    "Stay in the foreground and log to standard error, or to --log-file");
  command
      ->add_option("--max-age", words->max_age,
                   "Drop files not read for this long: 90s, 12h, 7d, or never (default: 7d)")
      ->option_text("AGE");
  command->add_option("--max-size", words->max_size, "Keep the cache below this size, such as 200G (default: no limit)")
      ->option_text("SIZE");
  command->add_flag("--no-passthrough", words->no_passthrough,
                    "Serve complete files through the daemon instead of handing them to the kernel");
  command->add_flag("--allow-other", words->allow_other, "Let other users read the mount");
  command->add_flag("--over", words->over,
                    "Mount also where something is mounted, or in a folder that is not empty, and cover it");
  command->add_option("--threads", words->threads, "Threads that quantize (default: one per core)")->option_text("N");
  command->add_option("--log-file", words->log_file, "Where to log (default: CACHE/qcache.log, with -f standard error)")
      ->option_text("FILE");
  command->add_option("--log-level", words->log_level, "debug, info, warn, error or off (default: info)")
      ->option_text("LEVEL");
  command
      ->add_option("--linger", words->linger,
                   "Told to end, serve files that programs have open for this long at most (default: 60s)")
      ->option_text("TIME");
  command->add_flag("-d,--debug", words->debug, "Log every request of the kernel; implies -f");
  command->add_option("-o", words->options, "Mount options as in /etc/fstab, see below")
      ->option_text("OPTIONS")
      ->allow_extra_args(false);
  for (CLI::Option* const option : command->get_options()) {
    if (option->get_items_expected_max() > 0) {
      option->check(not_empty());
    }
  }
  command->footer("Mount options: " + mount_option_help() +
                  ". What only mount(8) and systemd read, such as nofail, is accepted.\n\n"
                  "Example:\n  qcache mount --max-size 200G ~/models /mnt/qcache");
  command->callback([&context, &exit, words] {
    const Status mounted = mount(context, *words);
    if (!mounted) {
      report(context, mounted.error());
      exit = mount_exit_code(mounted.error());
    }
  });
}

void add_unmount(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("unmount", "Take a mount down");
  command->alias("umount");
  struct Words {
    std::string mount_point;
    bool lazy = false;
  };
  auto words = std::make_shared<Words>();
  command->add_option("MOUNTPOINT", words->mount_point, "The mount")->required()->check(not_empty());
  command->add_flag("--lazy", words->lazy, "Detach it even while files in it are open");
  command->footer("Example:\n  qcache unmount /mnt/qcache");
  command->callback([&context, &exit, words] {
    if (const Status done = unmount_if_it_answers(context, words->mount_point, words->lazy); !done) {
      report(context, done.error());
      exit = unmount_exit_code(done.error());
    }
  });
}

}  // namespace

void add_mount_commands(CLI::App& app, CommandContext& context, ExitCode& exit) {
  add_mount(app, context, exit);
  add_unmount(app, context, exit);
}

}  // namespace qcache
