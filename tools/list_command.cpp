#include <algorithm>
#include <memory>
#include <ostream>
#include <set>

#include <fmt/format.h>
#include <fmt/ostream.h>

#include "core/base/units.h"
#include "tools/cache_choice.h"
#include "tools/cache_entries.h"
#include "tools/entry_query.h"
#include "tools/human_text.h"
#include "tools/matched_files.h"
#include "tools/progress_bar.h"
#include "tools/surroundings.h"
#include "tools/table_printer.h"

namespace qcache {
namespace {

struct ListWords {
  NameWords names;
  std::string cache_dir;
  EntryQuery query;
  uint64_t limit = 0;
  bool quiet = false;
  bool json = false;
};

uint64_t disk_bytes_of(const std::vector<CacheEntry>& entries) {
  uint64_t bytes = 0;
  for (const CacheEntry& entry : entries) {
    bytes += entry.disk_bytes;
  }
  return bytes;
}

// What `rm` takes, each once: files of several states of a model have one path.
void print_names(std::ostream& out, const std::vector<CacheEntry>& entries) {
  std::set<std::string> printed;
  for (const CacheEntry& entry : entries) {
    if (printed.insert(label_of(entry)).second) {
      out << label_of(entry) << '\n';
    }
  }
}

void print_list(std::ostream& out, const std::string& directory, bool is_there, const std::vector<CacheEntry>& entries,
                int64_t now_ns) {
  out << printable(directory) << '\n';
  TablePrinter table({{"PATH"}, {"STATE"}, {"SIZE", true}, {"ON DISK", true}, {"ACCESSED"}, {"HITS", true}});
  for (const CacheEntry& entry : entries) {
    const Record& record = entry.record;
    table.add_row({label_of(entry), state_text(entry) + (record.pinned ? ", pinned" : ""),
                   format_size(record.size_bytes), format_size(entry.disk_bytes),
                   format_ago(record.accessed_ns, now_ns), entry.sealed ? fmt::format("{}", record.hits) : "-"});
  }
  if (!entries.empty()) {
    table.print(out, terminal_columns());
  }
  if (!is_there) {
    out << "Not made yet, which the first mount does\n";
  }
  fmt::print(out, "{}, {} on disk\n", count_of(entries.size(), "file"), format_size(disk_bytes_of(entries)));
}

void print_json(std::ostream& out, const std::string& directory, const std::vector<CacheEntry>& entries,
                const CacheDirectory* place) {
  Json files = Json::array();
  for (const CacheEntry& entry : entries) {
    files.push_back(to_json(entry, *place));
  }
  out << json_text({{"cache_dir", directory}, {"files", files}, {"disk_bytes", disk_bytes_of(entries)}});
}

Result<ExitCode> list(CommandContext& context, ListWords words) {
  const Surroundings around(context, words.cache_dir);
  MatchedFiles files;
  std::string directory;
  if (!words.names.model.empty()) {
    QCACHE_TRY_ASSIGN(files, match(around, words.names));
  } else {
    QCACHE_TRY_ASSIGN(directory, around.cache_directory());
    // A directory that nobody has made yet holds nothing.
    const auto stat = context.env.stat(directory);
    if (stat || stat.error().kind != ErrorKind::kNotFound) {
      QCACHE_TRY_ASSIGN(files.store, open_cache(context.env, directory));
      QCACHE_TRY_ASSIGN(files.entries, files.store->entries());
    }
  }
  std::vector<CacheEntry>& entries = files.entries;
  const std::shared_ptr<Store>& store = files.store;
  directory = store ? store->directory().path() : directory;
  if (words.limit > 0) {
    words.query.limit = words.limit;
  }
  QCACHE_TRY(apply_query(words.query, context.env.now_ns(), entries));
  if (words.json) {
    print_json(context.out, directory, entries, store ? &store->directory() : nullptr);
  } else if (words.quiet) {
    print_names(context.out, entries);
  } else {
    print_list(context.out, directory, store != nullptr, entries, context.env.now_ns());
  }
  return ExitCode::kOk;
}

}  // namespace

void add_list_command(CLI::App& app, CommandContext& context, ExitCode& exit) {
  CLI::App* command = app.add_subcommand("ls", "List the cached files");
  auto words = std::make_shared<ListWords>();
  add_name_options(*command, words->names, "Only files of this model (default: all)");
  command->add_option("--filter", words->query.filters, "Only files that are so, " + filter_help())
      ->option_text("TEST")
      ->allow_extra_args(false)
      ->check(not_empty());
  command
      ->add_option("--sort", words->query.sort,
                   "By name, size, disk, accessed or hits; :asc or :desc behind it turns the order")
      ->option_text("KEY")
      ->check(not_empty());
  command->add_option("--limit", words->limit, "Only the first N of them")
      ->option_text("N")
      ->check(CLI::Validator(
          [](const std::string& text) {
            const bool is_count = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
            return std::string(is_count && text.find_first_not_of('0') != std::string::npos ? ""
                                                                                            : "takes a number from 1");
          },
          ""));
  command->add_flag("-q,--quiet", words->quiet, "Only the paths, one a line, as 'qcache rm' takes them");
  add_cache_dir_option(*command, words->cache_dir);
  add_json_flag(*command, words->json);
  command->footer(
      "Example:\n  qcache ls --filter 'size>1G' --sort accessed:asc --limit 5\n"
      "  qcache ls -q --filter 'accessed>30d' | xargs -d '\\n' -n1 qcache rm");
  command->callback(subcommand(context, exit, [&context, words] { return list(context, *words); }));
}

}  // namespace qcache
