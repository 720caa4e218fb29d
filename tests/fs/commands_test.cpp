#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/fs/command_line.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

/// What people do with the commands, on real mounts.
class MountCommands : public MountTest {
 protected:
  [[nodiscard]] Said said(const std::vector<std::string>& words) const { return run(dir(), words); }
  /// The commands of this test see mounts of this test only: others have mount namespaces of their own.
  [[nodiscard]] nlohmann::json json(std::vector<std::string> words) const {
    words.emplace_back("--json");
    return nlohmann::json::parse(said(words).text, nullptr, false);
  }
  [[nodiscard]] std::vector<std::string> listed(const std::string& cache_dir) const {
    std::vector<std::string> paths;
    const nlohmann::json document = json({"ls", "--cache-dir", cache_dir});
    for (const auto& file : document.at("files")) {
      paths.push_back(file.at("path"));
    }
    return paths;
  }
  void write_pipeline(const std::string& name) const {
    const std::string pipeline = model(name);
    ModelBuilder part;
    part.config(R"({"_class_name": "XTransformer2DModel"})")
        .tensor("blocks.0.ff.weight", DType::kBF16, {128, 128})
        .write(pipeline + "/transformer");
    std::filesystem::rename(pipeline + "/transformer/model.safetensors",
                            pipeline + "/transformer/diffusion_pytorch_model.safetensors");
    write_file(pipeline + "/model_index.json", R"({"_class_name": "XPipeline"})");
  }
};

bool has(const std::string& text, const std::string& word) {
  return text.find(word) != std::string::npos;
}

// `warm MODEL DTYPE` makes what from_pretrained reads, `--rank` a rank's folder, a file that is named only that.
TEST_F(MountCommands, WarmMakesWhatFromPretrainedReads) {
  tiled_model().write(model("m"));
  mount();
  EXPECT_TRUE(ends(said({"warm", "m", "nf4"}), 0, "m/nf4/0/model.safetensors is complete"));
  EXPECT_EQ(listed(cache()), (std::vector<std::string>{"m/nf4/0/model.safetensors"}));
  EXPECT_TRUE(ends(said({"warm", "m", "nf4", "0.bin"}), 0, "m/nf4/0.bin is complete"));
  const Said rank = said({"warm", "m", "int8", "--rank", "2"});
  EXPECT_TRUE(ends(rank, 0, "m/int8/2/model.safetensors is complete"));
  EXPECT_TRUE(ends(rank, 0, "m/int8/2/lora/adapter_model.safetensors is complete"));
  EXPECT_TRUE(ends(said({"warm", "m", "int8", "2.bin"}), 0, "m/int8/2.bin is complete"));
  EXPECT_TRUE(ends(said({"warm", "m", "int8", "--rank", "70000"}), exits::kNotFound, "its ranks are 0 to "));
  EXPECT_TRUE(ends(said({"warm", "m", "int8", "0.bin", "--rank", "2"}), exits::kUsage, "not both"));

  const auto info = json({"info", "m"});
  for (const auto& dtype : info.at("dtypes")) {
    if (dtype.at("dtype") == "nf4") {
      ASSERT_EQ(dtype.at("files").size(), 2U);
      EXPECT_EQ(dtype.at("files")[0].at("file"), "0/model.safetensors");
      EXPECT_EQ(dtype.at("files")[0].at("state"), "sealed");
      EXPECT_EQ(dtype.at("files")[1].at("file"), "0.bin");
    } else if (dtype.at("dtype") == "int8") {
      EXPECT_EQ(dtype.at("files").size(), 4U) << "those of ranks that hold bytes: " << dtype.dump();
    }
  }
  EXPECT_EQ(said({"rm", "m", "int8", "2"}).status, 0);
  EXPECT_EQ(listed(cache()).size(), 3U) << "a mere rank is all of that rank, and not the weights of rank 0";
}

// `ls`, `warm`, `rm` and `pin` use the names that the mount shows.
TEST_F(MountCommands, FilesOfPipelinesGoByTheirNamesInTheMount) {
  write_pipeline("pipe");
  MountedFs& fs = mount();
  const std::string weights = "pipe/nf4/0/transformer/diffusion_pytorch_model.safetensors";
  const std::string adapter = "pipe/nf4/2/lora/pytorch_lora_weights.safetensors";
  EXPECT_TRUE(ends(said({"warm", "pipe", "nf4"}), 0, weights + " is complete"));
  EXPECT_TRUE(ends(said({"warm", "pipe", "nf4", "--rank", "2"}), 0, adapter + " is complete"));
  EXPECT_EQ(listed(cache()), (std::vector<std::string>{weights, adapter}));
  for (const std::string& name : listed(cache())) {
    EXPECT_EQ(stat_error(fs.path(name)), 0) << name;
    EXPECT_TRUE(ends(said({"pin", name}), 0, "Pinned " + name));
  }
  EXPECT_TRUE(ends(said({"rm", "pipe", "nf4", "0/transformer/diffusion_pytorch_model.safetensors"}), 0, weights));
  EXPECT_TRUE(ends(said({"rm", fs.path(adapter)}), 0, adapter));
  EXPECT_TRUE(listed(cache()).empty());
  // As the command makes it by itself, and by the name that other models' weights have.
  fs.stop();
  EXPECT_TRUE(ends(said({"warm", model("pipe"), "nf4", "0/model.safetensors", "--cache-dir", cache()}), 0, weights));
  EXPECT_EQ(listed(cache()), std::vector<std::string>{weights});
}

// Models are named as people write them.
TEST_F(MountCommands, ModelsAreNamedAsPeopleWriteThem) {
  const std::string repo = models() + "/models--org--name";
  small_model().write(repo + "/snapshots/abc");
  write_file(repo + "/refs/main", "abc");
  small_model(2).write(model("plain"));
  MountedFs& fs = mount();
  for (const std::string& name : {std::string("org/name"), std::string("org--name"), std::string("models--org--name"),
                                  repo, fs.path("org--name"), repo + "/snapshots/abc"}) {
    EXPECT_TRUE(ends(said({"warm", name, "int8"}), 0, "org--name/int8/0/model.safetensors is complete")) << name;
    EXPECT_TRUE(ends(said({"info", name}), 0, "org--name")) << name;
    EXPECT_TRUE(ends(said({"ls", name}), 0, "org--name/int8/0/model.safetensors")) << name;
    EXPECT_TRUE(ends(said({"verify", name, "int8"}), 0, "Checked 1 file")) << name;
    EXPECT_TRUE(ends(said({"pin", name, "int8"}), 0, "Pinned org--name")) << name;
    EXPECT_TRUE(ends(said({"rm", name}), 0, "Dropped org--name/int8")) << name;
  }
  EXPECT_TRUE(ends(said({"warm", "plain/int8/0.bin"}), 0, "plain/int8/0.bin is complete"));
  EXPECT_TRUE(ends(said({"warm", "org/nme", "int8"}), exits::kNotFound,
                   "there is no model 'org--nme'; did you mean org--name?"));
  EXPECT_TRUE(ends(said({"info", "Plain"}), exits::kNotFound, "did you mean plain?"));
  EXPECT_TRUE(ends(said({"warm", "foo", "int8"}), exits::kNotFound, "there is no model 'foo'"));
  EXPECT_TRUE(ends(said({"rm", "plian"}), exits::kNotFound, "nothing of 'plian' is cached"));
  EXPECT_TRUE(ends(said({"rm", "plian"}), exits::kNotFound, "did you mean plain?"));
  EXPECT_TRUE(ends(said({"rm", "plain", "itn8"}), exits::kNotFound, "there is no dtype 'itn8'; did you mean int8?"));
  // What is not a name of a file names none.
  EXPECT_EQ(said({"warm", "plain", "int8", "0/model.safetensors"}).status, 0);
  for (const char* name : {"0.bin.tmp", "00.bin", "016", "0.BIN", " 0.bin", "-0.bin", "0/config.json"}) {
    EXPECT_EQ(said({"rm", fs.path("plain/int8/") + name}).status, exits::kNotFound) << name;
  }
  EXPECT_TRUE(ends(said({"ls", "plain"}), 0, "plain/int8/0/model.safetensors"));
  small_model(3).write(model("org"));
  EXPECT_TRUE(ends(said({"warm", "org/name", "int8"}), 0, "org--name/int8/0/model.safetensors is complete"))
      << "a model of the organisation's name hides none of the organisation's";
  EXPECT_TRUE(ends(said({"warm", fs.path(), "int8"}), exits::kUsage, "is a mount and no model"));
  EXPECT_TRUE(ends(said({"info", "/etc/passwd"}), exits::kNotFound, "is neither a model"));
  for (const char* place : {"/", "/usr", "/proc"}) {
    EXPECT_TRUE(ends(said({"rm", place}), exits::kUsage, "is no model")) << place;
    EXPECT_TRUE(ends(said({"info", place}), exits::kUsage, "is not looked through")) << place;
  }
}

// Where mounts use several cache directories, commands say which they mean or ask; never another than `info` and
// `warm` use.
TEST_F(MountCommands, SeveralCacheDirectoriesAreAskedFor) {
  small_model().write(model("m"));
  small_model(2).write(dir() / "more/other");
  MountedFs& first = mount();
  MountedFs::Setup elsewhere = setup("elsewhere");
  elsewhere.cache = dir() / "cache2";
  elsewhere.models = dir() / "more";
  MountedFs second(elsewhere);
  for (const char* command : {"ls", "gc", "verify"}) {
    const Said asked = said({command});
    EXPECT_TRUE(ends(asked, exits::kUsage, "--cache-dir")) << command;
    EXPECT_TRUE(has(asked.text, first.path()) && has(asked.text, second.path())) << asked.text;
    EXPECT_TRUE(ends(said({command, "--cache-dir", dir() / "cache2"}), 0, "cache2")) << command;
  }
  // A model that only one of them shows is enough.
  EXPECT_EQ(said({"warm", "other", "int8"}).status, 0);
  EXPECT_TRUE(ends(said({"ls", "other"}), 0, "cache2"));
  EXPECT_TRUE(ends(said({"rm", "other"}), 0, "Dropped other/int8/0/model.safetensors"));
  EXPECT_TRUE(listed(dir() / "cache2").empty());
  // Nor does $QWEN_CACHE let files of another directory go than it lists.
  EXPECT_EQ(said({"warm", "other", "int8"}).status, 0);
  const std::vector<std::string> environment = {"env", "QWEN_CACHE=" + cache()};
  EXPECT_TRUE(ends(run(dir(), {"rm", "other"}, environment), exits::kUsage, "$QWEN_CACHE is " + cache()));
  EXPECT_TRUE(ends(run(dir(), {"rm", "other", "--cache-dir", dir() / "cache2"}, environment), 0, "Dropped other/"));
  EXPECT_TRUE(ends(said({"doctor"}), 0, dir() / "cache2")) << "who only looks looks at all";

  MountedFs::Setup both = setup("both");
  both.cache = dir() / "cache2";
  MountedFs third(both);
  for (const std::vector<std::string>& words : {std::vector<std::string>{"info", "m"},
                                                {"warm", "m", "int8"},
                                                {"rm", "m"},
                                                {"info", model("m")},
                                                {"warm", model("m"), "int8"}}) {
    EXPECT_TRUE(ends(said(words), exits::kUsage, "--cache-dir")) << words[0];
  }
  EXPECT_TRUE(ends(said({"warm", "m", "int8", "--cache-dir", cache()}), 0, "is complete"));
  EXPECT_TRUE(listed(dir() / "cache2").empty());
  EXPECT_EQ(said({"warm", third.path("m"), "int8"}).status, 0);
  EXPECT_EQ(listed(dir() / "cache2").size(), 1U);
  EXPECT_EQ(third.stop(), 0);
  EXPECT_EQ(second.stop(), 0);
}

// S109: With `--max-size` files are dropped while others are made: beyond it go only files in use and pinned ones, and
// what is made within a second.
TEST_F(MountCommands, MaxSizeHoldsWhileFilesAreMade) {
  tiled_model().write(model("m"));
  MountedFs& fs = mount({"--max-size", "12M"});
  EXPECT_EQ(said({"warm", "m", "int8"}).status, 0);  // 8 MiB
  EXPECT_EQ(said({"warm", "m", "fp8"}).status, 0);
  EXPECT_TRUE(eventually([&] { return listed(cache()).size() == 1; }, std::chrono::seconds(10)));
  EXPECT_EQ(listed(cache()), std::vector<std::string>{"m/fp8/0/model.safetensors"}) << "the older one goes";
  EXPECT_EQ(said({"pin", "m", "fp8"}).status, 0);
  EXPECT_EQ(read_whole(fs.path("m/int8/0/model.safetensors")).error, 0);
  // What was in use at the first look is looked at again after ten seconds.
  EXPECT_TRUE(eventually([&] { return listed(cache()).size() == 1; }, std::chrono::seconds(20)));
  EXPECT_EQ(listed(cache()), std::vector<std::string>{"m/fp8/0/model.safetensors"}) << "pinned ones stay";
  // Beside them there is no room: `warm` says so, unless it was quicker than the limit.
  const Said no_room = said({"warm", "m", "int8"});
  EXPECT_TRUE(no_room.status == 0 || ends(no_room, exits::kCacheUnusable, "was dropped at once")) << no_room.text;
  EXPECT_TRUE(ends(said({"warm", "m", "fp32"}), exits::kCacheUnusable, "more than the 12M that the mount on"));
  EXPECT_EQ(fs.stop(), 0);
}

// S112: Where the warming of a file is taken back, as Ctrl-C and a full disk do it, the file is let go of within
// seconds, so that it can be dropped.
TEST_F(MountCommands, WhatWasCalledOffCanBeDroppedAtOnce) {
  huge_model(4).write(model("m"));
  MountedFs& fs = mount();
  Child warm([&] {
    ::execl(MountedFs::program().c_str(), "qcache", "warm", "m", "fp32", nullptr);
    return 99;
  });
  EXPECT_TRUE(eventually([&] { return !listed(cache()).empty(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  warm.signal(SIGINT);
  EXPECT_EQ(warm.wait(), 128 + SIGINT);
  EXPECT_TRUE(eventually(
      [&] {
        return has(said({"gc", "--max-size", "1", "--dry-run"}).text, "m/fp32");
      },
      std::chrono::seconds(5)));
  EXPECT_EQ(said({"rm", "m", "-y"}).status, 0);
  EXPECT_TRUE(eventually([&] { return fs.status("files_filling") == 0; }, std::chrono::seconds(3)));
}

// A mount that is in use says by whom.
TEST_F(MountCommands, UnmountNamesWhoUsesTheMount) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  Child reader([&] {
    const UniqueFd held = open_file(fs.path("m/int8/0.bin"));
    ::pause();
    return 0;
  });
  const std::string pid = "(" + std::to_string(reader.pid()) + ")";
  EXPECT_TRUE(eventually([&] { return has(said({"unmount", fs.path()}).text, pid); }));
  EXPECT_TRUE(ends(said({"unmount", fs.path()}), exits::kInUse, "--lazy"));
  reader.signal(SIGKILL);
  reader.wait();
  EXPECT_TRUE(eventually([&] { return said({"unmount", fs.path()}).status == 0; }));
  EXPECT_TRUE(eventually([&] { return !fs.running(); })) << "it ends by itself, and is not to be told while it does";
}

// S110: A mount hides nothing unasked: where another filesystem is mounted, and on a folder that is not empty, it is
// refused without `--over` (or `-o nonempty`).
TEST_F(MountCommands, WhatAMountWouldHideIsRefused) {
  small_model().write(model("m"));
  write_file(dir() / "full/data", "x");
  const auto mount_on = [&](const std::string& place, const std::vector<std::string>& more) {
    std::vector<std::string> words = {"mount", "--cache-dir", cache(), models(), place};
    words.insert(words.end(), more.begin(), more.end());
    return said(words);
  };
  EXPECT_TRUE(ends(said({"mount", "--cache-dir", dir() / "new", models(), dir() / "full"}), exits::kMountFailed,
                   "is not empty"));
  EXPECT_FALSE(std::filesystem::exists(dir() / "new")) << "what is refused makes nothing";
  make_directories(dir() / "free");
  EXPECT_TRUE(ends(said({"mount", "--cache-dir", cache(), models(), dir() / "free", "--log-file", dir() / "no/log"}),
                   exits::kMountFailed, "there is no folder"));
  EXPECT_TRUE(ends(mount_on(dir() / "full", {}), exits::kMountFailed, "is not empty"));
  EXPECT_TRUE(ends(mount_on(dir() / "full", {"-o", "nonempty"}), 0, ""));
  EXPECT_EQ(said({"unmount", dir() / "full"}).status, 0);
  EXPECT_TRUE(eventually([&] { return ends(mount_on(dir() / "full", {"--over"}), 0, ""); }));
  EXPECT_EQ(said({"unmount", dir() / "full"}).status, 0);
  const OwnFilesystem foreign(dir() / "foreign", "tmpfs", "size=1M");
  EXPECT_TRUE(ends(mount_on(dir() / "foreign", {}), exits::kInUse, "tmpfs is mounted on"));
  EXPECT_TRUE(ends(mount_on(dir() / "foreign", {"--over"}), 0, ""));
  EXPECT_EQ(said({"unmount", dir() / "foreign"}).status, 0);
  EXPECT_TRUE(ends(said({"unmount", dir() / "foreign"}), exits::kNotFound, "what is mounted there is tmpfs"));
}

// A folder without models is mounted, as some may come, and told.
TEST_F(MountCommands, FoldersWithoutModelsAreTold) {
  small_model().write(model("m"));
  make_directories(dir() / "empty");
  make_directories(dir() / "place");
  const Said told = said({"mount", "--cache-dir", cache(), models(), dir() / "empty", dir() / "place"});
  EXPECT_TRUE(ends(told, 0, (dir() / "empty") + " holds no models yet"));
  EXPECT_FALSE(has(told.text, models() + " holds")) << told.text;
  EXPECT_EQ(said({"unmount", dir() / "place"}).status, 0);
}

// `status` tells the mounts, their caches, passthrough only once it was had, what is made and by whom, and dead ones.
TEST_F(MountCommands, StatusTellsWhatGoesOn) {
  tiled_model().write(model("m"));
  EXPECT_TRUE(ends(said({"status"}), 0, "No qcache mount is running"));
  MountedFs& fs = mount();
  EXPECT_TRUE(ends(said({"status"}), 0, fs.path()));
  EXPECT_TRUE(ends(said({"status", fs.path()}), 0, "cache " + cache()));
  EXPECT_TRUE(ends(said({"status", dir() / "elsewhere"}), exits::kNotFound, "no qcache mount"));
  const auto passthrough = [&] {
    return json({"status"}).at("mounts").at(0).at("status").at("passthrough_state").get<std::string>();
  };
  const bool wanted = MountedFs::passthrough_wanted();
  EXPECT_EQ(passthrough(), wanted ? "untried" : "off");
  EXPECT_EQ(fs.status("passthrough"), 0U) << "it was not had yet";

  Child reader([&] {
    const UniqueFd held = open_file(fs.path("m/int8/0.bin"));
    ::pause();
    return 0;
  });
  const auto making = [&] { return json({"status"}).at("caches").at(0).at("making"); };
  EXPECT_TRUE(eventually([&] { return !making().empty(); }));
  const auto file = making().at(0);
  EXPECT_EQ(file.at("path"), "m/int8/0.bin");
  EXPECT_EQ(file.at("makers").at(0).at("pid"), fs.pid());
  EXPECT_EQ(file.at("readers").at(0).at("pid"), reader.pid());
  EXPECT_TRUE(ends(said({"status"}), 0, "being made"));
  reader.signal(SIGKILL);
  reader.wait();

  complete(fs, "m/int8/0.bin");
  EXPECT_EQ(read_whole(fs.path("m/int8/0.bin")).error, 0);
  EXPECT_EQ(passthrough(), wanted ? "works" : "off");

  fs.kill9();
  const Said dead = said({"status"});
  EXPECT_TRUE(ends(dead, exits::kMountFailed, "dead: its daemon has ended"));
  const std::vector<std::string> nearby = {"env", "--chdir=" + dir().path()};
  EXPECT_TRUE(ends(run(dir(), {"status", "mnt/"}, nearby), exits::kMountFailed, "dead: its daemon has ended"));
  EXPECT_TRUE(
      ends(said({"info", fs.path("m")}), exits::kMountFailed, "is dead, as its daemon has ended: 'qcache unmount "));
  EXPECT_TRUE(ends(said({"warm", fs.path("m"), "int8"}), exits::kMountFailed, "is dead"));
  EXPECT_TRUE(ends(said({"rm", fs.path("m")}), exits::kMountFailed, "is dead"));
  EXPECT_TRUE(ends(said({"warm", "m", "int8"}), exits::kNotFound, "is dead: 'qcache unmount"));
  EXPECT_TRUE(ends(said({"ls", "--cache-dir", cache()}), 0, "m/int8/0.bin")) << "the cache does not need the mount";
  EXPECT_EQ(said({"unmount", fs.path()}).status, 0);
}

// Colours are for terminals, and not where NO_COLOR is set.
TEST_F(MountCommands, ColoursAreForTerminalsOnly) {
  const auto on_terminal = [&](const std::string& environment) {
    const std::string file = dir() / "typed";
    EXPECT_EQ(run_program({"env", "TERM=xterm", "script", "-qec",
                           environment + " " + MountedFs::program() + " doctor --cache-dir " + cache(), file},
                          dir() / "said"),
              0);
    return read_file(file);
  };
  EXPECT_TRUE(has(on_terminal(""), "\x1b[32mok"));
  EXPECT_FALSE(has(on_terminal("NO_COLOR=1"), "\x1b["));
  EXPECT_FALSE(has(said({"doctor", "--cache-dir", cache()}).text, "\x1b["));
}

// Output that is lost is no success.
TEST_F(MountCommands, LostOutputIsAFailure) {
  for (const char* command : {"ls --json", "doctor", "--help"}) {
    const std::string words = MountedFs::program() + " " + command;
    EXPECT_EQ(run_program({"sh", "-c", words + " >/dev/full"}, dir() / "said"), 1) << command;
  }
}

// A signal ends a command as a shell says it: 130 for SIGINT.
TEST_F(MountCommands, ASignalEndsWarmWithItsNumber) {
  huge_model(4).write(model("m"));
  mount();
  for (const int signal : {SIGINT, SIGTERM}) {
    Child warm([&] {
      ::execl(MountedFs::program().c_str(), "qcache", "warm", "m", "fp32", nullptr);
      return 99;
    });
    EXPECT_TRUE(eventually([&] { return !json({"status"}).at("caches").at(0).at("making").empty(); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    warm.signal(signal);
    EXPECT_EQ(warm.wait(), 128 + signal);
  }
  EXPECT_EQ(said({"rm", "m", "-y"}).status, 0);
}

// Where users may not let others in, that is said before anything is tried.
TEST_F(MountCommands, AllowOtherThatUsersMayNotAskForIsRefused) {
  if (const std::string reason = why_not_as_nobody(dir()); !reason.empty() || ::access("/etc/fuse.conf", F_OK) != 0) {
    GTEST_SKIP() << (reason.empty() ? "needs an /etc/fuse.conf" : reason);
  }
  write_file(dir() / "fuse.conf", "");
  small_model().write(model("m"));
  make_directories(dir() / "place");
  EXPECT_TRUE(ends(run(dir(), {"mount", "--allow-other", "--cache-dir", dir() / "nobody", models(), dir() / "place"},
                       after("mount --bind " + (dir() / "fuse.conf") + " /etc/fuse.conf", kAsNobody)),
                   exits::kMountFailed, "user_allow_other to /etc/fuse.conf"));
}

// What root has left unfinished in a user's cache keeps the user from nothing else, and `doctor` names it.
TEST_F(MountCommands, AnUnfinishedFileOfRootsKeepsAUserFromNothingElse) {
  if (const std::string reason = why_not_as_nobody(dir()); !reason.empty()) {
    GTEST_SKIP() << reason;
  }
  tiled_model().write(model("m"));
  make_directories(cache());
  ASSERT_EQ(::chown(cache().c_str(), 65534, 65534), 0);
  const auto as_user = [&](std::vector<std::string> words) {
    words.insert(words.end(), {"--cache-dir", cache()});
    return run(dir(), words, kAsNobody);
  };
  EXPECT_TRUE(ends(as_user({"warm", model("m"), "int8", "0.bin"}), 0, "is complete"));
  MountedFs& fs = mount();
  {
    const UniqueFd begun = open_file(fs.path("m/bf16/0.bin"));
    EXPECT_EQ(read_at(begun.get(), 1'000'000, 10).error, 0);
  }
  EXPECT_EQ(fs.stop(), 0);
  const Said list = as_user({"ls"});
  EXPECT_TRUE(ends(list, 0, "m/int8/0.bin"));
  EXPECT_TRUE(has(list.text, "2 files")) << list.text;
  EXPECT_TRUE(ends(as_user({"verify"}), 0, "Checked 1 file"));
  EXPECT_TRUE(ends(as_user({"rm", "m"}), 0, "Dropped m/int8/0.bin"));
  EXPECT_TRUE(ends(as_user({"doctor"}), 1, "belongs to"));
}

// Users who lack the helper by which they mount are told so in one sentence.
TEST_F(MountCommands, AMissingFusermountIsTold) {
  if (const std::string reason = why_not_as_nobody(dir()); !reason.empty()) {
    GTEST_SKIP() << reason;
  }
  const std::string prepare =
      "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/fuse c 10 229 && "
      "for folder in /usr/bin /usr/local/bin; do [ ! -e $folder/fusermount3 ] || "
      "mount --bind /dev/null $folder/fusermount3 || exit 90; done";
  small_model().write(model("m"));
  for (const char* name : {"nobody", "place"}) {
    make_directories(dir() / name);
    ASSERT_EQ(::chown((dir() / name).c_str(), 65534, 65534), 0);
  }
  const Said told =
      run(dir(), {"mount", "--cache-dir", dir() / "nobody", models(), dir() / "place"}, after(prepare, kAsNobody));
  EXPECT_TRUE(ends(told, exits::kMountFailed, "fusermount3"));
  EXPECT_EQ(std::count(told.text.begin(), told.text.end(), '\n'), 1) << told.text;
}

}  // namespace
}  // namespace qcache
