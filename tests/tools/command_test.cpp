#include "tools/command.h"

#include <gmock/gmock.h>

#include <cerrno>
#include <regex>
#include <set>
#include <sstream>

#include "core/base/units.h"
#include "tests/support/test_files.h"
#include "tests/tools/command_runner.h"

namespace qcache {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kProject = QCACHE_PROJECT_DIR;

std::set<std::string> all_matches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::set<std::string> out;
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it) {
    out.insert((*it)[1].str());
  }
  return out;
}

std::set<std::string> commands() {
  CommandRunner runner;
  const std::string help = runner.run_as_is({"--help"}).out;
  return all_matches(help.substr(help.find("Subcommands:")), "\n  ([a-z]+)");
}

TEST(Command, WhatIsNoCommandIsToldFromTheNearestOne) {
  CommandRunner runner;
  const struct {
    std::vector<std::string> words;
    const char* said;
  } cases[] = {
      {{"lsx"}, "unknown command 'lsx'; did you mean ls?"},
      {{"hlep"}, "did you mean help?"},
      {{"stauts"}, "did you mean status?"},
      {{"unmont", "/mnt"}, "did you mean unmount?"},
      {{"frobnicate"}, "'qcache --help' lists them"},
      {{"list"}, "did you mean ls?"},
      {{"ls", "--bogus"}, "See 'qcache ls --help'."},
      {{"ls", "--jsn"}, "unknown option '--jsn'; did you mean --json?"},
      {{"ls", "--bogus", "--jsn"}, "'--jsn'; did you mean"},
      {{"mount", "--cach-dir", "x"}, "did you mean --cache-dir?"},
      {{"ls", "--sort"}, "--sort needs a value"},
      {{"ls", "--limit", "0"}, "takes a number from 1"},
      {{"mount", "", "x"}, "must not be empty"},
      {{}, "See 'qcache --help'."},
      {{"mount"}, "qcache mount MODELS... MOUNTPOINT"},
      {{"mount", "models"}, "qcache mount MODELS... MOUNTPOINT"},
  };
  for (const auto& c : cases) {
    const Ran ran = runner.run_as_is(c.words);
    EXPECT_EQ(ran.exit, ExitCode::kUsage) << ::testing::PrintToString(c.words);
    EXPECT_THAT(ran.err, HasSubstr(c.said));
    EXPECT_THAT(ran.err, ::testing::StartsWith("qcache: "));
  }
  EXPECT_EQ(runner.run_as_is({"help"}).out, runner.run_as_is({"--help"}).out);
  EXPECT_EQ(runner.run_as_is({"help", "ls"}).out, runner.run_as_is({"ls", "--help"}).out);
  EXPECT_EQ(runner.run_as_is({"umount", "/nowhere"}).exit, ExitCode::kNotFound) << "an alias";
}

TEST(Command, EveryExitCodeCanBeReached) {
  CommandRunner runner;
  runner.write_model("m");
  runner.warm("m", "int8");
  write_file(runner.model("broken") + "/model.safetensors", "not a model at all, but long enough");
  EXPECT_EQ(runner.run({"ls"}).exit, ExitCode::kOk);
  EXPECT_EQ(runner.run({"ls", "--bogus"}).exit, ExitCode::kUsage);
  EXPECT_EQ(runner.run({"rm", "nobody"}).exit, ExitCode::kNotFound);
  EXPECT_EQ(runner.run({"info", runner.model("broken")}).exit, ExitCode::kModelUnusable);
  make_directories(runner.mount());
  EXPECT_EQ(runner.run({"mount", "-f", runner.dir() / "none", runner.mount()}).exit, ExitCode::kMountFailed);
  EXPECT_EQ(runner.run({"unmount", runner.mount()}).exit, ExitCode::kNotFound);

  runner.env().fail_all(EnvCall::kList, EIO, "/filling");
  EXPECT_EQ(runner.run({"ls"}).exit, ExitCode::kFailure);
  runner.env().heal();
  runner.env().fail_all(EnvCall::kStat, EACCES, "/index");
  EXPECT_EQ(runner.run({"ls"}).exit, ExitCode::kCacheUnusable);
  runner.env().heal();
  runner.env().fail_all(EnvCall::kOpen, EBUSY, "/filling/lock");
  EXPECT_EQ(runner.run({"rm", "m"}).exit, ExitCode::kBusy);
  runner.env().heal();

  runner.env().fail_all(EnvCall::kReadAt, EIO, "/quantized_model_");
  EXPECT_EQ(runner.run({"verify"}).exit, ExitCode::kIntegrityFailure);
}

TEST(Command, ErrorsAreOneSentenceOnStandardError) {
  CommandRunner runner;
  const Ran ran = runner.run({"gc", "--json"});
  EXPECT_EQ(ran.exit, ExitCode::kCacheUnusable);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, ::testing::StartsWith("qcache: "));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1);
}

TEST(Command, ActsAsMountHelper) {
  CommandRunner runner;
  // As mount(8) and as mount.fuse3 call it; "-f" checks the arguments only.
  std::ostringstream out;
  std::ostringstream err;
  CommandContext context{runner.env(), out, err};
  context.mount_table = runner.dir() / "mountinfo";
  EXPECT_EQ(run_command("/sbin/mount.fuse.qcache", {"/models", "/mnt", "-f", "-o", "nofail,_netdev"}, context),
            ExitCode::kOk);
  EXPECT_EQ(run_command("qcache", {"/models", "/mnt", "-f", "-o", "ro"}, context), ExitCode::kOk);
  EXPECT_EQ(err.str(), "");
  // Its numbers are those of mount(8), which hands them on.
  EXPECT_EQ(static_cast<int>(run_command("mount.fuse.qcache", {"/models", "/mnt", "-f", "-o", "bogus"}, context)), 1);
  EXPECT_THAT(err.str(), HasSubstr("unknown mount option 'bogus'"));
  const std::string nowhere = runner.dir() / "nowhere";
  EXPECT_EQ(static_cast<int>(run_command("mount.fuse.qcache", {nowhere, runner.dir().path()}, context)), 32);
  EXPECT_THAT(err.str(), HasSubstr(nowhere));
}

TEST(Command, RefusesAWrongCommandLine) {
  CommandRunner runner;
  for (const auto& words : std::vector<std::vector<std::string>>{{},
                                                                 {"bogus"},
                                                                 {"mount"},
                                                                 {"mount", "one"},
                                                                 {"mount", "m", "x", "--max-age", "7"},
                                                                 {"mount", "m", "x", "-o", "bogus"},
                                                                 {"mount", "-f", "m", "x", "--log-level", "loud"},
                                                                 {"unmount"},
                                                                 {"ls", "m", "int8", "0", "surplus"}}) {
    const Ran ran = runner.run_as_is(words);
    EXPECT_EQ(ran.exit, ExitCode::kUsage) << ::testing::PrintToString(words);
    EXPECT_THAT(ran.err, ::testing::Not(IsEmpty()));
  }
}

TEST(Command, PrintsItsVersion) {
  CommandRunner runner;
  const Ran ran = runner.run_as_is({"--version"});
  EXPECT_EQ(ran.exit, ExitCode::kOk);
  EXPECT_EQ(ran.out, "qcache " QCACHE_VERSION "\n");
}

TEST(Documentation, EveryHelpHasAnExample) {
  CommandRunner runner;
  EXPECT_THAT(commands(), ::testing::IsSupersetOf({"ls", "info", "warm", "rm", "gc", "verify", "pin", "unpin", "mount",
                                                   "unmount", "status", "doctor"}));
  for (const std::string& command : commands()) {
    const Ran ran = runner.run_as_is({command, "--help"});
    EXPECT_EQ(ran.exit, ExitCode::kOk);
    EXPECT_THAT(ran.out, HasSubstr("Example:\n  qcache " + command)) << command;
  }
}

TEST(Documentation, EveryHelpFitsEightyColumns) {
  CommandRunner runner;
  std::set<std::string> all = commands();
  all.insert("");
  for (const std::string& command : all) {
    std::istringstream help(runner
                                .run_as_is(command.empty() ? std::vector<std::string>{"--help"}
                                                           : std::vector{command, std::string("--help")})
                                .out);
    for (std::string line; std::getline(help, line);) {
      EXPECT_LE(line.size(), 80U) << command << ": " << line;
    }
  }
}

TEST(Documentation, HelpOfMountListsEveryMountOption) {
  CommandRunner runner;
  const std::string help = runner.run_as_is({"mount", "--help"}).out;
  for (const char* option :
       {"aging_interval=TIME", "max_size=SIZE", "linger=TIME", "nonempty", "noatime", "context="}) {
    EXPECT_THAT(help, HasSubstr(option));
  }
}

TEST(Documentation, EveryOptionIsInTheReferenceUnderItsCommand) {
  CommandRunner runner;
  const std::string reference = read_file(kProject + "/docs/COMMANDS.md");
  const std::set<std::string> common = {"--help"};
  for (const std::string& command : commands()) {
    const std::string heading = command == "unpin" ? "\n## pin, unpin\n"
                                : command == "pin" ? "\n## pin, unpin\n"
                                                   : "\n## " + command + "\n";
    const size_t begin = reference.find(heading);
    ASSERT_NE(begin, std::string::npos) << command;
    const std::string section = reference.substr(begin, reference.find("\n## ", begin + 1) - begin);
    const std::string help = runner.run_as_is({command, "--help"}).out;
    const std::string options = help.substr(help.find("Options:"), help.find("Example:") - help.find("Options:"));
    for (const std::string& option : all_matches(options, "[ \n,](--?[a-z][a-z-]*)(?=[ ,\n])")) {
      if (option != "-h" && !common.contains(option)) {
        EXPECT_THAT(section, HasSubstr('`' + option)) << command;
      }
    }
    // And nothing is promised that is not there.
    for (const std::string& option : all_matches(section.substr(0, section.find("\n    qcache")), "\n- `(--[a-z-]+)")) {
      EXPECT_THAT(options, HasSubstr(option)) << command;
    }
  }
}

TEST(Documentation, ReadmeListsTheExitCodes) {
  const std::string readme = read_file(kProject + "/README.md");
  const size_t begin = readme.find("\n## Exit codes\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string section = readme.substr(begin, readme.find("\n## ", begin + 1) - begin);
  std::set<int> listed;
  for (const std::string& number : all_matches(section, "\n\\| *`?([0-9]+)`? *\\|")) {
    listed.insert(std::stoi(number));
  }
  std::set<int> codes;
  for (int code = static_cast<int>(ExitCode::kOk); code <= static_cast<int>(ExitCode::kIntegrityFailure); ++code) {
    codes.insert(code);
  }
  codes.insert(static_cast<int>(ExitCode::kInterrupted));
  EXPECT_EQ(listed, codes);
}

TEST(ExitCodes, NeverChange) {
  const struct {
    ErrorKind kind;
    int code;
  } cases[] = {{ErrorKind::kInvalidArgument, 2}, {ErrorKind::kNotFound, 3},    {ErrorKind::kInvalidModel, 4},
               {ErrorKind::kSourceChanged, 4},   {ErrorKind::kUnsupported, 5}, {ErrorKind::kNoSpace, 5},
               {ErrorKind::kPermission, 5},      {ErrorKind::kBusy, 7},        {ErrorKind::kCorrupt, 8},
               {ErrorKind::kInterrupted, 130},   {ErrorKind::kIo, 1},          {ErrorKind::kInternal, 1}};
  for (const auto& c : cases) {
    EXPECT_EQ(static_cast<int>(exit_code_of(Error{c.kind, 0, ""})), c.code) << to_string(c.kind);
  }
}

}  // namespace
}  // namespace qcache
