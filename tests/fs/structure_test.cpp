#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/test_files.h"

namespace qcache {
namespace {

/// What each source file includes of ours, by paths below the project's folder.
using Includes = std::map<std::string, std::vector<std::string>>;

/// A layer uses those before it in a chain. docs/ARCHITECTURE.md draws them.
const std::vector<std::vector<std::string_view>> kChains = {
    {"core/base", "core/model", "core/quant", "core/layout", "core/store", "core/engine", "fs", "tools"},
    {"core/base", "core/model", "core/quant", "core/layout", "core/store", "core/engine", "core/qcache", "core/program",
     "core/torch", "tools/worker"},
};

std::string project() {
  return QCACHE_SOURCE_DIR;
}

std::vector<std::string> sources_in(std::initializer_list<const char*> folders) {
  std::vector<std::string> out;
  for (const char* const folder : folders) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(project() + '/' + folder)) {
      if (entry.path().extension() == ".h" || entry.path().extension() == ".cpp") {
        out.push_back(std::filesystem::relative(entry.path(), project()));
      }
    }
  }
  return out;
}

Includes read_includes() {
  constexpr std::string_view kInclude = "#include \"";
  Includes out;
  for (const std::string& file : sources_in({"core", "fs", "tools"})) {
    std::vector<std::string>& included = out[file];
    std::istringstream text(read_file(project() + '/' + file));
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with(kInclude)) {
        line.erase(0, kInclude.size());
        included.push_back(line.substr(0, line.find('"')));
      }
    }
  }
  return out;
}

/// The layer that a file is in, by the longest name in the chains that its path begins with. Empty: none.
std::string_view layer_of(std::string_view file) {
  std::string_view layer;
  for (const auto& chain : kChains) {
    for (const std::string_view folder : chain) {
      const std::string_view rest = file.starts_with(folder) ? file.substr(folder.size()) : std::string_view();
      if ((rest.starts_with('/') || rest.starts_with('.')) && folder.size() > layer.size()) {
        layer = folder;
      }
    }
  }
  return layer;
}

bool may_use(std::string_view user, std::string_view used) {
  return std::ranges::any_of(kChains, [&](const auto& chain) {
    const auto place = std::ranges::find(chain, user);
    return place != chain.end() && std::find(chain.begin(), place + 1, used) != place + 1;
  });
}

std::vector<std::string> includes_that_point_upward(const Includes& includes) {
  std::vector<std::string> out;
  for (const auto& [file, included] : includes) {
    for (const std::string& other : included) {
      if (!may_use(layer_of(file), layer_of(other))) {
        out.push_back(file + " includes " + other);
      }
    }
  }
  return out;
}

/// One circle among files that include each other, as text; empty where there is none.
std::string a_circle(const Includes& includes) {
  std::set<std::string> done;
  std::vector<std::string> way;
  std::string circle;
  const std::function<bool(const std::string&)> leads_back = [&](const std::string& file) {
    if (const auto seen = std::ranges::find(way, file); seen != way.end()) {
      for (auto step = seen; step != way.end(); ++step) {
        circle += *step + " -> ";
      }
      circle += file;
      return true;
    }
    const auto included = includes.find(file);
    if (included == includes.end() || !done.insert(file).second) {
      return false;
    }
    way.push_back(file);
    const bool found = std::ranges::any_of(included->second, leads_back);
    way.pop_back();
    return found;
  };
  for (const auto& [file, included] : includes) {
    if (leads_back(file)) {
      break;
    }
  }
  return circle;
}

std::string without_comments(const std::string& text) {
  return std::regex_replace(text, std::regex("//[^\n]*"), "");
}

/// What the headers of a folder declare at the outermost level: classes, structs and enumerations.
std::set<std::string> types_in(const char* folder) {
  const std::regex form("\n(?:class|struct|enum class) (\\w+)");
  std::set<std::string> names;
  for (const std::string& file : sources_in({folder})) {
    const std::string text = read_file(project() + '/' + file);
    for (std::sregex_iterator it(text.begin(), text.end(), form), end; file.ends_with(".h") && it != end; ++it) {
      names.insert((*it)[1]);
    }
  }
  return names;
}

TEST(Structure, ALayerUsesNoneAboveIt) {
  const Includes includes = read_includes();
  ASSERT_GT(includes.size(), 200U);
  for (const auto& [file, included] : includes) {
    EXPECT_NE(layer_of(file), "") << file << " is in no layer";
  }
  EXPECT_EQ(includes_that_point_upward(includes), std::vector<std::string>());
}

TEST(Structure, NoFilesIncludeEachOtherInACircle) {
  EXPECT_EQ(a_circle(read_includes()), "");
}

TEST(Structure, TheMountAsksTheEngineAndNeverTheStore) {
  const std::set<std::string> types = types_in("core/store");
  ASSERT_TRUE(types.contains("Store") && types.contains("Record") && types.contains("WhenInUse"));
  const std::regex word("\\w+");
  for (const std::string& file : sources_in({"fs"})) {
    const std::string code = without_comments(read_file(project() + '/' + file));
    EXPECT_EQ(code.find("#include \"core/store/"), std::string::npos) << file;
    EXPECT_EQ(code.find("store()"), std::string::npos) << file;
    for (std::sregex_iterator it(code.begin(), code.end(), word), end; it != end; ++it) {
      EXPECT_FALSE(types.contains(it->str())) << file << " names " << it->str() << " of core/store";
    }
  }
}

TEST(Structure, WhatPointsUpwardIsFound) {
  EXPECT_EQ(includes_that_point_upward({{"core/base/a.h", {"core/base/b.h"}},
                                        {"fs/a.cpp", {"core/engine/e.h", "core/base/b.h"}},
                                        {"fs/nodes/a.cpp", {"fs/a.h"}},
                                        {"core/qcache.h", {"core/store/s.h"}},
                                        {"core/torch/t.h", {"core/program/p.h", "core/qcache.h"}},
                                        {"tools/worker/main.cpp", {"core/torch/t.h"}}}),
            std::vector<std::string>());
  EXPECT_EQ(includes_that_point_upward({{"core/base/a.h", {"core/model/m.h"}},
                                        {"core/engine/e.h", {"core/qcache.h"}},
                                        {"core/store/s.cpp", {"tests/support/t.h"}},
                                        {"fs/a.h", {"tools/t.h", "core/program/p.h"}},
                                        {"tools/a.cpp", {"core/torch/t.h"}}}),
            (std::vector<std::string>{"core/base/a.h includes core/model/m.h", "core/engine/e.h includes core/qcache.h",
                                      "core/store/s.cpp includes tests/support/t.h", "fs/a.h includes tools/t.h",
                                      "fs/a.h includes core/program/p.h", "tools/a.cpp includes core/torch/t.h"}));
}

TEST(Structure, ACircleIsFound) {
  EXPECT_EQ(a_circle({{"fs/a.h", {"fs/b.h", "fs/c.h"}}, {"fs/b.h", {"fs/c.h"}}, {"fs/c.h", {}}}), "");
  EXPECT_EQ(a_circle({{"fs/a.h", {"fs/b.h"}}, {"fs/b.h", {"fs/c.h"}}, {"fs/c.h", {"fs/b.h"}}}),
            "fs/b.h -> fs/c.h -> fs/b.h");
}

}  // namespace
}  // namespace qcache
