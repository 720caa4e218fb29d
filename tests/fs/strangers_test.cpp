#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <grp.h>

#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using std::chrono::steady_clock;

constexpr uid_t kNobody = 65534;
constexpr gid_t kTeam = 4242;

/// Model folders belong to users who may do with them what they like, below a mount of root that everybody may read.
class MountStrangers : public MountTest {
 protected:
  void SetUp() override {
    MountTest::SetUp();
    if (!IsSkipped() && ::geteuid() != 0) {
      GTEST_SKIP() << "must be root, to have users that are strangers to each other";
    }
    ASSERT_EQ(::chmod(dir().path().c_str(), 0755), 0);
    ASSERT_EQ(::chmod(models().c_str(), 0755), 0);
  }

  /// Two names that change places until the child ends.
  static void start_exchange(std::optional<Child>& child, const std::string& one, const std::string& other) {
    child.emplace([&]() -> int {
      for (;;) {
        if (::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) != 0) {
          return errno;
        }
      }
    });
  }
  static void for_a_while(const std::function<void()>& work) {
    const auto end = steady_clock::now() + std::chrono::seconds(2);
    while (steady_clock::now() < end) {
      work();
    }
  }
  /// What `body` returns to a user, perhaps of kTeam, without any right of root.
  static int as_user(bool of_team, const std::function<int()>& body) {
    Child child([&] {
      const std::array<gid_t, 1> groups = {kTeam};
      if (::setgroups(of_team ? 1 : 0, groups.data()) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) {
        return 99;
      }
      return body();
    });
    return child.wait();
  }
  /// Of files that a user tries to read, those that he could, in the order given.
  static std::string readable(bool of_team, const std::vector<std::string>& files) {
    const int bits = as_user(of_team, [&] {
      int found = 0;
      for (size_t i = 0; i < files.size(); ++i) {
        found |= read_whole(files[i]).error == 0 ? 1 << i : 0;
      }
      return found;
    });
    std::string out;
    for (size_t i = 0; i < files.size(); ++i) {
      out += (bits & 1 << i) != 0 ? 'r' : '-';
    }
    return out;
  }
  static void set_mode(const std::string& path, mode_t mode, gid_t gid = 0) {
    ASSERT_EQ(::chown(path.c_str(), 0, gid), 0) << path;
    ASSERT_EQ(::chmod(path.c_str(), mode), 0) << path;
  }
  static std::string mode_of(const std::string& path) {
    const struct ::stat found = stat_of(path);
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%03o %u %u", static_cast<unsigned>(found.st_mode & 07777U), found.st_uid,
                  found.st_gid);
    return text.data();
  }
};

// S99: That holds also against who exchanges files, folders and links of a model all the time: what was checked is
// what is read.
TEST_F(MountStrangers, ExchangedFilesLeadNowhereElse) {
  const auto write_own = [&] {
    std::filesystem::remove_all(model("m"));  // never through the link
    small_model(1).file("x.txt", "decoy").write(model("m"));
  };
  write_own();
  small_model(2).config(R"({"model_type": "secret"})").file("x.txt", "secret").write(dir() / "secret");
  const std::string own = expected_file(model("m"), "bf16");
  MountedFs& fs = mount({"--allow-other"});
  size_t reads = 0;
  for (const char* name : {"x.txt", "config.json", "model.safetensors"}) {
    write_own();
    const std::string link = model("m") + "/link";
    make_link(dir() / "secret/" + name, link);
    std::optional<Child> swapper;
    start_exchange(swapper, model("m") + "/" + name, link);
    for_a_while([&] {
      for (const char* file : {"m/bf16/0/x.txt", "m/bf16/0/config.json"}) {
        const ReadResult got = read_whole(fs.path(file));
        reads += got.error == 0 ? 1U : 0U;
        ASSERT_EQ(got.bytes.find("secret"), std::string::npos) << name << ": " << file;
      }
      const ReadResult weights = read_whole(fs.path("m/bf16/0.bin"));
      ASSERT_TRUE(weights.error != 0 || reads_as(weights, own)) << name;
    });
    swapper.reset();
  }
  EXPECT_GT(reads, 10U) << "nothing was tried";
}

// S100: A FIFO or a device in the place of a model's file holds up nothing but that model.
TEST_F(MountStrangers, PipesHoldNobodyUp) {
  small_model(1).write(model("m"));
  small_model(2).write(model("good"));
  std::filesystem::rename(model("m") + "/model.safetensors", model("m") + "/w.dat");
  ASSERT_EQ(::mkfifo((model("m") + "/pipe").c_str(), 0600), 0);
  make_link("w.dat", model("m") + "/model.safetensors");
  make_link("pipe", model("m") + "/x");
  MountedFs& fs = mount({"--allow-other"});
  {
    std::optional<Child> swapper;
    start_exchange(swapper, model("m") + "/model.safetensors", model("m") + "/x");
    std::vector<std::unique_ptr<Child>> readers;
    for (const std::string& dtype : all_dtypes()) {
      readers.push_back(std::make_unique<Child>([&]() -> int {
        for (;;) {
          (void)open_error(fs.path("m/" + dtype + "/0.bin"), O_RDONLY);
        }
      }));
    }
    int64_t time = 1'700'000'000'000'000'000;
    for_a_while([&] { set_mtime(model("m") + "/config.json", time += 1'000'000); });  // each time files are opened anew
  }
  Child reader([&] { return read_whole(fs.path("good/int8/0.bin")).error; });
  EXPECT_EQ(reader.wait_for(20), 0);
  for (const char* name : {"model.safetensors", "config.json"}) {
    small_model(1).write(model("p"));
    std::filesystem::remove(model("p") + "/" + name);
    ASSERT_EQ(::mkfifo((model("p") + "/" + name).c_str(), 0600), 0);
    Child other([&] { return open_error(fs.path("p/int8/0.bin"), O_RDONLY) == 0 ? 1 : 0; });
    EXPECT_NE(other.wait_for(20), -1) << name;
    std::filesystem::remove_all(model("p"));
  }
}

// S101: With `allow_other`, other users may read of the mount what the modes of the model's files, and of the folders
// below the model folders on the way to them, let them read, and no more: weights need all their files, `config.json`
// and what else qcache writes all files that it was made from. The mode (without write and execute bits) and the group
// say so at every `stat`, and a change of them counts for the next open.
TEST_F(MountStrangers, ModesOfSourcesHoldInTheMount) {
  const auto write = [&](const std::string& name, mode_t shard, mode_t config, mode_t folder) {
    small_model().shards(2).file("words", "x").file("sub/deep", "x").write(model(name));
    for (const auto& entry : std::filesystem::recursive_directory_iterator(model(name))) {
      set_mode(entry.path(), entry.is_directory() ? 0755 : 0644, kTeam);
    }
    set_mode(model(name) + "/model-00002-of-00002.safetensors", shard, kTeam);
    set_mode(model(name) + "/config.json", config, kTeam);
    set_mode(model(name), folder, kTeam);
  };
  write("open", 0644, 0644, 0755);
  write("weights", 0640, 0644, 0755);
  write("config", 0644, 0600, 0755);
  write("folder", 0644, 0644, 0750);
  write("closed", 0644, 0644, 0700);
  set_mode(model("open") + "/words", 0600, kTeam);
  set_mode(model("open") + "/sub", 0710, kTeam);
  set_mode(model("weights") + "/words", 0664, kTeam);
  make_link("../../closed/words", model("open") + "/sub/link");
  set_mode(models(), 0700);  // is what the mount shows

  MountedFs& fs = mount({"--allow-other"});
  const auto files = [&](const std::string& name) {
    const std::string rank = fs.path(name + "/int8/0");
    return std::vector<std::string>{rank + ".bin",         rank + "/model.safetensors",
                                    rank + "/config.json", rank + "/qcache.json",
                                    rank + "/words",       rank + "/sub/deep"};
  };
  EXPECT_EQ(readable(false, files("open")), "rrrr--");
  EXPECT_EQ(readable(true, files("open")), "rrrr-r");
  EXPECT_EQ(readable(false, files("weights")), "----rr");
  EXPECT_EQ(readable(true, files("weights")), "rrrrrr");
  EXPECT_EQ(readable(false, files("config")), "rr--rr");
  EXPECT_EQ(readable(false, files("folder")), "------");
  EXPECT_EQ(readable(true, files("folder")), "rrrrrr");
  EXPECT_EQ(readable(true, files("closed")), "------");
  EXPECT_EQ(readable(true, {fs.path("open/int8/0/sub/link")}), "-") << "where it leads counts";
  for (const char* name : {"open", "weights", "config", "folder", "closed"}) {
    for (const std::string& file : files(name)) {
      EXPECT_EQ(read_whole(file).error, 0) << "root may read all: " << file;
    }
  }
  EXPECT_EQ(mode_of(fs.path("weights/int8/0.bin")), "640 0 4242");
  EXPECT_EQ(mode_of(fs.path("weights/int8/0/words")), "644 0 4242");
  EXPECT_EQ(mode_of(fs.path("config/int8/0/config.json")), "600 0 4242");
  EXPECT_EQ(mode_of(fs.path("folder")), "750 0 4242");
  EXPECT_EQ(mode_of(fs.path("folder/int8/0")), "750 0 4242");
  EXPECT_EQ(mode_of(fs.path("open/int8/0/sub")), "710 0 4242");
  EXPECT_EQ(mode_of(fs.path("closed/int8/0.bin")), "600 0 4242");
  EXPECT_EQ(mode_of(fs.path()), "755 0 0");
  EXPECT_NE(as_user(true, [&] { return set_xattr(fs.path("open/int8/0.bin"), "user.qcache.warm", "1"); }), 0);
  EXPECT_NE(as_user(true, [&] { return ::unlink(fs.path("open/int8/0.bin").c_str()); }), 0);

  MountedFs& own = mount_as("own");
  EXPECT_EQ(mode_of(own.path("closed/int8/0.bin")), "644 0 0") << "nobody else gets there";
  EXPECT_EQ(mode_of(own.path("closed")), "755 0 0");
}

// S101: With `allow_other`, other users may read of the mount what the modes of the model's files, and of the folders
// below the model folders on the way to them, let them read, and no more: weights need all their files, `config.json`
// and what else qcache writes all files that it was made from. The mode (without write and execute bits) and the group
// say so at every `stat`, and a change of them counts for the next open.
TEST_F(MountStrangers, AModeThatIsTakenAwayIsTakenAwayAtOnce) {
  small_model().file("words", "x").write(model("m"));
  MountedFs& fs = mount({"--allow-other"});
  EXPECT_EQ(read_whole(fs.path("m/int8/0.bin")).error, 0);
  fs.wait_until_sealed("m/int8/0.bin");
  const std::vector<std::string> files = {fs.path("m/int8/0.bin"), fs.path("m/int8/0/words"),
                                          fs.path("m/int8/0/config.json")};
  for (const std::string& place : {model("m"), model("m") + "/words"}) {
    EXPECT_EQ(readable(false, files), "rrr");
    const mode_t before = stat_of(place).st_mode & 0777;
    ASSERT_EQ(::chmod(place.c_str(), 0700), 0);
    EXPECT_EQ(readable(false, files), place == model("m") ? "---" : "r-r");
    ASSERT_EQ(::chmod(place.c_str(), before), 0);
  }
  EXPECT_EQ(readable(false, files), "rrr");
  // Also of a file that somebody has open, and asks about: the answer is for the kernel, which decides by it.
  const std::vector<UniqueFd> held = [&] {
    std::vector<UniqueFd> out;
    for (const std::string& file : files) {
      out.push_back(open_file(file));
    }
    return out;
  }();
  ASSERT_EQ(::chmod(model("m").c_str(), 0700), 0);
  for (const UniqueFd& fd : held) {
    struct ::stat found {};
    EXPECT_EQ(::fstat(fd.get(), &found), 0);
  }
  EXPECT_EQ(readable(false, files), "---");
  ASSERT_EQ(::chmod(model("m").c_str(), 0755), 0);
  ASSERT_EQ(::chmod((model("m") + "/model.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(readable(false, files), "-r-");
}

}  // namespace
}  // namespace qcache
