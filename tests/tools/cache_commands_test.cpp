#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <functional>

#include "core/engine/engine.h"
#include "tests/support/test_files.h"
#include "tests/tools/command_runner.h"

namespace qcache {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr int64_t kDayNs = int64_t{86400} * 1'000'000'000;

class CacheCommands : public ::testing::Test {
 protected:
  CommandRunner runner_;

  std::vector<std::string> listed_paths() {
    std::vector<std::string> paths;
    const json document = runner_.run({"ls", "--json"}).json();
    for (const json& file : document.at("files")) {
      paths.push_back(file.at("path"));
    }
    return paths;
  }

  // Changes one byte, as a failing disk would.
  void spoil(const std::string& path) {
    std::string content = read_file(path);
    ASSERT_FALSE(content.empty());
    content[content.size() / 2] = static_cast<char>(content[content.size() / 2] ^ 1);
    ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
    write_file(path, content);
  }
};

TEST_F(CacheCommands, LsOfADirectoryThatIsNotThereIsEmpty) {
  const Ran text = runner_.run({"ls"});
  EXPECT_EQ(text.exit, ExitCode::kOk);
  EXPECT_THAT(text.out, HasSubstr("0 files"));
  const Ran ran = runner_.run({"ls", "--json"});
  EXPECT_EQ(ran.json().at("files"), json::array());
  EXPECT_EQ(ran.json().at("cache_dir"), runner_.cache());
  EXPECT_FALSE(std::filesystem::exists(runner_.cache())) << "looking must make nothing";
}

TEST_F(CacheCommands, LsOfAnotherKindOfFolderIsNotFound) {
  make_directories(runner_.cache());
  const Ran ran = runner_.run({"ls"});
  EXPECT_EQ(ran.exit, ExitCode::kNotFound);
  EXPECT_THAT(ran.err, HasSubstr("--cache-dir"));
}

TEST_F(CacheCommands, LsShowsSealedAndFillingFilesByPath) {
  runner_.write_model("b");
  runner_.write_model("a");
  runner_.warm("b", "int8");
  runner_.begin("a", "bf16");

  const Ran text = runner_.run({"ls"});
  EXPECT_EQ(text.exit, ExitCode::kOk);
  EXPECT_THAT(text.out, HasSubstr(runner_.cache() + "\nPATH"));
  EXPECT_THAT(text.out, ::testing::ContainsRegex("a/bf16/0.bin +filling 0% "));
  EXPECT_THAT(text.out, ::testing::ContainsRegex("b/int8/0.bin +sealed .* +[0-9]+\n2 files, "));
  EXPECT_THAT(listed_paths(), ElementsAre("a/bf16/0.bin", "b/int8/0.bin"));

  const json document = runner_.run({"ls", "--json"}).json();
  const json& filling = document.at("files").at(0);
  EXPECT_EQ(filling.at("state"), "filling");
  EXPECT_TRUE(filling.at("sha256").is_null());
  const json& sealed = document.at("files").at(1);
  EXPECT_EQ(sealed.at("state"), "sealed");
  EXPECT_EQ(sealed.at("file"), runner_.sealed_path("b", "int8"));
  EXPECT_EQ(sealed.at("size_bytes"), read_file(runner_.sealed_path("b", "int8")).size());
  EXPECT_EQ(sealed.at("sha256").get<std::string>().size(), 64U);
  EXPECT_EQ(sealed.at("source"), runner_.model("b"));
  EXPECT_THAT(sealed.at("accessed").get<std::string>(), ::testing::MatchesRegex("20..-..-..T..:..:..Z"));
  EXPECT_EQ(sealed.at("pinned"), false);
  EXPECT_EQ(sealed.at("in_use"), false);
}

TEST_F(CacheCommands, LsShowsOnlyWhatIsAskedFor) {
  runner_.write_model("m");
  runner_.write_model("n");
  runner_.warm("m", "int8");
  runner_.warm("m", "bf16");
  runner_.warm("n", "int8");
  EXPECT_EQ(runner_.run({"ls", "-q"}).out, "m/bf16/0.bin\nm/int8/0.bin\nn/int8/0.bin\n");
  EXPECT_EQ(runner_.run({"ls", "m", "-q"}).out, "m/bf16/0.bin\nm/int8/0.bin\n");
  EXPECT_EQ(runner_.run({"ls", "m", "int8", "-q"}).out, "m/int8/0.bin\n");
  EXPECT_EQ(runner_.run({"ls", "-q", "--filter", "dtype=int8", "--filter", "model=n"}).out, "n/int8/0.bin\n");
  EXPECT_EQ(runner_.run({"ls", "-q", "--sort", "name:desc", "--limit", "1"}).out, "n/int8/0.bin\n");
  EXPECT_EQ(runner_.run({"ls", "--json", "--limit", "2"}).json().at("files").size(), 2U);
  EXPECT_EQ(runner_.run({"ls", "nobody"}).exit, ExitCode::kNotFound);
  EXPECT_EQ(runner_.run({"ls", "--filter", "age>1"}).exit, ExitCode::kUsage);
  EXPECT_EQ(runner_.run({"ls", "--limit", "0"}).exit, ExitCode::kUsage);
}

// Everything fits 80 columns without breaking words: a table that would not has the path in a line of its own.
TEST_F(CacheCommands, LsFitsEightyColumns) {
  const std::string name(50, 'n');
  runner_.write_model(name);
  runner_.warm(name, "int8");
  runner_.write_model("short");
  runner_.warm("short", "int8");
  const std::string out = runner_.run({"ls"}).out;
  EXPECT_THAT(out, HasSubstr("\nPATH              STATE "));
  EXPECT_THAT(out, HasSubstr("\nshort/int8/0.bin  sealed "));
  EXPECT_THAT(out, HasSubstr('\n' + name + "/int8/0.bin\n                  sealed "));
}

TEST_F(CacheCommands, MuchIsDroppedOnlyWhenSomebodyAtTheTerminalSaysSo) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.ask_above(1000);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"rm", "m"}, {"gc", "--max-age", "0s"}, {"rm", "m", "--json"}}) {
    std::vector<std::string> all = words;
    all.insert(all.end(), {"--cache-dir", runner_.cache()});
    const Ran no = runner_.run_on_terminal(all, "n\n");
    EXPECT_EQ(no.exit, ExitCode::kFailure);
    EXPECT_THAT(no.err, HasSubstr("? [y/N] "));
    EXPECT_THAT(no.err, HasSubstr("Nothing was dropped"));
    EXPECT_EQ(runner_.run_on_terminal(all, "").exit, ExitCode::kFailure);
    EXPECT_EQ(listed_paths().size(), 1U);
  }
  EXPECT_EQ(runner_.run_on_terminal({"rm", "m", "--cache-dir", runner_.cache()}, "y\n").exit, ExitCode::kOk);
  EXPECT_EQ(listed_paths().size(), 0U);
  runner_.warm("m", "int8");
  EXPECT_THAT(runner_.run_on_terminal({"rm", "m", "-y", "--cache-dir", runner_.cache()}).err, Not(HasSubstr("[y/N]")));
  runner_.warm("m", "int8");
  EXPECT_EQ(runner_.run({"rm", "m"}).exit, ExitCode::kOk) << "scripts are not asked";
}

TEST_F(CacheCommands, LsTellsHowLongAgoFilesWereRead) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.env().advance(3 * kDayNs);
  EXPECT_THAT(runner_.run({"ls"}).out, HasSubstr("3d ago"));
}

TEST_F(CacheCommands, CacheDirBeatsEnvironmentBeatsRunningMount) {
  const EnvironmentValue unset("QWEN_CACHE", nullptr);
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.show_mount(::geteuid());
  EXPECT_EQ(runner_.run_as_is({"ls", "--json"}).json().at("cache_dir"), runner_.cache());
  {
    const EnvironmentValue set("QWEN_CACHE", (runner_.dir() / "other").c_str());
    EXPECT_EQ(runner_.run_as_is({"ls", "--json"}).json().at("cache_dir"), runner_.dir() / "other");
    EXPECT_EQ(runner_.run({"ls", "--json"}).json().at("cache_dir"), runner_.cache());
  }
  const EnvironmentValue home("HOME", (runner_.dir() / "home").c_str());
  runner_.show_mount(::geteuid() + 1);
  EXPECT_EQ(runner_.run_as_is({"ls", "--json"}).json().at("cache_dir"), runner_.dir() / "home/.cache/qwen_quantized")
      << "the mount of another user does not choose";
}

TEST_F(CacheCommands, GcDropsWhatWasNotReadForLong) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.warm("m", "bf16");
  EXPECT_THAT(runner_.run({"gc"}).out, HasSubstr("Nothing to drop in " + runner_.cache()));
  runner_.env().advance(8 * kDayNs);

  const Ran dry = runner_.run({"gc", "--dry-run"});
  EXPECT_EQ(dry.exit, ExitCode::kOk);
  EXPECT_THAT(dry.out, HasSubstr("Would drop m/int8/0.bin: not read for 8d"));
  EXPECT_THAT(dry.out, HasSubstr("Would drop 2 files"));
  EXPECT_EQ(listed_paths().size(), 2U);

  EXPECT_THAT(runner_.run({"gc", "--max-age", "never"}).out, HasSubstr("Nothing to drop"));
  const Ran done = runner_.run({"gc", "--json"});
  EXPECT_EQ(done.exit, ExitCode::kOk);
  EXPECT_EQ(done.json().at("dry_run"), false);
  EXPECT_EQ(done.json().at("dropped").size(), 2U);
  EXPECT_EQ(done.json().at("dropped").at(0).at("reason"), "not read for 8d");
  EXPECT_GT(done.json().at("dropped_bytes"), 0);
  EXPECT_EQ(done.json().at("kept_bytes"), 0);
  EXPECT_EQ(listed_paths().size(), 0U);
}

TEST_F(CacheCommands, GcKeepsBelowASizeButNeverDropsPinnedFiles) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.env().advance(1);
  runner_.warm("m", "bf16");
  EXPECT_EQ(runner_.run({"pin", "m", "int8"}).exit, ExitCode::kOk);
  const Ran ran = runner_.run({"gc", "--max-size", "1"});
  EXPECT_THAT(ran.out, HasSubstr("Dropped m/bf16/0.bin: over the size limit"));
  EXPECT_THAT(listed_paths(), ElementsAre("m/int8/0.bin"));
}

TEST_F(CacheCommands, GcRefusesMalformedLimits) {
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"gc", "--max-age", "7"}, {"gc", "--max-size", "much"}, {"gc", "--max-age"}, {"gc", "surplus"}}) {
    const Ran ran = runner_.run(words);
    EXPECT_EQ(ran.exit, ExitCode::kUsage) << ::testing::PrintToString(words);
    EXPECT_THAT(ran.err, Not(::testing::IsEmpty()));
  }
}

TEST_F(CacheCommands, VerifyAcceptsGoodFiles) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.begin("m", "bf16");
  const Ran ran = runner_.run({"verify"});
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("Checked 1 file, "));
  EXPECT_THAT(ran.out, HasSubstr("all are right"));
  EXPECT_EQ(runner_.run({"verify", "m", "int8", "0"}).exit, ExitCode::kOk);
}

TEST_F(CacheCommands, VerifyOnlyLooksUntilToldToRepair) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.warm("m", "bf16");
  spoil(runner_.sealed_path("m", "int8"));

  const Ran looked = runner_.run({"verify"});
  EXPECT_EQ(looked.exit, ExitCode::kIntegrityFailure);
  EXPECT_THAT(looked.out, HasSubstr("Bad m/int8/0.bin: "));
  EXPECT_THAT(looked.out, HasSubstr("Checked 2 files"));
  EXPECT_THAT(looked.out, HasSubstr("--repair"));
  EXPECT_EQ(listed_paths().size(), 2U);
  EXPECT_EQ(runner_.run({"verify", "m", "bf16"}).exit, ExitCode::kOk);

  const Ran repaired = runner_.run({"verify", "--repair", "--json"});
  EXPECT_EQ(repaired.exit, ExitCode::kIntegrityFailure);
  EXPECT_EQ(repaired.json().at("checked"), 2);
  ASSERT_EQ(repaired.json().at("bad").size(), 1U);
  EXPECT_EQ(repaired.json().at("bad").at(0).at("path"), "m/int8/0.bin");
  EXPECT_EQ(repaired.json().at("bad").at(0).at("dropped"), true);
  EXPECT_THAT(listed_paths(), ElementsAre("m/bf16/0.bin"));
  EXPECT_EQ(runner_.run({"verify"}).exit, ExitCode::kOk);
}

TEST_F(CacheCommands, VerifyCountsAFileThatCannotBeReadAsBad) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.env().fail_all(EnvCall::kReadAt, EIO, "quantized_model_");
  const Ran ran = runner_.run({"verify"});
  EXPECT_EQ(ran.exit, ExitCode::kIntegrityFailure);
  EXPECT_THAT(ran.out, HasSubstr("Input/output error"));
}

TEST_F(CacheCommands, VerifySkipsFilesThatGoAwayMeanwhile) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  const std::string path = runner_.sealed_path("m", "int8");
  runner_.env().before(
      EnvCall::kOpen, 2, [&] { std::filesystem::remove(path); }, path);
  const Ran ran = runner_.run({"verify"});
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("Checked 0 files"));
}

TEST_F(CacheCommands, VerifyEndsOnASignal) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.warm("m", "bf16");
  runner_.env().before(
      EnvCall::kReadAt, 1, [] { ::raise(SIGINT); }, "quantized_model_");
  const Ran ran = runner_.run({"verify"});
  EXPECT_EQ(ran.exit, ExitCode::kInterrupted);
  EXPECT_THAT(ran.err, HasSubstr("stopped after 1 of 2 files"));
}

TEST_F(CacheCommands, VerifyOfSomethingNotCachedIsNotFound) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  EXPECT_EQ(runner_.run({"verify", "m", "bf16"}).exit, ExitCode::kNotFound);
  EXPECT_EQ(runner_.run({"verify", "other"}).exit, ExitCode::kNotFound);
}

TEST_F(CacheCommands, RmTakesEveryWayToNameFiles) {
  runner_.write_model("m");
  const std::string int8 = std::filesystem::path(runner_.sealed_path("m", "int8")).filename();
  const std::vector<std::vector<std::string>> ways = {{"rm", "m", "int8"},
                                                      {"rm", "m", "INT8", "0"},
                                                      {"rm", "m", "int8", "0.bin"},
                                                      {"rm", "m/int8"},
                                                      {"rm", "m/int8/0.bin"},
                                                      {"rm", runner_.model("m"), "int8"},
                                                      {"rm", int8},
                                                      {"rm", runner_.cache() + "/" + int8}};
  runner_.warm("m", "bf16");
  for (const auto& words : ways) {
    runner_.warm("m", "int8");
    const Ran ran = runner_.run(words);
    EXPECT_EQ(ran.exit, ExitCode::kOk) << ::testing::PrintToString(words) << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("Dropped m/int8/0.bin ("));
    EXPECT_THAT(ran.out, HasSubstr("Dropped 1 file, "));
    EXPECT_THAT(listed_paths(), ElementsAre("m/bf16/0.bin")) << ::testing::PrintToString(words);
  }
}

TEST_F(CacheCommands, RmTakesWhatLsPrintsWhateverBecameOfTheModel) {
  const std::vector<std::function<void()>> fates = {
      [] {},
      [&] { std::filesystem::resize_file(runner_.model("m") + "/model.safetensors", 100); },
      [&] { std::filesystem::remove(runner_.model("m") + "/model.safetensors"); },
      [&] { std::filesystem::remove_all(runner_.models()); },
  };
  for (size_t fate = 0; fate < fates.size(); ++fate) {
    SCOPED_TRACE(fate);
    const std::string file = std::filesystem::path(runner_.sealed_path("m", "int8")).filename();
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{"rm", "m"},
                                               {"rm", "m", "int8"},
                                               {"rm", "m/int8/0.bin"},
                                               {"rm", file},
                                               {"rm", runner_.sealed_path("m", "int8")},
                                               {"rm", runner_.model("m")},
                                               {"rm", runner_.model("m"), "int8"}}) {
      SCOPED_TRACE(::testing::PrintToString(words));
      make_directories(runner_.models());
      runner_.write_model("m");
      runner_.warm("m", "int8");
      fates[fate]();
      ASSERT_THAT(listed_paths(), ElementsAre("m/int8/0.bin"));
      const Ran ran = runner_.run(words);
      EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
      EXPECT_THAT(listed_paths(), ElementsAre());
    }
  }
}

TEST_F(CacheCommands, FilesOfSeveralStatesOfAModelAreListedAndRemovedTogether) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  set_mtime(runner_.model("m") + "/model.safetensors", 1'000'000'000);
  runner_.warm("m", "int8");
  EXPECT_THAT(listed_paths(), ElementsAre("m/int8/0.bin", "m/int8/0.bin"));
  const Ran ran = runner_.run({"ls"});
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("m/int8/0.bin +stale "));
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("m/int8/0.bin +sealed "));
  const json files = runner_.run({"ls", "--json"}).json().at("files");
  EXPECT_NE(files[0].at("file"), files[1].at("file"));
  EXPECT_NE(files[0].at("stale"), files[1].at("stale"));
  EXPECT_THAT(runner_.run({"gc", "--dry-run"}).out, HasSubstr("made of an earlier state of its model"));
  EXPECT_THAT(runner_.run({"rm", "m", "int8", "0.bin"}).out, HasSubstr("Dropped 2 files"));
  EXPECT_THAT(listed_paths(), ElementsAre());
}

TEST_F(CacheCommands, RmTellsAFolderFromTheCheckpointBesideIt) {
  runner_.write_model("m");
  const auto warm_both = [&] {
    for (const char* file : {"0.bin", "0/model.safetensors"}) {
      EXPECT_EQ(runner_.run({"warm", runner_.model("m"), "int8", file}).exit, ExitCode::kOk) << file;
    }
    EXPECT_THAT(listed_paths(), UnorderedElementsAre("m/int8/0.bin", "m/int8/0/model.safetensors"));
  };
  warm_both();
  EXPECT_EQ(runner_.run({"rm", "m/int8/0/model.safetensors"}).exit, ExitCode::kOk);
  EXPECT_THAT(listed_paths(), ElementsAre("m/int8/0.bin"));
  warm_both();
  EXPECT_EQ(runner_.run({"rm", "m", "int8", "0.bin"}).exit, ExitCode::kOk);
  EXPECT_THAT(listed_paths(), ElementsAre("m/int8/0/model.safetensors"));
  warm_both();
  EXPECT_EQ(runner_.run({"rm", "m", "int8", "0"}).exit, ExitCode::kOk);
  EXPECT_THAT(listed_paths(), ElementsAre());
  warm_both();
  EXPECT_EQ(runner_.run({"rm", runner_.model("m")}).exit, ExitCode::kOk);
  EXPECT_THAT(listed_paths(), ElementsAre());
  EXPECT_EQ(runner_.run({"rm", "m/int8/0/config.json"}).exit, ExitCode::kUsage);
}

TEST_F(CacheCommands, RmOfAModelDropsAllItsFilesAndNoOthers) {
  runner_.write_model("m");
  runner_.write_model("m2");
  runner_.warm("m", "int8");
  runner_.begin("m", "bf16");
  runner_.warm("m2", "int8");
  const Ran dry = runner_.run({"rm", "m", "--dry-run"});
  EXPECT_THAT(dry.out, HasSubstr("Would drop 2 files"));
  EXPECT_EQ(listed_paths().size(), 3U);
  const Ran ran = runner_.run({"rm", "m", "--json"});
  EXPECT_EQ(ran.json().at("dropped").size(), 2U);
  EXPECT_GT(ran.json().at("dropped_bytes"), 0);
  EXPECT_THAT(listed_paths(), ElementsAre("m2/int8/0.bin"));
}

TEST_F(CacheCommands, RmDropsFilesInUseAndSaysSo) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  EngineOptions options;
  options.roots = {runner_.model("m")};
  options.cache_directory = runner_.cache();
  auto engine = Engine::start(Env::posix(), options);
  ASSERT_TRUE(engine);
  const auto reader = (*engine)->open({"m", find_scheme("int8"), 0});
  ASSERT_TRUE(reader);
  const Ran ran = runner_.run({"rm", "m"});
  EXPECT_EQ(ran.exit, ExitCode::kOk);
  EXPECT_THAT(ran.out, HasSubstr("its readers keep their bytes"));
  EXPECT_EQ(listed_paths().size(), 0U);
}

TEST_F(CacheCommands, RmRefusesWhatIsNotThereOrNotAName) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  const struct {
    std::vector<std::string> words;
    ExitCode exit;
    const char* said;
  } cases[] = {
      {{"rm", "m", "bf16"}, ExitCode::kNotFound, "'m bf16'"},
      {{"rm", "other"}, ExitCode::kNotFound, "'other'"},
      {{"rm", "/no/such/path"}, ExitCode::kNotFound, "nothing of '/no/such/path' is cached"},
      {{"rm", "a/b/c/d"}, ExitCode::kUsage, "'d'"},
      {{"rm", "m", "int8", "one"}, ExitCode::kUsage, "'one' is neither a rank"},
      {{"rm", "m", "int8", "00"}, ExitCode::kUsage, "'00' is neither a rank"},
      {{"rm", ""}, ExitCode::kUsage, "empty"},
      {{"rm", "m", ""}, ExitCode::kUsage, "empty"},
      {{"verify", ""}, ExitCode::kUsage, "empty"},
      {{"rm"}, ExitCode::kUsage, "MODEL"},
      {{"rm", "m", "int8", "0", "more"}, ExitCode::kUsage, "more"},
  };
  for (const auto& c : cases) {
    const Ran ran = runner_.run(c.words);
    EXPECT_EQ(ran.exit, c.exit) << ::testing::PrintToString(c.words);
    EXPECT_THAT(ran.err, HasSubstr(c.said));
  }
  EXPECT_THAT(listed_paths(), ElementsAre("m/int8/0.bin"));
}

TEST_F(CacheCommands, RmOfAPathInAMountUnlinksThere) {
  runner_.show_mount(::geteuid());
  const std::string full = runner_.mount() + "/m/int8/0.bin";
  const std::string empty = runner_.mount() + "/m/bf16/0.bin";
  write_file(full, std::string(10'000, 'x'));
  write_file(empty, "");
  set_test_attribute(full, "state", "filling");
  set_test_attribute(empty, "state", "absent");
  const Ran dry = runner_.run_as_is({"rm", runner_.mount() + "/m", "--dry-run"});
  EXPECT_THAT(dry.out, HasSubstr("Would drop m/int8/0.bin"));
  EXPECT_TRUE(std::filesystem::exists(full));
  const Ran ran = runner_.run_as_is({"rm", runner_.mount() + "/m", "int8"});
  EXPECT_EQ(ran.exit, ExitCode::kOk) << ran.err;
  EXPECT_FALSE(std::filesystem::exists(full));
  EXPECT_TRUE(std::filesystem::exists(empty)) << "nothing of it was cached";
  EXPECT_EQ(runner_.run_as_is({"rm", empty}).exit, ExitCode::kNotFound);
  EXPECT_EQ(runner_.run_as_is({"rm", runner_.mount()}).exit, ExitCode::kUsage) << "not everything by a slip";
}

TEST_F(CacheCommands, PinKeepsAndUnpinLetsGo) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  runner_.begin("m", "bf16");
  EXPECT_THAT(runner_.run({"pin", "m", "int8"}).out, HasSubstr("Pinned m/int8/0.bin"));
  EXPECT_THAT(runner_.run({"ls"}).out, ::testing::ContainsRegex("m/int8/0.bin +sealed, pinned  "));
  const Ran ran = runner_.run({"unpin", "m", "--json"});
  EXPECT_EQ(ran.json().at("paths"), json::array({"m/int8/0.bin"}));
  EXPECT_THAT(runner_.run({"ls"}).out, Not(HasSubstr("pinned")));
  const Ran filling = runner_.run({"pin", "m", "bf16"});
  EXPECT_EQ(filling.exit, ExitCode::kNotFound);
  EXPECT_THAT(filling.err, HasSubstr("not complete yet"));
}

TEST_F(CacheCommands, OnlyWhatTheModelMakesNowIsPinned) {
  runner_.write_model("m");
  runner_.warm("m", "int8");
  EXPECT_EQ(runner_.run({"pin", "m", "int8"}).exit, ExitCode::kOk);
  set_mtime(runner_.model("m") + "/model.safetensors", 1'000'000'000);
  const Ran stale = runner_.run({"pin", "m", "int8"});
  EXPECT_EQ(stale.exit, ExitCode::kNotFound);
  EXPECT_THAT(stale.err, HasSubstr("an earlier state of its model"));
  EXPECT_THAT(runner_.run({"gc", "--max-age", "0s"}).out, HasSubstr("Nothing to drop")) << "it stays pinned";
  EXPECT_EQ(runner_.run({"unpin", "m", "int8"}).exit, ExitCode::kOk) << "what is stale can be let go";
  std::filesystem::remove_all(runner_.model("m"));
  EXPECT_EQ(runner_.run({"pin", "m", "int8"}).exit, ExitCode::kOk) << "a program's model has no other folder";
}

TEST_F(CacheCommands, NamesFromStrangersDoNotReachTheTerminal) {
  const std::string name = "evil\x1b[2Jname";
  runner_.write_model(name);
  runner_.warm(name, "int8");
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"ls"}, {"verify"}, {"info", runner_.model(name)}, {"rm", "no\x1b[2Jbody"}, {"pin", name}, {"rm", name}}) {
    const Ran ran = runner_.run(words);
    EXPECT_THAT(ran.out + ran.err, Not(HasSubstr("\x1b"))) << words[0];
  }
}

}  // namespace
}  // namespace qcache
