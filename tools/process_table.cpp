#include "tools/process_table.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <climits>
#include <fstream>
#include <memory>
#include <string_view>

#include <fmt/format.h>

#include "core/base/ask_in_time.h"
#include "core/base/mount_info.h"
#include "tools/human_text.h"

namespace qcache {
namespace {

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(folder.c_str()), &::closedir);
  if (!listing) {
    return names;  // of another user, or gone
  }
  while (const dirent* entry = ::readdir(listing.get())) {  // NOLINT(concurrency-mt-unsafe): a listing of our own
    names.emplace_back(static_cast<const char*>(entry->d_name));
  }
  return names;
}

// Where a link of /proc leads, as text; the file is not looked at.
std::string link_text(const std::string& link) {
  std::array<char, PATH_MAX> text{};
  const ssize_t size = ::readlink(link.c_str(), text.data(), text.size());
  return size > 0 ? std::string(text.data(), static_cast<size_t>(size)) : "";
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<std::string> mapped_paths(const std::string& process) {
  std::vector<std::string> paths;
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (const size_t slash = line.find('/'); slash != std::string::npos) {
      paths.push_back(line.substr(slash));
    }
  }
  return paths;
}

std::vector<std::string> open_paths(const std::string& process) {
  std::vector<std::string> paths = mapped_paths(process);
  paths.push_back(link_text(process + "/cwd"));
  paths.push_back(link_text(process + "/root"));
  for (const std::string& descriptor : names_in(process + "/fd")) {
    paths.push_back(link_text(process + "/fd/" + descriptor));
  }
  return paths;
}

std::vector<Holder> look_for_holders(const std::vector<std::string>& folders) {
  std::vector<Holder> holders;
  for (const std::string& name : names_in("/proc")) {
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size() || pid == ::getpid()) {
      continue;
    }
    const std::string process = "/proc/" + name;
    std::vector<std::string> paths = open_paths(process);
    std::erase_if(paths, [&](const std::string& path) {
      return std::none_of(folders.begin(), folders.end(),
                          [&](const std::string& folder) { return lies_within(path, folder); });
    });
    if (paths.empty()) {
      continue;
    }
    std::sort(paths.begin(), paths.end());
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    holders.push_back({pid, first_line(process + "/comm"), std::move(paths)});
  }
  std::sort(holders.begin(), holders.end(), [](const Holder& a, const Holder& b) { return a.pid < b.pid; });
  return holders;
}

}  // namespace

std::vector<Holder> find_holders(const std::vector<std::string>& folders) {
  constexpr std::chrono::seconds kPatience{2};
  return ask_in_time(kPatience, [folders] { return look_for_holders(folders); }).value_or(std::vector<Holder>());
}

std::string names_of(const std::vector<Holder>& holders) {
  constexpr size_t kMostNamed = 5;
  std::string out;
  for (size_t i = 0; i < std::min(holders.size(), kMostNamed); ++i) {
    out += fmt::format("{}{} ({})", i == 0 ? "" : ", ", printable(holders[i].program), holders[i].pid);
  }
  return holders.size() > kMostNamed ? fmt::format("{} and {} more", out, holders.size() - kMostNamed) : out;
}

}  // namespace qcache
