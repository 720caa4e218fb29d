#include "tools/mount_request.h"

#include <gmock/gmock.h>

#include "tests/support/result_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_files.h"

namespace qcache {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

MountRequest parsed(const std::vector<std::string>& arguments) {
  auto request = parse_helper_arguments(arguments);
  EXPECT_THAT(request, is_ok());
  return request ? *request : MountRequest{};
}

TEST(MountOptionList, SplitsAtCommasThatAreNotEscaped) {
  const struct {
    const char* text;
    std::vector<std::string> expected;
  } cases[] = {
      {"", {}},
      {"ro", {"ro"}},
      {"ro,nosuid", {"ro", "nosuid"}},
      {",ro,,nosuid,", {"ro", "nosuid"}},
      {R"(cache_dir=/a\,b,ro)", {"cache_dir=/a,b", "ro"}},
      {R"(cache_dir=/a\\b)", {R"(cache_dir=/a\b)"}},
      {R"(cache_dir=/a\)", {R"(cache_dir=/a\)"}},
      {R"(context="s0:c1,c2",ro)", {R"(context="s0:c1,c2")", "ro"}},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(split_mount_options(c.text), c.expected) << c.text;
  }
}

TEST(MountHelper, AcceptsWhatMountPassesForFstabLines) {
  // Each of these reaches the helper of a real fstab line and must not stop the machine from booting.
  const char* const harmless[] = {"defaults",
                                  "nofail",
                                  "_netdev",
                                  "auto",
                                  "noauto",
                                  "user",
                                  "users",
                                  "nouser",
                                  "owner",
                                  "group",
                                  "user=joe",
                                  "default_permissions",
                                  "nonempty",
                                  "relatime",
                                  "strictatime",
                                  "lazytime",
                                  "nosymfollow",
                                  "comment=systemd.automount",
                                  "x-systemd.automount",
                                  "x-systemd.idle-timeout=5min",
                                  "x-systemd.requires-mounts-for=/data",
                                  "x-gvfs-show",
                                  "X-mount.mkdir",
                                  "X-mount.mkdir=0755"};
  for (const char* option : harmless) {
    const MountRequest request = parsed({"/models", "/mnt", "-o", option});
    EXPECT_THAT(request.options.kernel_options, IsEmpty()) << option;
    EXPECT_EQ(request.options.mount_point, "/mnt") << option;
  }
}

TEST(MountHelper, PassesKernelOptionsOn) {
  for (const char* option : {"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "noatime", "async", "sync",
                             "dirsync", "context=system_u:object_r:mnt_t:s0"}) {
    EXPECT_THAT(parsed({"/models", "/mnt", "-o", option}).options.kernel_options, ElementsAre(option));
  }
  // The last of a pair counts, so all of them are needed, in their order.
  EXPECT_THAT(parsed({"/models", "/mnt", "-o", "ro,noexec", "-o", "rw"}).options.kernel_options,
              ElementsAre("ro", "noexec", "rw"));
  EXPECT_EQ(parsed({"/models", "/mnt", "-o", "max_read=4096,max_read=131072"}).options.max_read, 131072U);
}

TEST(MountHelper, TakesOptionsFlagsAndNamesInAnyOrder) {
  const std::vector<std::vector<std::string>> orders = {
      {"/models", "/mnt", "-s", "-v", "-n", "-t", "fuse.qcache", "-o", "ro,allow_other"},
      {"-o", "allow_other,ro", "/models", "/mnt"},
      {"/models", "-sv", "/mnt", "-o", "allow_other", "-o", "ro", "-N", "/proc/1/ns/mnt"},
      {"/models", "/mnt", "-rw", "-o", "ro,allow_other"},
  };
  for (const auto& order : orders) {
    const MountRequest request = parsed(order);
    EXPECT_THAT(request.options.engine.roots, ElementsAre("/models")) << ::testing::PrintToString(order);
    EXPECT_EQ(request.options.mount_point, "/mnt");
    EXPECT_TRUE(request.options.allow_other);
    EXPECT_EQ(request.options.kernel_options.back(), "ro");
    EXPECT_FALSE(request.fake);
  }
  EXPECT_THAT(parsed({"/models", "/mnt", "-rw"}).options.kernel_options, ElementsAre("ro", "rw"));
  EXPECT_TRUE(parsed({"/models", "/mnt", "-f"}).fake);
  EXPECT_TRUE(parsed({"/models", "/mnt", "-svf"}).fake);
}

TEST(MountHelper, UnderstandsOurOptions) {
  const MountRequest request = parsed(
      {"/models", "/mnt", "-o",
       R"(cache_dir=/var/a\,b,max_age=12h,max_size=2K,aging_interval=90s,threads=3,linger=5s,no_passthrough,log_file=/l,)"
       "log_level=debug"});
  EXPECT_EQ(request.options.engine.cache_directory, "/var/a,b");
  EXPECT_EQ(request.options.engine.aging.max_age, std::chrono::hours(12));
  EXPECT_EQ(request.options.engine.aging.max_bytes, uint64_t{2048});
  EXPECT_EQ(request.options.engine.aging_interval, std::chrono::seconds(90));
  EXPECT_EQ(request.options.engine.threads, 3U);
  EXPECT_EQ(request.options.linger, std::chrono::seconds(5));
  EXPECT_FALSE(request.options.passthrough);
  EXPECT_EQ(request.log_file, "/l");
  EXPECT_EQ(request.log_level, "debug");
  EXPECT_EQ(parsed({"/m", "/mnt", "-o", "max_age=never"}).options.engine.aging.max_age, std::nullopt);
  EXPECT_TRUE(parsed({"/m", "/mnt", "-o", "no_passthrough,passthrough"}).options.passthrough);
  EXPECT_FALSE(request.options.over);
  EXPECT_TRUE(parsed({"/m", "/mnt", "-o", "over"}).options.over);
}

TEST(MountHelper, SplitsSeveralRootsAtColonsUnlessAFolderIsCalledSo) {
  EXPECT_THAT(parsed({"/a:/b c:/d", "/mnt"}).options.engine.roots, ElementsAre("/a", "/b c", "/d"));
  EXPECT_THAT(parsed({":/a::", "/mnt"}).options.engine.roots, ElementsAre("/a"));
  const TempDir dir;
  make_directories(dir / "a:b");
  EXPECT_THAT(parsed({dir / "a:b", "/mnt"}).options.engine.roots, ElementsAre(dir / "a:b"));
}

TEST(MountHelper, RefusesWhatItDoesNotUnderstand) {
  const struct {
    std::vector<std::string> arguments;
    std::vector<std::string> words;
  } cases[] = {
      {{}, {"usage", "MOUNTPOINT"}},
      {{"/models"}, {"usage"}},
      {{"/models", "/mnt", "/more"}, {"usage"}},
      {{"/models", "/mnt", "-o"}, {"-o needs a value"}},
      {{"/models", "/mnt", "-o", "cachedir=/x"},
       {"unknown mount option 'cachedir=/x'; did you mean cache_dir?", "aging_interval=TIME", "noatime"}},
      {{"/models", "/mnt", "-o", "max_age=7"}, {"'7'", "7d"}},
      {{"/models", "/mnt", "-o", "max_size=big"}, {"'big'"}},
      {{"/models", "/mnt", "-o", "threads=-1"}, {"threads", "number"}},
      {{"/models", "/mnt", "-z"}, {"unknown flag -z"}},
      {{"/models", "/mnt", "-o", "auto_unmount"}, {"auto_unmount is refused", "cleared by the next 'qcache mount'"}},
      {{"/models", "/mnt", "-o", "remount,ro"}, {"remount is refused", "qcache unmount"}},
      {{"/models", "/mnt", "-o", "uid=1000"}, {"uid is refused", "belong to who mounts"}},
      {{"/models", "/mnt", "-o", "umask=022"}, {"umask is refused", "--allow-other"}},
      {{"/models", "/mnt", "-o", "max_read=100"}, {"max_read", "4096", "'100'"}},
      {{"/models", "/mnt", "-o", "max_read=5000000000"}, {"max_read", "number"}},
      {{"/models", "/mnt", "-o", "max_read"}, {"max_read needs a value"}},
      {{"/models", "/mnt", "-o", "cache_dir="}, {"cache_dir needs a value"}},
      {{"/models", "/mnt", "-o", "ro=1"}, {"ro takes no value"}},
      {{"/models", "/mnt", "-o", "passthrough=no"}, {"passthrough takes no value"}},
      {{"/models", "/mnt", "-o", "max_background=4"}, {"unknown mount option", "max_background=4"}},
      {{"/models", "/mnt", "-o", "blksize=4096"}, {"unknown mount option", "blksize=4096"}},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(parse_helper_arguments(c.arguments), fails_with(ErrorKind::kInvalidArgument, c.words))
        << ::testing::PrintToString(c.arguments);
  }
}

}  // namespace
}  // namespace qcache
