#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <optional>
#include <thread>

#include "core/base/mount_info.h"
#include "tests/fs/command_line.h"
#include "tests/fs/mount_test.h"

namespace qcache {
namespace {

using MountPoints = MountTest;
using MountLimits = MountTest;
using MountTiming = MountTest;

constexpr const char* kInt8 = "m/int8/0.bin";
constexpr uid_t kNobody = 65534;

size_t mounts_on(const std::string& mount_point) {
  size_t count = 0;
  for (const MountEntry& mount : parse_all_mounts(read_mount_info(Env::posix()).value())) {
    count += mount.mount_point == mount_point ? 1U : 0U;
  }
  return count;
}

std::string options_of(const std::string& mount_point) {
  const std::string table = read_mount_info(Env::posix()).value();
  const size_t begin = table.find(' ' + mount_point + ' ');
  return begin == std::string::npos ? "" : table.substr(begin, table.find(" - ", begin) - begin);
}

bool has_ended(const MountedFs& fs) {
  return eventually([&] { return !fs.running(); });
}

/// A FUSE mount of another program that has died.
void leave_dead_mount(const std::string& folder) {
  make_directories(folder);
  const UniqueFd fuse(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  const std::string data = "fd=" + std::to_string(fuse.get()) + ",rootmode=40000,user_id=0,group_id=0";
  if (::mount("another", folder.c_str(), "fuse.another", MS_NOSUID | MS_NODEV, data.c_str()) != 0) {
    throw std::runtime_error("cannot mount");
  }
}

// S95: `qcache unmount` takes down mounts of qcache only: where another filesystem or nothing is mounted it fails,
// says what is there, and changes nothing.
TEST_F(MountPoints, UnmountLeavesOtherFilesystemsAlone) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const OwnFilesystem foreign(dir() / "foreign", "tmpfs", "size=1M");
  write_file(dir() / "foreign/data", "x");
  make_link(dir() / "foreign", dir() / "link");
  leave_dead_mount(dir() / "dead");
  for (const bool lazy : {false, true}) {
    SCOPED_TRACE(lazy);
    const auto unmount = [&](const std::string& path) {
      return run(dir(), lazy ? std::vector<std::string>{"unmount", "--lazy", path}
                             : std::vector<std::string>{"unmount", path});
    };
    EXPECT_TRUE(ends(unmount(dir() / "foreign"), exits::kNotFound, "what is mounted there is tmpfs"));
    EXPECT_TRUE(ends(unmount(dir() / "link/"), exits::kNotFound, "what is mounted there is tmpfs"));
    EXPECT_TRUE(ends(unmount(dir() / "dead"), exits::kNotFound, "what is mounted there is fuse.another"));
    EXPECT_TRUE(ends(unmount(models()), exits::kNotFound, "nothing is mounted there"));
    EXPECT_TRUE(ends(unmount(fs.path("m")), exits::kNotFound, "it lies in the mount " + fs.path()));
    EXPECT_TRUE(ends(unmount(dir() / "nowhere"), exits::kNotFound, "No such file"));
    {
      const OwnFilesystem cover(fs.path(), "tmpfs", "size=1M");
      EXPECT_TRUE(ends(unmount(fs.path()), exits::kNotFound, "what is mounted there is tmpfs"));
    }
  }
  EXPECT_EQ(read_file(dir() / "foreign/data"), "x");
  EXPECT_EQ(mounts_on(dir() / "dead"), 1U);
  EXPECT_TRUE(reads_as(read_whole(fs.path(kInt8)), expected_file(model("m"), "int8")));

  // Nor does a mount clear what another program has left dead.
  EXPECT_TRUE(ends(run(dir(), {"mount", "--cache-dir", cache(), models(), dir() / "dead"}), exits::kMountFailed,
                   "mount point"));
  EXPECT_EQ(mounts_on(dir() / "dead"), 1U);
  EXPECT_EQ(::umount2((dir() / "dead").c_str(), MNT_DETACH), 0);

  // By another name of the same place; and what is in use stays.
  make_link(fs.path(), dir() / "way");
  {
    const UniqueFd in_use = open_file(fs.path(kInt8));
    EXPECT_TRUE(ends(run(dir(), {"unmount", fs.path()}), exits::kInUse, "files in it are open"));
  }
  EXPECT_TRUE(ends(run(dir(), {"unmount", dir() / "way"}), 0, ""));
  EXPECT_TRUE(has_ended(fs));
  EXPECT_EQ(fs.stop(), 0);
}

// S96: A second mount on one mount point is refused, unless `--over` asks for it: then it covers the first, which is
// there again when the second is taken down.
TEST_F(MountPoints, ASecondMountOnOnePlaceMustBeAskedFor) {
  small_model().write(model("m"));
  make_directories(dir() / "other/n");
  small_model().write(dir() / "other/n");
  MountedFs& first = mount();
  make_link(first.path(), dir() / "way");
  for (const std::string& name : {first.path(), first.path() + "/", dir() / "way", dir() / "models/../mnt"}) {
    EXPECT_TRUE(ends(run(dir(), {"mount", "--cache-dir", cache(), models(), name}), exits::kInUse, "mounted on"))
        << name;
    EXPECT_TRUE(ends(run(dir(), {"mount", "-f", "--cache-dir", cache(), models(), name}), exits::kInUse, "--over"))
        << name;
  }
  EXPECT_EQ(mounts_on(first.path()), 1U);

  MountedFs::Setup covering = setup("mnt", {"--over"});
  covering.models = dir() / "other";
  covering.log_file = dir() / "covering.log";
  MountedFs second(covering);
  for (const bool by_signal : {false, true}) {
    EXPECT_TRUE(eventually([&] { return stat_error(second.path("n")) == 0; }));
    EXPECT_EQ(mounts_on(first.path()), 2U);
    if (!by_signal) {
      EXPECT_EQ(run(dir(), {"unmount", first.path()}).status, 0);
      EXPECT_TRUE(has_ended(second));
    }
    EXPECT_EQ(second.stop(), 0);
    EXPECT_EQ(mounts_on(first.path()), 1U);
    EXPECT_TRUE(reads_as(read_whole(first.path(kInt8)), expected_file(model("m"), "int8")));
    if (!by_signal) {
      second.restart();
    }
  }
  EXPECT_EQ(first.stop(), 0);
}

// S96: A second mount on one mount point is refused, unless `--over` asks for it: then it covers the first, which is
// there again when the second is taken down.
TEST_F(MountPoints, OfTwoThatMountAtTheSameTimeOneIsRefused) {
  small_model().write(model("m"));
  make_directories(dir() / "mnt");
  for (int round = 0; round < 5; ++round) {
    const auto mount_it = [&](const char* log) {
      return run_program({MountedFs::program(), "mount", "--cache-dir", cache(), models(), dir() / "mnt"}, dir() / log);
    };
    int other = -1;
    std::thread thread([&] { other = mount_it("a"); });
    const int one = mount_it("b");
    thread.join();
    EXPECT_TRUE((one == 0 && other == exits::kInUse) || (one == exits::kInUse && other == 0)) << one << ' ' << other;
    EXPECT_EQ(mounts_on(dir() / "mnt"), 1U);
    while (mounts_on(dir() / "mnt") > 0) {
      ASSERT_EQ(run(dir(), {"unmount", dir() / "mnt"}).status, 0);
    }
  }
}

// A daemon that ends takes its own mount down, whatever others have mounted on the same place since.
TEST_F(MountPoints, ADaemonThatEndsLeavesWhatCoversItsMount) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  const OwnFilesystem cover(fs.path(), "tmpfs", "size=1M");
  write_file(fs.path("data"), "x");
  EXPECT_EQ(fs.stop(), 0);
  EXPECT_EQ(read_file(fs.path("data")), "x");
  EXPECT_NE(fs.log().find("below what covers it"), std::string::npos) << fs.log();
  EXPECT_EQ(::umount2(fs.path().c_str(), MNT_DETACH), 0);  // the cover
}

// S105: A daemon that is stopped holds up only programs in its own mount: commands leave it out, or refuse what they
// are asked of it, and say so.
TEST_F(MountTiming, CommandsDoNotWaitForAStoppedDaemon) {
  small_model().write(model("m"));
  const MountedFs& stopped = mount_as("stopped");
  const MountedFs& fs = mount_as("runs");
  ASSERT_EQ(read_whole(fs.path(kInt8)).error, 0);
  fs.wait_until_sealed(kInt8);
  ::kill(stopped.pid(), SIGSTOP);
  // LeakSanitizer stops every thread at the end of a program, and waits for those that wait for the daemon. Our own
  // options were read long ago: this is for the commands.
  ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);  // NOLINT(concurrency-mt-unsafe): one thread
  const std::vector<std::vector<std::string>> commands = {{"ls"}, {"info", fs.path("m/int8")}, {"rm", "m/int8"}};
  for (std::vector<std::string> words : commands) {
    SCOPED_TRACE(words[0]);
    if (words[0] != "info") {
      words.insert(words.end(), {"--cache-dir", cache()});
    }
    const auto begun = std::chrono::steady_clock::now();
    const Said said = run(dir(), words);
    EXPECT_EQ(said.status, 0) << said.text;
    EXPECT_NE(said.text.find(stopped.path() + "' has not answered"), std::string::npos) << said.text;
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
  }
  EXPECT_TRUE(ends(run(dir(), {"info", stopped.path(kInt8)}), exits::kInUse, "does not answer"));
  // Which cache directory is meant nobody guesses where one mount does not tell its own.
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"rm", "m", "--dry-run"}, {"gc", "--dry-run"}}) {
    EXPECT_TRUE(ends(run(dir(), words), exits::kInUse, "say which with --cache-dir")) << words[0];
  }
  EXPECT_TRUE(ends(run(dir(), {"status"}), exits::kMountFailed, "does not answer"));
  EXPECT_TRUE(ends(run(dir(), {"status", stopped.path()}), exits::kMountFailed, "does not answer"));
  EXPECT_TRUE(ends(run(dir(), {"doctor", "--cache-dir", cache()}), 1, "does not answer"));
  for (const std::string& place : {stopped.path(), stopped.path() + '/'}) {
    EXPECT_TRUE(ends(run(dir(), {"mount", models(), place, "--cache-dir", cache()}), exits::kInUse, "already"));
  }
  const std::string inside = stopped.path("m");
  for (const std::vector<std::string>& words : {std::vector<std::string>{"mount", models(), inside},
                                                {"mount", "--over", models(), stopped.path()},
                                                {"unmount", inside},
                                                {"ls", "--cache-dir", inside},
                                                {"rm", inside},
                                                {"pin", inside}}) {
    EXPECT_TRUE(ends(run(dir(), words), exits::kInUse, "does not answer")) << words[0];
  }
  ::kill(stopped.pid(), SIGCONT);
}

// S94: A mount that any program unmounts ends its daemon with status 0. A connection that the kernel has given up ends
// it with another status, with the reason in the log, and the dead mount is cleared.
TEST_F(MountPoints, DaemonsSayHowTheyEnded) {
  small_model().write(model("m"));
  MountedFs& fs = mount();
  // The daemon looks into its own mount, once, to tell that it is ready.
  EXPECT_TRUE(eventually([&] { return ::umount2(fs.path().c_str(), 0) == 0; }));
  EXPECT_TRUE(has_ended(fs));
  EXPECT_EQ(fs.stop(), 0);

  fs.restart();
  {
    const UniqueFd in_use = open_file(fs.path(kInt8));
    EXPECT_EQ(::umount2(fs.path().c_str(), MNT_DETACH), 0);
    EXPECT_EQ(read_at(in_use.get(), 0, 10).error, 0);
    EXPECT_TRUE(fs.running());
  }
  EXPECT_TRUE(has_ended(fs));
  EXPECT_EQ(fs.stop(), 0);

  const OwnFilesystem control(dir() / "control", "fusectl", "");
  for (const bool covered : {false, true}) {
    SCOPED_TRACE(covered);
    fs.restart();
    const auto connection = std::to_string(minor(stat_of(fs.path()).st_dev));
    std::optional<OwnFilesystem> cover;
    if (covered) {
      cover.emplace(fs.path(), "tmpfs", "size=1M");
    }
    write_file(dir() / "control/" + connection + "/abort", "1");
    EXPECT_TRUE(has_ended(fs));
    EXPECT_EQ(fs.stop(), exits::kMountFailed);
    EXPECT_NE(fs.log().find("the kernel has given up the mount on"), std::string::npos) << fs.log();
    EXPECT_EQ(mounts_on(fs.path()), covered ? 2U : 0U);
  }
}

// S97: Every option of mount(8), of the kernel and of libfuse is honoured, means nothing in a mount of qcache, or is
// refused with the reason.
TEST_F(MountPoints, OptionsAreHonouredOrRefused) {
  tiled_model().write(model("m"));
  const auto requests_of_a_megabyte = [&](const std::vector<std::string>& options) {
    MountedFs& fs = mount(options);
    const UniqueFd fd = open_file(fs.path("m/fp32/0.bin"));
    const uint64_t before = fs.status("reads");
    EXPECT_EQ(read_at(fd.get(), 0, 1 << 20).error, 0);
    const uint64_t after = fs.status("reads");
    EXPECT_EQ(fs.stop(), 0);
    return after - before;
  };
  EXPECT_EQ(requests_of_a_megabyte({"-o", "max_read=65536"}), 16U);
  EXPECT_EQ(requests_of_a_megabyte({"-o", "max_read=4096,max_read=131072"}), 8U);
  EXPECT_LE(requests_of_a_megabyte({}), 8U);

  MountedFs& fs = mount({"-o", "ro,nosuid,relatime,noexec,dev,user,nofail"});
  EXPECT_NE(options_of(fs.path()).find(" ro,nosuid,noexec,relatime"), std::string::npos) << options_of(fs.path());
  EXPECT_EQ(fs.stop(), 0);
  fs.restart();
  MountedFs& again = mount_as("again", {"-o", "ro,rw,defaults,exec,noatime"});
  EXPECT_NE(options_of(again.path()).find(" rw,nosuid,nodev,noatime"), std::string::npos) << options_of(again.path());

  for (const char* option : {"auto_unmount", "remount", "uid=0", "gid=0", "umask=0", "allow_root", "max_background=3",
                             "blksize=512", "max_read=1", "max_read=x", "ro=1", "kernel_cache", "fd=3", "bogus"}) {
    const std::string_view name = std::string_view(option).substr(0, std::string_view(option).find('='));
    EXPECT_TRUE(ends(run(dir(), {"mount", "-o", option, "--cache-dir", cache(), models(), dir() / "free"}),
                     exits::kUsage, std::string(name)))
        << option;
  }
}

// S92: It ends with 6 where the mount cannot be made, for whatever reason of the machine's, 7 where one is there
// already, 5 where the cache directory cannot be used, and 2 where its words are wrong.
TEST_F(MountPoints, ExitCodesTellWhatIsWrong) {
  make_directories(dir() / "mnt");
  make_directories(dir() / "closed");
  write_file(dir() / "file", "x");
  ASSERT_EQ(::chmod(dir().path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod((dir() / "closed").c_str(), 0700), 0);
  ASSERT_EQ(::chmod((dir() / "mnt").c_str(), 0777), 0);
  const std::string mnt = dir() / "mnt";
  const auto mount_it = [&](std::vector<std::string> words, const std::vector<std::string>& launcher = {}) {
    words.insert(words.begin(), {"mount", "-o", "cache_dir=" + cache()});
    return run(dir(), words, launcher);
  };
  EXPECT_TRUE(ends(mount_it({dir() / "nowhere", mnt}), exits::kMountFailed, "nowhere"));
  EXPECT_TRUE(ends(mount_it({dir() / "file", mnt}), exits::kMountFailed, "is not a folder"));
  EXPECT_TRUE(ends(mount_it({models(), dir() / "nowhere"}), exits::kMountFailed, "nowhere"));
  EXPECT_TRUE(ends(mount_it({models(), dir() / "file"}), exits::kMountFailed, "is not a folder"));
  EXPECT_TRUE(ends(mount_it({models(), mnt, "--log-file", dir() / "file/log"}), exits::kMountFailed, "file/log"));
  EXPECT_TRUE(ends(mount_it({models(), mnt, "-o", "context=nonsense"}), exits::kMountFailed, "mount failed"));
  EXPECT_TRUE(ends(mount_it({models(), mnt, "--cache-dir", dir() / "file"}), 5, "file"));
  EXPECT_TRUE(ends(mount_it({models(), mnt, "--max-age", "7"}), exits::kUsage, "7d"));

  const std::vector<std::string> without_fuse = {
      "unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"};
  const std::vector<std::string> as_nobody = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
  std::vector<std::string> probe = as_nobody;
  probe.insert(probe.end(), {"test", "-x", MountedFs::program()});
  if (::geteuid() != 0 || run_program(probe, dir() / "said") != 0) {
    GTEST_SKIP() << "needs root, setpriv, and that others may run " << MountedFs::program();
  }
  EXPECT_TRUE(ends(mount_it({models(), mnt}, without_fuse), exits::kMountFailed, "/dev/fuse"));
  make_directories(dir() / "nobody-cache");
  ASSERT_EQ(::chown((dir() / "nobody-cache").c_str(), kNobody, kNobody), 0);
  EXPECT_TRUE(ends(mount_it({models(), mnt, "--cache-dir", dir() / "nobody-cache"}, as_nobody), exits::kMountFailed,
                   "annot mount"));
  ASSERT_EQ(::chmod(models().c_str(), 0700), 0);
  EXPECT_TRUE(ends(mount_it({models(), mnt, "--cache-dir", dir() / "nobody-cache"}, as_nobody), exits::kMountFailed,
                   "the model folder cannot be used"));
  ASSERT_EQ(::chmod(models().c_str(), 0755), 0);
  EXPECT_TRUE(ends(mount_it({models(), dir() / "closed/x", "--cache-dir", dir() / "nobody-cache"}, as_nobody),
                   exits::kMountFailed, "the mount point cannot be used"));
  EXPECT_TRUE(ends(run(dir(), {"mount", "--cache-dir", cache(), models(), dir() / "none"}), exits::kMountFailed,
                   "to mount on: make it first"));
}

// S98: A read takes as long as it takes: where an operator limits how long (`fs.fuse.default_request_timeout`), a
// mount asks the kernel for the longest time that there is, and warns where `fs.fuse.max_request_timeout` allows less.
TEST_F(MountLimits, OneSlowReadDoesNotTakeTheMountDown) {
  tiled_model().write(model("m"));
  MountedFs* fs = nullptr;
  {
    const Sysctl limit("/proc/sys/fs/fuse/default_request_timeout");
    if (!limit.set("15\n")) {
      GTEST_SKIP() << "needs root, and a kernel with fs.fuse.default_request_timeout (Linux 6.15)";
    }
    fs = &mount();
  }
  ::kill(fs->pid(), SIGSTOP);  // the slowest source there is
  Child reader([&] { return read_whole(fs->path(kInt8)).error; });
  // The kernel looks every 15 s, and ends what is 15 s late.
  std::this_thread::sleep_for(std::chrono::seconds(35));
  ::kill(fs->pid(), SIGCONT);
  EXPECT_EQ(reader.wait(), 0);
  EXPECT_TRUE(fs->running());
  EXPECT_EQ(fs->log().find("the kernel ends this mount"), std::string::npos);
}

// S98: A read takes as long as it takes: where an operator limits how long (`fs.fuse.default_request_timeout`), a
// mount asks the kernel for the longest time that there is, and warns where `fs.fuse.max_request_timeout` allows less.
TEST_F(MountLimits, AShorterLimitIsToldWhenMounting) {
  MountedFs* fs = nullptr;
  {
    const Sysctl limit("/proc/sys/fs/fuse/max_request_timeout");
    if (!limit.set("7200\n")) {
      GTEST_SKIP() << "needs root, and a kernel with fs.fuse.max_request_timeout (Linux 6.15)";
    }
    fs = &mount();
  }
  EXPECT_NE(fs->log().find("the kernel ends this mount when one read takes longer than 7200 s"), std::string::npos)
      << fs->log();
}

// A user takes down what that user has mounted; why that fails is told apart.
TEST_F(MountPoints, UsersUnmountTheirOwn) {
  // Among mounts of its own, so that where only root may open /dev/fuse there can be one for everybody.
  const std::string scenario = R"sh(
    nobody='setpriv --reuid=65534 --regid=65534 --clear-groups'
    qcache=$1 folder=$2
    mount -t tmpfs none "$folder/dev" && mknod -m 666 "$folder/dev/fuse" c 10 229 &&
      mount --bind "$folder/dev/fuse" /dev/fuse || exit 90
    $nobody sh -c 'fusermount3 --version && true 3<>/dev/fuse && test -x "$0"' "$qcache" || exit 90
    $nobody "$qcache" mount --cache-dir "$folder/nobody-cache" "$folder/models" "$folder/nobody" || exit 10
    trap 'umount -l "$folder/nobody"' EXIT
    "$qcache" mount --cache-dir "$folder/cache" "$folder/models" "$folder/nobody"; [ $? = 7 ] || exit 11
    $nobody sh -c 'exec 3<"$1/m/int8/0.bin"; "$0" unmount "$1"' "$qcache" "$folder/nobody"; [ $? = 7 ] || exit 12
    "$qcache" mount --cache-dir "$folder/cache" "$folder/models" "$folder/roots" || exit 13
    $nobody "$qcache" unmount "$folder/roots"; [ $? = 6 ] || exit 14
    [ "$("$qcache" unmount "$folder/models" 2>&1)" = "$($nobody "$qcache" unmount "$folder/models" 2>&1)" ] || exit 19
    $nobody "$qcache" info "$folder/roots/m" 2>&1 | grep "lets nobody else look" || exit 17
    $nobody "$qcache" status | grep "another user's" || exit 18
    "$qcache" unmount "$folder/roots" || exit 15
    for i in 1 2 3 4 5 6 7 8 9; do $nobody "$qcache" unmount "$folder/nobody" && break; sleep 0.2; done
    grep -q " $folder/nobody " /proc/self/mountinfo && exit 16
    trap '' EXIT
    exit 0)sh";
  ASSERT_EQ(::chmod(dir().path().c_str(), 0755), 0);
  small_model().write(model("m"));
  for (const char* name : {"dev", "roots", "nobody", "nobody-cache"}) {
    make_directories(dir() / name);
  }
  if (::geteuid() != 0 || ::chown((dir() / "nobody").c_str(), kNobody, kNobody) != 0 ||
      ::chown((dir() / "nobody-cache").c_str(), kNobody, kNobody) != 0) {
    GTEST_SKIP() << "needs root, to become another user";
  }
  const int status = run_program({"unshare", "--mount", "sh", "-c", scenario, "sh", MountedFs::program(), dir().path()},
                                 dir() / "said");
  const std::string said = read_file(dir() / "said");
  if (status == 90) {
    GTEST_SKIP() << "needs a mount namespace, setpriv, fusermount3, and that others may run " << MountedFs::program()
                 << ": " << said;
  }
  EXPECT_EQ(status, 0) << said;
  EXPECT_NE(said.find("files in it are open"), std::string::npos) << said;
  EXPECT_NE(said.find("user 0 mounted it"), std::string::npos) << said;
}

}  // namespace
}  // namespace qcache
