#include <algorithm>
#include <chrono>
#include <memory>
#include <ostream>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "core/model/text.h"
#include "core/store/aging.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/command.h"
#include "tools/confirm.h"
#include "tools/human_text.h"
#include "tools/interrupt_watch.h"
#include "tools/matched_files.h"
#include "tools/progress_bar.h"
#include "tools/surroundings.h"

namespace qcache {
namespace {

// --- gc

struct GcWords {
  std::string cache_dir;
  std::string max_age = "7d";
  std::string max_size;
  bool dry_run = false;
  bool yes = false;
  bool json = false;
};

Result<AgingPolicy> to_policy(const GcWords& words) {
  AgingPolicy policy;
  policy.max_age.reset();
  if (words.max_age != "never") {
    QCACHE_TRY_ASSIGN(policy.max_age, parse_duration(words.max_age));
  }
  if (!words.max_size.empty()) {
    QCACHE_TRY_ASSIGN(policy.max_bytes, parse_size(words.max_size));
  }
  return policy;
}

Json to_json(const AgingReport& report, const Store& store, bool dry_run) {
  Json dropped = Json::array();
  for (const Victim& victim : report.dropped) {
    Json file = to_json(victim.entry, store.directory());
    file["reason"] = victim.reason;
    dropped.push_back(std::move(file));
  }
  return Json{{"cache_dir", store.directory().path()},
              {"dry_run", dry_run},
              {"dropped", std::move(dropped)},
              {"dropped_bytes", report.bytes},
              {"kept_bytes", report.kept_bytes}};
}

Result<ExitCode> collect_garbage(CommandContext& context, const GcWords& words) {
  QCACHE_TRY_ASSIGN(const AgingPolicy policy, to_policy(words));
  QCACHE_TRY_ASSIGN(const std::string directory, Surroundings(context, words.cache_dir).cache_directory());
  QCACHE_TRY_ASSIGN(const std::shared_ptr<Store> store, open_needed_cache(context.env, directory));
  if (!words.dry_run && !words.yes) {
    QCACHE_TRY_ASSIGN(const AgingReport would, apply_aging(*store, policy, true));
    if (!confirm(context, fmt::format("Drop {}, {}", count_of(would.dropped.size(), "file"), format_size(would.bytes)),
                 would.bytes)) {
      return ExitCode::kFailure;
    }
  }
  QCACHE_TRY_ASSIGN(const AgingReport report, apply_aging(*store, policy, words.dry_run));
  if (words.json) {
    context.out << json_text(to_json(report, *store, words.dry_run));
    return ExitCode::kOk;
  }
  if (report.dropped.empty()) {
    fmt::print(context.out, "Nothing to drop in {}; {} {}\n", printable(store->directory().path()),
               format_size(report.kept_bytes), words.dry_run ? "would stay" : "stay");
    if (policy.max_bytes && report.kept_bytes > *policy.max_bytes) {
      context.out << "That is above the limit: all of it is pinned or in use\n";
    }
    return ExitCode::kOk;
  }
  const std::string_view drop = words.dry_run ? "Would drop" : "Dropped";
  for (const Victim& victim : report.dropped) {
    fmt::print(context.out, "{} {}: {} ({})\n", drop, label_of(victim.entry), victim.reason,
               format_size(victim.entry.disk_bytes));
  }
  fmt::print(context.out, "{} {}, {}; {} {} in {}\n", drop, count_of(report.dropped.size(), "file"),
             format_size(report.bytes), format_size(report.kept_bytes), words.dry_run ? "would stay" : "stay",
             printable(store->directory().path()));
  return ExitCode::kOk;
}

void add_gc(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("gc", "Drop cached files that were not read for long");
  auto words = std::make_shared<GcWords>();
  add_cache_dir_option(*command, words->cache_dir);
  command
      ->add_option("--max-age", words->max_age,
                   "Drop files not read for this long: 90s, 12h, 7d, or never (default: 7d)")
      ->option_text("AGE");
  command
      ->add_option("--max-size", words->max_size,
                   "Then drop the least recently read until the rest is below this size, such as 200G")
      ->option_text("SIZE");
  command->add_flag("--dry-run", words->dry_run, "Only say what would be dropped");
  command->add_flag("-y,--yes", words->yes, "Drop more than 10G without a question on the terminal");
  add_json_flag(*command, words->json);
  command->footer(
      "Pinned files and files in use stay.\n\nExample:\n  qcache gc --max-age 30d --max-size 200G --dry-run");
  command->callback(subcommand(context, exit, [&context, words] { return collect_garbage(context, *words); }));
}

// --- verify

struct VerifyWords {
  NameWords names;
  std::string cache_dir;
  bool repair = false;
  bool json = false;
};

struct BadFile {
  Record record;
  std::string reason;
  bool dropped = false;
};

struct VerifyReport {
  uint64_t checked = 0;
  uint64_t checked_bytes = 0;
  std::vector<BadFile> bad;
};

// Why a sealed file is bad; empty where it is right. Nothing where it is gone or about to go, which other processes may
// bring about at any time.
Result<std::optional<std::string>> check(Store& store, Record& record) {
  constexpr int kLooks = 3;
  for (int look = 0; look < kLooks; ++look) {
    const auto same = store.verify(record, [] { return !InterruptWatch::interrupted(); });
    std::string reason = "its bytes are not those of its record (SHA-256)";
    if (same && *same) {
      return std::optional<std::string>("");
    }
    if (!same) {
      switch (same.error().kind) {
        case ErrorKind::kNotFound:
        case ErrorKind::kBusy:
          return std::optional<std::string>();
        case ErrorKind::kIo:
          reason = same.error().message;
          break;
        default:
          return fail(same.error());
      }
    }
    // It may have been made anew since the record was read.
    QCACHE_TRY_ASSIGN(const auto now, store.catalog().find(record.file));
    if (!now) {
      return std::optional<std::string>();
    }
    if (now->backing == record.backing) {
      return std::optional(std::move(reason));
    }
    record = *now;
  }
  return std::optional<std::string>();  // replaced faster than it can be read: others are at work on it
}

Result<VerifyReport> verify_entries(Store& store, const std::vector<CacheEntry>& entries, bool repair,
                                    ProgressBar& bar) {
  const InterruptWatch watch;
  VerifyReport report;
  uint64_t total = 0;
  for (const CacheEntry& entry : entries) {
    total += entry.record.size_bytes;
  }
  uint64_t done = 0;
  bar.start("verify", total);
  for (const CacheEntry& entry : entries) {
    bar.update(done);
    Record record = entry.record;
    const auto reason = check(store, record);
    if (!reason && InterruptWatch::interrupted()) {
      return fail(ErrorKind::kInterrupted,
                  fmt::format("stopped after {} of {}", report.checked, count_of(entries.size(), "file")));
    }
    if (!reason) {
      return fail(reason.error());
    }
    done += entry.record.size_bytes;
    if (!*reason) {
      continue;
    }
    ++report.checked;
    report.checked_bytes += record.size_bytes;
    if (!(*reason)->empty()) {
      BadFile bad{record, **reason, false};
      if (repair) {
        QCACHE_TRY_ASSIGN(const auto dropped,
                          store.drop_sealed(record, "verify found that " + bad.reason, WhenInUse::kDrop));
        bad.dropped = dropped.has_value();
      }
      report.bad.push_back(std::move(bad));
    }
  }
  bar.clear();
  return report;
}

void print_verified(std::ostream& out, const VerifyReport& report, const std::string& directory) {
  for (const BadFile& bad : report.bad) {
    fmt::print(out, "{} {}: {}\n", bad.dropped ? "Dropped" : "Bad", printable(bad.record.virtual_path),
               printable(bad.reason));
  }
  const std::string verdict = report.checked == 0  ? "nothing to check"
                              : report.bad.empty() ? "all are right"
                                                   : fmt::format("{} bad", report.bad.size());
  fmt::print(out, "Checked {}, {}, in {}: {}\n", count_of(report.checked, "file"), format_size(report.checked_bytes),
             printable(directory), verdict);
  const bool all_dropped =
      std::all_of(report.bad.begin(), report.bad.end(), [](const BadFile& bad) { return bad.dropped; });
  if (!all_dropped) {
    out << "'qcache verify --repair' drops bad files; the next read makes them again\n";
  }
}

Json to_json(const VerifyReport& report, const std::string& directory) {
  Json bad = Json::array();
  for (const BadFile& file : report.bad) {
    bad.push_back(Json{{"path", file.record.virtual_path},
                       {"file", directory + '/' + file.record.file},
                       {"size_bytes", file.record.size_bytes},
                       {"reason", file.reason},
                       {"dropped", file.dropped}});
  }
  return Json{{"cache_dir", directory},
              {"checked", report.checked},
              {"checked_bytes", report.checked_bytes},
              {"bad", std::move(bad)}};
}

Result<ExitCode> verify(CommandContext& context, const VerifyWords& words) {
  const Surroundings around(context, words.cache_dir);
  MatchedFiles files;
  if (!words.names.model.empty()) {
    QCACHE_TRY_ASSIGN(files, match(around, words.names));
  } else {
    QCACHE_TRY_ASSIGN(const std::string chosen, around.cache_directory());
    QCACHE_TRY_ASSIGN(files.store, open_needed_cache(context.env, chosen));
    QCACHE_TRY_ASSIGN(files.entries, files.store->entries());
  }
  const std::shared_ptr<Store>& store = files.store;
  std::vector<CacheEntry>& entries = files.entries;
  std::erase_if(entries, [](const CacheEntry& entry) { return !entry.sealed; });
  const std::string& directory = store->directory().path();
  if (entries.empty() && !words.names.model.empty()) {
    return fail(ErrorKind::kNotFound,
                fmt::format("{} holds no complete file of {}", directory, in_quotes(words.names.model)));
  }
  const auto style = words.json                ? ProgressBar::Style::kSilent
                     : context.out_is_terminal ? ProgressBar::Style::kTerminal
                                               : ProgressBar::Style::kLines;
  ProgressBar bar(context.out, style, terminal_columns());
  QCACHE_TRY_ASSIGN(const VerifyReport report, verify_entries(*store, entries, words.repair, bar));
  if (words.json) {
    context.out << json_text(to_json(report, directory));
  } else {
    print_verified(context.out, report, directory);
  }
  return report.bad.empty() ? ExitCode::kOk : ExitCode::kIntegrityFailure;
}

void add_verify(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("verify", "Check complete cached files against their SHA-256");
  auto words = std::make_shared<VerifyWords>();
  add_name_options(*command, words->names, "Only this model, or this file by its path (default: all)");
  add_cache_dir_option(*command, words->cache_dir);
  command->add_flag("--repair", words->repair, "Drop bad files; the next read makes them again");
  add_json_flag(*command, words->json);
  command->footer(
      "Ends with exit code 8 where a file is bad, repaired or not.\n\nExample:\n"
      "  qcache verify Qwen2.5-0.5B int8 --repair");
  command->callback(subcommand(context, exit, [&context, words] { return verify(context, *words); }));
}

}  // namespace

void add_cache_commands(CLI::App& app, CommandContext& context, ExitCode& exit) {
  add_gc(app, context, exit);
  add_verify(app, context, exit);
}

}  // namespace qcache
