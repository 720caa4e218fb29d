#include <sys/stat.h>

#include "tests/fs/command_line.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountDoctor = MountTest;

testing::AssertionResult says(const Said& said, const std::vector<std::string>& words) {
  // What is filled to lines is still one sentence.
  std::string text;
  for (const char c : said.text) {
    const char next = c == '\n' ? ' ' : c;
    if (next != ' ' || (!text.empty() && text.back() != ' ')) {
      text += next;
    }
  }
  for (const std::string& word : words) {
    if (text.find(word) == std::string::npos) {
      return testing::AssertionFailure() << "nothing of '" << word << "' in:\n" << said.text;
    }
  }
  return testing::AssertionSuccess();
}

// `doctor` names what keeps qcache from working on this very machine, each with a fix. (That libfuse is too old is a
// matter of the build: Doctor.NamesEveryBrokenSetUpWithAFix.)
TEST_F(MountDoctor, NamesBrokenSetUps) {
  if (const std::string reason = why_not_as_nobody(dir()); !reason.empty()) {
    GTEST_SKIP() << reason;
  }
  const std::string place = dir().path();
  const auto doctor = [&](const std::string& cache, const std::vector<std::string>& launcher = {}) {
    return run(dir(), {"doctor", "--cache-dir", cache}, launcher);
  };
  make_directories(cache());
  EXPECT_TRUE(ends(doctor(cache()), 0, "ok       /dev/fuse"));

  const Said no_device = doctor(cache(), after("mount -t tmpfs none /dev"));
  EXPECT_EQ(no_device.status, 1);
  EXPECT_TRUE(says(no_device, {"problem /dev/fuse cannot be opened: No such file", "-> load the module"}));

  const std::string hide_helper = "mount --bind /dev/null $(command -v fusermount3)";
  EXPECT_TRUE(says(doctor(cache(), after(hide_helper)), {"note fusermount3 not found", "apt-get install fuse3"}));
  EXPECT_TRUE(says(doctor(cache(), after(hide_helper, kAsNobody)), {"problem fusermount3 not found"}));

  make_directories(dir() / "lower");
  make_directories(dir() / "upper");
  make_directories(dir() / "merged");
  const std::string overlay = "mount -t tmpfs none " + place + "/upper && mkdir " + place + "/upper/u " + place +
                              "/upper/w && mount -t overlay none -o lowerdir=" + place + "/lower,upperdir=" + place +
                              "/upper/u,workdir=" + place + "/upper/w " + place + "/merged";
  EXPECT_TRUE(says(doctor(dir() / "merged", after(overlay)), {"warning cache filesystem overlayfs", "on a disk"}));

  make_directories(dir() / "small");
  const Said full = doctor(dir() / "small", after("mount -t tmpfs -o size=1M none " + place + "/small"));
  EXPECT_EQ(full.status, 1);
  EXPECT_TRUE(says(full, {"problem space full:", "-> choose a larger filesystem"}));

  const Said read_only = doctor(dir() / "small", after("mount -t tmpfs -o ro none " + place + "/small"));
  EXPECT_EQ(read_only.status, 1);
  EXPECT_TRUE(says(read_only, {"is not writable", "Read-only file system", "-> choose another"}));

  ASSERT_EQ(::chmod(cache().c_str(), 0755), 0);
  const Said not_ours = doctor(cache(), kAsNobody);
  EXPECT_EQ(not_ours.status, 1);
  EXPECT_TRUE(says(not_ours, {"problem cache", "is not writable", "belongs to user 0, not to 65534", "sudo chown -R"}));

  MountedFs& fs = mount();
  fs.kill9();
  const Said stale = doctor(cache());
  EXPECT_EQ(stale.status, 1);
  EXPECT_TRUE(says(stale, {"problem mounts a stale mount", "-> qcache unmount " + fs.path()}));
  EXPECT_EQ(run(dir(), {"unmount", fs.path()}).status, 0);
  EXPECT_TRUE(ends(doctor(cache()), 0, "none is dead"));

  write_file(dir() / "fuse.conf", "# user_allow_other\nmount_max = 1000\n");
  const std::string other_settings = "mount --bind " + place + "/fuse.conf /etc/fuse.conf";
  EXPECT_TRUE(says(doctor(cache(), after(other_settings, kAsNobody)),
                   {"warning allow_other users may not let others in", "no line user_allow_other"}));
  write_file(dir() / "fuse.conf", "# comment\n  user_allow_other  \n");
  EXPECT_TRUE(says(doctor(cache(), after(other_settings, kAsNobody)), {"ok allow_other"}));

  const Sysctl limit("/proc/sys/fs/fuse/max_request_timeout");
  if (!limit.set("7200\n")) {
    GTEST_SKIP() << "needs a kernel with fs.fuse.max_request_timeout (Linux 6.15)";
  }
  EXPECT_TRUE(says(doctor(cache()), {"warning timeouts the kernel ends a mount whose read takes longer than 7200 s",
                                     "fs.fuse.max_request_timeout=0"}));
}

}  // namespace
}  // namespace qcache
